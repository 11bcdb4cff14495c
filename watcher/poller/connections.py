"""A provider's pool of connections: httpx's own, but for how an idle connection is asked whether it still stands.

The pool asks that of every idle connection, twice for each request, and httpx's way to find out collects all that can
be known of a socket each time: with ten connections that was a third of what a poll costs, with a hundred nearly all.
"""

import select
import socket
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

MOST = 100
"""Connections of one pool, as many as requests are in flight at most (see loop.py): nobody waits for one."""
KEEP = 75.0
"""Seconds that an idle connection is kept: polls of one provider may be that far apart."""


class Connections(httpx.AsyncHTTPTransport):
    """HTTP/2 where it is served, else HTTP/1.1. Each provider has its own. It repeats nothing. To be closed."""

    def __init__(self) -> None:
        # In place of what the superclass does, which offers no way to hand the backend in.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=None,
            max_keepalive_connections=MOST,
            keepalive_expiry=KEEP,
            http2=True,
            retries=0,
            network_backend=_Network(),
        )


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
        return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._readable() if info == "is_readable" else self._stream.get_extra_info(info)

    def _readable(self) -> bool:
        """Of an idle connection: it was closed, over there or here."""
        if self._socket.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))
