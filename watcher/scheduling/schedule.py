"""Which watch to ask about next: the two-rate Gamma rule (docs/freshness.md says why). Pure: time is given.

A heap in virtual time gives each target polls in proportion to rate^0.45, with the rates that its answers teach; a
fixed share of the polls goes to whichever target has gone unread the longest, so that no belief can starve anyone.
Times are monotonic seconds. A target is in exactly one place: resting (in the ring, and in the heap once it is
`min_interval` old), in flight, or waiting for a due time (a retry, or the confirmation of a candidate).
"""

import hashlib
import heapq
import random
import sys
from array import array
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from itertools import compress
from math import exp
from typing import Generic, TypeVar

import msgspec

from watcher.scheduling.change_rates import FAST, ODDS_MEMORY, SHAPES, ChangeRates
from watcher.scheduling.queues import FIXED_POINT, LastReadRing, TargetIndex, VirtualTimeHeap

T = TypeVar("T", bound=Hashable)

GUARANTEE = 0.25  # the share of polls for the longest unread: nobody waits longer than 4 cycles
LEAST_GUARANTEE = 0.1  # however generous max_interval is
SLOW = 6 * 3600.0  # seconds of slow evidence
TINY_GAP = 1e-6  # seconds: two answers at one instant still need a likelihood
RESTING, IN_FLIGHT, WAITING = range(3)
READ, GUARANTEED, WANTED = 1, 2, 4  # flags: has a baseline; this poll was a guarantee poll; confirm after this answer
_IS_READ = bytes(flags & READ for flags in range(256))


class Schedule(Generic[T]):
    """The targets of one budget, and who is next.

    max_interval: seconds within which every target should be read; sets how much of the budget is spent on that.
    min_interval: seconds before which no target is read again; when all are younger, the request is left unused.
    name: what identifies a target in `save`, so that a later watch list finds its own again.
    """

    def __init__(
        self,
        targets: Sequence[T],
        *,
        seed: int,
        now: float,
        max_interval: float | None = None,
        min_interval: float = 0.0,
        name: Callable[[T], str] = str,
    ) -> None:
        self._targets = list(dict.fromkeys(targets))
        self._max_interval = max_interval
        self._min_interval = min_interval
        size = len(self._targets)
        self._index = TargetIndex(self._targets)
        self._names = array("Q", (_digest(name(target)) for target in self._targets))  # now: `save` must be quick
        self._beliefs = ChangeRates(size)
        self._last = array("d", [now]) * size
        self._state, self._flags, self._tries = bytearray(size), bytearray(size), bytearray(size)
        self._waiting: list[tuple[float, int]] = []  # a heapq of (due, target): the few that retry or confirm
        self._virtual = 0.0
        self._owed = 0.0  # guarantee polls
        self._jumped = False
        self._share = GUARANTEE
        self._pace = _Pace(max(100, size))
        self._random = random.Random(seed)  # noqa: S311 (spreads the first sweep, hides nothing)
        order = list(range(size))
        self._random.shuffle(order)
        self._line_up(order, [(rank + 1) / size for rank in range(size)], now)

    def __len__(self) -> int:
        return len(self._targets)

    def pick(self, now: float, most: int = 1) -> list[T]:
        """Up to `most` targets for the request that may be sent now; in flight until `report` or `failed`."""
        self._ripen(now)
        chosen: list[T] = []
        while len(chosen) < most and (i := self._choose(now)) >= 0:
            self._state[i] = IN_FLIGHT
            chosen.append(self._targets[i])
        if chosen:
            self._pace.tick(now, len(chosen))
        elif self.next_at(now) is not None:
            self._pace.rest()
        if self._max_interval is not None and (cycle := self.cycle(now)):
            self._share = min(1.0, max(LEAST_GUARANTEE, cycle / self._max_interval))
        return chosen

    def next_at(self, now: float) -> float | None:
        """When `pick` will have something, not before now. None: nothing until an answer comes back."""
        if not self._heap.empty():
            return now
        dues = [self._waiting[0][0]] if self._waiting else []
        if self._fresh >= 0:
            dues.append(self._last[self._fresh] + self._min_interval)
        return max(now, min(dues)) if dues else None

    def report(self, target: T, now: float, changed: bool) -> None:  # noqa: FBT001 (the one thing an answer says)
        """The answer came; `changed` if it told a change. A target's first answer is its baseline, never a change."""
        i = self._landed(target)
        beliefs, flags = self._beliefs, self._flags[i]
        if flags & READ:
            gap = max(TINY_GAP, now - self._last[i])
            guaranteed = flags & GUARANTEED > 0
            slow = max(SLOW, 50 * self._pace.seconds * len(self._targets))
            stride = beliefs.learn(i, gap, changed, guaranteed, slow)
        else:
            stride = beliefs.stride(i)
        self._last[i] = now
        self._tries[i] = 0
        self._flags[i] = READ
        self._heap.key[i] = -(self._virtual + stride)
        if flags & WANTED:
            self._wait(i, now + self._min_interval)
        else:
            self._rest(i)

    def failed(self, target: T, now: float, *, blameless: bool = False) -> None:
        """No answer: ask again at once, then after 1, 2, 4, 8, 8... average cycles. Teaches nothing of its rate.

        `blameless`: everything fails, so ask again after one cycle at the latest.
        """
        self._again(target, now, most=2 if blameless else 5, least=0.0)

    def outdated(self, target: T, now: float) -> None:
        """The answer is older than what is known, so the target is as unread as before: ask again soon.

        Not before `min_interval`, and after the first time once in an average cycle. Teaches nothing of its rate.
        """
        self._again(target, now, most=2, least=self._min_interval)

    def _again(self, target: T, now: float, *, most: int, least: float) -> None:
        i = self._landed(target)
        self._flags[i] &= READ
        self._tries[i] = tries = min(self._tries[i] + 1, most)
        self._wait(i, now + max(least, 0.0 if tries == 1 else self.cycle(now) * 2 ** (tries - 2)))

    def failing(self, target: T) -> bool:
        """Whether its last poll failed."""
        return self._tries[self._index.find(target)] > 0

    def forgive(self, targets: Iterable[T], now: float) -> None:
        """What made these fail is over: their retries are due now, the longest unread first, at the usual pace."""
        forgiven = {i for i in map(self._index.find, targets) if self._state[i] == WAITING and self._tries[i]}
        dues = {
            i: now + rank * self._pace.seconds for rank, i in enumerate(sorted(forgiven, key=self._last.__getitem__))
        }
        for i in forgiven:
            self._tries[i] = 1
        self._waiting = [(min(due, dues.get(i, due)), i) for due, i in self._waiting]
        heapq.heapify(self._waiting)

    def candidate(self, target: T) -> None:
        """Its last answer is in doubt: the next poll confirms it, not before `min_interval`."""
        i = self._index.find(target)
        if self._state[i] == IN_FLIGHT:
            self._flags[i] |= WANTED
        elif self._state[i] == RESTING:
            self._leave(i)
            self._wait(i, self._last[i] + self._min_interval if self._flags[i] & READ else self._last[i])

    def cycle(self, now: float) -> float:
        """Seconds in which the budget achieved of late could read every target once; 0 while that is unknown."""
        return max(self._pace.at(now) * len(self._targets), self._min_interval) if self._targets else 0.0

    def expected_mean_delay(self, now: float) -> float:
        """Seconds from a change to the answer that shows it, on average, as the changes told of late suffered it."""
        beliefs = self._beliefs
        return (self.cycle(now) / 2 + beliefs.delay) / (1 + beliefs.told)

    def stalest(self, now: float) -> tuple[T, float] | None:
        """The target unread the longest and for how many seconds (since the start, if never). Looks at all of them."""
        if not self._targets:
            return None
        oldest = min(self._last)
        return self._targets[self._last.index(oldest)], now - oldest

    @property
    def guarantee(self) -> float:
        """The share of polls that goes to the longest unread: no target waits longer than cycle / guarantee."""
        return self._share

    def save(self, now: float) -> bytes:
        """What has been learned, about 32 bytes a target."""
        saving = self.saving(now)
        while True:
            try:
                next(saving)
            except StopIteration as saved:
                return bytes(saved.value)

    def saving(self, now: float) -> Generator[None, None, bytes]:
        """As `save`, in eight steps: with 100,000 targets each takes some 10 ms, and polls may go on in between."""
        known, beliefs = self._flags.translate(_IS_READ), self._beliefs
        names = array("Q", compress(self._names, known)).tobytes()
        yield
        ages = _pack(now - last for last in compress(self._last, known))
        columns = []
        for column in beliefs.columns():
            yield
            columns.append(_pack(compress(column, known)))
        yield
        return msgspec.msgpack.encode(
            _Saved(
                pace=self._pace.seconds,
                changes=beliefs.changes,
                seconds=beliefs.seconds,
                scores=list(beliefs.scores),
                told=beliefs.told,
                delay=beliefs.delay,
                names=names,
                columns=columns,
                ages=ages,
            )
        )

    def restore(self, data: bytes, downtime: float, now: float) -> None:
        """Before the first pick: take up what `save` gave `downtime` seconds ago, faded by that time.

        A downtime below 0 (the wall clock was set back) counts as 0. Targets it does not know are due at once. Raises ValueError for bytes that `save` did not write.
        """
        saved, downtime = msgspec.msgpack.decode(data, type=_Saved), max(0.0, downtime)
        found = {name: k for k, name in enumerate(array("Q", saved.names))}
        columns, ages = [_unpack(c, len(found)) for c in saved.columns], _unpack(saved.ages, len(found))
        beliefs = self._beliefs
        beliefs.changes, beliefs.seconds, beliefs.scores = saved.changes, saved.seconds, list(saved.scores)
        beliefs.told, beliefs.delay = saved.told, saved.delay
        beliefs.settle_unit()
        self._pace.restore(saved.pace)
        cycle = saved.pace * len(self._targets)
        slow, fast = exp(-downtime / max(SLOW, 50 * cycle)), exp(-downtime / FAST)
        odds = exp(-downtime / (ODDS_MEMORY * cycle)) if cycle else 1.0
        keys = [0.0] * len(self._targets)
        for i, name in enumerate(self._names):
            if (k := found.get(name)) is not None:
                self._flags[i] = READ
                self._last[i] = now - downtime - ages[k]
                for column, values, fade in zip(
                    beliefs.columns(), columns, (slow, slow, fast, fast, odds), strict=True
                ):
                    column[i] = values[k] * fade
                keys[i] = self._random.random() * beliefs.stride(i)
        order = sorted(range(len(self._targets)), key=lambda i: (self._flags[i], self._last[i]))
        self._line_up(order, [keys[i] for i in order], now)

    def _line_up(self, order: Sequence[int], keys: Sequence[float], now: float) -> None:
        self._ring, self._heap, self._fresh = LastReadRing(len(order)), VirtualTimeHeap(len(order)), -1
        for i, key in zip(order, keys, strict=True):
            self._heap.key[i] = -max(key, 1 / FIXED_POINT)
            self._rest(i)
            if not self._flags[i] & READ:  # it has no last reading to be too close to
                self._fresh = -1
                self._heap.push(i)
        self._ripen(now)

    def _rest(self, i: int) -> None:
        self._state[i] = RESTING
        self._ring.append(i)
        if self._fresh < 0:
            self._fresh = i

    def _ripen(self, now: float) -> None:
        # The ring is ordered by last reading, so those too fresh for the heap are its end, from _fresh on.
        i = self._fresh
        while i >= 0 and self._last[i] + self._min_interval <= now:
            self._heap.push(i)
            i = self._ring.after(i)
        self._fresh = i

    def _leave(self, i: int) -> None:
        if i == self._fresh:
            self._fresh = self._ring.after(i)
        self._heap.remove(i)
        self._ring.unlink(i)

    def _wait(self, i: int, due: float) -> None:
        self._state[i] = WAITING
        heapq.heappush(self._waiting, (due, i))

    def _landed(self, target: T) -> int:
        i = self._index.find(target)
        if self._state[i] != IN_FLIGHT:
            raise ValueError(f"answered but never picked: {target}")
        return i

    def _choose(self, now: float) -> int:
        """The next target, or -1. A retry or confirmation goes first, but never twice past an owed guarantee poll."""
        urgent = bool(self._waiting) and self._waiting[0][0] <= now
        if not urgent and self._heap.empty():
            return -1
        self._owed = min(2.0, self._owed + (1.0 if self._beliefs.surprised else self._share))
        if urgent and (self._owed < 1 or not self._jumped or self._heap.empty()):
            self._jumped = True
            return heapq.heappop(self._waiting)[1]
        self._jumped = False
        if self._owed >= 1:
            self._owed -= 1
            self._virtual += 1 / FIXED_POINT  # or two equals polled at one virtual instant would lose their order
            i = self._ring.head()
            self._flags[i] |= GUARANTEED
            self._heap.remove(i)
        else:
            i = self._heap.pop()
            self._virtual = max(self._virtual, -self._heap.key[i])
        self._ring.unlink(i)
        return i


class _Pace:
    """Seconds per target that the budget achieves, over about one cycle; time spent idle by choice is not counted."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._count = self._spent = 0.0
        self._since: float | None = None
        self._latest = 1

    @property
    def seconds(self) -> float:
        return self._spent / self._count if self._count else 0.0

    def restore(self, seconds: float) -> None:
        self._count, self._spent = 10.0, 10.0 * seconds

    def tick(self, now: float, served: int) -> None:
        if self._since is not None:
            keep = max(0.0, 1 - served / self._memory)
            self._count = self._count * keep + served
            self._spent = self._spent * keep + now - self._since
        self._since, self._latest = now, served

    def rest(self) -> None:
        self._since = None

    def at(self, now: float) -> float:
        """As `seconds`, stretched by a pause that lasts while we look."""
        if self._since is None or not self._count:
            return self.seconds
        return max(self.seconds, (self._spent + now - self._since) / (self._count + self._latest))


class _Saved(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    pace: float  # seconds per target
    changes: float
    seconds: float
    scores: list[float]
    told: float
    delay: float
    names: bytes  # 8 bytes of digest each
    columns: list[bytes]  # a, b, af, bf, odds: little-endian float32
    ages: bytes  # seconds since the last reading

    def __post_init__(self) -> None:
        sizes = {len(column) * 2 for column in (*self.columns, self.ages)}
        if sizes != {len(self.names)} or len(self.columns) != 5 or len(self.scores) != len(SHAPES):
            raise ValueError("not a saved schedule: its columns do not match")
        if not (self.seconds > 0 and self.changes >= 0 and self.pace >= 0):
            raise ValueError("not a saved schedule: its rates are impossible")


def _digest(name: str) -> int:
    """Eight bytes, in memory and saved as they come from the hash on any machine."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), sys.byteorder)


def _pack(values: Iterable[float]) -> bytes:
    return _little(array("f", values)).tobytes()


def _unpack(data: bytes, size: int) -> "array[float]":
    values = array("f", data)
    if len(values) != size:
        raise ValueError("not a saved schedule: a name stands in it twice")
    return _little(values)


def _little(values: "array[float]") -> "array[float]":
    if sys.byteorder == "big":
        values.byteswap()
    return values
