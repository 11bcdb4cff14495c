"""The relay on the network: listens, answers plain HTTP, and lets connections in."""

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers, MultipleValuesError
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request
from websockets.typing import Subprotocol

from watcher.events import Filter, Unavailable
from watcher.relay import auth, heads, listeners, wire
from watcher.relay.connection import Connection, Peer, Stats
from watcher.relay.delivery import BATCH, Delivery
from watcher.relay.keeper import Keeper
from watcher.relay.log import Log
from watcher.relay.plain import STREAM, Answer, Plain, error
from watcher.relay.protocol import (
    GOING_AWAY,
    Authorized,
    Changed,
    Close,
    Send,
    Session,
    Subscribe,
)
from watcher.relay.replay import Replays
from watcher.relay.settings import Limits, Pace, RelaySettings
from watcher.relay.share import Share, Snapshots
from watcher.relay.visitor import Visitor

FULL = ("Retry-After", "5")
NOT_OURS = (
    "a relay without tokens answers to localhost and loopback addresses only: "
    "add the origin that you came by to [relay] origins, or set tokens"
)

logger = structlog.get_logger()


class Relay:
    """Serves one log. Everything is given: the root builds it, and asks `stats` for the metrics."""

    def __init__(
        self,
        settings: RelaySettings,
        log: Log,
        *,
        tokens: auth.Tokens | None,
        wall: Callable[[], int],
        metrics: Callable[[], bytes],
        ready: Callable[[], Mapping[str, object]],
        pace: Pace = Pace(),  # noqa: B008 - frozen
    ) -> None:
        """`wall`: microseconds. `metrics`: the text of `/metrics`. `ready`: what `/readyz` adds."""
        settings.check()
        self.delivery = Delivery(log, pace, self._read_for)
        self._settings = settings
        self._log = log
        self._tokens = tokens
        self._names = auth.names(settings)
        self._wall = wall
        self.pace = pace
        self._limits = Limits(connections=settings.max_connections)
        self._snapshots = Snapshots(log, Share(lambda: self.delivery.time()), pace.page)  # noqa: PLW0108 - it has none yet
        self._plain = Plain(self._snapshots, metrics, ready, lambda: self.delivery.following)
        self._keeper = Keeper(self.delivery, pace, wall)
        self._direct = False
        """What is written to a socket leaves in the order of the calls, whether through the transport or not."""
        self._replays: Replays

    @property
    def stats(self) -> Stats:
        """Added up when somebody asks."""
        self.delivery.count()
        return self.delivery.stats

    def _read_for(self, peer: Peer) -> None:
        self._replays.read_for(peer)

    async def run(self, *, task_status: anyio.abc.TaskStatus[int] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; starts with the port. Raises RelayError, and OSError when the port is taken."""
        context = listeners.tls(self._settings)
        self._direct = context is None and isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)
        sockets = listeners.listen(self._settings, guarded=self._tokens is not None)
        servers: list[Server] = []
        try:
            await self.delivery.start()
            for listener in sockets:
                servers.append(await self._listen(listener, context))  # noqa: PERF401 - what opened must be closed
            async with anyio.create_task_group() as tasks:
                self._replays = Replays(self.delivery, self._snapshots, self.pace, tasks, self._keeper.beat)
                tasks.start_soon(self.delivery.follow)
                tasks.start_soon(self._keeper.keep, self._replays)
                task_status.started(sockets[0].getsockname()[1])
                try:
                    await anyio.sleep_forever()
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._shut_down(servers)
        finally:
            for listener in sockets:
                listener.close()

    async def _listen(self, listener: Any, context: Any) -> Server:
        return await serve(
            self._handle,
            sock=listener,
            ssl=context,
            select_subprotocol=_subprotocol,
            compression=None,
            server_header=None,
            open_timeout=None,  # a visitor has its own, which ends before the answer begins
            ssl_handshake_timeout=None if context is None else self.pace.upgrade,
            ping_interval=None,  # one shared ping frame instead of a task for each connection
            close_timeout=self.pace.farewell,
            max_size=self._limits.message_bytes,
            max_queue=4,
            # Paused means that something is in the buffer, resumed that it is empty. TLS takes 0 for always.
            write_limit=0 if context is None else (1, 0),
            create_connection=functools.partial(_connection, self),  # type: ignore[arg-type] # it is only called
        )

    async def _shut_down(self, servers: list[Server]) -> None:
        self.delivery.closing = True
        if not self.delivery.transports:
            self.delivery.left.set()
        for server in servers:
            server.close(close_connections=False)
        farewell = wire.push("shutdown", reconnect_after_ms=round(self.pace.reconnect * 1000))
        for number, peer in enumerate(list(self.delivery.peers)):
            self.delivery.put(peer, farewell)
            self.delivery.close(peer, GOING_AWAY, "shutdown")
            if number % BATCH == 0:
                await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(self.pace.farewell):
            await self.delivery.left.wait()
        for transport in list(self.delivery.transports):
            transport.abort()
        with anyio.move_on_after(1.0):
            for server in servers:
                await server.wait_closed()

    async def answer(self, connection: Visitor, request: Request) -> Answer | None:
        """What a request gets; None lets it become a stream."""
        assert isinstance(connection, Connection)
        host = _header(request.headers, "Host") or ""
        if self._tokens is None and not auth.is_ours(host, self._names):
            self.delivery.stats.refuse("host")
            return error(403, "forbidden", NOT_OURS)
        path = request.path.partition("?")[0]
        presented = _header(request.headers, "Authorization")
        rights = self._rights(presented)
        if path != STREAM:
            return await self._plain.answer(request.method, request.path, rights)
        if request.method != "GET":
            return error(405, "bad_request", "a stream is asked for with GET", ("Allow", "GET"))
        if heads.has_body(request):
            return error(400, "bad_request", "an upgrade has no body")
        origin = _header(request.headers, "Origin")
        if origin is not None and not self._welcomes(origin, host):
            self.delivery.stats.refuse("origin")
            return error(403, "forbidden", "pages of that origin may not connect: see [relay] origins")
        if rights is None and presented is not None:
            self.delivery.stats.refuse("unauthorized")
            return error(401, "unauthorized", "not a token of this relay", ("WWW-Authenticate", "Bearer"))
        if self.delivery.stats.connections >= self._settings.max_connections or self.delivery.closing:
            self.delivery.stats.refuse("full")
            return error(503, "rate_limited", "too many connections: come back later", FULL)
        connection.rights = rights if presented is not None else None
        connection.reserved = True
        self.delivery.stats.connections += 1
        return None

    def _rights(self, presented: str | None) -> Filter | None:
        if self._tokens is None:
            return auth.EVERYTHING
        token = auth.bearer(presented) if presented is not None else None
        return None if token is None else self._tokens.rights(token)

    def _welcomes(self, origin: str, host: str) -> bool:
        return origin in self._settings.origins or auth.same_origin(origin, host)

    async def _handle(self, connection: ServerConnection) -> None:
        assert isinstance(connection, Connection)
        now = self.delivery.time()
        connection.forget_handshake()
        session = Session(self._tokens, connection.rights, self._limits, now)
        peer = connection.peer = Peer(session, self.pace, self.delivery.hub.cursor, connection)
        self.delivery.peers.add(peer)
        self.delivery.stats.accepted += 1
        if self._direct:
            peer.direct = peer.socket = connection.transport.get_extra_info("socket").fileno()
        if connection.paused:
            self.delivery.blocked(peer)
        try:
            bounds = await self._log.bounds()
        except Unavailable as problem:
            self.delivery.log_is_away(problem)
            self.delivery.drop(peer, GOING_AWAY, "internal")
            return
        self._keeper.enter(peer, now)
        self.delivery.put(peer, session.welcome(peer.id, bounds, self._wall(), self.pace))
        try:
            async for message in connection:
                self._obey(peer, message)
        except ConnectionClosed:
            pass  # however it ended, there is nobody left to tell
        finally:
            self.delivery.forget(peer)

    def _obey(self, peer: Peer, message: str | bytes) -> None:
        for action in peer.session.receive(message, self.delivery.time(), self._wall()):
            match action:
                case Send(reply):
                    self.delivery.put(peer, reply)
                case Close(code, reason):
                    self.delivery.drop(peer, code, reason)
                case Subscribe():
                    peer.asked.append(action)
                    self._replays.read_for(peer)
                case Changed(subscription):
                    self.delivery.hub.drop(peer, subscription)
                    if peer.live and subscription.id in peer.session.subscriptions:
                        self.delivery.hub.add(peer, subscription)
                    peer.rearrange()
                case Authorized():
                    self._keeper.authorized(peer)


def _connection(relay: Relay, *args: Any, **kwargs: Any) -> Connection:
    connection = Connection(*args, **kwargs)
    connection.delivery = relay.delivery
    connection.answer = relay.answer
    connection.upgrade = relay.pace.upgrade
    connection.stall = relay.pace.stall
    return connection


def _subprotocol(_: ServerConnection, offered: Any) -> Subprotocol | None:
    """Ours if it is offered; a client that offers none is as welcome."""
    return Subprotocol(wire.SUBPROTOCOL) if wire.SUBPROTOCOL in offered else None


def _header(headers: Headers, name: str) -> str | None:
    """One that is there twice is as good as a wrong one."""
    try:
        return headers.get(name)
    except MultipleValuesError:
        return ""
