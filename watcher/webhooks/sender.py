"""One attempt: a message signed, sent, and what came of it."""

import contextlib
import ssl
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from types import TracebackType
from typing import Self

import anyio
import httpx
import msgspec

from watcher.model.log import Published
from watcher.webhooks.connections import NameUnknown, TargetRefused
from watcher.webhooks.settings import Webhook
from watcher.webhooks.signing import signatures

CONNECT = 10.0
"""Seconds to look up, connect and agree on TLS."""
WHOLE = 20.0
"""Seconds of an attempt, up to the head of the answer."""
REST = 1.0
"""Seconds for the rest of an answer, which says nothing to us: it is read so that the connection can be used again."""
MOST_BODY = 16 * 1024
"""Bytes of it; behind a longer one the connection is closed."""
GONE = 410
AGENT = f"balance-watcher/{version('balance-watcher')}"

_ANY_YEAR = 366 * 86400.0


class Message(msgspec.Struct, frozen=True):
    """What is sent, as often as it takes: id and body stay what they are."""

    id: str
    body: bytes


class _Event(msgspec.Struct):
    """Of an event in the log, what the frame around it repeats."""

    id: str
    observed_at: str


_EVENT = msgspec.json.Decoder(_Event)


def message_of(event: Published) -> Message:
    """The event as it is sent: its bytes as they stand in the log, within type and timestamp."""
    found = _EVENT.decode(event.data)
    head = b'{"type":"balance.%b.v1","timestamp":"%b","data":' % (event.type.encode(), found.observed_at.encode())
    return Message(found.id, head + event.data + b"}")


class Attempt(msgspec.Struct, frozen=True):
    """What one attempt came to."""

    status: int | None
    """None: there was no answer."""
    seconds: float
    problem: str | None
    """Why it failed, in our words, without an address; None: the receiver has it."""
    retry_after: float | None = None
    """Seconds that the receiver asks for."""

    @property
    def gone(self) -> bool:
        return self.status == GONE


class Sender:
    """Sends to one receiver. To be entered and left by one task; it may be used by one at a time."""

    def __init__(self, webhook: Webhook, transport: httpx.AsyncBaseTransport, wall: Callable[[], int]) -> None:
        self._url = httpx.URL(webhook.url)
        self._keys = webhook.keys
        self._wall = wall
        # No client of httpx around it, which would look for proxies, redirects and cookies.
        self._transport = transport

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with anyio.move_on_after(REST, shield=True):
            await self._transport.__aexit__(kind, error, traceback)

    async def send(self, message: Message) -> Attempt:
        """Signed with the time of this attempt. Raises nothing that a receiver or the network can cause."""
        began = anyio.current_time()
        status, problem, wait = None, None, None
        try:
            with anyio.fail_after(WHOLE):
                answer = await self._transport.handle_async_request(self._request(message))
            status, wait = answer.status_code, _retry_after(answer, self._wall() / 1e6)
            await _let_go(answer)
            problem = _status_words(status)
        except (TimeoutError, httpx.HTTPError, NameUnknown, TargetRefused, ssl.SSLError) as error:
            problem = _failure_words(error)
        return Attempt(status, anyio.current_time() - began, problem, wait)

    def _request(self, message: Message) -> httpx.Request:
        timestamp = self._wall() // 1_000_000
        headers = {
            "user-agent": AGENT,
            "accept": "*/*",
            "content-type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures(self._keys, message.id, timestamp, message.body),
        }
        times = {"connect": CONNECT, "read": WHOLE, "write": WHOLE, "pool": WHOLE}
        return httpx.Request("POST", self._url, headers=headers, content=message.body, extensions={"timeout": times})


async def _let_go(answer: httpx.Response) -> None:
    """Its body is read as it is, up to a bound, and dropped: whatever becomes of it, the head has said all."""
    with anyio.move_on_after(REST), contextlib.suppress(httpx.HTTPError, httpx.StreamError, ssl.SSLError):
        size = 0
        async for part in answer.aiter_raw():
            size += len(part)
            if size > MOST_BODY:
                break
    with anyio.move_on_after(REST, shield=True), contextlib.suppress(httpx.HTTPError):
        await answer.aclose()


def _retry_after(answer: httpx.Response, now: float) -> float | None:
    """Seconds, from a number or from a date by the answer's own clock; None: it says nothing that makes sense."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) <= 15:
        return float(text)
    if (until := _date(text)) is None:
        return None
    wait = until - (_date(answer.headers.get("date", "")) or now)
    return wait if 0 <= wait <= _ANY_YEAR else None


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _status_words(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"status {status}: redirects are not followed: write the address that it leads to"
    return f"status {status}"


def _failure_words(error: Exception) -> str:
    """By the kind alone: what a library says may hold the address."""
    if isinstance(error, TargetRefused):
        return f"the address is refused: {error}"
    if isinstance(error, NameUnknown):
        return "the host name cannot be resolved"
    causes = list(_causes(error))
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in causes):
        return "its certificate is refused"
    if any(isinstance(one, ssl.SSLError) for one in causes):
        return "no TLS is spoken there as we know it"
    if any(isinstance(one, ConnectionRefusedError) for one in causes):
        return "the connection was refused"
    if isinstance(error, httpx.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "no answer in time"
    return "no connection" if isinstance(error, httpx.ConnectError) else "the connection broke before an answer came"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all that led to it."""
    seen: list[BaseException] = [error]
    while seen:
        one = seen.pop()
        yield one
        if isinstance(one, BaseExceptionGroup):
            seen += one.exceptions
        seen += [cause for cause in (one.__cause__, one.__context__) if cause is not None]
