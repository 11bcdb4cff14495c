"""One HTTP attempt: no redirect followed, nothing repeated, bounded in time and size, and no URL in any message.

The key of some APIs stands in the URL, and httpx's messages may hold URLs: what goes wrong is told by its kind alone.
"""

import socket
import ssl
from collections.abc import Callable, Iterator
from functools import lru_cache

import anyio
import httpx

from watcher.providers.failures import Malformed, Temporary
from watcher.providers.provider import Credentials, Provider, Request, Response

CONNECT = 10.0
"""Seconds, at most, of the time-out that go into making a connection."""
URLS = 1000
"""Of the requests made last, kept as they were parsed."""
HEADERS = {"accept": "*/*", "accept-encoding": "gzip, deflate", "user-agent": "balance-watcher"}


class Unreachable(Temporary):
    """No answer: the network, not the provider's word. `phase` says how far the attempt came."""

    def __init__(self, phase: str, reason: str) -> None:
        super().__init__(reason)
        self.phase = phase


class Exchange:
    """Sends a provider's requests. `wall` gives wall-clock microseconds.

    It speaks to the transport itself: a client would build each request anew, from parts that hardly ever differ, and
    offer redirects and logins that we do not want.
    """

    def __init__(
        self,
        provider: Provider,
        transport: httpx.AsyncBaseTransport,
        credentials: Credentials,
        wall: Callable[[], int],
    ) -> None:
        self._base_url = provider.base_url
        self._timeout = timeout = provider.settings.timeout
        self._extensions = {"timeout": httpx.Timeout(timeout, connect=min(CONNECT, timeout)).as_dict()}
        self._most = provider.settings.max_bytes
        self._transport = transport
        self._wall = wall
        self._cookies = httpx.Cookies()
        self._url = lru_cache(URLS)(self._parsed)
        self.renew(credentials)

    def renew(self, credentials: Credentials) -> None:
        """Sent with every request from the next one on."""
        self._params = httpx.QueryParams(credentials.params)
        self._url.cache_clear()
        self._headers = httpx.Headers({**HEADERS, **credentials.headers})
        self._headers_of_json = httpx.Headers({**HEADERS, "content-type": "application/json", **credentials.headers})

    async def send(self, request: Request) -> Response:
        """The whole answer. Raises Unreachable, and Malformed for one that is larger than it may be."""
        try:
            with anyio.fail_after(self._timeout):
                return await self._attempt(self._built(request))
        except (httpx.RequestError, TimeoutError) as error:
            raise _unreachable(error) from None  # the cause may hold the URL

    def _built(self, request: Request) -> httpx.Request:
        headers = self._headers if request.body is None else self._headers_of_json
        if request.headers:
            headers = headers.copy()
            headers.update(request.headers)
        url = self._url(request.path, request.params)
        built = httpx.Request(request.method, url, headers=headers, content=request.body, extensions=self._extensions)
        if self._cookies:  # a balancer's cookie keeps us at one and the same of its servers
            self._cookies.set_cookie_header(built)
        return built

    def _parsed(self, path: str, params: tuple[tuple[str, str], ...]) -> httpx.URL:
        return httpx.URL(self._base_url + path, params=self._params.merge(params) or None)

    async def _attempt(self, request: httpx.Request) -> Response:
        answer = await self._transport.handle_async_request(request)
        try:
            if "set-cookie" in answer.headers:
                answer.request = request
                self._cookies.extract_cookies(answer)
            body = await self._body(answer)
            return Response(answer.status_code, body, self._wall() / 1e6, dict(answer.headers.items()))
        finally:
            await answer.aclose()

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
