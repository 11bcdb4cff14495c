"""What was held at a past time, from the events after it and the state that they lead to."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

from watcher.model.keys import Filter
from watcher.model.log import Cursor, Snapshot
from watcher.model.past import Closing, HistorySlice, PastBalance

Progress = Callable[[int, int], None]
"""Called with the records looked at, and about how many there are."""


class PastError(ValueError):
    """That time cannot be answered. One line for whoever asked, that says what can be."""


class PastLog(Protocol):
    """What `watcher.journal.Reader` promises, as far as the past needs it."""

    async def snapshot(self, wanted: Filter) -> Snapshot: ...

    async def notes(self) -> dict[str, bytes]: ...

    async def kept_from(self) -> int: ...

    def between(self, wanted: Filter, first: int, last: int, until: Cursor) -> AsyncIterator[HistorySlice]: ...

    async def closing_days(self) -> list[str]: ...

    def closings(self, day: str, wanted: Filter) -> AsyncIterator[Sequence[Closing]]: ...


async def state_at(
    log: PastLog, time: int, wanted: Filter, *, now: int, seen: Mapping[str, int], progress: Progress
) -> Sequence[PastBalance]:
    """What was held at `time` (wall-clock microseconds), sorted by key. Raises PastError for a time in the future or older
    than what is kept, Unavailable."""
    raise NotImplementedError
