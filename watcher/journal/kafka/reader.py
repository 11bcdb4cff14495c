# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""A look at the log that disturbs nobody: plain `read_committed` consumers without a group.

One tail follows every partition and keeps the table and a window of the last slices. Snapshots are copies of the table.
A follower that is not inside the window replays the log until it is, with one of a few consumers.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import anyio.lowlevel
from aiokafka.errors import OffsetOutOfRangeError

from watcher.journal.first_changes import first_changes
from watcher.journal.kafka.closing_log import ClosingLog
from watcher.journal.kafka.cluster import Cluster
from watcher.journal.kafka.consumer_pool import ConsumerPool
from watcher.journal.kafka.fencing import LogIdentity
from watcher.journal.kafka.offsets import OffsetProbe
from watcher.journal.kafka.past_reading import PastScans
from watcher.journal.kafka.records import TopicNames
from watcher.journal.kafka.state_table import ROWS_PER_STEP, TableCopy, matcher
from watcher.journal.kafka.tail import LogTail
from watcher.journal.views import ViewLimits, ViewPool, open_snapshot
from watcher.model.events import BalanceState
from watcher.model.keys import Filter
from watcher.model.log import Bounds, Commit, Cursor, Expired, SmallSnapshot, Snapshot
from watcher.model.past import Closing, HistorySlice

FAR = 2**62
"""Microseconds: later than any time."""


class KafkaReader:
    """The `Reader` on Kafka."""

    def __init__(
        self,
        identity: LogIdentity,
        topics: TopicNames,
        partitions: int,
        cluster: Cluster,
        offsets: OffsetProbe,
        *,
        view_limits: ViewLimits,
        closings: ClosingLog,
    ) -> None:
        self._offsets = offsets
        self._views = ViewPool(self._copy, limits=view_limits)
        self._tail = LogTail(cluster, offsets, topics, partitions, identity, on_turn=self._views.expire)
        self._consumers = ConsumerPool(cluster, self._tail.event_partitions)
        self._past = PastScans(cluster, offsets, self._tail.event_partitions, self._tail.event_of)
        self._changed = topics.changed
        self._closings = closings

    async def start(self) -> None:
        """Load the table. Raises Unavailable, WrongJournal."""
        await self._tail.start()

    async def bounds(self) -> Bounds:
        await self._tail.refresh()
        return Bounds(await self._oldest(), self._tail.head)

    async def _oldest(self) -> Cursor:
        with self._tail.denied.tolerated():
            first = await self._offsets.log_starts(self._tail.event_partitions)
        return Cursor(self._tail.epoch, tuple(first[partition] for partition in self._tail.event_partitions))

    async def glance(self, wanted: Filter, most: int) -> Snapshot | None:
        await self._tail.refresh()
        cursor, rows, matches = self._tail.head, self._tail.table.rows, matcher(wanted)
        if matches is None:
            return SmallSnapshot(cursor, list(rows.values())) if len(rows) <= most else None
        found: list[BalanceState] = []
        states = list(rows.values())
        for start in range(0, len(states), ROWS_PER_STEP):
            found += filter(matches, states[start : start + ROWS_PER_STEP])
            if len(found) > most:
                return None
            await anyio.lowlevel.checkpoint()
        return SmallSnapshot(cursor, found)

    async def snapshot(self, wanted: Filter) -> Snapshot:
        await self._tail.refresh()  # or a view would pass for the newest that is not
        return await open_snapshot(self._views, wanted)

    async def _copy(self) -> TableCopy:
        await self._tail.refresh()
        positions, rows = self._tail.window.end, self._tail.table.rows
        count = len(rows)
        # A baseline moves no place in the events, and is one row more.
        return TableCopy(
            Cursor(self._tail.epoch, positions),
            list(rows.values()),
            lambda: (positions, count) == (self._tail.window.end, len(rows)),
        )

    async def notes(self) -> dict[str, bytes]:
        await self._tail.refresh()
        return dict(self._tail.table.notes.complete)

    async def follow(self, cursor: Cursor) -> AsyncIterator[Commit]:
        """Commits from `cursor` on: replayed as far as needed, then live. Raises Expired, Unavailable."""
        await self._require_resumable(cursor)
        positions = list(cursor.positions)
        if self._tail.table.health:
            yield Commit(cursor, health=list(self._tail.table.health.values()))
        while True:
            number = self._tail.window.slice_for(positions)
            if number is None:
                async with contextlib.aclosing(self._replay(positions)) as replay:
                    async for commit in replay:
                        yield commit
                continue
            window = self._tail.window
            while window is self._tail.window and number >= window.first:
                if number == window.next:
                    await self._tail.next_turn()
                else:
                    commit = _rest(window.get(number), positions)
                    positions = list(commit.cursor.positions)
                    number += 1
                    yield commit

    async def _replay(self, positions: list[int]) -> AsyncGenerator[Commit, None]:
        """Read the log until the window is reached, moving `positions`."""
        async with self._consumers.in_use():
            while self._tail.window.slice_for(positions) is None:
                try:
                    with self._tail.denied.tolerated():
                        found, now = await self._consumers.read(positions)
                except OffsetOutOfRangeError:
                    raise Expired("expired") from None
                if now != positions:
                    positions[:] = now
                    yield Commit(
                        Cursor(self._tail.epoch, tuple(now)), [self._tail.event_of(record) for record in found]
                    )

    async def _require_resumable(self, cursor: Cursor) -> None:
        """Raises Expired for a cursor that nothing can be followed from without a gap."""
        head = self._tail.head
        oldest = Cursor(self._tail.epoch, self._tail.window.start)
        reason = Bounds(oldest, head).gap(cursor)
        # The log reaches further than the window does, both ways; the broker is asked only where that matters.
        if reason == "ahead":
            written = await self._offsets.high_watermarks(self._tail.event_partitions)
            head = Cursor(self._tail.epoch, tuple(written[partition] for partition in self._tail.event_partitions))
            reason = Bounds(oldest, head).gap(cursor)
        if reason == "expired":
            reason = Bounds(await self._oldest(), head).gap(cursor)
        if reason is not None:
            raise Expired(reason)

    async def kept_from(self) -> int:
        await self._tail.refresh()
        with self._tail.denied.tolerated():
            return await self._past.kept_from(self._changed, list(self._tail.table.rows.values()))

    async def between(
        self, wanted: Filter, first: int, last: int, until: Cursor, behind: Cursor | None = None
    ) -> AsyncIterator[HistorySlice]:
        head = self._tail.head
        reason = Bounds(head, head).gap(until)
        if reason in ("epoch_changed", "ahead"):
            raise Expired(reason)
        with self._tail.denied.tolerated():
            async with contextlib.aclosing(self._past.between(wanted, first, last, until, behind)) as found:
                async for slice_ in found:
                    yield slice_

    async def first_changes(self, wanted: Filter, time: int, until: Cursor) -> AsyncIterator[HistorySlice]:
        async with contextlib.aclosing(first_changes(self.between(wanted, time + 1, FAR, until))) as found:
            async for slice_ in found:
                yield slice_

    async def closing_days(self) -> list[str]:
        return self._closings.days(await self.notes())

    async def closings(self, day: str, wanted: Filter) -> AsyncIterator[Sequence[Closing]]:
        async with contextlib.aclosing(self._closings.read(day, wanted, await self.notes())) as found:
            async for closings in found:
                yield closings

    async def close(self) -> None:
        self._views.close()
        await self._tail.close()


def _rest(commit: Commit, positions: Sequence[int]) -> Commit:
    """What of a slice is new to somebody at `positions`."""
    if all(event.position >= positions[event.partition] for event in commit.events):
        events = commit.events
    else:
        events = [event for event in commit.events if event.position >= positions[event.partition]]
    cursor = Cursor(commit.cursor.epoch, tuple(map(max, commit.cursor.positions, positions)))
    return Commit(cursor, events, commit.baselines, commit.health)
