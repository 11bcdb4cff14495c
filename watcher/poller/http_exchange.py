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

from watcher.poller.decompression import STEP, Decompressor
from watcher.poller.transport_errors import AttemptPhase, unreachable_from
from watcher.providers.failures import Malformed
from watcher.providers.protocol import Credentials, Provider, Request, Response
from watcher.providers.waits import requested_wait

CONNECT = 10.0
"""Seconds, at most, of the time-out that go into making a connection."""
URLS = 1000
"""Of the requests made last, kept as they were parsed."""
COOKIES = 4096
"""Bytes of our own header, at most: cookies that need more are all let go of."""
FIELDS = 200
"""Of an answer's head, at most."""
HEAD = 32 * 1024
"""Bytes in all fields of a head, at most."""
HELD = 256 * 2**20
"""Bytes of all answers of one provider that are here at a time, at most; `max_bytes` that is larger counts four times."""
CRUMBS = (10_000, 64)
"""Pieces in which any answer may come, and the bytes in each one more."""
PIECES = 32
"""Taken between two breaths, however little is in them."""
HEADERS = {"accept": "*/*", "accept-encoding": "gzip, deflate", "user-agent": "balance-watcher"}


class HttpExchange:
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
        self._room = max(HELD, 4 * self._most)
        self._cookies = httpx.Cookies()
        self.held = 0
        """Bytes of answers, unpacked, that nobody let go of."""
        self._url = lru_cache(URLS)(self._parsed)
        self.renew(credentials)

    @property
    def full(self) -> bool:
        """No further request should be sent while so much is held."""
        return self.held > self._room // 2

    def let_go(self, response: Response) -> None:
        """Its body is not needed any more."""
        self.held -= len(response.body)

    def renew(self, credentials: Credentials) -> None:
        """Sent with every request from the next one on."""
        self._params = httpx.QueryParams(credentials.params)
        self._url.cache_clear()
        self._headers = httpx.Headers({**HEADERS, **credentials.headers})
        self._headers_of_json = httpx.Headers({**HEADERS, "content-type": "application/json", **credentials.headers})

    async def send(self, request: Request) -> Response:
        """The whole answer, to be let go of. Raises Unreachable, and Malformed for one that is larger than it may be."""
        progress = AttemptPhase()
        try:
            with anyio.fail_after(self._timeout):
                return await self._attempt(self._built(request, progress), progress)
        except (httpx.RequestError, TimeoutError, Malformed) as error:
            heard = progress.heard
            if heard is not None and heard.status != 200:  # which says enough, whatever its body is
                return heard
            failure = error if isinstance(error, Malformed) else unreachable_from(error, progress.phase)
            failure.retry_after = None if heard is None else heard.wait
            raise failure from None  # the cause may hold the URL

    def _built(self, request: Request, progress: AttemptPhase) -> httpx.Request:
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

    def _remember(self, answer: httpx.Response, request: httpx.Request) -> None:
        """Its cookies, as long as they are few and small, whatever else was set before."""
        if "set-cookie" in answer.headers:
            answer.request = request
            self._cookies.extract_cookies(answer)
            if sum(len(cookie.name) + len(cookie.value or "") + len("=; ") for cookie in self._cookies.jar) > COOKIES:
                self._cookies.clear()

    def _parsed(self, path: str, params: tuple[tuple[str, str], ...]) -> httpx.URL:
        return httpx.URL(self._base_url + path, params=self._params.merge(params) or None)

    async def _attempt(self, request: httpx.Request, progress: AttemptPhase) -> Response:
        answer = await self._transport.handle_async_request(request)
        try:
            _refuse_long_head(answer.headers)
            heard = Response(answer.status_code, b"", self._wall() / 1e6, dict(answer.headers.items()))
            progress.heard = heard = msgspec.structs.replace(heard, wait=requested_wait(heard))
            self._remember(answer, request)
            return msgspec.structs.replace(heard, body=await self._body(answer))
        finally:
            await answer.aclose()

    async def _body(self, answer: httpx.Response) -> bytes:
        # Written as it comes: to join fifty megabytes in the end would keep everybody waiting.
        body, pieces = BytesIO(), _Pieces()
        unpacking = Decompressor(answer.headers.get("content-encoding", ""))
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        try:
            async for data in answer.stream:
                if pieces.take(len(data)):
                    await anyio.lowlevel.checkpoint()
                for part in unpacking.parts(data):
                    self.held += len(part)
                    body.write(part)
                    self._refuse_large(body.tell())
                    if len(part) == STEP:  # and there may be a thousand of them in what came
                        await anyio.lowlevel.checkpoint()
            unpacking.end()
        except BaseException:
            self.held -= body.tell()
            body.close()  # whoever holds the error holds this frame as well
            raise
        return body.getvalue()

    def _refuse_large(self, size: int) -> None:
        if size > self._most:
            raise Malformed(f"the answer is larger than {self._most} bytes, unpacked: raise max_bytes if it may be")
        if self.held > self._room:
            raise Malformed(f"answers of more than {self._room} bytes at a time, unpacked")


def _refuse_long_head(headers: httpx.Headers) -> None:
    """Before anything in it is looked at. Raises Malformed."""
    fields = headers.raw
    if len(fields) > FIELDS or sum(len(name) + len(value) for name, value in fields) > HEAD:
        raise Malformed(f"the answer's head is larger than {FIELDS} fields of {HEAD} bytes in all")


class _Pieces:
    """In which a body comes: each costs as much as a larger one."""

    def __init__(self) -> None:
        self._count = self._size = 0

    def take(self, size: int) -> bool:
        """One more; whether it is time for a breath. Raises Malformed for a body in crumbs."""
        self._count, self._size = self._count + 1, self._size + size
        free, crumb = CRUMBS
        if self._count > free + self._size // crumb:
            raise Malformed(f"the answer comes in crumbs: {self._count} pieces for {self._size} bytes")
        return self._count % PIECES == 0
