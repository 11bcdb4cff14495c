"""The relay on the network: listens, answers plain HTTP, and lets connections in."""

import base64
import functools
import hashlib
import re
from collections.abc import Callable
from importlib import resources
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import msgspec
import structlog
from websockets.exceptions import ConnectionClosed

from watcher.model.log import Unavailable
from watcher.relay import wire
from watcher.relay.budgets import ReadBudget
from watcher.relay.catch_up import CatchUp
from watcher.relay.flusher import BATCH, Delivery
from watcher.relay.http import head
from watcher.relay.http.auth import Guard, Tokens
from watcher.relay.http.connection import HttpConnection
from watcher.relay.http.head import HttpAnswer, error
from watcher.relay.http.listener import Listener
from watcher.relay.http.routes import BALANCES, STREAM, HttpRoutes, Route, RoutedRequest, Status
from watcher.relay.log_follower import Log
from watcher.relay.messages import JOURNAL_AWAY, SHUTDOWN, CloseReason, Shutdown
from watcher.relay.session import Authorized, OpenSubscription, SendFrame, Session, SubscriptionChanged
from watcher.relay.settings import RelaySettings, RelayTuning
from watcher.relay.snapshots import Balances, SnapshotReader
from watcher.relay.timers import Timers
from watcher.relay.websocket import Connection, Peer, RelayStats

logger = structlog.get_logger()


INLINE = re.compile(rb"<(script|style)[^>]*>(.*?)</\1>", re.DOTALL)


class Relay:
    """Serves one log. Everything is given: the root builds it, and asks `stats` for the metrics."""

    def __init__(
        self,
        settings: RelaySettings,
        log: Log,
        *,
        tokens: Tokens | None,
        wall: Callable[[], int],
        status: Status,
        tuning: RelayTuning = RelayTuning(),  # noqa: B008 - frozen
        room: int | None = None,
    ) -> None:
        """`wall`: microseconds. `room`: see Listener."""
        self.delivery = Delivery(log, tuning, self._read_for)
        self._log = log
        self._wall = wall
        self._tuning = tuning
        self._guard = Guard(settings, tokens)
        self._snapshots = SnapshotReader(log, ReadBudget(lambda: self.delivery.time()), tuning.page)  # noqa: PLW0108 - it has none yet
        self._page = live_page()
        status = msgspec.structs.replace(status, following=lambda: self.delivery.following)
        self.listener = Listener(settings, self._routes(status), tuning=tuning, room=room)
        self._keeper = Timers(self.delivery, tuning, wall, status.sees)
        self._replays: CatchUp

    def _routes(self, status: Status) -> HttpRoutes:
        refused = self.delivery.stats.refuse
        balances = Balances(self._snapshots, refused)
        routes = {
            "/": Route(self._show_page),
            BALANCES: Route(balances.answer, guarded=True),
            STREAM: Route(self._upgrade, methods=("GET",), wrong_method="a stream is asked for with GET"),
        }
        return HttpRoutes(routes, self._guard, status, refused)

    @property
    def stats(self) -> RelayStats:
        """Added up when somebody asks."""
        self.delivery.count()
        return self.delivery.stats

    def _read_for(self, peer: Peer) -> None:
        self._replays.read_for(peer)

    async def run(self, *, task_status: anyio.abc.TaskStatus[int] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; starts with the port. Raises RelayError, and OSError when the port is taken."""
        try:
            self.listener.bind()
            await self.delivery.start()
            self.listener.open(self._serve, functools.partial(_connection, self.delivery))
            async with anyio.create_task_group() as tasks:
                self._replays = CatchUp(self.delivery, self._snapshots, self._tuning, tasks, self._keeper.beat)
                tasks.start_soon(self.delivery.follow)
                tasks.start_soon(self._keeper.keep, self._replays)
                task_status.started(self.listener.number)
                try:
                    await anyio.sleep_forever()
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._say_farewell()
        finally:
            with anyio.CancelScope(shield=True):
                self.listener.close()
                await self.listener.end()

    async def _show_page(self, _: RoutedRequest) -> HttpAnswer:
        return self._page

    async def _upgrade(self, asked: RoutedRequest) -> HttpAnswer | None:
        """None lets it become a stream, whose place is taken from now on."""
        if head.has_body(asked.request):
            return error(400, "bad_request", "an upgrade has no body")
        origin = head.field(asked.request.headers, "Origin")
        stats = self.delivery.stats
        if origin is not None and not self._guard.allows_origin(origin, asked.host):
            stats.refuse("origin")
            return error(403, "forbidden", "pages of that origin may not connect: see [relay] origins")
        if asked.rights is None and asked.presented:
            stats.refuse("unauthorized")
            return error(401, "unauthorized", "not a token of this relay", ("WWW-Authenticate", "Bearer"))
        if stats.connections >= self.listener.limits.connections or self.listener.closing:
            stats.refuse("full")
            logger.warning("relay.full", connections=stats.connections)
            return error(503, "rate_limited", "too many connections: come back later", ("Retry-After", "5"))
        assert isinstance(asked.connection, Connection)
        asked.connection.admit(asked.rights if asked.presented else None)
        return None

    async def _say_farewell(self) -> None:
        self.listener.close()
        farewell = wire.push(Shutdown(reconnect_after_ms=round(self._tuning.reconnect * 1000)))
        for number, peer in enumerate(list(self.delivery.peers)):
            self.delivery.put(peer, farewell)
            self.delivery.close(peer, SHUTDOWN)
            if number % BATCH == 0:
                await anyio.lowlevel.checkpoint()

    async def _serve(self, connection: HttpConnection) -> None:
        assert isinstance(connection, Connection)
        now = self.delivery.time()
        connection.forget_handshake()
        session = Session(self._guard.tokens, connection.rights, self.listener.limits, now)
        peer = connection.peer = Peer(session, self._tuning, self.delivery.hub.cursor, connection)
        self.delivery.peers.add(peer)
        self.delivery.stats.accepted += 1
        if self.listener.direct:
            peer.direct = peer.socket = connection.transport.get_extra_info("socket").fileno()
        if connection.paused:
            self.delivery.blocked(peer)
        try:
            bounds = await self._log.bounds()
        except Unavailable as problem:
            self.delivery.log_is_away(problem)
            self.delivery.drop(peer, JOURNAL_AWAY)
            return
        self._keeper.enter(peer, now)
        self.delivery.put(peer, session.welcome(peer.id, bounds, self._wall(), self._tuning.heartbeat))
        try:
            async for message in connection:
                self._obey(peer, message)
        except ConnectionClosed:
            pass  # however it ended, there is nobody left to tell
        finally:
            self.delivery.forget(peer)
            self._keeper.leave(peer)

    def _obey(self, peer: Peer, message: str | bytes) -> None:
        for action in peer.session.receive(message, self.delivery.time(), self._wall()):
            match action:
                case SendFrame(frame):
                    self.delivery.put(peer, frame)
                case CloseReason():
                    self.delivery.drop(peer, action)
                case OpenSubscription():
                    peer.asked.append(action)
                    self._replays.read_for(peer)
                case SubscriptionChanged(subscription):
                    self.delivery.hub.drop(peer, subscription)
                    if peer.live and subscription.id in peer.session.subscriptions:
                        self.delivery.hub.add(peer, subscription)
                    peer.rearrange()
                case Authorized():
                    self._keeper.authorized(peer)


def _connection(delivery: Delivery, *args: Any, **kwargs: Any) -> Connection:
    connection = Connection(*args, **kwargs)
    connection.delivery = delivery
    return connection


def live_page() -> HttpAnswer:
    """The live page. It may run its own script, wear its own style and talk to where it came from; nothing else."""
    body = resources.files("watcher.relay").joinpath("page.html").read_bytes()
    allowed: dict[bytes, list[str]] = {b"script": [], b"style": []}
    for kind, text in INLINE.findall(body):
        allowed[kind].append(f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'")
    policy = (
        f"default-src 'none'; script-src {_sources(allowed[b'script'])}; style-src {_sources(allowed[b'style'])}; "
        "connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HttpAnswer(200, "text/html; charset=utf-8", body, (("Content-Security-Policy", policy),))


def _sources(hashes: list[str]) -> str:
    return " ".join(hashes) or "'none'"
