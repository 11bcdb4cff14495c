"""The log as the relay sees it: a journal's reader, whichever journal it is."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from watcher.model.keys import Filter
from watcher.model.log import Commit, Cursor, Snapshot
from watcher.past.history import HistoryLog
from watcher.past.state_at import PastLog


class Log(PastLog, HistoryLog, Protocol):
    """What `watcher.journal.Reader` promises, as far as the relay needs it. Raises Unavailable."""

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
