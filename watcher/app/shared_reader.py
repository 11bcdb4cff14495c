"""The one reader of the journal in a process: the relay, webhooks and whoever else reads share it."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio

from watcher.journal import Reader


class SharedReader:
    """Opened by whoever asks first: who polls alone may need none."""

    def __init__(self, make: Callable[[], Awaitable[Reader]]) -> None:
        """`make`: the journal's `reader`."""
        self._make = make
        self._reader: Reader | None = None
        self._opening = anyio.Lock()

    async def get(self) -> Reader:
        """Raises what `Journal.reader` does; whoever asks again tries again."""
        async with self._opening:
            if self._reader is None:
                self._reader = await self._make()
            return self._reader

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[Reader]:
        """For a moment: where nobody keeps one open, it is closed behind that, since it may hold the whole state in memory.
        Raises what `Journal.reader` does."""
        if self._reader is not None:
            yield self._reader
            return
        reader = await self._make()
        try:
            yield reader
        finally:
            await reader.close()

    async def close(self) -> None:
        if self._reader is not None:
            await self._reader.close()
