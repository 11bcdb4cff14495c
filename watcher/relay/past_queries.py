"""`/v1/balances?at=` and `/v1/history`: questions about the past, a bounded number at a time, each at a bounded cost."""

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

import anyio
import msgspec

from watcher.model import filters
from watcher.model.log import Expired, Published, SnapshotRevoked
from watcher.model.past import PastBalance
from watcher.model.times import format_rfc3339
from watcher.model.watches import WatchIndex
from watcher.past import asked, history
from watcher.past.asked import Wanted, WantedMatcher, time_of
from watcher.past.history import HistoryInterval, HistoryPlace
from watcher.past.state_at import PastError, state_at
from watcher.relay import wire
from watcher.relay.budgets import ReadBudget, ReadQueue
from watcher.relay.http.connection import HttpConnection
from watcher.relay.http.head import JSON, HttpAnswer, NotBegun, error
from watcher.relay.http.routes import RoutedRequest
from watcher.relay.log import Log
from watcher.relay.messages import Code, StreamLimits
from watcher.relay.past_log import PacedLog
from watcher.runtime.slicing import run_in_slices

ASKING = 32
"""Requests that are there at a time, most of them in line."""
ASKING_EACH = 24
"""Of one address."""
AT_ONCE = 4
"""Of them, those that are worked on, or whose answer is being taken."""
AT_ONCE_EACH = 3
"""Of one address: behind a proxy everybody has the same."""
PATIENCE = 20.0
"""Seconds in line."""
TAKEN = 120.0
"""Seconds in which an answer is taken: it is in memory until then."""
MOST_ROWS = 50_000
"""Balances in one answer, some 20 MB."""
MOST_EVENTS = 1000
"""In one page of history, and in one that names no limit:"""
EVENTS = 100
PIECE = 200
"""Rows that are encoded at a stretch, and sent as one piece."""
QUERY_FIELDS = 2000
"""Names in a query beyond which it is not read."""
BUSY = error(503, "rate_limited", "too many ask about the past at once: come back later", ("Retry-After", "5"))
BROKEN_OFF = "what was asked for was deleted, or taken away, while it was read: ask again"
TRUTHS: Mapping[str, bool] = {"true": True, "false": False}

Fields = dict[str, list[str]]


class _QueryError(ValueError):
    """What is wrong with a query, for whoever sent it."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class PastQueries:
    """The doors to the past. `balances` is for requests that name a time."""

    def __init__(
        self,
        log: Log,
        budget: ReadBudget,
        watches: Callable[[], WatchIndex],
        wall: Callable[[], int],
        refused: Callable[[str], None],
    ) -> None:
        """`watches`: those of the config as it is now. `wall`: microseconds. `refused`: counts a request that was refused, by
        the reason."""
        self._log = log
        self._budget = budget
        self._watches = watches
        self._wall = wall
        self._refused = refused
        self._asking: set[HttpConnection] = set()
        self._places = _Places()
        self._turns = anyio.Lock()

    async def balances(self, request: RoutedRequest) -> HttpAnswer:
        return self._answer(request, self._begin_balances)

    async def history(self, request: RoutedRequest) -> HttpAnswer:
        return self._answer(request, self._begin_history)

    def _answer(
        self,
        request: RoutedRequest,
        begin: Callable[[RoutedRequest, Fields], Callable[[PacedLog], "Found"]],
    ) -> HttpAnswer:
        address = request.connection.address
        if len(self._asking) >= ASKING or sum(other.address == address for other in self._asking) >= ASKING_EACH:
            self._refused("busy")
            return BUSY
        request.connection.count_in(self._asking)
        try:
            find = begin(request, parse_qs(request.query, keep_blank_values=True, max_num_fields=QUERY_FIELDS))
        except _QueryError as mistake:
            return error(403 if mistake.code == "forbidden" else 400, mistake.code, str(mistake))
        except ValueError as mistake:
            return error(400, "bad_request", str(mistake))
        return HttpAnswer(200, JSON, self._pieces(address, find))

    async def _pieces(self, address: str, find: Callable[[PacedLog], "Found"]) -> AsyncGenerator[bytes, None]:
        """Nothing is done before somebody asks for the first; whoever goes away ends it at the next one."""
        await self._wait_in_line(address)
        try:
            pieces = await self._found(find)
            deadline = asyncio.get_running_loop().time() + TAKEN
            for number, piece in enumerate(pieces):
                if number and asyncio.get_running_loop().time() > deadline:
                    raise TimeoutError
                yield piece
        finally:
            self._places.leave(address)

    async def _wait_in_line(self, address: str) -> None:
        """Raises NotBegun."""
        with anyio.move_on_after(PATIENCE):
            await self._places.enter(address)
            return
        self._refused("busy")
        raise NotBegun(BUSY)

    async def _found(self, find: Callable[[PacedLog], "Found"]) -> Sequence[bytes]:
        """Raises NotBegun, JournalError."""
        log = PacedLog(self._log, self._budget, self._turns, MOST_ROWS)
        try:
            return await find(log)
        except PastError as mistake:
            raise NotBegun(error(400, "bad_request", str(mistake))) from None
        except (Expired, SnapshotRevoked):
            raise NotBegun(error(503, "internal", BROKEN_OFF, ("Retry-After", "5"))) from None
        finally:
            log.close()

    def _begin_balances(self, request: RoutedRequest, fields: Fields) -> Callable[[PacedLog], "Found"]:
        """Raises ValueError."""
        time = _time(fields, "at")
        assert time is not None
        wanted = _wanted(request, fields)
        return functools.partial(self._find_balances, time, wanted)

    async def _find_balances(self, time: int, wanted: Wanted, log: PacedLog) -> Sequence[bytes]:
        watches = self._watches()
        matcher = wanted.matcher(watches)
        found = await state_at(log, time, matcher.of_journal, now=self._wall())
        return await run_in_slices(_encoded(time, found, matcher, watches), self._turns)

    def _begin_history(self, request: RoutedRequest, fields: Fields) -> Callable[[PacedLog], "Found"]:
        """Raises ValueError."""
        times = _time(fields, "from"), _time(fields, "to")
        limit, crossed, place = _limit(fields), _truth(fields, "crossed"), _place(fields)
        wanted = _wanted(request, fields)
        return functools.partial(self._find_history, place or times, wanted, limit=limit, crossed=crossed)

    async def _find_history(
        self,
        place: "HistoryPlace | tuple[int | None, int | None]",
        wanted: Wanted,
        log: PacedLog,
        *,
        limit: int,
        crossed: bool,
    ) -> Sequence[bytes]:
        watches = self._watches()
        begin: HistoryPlace | HistoryInterval
        begin = await history.interval_of(log, *place, self._wall()) if isinstance(place, tuple) else place
        page = await history.page(log, begin, wanted.matcher(watches), crossed=crossed, limit=limit, progress=_unseen)
        async with self._budget.turn(ReadQueue.PAGES):
            data = b",".join(history_line(event, watches) for event in page.events)
        next_ = None if page.next is None else str(page.next)
        return [b'{"data":[%b],"next":%b}' % (data, wire.encode(next_))]


Found = Coroutine[Any, Any, Sequence[bytes]]


def _encoded(
    time: int, found: Sequence[PastBalance], matcher: WantedMatcher, watches: WatchIndex
) -> Generator[None, None, Sequence[bytes]]:
    """An answer in pieces, a step for each."""
    pieces = [b'{"at":%b,"data":[' % wire.encode(format_rfc3339(time))]
    separator = b""
    for page in asked.pages(found, PIECE):
        if rows := wire.encode(asked.rows(page, matcher, watches))[1:-1]:
            pieces.append(separator + rows)
            separator = b","
        yield
    return [*pieces, b"]}"]


def history_line(event: Published, watches: WatchIndex) -> bytes:
    """One event of history as JSON, its own bytes unopened: `{"type", "label", "event"}`, `label` where there is one."""
    label = wire.label_of(watches.info(event.key).label)
    return b'{"type":"%b",%b"event":%b}' % (event.type.encode(), label, event.data)


class _Places:
    """Of those that are worked on, or whose answer is being taken."""

    def __init__(self) -> None:
        self._taken: list[str] = []
        self._left = anyio.Event()

    async def enter(self, address: str) -> None:
        while len(self._taken) >= AT_ONCE or self._taken.count(address) >= AT_ONCE_EACH:
            await self._left.wait()
        self._taken.append(address)

    def leave(self, address: str) -> None:
        self._taken.remove(address)
        self._left.set()
        self._left = anyio.Event()


def _unseen(_done: int, _of: int) -> None:
    """Over HTTP nobody is shown how far it is."""


def _one(fields: Fields, name: str) -> str | None:
    values = fields.pop(name, None)
    if values is None:
        return None
    if len(values) > 1:
        raise _QueryError("bad_request", f"{name} is given once")
    return values[0]


def _time(fields: Fields, name: str) -> int | None:
    text = _one(fields, name)
    # In a query a plus sign stands for a space, and few remember to write it as %2B.
    return None if text is None else time_of(text.replace(" ", "+") if text[19:].count(" ") == 1 else text, name)


def _limit(fields: Fields) -> int:
    text = _one(fields, "limit")
    if text is None:
        return EVENTS
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MOST_EVENTS):
        raise _QueryError("bad_request", f"limit is a number from 1 to {MOST_EVENTS}")
    return int(text)


def _truth(fields: Fields, name: str) -> bool:
    text = _one(fields, name)
    if text is None:
        return False
    if text not in TRUTHS:
        raise _QueryError("bad_request", f"{name} is true or false")
    return TRUTHS[text]


def _place(fields: Fields) -> HistoryPlace | None:
    text = _one(fields, "cursor")
    try:
        return None if text is None else HistoryPlace.parse(text)
    except ValueError:
        raise _QueryError("bad_cursor", "cursor is the `next` of a page of this history") from None


def _wanted(request: RoutedRequest, fields: Fields) -> Wanted:
    """What is asked for, as far as the token allows it; an empty value counts as none, as everywhere. Raises ValueError."""
    given = {name: held for name, values in fields.items() if (held := list(filter(None, values)))}
    wanted = asked.wanted(given)
    if filters.size(wanted.filter) > (most := StreamLimits().filter_values):
        raise _QueryError("filter_limit", f"at most {most} filter values")
    assert request.rights is not None
    allowed = filters.intersect(wanted.filter, request.rights)
    if allowed is None:
        raise _QueryError("forbidden", "the token allows nothing of what the filter asks for")
    return msgspec.structs.replace(wanted, filter=allowed)


def names_a_time(query: str) -> bool:
    """Whether a query of `/v1/balances` asks about the past."""
    try:
        return "at" in parse_qs(query, keep_blank_values=True, max_num_fields=QUERY_FIELDS)
    except ValueError:
        return False
