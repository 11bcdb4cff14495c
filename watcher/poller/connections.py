"""A provider's pool of connections: httpx's own, but for two habits that cost most when many requests are in flight.

- Asking whether an idle connection still stands, which the pool does of each, twice for every request, it collected
  all that can be known of a socket: with ten connections a third of what a poll costs.
- A connection looked idle for some turns of the loop after it was given a request. Those that came meanwhile were given
  the same one, had to begin again, and could go on so until their time was over, with nothing wrong over there.
"""

import select
import socket
import ssl
from collections.abc import Iterable
from typing import Any

import anyio
import httpcore
import httpx

MOST = 100
"""Connections of one pool, as many as requests are in flight at most (see loop.py): nobody waits for one."""
KEEP = 75.0
"""Seconds that an idle connection is kept: polls of one provider may be that far apart."""


class Connections(httpx.AsyncHTTPTransport):
    """HTTP/2 where it is served, else HTTP/1.1. Each provider has its own. It repeats nothing. To be closed."""

    def __init__(self) -> None:
        self._pool = _Pool()  # in place of what the superclass makes


class _Pool(httpcore.AsyncConnectionPool):
    def __init__(self) -> None:
        super().__init__(max_connections=None, max_keepalive_connections=MOST)
        self._tls = httpx.create_ssl_context()
        self._network = _Network()

    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        return _Connection(
            origin, self._tls, keepalive_expiry=KEEP, http2=True, retries=0, network_backend=self._network
        )


class _Connection(httpcore.AsyncHTTPConnection):
    """Taken from the moment that it is given a request."""

    _beginning = 0
    """Requests without an answer."""
    _shared = True
    """By several requests at a time, as far as is known."""

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        self._beginning += 1
        try:
            answer = await super().handle_async_request(request)
        finally:
            self._beginning -= 1
        self._shared = answer.extensions["http_version"] == b"HTTP/2"
        return answer

    def is_available(self) -> bool:
        return (self._shared or not self._beginning) and super().is_available()

    def is_idle(self) -> bool:
        return not self._beginning and super().is_idle()

    def has_expired(self) -> bool:
        return not self._beginning and super().has_expired()


class _Network(httpcore.AsyncNetworkBackend):
    def __init__(self) -> None:
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._network.connect_tcp(host, port, timeout, local_address, socket_options))


class _Stream(httpcore.AsyncNetworkStream):
    """Knows its socket."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._socket: socket.socket = stream.get_extra_info("socket")

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))
        except BaseException:  # given up while hands are shaken: nobody else would close it
            with anyio.CancelScope(shield=True):
                await self.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._readable() if info == "is_readable" else self._stream.get_extra_info(info)

    def _readable(self) -> bool:
        """Of an idle connection: it was closed, over there or here."""
        if self._socket.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))
