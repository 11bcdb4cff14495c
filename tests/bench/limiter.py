"""Saturation: how much of a limit is used, and how many requests are refused, at a provider that counts arrivals.

    python -m tests.bench.limiter

Each provider's default limits, and some more, behind a network of 30 ms (median, one way, log-normal jitter), in
virtual time, with the product's own Budget and Schedule. Half-way the process is killed and started again from what
it had saved a second before. `blind` is the longest that any watch went unread, beside an even turn.
"""

import heapq
import itertools
import random
import sys
from collections import deque
from math import inf
from typing import NamedTuple

from watcher.limits.budget import Budget
from watcher.limits.lease import LATE
from watcher.limits.windows import Limit
from watcher.scheduling.schedule import Schedule

WALL = 1_790_000_000_000_000
WATCHES = 12


class Case(NamedTuple):
    name: str
    limits: list[Limit]
    cost: float
    seconds: float
    goal: float


CASES = [
    Case("Helius 10/1 s", [Limit(10, 1.0)], 1, 600.0, 0.92),
    Case("Ondo 1/1 s", [Limit(1, 1.0)], 1, 600.0, 0.92),
    Case("Jupiter 60/60 s", [Limit(60, 60.0)], 1, 3600.0, 0.99),
    Case("bloXroute 60/60 s at 5", [Limit(60, 60.0)], 5, 3600.0, 0.99),
    Case("Jupiter Pro 9000/60 s", [Limit(9000, 60.0)], 1, 600.0, 0.99),
    Case("50/10 s", [Limit(50, 10.0)], 1, 1200.0, 0.97),
    Case("10/1 s and 300/60 s", [Limit(10, 1.0), Limit(300, 60.0)], 1, 3600.0, 0.99),
    Case("TokenKit 1/10 s", [Limit(1, 10.0)], 1, 7200.0, 0.99),
]


class Provider:
    """Counts every window as its requests arrive. Calls of one weight, so windows are counted in calls."""

    def __init__(self, limits: list[Limit], cost: float) -> None:
        self._windows = [(int(limit.requests / cost), limit.per, deque[float]()) for limit in limits]
        self.refused = 0

    def arrive(self, now: float) -> None:
        refused = False
        for calls, per, seen in self._windows:
            while seen and seen[0] <= now - per:
                seen.popleft()
            seen.append(now)
            refused |= len(seen) > calls
        self.refused += refused


class Figures(NamedTuple):
    arrivals: list[float]
    restart: float
    blind: float
    refused: int


class World:
    """One process after another, in virtual time."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.dice = random.Random(case.name)
        self.arrivals: list[float] = []
        self.unread: dict[int, float] = dict.fromkeys(range(WATCHES * max(1, int(case.limits[0].requests) // 100)), 0.0)
        self.blind = 0.0
        self._tick = itertools.count()

    def delay(self) -> float:
        return 0.03 * self.dice.lognormvariate(0.0, 0.4)

    def live(self, start: float, end: float, note: bytes | None) -> bytes:
        """From start to end; gives what was last saved: once a second, so never the last of it."""
        budget = Budget(self.case.limits, cost=self.case.cost)
        if note is not None:
            budget.restore(note, start, WALL + int(start * 1e6), released=False, begin=start + LATE)
        schedule = Schedule(list(self.unread), seed=1, now=start)
        ends: list[tuple[float, int, int, object]] = []
        now, save_at, note = start, start, b""
        while now < end:
            if now >= save_at:
                note, save_at = budget.save(now, WALL + int(now * 1e6)), now + 1.0
                budget.mark_saved()
            while ends and ends[0][0] <= now:
                _, _, target, slot = heapq.heappop(ends)
                budget.settle(slot, now)
                schedule.report(target, now, False)
                self.blind = max(self.blind, now - self.unread[target])
                self.unread[target] = now
            ready = budget.ready_at(now)
            if ready <= now and (picked := schedule.pick(now)):
                there = self.delay()
                self.arrivals.append(now + there)
                heapq.heappush(ends, (now + there + self.delay(), next(self._tick), picked[0], budget.grant(now)))
                continue
            now = min(ready if ready > now else inf, save_at, ends[0][0] if ends else inf)
        return note

    def figures(self) -> Figures:
        half = self.case.seconds / 2
        note = self.live(0.0, half, None)
        self.live(half + 1.0, self.case.seconds, note)
        provider = Provider(self.case.limits, self.case.cost)
        for arrival in sorted(self.arrivals):
            provider.arrive(arrival)
        after = min((arrival for arrival in self.arrivals if arrival > half + 1), default=inf)
        return Figures(sorted(self.arrivals), after - half, self.blind, provider.refused)


def used(case: Case, arrivals: list[float], start: float, end: float) -> float:
    """Of the binding limit, while saturated."""
    rate = min(limit.requests / limit.per for limit in case.limits) / case.cost
    inside = [arrival for arrival in arrivals if start <= arrival < end]
    return (len(inside) - 1) / (inside[-1] - inside[0]) / rate


def main(_argv: list[str]) -> int:
    print(f"{'limit':<24} {'used':>7} {'goal':>6} {'after kill':>10} {'refused':>8} {'blind/turn':>10} {'silent':>8}")
    missed = 0
    for case in CASES:
        world = World(case)
        figures = world.figures()
        half, warm = case.seconds / 2, max(limit.per for limit in case.limits)
        before = used(case, figures.arrivals, warm, half)
        after = used(case, figures.arrivals, half + figures.restart, case.seconds)
        turn = len(world.unread) * max(limit.per * case.cost / limit.requests for limit in case.limits)
        missed += figures.refused > 0 or min(before, after) < case.goal
        print(
            f"{case.name:<24} {before:7.2%} {case.goal:6.0%} {after:10.2%} {figures.refused:8d} "
            f"{figures.blind / turn:10.2f} {figures.restart:7.2f}s"
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
