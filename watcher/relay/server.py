"""The relay on the network: listens, answers plain HTTP, and lets connections in."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import structlog
from websockets.exceptions import ConnectionClosed

from watcher.model.keys import Filter
from watcher.model.log import Unavailable
from watcher.relay import wire
from watcher.relay.catch_up import CatchUp
from watcher.relay.flusher import BATCH, Delivery
from watcher.relay.http import auth
from watcher.relay.http.connection import HttpConnection
from watcher.relay.http.listener import Listener
from watcher.relay.http.routes import HttpRoutes, Sees, named
from watcher.relay.log_follower import Log
from watcher.relay.read_budget import ReadBudget, SnapshotReader
from watcher.relay.session import GOING_AWAY, Authorized, Changed, Close, Send, Session, Subscribe
from watcher.relay.settings import RelaySettings, RelayTuning
from watcher.relay.timers import Timers
from watcher.relay.websocket import Connection, Peer, RelayStats

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
        metrics: Callable[[Filter], bytes],
        ready: Callable[[], Mapping[str, object]],
        pace: RelayTuning = RelayTuning(),  # noqa: B008 - frozen
        room: int | None = None,
        sees: Sees = named,
    ) -> None:
        """`wall`: microseconds. `metrics`, `ready`, `sees`: see Plain. `room`: see Port."""
        self.delivery = Delivery(log, pace, self._read_for)
        snapshots = SnapshotReader(log, ReadBudget(lambda: self.delivery.time()), pace.page)  # noqa: PLW0108 - it has none yet
        plain = HttpRoutes(
            snapshots,
            metrics,
            ready,
            guarded=tokens is not None,
            following=lambda: self.delivery.following,
            sees=sees,
        )
        self.port = Listener(settings, plain, tokens=tokens, stats=self.delivery.stats, pace=pace, room=room)
        self._log = log
        self._wall = wall
        self._pace = pace
        self._snapshots = snapshots
        self._keeper = Timers(self.delivery, pace, wall, sees)
        self._replays: CatchUp

    @property
    def stats(self) -> RelayStats:
        """Added up when somebody asks."""
        self.delivery.count()
        return self.delivery.stats

    def _read_for(self, peer: Peer) -> None:
        self._replays.read_for(peer)

    async def run(self, *, task_status: anyio.abc.TaskStatus[int] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; starts with the port. Raises SettingsError, and OSError when the port is taken."""
        try:
            self.port.bind()
            await self.delivery.start()
            self.port.open(self._handle, functools.partial(_connection, self.delivery))
            async with anyio.create_task_group() as tasks:
                self._replays = CatchUp(self.delivery, self._snapshots, self._pace, tasks, self._keeper.beat)
                tasks.start_soon(self.delivery.follow)
                tasks.start_soon(self._keeper.keep, self._replays)
                task_status.started(self.port.number)
                try:
                    await anyio.sleep_forever()
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._say_farewell()
        finally:
            with anyio.CancelScope(shield=True):
                self.port.close()
                await self.port.end()

    async def _say_farewell(self) -> None:
        self.port.close()
        farewell = wire.push("shutdown", reconnect_after_ms=round(self._pace.reconnect * 1000))
        for number, peer in enumerate(list(self.delivery.peers)):
            self.delivery.put(peer, farewell)
            self.delivery.close(peer, GOING_AWAY, "shutdown")
            if number % BATCH == 0:
                await anyio.lowlevel.checkpoint()

    async def _handle(self, connection: HttpConnection) -> None:
        assert isinstance(connection, Connection)
        now = self.delivery.time()
        connection.forget_handshake()
        session = Session(self.port.tokens, connection.rights, self.port.limits, now)
        peer = connection.peer = Peer(session, self._pace, self.delivery.hub.cursor, connection)
        self.delivery.peers.add(peer)
        self.delivery.stats.accepted += 1
        if self.port.direct:
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
        self.delivery.put(peer, session.welcome(peer.id, bounds, self._wall(), self._pace))
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


def _connection(delivery: Delivery, *args: Any, **kwargs: Any) -> Connection:
    connection = Connection(*args, **kwargs)
    connection.delivery = delivery
    return connection
