"""One port: what listens, the guard before every request, and the plain answers. With a relay behind it, streams too."""

import asyncio
import functools
import math
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import anyio
import anyio.abc
import structlog
from websockets.datastructures import Headers, MultipleValuesError
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from watcher.model.keys import Filter
from watcher.relay import wire
from watcher.relay.http import admission, auth, head, sockets
from watcher.relay.http.connection import HttpConnection
from watcher.relay.http.routes import BALANCES, STREAM, HttpAnswer, HttpRoutes, error
from watcher.relay.settings import RelaySettings, RelayTuning, StreamLimits
from watcher.relay.websocket import Connection, RelayStats
from watcher.runtime.config_section import SettingsError

FULL = ("Retry-After", "5")
READERS = 32
"""Requests that read the journal at a time."""
READERS_EACH = 24
"""Of one address."""
NOT_OURS = (
    "a relay without tokens answers to localhost and loopback addresses only: "
    "add the origin that you came by to [relay] origins, or set tokens"
)

logger = structlog.get_logger()

Handle = Callable[[HttpConnection], Awaitable[None]]


class Listener:
    """Both doors of the program are one of these: the relay's, and that of a half without a relay (`metrics_port`)."""

    def __init__(
        self,
        settings: RelaySettings,
        plain: HttpRoutes,
        *,
        tokens: auth.Tokens | None,
        stats: RelayStats,
        pace: RelayTuning,
        room: int | None = None,
        key: str = "[relay] port",
    ) -> None:
        """`room`: descriptors that it may have; None for any number. `key`: where the config names the port."""
        settings.check()
        try:
            streams, visitors = admission.shares(room, settings.max_connections)
        except admission.NoDescriptors:
            raise SettingsError(
                f"the limit of open files leaves {room} for connections, which is too few: raise it (ulimit -n)"
            ) from None
        self.tokens = tokens
        self.limits = StreamLimits(connections=streams)
        self.door = admission.Admission(visitors if settings.certificate is None else min(visitors, admission.WITH_TLS))
        self.closing = False
        self.direct = False
        """What is written to a socket leaves in the order of the calls, whether through the transport or not."""
        self._settings = settings
        self._plain = plain
        self._stats = stats
        self._pace = pace
        self._key = key
        self._names = auth.names(settings)
        self._readers: set[HttpConnection] = set()
        self._context: Any = None
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop
        self._visitor: Callable[[], HttpConnection]

    async def run(self, *, task_status: anyio.abc.TaskStatus[int] = anyio.TASK_STATUS_IGNORED) -> None:
        """Give plain answers until cancelled; starts with the port. Raises SettingsError, and OSError when it is taken."""
        try:
            self.bind()
            self.open(_nobody, HttpConnection)
            task_status.started(self.number)
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                self.close()
                await self.end()

    @property
    def number(self) -> int:
        """Once it is bound."""
        return int(self._sockets[0].getsockname()[1])

    def bind(self) -> None:
        """Raises SettingsError, and OSError when the port is taken."""
        self._context = sockets.tls(self._settings)
        self.direct = self._context is None and isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)
        self._sockets = sockets.listen(self._settings, guarded=self.tokens is not None, key=self._key)

    def open(self, handle: Handle, create: Callable[..., HttpConnection]) -> None:
        """Let them in. `handle`: serves one stream. To be called in the loop that serves them."""
        self._loop = asyncio.get_running_loop()
        self._visitor = functools.partial(self._make, handle, create)
        self._keep(self._sweep())
        for listener in self._sockets:
            self._listen(listener)

    def _listen(self, listener: socket.socket) -> None:
        if not self.closing:
            self._loop.add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(admission.AT_ONCE):
            if self.door.starting >= admission.BUSY:
                return
            try:
                accepted, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as problem:
                if problem.errno not in admission.OUT:
                    raise
                logger.warning("relay.no_descriptor", problem=problem.strerror)
                self.door.exhausted += 1
                self._loop.remove_reader(listener)  # it would be told again and again
                self._loop.call_later(admission.PAUSE, self._listen, listener)
                return
            accepted.setblocking(False)
            guest = admission.AcceptedSocket(accepted, admission.network(address), self.door, self._loop.time())
            guest.waiting = functools.partial(self._loop.remove_reader, guest.number)
            self.door.enter(guest)
            self._loop.add_reader(guest, self._hear, guest)

    def _hear(self, guest: admission.AcceptedSocket) -> None:
        """Until it has asked, a connection is a socket and some bytes: no transport, no task, no websocket."""
        secret = self._context is not None
        try:
            said = guest.recv(1, socket.MSG_PEEK) if secret else guest.recv(head.MOST)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            said = b""
        if not said:
            guest.dismiss()
            return
        if not secret:
            guest.received += said
            if head.size(guest.received) is None and head.hopeless(guest.received) is None:
                return
            self.door.move(guest, admission.STARTING)
        self._loop.remove_reader(guest)
        guest.waiting = None
        self._keep(self._begin(guest))

    async def _begin(self, guest: admission.AcceptedSocket) -> None:
        limits = {"ssl_handshake_timeout": self._pace.upgrade, "ssl_shutdown_timeout": self._pace.farewell}
        try:
            await self._loop.connect_accepted_socket(
                self._visitor, guest, ssl=self._context, **(limits if self._context is not None else {})
            )
        except OSError:
            pass  # of TLS, mostly: asyncio closes it
        finally:
            if guest.visitor is None:  # and if there was nothing yet that could close it, its place is given back
                self._loop.call_later(self._pace.farewell, guest.close)

    def _make(self, handle: Handle, create: Callable[..., HttpConnection]) -> HttpConnection:
        visitor = create(
            ServerProtocol(select_subprotocol=_subprotocol, max_size=self.limits.message_bytes),
            self,
            ping_interval=None,  # one shared ping frame instead of a task for each connection
            close_timeout=self._pace.farewell,
            max_queue=4,
            # Paused means that something is in the buffer, resumed that it is empty. TLS takes 0 for always.
            write_limit=0 if self._context is None else (1, 0),
        )
        visitor.answer = self.answer
        visitor.handle = handle
        visitor.door = self.door
        visitor.tasks = self._tasks
        visitor.upgrade = self._pace.upgrade
        visitor.stall = self._pace.stall
        return visitor

    def is_serving(self) -> bool:
        """What websockets asks of a server before it upgrades a connection."""
        return not self.closing

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sweep(self) -> None:
        while not self.closing:
            await asyncio.sleep(self._pace.sweep)
            now = self._loop.time()
            for guest in self.door.late(now - self._pace.upgrade) + self.door.stuck(now - 2 * self._pace.upgrade):
                guest.dismiss()

    def close(self) -> None:
        """Nobody is let in any more."""
        self.closing = True
        for listener in self._sockets:
            if listener.fileno() >= 0:
                asyncio.get_running_loop().remove_reader(listener)
                listener.close()

    async def end(self) -> None:
        """Wait a little for those who are there, then cut them off."""
        for guest in self.door.late(math.inf):
            guest.dismiss()
        with anyio.move_on_after(self._pace.farewell):
            await self.door.emptied()
        for guest in list(self.door.guests.values()):
            guest.dismiss()
        with anyio.move_on_after(1.0):
            await self.door.emptied()
            while self._tasks:
                await asyncio.wait(self._tasks)

    async def answer(self, visitor: HttpConnection, request: Request) -> HttpAnswer | None:
        """What a request gets; None lets it become a stream."""
        host = _header(request.headers, "Host") or ""
        if self.tokens is None and not auth.is_ours(host, self._names):
            self._stats.refuse("host")
            return error(403, "forbidden", NOT_OURS)
        presented = _header(request.headers, "Authorization")
        rights = self._rights(presented)
        if request.path.partition("?")[0] != STREAM or not isinstance(visitor, Connection):
            return await self._plainly(visitor, request, rights)
        if request.method != "GET":
            return error(405, "bad_request", "a stream is asked for with GET", ("Allow", "GET"))
        if head.has_body(request):
            return error(400, "bad_request", "an upgrade has no body")
        origin = _header(request.headers, "Origin")
        if origin is not None and not self._welcomes(origin, host):
            self._stats.refuse("origin")
            return error(403, "forbidden", "pages of that origin may not connect: see [relay] origins")
        if rights is None and presented is not None:
            self._stats.refuse("unauthorized")
            return error(401, "unauthorized", "not a token of this relay", ("WWW-Authenticate", "Bearer"))
        if self._stats.connections >= self.limits.connections or self.closing:
            self._stats.refuse("full")
            logger.warning("relay.full", connections=self._stats.connections)
            return error(503, "rate_limited", "too many connections: come back later", FULL)
        visitor.rights = rights if presented is not None else None
        visitor.reserved = True
        self._stats.connections += 1
        return None

    async def _plainly(self, visitor: HttpConnection, request: Request, rights: Filter | None) -> HttpAnswer:
        if request.path.partition("?")[0] == BALANCES:
            theirs = sum(other.address == visitor.address for other in self._readers)
            if len(self._readers) >= READERS or theirs >= READERS_EACH:
                self._stats.refuse("busy")
                return error(503, "rate_limited", "too many look at the balances: come back later", FULL)
            visitor.join(self._readers)
        return await self._plain.answer(request.method, request.path, rights)

    def _rights(self, presented: str | None) -> Filter | None:
        if self.tokens is None:
            return auth.EVERYTHING
        token = auth.bearer(presented) if presented is not None else None
        return None if token is None else self.tokens.rights(token)

    def _welcomes(self, origin: str, host: str) -> bool:
        return origin in self._settings.origins or auth.same_origin(origin, host)


async def _nobody(visitor: HttpConnection) -> None:
    raise AssertionError(f"{visitor} became a stream where there is none")


def _subprotocol(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Ours if it is offered; a client that offers none is as welcome."""
    return Subprotocol(wire.SUBPROTOCOL) if wire.SUBPROTOCOL in offered else None


def _header(headers: Headers, name: str) -> str | None:
    """One that is there twice is as good as a wrong one."""
    try:
        return headers.get(name)
    except MultipleValuesError:
        return ""
