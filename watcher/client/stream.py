"""A typed client of the relay: changes as they come, resumed by itself after a cut.

    async for update in Stream("ws://127.0.0.1:8765/v1/stream", filters={"provider": ["helius"]}):
        print(update.event.account, update.event.amount, update.cursor)

Nothing is told twice and nothing is missing, as long as the relay's journal still holds what came during a cut. When
it does not, or when another log takes its place, the relay sends a snapshot instead, and `on_snapshot` gets it with
the reason.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from watcher.model.events import BalanceChanged
from watcher.relay.messages import BalanceRow

FIRST, LONGEST = 0.25, 30.0
"""Seconds between two tries."""
SILENT = 2.5
"""Heartbeats that may be missing before the connection counts as dead."""

logger = structlog.get_logger()


class RelayRefused(Exception):
    """The relay will not serve this client however often it asks: close codes 40xx, HTTP 401 and 403, or a wrong
    command. `code` is the protocol's word for it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Update(msgspec.Struct, frozen=True):
    """One change, and the cursor that resumes behind it."""

    event: BalanceChanged
    cursor: str


class FullSnapshot(msgspec.Struct, frozen=True):
    """All balances that match, at one cursor. `reason` says why it came unasked: `expired`, `epoch_changed`, `ahead`."""

    cursor: str
    rows: list[BalanceRow]
    reason: str | None


class _Error(msgspec.Struct):
    code: str
    message: str
    temporary: bool


class _Message(msgspec.Struct):
    """Any message of the relay, as far as this client looks into it."""

    type: str | None = None
    id: int | None = None
    result: dict[str, Any] | None = None
    error: _Error | None = None
    cursor: str | None = None
    reason: str | None = None
    page: int = 1
    event: BalanceChanged | None = None
    data: list[BalanceRow] = []
    last: bool = False
    heartbeat_ms: int = 15_000
    reconnect_after_ms: int = 0


_decode = msgspec.json.Decoder(_Message).decode


def warn(snapshot: FullSnapshot) -> None:
    """What happens with a snapshot that nobody asked for when nobody says otherwise."""
    logger.warning("relay.gap", reason=snapshot.reason, cursor=snapshot.cursor, balances=len(snapshot.rows))


def note(problem: str) -> None:
    """What happens with a cut when nobody says otherwise: it mends itself."""
    logger.debug("relay.cut", problem=problem)


class Stream:
    """An async iterator of updates. Raises RelayRefused, and nothing else but cancellation."""

    def __init__(
        self,
        url: str,
        *,
        filters: Mapping[str, Sequence[str]] | None = None,
        since: str | None = None,
        snapshot: bool = False,
        token: str | None = None,
        delivery: str = "all",
        on_snapshot: Callable[[FullSnapshot], None] = warn,
        on_cut: Callable[[str], None] = note,
    ) -> None:
        """`since`: a cursor to go on from; without one from now on, after a snapshot if that is wished.

        `on_cut` gets one line each time that no connection could be made or one was lost; what it raises ends the stream.
        """
        self.url = url
        self.cursor = since
        """Everything before was given; a new Stream goes on from here."""
        self._params: dict[str, Any] = {
            "filter": {name: list(values) for name, values in (filters or {}).items()},
            "delivery": delivery,
            "snapshot": snapshot,
        }
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._on_snapshot = on_snapshot
        self._on_cut = on_cut
        self.subscribed = False
        """Whether the relay ever accepted the subscription."""
        self._versions: dict[tuple[str, ...], int] = {}
        self._wait = 0.0
        self._rows: list[BalanceRow] = []
        self._reason: str | None = None
        self._paging = False

    async def __aiter__(self) -> AsyncGenerator[Update, None]:
        while True:
            try:
                async with connect(
                    self.url, additional_headers=self._headers, compression=None, max_size=None, subprotocols=None
                ) as socket:
                    try:
                        async with contextlib.aclosing(self._updates(socket)) as updates:
                            async for update in updates:
                                yield update
                    except (asyncio.CancelledError, GeneratorExit):
                        socket.transport.abort()  # who is cancelled cannot wait for a farewell: it would stay open
                        raise
            except ConnectionClosed as closed:
                self._closed(closed.rcvd.code if closed.rcvd else 1006, closed.rcvd.reason if closed.rcvd else "")
            except InvalidStatus as refused:
                self._rejected(refused.response.status_code, refused.response.headers.get("Retry-After"))
            except (OSError, TimeoutError, InvalidHandshake, msgspec.DecodeError) as problem:
                self._cut(str(problem) or type(problem).__name__)
            await asyncio.sleep(self._wait * random.uniform(0.5, 1.0))  # noqa: S311 - it only spreads the crowd

    def _closed(self, code: int, reason: str) -> None:
        """The close codes carry the rule."""
        if 4000 <= code < 4100:
            raise RelayRefused(reason or str(code), f"the relay closed the connection with {code}")
        if 4200 <= code < 4300:
            self._wait = 0.0
        else:
            self._cut(f"closed with {code} {reason}".rstrip())

    def _rejected(self, status: int, retry_after: str | None) -> None:
        if status in (401, 403):
            raise RelayRefused("unauthorized" if status == 401 else "forbidden", f"the relay answered HTTP {status}")
        if status in (429, 503):
            self._back_off()  # a relay that is full, and says when to come again
        else:
            self._cut(f"HTTP {status}")
        if retry_after is not None and retry_after.isdigit():
            self._wait = max(self._wait, float(retry_after))

    def _cut(self, problem: str) -> None:
        self._back_off()
        self._on_cut(problem)

    def _back_off(self) -> None:
        self._wait = min(max(FIRST, 2 * self._wait), LONGEST)

    async def _updates(self, socket: ClientConnection) -> AsyncGenerator[Update, None]:
        silence = SILENT * 15.0
        await self._subscribe(socket)
        while True:
            async with asyncio.timeout(silence):
                message = _decode(await socket.recv())
            if message.type == "welcome":
                silence = SILENT * message.heartbeat_ms / 1000
            elif message.id is not None:
                self._subscribed(message)
            elif message.type == "snapshot":
                self._page(message)
            elif message.type == "shutdown":
                self._wait = message.reconnect_after_ms / 1000
            elif message.event is not None and message.cursor is not None:
                update = Update(message.event, message.cursor)
                fresh = self._fresh(message.event)
                self.cursor = message.cursor
                if fresh:
                    yield update
            elif message.cursor is not None and not self._paging:
                self.cursor = message.cursor

    async def _subscribe(self, socket: ClientConnection) -> None:
        params = self._params if self.cursor is None else {**self._params, "cursor": self.cursor}
        self._paging = True
        await socket.send(msgspec.json.encode({"id": 1, "method": "subscribe", "params": params}).decode())

    def _subscribed(self, message: _Message) -> None:
        if message.error is not None:
            if message.error.temporary:
                raise TimeoutError(message.error.message)
            raise RelayRefused(message.error.code, message.error.message)
        result = message.result or {}
        self._wait = 0.0
        self.subscribed = True
        self._rows, self._reason = [], result.get("reason")
        asked_for_rows = self._params["snapshot"] and self.cursor is None
        self._paging = not result.get("recovered") and (asked_for_rows or self._reason is not None)
        if not self._paging:
            self.cursor = result["cursor"]

    def _page(self, message: _Message) -> None:
        if message.page == 1:  # another one may have been begun and not ended
            self._rows, self._paging = [], True
            self._reason = message.reason or self._reason
        self._rows += message.data
        if not message.last:
            return
        assert message.cursor is not None
        # Versions of what it does not name are those of another log.
        self._versions = {
            (row.provider, row.chain, row.account, row.token, row.kind): row.version for row in self._rows
        }
        self.cursor, self._paging = message.cursor, False
        self._on_snapshot(FullSnapshot(message.cursor, self._rows, self._reason))
        self._rows, self._reason = [], None

    def _fresh(self, event: BalanceChanged) -> bool:
        """After a cut events may come again."""
        key = (event.provider, event.chain, event.account, event.token, event.kind)
        if event.version <= self._versions.get(key, 0):
            return False
        self._versions[key] = event.version
        return True
