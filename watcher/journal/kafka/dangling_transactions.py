# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""A transaction that the cluster has forgotten to end: what must become of it.

A coordinator that comes back with a decided transaction writes the end to each partition. A broker that restarts after
a kill may not yet know the leaders of those partitions, take them for deleted, and call the transaction complete
without. Its records then hold the partition back for ever: nobody reads beyond them. Whoever has fenced the
transactional id has the same producer id, so an end written under it ends that transaction too.

The end must be the same in both partitions. Where both hang, nobody has seen anything, and it is aborted: the next
reading finds what is still untold. Where one hangs, the other one says how it was decided.
"""

from collections.abc import Callable, Sequence

from aiokafka import TopicPartition

from watcher.journal.kafka.cluster import Cluster
from watcher.journal.kafka.offsets import ConsumedRecord, OffsetProbe, Offsets, read_to, start_at
from watcher.journal.kafka.records import published, state

LAST = 4_000
"""Places at the end of the events among which the last transaction stands: 1,000 rows at most, and control records."""


async def was_told(
    connection: Cluster, gauge: OffsetProbe, changed: TopicPartition, states: TopicPartition, hanging: TopicPartition
) -> bool:
    """Whether the transaction that hangs in one of the two partitions is committed in the other."""
    committed, written = await gauge.committed([changed, states]), await gauge.written([changed, states])
    first = (await gauge.beginnings([changed]))[changed]
    late = {hanging: committed[hanging]}
    pending = await read(connection, late, written, isolation="read_uncommitted")
    if hanging == changed:
        news = _versions(pending, _of_event)
        told = _versions(await read(connection, {states: 0}, committed), _of_state)
    else:
        news = _versions(pending, _of_state)
        start = {changed: max(first, committed[changed] - LAST)}
        told = _versions(await read(connection, start, committed), _of_event)
    return any(version in told.get(key, ()) for key, versions in news.items() for version in versions)


async def read(
    connection: Cluster, start: Offsets, ends: Offsets, *, isolation: str = "read_committed"
) -> list[ConsumedRecord]:
    """What stands between those places, each partition of `start` up to its end in `ends`. Raises Unavailable."""
    found: list[ConsumedRecord] = []
    async with connection.reading([partition.topic for partition in start], isolation=isolation) as consumer:
        start_at(consumer, start)
        await read_to(consumer, {partition: ends[partition] for partition in start}, found.append)
    return found


def _versions(records: Sequence[ConsumedRecord], version: Callable[[ConsumedRecord], int]) -> dict[bytes, set[int]]:
    """Key → the versions that the records of balances speak of."""
    found: dict[bytes, set[int]] = {}
    for one in records:
        if b"/" in one.key:
            found.setdefault(one.key, set()).add(version(one))
    return found


def _of_event(one: ConsumedRecord) -> int:
    return published(one.partition, one.offset, one.key, one.value, one.headers).version


def _of_state(one: ConsumedRecord) -> int:
    return state(one.value, one.headers).version
