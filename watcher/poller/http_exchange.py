"""One HTTP attempt: no redirect followed, nothing repeated, bounded in time and size, and no URL in any message.

The key of some APIs stands in the URL, so `transport_errors.py` says what went wrong in words of our own.
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

CONNECT_TIMEOUT = 10.0
"""Seconds, at most, of the time-out that go into making a connection."""
MAX_URLS = 1000
"""Kept as they were parsed, of the requests made last."""
MAX_COOKIE_BYTES = 4096
"""Bytes of our own header, at most: cookies that need more are all dropped."""
MAX_HEADER_FIELDS = 200
"""Of an answer's head, at most."""
MAX_HEAD_BYTES = 32 * 1024
"""Bytes in all fields of a head, at most."""
MAX_HELD = 256 * 2**20
"""Bytes of all answers of one provider in memory at a time, at most, or four times `max_bytes` where that is more."""
CRUMBS = (10_000, 64)
"""Pieces in which any answer may come, and the bytes that allow one piece more."""
PIECES_PER_STEP = 32
"""Received in one step of work, however little is in them."""
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
        self._timeouts = httpx.Timeout(timeout, connect=min(CONNECT_TIMEOUT, timeout)).as_dict()
        self._max_bytes = provider.settings.max_bytes
        self._transport = transport
        self._wall = wall
        self._max_held = max(MAX_HELD, 4 * self._max_bytes)
        self._cookies = httpx.Cookies()
        self.bytes_held = 0
        """Of answers, decompressed, that were not released."""
        self._url = lru_cache(MAX_URLS)(self._parsed)
        self.use_credentials(credentials)

    @property
    def is_full(self) -> bool:
        """No further request should be sent while so much is held."""
        return self.bytes_held > self._max_held // 2

    def release(self, response: Response) -> None:
        """Its body is not needed any more."""
        self.bytes_held -= len(response.body)

    def use_credentials(self, credentials: Credentials) -> None:
        """Sent with every request from the next one on."""
        self._params = httpx.QueryParams(credentials.params)
        self._url.cache_clear()
        self._headers = httpx.Headers({**HEADERS, **credentials.headers})
        self._headers_of_json = httpx.Headers({**HEADERS, "content-type": "application/json", **credentials.headers})

    async def send(self, request: Request) -> Response:
        """The whole answer, to be released. Raises Unreachable, and Malformed for one that is larger than it may be."""
        attempt = AttemptPhase()
        try:
            with anyio.fail_after(self._timeout):
                return await self._attempt(self._built(request, attempt), attempt)
        except (httpx.RequestError, TimeoutError, Malformed) as error:
            head = attempt.head
            if head is not None and head.status != 200:  # which says enough, whatever its body is
                return head
            failure = error if isinstance(error, Malformed) else unreachable_from(error, attempt.phase)
            failure.retry_after = None if head is None else head.wait
            raise failure from None  # the cause may hold the URL

    def _built(self, request: Request, attempt: AttemptPhase) -> httpx.Request:
        headers = self._headers if request.body is None else self._headers_of_json
        if request.headers:
            headers = headers.copy()
            headers.update(request.headers)
        url = self._url(request.path, request.params)
        extensions = {"timeout": self._timeouts, "trace": attempt}
        built = httpx.Request(request.method, url, headers=headers, content=request.body, extensions=extensions)
        if self._cookies:  # a balancer's cookie keeps us at one and the same of its servers
            self._cookies.set_cookie_header(built)
        return built

    def _keep_cookies(self, answer: httpx.Response, request: httpx.Request) -> None:
        """Keep its cookies with those of before, as long as they are few and small."""
        if "set-cookie" in answer.headers:
            answer.request = request
            self._cookies.extract_cookies(answer)
            sizes = (len(cookie.name) + len(cookie.value or "") + len("=; ") for cookie in self._cookies.jar)
            if sum(sizes) > MAX_COOKIE_BYTES:
                self._cookies.clear()

    def _parsed(self, path: str, params: tuple[tuple[str, str], ...]) -> httpx.URL:
        return httpx.URL(self._base_url + path, params=self._params.merge(params) or None)

    async def _attempt(self, request: httpx.Request, attempt: AttemptPhase) -> Response:
        answer = await self._transport.handle_async_request(request)
        try:
            _refuse_long_head(answer.headers)
            head = Response(answer.status_code, b"", self._wall() / 1e6, dict(answer.headers.items()))
            attempt.head = head = msgspec.structs.replace(head, wait=requested_wait(head))
            self._keep_cookies(answer, request)
            return msgspec.structs.replace(head, body=await self._body(answer))
        finally:
            await answer.aclose()

    async def _body(self, answer: httpx.Response) -> bytes:
        # Written as it comes: to join fifty megabytes at the end would block the loop for long.
        body, pieces = BytesIO(), _Pieces()
        decompressor = Decompressor(answer.headers.get("content-encoding", ""))
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        try:
            async for data in answer.stream:
                if pieces.take(len(data)):
                    await anyio.lowlevel.checkpoint()
                for part in decompressor.parts(data):
                    self.bytes_held += len(part)
                    body.write(part)
                    self._refuse_large(body.tell())
                    if len(part) == STEP:  # there may be a thousand of them in what came
                        await anyio.lowlevel.checkpoint()
            decompressor.end()
        except BaseException:
            self.bytes_held -= body.tell()
            body.close()  # whoever holds the error holds this frame as well
            raise
        return body.getvalue()

    def _refuse_large(self, size: int) -> None:
        if size > self._max_bytes:
            raise Malformed(
                f"the answer is larger than {self._max_bytes} bytes, unpacked: raise max_bytes if it may be"
            )
        if self.bytes_held > self._max_held:
            raise Malformed(f"answers of more than {self._max_held} bytes at a time, unpacked")


def _refuse_long_head(headers: httpx.Headers) -> None:
    """Called before anything in it is looked at. Raises Malformed."""
    fields = headers.raw
    if len(fields) > MAX_HEADER_FIELDS or sum(len(name) + len(value) for name, value in fields) > MAX_HEAD_BYTES:
        raise Malformed(f"the answer's head is larger than {MAX_HEADER_FIELDS} fields of {MAX_HEAD_BYTES} bytes in all")


class _Pieces:
    """The pieces in which a body comes: a small one costs as much as a large one."""

    def __init__(self) -> None:
        self._count = self._size = 0

    def take(self, size: int) -> bool:
        """Count one more; whether it is time to yield. Raises Malformed for a body in crumbs."""
        self._count, self._size = self._count + 1, self._size + size
        free, crumb = CRUMBS
        if self._count > free + self._size // crumb:
            raise Malformed(f"the answer comes in crumbs: {self._count} pieces for {self._size} bytes")
        return self._count % PIECES_PER_STEP == 0
