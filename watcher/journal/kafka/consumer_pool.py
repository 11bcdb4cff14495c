# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""Reading the past for those who are behind the window: a few consumers for all of them.

A consumer holds what it has fetched ahead, megabytes a partition, so there is not one for each reader. Each reader
borrows one for a slice and has given it back when it hands the slice on, however slowly that is taken. When nobody is
behind any more there is none.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence

import anyio
from aiokafka import AIOKafkaConsumer, TopicPartition

from watcher.journal.kafka.cluster import Cluster, stop
from watcher.journal.kafka.offsets import ConsumedRecord, poll, start_at

MOST = 4
"""Consumers."""
WAIT = 0.02
"""Seconds that a fetch at the end of the log waits, and so whoever borrows the consumer next."""


class ConsumerPool:
    """Slices of some partitions from any place."""

    def __init__(self, connection: Cluster, topic: str, partitions: Sequence[TopicPartition]) -> None:
        self._connection = connection
        self._topic = topic
        self._partitions = partitions
        self._turns = anyio.Semaphore(MOST)
        self._idle: list[tuple[tuple[int, ...], AIOKafkaConsumer]] = []
        """Consumers that nobody reads with, and where each stands; the one used last comes last."""
        self._readers = 0

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """For as long as somebody asks for slices."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            while not self._readers and self._idle:
                await stop(self._idle.pop()[1])

    async def slice(self, places: Sequence[int]) -> tuple[list[ConsumedRecord], list[int]]:
        """What comes next, in the order of each partition, and the places behind it: nothing within a moment too.

        Raises Unavailable, and OffsetOutOfRangeError where it is no longer kept.
        """
        async with self._turns:
            consumer = await self._borrow(tuple(places))
            try:
                found = await poll(consumer)
                now = [await consumer.position(partition) for partition in self._partitions]
            except BaseException:
                await stop(consumer)
                raise
            self._idle.append((tuple(now), consumer))
        return [record for records in found.values() for record in records], now

    async def _borrow(self, places: tuple[int, ...]) -> AIOKafkaConsumer:
        """One that stands there has fetched ahead; any other begins there."""
        for number, (stands, consumer) in enumerate(self._idle):
            if stands == places:
                del self._idle[number]
                return consumer
        consumer = self._idle.pop(0)[1] if self._idle else await self._connection.consumer([self._topic], wait=WAIT)
        start_at(consumer, dict(zip(self._partitions, places, strict=True)))
        return consumer
