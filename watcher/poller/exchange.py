"""One HTTP attempt: no redirect followed, nothing repeated, bounded in time and size, and no URL in any message.

The key of some APIs stands in the URL: `trouble.py` says what went wrong in words of our own.
"""

from collections.abc import Callable
from functools import lru_cache
from io import BytesIO

import anyio
import anyio.lowlevel
import httpx
import msgspec

from watcher.poller.trouble import Progress, unreachable
from watcher.poller.unpacking import STEP, Unpacking
from watcher.providers.failures import Malformed
from watcher.providers.provider import Credentials, Provider, Request, Response
from watcher.providers.waits import retry_after

CONNECT = 10.0
"""Seconds, at most, of the time-out that go into making a connection."""
URLS = 1000
"""Of the requests made last, kept as they were parsed."""
HEADERS = {"accept": "*/*", "accept-encoding": "gzip, deflate", "user-agent": "balance-watcher"}


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
        self._timeouts = httpx.Timeout(timeout, connect=min(CONNECT, timeout)).as_dict()
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
        progress = Progress()
        try:
            with anyio.fail_after(self._timeout):
                return await self._attempt(self._built(request, progress), progress)
        except (httpx.RequestError, TimeoutError, Malformed) as error:
            heard = progress.heard
            if heard is not None and heard.status != 200:  # which says enough, whatever its body is
                return heard
            failure = error if isinstance(error, Malformed) else unreachable(error, progress.phase)
            failure.retry_after = None if heard is None else retry_after(heard)
            raise failure from None  # the cause may hold the URL

    def _built(self, request: Request, progress: Progress) -> httpx.Request:
        headers = self._headers if request.body is None else self._headers_of_json
        if request.headers:
            headers = headers.copy()
            headers.update(request.headers)
        url = self._url(request.path, request.params)
        extensions = {"timeout": self._timeouts, "trace": progress}
        built = httpx.Request(request.method, url, headers=headers, content=request.body, extensions=extensions)
        if self._cookies:  # a balancer's cookie keeps us at one and the same of its servers
            self._cookies.set_cookie_header(built)
        return built

    def _parsed(self, path: str, params: tuple[tuple[str, str], ...]) -> httpx.URL:
        return httpx.URL(self._base_url + path, params=self._params.merge(params) or None)

    async def _attempt(self, request: httpx.Request, progress: Progress) -> Response:
        answer = await self._transport.handle_async_request(request)
        progress.heard = heard = Response(answer.status_code, b"", self._wall() / 1e6, dict(answer.headers.items()))
        try:
            if "set-cookie" in answer.headers:
                answer.request = request
                self._cookies.extract_cookies(answer)
            return msgspec.structs.replace(heard, body=await self._body(answer))
        finally:
            await answer.aclose()

    async def _body(self, answer: httpx.Response) -> bytes:
        # Written as it comes: to join fifty megabytes in the end would keep everybody waiting.
        body, size = BytesIO(), 0
        unpacking = Unpacking(answer.headers.get("content-encoding", ""))
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        async for data in answer.stream:
            for part in unpacking.parts(data):
                size += len(part)
                if size > self._most:
                    raise Malformed(
                        f"the answer is larger than {self._most} bytes, unpacked: raise max_bytes if it may be"
                    )
                body.write(part)
                if len(part) == STEP:  # and there may be a thousand of them in what came
                    await anyio.lowlevel.checkpoint()
        unpacking.end()
        return body.getvalue()
