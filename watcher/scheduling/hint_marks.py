"""Which targets are to be read soon, because somebody said so: marks in order of arrival. Pure: time is given.

A mark stands for all that was said of a target since it was last asked, so a flood of hints costs one for each target.
It waits until its target may be read, goes with whatever read is sent next, and is spent by its answer. Three queues
keep the order: hints; what a source may have missed, which has time; and hints of sources that are mostly wrong.
"""

import heapq
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from math import inf

import msgspec

PLACES = 10  # of these the hints of sources that are mostly wrong get one, at most
HEADS = 8  # marks of which trust is judged anew for one place, at most: the rest wait for theirs
AT_ONCE = 100  # marks for what may have been missed, of one source for one place: after a pause all of them are due
SPARE = 64  # entries out of date that are not worth the sweeping


class Mark(msgspec.Struct, eq=False, gc=False):
    """Times are monotonic seconds; `inf`: not yet, or nobody."""

    sources: int
    """A bit for each that says so. 0: it is only that something may have been missed."""
    claimed: float
    """When the first of them said so."""
    latest: float
    """When the last did: what was read before that does not show it."""
    due: float
    """When it should be read."""
    queued: float = inf
    """From when on it is offered; `inf`: its target cannot be read, or is in flight."""
    base: float = inf
    """When the first answer since came, which showed nothing."""
    step: int = -1
    """Which repetition its next read is; -1: none, the first read."""
    unlikely: float = 1.0
    """The chance, by what was believed, that its reads so far showed nothing."""
    tries_all: bool = False
    early: bool = False
    """Its read was sent before it was due."""

    def join(self, older: "Mark") -> None:
        """It speaks for that one too."""
        self.sources |= older.sources
        self.claimed = min(self.claimed, older.claimed)
        self.latest = max(self.latest, older.latest)
        self.base = min(self.base, older.base)
        self.unlikely = min(self.unlikely, older.unlikely)


class _Missed(msgspec.Struct, eq=False):
    """Targets to be marked one after the other, since their source was away."""

    targets: "array[int]"
    done: int
    since: float
    due: float
    spacing: float


class HintMarks:
    """Of one schedule, whose targets are small integers."""

    def __init__(self) -> None:
        self.waiting: dict[int, Mark] = {}
        """For a read that has not been sent."""
        self.reading: dict[int, Mark] = {}
        """Each gone with a read in flight."""
        self.active = False
        """Whether a target may be marked: without that there is nothing to ask here."""
        self.distrusted = 0
        """Bits of the sources that are mostly wrong."""
        self._hints, self._missed, self._doubtful = (OrderedDict[int, None]() for _ in range(3))
        self._later: list[tuple[float, int]] = []  # a heapq of (when it is offered, target)
        self._spreading: dict[int, _Missed] = {}
        self._places = PLACES

    def add(self, i: int, mark: Mark) -> None:
        self.waiting[i] = mark
        self.active = True

    def offer(self, i: int, earliest: float, now: float) -> None:
        """Its target rests, and may be read from `earliest` on."""
        mark = self.waiting[i]
        self.hold(i)
        mark.queued = max(mark.due, earliest)
        if mark.queued <= now:
            self._enqueue(i, mark)
            return
        if len(self._later) > 2 * len(self.waiting) + SPARE:
            self._later = [(due, k) for due, k in self._later if k in self.waiting and self.waiting[k].queued == due]
            heapq.heapify(self._later)
        heapq.heappush(self._later, (mark.queued, i))

    def hold(self, i: int) -> None:
        """Its target cannot be read now."""
        self.waiting[i].queued = inf
        for queue in (self._hints, self._missed, self._doubtful):
            queue.pop(i, None)

    def take(self, i: int, now: float) -> None:
        """A read of it is sent: whatever was said before goes with it."""
        if i in self.waiting:
            self.hold(i)
            mark = self.waiting.pop(i)
            mark.early = mark.due > now
            if (older := self.reading.get(i)) is not None:
                mark.join(older)
            self.reading[i] = mark
        self.active = bool(self.waiting or self._spreading)

    def put_back(self, i: int) -> None:
        """That read brought nothing."""
        if (mark := self.reading.pop(i, None)) is None:
            return
        if (newer := self.waiting.get(i)) is None:
            self.add(i, mark)
        else:
            newer.join(mark)

    def forget(self, bit: int) -> None:
        """Nobody says so with this bit any more. What it alone had said may have been missed, and is read once."""
        for _, mark in self.unanswered():
            mark.sources &= ~bit
        self.distrusted &= ~bit

    def unanswered(self) -> Iterator[tuple[int, Mark]]:
        """Those that no answer has spent, by target; a target may have two."""
        yield from self.reading.items()
        yield from self.waiting.items()

    def spread(self, bit: int, targets: Sequence[int], since: float, cycle: float) -> None:
        """Mark these one after the other within a cycle. Those of this source that still are to come, come first."""
        left = self._spreading.get(bit)
        first = left.targets[left.done :] if left is not None else array("i")
        wanted = dict.fromkeys(targets)
        order = array("i", dict.fromkeys([i for i in first if i in wanted]) | wanted)
        if order:
            due = left.due if left is not None else since
            self._spreading[bit] = _Missed(order, 0, since, due, cycle / len(order))
            self.active = True
        else:
            self._spreading.pop(bit, None)

    def missed(self, now: float) -> list[int]:
        """Mark what is due of that. Gives the targets that were not marked before; they are to be offered."""
        new = []
        for bit, one in list(self._spreading.items()):
            for _ in range(AT_ONCE):
                if one.done == len(one.targets) or one.due > now:
                    break
                i = one.targets[one.done]
                one.done += 1
                one.due += one.spacing
                if (mark := self.waiting.get(i)) is not None:
                    mark.latest = max(mark.latest, one.since)
                else:
                    self.add(i, Mark(0, inf, one.since, now))
                    new.append(i)
            if one.done == len(one.targets):
                del self._spreading[bit]
        return new

    def due(self, now: float) -> bool:
        """Whether a target could be read for a hint of a source that is trusted."""
        while self._later and self._later[0][0] <= now:
            due, i = heapq.heappop(self._later)
            if (mark := self.waiting.get(i)) is not None and mark.queued == due:
                self._enqueue(i, mark)
        for _ in range(HEADS):
            if not self._hints or self.trusts(self.waiting[i := next(iter(self._hints))]):
                break
            del self._hints[i]
            self._doubtful[i] = None
        return bool(self._hints)

    def next(self, now: float, readable: int, hinted_last: bool) -> int:  # noqa: FBT001 (hot path)
        """The target whose hinted read may take this place, or -1.

        readable: targets that could be read now, hinted or not. While others are among them no two hinted reads follow
        one another, so that these are half of the places at most.
        """
        self._places += len(self._doubtful) > 0
        self.due(now)
        if not hinted_last or readable <= len(self._hints) + len(self._missed):
            for queue in (self._hints, self._missed):
                if queue:
                    return next(iter(queue))
        if self._doubtful and self._places >= PLACES and not hinted_last:
            return next(iter(self._doubtful))
        return -1

    def spend_place(self, i: int) -> None:
        """It took the place that `next` gave it."""
        if i in self._doubtful:
            self._places = 0

    def trusts(self, mark: Mark) -> bool:
        """Somebody says so who is right often enough."""
        return mark.sources & ~self.distrusted != 0

    def is_urgent(self, i: int) -> bool:
        """It waits, and somebody says so who is trusted."""
        return (mark := self.waiting.get(i)) is not None and self.trusts(mark)

    def is_doubtful(self, i: int) -> bool:
        """It waits among those of sources that were mostly wrong when it began to; they may be trusted by now."""
        return i in self._doubtful

    def _enqueue(self, i: int, mark: Mark) -> None:
        queue = self._missed if not mark.sources else self._hints if self.trusts(mark) else self._doubtful
        queue[i] = None
