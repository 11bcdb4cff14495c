"""The events of a past interval, a page at a time."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import msgspec

from watcher.model.keys import Filter, Key
from watcher.model.log import Bounds, Cursor, Published
from watcher.model.past import HistorySlice
from watcher.model.times import format_rfc3339
from watcher.past.asked import WantedMatcher
from watcher.past.state_at import PastError, Progress

DAY = 86_400_000_000
"""Microseconds, before the end of an interval whose beginning nobody names."""


class HistoryLog(Protocol):
    """What `watcher.journal.Reader` promises, as far as history needs it."""

    async def bounds(self) -> Bounds: ...

    async def kept_from(self) -> int: ...

    def between(
        self, wanted: Filter, first: int, last: int, until: Cursor, behind: Cursor | None = None
    ) -> AsyncIterator[HistorySlice]: ...


class HistoryInterval(msgspec.Struct, frozen=True):
    """Observed from `first` to `last`: wall-clock microseconds, both included."""

    first: int
    last: int


class HistoryPlace(msgspec.Struct, frozen=True):
    """Where a page of history ends. As text it is all that the next page needs beside the filter."""

    cursor: Cursor
    """Everything of the interval before it was given."""
    interval: HistoryInterval

    def __str__(self) -> str:
        return f"{self.cursor}.{self.interval.first}.{self.interval.last}"

    @classmethod
    def parse(cls, text: str) -> "HistoryPlace":
        """The inverse of `str`. Raises ValueError."""
        cursor, *times = text.rsplit(".", 2)
        if len(times) != 2 or not all(part.isascii() and part.isdigit() and len(part) <= 18 for part in times):
            raise ValueError(f"not a place in history: {text[:80]!r}")
        return cls(Cursor.parse(cursor), HistoryInterval(*map(int, times)))


class HistoryPage(msgspec.Struct, frozen=True):
    """Some events, and where the next page begins; None: there is none."""

    events: list[Published]
    next: HistoryPlace | None


async def interval_of(log: HistoryLog, first: int | None, last: int | None, now: int) -> HistoryInterval:
    """What is asked for, or the last day as far as it is kept. Raises PastError for what is in the future, older than what is
    kept, or the wrong way round; Unavailable."""
    for name, time in (("from", first), ("to", last)):
        if time is not None and time > now:
            raise PastError(f"{name} = {format_rfc3339(time)} is in the future: it is {format_rfc3339(now)}")
    end = now if last is None else last
    kept = await log.kept_from()
    begin = max(end - DAY, kept) if first is None else first
    if min(begin, end) < kept:
        name, time = ("to", end) if first is None else ("from", begin)
        raise PastError(
            f"{name} = {format_rfc3339(time)} is older than what is kept: events are there from {format_rfc3339(kept)} on"
        )
    if begin > end:
        raise PastError(f"from = {format_rfc3339(begin)} is later than to = {format_rfc3339(end)}")
    return HistoryInterval(begin, end)


async def page(
    log: HistoryLog,
    place: HistoryPlace | HistoryInterval,
    wanted: WantedMatcher,
    *,
    crossed: bool,
    limit: int,
    progress: Progress,
) -> HistoryPage:
    """At most `limit` events behind that place. `crossed`: crossings, too. Raises PastError where something of it is kept no
    more, Expired, Unavailable."""
    bounds = await log.bounds()
    interval = place if isinstance(place, HistoryInterval) else place.interval
    cursor = bounds.oldest if isinstance(place, HistoryInterval) else place.cursor
    if bounds.gap(cursor) is not None:
        raise PastError("the log is not kept from that cursor on: begin anew, without one")
    events: list[Published] = []
    ends = (cursor, bounds.head)
    async with reading(log, interval, wanted, ends, crossed=crossed, progress=progress) as parts:
        async for part in parts:
            events += part
            if len(events) > limit:
                del events[limit:]
                return HistoryPage(events, HistoryPlace(_behind(cursor, events), interval))
    return HistoryPage(events, None)


def _behind(cursor: Cursor, events: list[Published]) -> Cursor:
    for event in events:
        cursor = cursor.after(event.partition, event.position)
    return cursor


@asynccontextmanager
async def reading(
    log: HistoryLog,
    interval: HistoryInterval,
    wanted: WantedMatcher,
    ends: tuple[Cursor, Cursor],
    *,
    crossed: bool,
    progress: Progress,
) -> AsyncIterator[AsyncIterator[list[Published]]]:
    """Every event that is wanted and stands between these places, in the order of the log, some at a time; given back at the end."""
    behind, until = ends
    stream = log.between(wanted.of_journal, interval.first, interval.last, until, behind)
    try:
        yield _events(stream, wanted.matches, crossed=crossed, progress=progress)
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


async def _events(
    stream: AsyncIterator[HistorySlice], matches: Callable[[Key], bool], *, crossed: bool, progress: Progress
) -> AsyncIterator[list[Published]]:
    async for part in stream:
        progress(part.done, part.of)
        yield [event for event in part.events if (crossed or event.type == "changed") and matches(event.key)]
