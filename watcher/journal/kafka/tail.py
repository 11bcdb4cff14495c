# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""What one reader has seen of the log: one task follows every partition with a plain `read_committed` consumer.

It keeps two things: the table (the state of every key, as of a place in the log of events) and a window of the last
slices, which all live followers share. Events are changes and crossings; crossings have no part in the table, and a place in
the log is one in all partitions of changes, then one in all of crossings.

The table is a function of the changes: a row stands at the version of the last event before the tail's place, and rows
of version 0 come from the state. To start, the state is read first, to an end measured after a place in the events
was taken, and then the events from that place to an end measured after the state was read. Every transaction found in
the state has its events before that end, and every one behind that place in the events is applied; so no row is ahead
of the cursor and none behind, although the two topics' markers are written one after the other.

A transaction that dangles in one of the topics and is committed in the other (see `dangling_transactions`) breaks that:
where the state is held back, the events are read from further back; where the events are, rows go back to before them.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import anyio
import anyio.lowlevel
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from watcher.journal import WrongJournal
from watcher.journal.kafka import records as wire
from watcher.journal.kafka.broker_errors import DenialTimer
from watcher.journal.kafka.cluster import Cluster, stop_client
from watcher.journal.kafka.commit_window import CommitWindow
from watcher.journal.kafka.dangling_transactions import TAIL_OFFSETS
from watcher.journal.kafka.fencing import LogIdentity
from watcher.journal.kafka.internal_records import CONTROL_KEYS, MARKER, LogMarker, decode_marker
from watcher.journal.kafka.offsets import (
    OffsetProbe,
    Offsets,
    assign_at,
    poll,
    read_range,
    read_until,
)
from watcher.journal.kafka.records import ConsumedRecord, TopicNames
from watcher.journal.kafka.state_table import StateTable
from watcher.model.events import BalanceState, ProviderHealth
from watcher.model.log import Commit, Cursor, Published, Unavailable


class LogTail:
    """The state of every key as of a place, and the last commits."""

    epoch = ""
    _reloading = False
    """The table is being read anew."""

    def __init__(
        self,
        cluster: Cluster,
        offsets: OffsetProbe,
        topics: TopicNames,
        partitions: int,
        identity: LogIdentity,
        *,
        on_turn: Callable[[], None],
    ) -> None:
        """`on_turn` is called behind everything that was read."""
        self._cluster = cluster
        self._offsets = offsets
        self._topics = topics
        self._changed_partitions, crossed, self._state_partitions, self._internal_partitions = (
            [TopicPartition(topic, partition) for partition in range(partitions)]
            for topic in (topics.changed, topics.crossed, topics.state, topics.internal)
        )
        self.event_partitions = [*self._changed_partitions, *crossed]
        """In the order of the positions of a cursor."""
        self._places = {partition: place for place, partition in enumerate(self.event_partitions)}
        self._identity = identity
        self._on_turn = on_turn
        self._markers: dict[int, LogMarker] = {}
        """The last one of each partition."""
        self.table = StateTable()
        self.window = CommitWindow((0,) * len(self.event_partitions))
        self.positions: dict[TopicPartition, int] = {}
        """Where each partition has been read to."""
        self.denied = DenialTimer(10.0, cluster.deadlines.denied)
        self._advanced = anyio.Event()
        """Set by the next turn."""
        self._shared_refresh: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._consumer: AIOKafkaConsumer | None = None

    @property
    def head(self) -> Cursor:
        """The place in the log where `table` holds."""
        return Cursor(self.epoch, self.window.end)

    async def start(self) -> None:
        """Load the table, then follow in a task. Raises Unavailable, WrongJournal."""
        consumer = await self._cluster.consumer(self._topics)
        try:
            await self._load(consumer)
        except BaseException:
            await stop_client(consumer)
            raise
        self._consumer = consumer
        self._task = asyncio.create_task(self._follow(consumer))

    async def _load(self, consumer: AIOKafkaConsumer) -> None:
        """See the head of this file for why it goes in this order."""
        positions = dict(await self._offsets.last_stable(self.event_partitions))
        beside = [*self._state_partitions, *self._internal_partitions]
        visible, held_back = await self._visible_offsets(beside)
        held_back = [partition for partition in held_back if partition.topic == self._topics.state]
        if held_back:
            first = await self._offsets.log_starts(self.event_partitions)
            for partition in (self._changed_partitions[one.partition] for one in held_back):
                positions[partition] = max(first[partition], positions[partition] - TAIL_OFFSETS)
        assign_at(consumer, await self._offsets.log_starts(beside))
        await read_until(consumer, visible, self._restore, self._cluster)
        for one in self._internal_partitions:
            self.epoch = self._identity.verify(one.partition, self._markers.get(one.partition))
        self._require_balances()
        heartbeat = TopicPartition(self._topics.heartbeat, 0)
        after = {partition: await consumer.position(partition) for partition in beside}
        assign_at(consumer, {**positions, **after, **await self._offsets.log_starts([heartbeat])})
        visible, held_back = await self._visible_offsets(self.event_partitions)
        self.window = CommitWindow(tuple(positions[partition] for partition in self.event_partitions))
        self.positions = {**positions, **after}
        with self._cluster.within(self._cluster.deadlines.caught_up, "reading the events"):
            while not self._has_reached(visible):
                await self._read_once(consumer)
        held_back = [partition for partition in held_back if partition.topic == self._topics.changed]
        if held_back:
            await self._roll_back(held_back)

    async def _visible_offsets(self, partitions: Sequence[TopicPartition]) -> tuple[Offsets, list[TopicPartition]]:
        """Where what is written now ends, as soon as it can be read; else, after `load` seconds, what can be, and the
        partitions in which that is not all."""
        visible, written = await self._offsets.last_stable(partitions), await self._offsets.high_watermarks(partitions)
        with anyio.move_on_after(self._cluster.deadlines.load):
            while any(visible[partition] < end for partition, end in written.items()):
                await anyio.sleep(0.02)
                visible = await self._offsets.last_stable(partitions)
            return written, []
        return visible, [partition for partition, end in written.items() if visible[partition] < end]

    async def _roll_back(self, held_back: Sequence[TopicPartition]) -> None:
        """Events that nobody may see yet, while their states are committed: the rows wait for them too."""
        start, ends = (
            {partition: self.positions[partition] for partition in held_back},
            await self._offsets.high_watermarks(held_back),
        )
        for record in await read_range(self._cluster, start, ends, isolation="read_uncommitted"):
            self.table.roll_back(self.event_of(record))

    def _restore(self, record: ConsumedRecord) -> None:
        if record.topic == self._topics.state:
            self.table.restore(record)
        elif record.key == MARKER and record.value is not None:
            self._markers[record.partition] = decode_marker(record.value)
        else:
            self._note(record)

    def _require_balances(self) -> None:
        """Raises WrongJournal when the state holds what is not a balance."""
        for partition, key in sorted(self.table.foreign):
            raise wire.foreign_records(self._topics, partition, key)

    def _note(self, record: ConsumedRecord) -> None:
        if record.value is None:
            return
        if record.key == MARKER:
            self._identity.verify(record.partition, decode_marker(record.value))
        elif record.key not in CONTROL_KEYS:
            self.table.notes.add(record.key, record.value, record.headers)

    def _baseline(self, record: ConsumedRecord) -> BalanceState | None:
        """The state in a record just committed, if it is a baseline. Raises WrongJournal for what is not a balance."""
        if record.value is None:
            return None
        try:
            state = wire.decode_balance(record.key, record.value, record.headers)
        except wire.NotABalance as error:
            raise wire.foreign_records(self._topics, record.partition, record.key) from error
        return state if self.table.add_baseline(state) else None

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        try:
            while True:
                try:
                    with self.denied.tolerated():
                        await self._read_once(consumer)
                except Unavailable:
                    await anyio.sleep(0.5)  # the client reconnects by itself; whoever waits has a deadline
                except OffsetOutOfRangeError:
                    await self._reload(consumer)
        finally:
            self._advanced.set()
            await stop_client(consumer)

    async def _reload(self, consumer: AIOKafkaConsumer) -> None:
        """Events that the tail had not read were deleted. The states are there; whoever followed the events and cannot
        read them any more learns it. Raises WrongJournal when this is another log, which begins before the tail's place."""
        self._reloading, positions = True, self.positions
        while self._reloading:
            try:
                first = await self._offsets.log_starts(self.event_partitions)
                if all(first[partition] <= positions[partition] for partition in self.event_partitions):
                    raise WrongJournal("the topics were re-created while they were read: start again")
                self.table, self._markers = StateTable(), {}
                with self.denied.tolerated():
                    await self._load(consumer)
            except (Unavailable, OffsetOutOfRangeError):
                await anyio.sleep(0.5)
            else:
                self._reloading = False

    async def _read_once(self, consumer: AIOKafkaConsumer) -> None:
        """Take in what has come, and wake whoever waits for it."""
        events: list[Published] = []
        baselines: list[BalanceState] = []
        health: list[ProviderHealth] = []
        for partition, records in (await poll(consumer, self._cluster)).items():
            if partition in self._places:
                events += [self.event_of(record) for record in records]
            elif partition.topic == self._topics.state:
                baselines += [state for one in records if (state := self._baseline(one)) is not None]
            elif partition.topic == self._topics.internal:
                for one in records:
                    self._note(one)
            else:
                health += wire.healths(records)
        for event in events:
            if event.type == "changed":
                self.table.apply(event)
        self.table.health.update((one.provider, one) for one in health)
        self.positions = {
            partition: await consumer.position(partition)
            for partition in (*self.event_partitions, *self._state_partitions, *self._internal_partitions)
        }
        positions = tuple(self.positions[partition] for partition in self.event_partitions)
        if events or baselines or health or positions != self.window.end:
            self.window.append(Commit(Cursor(self.epoch, positions), events, baselines, health))
        self._on_turn()
        self._advanced.set()
        self._advanced = anyio.Event()

    async def next_turn(self) -> None:
        """Wait for the tail's next turn. Raises what ended it."""
        if self._task is not None and self._task.done():
            if not self._task.cancelled():
                self._task.result()
            raise Unavailable("this reader is closed")
        await self._advanced.wait()

    async def refresh(self) -> None:
        """Let the tail see what was committed before this call. Callers at the same time share one look."""
        if self._shared_refresh is None or self._shared_refresh.done():
            self._shared_refresh = asyncio.create_task(self._catch_up())
        await asyncio.shield(self._shared_refresh)
        if self._reloading:
            raise Unavailable("the events were cut while they were read: the states are read anew")

    async def _catch_up(self) -> None:
        await anyio.lowlevel.checkpoint()
        with self.denied.tolerated():
            written = await self._offsets.high_watermarks(
                [*self.event_partitions, *self._state_partitions, *self._internal_partitions]
            )
        with anyio.move_on_after(self._cluster.deadlines.fresh):
            while not self._has_reached(written):
                await self.next_turn()

    def _has_reached(self, ends: Mapping[TopicPartition, int]) -> bool:
        return all(self.positions[partition] >= end for partition, end in ends.items())

    async def close(self) -> None:
        for task in (self._shared_refresh, self._task):
            if task is not None:
                task.cancel()
                with anyio.CancelScope(shield=True):
                    await asyncio.wait({task})
        if self._consumer is not None:  # a task that had not begun has stopped nothing
            await stop_client(self._consumer)

    def event_of(self, record: ConsumedRecord) -> Published:
        place = self._places[TopicPartition(record.topic, record.partition)]
        return wire.decode_event(place, record.offset, record.key, record.value, record.headers)
