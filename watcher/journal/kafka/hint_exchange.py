# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""Hints by way of a topic that anybody may write: what is read there is bounded in bytes, records and time.

Nothing here may disturb the log: clients of its own, no group, no transaction. Newer hints matter more than older ones, so
a reader that is behind skips.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import anyio
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.producer.message_accumulator import BatchBuilder

from watcher.journal.interface import Forbidden
from watcher.journal.kafka.bounded_fetches import BoundedFetches
from watcher.journal.kafka.broker_errors import DenialTimer
from watcher.journal.kafka.cluster import Cluster, stop_client
from watcher.journal.kafka.hint_batches import fresh
from watcher.journal.kafka.producer import silence_batches
from watcher.model.log import JournalError, Unavailable
from watcher.runtime.backoff import Backoff

AHEAD = 64 * 1024
"""Bytes fetched at once."""
WAIT_MS = 1000
"""Milliseconds that a turn waits for a hint."""
MOST = 1000
"""Records that one turn takes; a reader that is further behind goes on so far before the end."""
MOST_A_SECOND = 4000
"""Records. Who polls has more to do: a flood may cost it a tenth of its time."""
RETRY = Backoff(first=0.5, longest=5.0)
REFUSALS_APART = 30.0
"""Seconds."""

log = structlog.get_logger()


class KafkaHintExchange:
    """The `HintExchange` on Kafka. For one task that receives, and any that send."""

    def __init__(self, cluster: Cluster, topic: str, clock: Callable[[], int]) -> None:
        """`clock` gives wall-clock microseconds."""
        self._cluster = cluster
        self._clock = clock
        self._place = TopicPartition(topic, 0)
        self._producer: AIOKafkaProducer | None = None
        self._starting = anyio.Lock()
        self._failures = 0
        self._rests_until = 0.0
        """After failures nothing is sent, so that whoever comes does not wait for the next one."""
        self._consumer: AIOKafkaConsumer | None = None
        self._denied_sending = DenialTimer(REFUSALS_APART, cluster.deadlines.denied)
        self._denied_reading = DenialTimer(REFUSALS_APART, cluster.deadlines.denied)

    async def send(self, hints: Sequence[bytes]) -> None:
        """Raises Unavailable, and Forbidden once the right to it has been missing for a while."""
        if anyio.current_time() < self._rests_until:
            raise Unavailable("Kafka took no hints a moment ago: it is tried again soon")
        try:
            with self._denied_sending.tolerated(), self._cluster.within(self._cluster.deadlines.hints, "sending hints"):
                await self._send(hints)
        except JournalError as error:
            self._failures += 1
            self._rests_until = anyio.current_time() + RETRY.pause(self._failures)
            log.warning("hint.not_sent", hints=len(hints), why=str(error))
            await self._stop_producer()
            raise error if isinstance(error, Forbidden | Unavailable) else Unavailable(str(error)) from error
        self._failures = 0
        self._denied_sending.clear()

    async def _send(self, hints: Sequence[bytes]) -> None:
        async with self._starting:
            producer = self._producer = self._producer or await self._cluster.plain_producer()
        for batch in _batches(producer, hints):
            sent = await producer.send_batch(batch, self._place.topic, partition=0)
            silence_batches(producer)
            await sent

    async def receive(self) -> AsyncIterator[Sequence[bytes]]:
        failures = 0
        try:
            while True:
                try:
                    with self._denied_reading.tolerated():
                        hints, records = await self._turn()
                except Unavailable as error:
                    failures += 1
                    log.warning("hint.not_received", why=str(error), again_in=RETRY.pause(failures))
                    await self._stop_consumer()
                    await anyio.sleep(RETRY.pause(failures))
                    continue
                failures = 0
                if hints:
                    yield hints
                await anyio.sleep(records / MOST_A_SECOND)
        finally:
            await self._stop_consumer()

    async def _turn(self) -> tuple[list[bytes], int]:
        """The hints that have come, and how many records it took to find them. Raises Unavailable, Forbidden."""
        consumer = self._consumer or await self._begin()
        seconds = WAIT_MS / 1000 + self._cluster.deadlines.request
        try:
            with self._cluster.within(seconds, "reading hints"):
                found = await consumer.getmany(self._place, timeout_ms=WAIT_MS, max_records=MOST)
        except Unavailable as failure:
            if isinstance(failure.__cause__, OffsetOutOfRangeError):  # slower than what deletes them: begin at the end
                await self._stop_consumer()
                return [], 0
            raise
        except (ValueError, LookupError, ArithmeticError):
            return self._step_over(consumer)
        records = found.get(self._place, ())
        end = consumer.highwater(self._place)
        if end is not None and records and end - (records[-1].offset + 1) > MOST:
            consumer.seek(self._place, end - MOST)
        return fresh(records, self._clock()), len(records)

    def _step_over(self, consumer: AIOKafkaConsumer) -> tuple[list[bytes], int]:
        """A record at which the client stumbles, such as a header whose name is no UTF-8: it would again, so what came with it
        is lost. It is given as nothing: it counts as no hint."""
        if (end := consumer.highwater(self._place)) is not None:
            consumer.seek(self._place, end)
        return [b""], 1

    async def _begin(self) -> AIOKafkaConsumer:
        """A consumer that stands at the end."""
        cluster, place = self._cluster, self._place
        consumer = self._consumer = await cluster.consumer([place.topic], isolation="read_uncommitted", ahead=AHEAD)
        BoundedFetches(consumer)
        with cluster.within(cluster.deadlines.request, "asking where the hints end"):
            end = (await consumer.end_offsets([place]))[place]
        consumer.assign([place])
        consumer.seek(place, end)
        return consumer

    async def _stop_consumer(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop_client(consumer)

    async def _stop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            silence_batches(producer)
            await stop_client(producer)

    async def close(self) -> None:
        await self._stop_producer()
        await self._stop_consumer()


def _batches(producer: AIOKafkaProducer, hints: Sequence[bytes]) -> Iterator[BatchBuilder]:
    batch = producer.create_batch()
    for hint in hints:
        if batch.append(key=None, value=hint, timestamp=None) is None:
            yield batch
            batch = producer.create_batch()
            batch.append(key=None, value=hint, timestamp=None)
    if batch.record_count():
        yield batch
