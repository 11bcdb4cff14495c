# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""Reading closings: a day is found by its time, and read until every provider is beyond it.

Nothing of a day is written before its end, so all of it stands behind the first record of that time or later. A day may have been
closed late, so it may stand behind days of others; but each provider closes its days in order. Where a wall clock was set back,
some are closed anew: so reading goes on for a few days.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from math import inf

import anyio
from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from watcher.journal.kafka.closing_records import day_of, decode_closing
from watcher.journal.kafka.cluster import Cluster
from watcher.journal.kafka.offsets import OffsetProbe, Offsets, assign_at, read_until
from watcher.journal.kafka.records import ConsumedRecord
from watcher.model.closed_days import days_closed, providers_closed
from watcher.model.days import DAY, last_day_over, midnight_after
from watcher.model.keys import Filter, Key
from watcher.model.log import Unavailable
from watcher.model.partitions import partition_of
from watcher.model.past import Closing

AT_ONCE = 1000
"""Closings that a reader gives at once."""
BEYOND = 2
"""Days of a provider that are read behind the one that is wanted."""


class _Enough(Exception):
    """All that is wanted has been read."""


class _DayRecords:
    """What is wanted of one day, of each balance the last record. `closed`: the wanted providers that have closed it, as far as it
    is known which."""

    def __init__(self, day: str, wanted: Filter, closed: set[str]) -> None:
        self.found: dict[bytes, ConsumedRecord] = {}
        self._day, self._wanted = day, wanted
        self._beyond = last_day_over(midnight_after(day) + BEYOND * DAY)
        self._begun: set[str] = set()
        self._left = closed

    def take(self, record: ConsumedRecord) -> None:
        """Raises _Enough."""
        day, name = day_of(record), record.key.decode(errors="replace")
        if day is None or not Key.parsable(name):  # somebody else's
            return
        key = Key.parse(name)
        if day == self._day:
            self._begun.add(key.provider)
            if self._wanted.matches(key):
                self.found[record.key] = record
        elif day > self._beyond and key.provider in self._begun and key.provider in self._left:
            self._left.remove(key.provider)
            if not self._left:
                raise _Enough


class ClosingLog:
    """The topic of closings. `checkpoints` is in seconds; `clock` gives wall-clock microseconds."""

    def __init__(
        self,
        cluster: Cluster,
        offsets: OffsetProbe,
        topic: str,
        partitions: int,
        *,
        checkpoints: float,
        clock: Callable[[], int],
    ) -> None:
        self._checkpoints = checkpoints
        self._clock = clock
        self._cluster = cluster
        self._offsets = offsets
        self._topic = topic
        self._partitions = partitions

    def _kept_from(self) -> int:
        """Ends of days before that are not kept, whatever the topic has yet."""
        return 0 if self._checkpoints == inf else max(0, self._clock() - int(self._checkpoints * 1e6))

    def days(self, notes: Mapping[str, bytes]) -> list[str]:
        """Of which closings are kept. `notes`: of all partitions."""
        return days_closed(notes, self._kept_from(), self._clock())

    async def read(
        self, day: str, wanted: Filter, notes: Mapping[str, bytes]
    ) -> AsyncGenerator[Sequence[Closing], None]:
        """What is kept of the end of that day. Raises Unavailable, and ValueError for no day."""
        if day <= last_day_over(self._kept_from() - 1):
            return
        closed = providers_closed(notes, day)
        records = _DayRecords(day, wanted, closed if wanted.provider is None else closed & {*wanted.provider})
        places = self._places(wanted)
        ends = await self._visible(places)
        start = await self._first_at(places, midnight_after(day))
        if start:
            async with self._cluster.reading([self._topic]) as consumer:
                assign_at(consumer, start)
                try:
                    await read_until(consumer, {place: ends[place] for place in start}, records.take, self._cluster)
                except _Enough:
                    pass
                except OffsetOutOfRangeError:
                    raise Unavailable(f"the closings of {day} were deleted while they were read") from None
        found = [closing for record in records.found.values() if (closing := decode_closing(record)) is not None]
        for first in range(0, len(found), AT_ONCE):
            yield found[first : first + AT_ONCE]

    def _places(self, wanted: Filter) -> list[TopicPartition]:
        """Where the wanted providers live."""
        every = range(self._partitions)
        some = every if wanted.provider is None else {partition_of(one, self._partitions) for one in wanted.provider}
        return [TopicPartition(self._topic, partition) for partition in sorted(some)]

    async def _visible(self, places: Sequence[TopicPartition]) -> Offsets:
        """Where what can be read ends, once that is all that was written before this call, or after a moment: a commit is
        reported before its end stands everywhere."""
        written, visible = await self._offsets.high_watermarks(places), await self._offsets.last_stable(places)
        with anyio.move_on_after(self._cluster.deadlines.fresh):
            while any(visible[place] < end for place, end in written.items()):
                await anyio.sleep(0.02)
                visible = await self._offsets.last_stable(places)
        return visible

    async def _first_at(self, places: Sequence[TopicPartition], time: int) -> dict[TopicPartition, int]:
        """The first record of that time or later, of each partition that has one."""
        found = await self._offsets.at_time(places, time)
        return {place: offset for place, (offset, _) in found.items()}
