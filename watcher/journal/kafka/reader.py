# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""A look at the log that disturbs nobody: plain `read_committed` consumers without a group.

One tail follows every partition and keeps two things: the view (the state of every key, as of a place in the log of
events) and a window of the last slices, which all live followers share. A follower that is not inside the window
replays the log until it is, with one of a few consumers.

The view is a function of the events: a row stands at the version of the last event before the tail's place, and rows
of version 0 come from the state. To start, the state is read first, to an end measured after a place in the events
was taken, and then the events from that place to an end measured after the state was read. Every transaction found in
the state has its events before that end, and every one behind that place in the events is applied; so no row is ahead
of the cursor and none behind, although the two topics' markers are written one after the other.

A transaction that hangs in one of the topics and is committed in the other (see `hanging`) breaks that: where the
state is held back, the events are read from further back; where the events are, rows go back to before them.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

import anyio
import anyio.lowlevel
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from watcher.journal import WrongJournal
from watcher.journal.kafka import records as wire
from watcher.journal.kafka.broker_errors import DenialTimer
from watcher.journal.kafka.cluster import Cluster, stop
from watcher.journal.kafka.consumer_pool import ConsumerPool
from watcher.journal.kafka.dangling_transactions import LAST, read
from watcher.journal.kafka.deadlines import within
from watcher.journal.kafka.fencing import LogIdentity
from watcher.journal.kafka.offsets import ConsumedRecord, OffsetProbe, Offsets, poll, read_to, start_at
from watcher.journal.kafka.records import LogMarker, TopicNames
from watcher.journal.kafka.state_table import (
    ROWS_PER_STEP,
    CommitWindow,
    StateTable,
    TableCopy,
    matcher,
)
from watcher.journal.views import ViewLimits, ViewPool, open_snapshot
from watcher.model.events import BalanceState, ProviderHealth
from watcher.model.keys import Filter
from watcher.model.log import Bounds, Commit, Cursor, Expired, Published, SmallSnapshot, Snapshot, Unavailable

FRESH = 1.0
"""Seconds that a look waits for what is written but not yet visible: a commit's marker, or an open transaction."""
LOAD = 3.0
"""Seconds that the start waits, for each topic, for commits on their way. What is open longer than that was left by a
writer that died, and only a writer ends it, perhaps one that this process has yet to open."""
CAUGHT_UP = 30.0
"""Seconds to read the events that came while the state was read."""


class KafkaReader:
    """The `Reader` on Kafka."""

    def __init__(
        self,
        identity: LogIdentity,
        topics: TopicNames,
        partitions: int,
        connection: Cluster,
        gauge: OffsetProbe,
        *,
        view_limits: ViewLimits,
    ) -> None:
        self._identity = identity
        self._epoch = ""
        self._markers: dict[int, LogMarker] = {}
        """The last one of each state partition."""
        self._topics = topics
        self._changed = [TopicPartition(topics.changed, partition) for partition in range(partitions)]
        self._state = [TopicPartition(topics.state, partition) for partition in range(partitions)]
        self._connection = connection
        self._gauge = gauge
        self._view = StateTable()
        self._window = CommitWindow((0,) * partitions)
        self._views = ViewPool(self._held, limits=view_limits)
        self._replays = ConsumerPool(connection, topics.changed, self._changed)
        self._seen: dict[TopicPartition, int] = {}
        self._forbidden = DenialTimer(10.0)
        self._cut = False
        """The view is being read anew."""
        self._moved = anyio.Event()
        self._barrier: asyncio.Task[None] | None = None
        self._tail: asyncio.Task[None] | None = None
        self._consumer: AIOKafkaConsumer | None = None

    async def start(self) -> None:
        """Load the view. Raises Unavailable, WrongJournal."""
        consumer = await self._connection.consumer(self._topics)
        try:
            await self._load(consumer)
        except BaseException:
            await stop(consumer)
            raise
        self._consumer = consumer
        self._tail = asyncio.create_task(self._follow_tail(consumer))

    async def _load(self, consumer: AIOKafkaConsumer) -> None:
        """See the head of this file for why it goes in this order."""
        places = dict(await self._gauge.committed(self._changed))
        visible, held = await self._visible(self._state)
        if held:
            first = await self._gauge.beginnings(self._changed)
            for partition in (self._changed[one.partition] for one in held):
                places[partition] = max(first[partition], places[partition] - LAST)
        start_at(consumer, await self._gauge.beginnings(self._state))
        await read_to(consumer, visible, self._restore)
        for one in self._state:
            self._epoch = self._identity.meet(one.partition, self._markers.get(one.partition))
        heartbeat = TopicPartition(self._topics.heartbeat, 0)
        after = {partition: await consumer.position(partition) for partition in self._state}
        start_at(consumer, {**places, **after, **await self._gauge.beginnings([heartbeat])})
        visible, held = await self._visible(self._changed)
        self._window = CommitWindow(tuple(places[partition] for partition in self._changed))
        self._seen = {**places, **after}
        with within(CAUGHT_UP, "reading the events"):
            while not self._sees(visible):
                await self._turn(consumer)
        if held:
            await self._take_back(held)

    async def _visible(self, partitions: Sequence[TopicPartition]) -> tuple[Offsets, list[TopicPartition]]:
        """Where what is written now ends, as soon as it can be read; else, after LOAD seconds, what can be, and the
        partitions in which that is not all."""
        visible, written = await self._gauge.committed(partitions), await self._gauge.written(partitions)
        with anyio.move_on_after(LOAD):
            while any(visible[partition] < end for partition, end in written.items()):
                await anyio.sleep(0.02)
                visible = await self._gauge.committed(partitions)
            return written, []
        return visible, [partition for partition, end in written.items() if visible[partition] < end]

    async def _take_back(self, held: Sequence[TopicPartition]) -> None:
        """Events that nobody may see yet, while their states are committed: the rows wait for them too."""
        start, ends = {partition: self._seen[partition] for partition in held}, await self._gauge.written(held)
        for record in await read(self._connection, start, ends, isolation="read_uncommitted"):
            self._view.take_back(_published(record))

    def _restore(self, record: ConsumedRecord) -> None:
        if b"/" in record.key:
            self._view.restore(wire.state(record.value, record.headers))
        elif record.key == wire.MARKER:
            self._markers[record.partition] = wire.marker(record.value)
        else:
            self._note(record)

    def _note(self, record: ConsumedRecord) -> None:
        if record.key == wire.MARKER:
            self._identity.meet(record.partition, wire.marker(record.value))
        elif record.key not in wire.MARKS:
            self._view.notes.take(record.key, record.value, record.headers)

    async def _follow_tail(self, consumer: AIOKafkaConsumer) -> None:
        try:
            while True:
                try:
                    with self._forbidden.doubted():
                        await self._turn(consumer)
                except Unavailable:
                    await anyio.sleep(0.5)  # the client reconnects by itself; whoever waits has a deadline
                except OffsetOutOfRangeError:
                    await self._begin_anew(consumer)
        finally:
            self._moved.set()
            await stop(consumer)

    async def _begin_anew(self, consumer: AIOKafkaConsumer) -> None:
        """Events that the tail had not read were deleted. The states are there; whoever followed the events and cannot
        read them any more is told so. Raises WrongJournal when this is another log, which begins before the tail's place."""
        self._cut, places = True, self._seen
        while self._cut:
            try:
                first = await self._gauge.beginnings(self._changed)
                if all(first[partition] <= places[partition] for partition in self._changed):
                    raise WrongJournal("the topics were re-created while they were read: start again")
                self._view, self._markers = StateTable(), {}
                with self._forbidden.doubted():
                    await self._load(consumer)
            except (Unavailable, OffsetOutOfRangeError):
                await anyio.sleep(0.5)
            else:
                self._cut = False

    async def _turn(self, consumer: AIOKafkaConsumer) -> None:
        """Take in what has come, and wake whoever waits for it."""
        events: list[Published] = []
        baselines: list[BalanceState] = []
        health: list[ProviderHealth] = []
        for partition, records in (await poll(consumer)).items():
            if partition.topic == self._topics.changed:
                events += [_published(record) for record in records]
            elif partition.topic == self._topics.state:
                states = (wire.state(one.value, one.headers) for one in records if b"/" in one.key)
                baselines += [state for state in states if self._view.baseline(state)]
                for one in records:
                    if b"/" not in one.key:
                        self._note(one)
            else:
                health += [wire.health(record.value, record.headers) for record in records]
        for event in events:
            self._view.apply(event)
        self._view.health.update((one.provider, one) for one in health)
        self._seen = {partition: await consumer.position(partition) for partition in (*self._changed, *self._state)}
        places = tuple(self._seen[partition] for partition in self._changed)
        if events or baselines or health or places != self._window.end:
            self._window.append(Commit(Cursor(self._epoch, places), events, baselines, health))
        self._views.expire()
        self._moved.set()
        self._moved = anyio.Event()

    async def _news(self) -> None:
        """Wait for the tail's next turn. Raises what ended it."""
        if self._tail is not None and self._tail.done():
            if not self._tail.cancelled():
                self._tail.result()
            raise Unavailable("this reader is closed")
        await self._moved.wait()

    async def _refresh(self) -> None:
        """Let the tail see what was committed before this call. Callers at the same time share one look."""
        if self._barrier is None or self._barrier.done():
            self._barrier = asyncio.create_task(self._catch_up())
        await asyncio.shield(self._barrier)
        if self._cut:
            raise Unavailable("the events were cut while they were read: the states are read anew")

    async def _catch_up(self) -> None:
        await anyio.lowlevel.checkpoint()
        with self._forbidden.doubted():
            written = await self._gauge.written([*self._changed, *self._state])
        with anyio.move_on_after(FRESH):
            while not self._sees(written):
                await self._news()

    def _sees(self, ends: Mapping[TopicPartition, int]) -> bool:
        return all(self._seen[partition] >= end for partition, end in ends.items())

    async def bounds(self) -> Bounds:
        await self._refresh()
        return Bounds(await self._oldest(), Cursor(self._epoch, self._window.end))

    async def _oldest(self) -> Cursor:
        with self._forbidden.doubted():
            first = await self._gauge.beginnings(self._changed)
        return Cursor(self._epoch, tuple(first[partition] for partition in self._changed))

    async def glance(self, wanted: Filter, most: int) -> Snapshot | None:
        await self._refresh()
        cursor, rows, matches = Cursor(self._epoch, self._window.end), self._view.rows, matcher(wanted)
        if matches is None:
            return SmallSnapshot(cursor, list(rows.values())) if len(rows) <= most else None
        found: list[BalanceState] = []
        held = list(rows.values())
        for start in range(0, len(held), ROWS_PER_STEP):
            found += filter(matches, held[start : start + ROWS_PER_STEP])
            if len(found) > most:
                return None
            await anyio.lowlevel.checkpoint()
        return SmallSnapshot(cursor, found)

    async def snapshot(self, wanted: Filter) -> Snapshot:
        await self._refresh()  # or a view would pass for the newest that is not
        return await open_snapshot(self._views, wanted)

    async def _held(self) -> TableCopy:
        await self._refresh()
        places, rows = self._window.end, self._view.rows
        count = len(rows)
        # A baseline moves no place in the events, and is one row more.
        return TableCopy(
            Cursor(self._epoch, places),
            list(rows.values()),
            lambda: (places, count) == (self._window.end, len(rows)),
        )

    async def notes(self) -> dict[str, bytes]:
        await self._refresh()
        return dict(self._view.notes.whole)

    async def follow(self, cursor: Cursor) -> AsyncIterator[Commit]:
        """Commits from `cursor` on: replayed as far as needed, then live. Raises Expired, Unavailable."""
        await self._resumable(cursor)
        places = list(cursor.positions)
        if self._view.health:
            yield Commit(cursor, health=list(self._view.health.values()))
        while True:
            number = self._window.enter(places)
            if number is None:
                async with contextlib.aclosing(self._replay(places)) as replay:
                    async for commit in replay:
                        yield commit
                continue
            window = self._window
            while window is self._window and number >= window.first:
                if number == window.next:
                    await self._news()
                else:
                    commit = _rest(window.get(number), places)
                    places = list(commit.cursor.positions)
                    number += 1
                    yield commit

    async def _replay(self, places: list[int]) -> AsyncGenerator[Commit, None]:
        """Read the log until the window is reached, moving `places`."""
        async with self._replays.reading():
            while self._window.enter(places) is None:
                try:
                    with self._forbidden.doubted():
                        found, now = await self._replays.slice(places)
                except OffsetOutOfRangeError:
                    raise Expired("expired") from None
                if now != places:
                    places[:] = now
                    yield Commit(Cursor(self._epoch, tuple(now)), [_published(record) for record in found])

    async def _resumable(self, cursor: Cursor) -> None:
        """Raises Expired for a cursor that nothing can be followed from without a gap."""
        head = Cursor(self._epoch, self._window.end)
        oldest = Cursor(self._epoch, self._window.start)
        reason = Bounds(oldest, head).gap(cursor)
        # The log reaches further than the window does, both ways; the broker is asked only where that matters.
        if reason == "ahead":
            written = await self._gauge.written(self._changed)
            head = Cursor(self._epoch, tuple(written[partition] for partition in self._changed))
            reason = Bounds(oldest, head).gap(cursor)
        if reason == "expired":
            reason = Bounds(await self._oldest(), head).gap(cursor)
        if reason is not None:
            raise Expired(reason)

    async def close(self) -> None:
        self._views.close()
        for task in (self._barrier, self._tail):
            if task is not None:
                task.cancel()
                with anyio.CancelScope(shield=True):
                    await asyncio.wait({task})
        if self._consumer is not None:  # a tail that had not begun has stopped nothing
            await stop(self._consumer)


def _published(record: ConsumedRecord) -> Published:
    return wire.published(record.partition, record.offset, record.key, record.value, record.headers)


def _rest(commit: Commit, places: Sequence[int]) -> Commit:
    """What of a slice is new to somebody at `places`."""
    if all(event.position >= places[event.partition] for event in commit.events):
        events = commit.events
    else:
        events = [event for event in commit.events if event.position >= places[event.partition]]
    cursor = Cursor(commit.cursor.epoch, tuple(map(max, commit.cursor.positions, places)))
    return Commit(cursor, events, commit.baselines, commit.health)
