# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""A dangling transaction is one that the cluster has forgotten to end. This file finds out how it must end.

A coordinator that comes back with a decided transaction writes the end to each partition. A broker that restarts after
a kill may not yet know the leaders of those partitions, take them for deleted, and call the transaction complete
without. Its records then hold the partition back for ever: nobody reads beyond them. Whoever has fenced the
transactional id has the same producer id, so an end written under it ends that transaction too.

The end must be the same everywhere. Where it dangles wherever it has part, nobody has seen anything, and it is aborted: the
next reading finds what is still to be published. Where some of it is committed, or all that is not in doubt, that says how
it was decided: a change and its state have a key and a version in common, and notes tell of one balance and of one crossing
beside them. A crossing is known by its id alone: its key and version may be those of a change that was committed long ago.
"""

import contextlib
from collections.abc import Iterator, Sequence

from aiokafka import TopicPartition

from watcher.journal.kafka.closing_records import closing_id_of
from watcher.journal.kafka.cluster import Cluster
from watcher.journal.kafka.internal_records import beside_of, crossed_of
from watcher.journal.kafka.offsets import OffsetProbe, read_range
from watcher.journal.kafka.records import ConsumedRecord, NotABalance, TopicNames, decode_balance, decode_event

TAIL_OFFSETS = 4_000
"""Offsets at the end of the events among which the last transaction stands: 1,000 rows at most, and control records."""


async def was_committed(
    cluster: Cluster,
    offsets: OffsetProbe,
    topics: TopicNames,
    partitions: Sequence[TopicPartition],
    dangling: Sequence[TopicPartition],
) -> bool:
    """Whether the transaction that dangles in some of the partitions is committed in the others."""
    others = [partition for partition in partitions if partition not in dangling]
    if not others:
        return False
    committed, written = await offsets.last_stable(partitions), await offsets.high_watermarks(partitions)
    first = await offsets.log_starts(others)
    late = {partition: committed[partition] for partition in dangling}
    pending = await read_range(cluster, late, written, isolation="read_uncommitted")
    start = {
        partition: first[partition]
        if partition.topic == topics.state  # compaction leaves nothing of a state but its last record
        else max(first[partition], committed[partition] - TAIL_OFFSETS)
        for partition in others
    }
    parts = set(parts_of(topics, await read_range(cluster, start, committed)))
    return not parts.isdisjoint(parts_of(topics, pending))


def parts_of(topics: TopicNames, records: Sequence[ConsumedRecord]) -> Iterator[tuple[bytes, int]]:
    """What the records tell of their transactions: key and version of each balance, the id (and 0) of each crossing and closing."""
    for one in records:
        if one.topic == topics.changed:
            yield one.key, decode_event(one.partition, one.offset, one.key, one.value, one.headers).version
        elif one.topic == topics.crossed:
            yield dict(one.headers)["ce_id"], 0
        elif one.topic == topics.closing:
            yield closing_id_of(one), 0
        elif one.topic == topics.internal:
            if (beside := beside_of(one.headers)) is not None:
                yield beside
            if (crossed := crossed_of(one.headers)) is not None:
                yield crossed, 0
        elif one.topic == topics.state and one.value is not None:
            with contextlib.suppress(NotABalance):  # whoever opens the partition says so
                yield one.key, decode_balance(one.key, one.value, one.headers).version
