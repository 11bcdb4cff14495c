"""The relay on the network: listens, answers plain HTTP, and lets connections in."""

import asyncio
import base64
import functools
import hashlib
import re
from collections import deque
from collections.abc import Callable, Mapping
from importlib import resources
from types import MappingProxyType

import anyio
import anyio.abc
import anyio.lowlevel
import msgspec
import structlog
from websockets.exceptions import ConnectionClosed

from watcher.model.log import Unavailable
from watcher.model.watches import NOT_KNOWN, WatchIndex
from watcher.relay import wire
from watcher.relay.budgets import FrameBudget, ReadBudget
from watcher.relay.catch_up import CatchUp
from watcher.relay.connection import Connection
from watcher.relay.connections import ConnectionRegistry, RelayStats
from watcher.relay.http import head
from watcher.relay.http.auth import Guard, Tokens
from watcher.relay.http.connection import HttpConnection
from watcher.relay.http.head import HttpAnswer, error
from watcher.relay.http.listener import Listener
from watcher.relay.http.routes import BALANCES, HISTORY, STREAM, HttpRoutes, Route, RoutedRequest, Status
from watcher.relay.http.sockets import BoundPort
from watcher.relay.live_path import BATCH, SLICE_SECONDS, Flusher
from watcher.relay.log import Log
from watcher.relay.log_follower import LogFollower
from watcher.relay.messages import JOURNAL_AWAY, SHUTDOWN, TOKEN_EXPIRED, CloseReason, Shutdown
from watcher.relay.opening import SubscriptionOpener
from watcher.relay.outbox import Outbox
from watcher.relay.past_queries import PastQueries
from watcher.relay.session import Authorized, OpenSubscription, SendFrame, Session, SubscriptionChanged
from watcher.relay.settings import RelaySettings, RelayTuning
from watcher.relay.snapshots import Balances, SnapshotReader
from watcher.relay.subscription import Subscription
from watcher.relay.timers import Timers
from watcher.relay.websocket import WebSocket

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
        bound: BoundPort | None = None,
        watches: Callable[[], WatchIndex] = lambda: NOT_KNOWN,
        routes: Mapping[str, Route] = MappingProxyType({}),
    ) -> None:
        """`wall`: microseconds. `room`, `bound`: see Listener. `watches`: looked at now, and when `watches_changed` is called.
        `routes`: what its port answers besides."""
        self._watches_of_config = watches
        self._unresolved: deque[Connection] = deque()
        self._watches = watches()
        self.flusher = Flusher(self._overflow, self._watches_now)
        self.connections = ConnectionRegistry(self.flusher, tuning, self._read_for)
        self.follower = LogFollower(log, self.flusher, self.connections, tuning)
        self._log = log
        self._wall = wall
        self._tuning = tuning
        self._guard = Guard(settings, tokens)
        self._budget = ReadBudget(lambda: self.flusher.time())  # noqa: PLW0108 - it has none yet
        self._snapshots = SnapshotReader(log, self._budget, tuning.page, self._watches_now)
        status = msgspec.structs.replace(status, following=lambda: self.follower.following)
        self.listener = Listener(settings, self._routes(status, routes), tuning=tuning, room=room, bound=bound)
        self._timers = Timers(self.connections, self.flusher, tuning, wall, status.sees)
        parts = (self.connections, self.flusher, self.follower, self._snapshots)
        self._opener = SubscriptionOpener(*parts, heartbeat=self._timers.heartbeat, sees=status.sees)
        self._catch_up: CatchUp

    def use_tokens(self, settings: RelaySettings, tokens: Tokens | None) -> None:
        """From now on these tokens and origins. Streams end that were opened with a token that is gone or allows something else:
        they reconnect with their cursor, and are let in with what is right by then."""
        self._guard.use(settings, tokens)
        for connection in list(self.connections):
            if not self._guard.grants(connection.session.rights):
                self.connections.drop(connection, TOKEN_EXPIRED)

    def _routes(self, status: Status, others: Mapping[str, Route]) -> HttpRoutes:
        refused = self.connections.count_refusal
        past = PastQueries(self._log, self._budget, self._watches_now, self._wall, refused)
        balances = Balances(self._snapshots, past.balances, refused)
        routes = {
            "/": Route(functools.partial(_show, live_page())),
            BALANCES: Route(balances.answer, guarded=True),
            HISTORY: Route(past.history, guarded=True),
            STREAM: Route(self._upgrade, methods=("GET",), wrong_method="a stream is asked for with GET"),
            **others,
        }
        return HttpRoutes(routes, self._guard, status, refused)

    @property
    def stats(self) -> RelayStats:
        """Added up when somebody asks."""
        return self.connections.stats()

    def watches_changed(self) -> None:
        """The config was read anew: labels and tags stand for what it says now, in rows, updates and filters.

        Filters of thousands of subscribers are resolved in slices of the loop's time.
        """
        self._watches = self._watches_of_config()
        idle, self._unresolved = not self._unresolved, deque(self.connections)
        if idle and self._unresolved:
            self._resolve_names()

    def _resolve_names(self) -> None:
        until = self.flusher.time() + SLICE_SECONDS
        while self._unresolved:
            connection = self._unresolved.popleft()
            for subscription in connection.session.subscriptions.values() if connection.outbox.open else ():
                if subscription.wanted.label is not None or subscription.wanted.tag is not None:
                    subscription.resolve(self._watches)
                    self._change(connection, subscription)
            if self.flusher.time() >= until:
                asyncio.get_running_loop().call_soon(self._resolve_names)
                return

    def _watches_now(self) -> WatchIndex:
        return self._watches

    def _read_for(self, connection: Connection) -> None:
        self._catch_up.read_for(connection)

    def _overflow(self, outboxes: list[Outbox]) -> None:
        self.connections.overflow(outboxes)

    async def run(self, *, task_status: anyio.abc.TaskStatus[int] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; starts with the port. Raises SettingsError, and OSError when the port is taken."""
        try:
            self.listener.bind()
            await self.follower.start()
            self.listener.open(self._serve, functools.partial(WebSocket, self.connections, FrameBudget()))
            async with anyio.create_task_group() as tasks:
                self._catch_up = CatchUp(
                    self.connections,
                    self.flusher,
                    self.follower,
                    self._opener,
                    log=self._log,
                    budget=self._budget,
                    tasks=tasks,
                )
                tasks.start_soon(self.follower.follow)
                tasks.start_soon(self._timers.run)
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

    async def _upgrade(self, request: RoutedRequest) -> HttpAnswer | None:
        """None lets it become a stream, whose place is taken from now on."""
        if head.has_body(request.http):
            return error(400, "bad_request", "an upgrade has no body")
        origin = head.field(request.http.headers, "Origin")
        connections = self.connections
        if origin is not None and not self._guard.allows_origin(origin, request.host):
            connections.count_refusal("origin")
            return error(403, "forbidden", "pages of that origin may not connect: see [relay] origins")
        if request.rights is None and request.presented:
            connections.count_refusal("unauthorized")
            return error(401, "unauthorized", "not a token of this relay", ("WWW-Authenticate", "Bearer"))
        if connections.reserved >= self.listener.limits.connections or self.listener.closing:
            connections.count_refusal("full")
            logger.warning("relay.full", connections=connections.reserved)
            return error(503, "rate_limited", "too many connections: come back later", ("Retry-After", "5"))
        assert isinstance(request.connection, WebSocket)
        request.connection.admit(request.rights if request.presented else None)
        return None

    async def _say_farewell(self) -> None:
        self.listener.close()
        farewell = wire.push(Shutdown(reconnect_after_ms=round(self._tuning.reconnect * 1000)))
        for number, connection in enumerate(list(self.connections)):
            self.connections.put(connection, farewell)
            self.connections.close(connection, SHUTDOWN)
            if number % BATCH == 0:
                await anyio.lowlevel.checkpoint()

    async def _serve(self, websocket: HttpConnection) -> None:
        """One stream, until it ends."""
        assert isinstance(websocket, WebSocket)
        now = self.flusher.time()
        connection = self._connect(websocket, now)
        try:
            bounds = await self._log.bounds()
        except Unavailable as problem:
            self.follower.is_away(problem)
            self.connections.drop(connection, JOURNAL_AWAY)
            return
        self._timers.enter(connection, now)
        welcome = connection.session.welcome(connection.id, bounds, self._wall(), self._tuning.heartbeat)
        self.connections.put(connection, welcome)
        try:
            async for message in websocket:
                self._obey(connection, message)
        except ConnectionClosed:
            pass  # however it ended, nothing can be sent any more
        finally:
            self.connections.remove(connection)
            self._timers.leave(connection)

    def _connect(self, websocket: WebSocket, now: float) -> Connection:
        websocket.forget_handshake()
        rights = websocket.rights if self._guard.grants(websocket.rights) else None  # a reload may have come in between
        session = Session(self._guard.tokens, rights, self.listener.limits, now, self._watches_now)
        transport = websocket.transport
        descriptor = transport.get_extra_info("socket").fileno() if self.listener.direct else None
        outbox = Outbox(self._tuning, self.flusher.fan_out.cursor, transport, descriptor)
        connection = Connection(session, outbox, self._tuning, websocket.hang_up)
        websocket.serve(connection)
        return connection

    def _obey(self, connection: Connection, message: str | bytes) -> None:
        for action in connection.session.receive(message, self.flusher.time(), self._wall()):
            match action:
                case SendFrame(frame):
                    self.connections.put(connection, frame)
                case CloseReason():
                    self.connections.drop(connection, action)
                case OpenSubscription():
                    connection.ask(action)
                    self.connections.read_for(connection)
                case SubscriptionChanged(subscription):
                    self._change(connection, subscription)
                case Authorized():
                    self._timers.authorized(connection)

    def _change(self, connection: Connection, subscription: Subscription) -> None:
        """It matches less or other than before, or has ended."""
        fan_out, outbox = self.flusher.fan_out, connection.outbox
        fan_out.drop(outbox, subscription)
        if outbox.live and subscription.opened and subscription.id in connection.session.subscriptions:
            fan_out.add(outbox, subscription)
        connection.rearrange()


async def _show(page: HttpAnswer, _: RoutedRequest) -> HttpAnswer:
    return page


def live_page() -> HttpAnswer:
    """The live page. It may use its own script and style and connect to where it came from; nothing else."""
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
