"""Prove the rules of a hand-over for a bound, or show what happens without one of them: `make model ARGS="--late 2"`."""

import argparse
import sys
import time

from tests.fleet_model.explorer import Proof, explore
from tests.fleet_model.model import RULES, Model


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet_model", description=__doc__)
    parser.add_argument("--late", type=int, default=2, help="ticks of a lease, and for which grants may go unsaved")
    parser.add_argument("--window", type=int, default=4, help="ticks of the provider's window")
    parser.add_argument("--requests", type=int, default=2, help="requests in a window")
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--without", choices=list(RULES), help="leave out this rule, and show what happens")
    given = parser.parse_args()
    began = time.perf_counter()
    result = explore(Model(given.late, given.window, given.requests, given.members, given.without))
    seconds = time.perf_counter() - began
    if isinstance(result, Proof):
        print(f"proved: {result.states:,} states, {result.steps:,} steps, {seconds:.1f} s")
        return given.without is not None
    print(*result.way, result.reason, sep="\n")
    return given.without is None


if __name__ == "__main__":
    sys.exit(main())
