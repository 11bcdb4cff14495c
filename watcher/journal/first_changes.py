"""Of each balance the first change after a time, out of all events that were observed after it: for a journal that has no shorter
way to it."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import anyio.lowlevel
import msgspec

from watcher.model.keys import Key
from watcher.model.log import Published
from watcher.model.past import HistorySlice

ROWS = 500
"""Events in one step of work."""
AT_ONCE = 5_000
"""Events in one slice."""


class _Run(msgspec.Struct, gc=False):
    """Changes of one balance whose versions follow one another."""

    first: Published
    last: int
    """The version of the last one."""


class FirstChanges:
    """From events in the order of the log, all of which were observed after the time."""

    def __init__(self) -> None:
        self._runs: dict[Key, _Run] = {}

    def add(self, event: Published) -> None:
        """A version that is missing was observed before the time, since a wall clock was set back meanwhile. What happened
        before it happened before the time, too, whatever the clock said then."""
        run = self._runs.get(event.key)
        if run is None:
            self._runs[event.key] = _Run(event, event.version)
        elif event.version == run.last + 1:
            run.last = event.version
        elif event.version > run.last:
            run.first, run.last = event, event.version

    def found(self) -> Sequence[Published]:
        return [run.first for run in self._runs.values()]


async def first_changes(slices: AsyncIterator[HistorySlice]) -> AsyncGenerator[HistorySlice, None]:
    """What `Reader.first_changes` gives, from what `Reader.between` gives of all that was observed after the time. Gives that back
    at its end."""
    changes, of = FirstChanges(), 0
    try:
        async for part in slices:
            for number, event in enumerate(part.events, 1):
                if event.type == "changed":
                    changes.add(event)
                if number % ROWS == 0:
                    await anyio.lowlevel.checkpoint()
            of = part.of
            yield HistorySlice([], part.done, of)
    finally:
        if isinstance(slices, AsyncGenerator):
            await slices.aclose()
    found = changes.found()
    for start in range(0, len(found), AT_ONCE):
        yield HistorySlice([*found[start : start + AT_ONCE]], of, of)
