# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""Who writes a partition, and who polls a provider: read without a producer, so that nobody is fenced by a look."""

import anyio
from aiokafka import AIOKafkaConsumer, TopicPartition

from watcher.journal.kafka.cluster import Cluster
from watcher.journal.kafka.fencing import OwnerClaim
from watcher.journal.kafka.internal_records import OWNER
from watcher.journal.kafka.offsets import OffsetProbe, assign_at, read_range, read_until
from watcher.journal.kafka.partition_contents import InternalContents
from watcher.journal.kafka.records import TopicNames, healths
from watcher.model.events import ProviderHealth

LAST_WORDS = 16
"""Offsets before the end of a partition among which an owner's last record stands: nobody writes after "released", but for the
marks of transactions."""
BETWEEN_LOOKS = 0.05
"""Seconds."""
HEARTBEATS = 20_000
"""Offsets before the end of the heartbeats that a look reads."""


class OwnerLook:
    """Looks at the internal partitions and at the heartbeats."""

    def __init__(self, cluster: Cluster, offsets: OffsetProbe, topics: TopicNames) -> None:
        self._cluster = cluster
        self._offsets = offsets
        self._topics = topics
        self._seen: dict[int, tuple[int, InternalContents]] = {}
        """Partition → up to where its owners are known, and what they were."""

    async def await_release(self, partition: int) -> None:
        """Return once the last record of the partition is "released", in doubt or not. Raises Unavailable."""
        place = TopicPartition(self._topics.internal, partition)
        async with self._cluster.reading([self._topics.internal]) as consumer:
            while not await self._is_released(consumer, place):  # noqa: ASYNC110 (no event tells it)
                await anyio.sleep(BETWEEN_LOOKS)

    async def _is_released(self, consumer: AIOKafkaConsumer, place: TopicPartition) -> bool:
        ends = await self._offsets.last_stable([place])
        last = InternalContents()
        assign_at(consumer, {place: max(0, ends[place] - LAST_WORDS)})
        await read_until(consumer, ends, last.take, self._cluster)
        return last.owner is not None and last.owner.released

    async def require_fleet(self, partition: int, claim: OwnerClaim, began_at: float) -> None:
        """Raises Fenced when an instance without our group has claimed the partition since we began, at that offset.

        Each look goes on from where the last one ended. Raises Unavailable.
        """
        place = TopicPartition(self._topics.internal, partition)
        ends = await self._offsets.last_stable([place])
        start, owner = self._seen.get(partition, (int(min(began_at, ends[place])), InternalContents()))
        for record in await read_range(self._cluster, {place: start}, ends):
            if record.key == OWNER:
                owner.take(record)
        self._seen[partition] = ends[place], owner
        # The claims of our own group are no business of who only looks: its claim would grow beyond that of an instance that
        # has them to take over, and this member would stay although all others end.
        if owner.owner is not None and owner.owner.group != claim.record.group:
            claim.resolve(owner.owner, opened=False, since_start=True)

    async def heartbeats(self) -> list[ProviderHealth]:
        """In the order in which they were sent; of each provider the last one at least. Raises Unavailable."""
        place = TopicPartition(self._topics.heartbeat, 0)
        start, ends = await self._offsets.log_starts([place]), await self._offsets.last_stable([place])
        first = {place: max(start[place], ends[place] - HEARTBEATS)}
        return list(healths(await read_range(self._cluster, first, ends)))
