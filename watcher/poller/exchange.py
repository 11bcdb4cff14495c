"""One HTTP attempt: no redirect followed, nothing repeated, bounded in time and size, and no URL in any message.

The key of some APIs stands in the URL, and httpx's messages may hold URLs: what goes wrong is told by its kind alone.
"""

import socket
import ssl
from collections.abc import Callable, Iterator

import anyio
import httpx

from watcher.providers.failures import Malformed, Temporary
from watcher.providers.provider import Credentials, Provider, Request, Response

CONNECT = 10.0
"""Seconds, at most, of the time-out that go into making a connection."""
KEEP = 75.0
"""Seconds that an idle connection is kept: polls of one provider may be that far apart."""


class Unreachable(Temporary):
    """No answer: the network, not the provider's word. `phase` says how far the attempt came."""

    def __init__(self, phase: str, reason: str) -> None:
        super().__init__(reason)
        self.phase = phase


def client_for(
    provider: Provider, credentials: Credentials, transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncClient:
    """The provider's own pooled client. It carries the credentials and retries nothing."""
    timeout = provider.settings.timeout
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=KEEP)
    return httpx.AsyncClient(
        headers={"accept-encoding": "gzip, deflate", "user-agent": "balance-watcher", **credentials.headers},
        params=credentials.params,
        timeout=httpx.Timeout(timeout, connect=min(CONNECT, timeout)),
        transport=transport or httpx.AsyncHTTPTransport(http2=True, retries=0, limits=limits),
        follow_redirects=False,
        trust_env=False,
    )


class Exchange:
    """Sends a provider's requests. `wall` gives wall-clock microseconds."""

    def __init__(self, provider: Provider, client: httpx.AsyncClient, wall: Callable[[], int]) -> None:
        self._base_url = provider.base_url
        self._timeout = provider.settings.timeout
        self._most = provider.settings.max_bytes
        self._client = client
        self._wall = wall

    def renew(self, old: Credentials, new: Credentials) -> None:
        """From the next request on."""
        for name in old.headers:
            self._client.headers.pop(name, None)
        self._client.headers.update(new.headers)
        self._client.params = httpx.QueryParams(new.params)

    async def send(self, request: Request) -> Response:
        """The whole answer. Raises Unreachable, and Malformed for one that is larger than it may be."""
        try:
            with anyio.fail_after(self._timeout):
                return await self._attempt(request)
        except (httpx.RequestError, TimeoutError) as error:
            raise _unreachable(error) from None  # the cause may hold the URL

    async def _attempt(self, request: Request) -> Response:
        headers = dict(request.headers)
        if request.body is not None:
            headers.setdefault("content-type", "application/json")
        async with self._client.stream(
            request.method,
            self._base_url + request.path,
            params=request.params or None,
            content=request.body,
            headers=headers,
            follow_redirects=False,
        ) as answer:
            body = await self._body(answer)
            return Response(answer.status_code, body, self._wall() / 1e6, dict(answer.headers))

    async def _body(self, answer: httpx.Response) -> bytes:
        # One chunk off the wire is at most 64 KiB, so even a bomb can unpack only so far before it is measured.
        parts, size = [], 0
        async for part in answer.aiter_bytes():
            size += len(part)
            if size > self._most:
                raise Malformed(f"the answer is larger than {self._most} bytes, unpacked: raise max_bytes if it may be")
            parts.append(part)
        return b"".join(parts)


_PHASES: tuple[tuple[type[Exception], str, str], ...] = (
    (httpx.ConnectTimeout, "connect", "no connection in time"),
    (httpx.WriteTimeout, "write", "the request could not be sent in time"),
    (httpx.ReadTimeout, "read", "no answer in time"),
    (httpx.PoolTimeout, "pool", "no connection became free in time"),
    (TimeoutError, "total", "no whole answer in time"),
    (httpx.ReadError, "read", "the connection broke before the answer was whole"),
    (httpx.WriteError, "write", "the connection broke while the request was sent"),
    (httpx.RemoteProtocolError, "protocol", "the server broke the protocol or closed the connection"),
    (httpx.DecodingError, "decode", "the answer is not compressed as it says"),
)


def _unreachable(error: Exception) -> Unreachable:
    if isinstance(error, httpx.ConnectError):
        return Unreachable(*_connecting(error))
    for kind, phase, reason in _PHASES:
        if isinstance(error, kind):
            return Unreachable(phase, reason)
    return Unreachable("transport", type(error).__name__)


def _connecting(error: Exception) -> tuple[str, str]:
    causes = list(_causes(error))
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return "dns", "the host name cannot be resolved"
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return "tls", "no TLS connection: certificate or protocol refused"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "connect", "the connection was refused"
    return "connect", "no connection"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Everything that led to it: groups, causes and contexts."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _causes(one)
    for cause in (error.__cause__, error.__context__):
        if cause is not None:
            yield from _causes(cause)
            return
