"""Connections to receivers: made to an address that was judged, and to no other.

The name is looked up once for a connection, each address is judged, and the connection is made to one that may be: a name
that means another address a moment later (DNS rebinding) changes nothing. TLS and `Host` keep the name.
"""

import functools
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any

import anyio
import anyio.to_thread
import httpcore
import httpx

from watcher.webhooks.targets import refusal

KEEP_IDLE = 30.0
"""Seconds that an idle connection is kept."""

Lookup = Callable[[str, int], list[str]]
"""The addresses of a host; blocks. Raises OSError."""


class TargetRefused(Exception):
    """No address of the receiver is one that webhooks are sent to. The message says why, and names none."""


class NameUnknown(Exception):
    """The host has no address, as far as can be seen now."""


def look_up(host: str, port: int) -> list[str]:
    """By the system's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class TargetGuard:
    """Judges where one receiver may be. All connections to it share one: it looks up one name at a time, on a thread of its
    own, so that a resolver that hangs holds up no other."""

    def __init__(self, *, allow_private: bool, plain: bool, lookup: Lookup = look_up) -> None:
        self._allow_private = allow_private
        self._plain = plain
        self._lookup = lookup
        self._turn = anyio.CapacityLimiter(1)

    async def addresses(self, host: str, port: int) -> list[str]:
        """Those that may be connected to. Raises TargetRefused, NameUnknown."""
        try:
            found = await anyio.to_thread.run_sync(self._lookup, host, port, limiter=self._turn, abandon_on_cancel=True)
        except (OSError, UnicodeError):
            raise NameUnknown from None
        refusals = {one: refusal(one, allow_private=self._allow_private, plain=self._plain) for one in found}
        allowed = [one for one, words in refusals.items() if words is None]
        if not found:
            raise NameUnknown
        if not allowed:
            raise TargetRefused(next(filter(None, refusals.values())))
        return allowed


@functools.cache
def _tls() -> ssl.SSLContext:
    """One for all: it holds the certificates of every authority."""
    return httpx.create_ssl_context()


class ReceiverTransport(httpx.AsyncHTTPTransport):
    """HTTP/1.1 to one receiver, past every proxy of the environment. It follows no redirect and repeats nothing."""

    def __init__(self, guard: TargetGuard) -> None:
        self._pool = httpcore.AsyncConnectionPool(  # in place of what the superclass makes
            ssl_context=_tls(),
            max_connections=None,
            max_keepalive_connections=1,
            keepalive_expiry=KEEP_IDLE,
            network_backend=_GuardedNetwork(guard),
        )


class _GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to addresses that the guard gives."""

    def __init__(self, guard: TargetGuard) -> None:
        self._guard = guard
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception | None = None
        for address in await self._guard.addresses(host, port):
            ipaddress.ip_address(address)  # never a name, which would be looked up again
            try:
                return await self._network.connect_tcp(
                    address, port, timeout=timeout, local_address=local_address, socket_options=socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        assert failure is not None, "the guard gives one address at least"
        raise failure

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)
