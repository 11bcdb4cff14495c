# ruff: noqa: SLF001 (aiokafka's consumer sends what it has no method for)
# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""One partition's only writer: fence, measure, restore; then one transaction at a time.

Anything that is not a plain success ends the producer. What became of its last transaction is not asked but read:
the next `open` fences it, so that its transaction is over one way or the other, and restores what is committed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import anyio
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, ProducerFenced
from aiokafka.structs import RecordMetadata

from watcher.journal import Batch, Rejected, Restored, WrongJournal
from watcher.journal.kafka.broker_errors import DenialTimer
from watcher.journal.kafka.closing_records import time_of
from watcher.journal.kafka.cluster import Cluster
from watcher.journal.kafka.dangling_transactions import TAIL_OFFSETS, was_committed
from watcher.journal.kafka.encoder import Encoder
from watcher.journal.kafka.fencing import LogIdentity, OwnerClaim, crossings_lost, events_lost, records_lost
from watcher.journal.kafka.internal_records import OWNER, control_record
from watcher.journal.kafka.offsets import OffsetProbe, Offsets, assign_at, read_range, read_until
from watcher.journal.kafka.partition_contents import InternalContents, PartitionContents
from watcher.journal.kafka.producer import TransactionalProducer
from watcher.journal.kafka.records import OutgoingRecord, TopicNames
from watcher.model.log import Unavailable

log = structlog.get_logger()


class KafkaWriter:
    """The `Writer` of one partition."""

    _opened_at = 0
    """The offset where the internal records ended when we opened them: a successor's claim stands behind."""
    _state_end = 0
    """The offset where the states ended then."""
    _crossed_end = 0
    """The offset where the crossings ended then."""
    _epoch = ""
    _was_open = False
    _missing_since: float | None = None
    """Since when our topics are missing, as far as we looked."""
    _begun_anew: TopicPartition | None = None
    """What took records of ours where others of ours had stood."""

    def __init__(
        self,
        partition: int,
        transactional_id: str,
        topics: TopicNames,
        *,
        cluster: Cluster,
        offsets: OffsetProbe,
        encoder: Encoder,
        claim: OwnerClaim,
        identity: LogIdentity,
        boottime: Callable[[], float],
        began_at: float,
    ) -> None:
        """`began_at`: where the internal records ended when this instance began; an owner behind it has come since."""
        self.partition = partition
        self.transactional_id = transactional_id
        self._topics = topics
        joined = (topics.changed, topics.state, topics.internal, topics.crossed, topics.closing)
        self._transacted = tuple(TopicPartition(topic, partition) for topic in joined)
        """Where a transaction of ours may have part."""
        self._event_partition, self._state_partition, self._internal_partition, self._crossed_partition, _ = (
            self._transacted
        )
        self._cluster = cluster
        self._offsets = offsets
        self._encoder = encoder
        self._claim = claim
        self._identity = identity
        self._boottime = boottime
        self._began_at = began_at
        self._denied = DenialTimer(60.0, cluster.deadlines.denied)
        self._producer: TransactionalProducer | None = None
        self._last_offsets: dict[TopicPartition, int] = {}
        """Where our last records stand."""

    async def open(self) -> Restored:
        """Raises Unavailable, Fenced, Lost, Forbidden, and WrongJournal when this is another log than before, or none."""
        try:
            with self._denied.tolerated():
                return await self._open()
        except Rejected as error:  # not even our claim is taken
            raise WrongJournal(str(error)) from error

    async def _open(self) -> Restored:
        await self._abandon_producer()
        try:
            async with self._cluster.reading(self._topics) as consumer:
                try:
                    restored = await self._fence_and_restore(consumer)
                except Unavailable:
                    await self._refuse_deleted_topics(consumer)
                    raise
            self._missing_since = None
            claim = self._claim.opened(self._state_end, self._crossed_end)
            await self._transact([control_record(self._topics.internal, OWNER, claim)])
        except BaseException:
            await self._abandon_producer()
            raise
        self._was_open = True
        return restored

    async def _refuse_deleted_topics(self, consumer: AIOKafkaConsumer) -> None:
        """Raises WrongJournal once the cluster has known nothing of our topics for a while; a broker that has just come
        up may have it to learn."""
        with self._cluster.within(self._cluster.deadlines.request, "looking for the topics"):
            names = [partition.topic for partition in self._transacted]
            missing = await self._cluster.missing_topics(consumer._client, names)
        if not missing:
            self._missing_since = None
            return
        now = anyio.current_time()
        self._missing_since = self._missing_since or now
        if now - self._missing_since >= self._cluster.deadlines.gone:
            raise WrongJournal(f"topic {missing[0]} is missing: it was deleted; run `watcher init` to start a new log")
        raise Unavailable(f"topic {missing[0]} is missing")

    async def _fence_and_restore(self, consumer: AIOKafkaConsumer) -> Restored:
        """Fence, then measure the end, then restore. In another order a stalled twin slips changes in between.

        What is committed before the fence is read before it, so that the fenced time does not grow with the state
        and two starting instances do not fence one another in turn for ever; what counts is read after it.
        """
        contents = PartitionContents(self._topics, self.partition)
        assign_at(consumer, {self._state_partition: 0, self._internal_partition: 0})
        await self._read(consumer, contents)
        if contents.internal.marker is not None:  # one that was just written need not be visible yet
            self._verify_owner(contents.internal)
        self._producer = await self._cluster.transactional_producer(self.transactional_id)
        fenced_at = self._boottime()
        await self._await_no_open_transaction()
        await self._read(consumer, contents)
        self._verify_owner(contents.internal)
        restored = contents.restored(
            self._epoch, fenced_at, released=self._claim.settles(contents.internal.owner, opened=self._was_open)
        )
        await self._require_whole(restored, contents.internal)
        self._last_offsets = {
            self._state_partition: self._state_end - 1,
            self._internal_partition: self._opened_at - 1,
            self._crossed_partition: self._crossed_end - 1,
        }
        return restored

    def _verify_owner(self, contents: InternalContents) -> None:
        """Nothing is written to a log that is not ours, not even a claim."""
        self._epoch = self._identity.verify(self.partition, contents.marker)
        self._resolve(contents, opened=self._was_open)

    def _resolve(self, contents: InternalContents, *, opened: bool) -> None:
        self._claim.resolve(contents.owner, opened=opened, since_start=contents.owner_at >= self._began_at)

    async def _read(self, consumer: AIOKafkaConsumer, contents: PartitionContents) -> None:
        measured = await self._offsets.last_stable([self._state_partition, self._internal_partition])
        await read_until(consumer, measured, contents.take, self._cluster)
        self._opened_at, self._state_end = measured[self._internal_partition], measured[self._state_partition]

    async def _await_no_open_transaction(self) -> None:
        """Wait until no transaction is open here: what it would still commit is not in what we restore."""
        if not await self._transactions_closed(self._cluster.deadlines.forgotten):
            await self._end_dangling()
            if not await self._transactions_closed(self._cluster.deadlines.quiet):
                raise Unavailable(
                    f"partition {self.partition}: an open transaction of another producer holds the log back"
                )

    async def _transactions_closed(self, seconds: float) -> bool:
        all_of_them = self._transacted
        with anyio.move_on_after(seconds):
            while await self._offsets.last_stable(all_of_them) != await self._offsets.high_watermarks(all_of_them):  # noqa: ASYNC110 (no event tells it)
                await anyio.sleep(0.02)
            return True
        return False

    async def _end_dangling(self) -> None:
        """The fence has ended all transactions of this id, and the coordinator is done with them: see `dangling_transactions`."""
        committed = await self._offsets.last_stable(self._transacted)
        written = await self._offsets.high_watermarks(self._transacted)
        dangling = [partition for partition in self._transacted if committed[partition] < written[partition]]
        commit = await was_committed(self._cluster, self._offsets, self._topics, self._transacted, dangling)
        log.warning("journal.transaction_hangs", partition=self.partition, ended="committed" if commit else "aborted")
        producer = self._live_producer()
        with self._cluster.within(
            self._cluster.deadlines.commit, f"ending a transaction that hangs in partition {self.partition}"
        ):
            await producer.begin_transaction()
            for partition in dangling:
                producer.join_transaction(partition)
            await (producer.commit_transaction() if commit else producer.abort_transaction())

    async def _require_whole(self, restored: Restored, internal: InternalContents) -> None:
        """Raises WrongJournal when events or states were lost: versions would begin anew beside the old ones."""
        await self._require_crossings(internal)
        if self._begun_anew is not None:
            raise records_lost(self._topics, *self._begun_anew)
        written = max(internal.state_end, self._last_offsets.get(self._state_partition, -1) + 1)
        if self._state_end < written or await self._offsets.empty(
            [self._state_partition], self._cluster.deadlines.begun
        ):
            raise records_lost(self._topics, *self._state_partition)
        ends = await self._offsets.high_watermarks([self._event_partition])
        has_changes = any(state.version for state in restored.states)
        if has_changes and ends[self._event_partition] == 0:
            raise events_lost(self._topics)
        if not has_changes and await self._holds_events(internal.events_from, ends):
            raise records_lost(self._topics, *self._state_partition)

    async def _require_crossings(self, internal: InternalContents) -> None:
        """Raises WrongJournal when crossings were lost. A log that an older version made had none, and no topic for them."""
        crossed = self._crossed_partition
        written = max(internal.crossed_end, self._last_offsets.get(crossed, -1) + 1)
        self._crossed_end = (await self._offsets.last_stable([crossed]))[crossed]
        if self._crossed_end < written or self._begun_anew == crossed:
            raise crossings_lost(self._topics, self.partition)

    async def _holds_events(self, first: int, ends: Offsets) -> bool:
        """Whether there is one among the last, of this log, which begins at `first`."""
        kept = (await self._offsets.log_starts([self._event_partition]))[self._event_partition]
        start = {self._event_partition: max(first, kept, ends[self._event_partition] - TAIL_OFFSETS)}
        return start != ends and bool(await read_range(self._cluster, start, ends))

    async def commit(self, batch: Batch) -> None:
        """Raises Unavailable when in doubt, Fenced when replaced, Rejected before anything is begun or with the producer
        gone. A cancelled commit is in doubt too: open again."""
        records = self._encoder.batch(self._epoch, batch)
        if not records:
            return  # an empty transaction never reaches the broker: it would prove nothing
        with self._denied.tolerated():
            await self._transact(records)
        self._denied.clear()

    async def release(self, *, in_doubt: float = 0.0) -> None:
        last_word = self._claim.released(self._state_end, self._crossed_end, in_doubt=in_doubt)
        await self._transact([control_record(self._topics.internal, OWNER, last_word)])

    def _live_producer(self) -> TransactionalProducer:
        if self._producer is None:
            raise Unavailable(f"partition {self.partition} is not open")
        if self._producer.in_doubt:
            raise Unavailable(f"partition {self.partition}: a request got no answer; a new producer is needed")
        return self._producer

    async def _transact(self, records: Sequence[OutgoingRecord]) -> None:
        """Whoever cancels us, or an outcome in doubt, costs the producer: nothing goes on behind anybody's back."""
        producer = self._live_producer()
        try:
            with self._cluster.within(
                self._cluster.deadlines.commit, f"committing to partition {self.partition}", sending=True
            ):
                await self._transaction(producer, records)
        except Unavailable as failure:
            await self._abandon_producer()
            if isinstance(failure.__cause__, ProducerFenced | InvalidProducerEpoch):
                await self._raise_if_fenced()
            raise
        except BaseException:
            await self._abandon_producer()
            raise

    async def _transaction(self, producer: TransactionalProducer, records: Sequence[OutgoingRecord]) -> None:
        await producer.begin_transaction()
        sent = [
            await producer.send(
                topic, value, key, partition=self.partition, timestamp_ms=time_of(headers), headers=headers
            )
            for topic, key, value, headers in records
        ]
        await self._require_delivery(sent)
        await producer.commit_transaction()

    async def _require_delivery(self, sent: Sequence[Awaitable[RecordMetadata]]) -> None:
        """`commit_transaction` reports success although a batch failed: these are the only witness.

        Of topics that were made anew under a living producer too: the broker takes what it sends, at places where
        other records of ours have stood.
        """
        for metadata in await asyncio.gather(*sent):
            if 0 <= metadata.offset <= self._last_offsets.get(metadata.topic_partition, -1):
                self._begun_anew = metadata.topic_partition
                raise Unavailable(f"partition {self.partition} of topic {metadata.topic} begins anew: open it again")
            self._last_offsets[metadata.topic_partition] = metadata.offset

    async def _raise_if_fenced(self) -> None:
        """Raises Fenced when a greater claim stands here, Lost when another member's does. Reads without a producer, so
        that nobody is fenced. In a fleet, who was fenced while it opened what it was given tries again: whoever fenced it
        has been cut off, and finds our claim then."""
        contents = InternalContents()
        async with self._cluster.reading(self._topics) as consumer:
            assign_at(consumer, {self._internal_partition: self._opened_at})
            for pause in (0.0, self._cluster.deadlines.grace):
                await anyio.sleep(pause)
                end = await self._offsets.last_stable([self._internal_partition])
                await read_until(consumer, end, contents.take, self._cluster)
                self._resolve(contents, opened=self._was_open or not self._claim.record.group)

    async def _abandon_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.abandon()

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.close()
