# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""A dangling transaction is one that the cluster has forgotten to end. This file finds out how it must end.

A coordinator that comes back with a decided transaction writes the end to each partition. A broker that restarts after
a kill may not yet know the leaders of those partitions, take them for deleted, and call the transaction complete
without. Its records then hold the partition back for ever: nobody reads beyond them. Whoever has fenced the
transactional id has the same producer id, so an end written under it ends that transaction too.

The end must be the same in both partitions. Where it dangles in both, nobody has seen anything, and it is aborted: the next
reading finds what is still to be published. Where it dangles in one, the other one says how it was decided.
"""

from collections.abc import Callable, Sequence

from aiokafka import TopicPartition

from watcher.journal.kafka.cluster import Cluster
from watcher.journal.kafka.offsets import ConsumedRecord, OffsetProbe, read_range
from watcher.journal.kafka.records import decode_event, decode_state

TAIL_OFFSETS = 4_000
"""Offsets at the end of the events among which the last transaction stands: 1,000 rows at most, and control records."""


async def was_committed(
    cluster: Cluster, offsets: OffsetProbe, changed: TopicPartition, states: TopicPartition, dangling: TopicPartition
) -> bool:
    """Whether the transaction that dangles in one of the two partitions is committed in the other."""
    committed, written = await offsets.last_stable([changed, states]), await offsets.high_watermarks([changed, states])
    first = (await offsets.log_starts([changed]))[changed]
    late = {dangling: committed[dangling]}
    pending = await read_range(cluster, late, written, isolation="read_uncommitted")
    if dangling == changed:
        pending_versions = _versions_by_key(pending, _event_version)
        committed_versions = _versions_by_key(await read_range(cluster, {states: 0}, committed), _state_version)
    else:
        pending_versions = _versions_by_key(pending, _state_version)
        start = {changed: max(first, committed[changed] - TAIL_OFFSETS)}
        committed_versions = _versions_by_key(await read_range(cluster, start, committed), _event_version)
    return any(
        version in committed_versions.get(key, ()) for key, versions in pending_versions.items() for version in versions
    )


def _versions_by_key(
    records: Sequence[ConsumedRecord], version: Callable[[ConsumedRecord], int]
) -> dict[bytes, set[int]]:
    """Key → the versions in the records of balances."""
    found: dict[bytes, set[int]] = {}
    for one in records:
        if b"/" in one.key:
            found.setdefault(one.key, set()).add(version(one))
    return found


def _event_version(one: ConsumedRecord) -> int:
    return decode_event(one.partition, one.offset, one.key, one.value, one.headers).version


def _state_version(one: ConsumedRecord) -> int:
    return decode_state(one.value, one.headers).version
