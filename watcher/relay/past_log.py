"""The log for questions about the past: read in turns, so that live events and other readers keep their pace."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import TypeVar

import anyio

from watcher.model.events import BalanceState
from watcher.model.keys import Filter
from watcher.model.log import Bounds, Cursor, Snapshot
from watcher.model.past import Closing, HistorySlice
from watcher.past.state_at import PastError
from watcher.relay.budgets import ReadBudget, ReadQueue
from watcher.relay.log import Log
from watcher.runtime.slicing import LONGEST_REST, REST

GLANCE = 500
"""Balances of a state that is read at once, without a view that others would wait for."""

T = TypeVar("T")


class PacedLog:
    """The PastLog of one question, to be closed: it gives back whatever was opened through it.

    Pages of a snapshot have their turns among those of other snapshots. Of the log one slice is read at a time for all who
    ask about the past, and a rest follows each, as after other long work: a quarter of one core at most.
    """

    def __init__(self, log: Log, budget: ReadBudget, turns: anyio.Lock, most: int) -> None:
        """`turns`: shared by all questions. `most`: balances that one may take."""
        self._log = log
        self._budget = budget
        self._turns = turns
        self._most = most
        self._open: list[Snapshot] = []

    async def bounds(self) -> Bounds:
        return await self._log.bounds()

    async def notes(self) -> dict[str, bytes]:
        return await self._log.notes()

    async def kept_from(self) -> int:
        return await self._log.kept_from()

    async def closing_days(self) -> list[str]:
        return await self._log.closing_days()

    async def snapshot(self, wanted: Filter) -> Snapshot:
        """Raises PastError for one of too many balances."""
        came = self._budget.number()
        async with self._budget.turn(ReadQueue.FIRST_LOOKS):
            found = await self._log.glance(wanted, GLANCE)
        if found is None:
            async with self._budget.turn(ReadQueue.PAGES, came):
                pass  # a view is begun only when its pages are next: it has an end
            found = await self._log.snapshot(wanted)
        self._open.append(found)
        if found.rows > self._most:
            raise PastError(
                f"{found.rows} balances are too many for one answer, which has {self._most} at most: ask for those of fewer "
                "providers or accounts, or use `watcher at`"
            )
        return _PacedSnapshot(found, self._budget, came)

    def between(
        self, wanted: Filter, first: int, last: int, until: Cursor, behind: Cursor | None = None
    ) -> AsyncIterator[HistorySlice]:
        return self._paced(lambda: self._log.between(wanted, first, last, until, behind))

    def first_changes(self, wanted: Filter, time: int, until: Cursor) -> AsyncIterator[HistorySlice]:
        return self._paced(lambda: self._log.first_changes(wanted, time, until))

    def closings(self, day: str, wanted: Filter) -> AsyncIterator[Sequence[Closing]]:
        return self._paced(lambda: self._log.closings(day, wanted))

    async def _paced(self, begin: Callable[[], AsyncIterator[T]]) -> AsyncGenerator[T, None]:
        stream = begin()
        try:
            while True:
                async with self._turns:
                    began = anyio.current_time()
                    try:
                        part = await anext(stream)
                    except StopAsyncIteration:
                        return
                    await anyio.sleep(min(REST * (anyio.current_time() - began), LONGEST_REST))
                yield part
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()

    def close(self) -> None:
        while self._open:
            self._open.pop().close()


class _PacedSnapshot:
    def __init__(self, snapshot: Snapshot, budget: ReadBudget, came: int) -> None:
        self._snapshot = snapshot
        self._budget = budget
        self._came = came

    @property
    def cursor(self) -> Cursor:
        return self._snapshot.cursor

    @property
    def rows(self) -> int:
        return self._snapshot.rows

    @property
    def over(self) -> bool:
        return self._snapshot.over

    async def page(self, size: int) -> Sequence[BalanceState]:
        async with self._budget.turn(ReadQueue.PAGES, self._came):
            return await self._snapshot.page(size)

    def close(self) -> None:
        self._snapshot.close()
