# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""Reading closings: a day is found by its time, and read as far as somebody may have closed it late.

Each provider closes its days in order, and the events that a closing is made from are kept for `retention`. So what was written
of a day stands before the first record of a time that much later.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from math import inf

from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from watcher.journal.kafka.closing_records import day_of, decode_closing
from watcher.journal.kafka.cluster import Cluster
from watcher.journal.kafka.offsets import OffsetProbe, assign_at, read_until
from watcher.journal.kafka.records import ConsumedRecord
from watcher.model.closed_days import days_closed
from watcher.model.days import DAY, last_day_over, midnight_after
from watcher.model.keys import Filter, Key
from watcher.model.log import Unavailable
from watcher.model.partitions import partition_of
from watcher.model.past import Closing

AT_ONCE = 1000
"""Closings that a reader gives at once."""
LATEST = 7 * DAY
"""A day may have been closed so late, or as late as `retention` says: whatever it was when that was done."""
MARGIN = 2 * DAY


class ClosingLog:
    """The topic of closings. `retention` and `checkpoints` are in seconds; `clock` gives wall-clock microseconds."""

    def __init__(
        self,
        cluster: Cluster,
        offsets: OffsetProbe,
        topic: str,
        partitions: int,
        *,
        retention: float,
        checkpoints: float,
        clock: Callable[[], int],
    ) -> None:
        self._checkpoints = checkpoints
        self._clock = clock
        self._cluster = cluster
        self._offsets = offsets
        self._topic = topic
        self._partitions = partitions
        self._late = max(LATEST, int(retention * 1e6)) + MARGIN

    def _kept_from(self) -> int:
        """Ends of days before that are not kept, whatever the topic has yet."""
        return 0 if self._checkpoints == inf else max(0, self._clock() - int(self._checkpoints * 1e6))

    def days(self, notes: Mapping[str, bytes]) -> list[str]:
        """Of which closings are kept. `notes`: of all partitions."""
        return days_closed(notes, self._kept_from(), self._clock())

    async def read(self, day: str, wanted: Filter) -> AsyncGenerator[Sequence[Closing], None]:
        """What is kept of the end of that day, of each key the last record. Raises Unavailable, and ValueError for no day."""
        end = midnight_after(day)
        if day <= last_day_over(self._kept_from() - 1):
            return
        records: dict[bytes, ConsumedRecord] = {}

        def take(record: ConsumedRecord) -> None:
            if day_of(record) == day and _matches(wanted, record.key):
                records[record.key] = record

        async with self._cluster.reading([self._topic]) as consumer:
            places = [TopicPartition(self._topic, partition) for partition in self._where(wanted)]
            start = await self._first_at(places, end)
            if start:
                stop = {**await self._offsets.last_stable(list(start))}
                stop |= await self._first_at(list(start), end + self._late)
                assign_at(consumer, start)
                try:
                    await read_until(consumer, stop, take, self._cluster)
                except OffsetOutOfRangeError:
                    raise Unavailable(f"the closings of {day} were deleted while they were read") from None
        found = [closing for record in records.values() if (closing := decode_closing(record)) is not None]
        for first in range(0, len(found), AT_ONCE):
            yield found[first : first + AT_ONCE]

    def _where(self, wanted: Filter) -> Sequence[int]:
        """The partitions in which the wanted providers live."""
        if wanted.provider is None:
            return range(self._partitions)
        return sorted({partition_of(provider, self._partitions) for provider in wanted.provider})

    async def _first_at(self, places: Sequence[TopicPartition], time: int) -> dict[TopicPartition, int]:
        """The first record of that time or later, of each partition that has one."""
        found = await self._offsets.at_time(places, time)
        return {place: offset for place, (offset, _) in found.items()}


def _matches(wanted: Filter, key: bytes) -> bool:
    text = key.decode(errors="replace")
    return Key.parsable(text) and wanted.matches(Key(*text.split("/")))  # type: ignore[arg-type]
