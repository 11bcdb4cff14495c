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

from watcher.journal.kafka.cluster import Cluster, stop_client
from watcher.journal.kafka.offsets import assign_at, poll
from watcher.journal.kafka.records import ConsumedRecord

MAX_CONSUMERS = 4
"""Consumers."""
FETCH_WAIT = 0.02
"""Seconds that a fetch at the end of the log waits, and so whoever borrows the consumer next."""


class ConsumerPool:
    """Slices of some partitions from any place."""

    def __init__(self, cluster: Cluster, partitions: Sequence[TopicPartition]) -> None:
        self._cluster = cluster
        self._topics = sorted({partition.topic for partition in partitions})
        self._partitions = partitions
        self._turns = anyio.Semaphore(MAX_CONSUMERS)
        self._idle: list[tuple[tuple[int, ...], AIOKafkaConsumer]] = []
        """Consumers that nobody reads with, and where each stands; the one used last comes last."""
        self._readers = 0

    @contextlib.asynccontextmanager
    async def in_use(self) -> AsyncIterator[None]:
        """For as long as somebody asks for slices."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            while not self._readers and self._idle:
                await stop_client(self._idle.pop()[1])

    async def read(self, positions: Sequence[int]) -> tuple[list[ConsumedRecord], list[int]]:
        """What comes next, in the order of each partition, and the positions behind it: nothing within a moment too.

        Raises Unavailable, and OffsetOutOfRangeError where it is no longer kept.
        """
        async with self._turns:
            consumer = await self._borrow(tuple(positions))
            try:
                found = await poll(consumer, self._cluster)
                now = [await consumer.position(partition) for partition in self._partitions]
            except BaseException:
                await stop_client(consumer)
                raise
            self._idle.append((tuple(now), consumer))
        return [record for records in found.values() for record in records], now

    async def _borrow(self, positions: tuple[int, ...]) -> AIOKafkaConsumer:
        """One that stands there has fetched ahead; any other begins there."""
        for number, (position, consumer) in enumerate(self._idle):
            if position == positions:
                del self._idle[number]
                return consumer
        consumer = self._idle.pop(0)[1] if self._idle else await self._cluster.consumer(self._topics, wait=FETCH_WAIT)
        assign_at(consumer, dict(zip(self._partitions, positions, strict=True)))
        return consumer
