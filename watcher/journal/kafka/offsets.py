# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""Reading partitions to a measured place, without a group."""

from collections.abc import Callable, Mapping, Sequence

import anyio
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from watcher.journal.kafka.broker_errors import forbidden
from watcher.journal.kafka.cluster import Cluster, stop_client
from watcher.journal.kafka.records import ConsumedRecord
from watcher.model.log import Unavailable
from watcher.runtime.progress import Progress

Offsets = Mapping[TopicPartition, int]
POLL_MS = 50
"""aiokafka wakes nobody for a fetch of control records alone; the position has moved all the same."""


async def poll(consumer: AIOKafkaConsumer, cluster: Cluster) -> Mapping[TopicPartition, Sequence[ConsumedRecord]]:
    """What has come, within a moment. Raises OffsetOutOfRangeError, or Unavailable for what else goes wrong."""
    try:
        with cluster.within(cluster.deadlines.request, "reading"):
            records: Mapping[TopicPartition, Sequence[ConsumedRecord]] = await consumer.getmany(timeout_ms=POLL_MS)
    except Unavailable as failure:
        if isinstance(failure.__cause__, OffsetOutOfRangeError):
            raise failure.__cause__ from None
        raise
    return records


def assign_at(consumer: AIOKafkaConsumer, positions: Mapping[TopicPartition, int]) -> None:
    consumer.assign(list(positions))
    for partition, position in positions.items():
        consumer.seek(partition, position)


async def read_until(
    consumer: AIOKafkaConsumer,
    targets: Mapping[TopicPartition, int],
    take: Callable[[ConsumedRecord], None],
    cluster: Cluster,
) -> None:
    """Hand every record before `targets` (and perhaps some behind) to `take`. Raises Unavailable without progress, and
    Forbidden."""
    denied_before = cluster.denied.count
    positions: dict[TopicPartition, int] = {}
    moved_at, taken = anyio.current_time(), 0
    progress: Progress | None = None
    while True:
        now = {partition: await consumer.position(partition) for partition in targets}
        if progress is None:
            left = sum(max(0, target - now[partition]) for partition, target in targets.items())
            progress = Progress(f"reading {', '.join(sorted({partition.topic for partition in targets}))}", left)
        progress.at(taken)
        if all(now[partition] >= target for partition, target in targets.items()):
            return
        if now != positions:
            positions, moved_at = now, anyio.current_time()
        elif denied := cluster.denied.since(denied_before):
            raise forbidden(denied, "reading")
        elif anyio.current_time() - moved_at > cluster.deadlines.stalled:
            raise Unavailable(
                f"Kafka gave nothing for {cluster.deadlines.stalled:g} s: a broker is down, or an open transaction holds the log back"
            )
        for records in (await poll(consumer, cluster)).values():
            for record in records:
                take(record)
            taken += len(records)


async def read_range(
    cluster: Cluster, start: Offsets, ends: Offsets, *, isolation: str = "read_committed"
) -> list[ConsumedRecord]:
    """The records of each partition of `start`, from there up to its end in `ends`. Raises Unavailable."""
    found: list[ConsumedRecord] = []
    async with cluster.reading([partition.topic for partition in start], isolation=isolation) as consumer:
        assign_at(consumer, start)
        await read_until(consumer, {partition: ends[partition] for partition in start}, found.append, cluster)
    return found


class OffsetProbe:
    """Where the log begins and ends. It never fetches: a broker answers one connection's requests in turn, and an
    offset asked for behind a waiting fetch comes half a second late. One for the whole journal.
    """

    def __init__(self, cluster: Cluster, topics: Sequence[str]) -> None:
        self._cluster = cluster
        self._topics = topics
        self._consumers: dict[str, AIOKafkaConsumer] = {}
        self._starting = anyio.Lock()

    async def last_stable(self, partitions: Sequence[TopicPartition]) -> Offsets:
        """Last stable offsets: what a `read_committed` consumer can read now ends here. Raises Unavailable."""
        return await self._ends("read_committed", partitions)

    async def high_watermarks(self, partitions: Sequence[TopicPartition]) -> Offsets:
        """High watermarks: nothing committed before this call stands behind them. Raises Unavailable."""
        return await self._ends("read_uncommitted", partitions)

    async def empty(self, partitions: Sequence[TopicPartition], seconds: float) -> list[TopicPartition]:
        """Those in which nothing has ever been written, not even the end of a transaction. Raises Unavailable.

        `seconds`: a coordinator writes such an end on its own, after it has said that the transaction is committed.
        """
        found = partitions
        with anyio.move_on_after(seconds):
            while found := [one for one, end in (await self.high_watermarks(found)).items() if not end]:  # noqa: ASYNC110 (no event tells it)
                await anyio.sleep(0.05)
        return list(found)

    async def log_starts(self, partitions: Sequence[TopicPartition]) -> Offsets:
        consumer = await self._consumer("read_committed")
        with self._cluster.within(self._cluster.deadlines.request, "asking where the log begins"):
            offsets: Offsets = await consumer.beginning_offsets(partitions)
        return offsets

    async def at_time(
        self, partitions: Sequence[TopicPartition], micros: int
    ) -> Mapping[TopicPartition, tuple[int, int]]:
        """The first record that is stamped then or later: its offset, and its stamp in milliseconds. A partition without one
        has none. Raises Unavailable.

        `micros`: wall-clock microseconds.
        """
        consumer = await self._consumer("read_committed")
        with self._cluster.within(self._cluster.deadlines.request, "asking for offsets by time"):
            found = await consumer.offsets_for_times(dict.fromkeys(partitions, max(0, micros // 1000)))
        return {one: (there.offset, there.timestamp) for one, there in found.items() if there is not None}

    async def _ends(self, isolation: str, partitions: Sequence[TopicPartition]) -> Offsets:
        consumer = await self._consumer(isolation)
        with self._cluster.within(self._cluster.deadlines.request, "asking where the log ends"):
            offsets: Offsets = await consumer.end_offsets(partitions)
        return offsets

    async def _consumer(self, isolation: str) -> AIOKafkaConsumer:
        async with self._starting:
            if isolation not in self._consumers:
                self._consumers[isolation] = await self._cluster.consumer(self._topics, isolation=isolation)
            return self._consumers[isolation]

    async def close(self) -> None:
        for consumer in self._consumers.values():
            await stop_client(consumer)
