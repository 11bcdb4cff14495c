"""A provider's connections: httpx's transport over httpcore's pool and HTTP/1.1, and HTTP/2 of our own (see http2.py).

The pool's connections are a class of ours, since httpcore's own have three faults that cost most when many requests are
in flight.

- The pool asks each idle connection whether it is still open, twice for every request. httpcore's collect all that can
  be known of a socket to answer that: with ten connections a third of what a poll costs.
- They look idle for some turns of the loop after they were given a request. Requests that come meanwhile are given the
  same connection, have to begin again, and can go on so until they time out, while nothing is wrong with the server.
- One that cannot be made is made again by each request that has waited for it, and then nobody closes it.
"""

import select
import socket
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.lowlevel
import httpcore
import httpx
from anyio.abc import TaskGroup

from watcher.limits.lease import Unsent
from watcher.poller.http2 import Http2, trace_phase

MAX_CONNECTIONS = 100
"""Connections of one pool, as many as requests are in flight at most (see poller.py): nobody waits for one."""
MAX_INTERIM = 20
"""Answers of status 1xx before the answer, at most."""
PARTS_PER_STEP = 32
"""Received parts of HTTP/1.1 in one step of work."""
KEEP_IDLE = 75.0
"""Seconds that an idle connection is kept: polls of one provider may be that far apart."""
KEEPALIVE_OPTIONS = [
    (level, getattr(socket, option), value)
    for level, option, value in (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 20),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 5),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
    )
    if hasattr(socket, option)
]
"""The kernel probes an idle connection after 20 s, and closes it 15 s later when nothing answers. So routers on the way
do not forget it, and one that was forgotten is not kept for the next request."""


class HttpConnections(httpx.AsyncHTTPTransport):
    """HTTP/2 where it is served, else HTTP/1.1. Each provider has its own. It repeats no request.

    One task has to enter and leave it, and leaves it before any task group that it entered before. may_write: the lease
    under which requests are sent; when it says no, a request raises Unsent.
    """

    def __init__(self, may_write: Callable[[], bool]) -> None:
        self._tasks = anyio.create_task_group()
        self._pool = _Pool(self._tasks, may_write)  # in place of what the superclass makes

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return await super().__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await super().__aexit__(kind, error, traceback)
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)  # what the block raised must not be wrapped in a group


class _Pool(httpcore.AsyncConnectionPool):
    def __init__(self, tasks: TaskGroup, may_write: Callable[[], bool]) -> None:
        super().__init__(max_connections=None, max_keepalive_connections=MAX_CONNECTIONS)
        self._tls = httpx.create_ssl_context()
        self._tls.set_alpn_protocols(["http/1.1", "h2"])
        self._tasks = tasks
        self._may_write = may_write

    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        return _Connection(origin, self._tls, self._tasks, self._may_write)


class _Connection(httpcore.AsyncConnectionInterface):
    """Made by the first request that it is given, and busy from that moment on."""

    def __init__(
        self, origin: httpcore.Origin, tls: ssl.SSLContext, tasks: TaskGroup, may_write: Callable[[], bool]
    ) -> None:
        self._origin = origin
        self._tls = tls
        self._tasks = tasks
        self._may_write = may_write
        self._made: httpcore.AsyncHTTP11Connection | Http2 | None = None
        self._failed = False
        """It could not be made."""
        self._making = anyio.Lock()
        self._beginning = 0
        """Requests without an answer."""

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        self._beginning += 1
        try:
            made = self._made
            if made is None:
                async with self._making:
                    made = self._made or await self._make(request)
            return await made.handle_async_request(request)
        finally:
            self._beginning -= 1

    async def _make(self, request: httpcore.Request) -> httpcore.AsyncHTTP11Connection | Http2:
        if self._failed:
            raise httpcore.ConnectionNotAvailable
        try:
            with anyio.fail_after(request.extensions.get("timeout", {}).get("connect")):
                stream = await self._connect(request)
        except BaseException as error:
            self._failed = True
            if isinstance(error, TimeoutError):
                raise httpcore.ConnectTimeout from None
            raise
        over_tls = stream.get_extra_info("ssl_object")
        if over_tls is not None and over_tls.selected_alpn_protocol() == "h2":
            self._made = connection = Http2(self._origin, stream, KEEP_IDLE, self._may_write)
            self._tasks.start_soon(connection.run)
        else:
            stream.may_write = self._may_write
            self._made = _Http1(self._origin, stream, KEEP_IDLE)
        return self._made

    async def _connect(self, request: httpcore.Request) -> "_Stream":
        host = self._origin.host.decode("ascii")
        await trace_phase(request, "connection.connect_tcp.started")
        tcp = await httpcore.AnyIOBackend().connect_tcp(host, self._origin.port, socket_options=KEEPALIVE_OPTIONS)
        stream = _Stream(tcp)
        if self._origin.scheme == b"https":
            await trace_phase(request, "connection.start_tls.started")
            stream = await stream.start_tls(self._tls, host)
        return stream

    async def aclose(self) -> None:
        if self._made is not None:
            await self._made.aclose()

    def info(self) -> str:
        return "not made" if self._made is None else self._made.info()

    def can_handle_request(self, origin: httpcore.Origin) -> bool:
        return origin == self._origin

    def is_available(self) -> bool:
        if self._made is None:  # it may become one of HTTP/2, which takes several
            return self._origin.scheme == b"https" and not self._failed
        return (isinstance(self._made, Http2) or not self._beginning) and self._made.is_available()

    def is_idle(self) -> bool:
        return not self._beginning and self._made is not None and self._made.is_idle()

    def has_expired(self) -> bool:
        return not self._beginning and self._made is not None and self._made.has_expired()

    def is_closed(self) -> bool:
        return self._failed if self._made is None else self._made.is_closed()


class _Http1(httpcore.AsyncHTTP11Connection):
    """It closes when more came than one answer, for the rest would be taken for the answer to the next request.

    It lets others run between the parts of what came at once, and gives up a server that sends interim answers for ever.
    """

    _parts = 0
    _interim = 0

    async def _receive_event(self, timeout: float | None = None) -> Any:
        self._parts += 1
        if self._parts % PARTS_PER_STEP == 0:
            await anyio.lowlevel.checkpoint()
        event = await super()._receive_event(timeout)
        status = getattr(event, "status_code", None)
        if status is not None:
            self._interim = self._interim + 1 if status < 200 else 0
            if self._interim > MAX_INTERIM:
                raise httpcore.RemoteProtocolError("interim answers without end")
        return event

    async def _response_closed(self) -> None:
        await super()._response_closed()
        if self.is_idle() and self._h11_state.trailing_data[0]:
            await self.aclose()


class _Stream(httpcore.AsyncNetworkStream):
    """A stream that knows its socket."""

    may_write: Callable[[], bool] | None = None
    """The lease, where all that is written is requests: HTTP/2, which also acknowledges, looks for itself.

    The look stands here, since waking from a freeze, the pool and a connect lie between a grant and the wire: looked at
    when it was granted, requests left beside those of a successor. A turn of the loop remains behind it."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._socket: socket.socket = stream.get_extra_info("socket")
        self._tls: ssl.SSLObject | None = stream.get_extra_info("ssl_object")

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return await self._stream.read(max_bytes, timeout)
        except ssl.SSLError as error:  # an alert of the server, or no TLS any more
            raise httpcore.ReadError from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if buffer and self.may_write is not None and not self.may_write():
            raise Unsent
        try:
            await self._stream.write(buffer, timeout)
        except ssl.SSLError as error:
            raise httpcore.WriteError from error

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> "_Stream":
        try:
            return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))
        except BaseException:  # given up during the handshake, and nobody else would close it
            with anyio.CancelScope(shield=True):
                await self.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._readable() if info == "is_readable" else self._stream.get_extra_info(info)

    def _readable(self) -> bool:
        """Of an idle connection: it was closed at either end, or brings what nobody asked for."""
        if self._socket.fileno() < 0:
            return True
        if self._tls is not None:  # what came together with the answer is not in the socket any more
            try:
                self._tls.read(1)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                return True
            else:
                return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))
