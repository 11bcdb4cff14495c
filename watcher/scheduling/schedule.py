"""Which watch to ask about next: the two-rate Gamma rule (docs/freshness.md says why). Pure: time is given.

A heap in virtual time gives each target polls in proportion to rate^0.45, by the rates learned from its answers. A
fixed share of the polls goes to the target that was not read for the longest, so that no estimate can starve any.
A hint brings the next read of its target forward (hinted_reads.py), by at most half of the polls while others wait.
Times are monotonic seconds. A target is in exactly one place: resting (in the ring, and in the heap once it is
`min_interval` old), in flight, or waiting for a due time (a retry, or the confirmation of a candidate).
"""

import heapq
import random
from array import array
from collections.abc import Callable, Collection, Generator, Hashable, Iterable, Mapping, Sequence
from itertools import compress
from math import exp
from typing import Generic, TypeVar

import msgspec

from watcher.runtime.slicing import run_at_once
from watcher.scheduling.change_rates import FAST, ODDS_MEMORY, ChangeRates
from watcher.scheduling.hint_marks import Mark
from watcher.scheduling.hint_scores import HintScore
from watcher.scheduling.hinted_reads import HintedReads
from watcher.scheduling.queues import FIXED_POINT, LastReadRing, TargetIndex, VirtualTimeHeap
from watcher.scheduling.saved_schedule import SavedSchedule, name_digest, pack, unpack
from watcher.scheduling.service_time import ServiceTime

T = TypeVar("T", bound=Hashable)

GUARANTEE = 0.25  # the share of polls for the longest unread: no target waits longer than 4 cycles
LEAST_GUARANTEE = 0.1  # however generous max_interval is
MOST_GUARANTEE = 0.9  # while hints wait
SLOW = 6 * 3600.0  # seconds of slow evidence
TINY_GAP = 1e-6  # seconds: two answers at one instant still need a likelihood
RESTING, IN_FLIGHT, WAITING = range(3)
HAS_BASELINE, BY_GUARANTEE, CONFIRM_AFTER = 1, 2, 4  # flags; the last two are those of a poll in flight
_HAS_BASELINE = bytes(flags & HAS_BASELINE for flags in range(256))


class Schedule(Generic[T]):
    """The targets of one budget, and which is next.

    max_interval: seconds within which every target should be read; sets how much of the budget is spent on that.
    min_interval: seconds before which no target is read again; when all are younger, the request is left unused.
    name: what identifies a target in `save`, so that a later watch list finds its targets again.
    cache: seconds that the provider keeps an answer; 0: none. A hinted read is repeated after that.
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
        cache: float = 0.0,
    ) -> None:
        self._targets = list(dict.fromkeys(targets))
        self._max_interval, self._min_interval = max_interval, min_interval
        size = len(self._targets)
        self._index = TargetIndex(self._targets)
        self._names = array(
            "Q", (name_digest(name(target)) for target in self._targets)
        )  # here, for `save` must be quick
        self._rates = ChangeRates(size)
        self._hints = HintedReads(self._rates, size, cache)
        self._last = array("d", [now]) * size
        self._state, self._flags, self._tries = bytearray(size), bytearray(size), bytearray(size)
        self._waiting: list[tuple[float, int]] = []  # a heapq of (due, target): the few that retry or confirm
        self._virtual = self._owed_guarantee = 0.0  # of the latter: guarantee polls
        # An urgent or hinted read went first, whether a guarantee poll was owed or not; and it was a hinted one.
        self._passed_last = self._hinted_last = False
        self._share = GUARANTEE
        """Of polls, for the longest unread: no target waits longer than cycle / share."""
        self._service_time = ServiceTime(max(100, size))
        self._random = random.Random(seed)  # noqa: S311 (spreads the first sweep, hides nothing)
        order = list(range(size))
        self._random.shuffle(order)
        self._fill_queues(order, [(rank + 1) / size for rank in range(size)], now)

    def __len__(self) -> int:
        return len(self._targets)

    def pick(self, now: float, most: int = 1) -> list[T]:
        """Up to `most` targets for the request that may be sent now; in flight until `report`, `failed` or `unsent`."""
        self._push_rested(now)
        chosen: list[T] = []
        while len(chosen) < most and (i := self._choose(now)) >= 0:
            self._state[i] = IN_FLIGHT
            if self._hints.marks.active:
                self._hints.marks.take(i, now)
            chosen.append(self._targets[i])
        if chosen:
            self._service_time.tick(now, len(chosen))
        elif self.next_at(now) is not None:
            self._service_time.rest()
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
        """The answer came; `changed` if it shows a change. A target's first answer is its baseline, never a change."""
        i = self._require_in_flight(target)
        rates, hints, flags = self._rates, self._hints, self._flags[i]
        mark = hints.marks.reading.pop(i, None)
        if flags & HAS_BASELINE:
            gap = max(TINY_GAP, now - self._last[i])
            guaranteed = flags & BY_GUARANTEE > 0
            slow = max(SLOW, 50 * self._service_time.seconds * len(self._targets))
            if mark is None:
                stride = rates.learn(i, gap, changed, guaranteed, slow)
                if changed:
                    hints.unhinted_change(i, now, gap)
            else:
                stride = hints.report(i, mark, now, gap, changed, guaranteed, slow)
        else:
            stride = rates.stride(i)
        if hints.coverage.sources:
            stride *= hints.coverage.stretch(i)
        self._last[i], self._tries[i], self._flags[i] = now, 0, HAS_BASELINE
        self._heap.key[i] = -(self._virtual + stride)
        if flags & CONFIRM_AFTER:
            self._wait_until(i, now + self._min_interval)
        else:
            self._to_rest(i)
            if hints.marks.active:
                self._offer(i, now)

    def hint(self, target: T, now: float, source: str) -> bool:
        """Somebody says that it changed: read it next, within every limit. Whether that moves its read: what is waited for
        already comes no sooner. Raises KeyError for a target not here."""
        i = self._index.find(target)
        moves = self._hints.add(i, source, now)
        if moves:
            self._offer(i, now)
        return moves

    def hint_covered(self, source: str, now: float) -> None:
        """That source may have missed something: all that it covers is read once, spread over a cycle."""
        self._hints.missed(source, now, self.cycle(now))

    def cover(self, source: str, targets: Collection[T]) -> None:
        """That source tells of changes in these from now on, and of no others: what push tells needs less polling.

        Raises KeyError for a target not here.
        """
        self._heap.stretch(self._hints.cover(source, [self._index.find(target) for target in targets]), self._virtual)

    def inherit(self, formers: Iterable["Schedule[T]"], now: float) -> None:
        """Of these, which it replaces, the one with most of its targets: go on with what that learned of sources of hints, and
        with what they said of targets here and no read has answered. Before the first hint."""
        here = {target: i for i, target in enumerate(self._targets)}
        former = max(formers, key=lambda one: sum(target in here for target in one._targets))  # noqa: SLF001
        self._hints.inherit(former._hints)  # noqa: SLF001
        for k, mark in former._hints.marks.unanswered():  # noqa: SLF001
            i = here.get(former._targets[k])  # noqa: SLF001
            if i is not None:
                self._hints.marks.add(i, Mark(mark.sources, mark.claimed, mark.latest, now))
                self._offer(i, now)

    def hinted_since(self, target: T) -> float | None:
        """Of a target in flight: what was known before this does not answer the hints that its read is for. That is when
        the last of them arrived, or the last answer, which did not show what they are about. None: an ordinary read."""
        i = self._index.find(target) if self._hints.marks.reading else -1
        mark = self._hints.marks.reading.get(i)
        return None if mark is None else max(mark.latest, self._last[i])

    @property
    def hint_scores(self) -> Mapping[str, HintScore]:
        """By source, whoever sent a hint or covers anything here."""
        return self._hints.scores.scores()

    def hint_delays(self) -> tuple[float | None, float | None]:
        """Medians of the last hundred reads that showed a change: seconds from a hint to its read; without, half of the gap before."""
        return self._hints.delay(), self._hints.unhinted_delay()

    def forget_hints_of(self, source: str) -> None:
        """There is no such source any more, and it covers nothing: the next new one is told from it in all that is learned."""
        self._hints.forget(source)

    def hint_due(self, now: float) -> bool:
        """Whether a hinted target could be read now, of a source that is right often enough."""
        return self._hints.marks.active and self._hints.marks.due(now)

    def resent(self, target: T, now: float) -> None:
        """It was picked before and is asked only now: hints that came in between are for this read."""
        self._hints.marks.take(self._require_in_flight(target), now)

    def failed(self, target: T, now: float, *, blameless: bool = False) -> None:
        """No answer: ask again at once, then after 1, 2, 4, 8, 8... average cycles. Its rate stays as it is.

        `blameless`: everything fails, so ask again after one cycle at the latest.
        """
        self._retry(target, now, most=2 if blameless else 5, least=0.0)

    def unsent(self, target: T, now: float) -> None:
        """It was picked and not asked: ask now, and nothing is learned of it."""
        i = self._require_in_flight(target)
        self._hints.marks.put_back(i)
        self._flags[i] &= HAS_BASELINE
        self._wait_until(i, now)

    def outdated(self, target: T, now: float) -> None:
        """The answer is older than what is known, so the target is as unread as before: ask again soon.

        Not before `min_interval`, and after the first time once in an average cycle. Its rate stays as it is.
        """
        self._retry(target, now, most=2, least=self._min_interval)

    def _retry(self, target: T, now: float, *, most: int, least: float) -> None:
        i = self._require_in_flight(target)
        self._hints.marks.put_back(i)
        self._flags[i] &= HAS_BASELINE
        self._tries[i] = tries = min(self._tries[i] + 1, most)
        self._wait_until(i, now + max(least, 0.0 if tries == 1 else self.cycle(now) * 2 ** (tries - 2)))

    def failing(self, target: T) -> bool:
        """Whether its last poll failed."""
        return self._tries[self._index.find(target)] > 0

    def retry_now(self, targets: Iterable[T], now: float) -> None:
        """What made these fail is over: their retries are due now, those that are hinted and then the longest unread
        first, at the usual interval."""
        failing = {i for i in map(self._index.find, targets) if self._state[i] == WAITING and self._tries[i]}
        order = sorted(failing, key=lambda i: (not self._hints.marks.is_urgent(i), self._last[i]))
        dues = {i: now + rank * self._service_time.seconds for rank, i in enumerate(order)}
        for i in failing:
            self._tries[i] = 1
        self._waiting = [(min(due, dues.get(i, due)), i) for due, i in self._waiting]
        heapq.heapify(self._waiting)

    def confirm(self, target: T) -> None:
        """Its last answer is a candidate: the next poll is to confirm it, not before `min_interval`."""
        i = self._index.find(target)
        if self._state[i] == IN_FLIGHT:
            self._flags[i] |= CONFIRM_AFTER
        elif self._state[i] == RESTING:
            self._take_from_rest(i)
            if i in self._hints.marks.waiting:
                self._hints.marks.hold(i)
            self._wait_until(i, self._last[i] + self._min_interval if self._flags[i] & HAS_BASELINE else self._last[i])

    def cycle(self, now: float) -> float:
        """Seconds in which the budget achieved of late could read every target once; 0 while that is unknown."""
        return max(self._service_time.at(now) * len(self._targets), self._min_interval) if self._targets else 0.0

    def expected_mean_delay(self, now: float) -> float:
        """Average seconds from a change to the answer that shows it, by the changes seen of late."""
        rates = self._rates
        return (self.cycle(now) / 2 + rates.delay) / (1 + rates.changes_seen)

    def stalest(self, now: float) -> tuple[T, float] | None:
        """The target that was unread for the longest, and for how many seconds; since the start, if it never was read."""
        if not self._targets:
            return None
        oldest = min(self._last)
        return self._targets[self._last.index(oldest)], now - oldest

    def unread(self, before: float) -> list[tuple[T, float]]:
        """Targets that were read last before that time, each with when; since the start, if it never was."""
        return [(target, last) for target, last in zip(self._targets, self._last, strict=True) if last < before]

    def save(self, now: float) -> bytes:
        """What was learned, about 32 bytes a target."""
        return run_at_once(self.saving(now))

    def saving(self, now: float) -> Generator[None, None, bytes]:
        """As `save`, in eight steps: with 100,000 targets each takes some 10 ms. Polls may go on in between."""
        known, rates = self._flags.translate(_HAS_BASELINE), self._rates
        names = array("Q", compress(self._names, known)).tobytes()
        yield
        ages = pack(now - last for last in compress(self._last, known))
        columns = []
        for column in rates.columns():
            yield
            columns.append(pack(compress(column, known)))
        yield
        return msgspec.msgpack.encode(
            SavedSchedule(
                pace=self._service_time.seconds,
                changes=rates.changes,
                seconds=rates.seconds,
                scores=list(rates.scores),
                changes_seen=rates.changes_seen,
                delay=rates.delay,
                names=names,
                columns=columns,
                ages=ages,
            )
        )

    def in_common(self, data: bytes) -> int:
        """Of how many of our targets it was saved what was learned. Raises ValueError for bytes that `save` did not write."""
        return len(set(array("Q", msgspec.msgpack.decode(data, type=SavedSchedule).names)).intersection(self._names))

    def restore(self, data: bytes, downtime: float, now: float) -> None:
        """Before the first pick: continue from what `save` gave `downtime` seconds ago, faded by that time.

        A downtime below 0 (the wall clock was set back) counts as 0. Targets that it does not know are due at once.
        Raises ValueError for bytes that `save` did not write.
        """
        saved, downtime = msgspec.msgpack.decode(data, type=SavedSchedule), max(0.0, downtime)
        found = {name: k for k, name in enumerate(array("Q", saved.names))}
        columns, ages = [unpack(c, len(found)) for c in saved.columns], unpack(saved.ages, len(found))
        rates = self._rates
        rates.changes, rates.seconds, rates.scores = saved.changes, saved.seconds, list(saved.scores)
        rates.changes_seen, rates.delay = saved.changes_seen, saved.delay
        rates.settle_unit()
        self._service_time.restore(saved.pace)
        cycle = saved.pace * len(self._targets)
        slow, fast = exp(-downtime / max(SLOW, 50 * cycle)), exp(-downtime / FAST)
        odds = exp(-downtime / (ODDS_MEMORY * cycle)) if cycle else 1.0
        keys = [0.0] * len(self._targets)
        for i, name in enumerate(self._names):
            if (k := found.get(name)) is not None:
                self._flags[i] = HAS_BASELINE
                self._last[i] = now - downtime - ages[k]
                for column, values, fade in zip(rates.columns(), columns, (slow, slow, fast, fast, odds), strict=True):
                    column[i] = values[k] * fade
                keys[i] = self._random.random() * rates.stride(i)
        order = sorted(range(len(self._targets)), key=lambda i: (self._flags[i], self._last[i]))
        self._fill_queues(order, [keys[i] for i in order], now)

    def _fill_queues(self, order: Sequence[int], keys: Sequence[float], now: float) -> None:
        self._ring, self._heap, self._fresh = LastReadRing(len(order)), VirtualTimeHeap(len(order)), -1
        for i, key in zip(order, keys, strict=True):
            self._heap.key[i] = -max(key, 1 / FIXED_POINT)
            self._to_rest(i)
            if not self._flags[i] & HAS_BASELINE:  # it has no last reading that it could be too close to
                self._fresh = -1
                self._heap.push(i)
        self._push_rested(now)

    def _to_rest(self, i: int) -> None:
        self._state[i] = RESTING
        self._ring.append(i)
        if self._fresh < 0:
            self._fresh = i

    def _push_rested(self, now: float) -> None:
        # The ring is ordered by last reading, so those too fresh for the heap are its end, from _fresh on.
        i = self._fresh
        while i >= 0 and self._last[i] + self._min_interval <= now:
            self._heap.push(i)
            i = self._ring.after(i)
        self._fresh = i

    def _take_from_rest(self, i: int) -> None:
        if i == self._fresh:
            self._fresh = self._ring.after(i)
        self._heap.remove(i)
        self._ring.unlink(i)

    def _wait_until(self, i: int, due: float) -> None:
        self._state[i] = WAITING
        heapq.heappush(self._waiting, (due, i))

    def _require_in_flight(self, target: T) -> int:
        i = self._index.find(target)
        if self._state[i] != IN_FLIGHT:
            raise ValueError(f"answered but never picked: {target}")
        return i

    def _offer(self, i: int, now: float) -> None:
        """Let the mark that it may have bring its read forward."""
        if self._state[i] == RESTING and i in self._hints.marks.waiting:
            known = self._flags[i] & HAS_BASELINE
            self._hints.marks.offer(i, self._last[i] + self._min_interval if known else now, now)

    def _choose(self, now: float) -> int:
        """The next target, or -1. A retry or confirmation goes first, then a hint, but never twice past an owed
        guarantee poll."""
        urgent = bool(self._waiting) and self._waiting[0][0] <= now
        if not urgent and self._heap.empty():
            return -1
        share, hinted = 1.0 if self._rates.surprised else self._share, -1
        if self._hints.marks.active:
            share = min(MOST_GUARANTEE, share)
            for i in self._hints.marks.missed(now):
                self._offer(i, now)
            hinted = self._hints.marks.next(now, len(self._heap), self._hinted_last)
        self._owed_guarantee = min(2.0, self._owed_guarantee + share)
        passes, self._hinted_last = self._owed_guarantee < 1 or not self._passed_last, False
        if urgent and (passes or self._heap.empty()):
            self._passed_last = True
            return heapq.heappop(self._waiting)[1]
        if hinted >= 0 and passes and (self._owed_guarantee < 1 or self._owed_guarantee <= 2 - share):
            self._passed_last = self._hinted_last = True
            self._hints.marks.spend_place(hinted)
            self._heap.remove(hinted)
            i = hinted
        else:
            i = self._choose_unhinted()
        self._ring.unlink(i)
        return i

    def _choose_unhinted(self) -> int:
        self._passed_last = False
        if self._owed_guarantee < 1:
            i = self._heap.pop()
            self._virtual = max(self._virtual, -self._heap.key[i])
            return i
        self._owed_guarantee -= 1
        self._virtual += 1 / FIXED_POINT  # or two equals polled at one virtual instant would lose their order
        i = self._ring.head()
        self._flags[i] |= BY_GUARANTEE
        self._heap.remove(i)
        return i
