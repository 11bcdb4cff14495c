"""`python -m tests.chaos --journal sqlite|kafka --seconds N --seed S`: seeded faults against the real daemon.

`--fleet N` runs N members of one group instead, before many credentials (1: an exclusive instance before the same), and
judges limits, overlap and gaps too.

`--control NAME` plants a fault in the daemon that the checker must see. Exit status: 0 as it must be (no violation,
or with a control at least one), 1 otherwise.
"""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos import fleet_faults, fleet_run
from tests.chaos.faults import FAULTS
from tests.chaos.planted import CONTROLS, FAULTS_FOR, HARMLESS
from tests.chaos.run import chaos


def arguments():
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--journal", choices=tuple(FAULTS), default="sqlite")
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults; starting and settling come on top")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--rate",
        type=float,
        default=200.0,
        help="moves a second in the sandbox, beside the listing that moves when it is looked at",
    )
    parser.add_argument("--faults", help=f"only these, comma-separated: {', '.join(names())}; a control has its own")
    parser.add_argument("--brisk", action="store_true", help="no look at hot balances after each fault: more of these")
    parser.add_argument("--provider-faults", default="none", help="as `watcher sandbox --faults` takes them")
    parser.add_argument("--fleet", type=int, metavar="N", help="so many members on Kafka instead of one daemon")
    parser.add_argument("--static", action="store_true", help="members of a fleet with lasting names")
    parser.add_argument("--control", choices=sorted({name for names in CONTROLS.values() for name in names}))
    parser.add_argument("--keep", action="store_true", help="leave the folder with logs and database behind")
    return parser.parse_args()


def names():
    return sorted({fault.__name__ for faults in FAULTS.values() for fault in faults} | set(fleet_faults.EVERY))


def show(report):
    print(f"\n{report.faults.total()} faults in {report.seconds:.0f} s: ", end="")
    print(", ".join(f"{count} {name}" for name, count in report.faults.most_common()))
    if report.network:
        print("network:", ", ".join(f"{count} {name}" for name, count in report.network.items()))
    checker = report.final or report.witnessed
    if checker:
        print(f"{checker.events} events, {checker.states} state records, {checker.keys} keys; {crossings_of(checker)}")
    print(
        f"violations: {report.violations.total()}" + "".join(f"\n  {n} × {law}" for law, n in report.violations.items())
    )
    for example in report.examples if checker else ():
        print("   ", example)
    if report.trouble:
        print("trouble:", report.trouble)


def crossings_of(checker):
    found = checker.crossings.directions
    return f"{found.total()} crossings ({', '.join(f'{count} {name}' for name, count in found.most_common())})"


def show_fleet(report):
    print(f"\n{report.faults.total()} events in {report.seconds:.0f} s, {report.requests} requests: ", end="")
    print(", ".join(f"{count} {name}" for name, count in report.faults.most_common()))
    print(f"moves: {report.judge.moves}")
    for kind, (providers, seconds, allowed) in report.gaps().items():
        others = report.judge.others.get(kind)
        beside = f", the others at {others:.2f} x their delay" if others else ""
        print(f"  {kind}: {providers} providers unpolled for up to {seconds:.1f} s (allowed {allowed:.1f}){beside}")
    if report.checker:
        checker = report.checker
        print(f"{checker.events} changes, {checker.states} state records, {checker.keys} keys; {crossings_of(checker)}")
    print(
        f"violations: {report.violations.total()}" + "".join(f"\n  {n} × {law}" for law, n in report.violations.items())
    )
    for example in report.examples:
        print("   ", example)
    if report.trouble:
        print("trouble:", report.trouble)


async def run(folder, options):
    """SIGTERM ends the run as Ctrl-C does: everything that it started goes with it."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    chosen = FAULTS_FOR["fleet" if options.fleet else options.journal].get(options.control)
    only = options.faults.split(",") if options.faults else chosen
    if options.fleet:
        return await fleet_run.chaos(
            folder, seconds=options.seconds, seed=options.seed, size=options.fleet, rate=options.rate,
            faults=options.provider_faults, static=options.static, control=options.control, only=only,
        )  # fmt: skip
    return await chaos(
        folder, options.journal, seconds=options.seconds, seed=options.seed, rate=options.rate,
        faults=options.provider_faults, control=options.control, only=only, brisk=options.brisk,
    )  # fmt: skip


def main():
    options = arguments()
    folder = Path(tempfile.mkdtemp(prefix="watcher-chaos-"))
    try:
        report = asyncio.run(run(folder, options))
    except (KeyboardInterrupt, asyncio.CancelledError):
        shutil.rmtree(folder)
        return 130
    (show_fleet if options.fleet else show)(report)
    if options.keep or report.trouble:
        print("logs:", folder)
    else:
        shutil.rmtree(folder)
    if options.control in HARMLESS:
        return int(report.seen or not report.faults)
    if options.control:
        return int(not (report.seen if options.fleet else report.violations))
    return int(not report.good)


if __name__ == "__main__":
    sys.exit(main())
