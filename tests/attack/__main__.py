"""`python -m tests.attack [NAME …]`: the real daemon under attack, and what became of its honest neighbours.

Each attack gets a daemon of its own, a few seconds of peace and then its time. Exit status: 0 when nothing was wrong.
"""

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from uuid import uuid4

from tests.attack.attacks import ATTACKS, Many
from tests.attack.stage import alone
from tests.kafka_broker import ladder

LINE = "{:<13} {:>11} {:>13} {:>15} {:>15} {:>9} {:>11}"


def arguments():
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(ATTACKS)}")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each attack")
    parser.add_argument("--journal", choices=("sqlite", "kafka"), default="sqlite")
    options = parser.parse_args()
    if unknown := set(options.names) - set(ATTACKS):
        parser.error(f"no attack is called {', '.join(sorted(unknown))}")
    return options


def both(one, other, places=0):
    return f"{one:.{places}f} -> {other:.{places}f}"


def line(verdict):
    peace, attack = verdict.peace, verdict.attack
    return LINE.format(
        verdict.name,
        both(peace.polls, attack.polls, 1),
        both(peace.p50 * 1e3, attack.p50 * 1e3, 1),
        both(peace.p99 * 1e3, attack.p99 * 1e3, 1),
        both(peace.healthz * 1e3, attack.healthz * 1e3),
        f"{attack.memory - peace.memory:+.0f}",
        both(peace.cpu, attack.cpu, 2),
    )


def run(options):
    print(LINE.format("attack", "polls/s", "p50 ms", "p99 ms", "healthz ms", "MB", "cores"))
    bad = 0
    names = options.names or list(ATTACKS)
    if options.journal:
        names = [name for name in names if not issubclass(ATTACKS[name], Many)]  # whose balances stand in a file
    for name in names:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            attack = ATTACKS[name]()
            if options.journal:
                attack.kafka = {"topic_prefix": f"attack-{uuid4().hex[:8]}."}
            verdict = pool.submit(alone, attack, seconds=options.seconds, journal=options.journal).result()
        print(line(verdict), f" {verdict.told}", flush=True)
        harm = verdict.wrong + verdict.late
        for text in harm:
            print(f"    WRONG: {text}", flush=True)
        bad += bool(harm)
    print(f"{bad} of {len(names)} attacks did harm")
    return int(bad > 0)


def main():
    options = arguments()
    if options.journal == "sqlite":
        options.journal = None
        return run(options)
    with ladder() as broker:
        options.journal = f"kafka://{broker.address}"
        return run(options)


if __name__ == "__main__":
    sys.exit(main())
