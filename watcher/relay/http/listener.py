"""One port: what listens there, accepts within bounds, and makes a connection of each socket whose request has come."""

import asyncio
import functools
import math
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import anyio
import anyio.abc
import structlog
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from watcher.relay.http import head, sockets
from watcher.relay.http.admission import (
    ACCEPT_PAUSE,
    ACCEPTS_A_TURN,
    HANDLING_AT_ONCE,
    NO_DESCRIPTOR,
    PENDING_WITH_TLS,
    AcceptedSocket,
    Admission,
    NoDescriptors,
    Stage,
    address_group,
    divide_descriptors,
)
from watcher.relay.http.connection import HttpConnection, HttpService
from watcher.relay.http.routes import HttpRoutes
from watcher.relay.messages import SUBPROTOCOL, StreamLimits
from watcher.relay.settings import RelaySettings, RelayTuning
from watcher.runtime.config_section import SettingsError

logger = structlog.get_logger()

ServeStream = Callable[[HttpConnection], Awaitable[None]]


class Listener:
    """The relay has one of these, and so has a half without a relay (`metrics_port`)."""

    def __init__(
        self,
        settings: RelaySettings,
        routes: HttpRoutes,
        *,
        tuning: RelayTuning,
        room: int | None = None,
        bound: sockets.BoundPort | None = None,
    ) -> None:
        """`room`: descriptors that it may have; None for any number. `bound`: the port, where it is ours already."""
        settings.check()
        streams, pending = divided(room, settings.max_connections)
        self.limits = StreamLimits(connections=streams)
        self.admission = Admission(pending if settings.certificate is None else min(pending, PENDING_WITH_TLS))
        self.closing = False
        self.direct = False
        """What is written to a socket leaves in the order of the calls, whether through the transport or not."""
        self._settings = settings
        self._routes = routes
        self._tuning = tuning
        self._bound = bound
        self._context: Any = None
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop
        self._connection: Callable[[], HttpConnection]

    async def run(self, *, task_status: anyio.abc.TaskStatus[int] = anyio.TASK_STATUS_IGNORED) -> None:
        """Give plain answers until cancelled; starts with the port. Raises SettingsError, and OSError when it is taken."""
        try:
            self.bind()
            self.open(_no_stream, HttpConnection)
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
        guarded = self._routes.guard.asks_for_tokens
        bound = self._bound or sockets.bind(self._settings, guarded=guarded)
        self._sockets, self._context = bound
        self.direct = self._context is None and isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)

    def open(self, serve_stream: ServeStream, create: Callable[..., HttpConnection]) -> None:
        """Let them in. `create`: makes an HttpConnection. To be called in the loop that serves them."""
        self._loop = asyncio.get_running_loop()
        service = HttpService(
            answer=self._routes.answer,
            serve_stream=serve_stream,
            admission=self.admission,
            tasks=self._tasks,
            upgrade_seconds=self._tuning.upgrade,
            stall_seconds=self._tuning.stall,
        )
        self._connection = functools.partial(self._make, service, create)
        self._keep(self._sweep())
        for listener in self._sockets:
            self._listen(listener)

    def _listen(self, listener: socket.socket) -> None:
        if not self.closing:
            self._loop.add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_A_TURN):
            if self.admission.handling >= HANDLING_AT_ONCE:
                return
            try:
                found, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as problem:
                if problem.errno not in NO_DESCRIPTOR:
                    raise
                logger.warning("relay.no_descriptor", problem=problem.strerror)
                self.admission.no_descriptor()
                self._loop.remove_reader(listener)  # it would be called again and again
                self._loop.call_later(ACCEPT_PAUSE, self._listen, listener)
                return
            found.setblocking(False)
            accepted = AcceptedSocket(found, address_group(address), self.admission, self._loop.time())
            accepted.wait_with(functools.partial(self._loop.remove_reader, accepted.number))
            self.admission.enter(accepted)
            self._loop.add_reader(accepted, self._receive, accepted)

    def _receive(self, accepted: AcceptedSocket) -> None:
        """Until its request has come, a connection is a socket and some bytes: no transport, no task, no websocket."""
        secret = self._context is not None
        try:
            data = accepted.recv(1, socket.MSG_PEEK) if secret else accepted.recv(head.MOST)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            accepted.dismiss()
            return
        if not secret:
            received = accepted.add_received(data)
            if head.size(received) is None and head.hopeless(received) is None:
                return
            accepted.reach(Stage.HANDLING)
        self._loop.remove_reader(accepted)
        accepted.wait_with(None)
        self._keep(self._connect(accepted))

    async def _connect(self, accepted: AcceptedSocket) -> None:
        limits = {"ssl_handshake_timeout": self._tuning.upgrade, "ssl_shutdown_timeout": self._tuning.close_timeout}
        try:
            await self._loop.connect_accepted_socket(
                self._connection, accepted, ssl=self._context, **(limits if self._context is not None else {})
            )
        except OSError:
            pass  # of TLS, mostly: asyncio closes it
        finally:
            if not accepted.is_served:  # and if there was nothing yet that could close it, its place is given back
                self._loop.call_later(self._tuning.close_timeout, accepted.close)

    def _make(self, service: HttpService, create: Callable[..., HttpConnection]) -> HttpConnection:
        return create(
            service,
            ServerProtocol(select_subprotocol=_subprotocol, max_size=self.limits.message_bytes),
            self,
            ping_interval=None,  # one shared ping frame instead of a task for each connection
            close_timeout=self._tuning.close_timeout,
            max_queue=4,
            # Paused means that something is in the buffer, resumed that it is empty. TLS takes 0 for always.
            write_limit=0 if self._context is None else (1, 0),
        )

    def is_serving(self) -> bool:
        """What websockets asks of a server before it upgrades a connection."""
        return not self.closing

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sweep(self) -> None:
        while not self.closing:
            await asyncio.sleep(self._tuning.sweep)
            now, upgrade = self._loop.time(), self._tuning.upgrade
            for accepted in self.admission.late(now - upgrade) + self.admission.stuck(now - 2 * upgrade):
                accepted.dismiss()

    def close(self) -> None:
        """Nobody is let in any more."""
        self.closing = True
        for listener in self._sockets:
            if listener.fileno() >= 0:
                asyncio.get_running_loop().remove_reader(listener)
                listener.close()

    async def end(self) -> None:
        """Wait a little for those who are there, then abort them."""
        for accepted in self.admission.late(math.inf):
            accepted.dismiss()
        with anyio.move_on_after(self._tuning.close_timeout):
            await self.admission.emptied()
        for accepted in list(self.admission.sockets.values()):
            accepted.dismiss()
        with anyio.move_on_after(1.0):
            await self.admission.emptied()
            while self._tasks:
                await asyncio.wait(self._tasks)


def divided(room: int | None, max_connections: int) -> tuple[int, int]:
    """Streams, and sockets before they are one, for which so many descriptors suffice. Raises SettingsError when for none."""
    try:
        return divide_descriptors(room, max_connections)
    except NoDescriptors:
        raise SettingsError(
            f"the limit of open files leaves {room} for connections, which is too few: raise it (ulimit -n)"
        ) from None


async def _no_stream(connection: HttpConnection) -> None:
    raise AssertionError(f"{connection} became a stream where there is none")


def _subprotocol(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Ours if it is offered; a client that offers none is as welcome."""
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None
