"""What a fleet costs, in one run: `python -m tests.bench.fleet [seconds]`.

Three members against one exclusive instance that does the same work: 25 credentials at the full pace of their limits, on a
broker of its own. Processor time of all processes of the watcher, for each request; in turns, the least of two each. They
poll and serve no relay (`--only pollers`): each relay reads the whole log, so three of them are three times that work.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from tests.chaos.fleet_system import running
from tests.kafka_broker import NoBroker

GOAL = 1.3
TURNS = 2
WARM = 10.0
"""Seconds until the first readings, and the joins, are over."""
TICK = os.sysconf("SC_CLK_TCK")


def spent(fleet):
    """Seconds of processor time of all members."""
    stats = [Path(f"/proc/{member.daemon.process.pid}/stat").read_text().rpartition(")")[2] for member in fleet.live]
    return sum(int(ticks) for stat in stats for ticks in stat.split()[11:13]) / TICK


async def cost(size, seconds):
    """(milliseconds of processor time a request, requests a second)."""
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder), seed=1, size=size, rate=20.0, arguments=("--only", "pollers")) as fleet:
            await asyncio.sleep(WARM)
            before, asked = spent(fleet), len(fleet.arrivals)
            await asyncio.sleep(seconds)
            after, asked = spent(fleet), len(fleet.arrivals) - asked
            return (after - before) / asked * 1000, asked / seconds


def measured(seconds):
    """Processes → costs of each turn."""
    found = {1: [], 3: []}
    for _ in range(TURNS):
        for size, costs in found.items():
            costs.append(asyncio.run(cost(size, seconds)))
            print(f"{size} process(es): {costs[-1][0]:.2f} ms a request, {costs[-1][1]:.1f} requests/s", flush=True)
    return found


def main(argv):
    try:
        found = measured(float(argv[0]) if argv else 30.0)
    except* NoBroker as reason:
        print(f"no broker: {reason.exceptions[0]}")
    else:
        print(f"three members: {min(found[3])[0] / min(found[1])[0]:.2f} x one (goal {GOAL})")


if __name__ == "__main__":
    main(sys.argv[1:])
