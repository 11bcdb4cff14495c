# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""The markers of a log: `init` writes one into each state partition, and whoever opens a partition looks for it."""

import asyncio
import itertools
import secrets

import anyio
from aiokafka import TopicPartition

from watcher.journal import WrongJournal
from watcher.journal.kafka.cluster import Cluster
from watcher.journal.kafka.deadlines import within
from watcher.journal.kafka.fencing import require_partition_rule
from watcher.journal.kafka.offsets import OffsetProbe, assign_at, poll
from watcher.journal.kafka.producer import TransactionalProducer
from watcher.journal.kafka.records import MARKER, PARTITION_BY, LogMarker, PartitionContents, TopicNames, control_record


class LogMarkers:
    """All markers of one log."""

    def __init__(self, cluster: Cluster, offsets: OffsetProbe, topics: TopicNames, partitions: int) -> None:
        self._cluster = cluster
        self._offsets = offsets
        self._topics = topics
        self._partitions = partitions

    async def has_log(self) -> bool:
        """Whether `init` has made a log here. Raises WrongJournal when the events were re-created under it, and for one
        whose balances stand in other partitions than ours would.

        The marker's transaction has part in the events too, where it ends in a control record that no consumer sees:
        from then on their partition 0 has never been empty.
        """
        if not await self._has_marker():
            return False
        first = TopicPartition(self._topics.changed, 0)
        with anyio.move_on_after(self._cluster.deadlines.begun):
            while (await self._offsets.high_watermarks([first]))[first] == 0:  # noqa: ASYNC110 (no event tells it)
                await anyio.sleep(0.05)
            return True
        raise topics_recreated(self._topics)

    async def _has_marker(self) -> bool:
        """The first marker is the oldest record of its partition, so the first look finds it."""
        contents = PartitionContents()
        partition = TopicPartition(self._topics.state, 0)
        # A marker that was just committed is written but may not be visible yet.
        written = await self._offsets.high_watermarks([partition])
        async with self._cluster.reading(self._topics) as consumer:
            assign_at(consumer, {partition: 0})
            with within(self._cluster.deadlines.marked, "looking for the marker"):
                while contents.marker is None and await consumer.position(partition) < written[partition]:
                    for record in itertools.chain(*(await poll(consumer, self._cluster.deadlines.request)).values()):
                        contents.add(record.key, record.value, record.headers)
        if contents.marker is None:
            return False
        require_partition_rule(self._topics, contents.marker)
        return True

    async def write(self, transactional_id: str, *, new_log: bool) -> bool:
        """Write the markers unless they stand there, or anew for a `new_log`; whether they were written. Two at once
        write one log, fenced like writers."""
        producer = await self._cluster.transactional_producer(transactional_id)
        try:
            has_log = await self.has_log()
            if not has_log:
                await self._refuse_orphan_events()
            if new_log or not has_log:
                await self._write_everywhere(producer)
        except BaseException:  # fenced by another `init`, or in doubt: what it still holds must go with it
            await producer.abandon()
            raise
        await producer.close()
        return new_log or not has_log

    async def _refuse_orphan_events(self) -> None:
        """Raises WrongJournal when events are left of a log whose state is gone: versions would begin at 1 beside them."""
        partitions = [TopicPartition(self._topics.changed, partition) for partition in range(self._partitions)]
        starts, ends = await self._offsets.log_starts(partitions), await self._offsets.high_watermarks(partitions)
        filled = [
            partition for partition in partitions if starts[partition] < ends[partition]
        ]  # by control records, too
        if not filled:
            return
        async with self._cluster.reading(self._topics) as consumer:
            assign_at(consumer, {partition: starts[partition] for partition in filled})
            with within(self._cluster.deadlines.marked, "looking for events of an older log"):
                while [one for one in filled if await consumer.position(one) < ends[one]]:
                    if await poll(consumer, self._cluster.deadlines.request):
                        raise WrongJournal(
                            f"topic {self._topics.state} is new but {self._topics.changed} holds events: the state was "
                            f"re-created; delete {self._topics.changed} too, its events with it, and run `watcher init`, "
                            "or take another topic_prefix: versions begin at 1 again"
                        )

    async def _write_everywhere(self, producer: TransactionalProducer) -> None:
        """In every partition, so that whoever opens one finds there which log it belongs to, and one that lost its
        records is no empty one."""
        topic, key, value, headers = control_record(
            self._topics.state, MARKER, LogMarker(secrets.token_hex(8), PARTITION_BY)
        )
        with within(self._cluster.deadlines.admin, "writing the marker"):
            await producer.begin_transaction()
            producer.join_transaction(TopicPartition(self._topics.changed, 0))
            sent = [
                await producer.send(topic, value, key, partition=partition, headers=headers)
                for partition in range(self._partitions)
            ]
            await asyncio.gather(*sent)
            await producer.commit_transaction()


def topics_recreated(topics: TopicNames) -> WrongJournal:
    return WrongJournal(
        f"topic {topics.changed} is new but {topics.state} is not: it was re-created; "
        "delete both and run `watcher init`, which starts a new log"
    )
