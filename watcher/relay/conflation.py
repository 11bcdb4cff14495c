"""What waits for one connection when the newest amount is enough: the latest change of each key, and every crossing.

Pure; time is given as monotonic seconds. Events of subscriptions that want all of them pass through here too when
their connection also holds one that conflates, so that everything leaves in order and the watermark stays honest: no
cursor that is sent lies beyond the oldest event that is still held back.
"""

import heapq
from collections.abc import Callable, Hashable, Iterator

import msgspec

from watcher.model.keys import Key
from watcher.model.log import Cursor, Published


class FramedEvent(msgspec.Struct, frozen=True, gc=False):
    """One event on its way to the subscribers, and its frame, shared by all that need no other cursor."""

    event: Published
    cursor: Cursor
    """The place behind it."""
    frame: bytes
    label: bytes = b""
    """Of its balance, as `wire.event` takes it."""


class PendingEvent(msgspec.Struct, gc=False):
    entry: FramedEvent
    serial: int
    key: Key | None
    """None: never replaced."""
    interval: float


class Conflater:
    """The pending events of one connection with at least one conflating subscription."""

    def __init__(self, limit: int, most: int) -> None:
        self._limit = limit
        self._most = most
        self._serial = 0
        self._ready: dict[Hashable, PendingEvent] = {}
        self._held: dict[Key, PendingEvent] = {}
        self._wake: list[tuple[float, int, Key]] = []
        self._next: dict[Key, float] = {}
        self._size = 0
        self._kept = 0
        self._slow = False
        self._taken = 0
        """The serial of the last event that was offered before the last `take`."""
        self._again = 0
        """Events conflated since then that were offered since then."""
        self.conflated = 0
        """Events replaced by a later one of their key."""

    def __len__(self) -> int:
        return len(self._ready) + len(self._held)

    @property
    def ready(self) -> bool:
        return bool(self._ready)

    @property
    def full(self) -> bool:
        """Even the latest of each key is too much, or what may not be replaced is: read the log instead."""
        return self._kept > self._limit or self._size > self._most

    def offer(self, entry: FramedEvent, now: float, interval: float | None) -> None:
        """`interval` in seconds: 0 conflates only a slow reader, None never."""
        self._serial += 1
        if entry.event.type == "crossed":
            # No later one says the same, and what is held of its key keeps its pace: it goes alone, at once.
            self._put(self._serial, PendingEvent(entry, self._serial, None, 0.0))
        else:
            self._offer_change(entry, now, interval)
        if self._size > self._limit and not self._slow:
            self._collapse()

    def _offer_change(self, entry: FramedEvent, now: float, interval: float | None) -> None:
        key = None if interval is None else entry.event.key
        waiting = PendingEvent(entry, self._serial, key, interval or 0.0)
        if interval and key is not None:
            self._pace(waiting, key, now)
        else:
            self._release(entry.event.key, wanted=key is None)
            self._put(key if self._slow and key is not None else self._serial, waiting)

    def _release(self, key: Key, *, wanted: bool) -> None:
        """Its interval was lifted: what is held of it goes before what comes now, or gives way to it."""
        held = self._held.pop(key, None)
        if held is not None and wanted:
            self._ready[held.serial] = held
        elif held is not None:
            self._drop(held)

    def _pace(self, waiting: PendingEvent, key: Key, now: float) -> None:
        due = self._next.get(key, 0.0)
        if key in self._ready or due <= now:
            self._release(key, wanted=False)
            self._put(key, waiting)
            return
        before = self._held.pop(key, None)
        if before is None:
            heapq.heappush(self._wake, (due, waiting.serial, key))
        self._account(waiting, before)
        self._held[key] = waiting

    def _put(self, slot: Hashable, waiting: PendingEvent) -> None:
        self._account(waiting, self._ready.pop(slot, None))
        self._ready[slot] = waiting

    def _account(self, waiting: PendingEvent, replaced: PendingEvent | None) -> None:
        self._size += len(waiting.entry.frame)
        if waiting.key is None:
            self._kept += len(waiting.entry.frame)
        if replaced is not None:
            self._drop(replaced)

    def _drop(self, replaced: PendingEvent) -> None:
        self._size -= len(replaced.entry.frame)
        self.conflated += 1
        self._again += replaced.serial > self._taken

    def _collapse(self) -> None:
        """The reader is slow: from now on only the latest of each key."""
        self._slow = True
        before, self._ready = self._ready, {}
        self._size = sum(len(waiting.entry.frame) for waiting in self._held.values())
        self._kept = 0
        for slot, waiting in before.items():
            self._put(slot if waiting.key is None else waiting.key, waiting)

    def take(self, now: float) -> list[tuple[FramedEvent, Cursor]]:
        """Everything that is due, in order, each with the cursor that may be sent with it."""
        while self._wake and self._wake[0][0] <= now:
            _, _, key = heapq.heappop(self._wake)
            waiting = self._held.pop(key, None)
            if waiting is not None:
                self._ready[key] = waiting
        due = sorted(self._ready.values(), key=_serial)
        self._ready = {}
        self._slow = False
        self._taken, self._again = self._serial, 0
        floor = self._floor(self._held.values().__iter__)
        for waiting in due:
            self._size -= len(waiting.entry.frame)
            if waiting.key is not None and waiting.interval:
                self._next[waiting.key] = now + waiting.interval
        self._kept = 0
        if len(self._next) > 1024 + 2 * len(self._held):
            self._next = {key: due for key, due in self._next.items() if due > now}
        return [(waiting.entry, floor(waiting.entry.cursor)) for waiting in due]

    def due_at(self) -> float | None:
        """When the next held event may go; None when none is held. What is ready goes at once."""
        return self._wake[0][0] if self._wake else None

    def watermark(self, cursor: Cursor) -> Cursor:
        """`cursor`, or less where an event that is still pending lies before it."""
        return self._floor(self._all)(cursor)

    def oldest(self) -> int | None:
        """Wall-clock microseconds of the oldest pending event."""
        return min((waiting.entry.event.observed_at for waiting in self._all()), default=None)

    def keep(self, wanted: Callable[[Published], bool]) -> None:
        """Forget what nobody wants any more."""
        self._retain(lambda waiting: wanted(waiting.entry.event))

    def rewind(self) -> None:
        """Back to the last `take`: whatever was offered since will be read from the log again.

        What is held back from before stays, or the log would have to be read from there, and what was sent meanwhile
        would be sent twice.
        """
        self.conflated -= self._again
        self._again = 0
        self._slow = False
        self._retain(lambda waiting: waiting.serial <= self._taken)

    def give_up(self) -> None:
        """Another log begins, with a snapshot: what would have given way to something later gives way to that."""
        before = len(self)
        self._retain(lambda waiting: waiting.key is None)
        self.conflated += before - len(self)
        self._again = 0
        self._slow = False

    def _retain(self, wanted: Callable[[PendingEvent], bool]) -> None:
        self._ready = {slot: waiting for slot, waiting in self._ready.items() if wanted(waiting)}
        self._held = {key: waiting for key, waiting in self._held.items() if wanted(waiting)}
        self._wake = [each for each in self._wake if each[2] in self._held]
        heapq.heapify(self._wake)
        self._size = sum(len(waiting.entry.frame) for waiting in self._all())
        self._kept = sum(len(waiting.entry.frame) for waiting in self._all() if waiting.key is None)

    def _all(self) -> Iterator[PendingEvent]:
        yield from self._ready.values()
        yield from self._held.values()

    def _floor(self, pending: Callable[[], Iterator[PendingEvent]]) -> Callable[[Cursor], Cursor]:
        lowest: dict[int, int] = {}
        for waiting in pending():
            event = waiting.entry.event
            lowest[event.partition] = min(event.position, lowest.get(event.partition, event.position))
        if not lowest:
            return lambda cursor: cursor
        return lambda cursor: Cursor(
            cursor.epoch,
            tuple(min(place, lowest.get(number, place)) for number, place in enumerate(cursor.positions)),
        )


def _serial(waiting: PendingEvent) -> int:
    return waiting.serial
