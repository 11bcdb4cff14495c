"""Snapshots, read a page at a time when it is their turn; and `/v1/balances`, one of them as one JSON answer."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from urllib.parse import parse_qs

import anyio

from watcher.model import filters
from watcher.model.events import BalanceState
from watcher.model.filters import FilterMatcher
from watcher.model.keys import Filter
from watcher.model.log import Cursor, SmallSnapshot, Snapshot, Unavailable
from watcher.model.watches import WatchIndex
from watcher.relay import wire
from watcher.relay.budgets import ReadBudget, ReadQueue
from watcher.relay.http.connection import HttpConnection
from watcher.relay.http.head import JSON, HttpAnswer, error
from watcher.relay.http.routes import RoutedRequest
from watcher.relay.log import Log
from watcher.relay.messages import StreamLimits
from watcher.relay.past_queries import names_a_time

PATIENCE = 20.0
"""Seconds that whoever asks for balances waits in line."""
READERS = 32
"""Requests that read the journal at a time."""
READERS_EACH = 24
"""Of one address."""
QUERY_FIELDS = 2000
"""Names in a query beyond which it is not read."""


class SnapshotPages:
    """One snapshot, read in turns; to be closed."""

    def __init__(
        self, snapshot: Snapshot, budget: ReadBudget, size: int, came: int, names: FilterMatcher | None = None
    ) -> None:
        """`names`: labels and tags are wanted, which the journal knows nothing of."""
        self.ended = False
        """No page follows."""
        self._names = names
        self._read = 0
        self._snapshot = snapshot
        self._budget = budget
        self._size = size
        self._came = came

    @property
    def cursor(self) -> Cursor:
        return self._snapshot.cursor

    @property
    def rows(self) -> int:
        """At most, where labels or tags are wanted and it is large."""
        return self._snapshot.rows

    @property
    def over(self) -> bool:
        """It was taken away."""
        return self._snapshot.over

    @asynccontextmanager
    async def page(self) -> AsyncIterator[Sequence[BalanceState]]:
        """The next rows, to be made use of within the turn; perhaps none. Raises SnapshotRevoked, Unavailable."""
        async with self._budget.turn(ReadQueue.PAGES, self._came):
            states = await self._snapshot.page(self._size)
            self._read += len(states)
            self.ended = self._read >= self._snapshot.rows or not states
            yield states if self._names is None else _named(states, self._names)

    def close(self) -> None:
        self._snapshot.close()


class SnapshotReader:
    """Opens them, each in its turn. `size`: rows of a page. `watches`: those of the config as it is now."""

    def __init__(self, log: Log, budget: ReadBudget, size: int, watches: Callable[[], WatchIndex]) -> None:
        self.log = log
        self.watches = watches
        self._budget = budget
        self._size = size

    async def open(self, wanted: Filter) -> SnapshotPages:
        """What the filter shows stands for. Raises JournalError."""
        watches = self.watches()
        came, full = self._budget.number(), filters.asked_of_journal(wanted, watches)
        names = None if (wanted.label, wanted.tag) == (None, None) else FilterMatcher.of(wanted, watches)
        async with self._budget.turn(ReadQueue.FIRST_LOOKS):
            snapshot = await self.log.glance(full, self._size)
            if snapshot is not None and names is not None:
                snapshot = SmallSnapshot(snapshot.cursor, _named(await snapshot.page(self._size), names))
        if snapshot is None:
            async with self._budget.turn(ReadQueue.PAGES, came):
                pass  # a view is begun only when its pages are next: it has an end
            snapshot = await self.log.snapshot(full)
        return SnapshotPages(snapshot, self._budget, self._size, came, names)

    async def holds_any(self, wanted: Filter) -> bool:
        """Whether some balance of the state matches; labels and tags may not be asked for. Raises JournalError."""
        async with self._budget.turn(ReadQueue.FIRST_LOOKS):
            found = await self.log.glance(filters.expand(wanted), 1)
        return found is None or found.rows > 0


def _named(states: Sequence[BalanceState], names: FilterMatcher) -> list[BalanceState]:
    return [state for state in states if names.matches(state.key)]


class BalancesBody:
    """`{"cursor", "data": [rows]}`, a page at a time; nothing is opened before somebody asks for the first."""

    def __init__(self, snapshots: SnapshotReader, wanted: Filter) -> None:
        self._snapshots = snapshots
        self._wanted = wanted
        self._pages: SnapshotPages | None = None
        self._separator = b""
        self._ended = False

    def __aiter__(self) -> "BalancesBody":
        return self

    async def __anext__(self) -> bytes:
        """Raises JournalError, where it cannot begin and where it is broken off."""
        if self._ended:
            raise StopAsyncIteration
        piece = b""
        if self._pages is None:
            self._pages = await self._open()
            piece = b'{"cursor":%b,"data":[' % wire.encode(str(self._pages.cursor))
        rows = b""
        while not (self._ended or rows):  # an empty piece would end the answer
            async with self._pages.page() as states:
                self._ended = self._pages.ended
                rows = wire.encode(wire.rows(states, self._snapshots.watches()))[1:-1]
        if rows:
            piece += self._separator + rows
            self._separator = b","
        return piece + (b"]}" if self._ended else b"")

    async def _open(self) -> SnapshotPages:
        with anyio.move_on_after(PATIENCE):
            return await self._snapshots.open(self._wanted)
        raise Unavailable("too many ask for balances at once")

    async def aclose(self) -> None:
        self._ended = True
        if self._pages is not None:
            self._pages.close()


class Balances:
    """Answers `/v1/balances`, to a bounded number of readers at a time."""

    def __init__(
        self,
        snapshots: SnapshotReader,
        past: Callable[[RoutedRequest], Awaitable[HttpAnswer]],
        refused: Callable[[str], None],
    ) -> None:
        """`past`: answers those that name a time. `refused`: counts a request that was refused, by the reason."""
        self._snapshots = snapshots
        self._past = past
        self._refused = refused
        self._readers: set[HttpConnection] = set()

    async def answer(self, request: RoutedRequest) -> HttpAnswer:
        assert request.rights is not None
        if names_a_time(request.query):
            return await self._past(request)
        of_this_address = sum(other.address == request.connection.address for other in self._readers)
        if len(self._readers) >= READERS or of_this_address >= READERS_EACH:
            self._refused("busy")
            return error(503, "rate_limited", "too many look at the balances: come back later", ("Retry-After", "5"))
        request.connection.count_in(self._readers)
        try:
            filter_ = filters.parse(parse_qs(request.query, max_num_fields=QUERY_FIELDS))
        except ValueError as mistake:
            return error(400, "bad_request", str(mistake))
        if filters.size(filter_) > (most := StreamLimits().filter_values):
            return error(400, "filter_limit", f"at most {most} filter values")
        wanted = filters.intersect(filter_, request.rights)
        if wanted is None:
            return error(403, "forbidden", "the token allows nothing of what the filter asks for")
        return HttpAnswer(200, JSON, BalancesBody(self._snapshots, wanted))
