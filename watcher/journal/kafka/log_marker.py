# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""The markers of a log: `init` writes one into each internal partition, and whoever opens a partition looks for it."""

import asyncio
import itertools
import secrets

from aiokafka import TopicPartition

from watcher.journal.kafka.cluster import Cluster
from watcher.journal.kafka.fencing import (
    events_lost,
    orphan_events,
    records_lost,
    require_partition_rule,
    unmarked_state,
)
from watcher.journal.kafka.internal_records import MARKER, PARTITION_BY, LogMarker, control_record
from watcher.journal.kafka.offsets import OffsetProbe, assign_at, poll, read_until
from watcher.journal.kafka.partition_contents import InternalContents
from watcher.journal.kafka.producer import TransactionalProducer
from watcher.journal.kafka.records import TopicNames
from watcher.journal.kafka.state_table import StateTable

TOMBSTONES = 5_000
"""In one transaction."""


class LogMarkers:
    """All markers of one log."""

    def __init__(self, cluster: Cluster, offsets: OffsetProbe, topics: TopicNames, partitions: int) -> None:
        self._cluster = cluster
        self._offsets = offsets
        self._topics = topics
        self._partitions = partitions
        self._state_partitions = [TopicPartition(topics.state, partition) for partition in range(partitions)]

    async def has_log(self) -> bool:
        """Whether `init` has made a log here. Raises WrongJournal when events or states were re-created under it, and for a
        log whose balances stand in other partitions than ours would."""
        found = await self._has_events_and_marker()
        if found:
            for partition in await self._offsets.empty(self._state_partitions, self._cluster.deadlines.begun):
                raise records_lost(self._topics, *partition)
        return found

    async def _has_events_and_marker(self) -> bool:
        """Whether there is a marker. Raises WrongJournal when the events were re-created under it.

        Its transaction has part in the first partition of the events, and in all of the state, where it ends in a control
        record that no consumer sees: from then on they have never been empty.
        """
        found = await self._has_marker()
        first = TopicPartition(self._topics.changed, 0)
        if found and await self._offsets.empty([first], self._cluster.deadlines.begun):
            raise events_lost(self._topics)
        return found

    async def is_unmarked(self) -> bool:
        """Whether something stands in the state, although there is no log."""
        ends = await self._offsets.high_watermarks(self._state_partitions)
        return any(ends.values())

    async def _has_marker(self) -> bool:
        """The first marker is the oldest record of its partition, so the first look finds it."""
        contents = InternalContents()
        partition = TopicPartition(self._topics.internal, 0)
        # A marker that was just committed is written but may not be visible yet.
        written = await self._offsets.high_watermarks([partition])
        async with self._cluster.reading(self._topics) as consumer:
            assign_at(consumer, {partition: 0})
            with self._cluster.within(self._cluster.deadlines.marked, "looking for the marker"):
                while contents.marker is None and await consumer.position(partition) < written[partition]:
                    for record in itertools.chain(*(await poll(consumer, self._cluster)).values()):
                        contents.take(record)
        if contents.marker is None:
            return False
        require_partition_rule(self._topics, contents.marker)
        return True

    async def write(self, transactional_id: str, *, new_log: bool) -> bool:
        """Write the markers unless they stand there, or anew for a `new_log`, which takes out of the state what is not a
        balance; whether they were written. Two at once write one log, fenced like writers."""
        producer = await self._cluster.transactional_producer(transactional_id)
        try:
            has_log = await self._has_events_and_marker() if new_log else await self.has_log()
            if new_log or not has_log:
                state = await self._survey()
                await self._require_a_beginning(state, new_log=new_log)
                await self._remove(producer, state)
                await self._write_everywhere(producer)
        except BaseException:  # fenced by another `init`, or in doubt: what it still holds must go with it
            await producer.abandon()
            raise
        await producer.close()
        return new_log or not has_log

    async def _survey(self) -> StateTable:
        """What stands in the state."""
        table = StateTable()
        ends = await self._offsets.high_watermarks(self._state_partitions)
        async with self._cluster.reading(self._topics) as consumer:
            assign_at(consumer, await self._offsets.log_starts(self._state_partitions))
            await read_until(consumer, ends, table.restore, self._cluster)
        return table

    async def _require_a_beginning(self, state: StateTable, *, new_log: bool) -> None:
        """Raises WrongJournal when versions would begin at 1 beside events of before, and for a log that is gone on with
        although nobody has asked for that."""
        if not new_log and (state.rows or state.foreign):
            raise unmarked_state(self._topics)
        if not state.rows:
            await self._refuse_orphan_events()

    async def _refuse_orphan_events(self) -> None:
        topics = (self._topics.changed, self._topics.crossed)
        partitions = [TopicPartition(topic, partition) for topic in topics for partition in range(self._partitions)]
        starts, ends = await self._offsets.log_starts(partitions), await self._offsets.high_watermarks(partitions)
        filled = [
            partition for partition in partitions if starts[partition] < ends[partition]
        ]  # by control records, too
        if not filled:
            return
        async with self._cluster.reading(self._topics) as consumer:
            assign_at(consumer, {partition: starts[partition] for partition in filled})
            with self._cluster.within(self._cluster.deadlines.marked, "looking for events of an older log"):
                while [one for one in filled if await consumer.position(one) < ends[one]]:
                    for partition in await poll(consumer, self._cluster):
                        raise orphan_events(self._topics, partition.topic)

    async def _remove(self, producer: TransactionalProducer, state: StateTable) -> None:
        """Tombstones for what is not a balance: a table that is built on the state drops it, and compaction too."""
        foreign = sorted(state.foreign)
        for start in range(0, len(foreign), TOMBSTONES):
            with self._cluster.within(self._cluster.deadlines.admin, f"cleaning topic {self._topics.state}"):
                await producer.begin_transaction()
                sent = [
                    await producer.send(self._topics.state, None, key, partition=partition)
                    for partition, key in foreign[start : start + TOMBSTONES]
                ]
                await asyncio.gather(*sent)
                await producer.commit_transaction()

    async def _write_everywhere(self, producer: TransactionalProducer) -> None:
        """In every partition, so that whoever opens one finds there which log it belongs to, and one that lost its
        records is no empty one."""
        epoch = secrets.token_hex(8)
        events = [TopicPartition(self._topics.changed, partition) for partition in range(self._partitions)]
        ends = await self._offsets.high_watermarks(events)
        with self._cluster.within(self._cluster.deadlines.admin, "writing the marker"):
            await producer.begin_transaction()
            first = (TopicPartition(topic, 0) for topic in (self._topics.changed, self._topics.crossed))
            for joined in (*first, *self._state_partitions):
                producer.join_transaction(joined)
            sent = []
            for partition, end in enumerate(ends[one] for one in events):
                marker = LogMarker(epoch, PARTITION_BY, end)
                topic, key, value, headers = control_record(self._topics.internal, MARKER, marker)
                sent.append(await producer.send(topic, value, key, partition=partition, headers=headers))
            await asyncio.gather(*sent)
            await producer.commit_transaction()
