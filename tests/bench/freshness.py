"""Benchmark `sched-v1` as a simulation: who polls what when, and how long each change then waited to be seen.

Three contestants spend the same evenly spaced requests: round robin, the square-root oracle that knows the long-run
rates beforehand, and the product's own Schedule, fed through a fake clock (pick → what changed → report).
"""

import heapq
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.bench.streams import RECORD, SECONDS, TARGETS
from watcher.scheduling.schedule import Schedule

CYCLE = 60.0
WINDOW = (7200.0, 27300.0)  # changes measured: after a warm-up, and early enough to be seen before the end


@dataclass(frozen=True)
class Stream:
    """Changes sorted by time: seconds and target of each."""

    times: np.ndarray
    ids: np.ndarray
    targets: int = TARGETS
    seconds: float = SECONDS

    @classmethod
    def of(cls, records: np.ndarray) -> "Stream":
        return cls(records["ms"] / 1000.0, records["target"].astype(np.int64))

    @classmethod
    def load(cls, path: Path) -> "Stream":
        return cls.of(np.fromfile(path, dtype=RECORD))

    def by_target(self) -> list[list[float]]:
        """The change times of each target, with an end that never comes."""
        lists: list[list[float]] = [[] for _ in range(self.targets)]
        for i, t in zip(self.ids.tolist(), self.times.tolist(), strict=True):
            lists[i].append(t)
        return [[*times, float("inf")] for times in lists]


@dataclass(frozen=True)
class Polls:
    """Every poll of a run: its time in seconds and its target."""

    times: np.ndarray
    ids: np.ndarray


@dataclass(frozen=True)
class Score:
    mean: float  # seconds from a change to the poll that saw it
    p95: float
    p99: float
    missed: float  # share of the changes that were overwritten before anyone looked
    max_staleness_cycles: float


def clock(stream: Stream, cycle: float, batch: int = 1) -> np.ndarray:
    step = cycle * batch / stream.targets
    return np.arange(int(stream.seconds / step)) * step


def round_robin(stream: Stream, cycle: float = CYCLE, batch: int = 1) -> Polls:
    """Fixed chunks of `batch`, one after the other."""
    times = np.repeat(clock(stream, cycle, batch), batch)
    return Polls(times, np.arange(len(times)) % stream.targets)


def oracle(stream: Stream, cycle: float = CYCLE) -> Polls:
    """Polls in proportion to the square root of rates counted from the stream itself: a stride heap."""
    counts = np.bincount(stream.ids, minlength=stream.targets)
    strides = [n**-0.5 if n else 1e9 for n in counts.tolist()]
    spread = random.Random(1)
    heap = [(spread.random() * stride, i) for i, stride in enumerate(strides)]
    heapq.heapify(heap)
    times, order = clock(stream, cycle), []
    for _ in range(len(times)):
        key, i = heap[0]
        order.append(i)
        heapq.heapreplace(heap, (key + strides[i], i))
    return Polls(times, np.array(order))


def product(stream: Stream, schedule: Schedule[int], cycle: float = CYCLE, batch: int = 1) -> Polls:
    changes, times, order = stream.by_target(), [], []
    upcoming = [own[0] for own in changes]
    pick, report = schedule.pick, schedule.report
    for now in clock(stream, cycle, batch).tolist():
        for i in pick(now, batch):
            changed = upcoming[i] <= now
            if changed:
                upcoming[i] = changes[i][bisect_right(changes[i], now)]
            report(i, now, changed)
            order.append(i)
            times.append(now)
    return Polls(np.array(times), np.array(order))


def cold(seed: int, targets: int = TARGETS) -> Schedule[int]:
    return Schedule(range(targets), seed=seed, now=0.0)


def delays(stream: Stream, polls: Polls, window: tuple[float, float] = WINDOW) -> tuple[np.ndarray, np.ndarray]:
    """Of each change in the window: seconds until the poll that saw it, and that poll's number."""
    far = stream.seconds * 4  # one axis for all targets: target * far + time
    seen = np.sort(polls.ids * far + polls.times)
    inside = (stream.times >= window[0]) & (stream.times < window[1])
    wanted = stream.ids[inside] * far + stream.times[inside]
    number = np.searchsorted(seen, wanted - 1e-7)
    return np.maximum(0.0, seen[number] - wanted), number


def score(stream: Stream, polls: Polls, cycle: float = CYCLE) -> Score:
    waited, number = delays(stream, polls)
    p95, p99 = np.percentile(waited, [95, 99])
    return Score(
        mean=float(waited.mean()),
        p95=float(p95),
        p99=float(p99),
        missed=1 - len(np.unique(number)) / len(number),
        max_staleness_cycles=staleness(stream, polls) / cycle,
    )


def staleness(stream: Stream, polls: Polls) -> float:
    """The longest that any target went unread, in seconds, the start and the end of the run included."""
    order = np.lexsort((polls.times, polls.ids))
    ids, times = polls.ids[order], polls.times[order]
    edges = np.arange(stream.targets)
    ids = np.concatenate([ids, edges, edges])
    times = np.concatenate([times, np.zeros(len(edges)), np.full(len(edges), stream.seconds)])
    order = np.lexsort((times, ids))
    ids, times = ids[order], times[order]
    return float(np.diff(times)[ids[1:] == ids[:-1]].max())


def largest_window(times: Sequence[float], seconds: float) -> int:
    """The most requests in any half-open window of so many seconds."""
    spans = np.asarray(times)
    return int((np.searchsorted(spans, spans + seconds - 1e-9) - np.arange(len(spans))).max())
