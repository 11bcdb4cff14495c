# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""One partition's only writer: fence, measure, restore; then one transaction at a time.

Anything that is not a plain success ends the producer. What became of its last transaction is not asked but read:
the next `open` fences it, so that its transaction is over one way or the other, and restores what is committed.
"""

import asyncio
from collections.abc import Awaitable, Sequence

import anyio
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, ProducerFenced
from aiokafka.structs import RecordMetadata

from watcher.journal import Batch, Rejected, Restored, WrongJournal
from watcher.journal.kafka.broker_errors import DenialTimer
from watcher.journal.kafka.cluster import REQUEST, Cluster
from watcher.journal.kafka.dangling_transactions import was_told
from watcher.journal.kafka.deadlines import within
from watcher.journal.kafka.fencing import LogIdentity, OwnerClaim
from watcher.journal.kafka.offsets import OffsetProbe, read_to, start_at
from watcher.journal.kafka.producer import TransactionalProducer
from watcher.journal.kafka.records import OWNER, Encoder, OutgoingRecord, PartitionContents, TopicNames, mark
from watcher.journal.kafka.topic_admin import recreated
from watcher.model.log import Unavailable

COMMIT = 8.0
"""Seconds for a commit, below the transaction's own time-out of 10 s."""
FORGOTTEN = 3.0
"""Seconds after the fence in which the ends of our transactions must show; else the cluster has forgotten one."""
QUIET = 15.0
"""Seconds that an open transaction of somebody else may hold us back before we say so."""
GONE = 15.0
"""Seconds for which topics must have been missing before we believe that they were deleted."""
GRACE = 0.5
"""Seconds in which a successor that has just fenced us writes its claim."""

log = structlog.get_logger()


class KafkaWriter:
    """The `Writer` of one partition."""

    def __init__(
        self,
        partition: int,
        transactional_id: str,
        topics: TopicNames,
        *,
        connection: Cluster,
        gauge: OffsetProbe,
        encoder: Encoder,
        claim: OwnerClaim,
        identity: LogIdentity,
    ) -> None:
        self.partition = partition
        self.transactional_id = transactional_id
        self._topics = topics
        self._changed = TopicPartition(topics.changed, partition)
        self._state = TopicPartition(topics.state, partition)
        self._connection = connection
        self._gauge = gauge
        self._encoder = encoder
        self._claim = claim
        self._identity = identity
        self._epoch = ""
        self._gone_since: float | None = None
        """Since when our topics are missing, as far as we looked."""
        self._forbidden = DenialTimer(60.0)
        self._opened = False
        self._producer: TransactionalProducer | None = None
        self._end = 0
        """Where the state ended when we opened it: a successor's claim stands behind."""
        self._last: dict[TopicPartition, int] = {}
        """Where our last records stand."""

    async def open(self) -> Restored:
        """Raises Unavailable, Fenced, Forbidden, and WrongJournal when this is another log than before, or none."""
        try:
            with self._forbidden.doubted():
                return await self._open()
        except Rejected as error:  # not even our claim is taken
            raise WrongJournal(str(error)) from error

    async def _open(self) -> Restored:
        await self._let_go()
        try:
            async with self._connection.reading(self._topics) as consumer:
                try:
                    restored = await self._take_over(consumer)
                except Unavailable:
                    await self._not_gone(consumer)
                    raise
            self._gone_since = None
            await self._transact([mark(self._topics.state, OWNER, self._claim.own)])
        except BaseException:
            await self._let_go()
            raise
        self._opened = True
        return restored

    async def _not_gone(self, consumer: AIOKafkaConsumer) -> None:
        """Raises WrongJournal once the cluster has known nothing of our topics for a while; a broker that has just come
        up may have it to learn."""
        with within(REQUEST, "looking for the topics"):
            known = await consumer.topics()  # of all: asking for one by name may create it
        missing = [name for name in (self._topics.state, self._topics.changed) if name not in known]
        if not missing:
            self._gone_since = None
            return
        now = anyio.current_time()
        self._gone_since = self._gone_since or now
        if now - self._gone_since >= GONE:
            raise WrongJournal(f"topic {missing[0]} is missing: it was deleted; run `watcher init` to start a new log")
        raise Unavailable(f"topic {missing[0]} is missing")

    async def _take_over(self, consumer: AIOKafkaConsumer) -> Restored:
        """Fence, then measure the end, then restore. In another order a stalled twin slips changes in between.

        What is committed before the fence is read before it, so that the fenced time does not grow with the state
        and two starting instances do not fence one another in turn for ever; what counts is read after it.
        """
        history = PartitionContents()
        start_at(consumer, {self._state: 0})
        await self._restore(consumer, history)
        if history.marker is not None:  # one that was just written need not be visible yet
            self._meet(history)
        self._producer = await self._connection.producer(self.transactional_id)
        await self._quiet()
        await self._restore(consumer, history)
        self._meet(history)
        restored = history.restored(self._epoch)
        await self._same_log(restored)
        return restored

    def _meet(self, history: PartitionContents) -> None:
        """Nothing is written to a log that is not ours, not even a claim."""
        self._epoch = self._identity.meet(self.partition, history.marker)
        self._claim.meet(history.owner, opened=self._opened)

    async def _restore(self, consumer: AIOKafkaConsumer, history: PartitionContents) -> None:
        measured = await self._gauge.committed([self._state])
        await read_to(consumer, measured, lambda record: history.take(record.key, record.value, record.headers))
        self._end = measured[self._state]
        self._last = {self._state: self._end - 1}

    async def _quiet(self) -> None:
        """Wait until no transaction is open here: what it would still commit is not in what we restore."""
        if not await self._settled(FORGOTTEN):
            await self._end_forgotten()
            if not await self._settled(QUIET):
                raise Unavailable(
                    f"partition {self.partition}: an open transaction of another producer holds the log back"
                )

    async def _settled(self, seconds: float) -> bool:
        both = [self._changed, self._state]
        with anyio.move_on_after(seconds):
            while await self._gauge.committed(both) != await self._gauge.written(both):  # noqa: ASYNC110 (no event tells it)
                await anyio.sleep(0.02)
            return True
        return False

    async def _end_forgotten(self) -> None:
        """The fence has ended all transactions of this id, and the coordinator is done with them: see `hanging`."""
        both = [self._changed, self._state]
        committed, written = await self._gauge.committed(both), await self._gauge.written(both)
        hanging = [partition for partition in both if committed[partition] < written[partition]]
        told = len(hanging) == 1 and await was_told(
            self._connection, self._gauge, self._changed, self._state, hanging[0]
        )
        log.warning("journal.transaction_hangs", partition=self.partition, ended="committed" if told else "aborted")
        producer = self._fenced_in()
        with within(COMMIT, f"ending a transaction that hangs in partition {self.partition}"):
            await producer.begin_transaction()
            for partition in hanging:
                producer.take_part(partition)
            await (producer.commit_transaction() if told else producer.abort_transaction())

    async def _same_log(self, restored: Restored) -> None:
        told = any(state.version for state in restored.states)
        if told and (await self._gauge.written([self._changed]))[self._changed] == 0:
            raise recreated(self._topics)

    async def commit(self, batch: Batch) -> None:
        """Raises Unavailable when in doubt, Fenced when replaced, Rejected before anything is begun or with the producer
        gone. A cancelled commit is in doubt too: open again."""
        records = self._encoder.batch(self._epoch, batch)
        if not records:
            return  # an empty transaction never reaches the broker: it would prove nothing
        with self._forbidden.doubted():
            await self._transact(records)
        self._forbidden.over()

    def _fenced_in(self) -> TransactionalProducer:
        if self._producer is None:
            raise Unavailable(f"partition {self.partition} is not open")
        if self._producer.doubtful:
            raise Unavailable(f"partition {self.partition}: a request got no answer; a new producer is needed")
        return self._producer

    async def _transact(self, records: Sequence[OutgoingRecord]) -> None:
        """Whoever cancels us, or an outcome in doubt, costs the producer: nothing goes on behind anybody's back."""
        producer = self._fenced_in()
        try:
            with within(COMMIT, f"committing to partition {self.partition}", sending=True):
                await self._transaction(producer, records)
        except Unavailable as failure:
            await self._let_go()
            if isinstance(failure.__cause__, ProducerFenced | InvalidProducerEpoch):
                await self._who_fenced()
            raise
        except BaseException:
            await self._let_go()
            raise

    async def _transaction(self, producer: TransactionalProducer, records: Sequence[OutgoingRecord]) -> None:
        await producer.begin_transaction()
        sent = [
            await producer.send(topic, value, key, partition=self.partition, headers=headers)
            for topic, key, value, headers in records
        ]
        await self._delivered(sent)
        await producer.commit_transaction()

    async def _delivered(self, sent: Sequence[Awaitable[RecordMetadata]]) -> None:
        """`commit_transaction` reports success although a batch failed: these are the only witness.

        Of topics that were made anew under a living producer too: the broker takes what it sends, at places where
        other records of ours have stood.
        """
        for told in await asyncio.gather(*sent):
            if 0 <= told.offset <= self._last.get(told.topic_partition, -1):
                raise Unavailable(f"partition {self.partition} of topic {told.topic} begins anew: open it again")
            self._last[told.topic_partition] = told.offset

    async def _who_fenced(self) -> None:
        """Raises Fenced when a greater claim stands here. Reads without a producer, so that nobody is fenced."""
        history = PartitionContents()
        async with self._connection.reading(self._topics) as consumer:
            start_at(consumer, {self._state: self._end})
            for pause in (0.0, GRACE):
                await anyio.sleep(pause)
                await self._look(consumer, history)

    async def _look(self, consumer: AIOKafkaConsumer, history: PartitionContents) -> None:
        end = await self._gauge.committed([self._state])
        await read_to(consumer, end, lambda record: history.take(record.key, record.value, record.headers))
        self._claim.meet(history.owner, opened=True)

    async def _let_go(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.abandon()

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.leave()
