"""The one reader of a process, for whoever needs it a moment, and where there is none one that is opened for that moment."""

import contextlib
from collections.abc import AsyncIterator

from watcher.journal import Journal, Reader


class ReaderLoan:
    """A reader may hold the whole state in memory, so none is kept for what is done once a day."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._kept: Reader | None = None

    def use(self, reader: Reader | None) -> None:
        """This one stays open from now on."""
        self._kept = reader

    @contextlib.asynccontextmanager
    async def reader(self) -> AsyncIterator[Reader]:
        """Raises JournalError."""
        if self._kept is not None:
            yield self._kept
            return
        reader = await self._journal.reader()
        try:
            yield reader
        finally:
            await reader.close()
