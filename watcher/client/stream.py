"""A typed client of the relay: changes as they come, resumed by itself after a cut.

    async for update in Stream("ws://127.0.0.1:8765/v1/stream", filters={"provider": ["helius"]}):
        print(update.event.account, update.event.amount, update.cursor)

`Stream(…).events()` gives crossings of alerts too. No event comes twice and none is missing, as long as the relay's journal still holds what came during a cut. When
it does not, or when another log takes its place, the relay sends a snapshot instead, and `on_snapshot` gets it with
the reason.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import cast

import msgspec
import structlog
from msgspec import UNSET
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.uri import parse_uri

from watcher.model import filters
from watcher.model.alerts import Crossing, Direction
from watcher.model.events import BalanceChanged
from watcher.model.keys import Key
from watcher.relay import wire
from watcher.relay.messages import (
    BalanceRow,
    Command,
    Crossed,
    Delivery,
    Error,
    ErrorReply,
    Heartbeat,
    Lagging,
    Live,
    ProviderStatus,
    Reply,
    Shutdown,
    SnapshotPage,
    SubscribeParams,
    SubscribeResult,
    Update,
    Welcome,
    retry_after,
)
from watcher.runtime.backoff import Backoff

BACKOFF = Backoff(first=0.25, longest=30.0)
"""Between two tries."""
SILENT = 2.5
"""Heartbeats that may be missing before the connection counts as dead."""
UNTIL_WELCOME = 37.5
"""Seconds without a word from the relay, before it has said how often heartbeats come."""

logger = structlog.get_logger()


class RelayRefused(Exception):
    """The relay will not serve this client however often it asks: close codes 40xx, HTTP 401 and 403, or a wrong
    command. `code` is the protocol's word for it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


def is_relay_url(text: str) -> bool:
    """Whether a `Stream` can try to connect there."""
    try:
        parse_uri(text).host.encode("idna")  # as the lookup of the name does, which raises UnicodeError
    except (InvalidURI, ValueError):
        return False
    return True


class FullSnapshot(msgspec.Struct, frozen=True):
    """All balances that match, at one cursor. `reason`: why it came unasked; None when it was asked for."""

    cursor: str
    rows: list[BalanceRow]
    reason: str | None


def warn(snapshot: FullSnapshot) -> None:
    """What happens with a snapshot that nobody asked for when nobody says otherwise."""
    logger.warning("relay.gap", reason=snapshot.reason, cursor=snapshot.cursor, balances=len(snapshot.rows))


def note(problem: str) -> None:
    """What happens with a cut when nobody says otherwise: it mends itself."""
    logger.debug("relay.cut", problem=problem)


def warn_of_nothing(text: str) -> None:
    """What happens when the filter matches nothing now and nobody says otherwise."""
    logger.warning("relay.nothing_matches", text=text)


def nobody(statuses: Mapping[str, ProviderStatus]) -> None:
    """Who gets what heartbeats say of the providers when nobody wants it."""


Event = Update | Crossed


class Stream:
    """An async iterator of updates; `events` iterates over crossings too. One of the two, once. Raises RelayRefused, and nothing else but cancellation."""

    def __init__(
        self,
        url: str,
        *,
        filters: Mapping[str, Sequence[str]] | None = None,
        since: str | None = None,
        snapshot: bool = False,
        token: str | None = None,
        delivery: Delivery = "all",
        on_snapshot: Callable[[FullSnapshot], None] = warn,
        on_cut: Callable[[str], None] = note,
        on_nothing: Callable[[str], None] = warn_of_nothing,
    ) -> None:
        """`since`: a cursor to go on from; without one from now on, after a snapshot if that is wished.

        `on_cut` gets one line each time that no connection could be made or one was lost; what it raises ends the stream.
        `on_nothing` gets the relay's own line when the filter matches nothing at the first subscription: a typing error?
        """
        self.url = url
        self.cursor = since
        """Everything before was given; a new Stream goes on from here."""
        self._filters = {name: list(values) for name, values in (filters or {}).items()}
        self._snapshot = snapshot
        self._delivery: Delivery = delivery
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._on_snapshot = on_snapshot
        self._on_cut = on_cut
        self._on_nothing = on_nothing
        self.on_providers: Callable[[Mapping[str, ProviderStatus]], None] = nobody
        """Gets what each heartbeat says of the providers, by name."""
        self.subscribed = False
        """Whether the relay ever accepted the subscription."""
        self._versions: dict[Key, int] = {}
        self._crossings: dict[tuple[Key, str], tuple[int, set[Direction]]] = {}
        """By balance and alert: the last version at which it was crossed, and which ways at that."""
        self._crossed = False
        self._wait = 0.0
        self._rows: list[BalanceRow] = []
        self._reason: str | None = None
        self._paging = False

    def __aiter__(self) -> AsyncIterator[Update]:
        return cast(AsyncGenerator[Update, None], self._follow())  # a crossing comes to nobody unasked

    def events(self) -> AsyncGenerator[Event, None]:
        """Updates, and crossings of alerts as they stand among them in the log. A relay of before there were any sends none."""
        self._crossed = True
        return self._follow()

    async def _follow(self) -> AsyncGenerator[Event, None]:
        while True:
            try:
                async with connect(
                    self.url, additional_headers=self._headers, compression=None, max_size=None, subprotocols=None
                ) as socket:
                    try:
                        async with contextlib.aclosing(self._events(socket)) as events:
                            async for event in events:
                                yield event
                    except (asyncio.CancelledError, GeneratorExit):
                        # Who is cancelled cannot wait for a farewell: it would stay open. What is lost already has none.
                        if not socket.connection_lost_waiter.done():
                            socket.transport.abort()
                        raise
            except ConnectionClosed as closed:
                self._closed(closed.rcvd.code if closed.rcvd else 1006, closed.rcvd.reason if closed.rcvd else "")
            except InvalidStatus as refused:
                self._rejected(refused.response.status_code, refused.response.headers.get("Retry-After"))
            except (OSError, TimeoutError, InvalidHandshake, msgspec.DecodeError) as problem:
                self._cut(str(problem) or type(problem).__name__)
            await asyncio.sleep(self._wait * random.uniform(0.5, 1.0))  # noqa: S311 - it only spreads the crowd

    def _closed(self, code: int, reason: str) -> None:
        match retry_after(code):
            case "never":
                raise RelayRefused(reason or str(code), f"the relay closed the connection with {code}")
            case "at_once":
                self._wait = 0.0
            case "backing_off":
                self._cut(f"closed with {code} {reason}".rstrip())

    def _rejected(self, status: int, come_again: str | None) -> None:
        if status in (401, 403):
            raise RelayRefused("unauthorized" if status == 401 else "forbidden", f"the relay answered HTTP {status}")
        if status in (429, 503):
            self._back_off()  # a relay that is full, and says when to come again
        else:
            self._cut(f"HTTP {status}")
        if come_again is not None and come_again.isdigit():
            self._wait = max(self._wait, float(come_again))

    def _cut(self, problem: str) -> None:
        self._back_off()
        self._on_cut(problem)

    def _back_off(self) -> None:
        self._wait = BACKOFF.after(self._wait)

    async def _events(self, socket: ClientConnection) -> AsyncGenerator[Event, None]:
        silence = UNTIL_WELCOME
        await self._subscribe(socket)
        while True:
            async with asyncio.timeout(silence):
                message = wire.read(await socket.recv(), "subscribe")
            if isinstance(message, Update | Crossed):
                fresh = self._fresh(message)
                self.cursor = message.cursor
                if fresh:
                    yield message
            elif isinstance(message, Welcome):
                silence = SILENT * message.heartbeat_ms / 1000
            else:
                self._apply(message)

    def _apply(self, message: wire.FromRelay) -> None:
        if isinstance(message, Heartbeat):
            self.on_providers(message.providers)
        match message:
            case Heartbeat(cursor=cursor) | Lagging(cursor=cursor) | Live(cursor=cursor) | wire.Unknown(cursor=cursor):
                if cursor is not UNSET and not self._paging:
                    self.cursor = cursor
            case SnapshotPage():
                self._page(message)
            case Reply(result=SubscribeResult() as result):
                self._subscribed(result)
            case ErrorReply(error=error):
                self._refused(error)
            case Shutdown():
                self._wait = message.reconnect_after_ms / 1000

    async def _subscribe(self, socket: ClientConnection) -> None:
        try:
            wanted = filters.parse(self._filters)
        except filters.FilterError as mistake:  # the relay would say the same
            raise RelayRefused("bad_request", str(mistake)) from None
        params = SubscribeParams(
            filter=wanted,
            delivery=self._delivery,
            snapshot=self._snapshot,
            cursor=UNSET if self.cursor is None else self.cursor,
            crossed=self._crossed or UNSET,
        )
        self._paging = True
        await socket.send(wire.encode(Command(1, "subscribe", params)).decode())

    def _refused(self, error: Error) -> None:
        if error.temporary:
            raise TimeoutError(error.message)
        raise RelayRefused(error.code, error.message)

    def _subscribed(self, result: SubscribeResult) -> None:
        self._wait = 0.0
        if not (self.subscribed or result.matches):
            self._on_nothing("" if result.note is UNSET else result.note)
        self.subscribed = True
        self._rows, self._reason = [], None if result.reason is UNSET else result.reason
        asked_for_rows = self._snapshot and self.cursor is None
        self._paging = not result.recovered and (asked_for_rows or self._reason is not None)
        if not self._paging:
            self.cursor = result.cursor

    def _page(self, page: SnapshotPage) -> None:
        if page.page == 1:  # another one may have been begun and not ended
            self._rows, self._paging = [], True
            self._reason = self._reason if page.reason is UNSET else page.reason
        self._rows += page.data
        if not page.last:
            return
        # Versions of what it does not name are those of another log.
        self._versions = {
            Key(row.provider, row.chain, row.account, row.token, row.kind): row.version for row in self._rows
        }
        self._crossings.clear()
        self.cursor, self._paging = page.cursor, False
        self._on_snapshot(FullSnapshot(page.cursor, self._rows, self._reason))
        self._rows, self._reason = [], None

    def _fresh(self, message: Event) -> bool:
        """After a cut events may come again."""
        return self._is_new(message.event) if isinstance(message, Update) else self._is_crossed_anew(message.event)

    def _is_new(self, event: BalanceChanged) -> bool:
        key = event.key
        if event.version <= self._versions.get(key, 0):
            return False
        self._versions[key] = event.version
        return True

    def _is_crossed_anew(self, event: Crossing) -> bool:
        """An alert that is edited may be crossed both ways at one version."""
        place = (event.key, event.alert)
        version, ways = self._crossings.get(place, (-1, set()))
        if event.version < version or (event.version == version and event.direction in ways):
            return False
        self._crossings[place] = (event.version, {event.direction} | (ways if event.version == version else set()))
        return True
