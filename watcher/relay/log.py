"""The log as the relay sees it: a journal's reader, whichever journal it is."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from watcher.model.keys import Filter
from watcher.model.log import Bounds, Commit, Cursor, Snapshot
from watcher.past.state_at import PastLog


class Log(PastLog, Protocol):
    """What `watcher.journal.Reader` promises, as far as the relay needs it. Raises Unavailable."""

    async def bounds(self) -> Bounds: ...

    async def glance(self, wanted: Filter, most: int) -> Snapshot | None: ...

    def follow(self, cursor: Cursor) -> AsyncIterator[Commit]:
        """Raises Expired."""


@asynccontextmanager
async def following(log: Log, cursor: Cursor) -> AsyncIterator[AsyncIterator[Commit]]:
    """The log from a cursor on, given back at the end and not when the garbage is collected."""
    stream = log.follow(cursor)
    try:
        yield stream
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()
