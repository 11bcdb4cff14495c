# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""The past on Kafka: from a place that the index of record timestamps gives to a place in the log, with a consumer of its own.

A record is stamped when it is sent, so an event never stands before the first record that is stamped with its own
`observed_at` or later. It may stand far behind it: a change that waited out an outage is committed hours after it was observed.
So a scan always goes on to its end, whatever the interval.
"""

import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence

import anyio
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from watcher.journal.kafka.broker_errors import forbidden
from watcher.journal.kafka.cluster import Cluster
from watcher.journal.kafka.offsets import OffsetProbe, assign_at, poll
from watcher.journal.kafka.records import ConsumedRecord
from watcher.model.events import BalanceState
from watcher.model.filters import FilterMatcher
from watcher.model.keys import Filter
from watcher.model.log import Cursor, Expired, Published, Unavailable
from watcher.model.partitions import partition_of
from watcher.model.past import HistorySlice
from watcher.model.times import parse_rfc3339, shared_micros

SET_BACK = 3_600_000_000
"""Microseconds: of a wall clock that is set back by less, no change is missed that waited for its commit meanwhile."""
MAX_SCANS = 2
"""At once; who comes later waits for one of them. Each holds what it has fetched ahead, megabytes a partition."""


class PastScans:
    """Of one reader. `partitions`: in the order of the positions of a cursor. `decode`: a record as the event it is."""

    def __init__(
        self,
        cluster: Cluster,
        offsets: OffsetProbe,
        partitions: Sequence[TopicPartition],
        decode: Callable[[ConsumedRecord], Published],
    ) -> None:
        self._cluster = cluster
        self._offsets = offsets
        self._partitions = partitions
        self._decode = decode
        self._turns = anyio.Semaphore(MAX_SCANS)

    async def between(
        self, wanted: Filter, first: int, last: int, until: Cursor, behind: Cursor | None = None
    ) -> AsyncGenerator[HistorySlice, None]:
        """See `Reader.between`. Raises Expired where events are deleted while they are read, Unavailable, Forbidden."""
        ends = dict(zip(self._partitions, until.positions, strict=True))
        found = await self._offsets.at_time(self._partitions, first - SET_BACK)
        least = dict(zip(self._partitions, (0,) * len(ends) if behind is None else behind.positions, strict=True))
        begins = {one: max(place, least[one]) for one, (place, _) in found.items()}
        starts = {one: place for one, place in begins.items() if place < ends[one]}
        if not starts:
            return
        matcher, of = FilterMatcher.of(wanted), sum(ends[one] - start for one, start in starts.items())
        async with self._turns, self._cluster.reading(sorted({one.topic for one in starts})) as consumer:
            assign_at(consumer, starts)
            scan = _scan(self._cluster, consumer, {one: ends[one] for one in starts})
            async with contextlib.aclosing(scan):
                async for records, left in scan:
                    inside = (one for one in records if first <= shared_micros(_time(one)) <= last)
                    events = [event for one in inside if matcher.matches((event := self._decode(one)).key)]
                    yield HistorySlice(events, of - left, of)

    async def kept_from(self, topic: str, states: Iterable[BalanceState]) -> int:
        """See `Reader.kept_from`. `topic`: that of the changes; `states`: what they all have led to."""
        starts = await self._offsets.log_starts(self._partitions)
        cut = [one for one, start in starts.items() if start > 0]
        if not cut:
            return 0
        oldest = await self._offsets.at_time(cut, 0)
        kept = [(stamp + 1) * 1000 for _, stamp in oldest.values()]  # what is deleted was stamped no later
        empty = {one.partition for one in cut if one not in oldest and one.topic == topic}
        if empty:  # each event led to a state that is dated like it, or to one before a later event
            count = sum(one.topic == topic for one in self._partitions)
            kept += [
                parse_rfc3339(state.observed_at) + 1
                for state in states
                if state.version and partition_of(state.provider, count) in empty
            ]
        return max(kept, default=0)


async def _scan(
    cluster: Cluster, consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]
) -> AsyncGenerator[tuple[list[ConsumedRecord], int], None]:
    """The records of each partition up to its end, as they come, and how many offsets are left. Raises Expired, Unavailable
    without progress, and Forbidden."""
    denied_before, moved_at = cluster.denied.count, anyio.current_time()
    left = -1
    while left:
        try:
            polled = await poll(consumer, cluster)
        except OffsetOutOfRangeError:
            raise Expired("expired") from None
        before, left = left, sum([max(0, end - await consumer.position(one)) for one, end in ends.items()])
        records = [record for one, found in polled.items() for record in found if record.offset < ends[one]]
        if records or left != before:
            yield records, left
            moved_at = anyio.current_time()
        elif denied := cluster.denied.since(denied_before):
            raise forbidden(denied, "reading")
        elif anyio.current_time() - moved_at > cluster.deadlines.stalled:
            raise Unavailable(f"Kafka gave nothing for {cluster.deadlines.stalled:g} s: a broker is down")


def _time(record: ConsumedRecord) -> str:
    """When the event was observed, RFC 3339."""
    time: bytes = next(value for name, value in record.headers if name == "ce_time")
    return time.decode()
