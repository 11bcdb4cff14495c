"""The one reader of the journal in a process: the relay, webhooks and whoever else reads share it."""

from collections.abc import Awaitable, Callable

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

    async def close(self) -> None:
        if self._reader is not None:
            await self._reader.close()
