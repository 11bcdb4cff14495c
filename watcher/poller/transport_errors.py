"""Why there is no answer: how far the attempt came, and what ended it.

httpx's messages may hold URLs, and so keys: the reason is made from the kind of error alone.
"""

import socket
import ssl
from collections.abc import Iterator
from typing import Any

import httpx

from watcher.poller.http2 import BROKEN_OFF, REFUSED
from watcher.providers.failures import Temporary
from watcher.providers.protocol import Response


class Unreachable(Temporary):
    """No answer: the network, not the provider's word. `phase` says how far the attempt came.

    `words`: the reason without what a certificate or a library says of the other side, for whoever reads the stream.
    """

    def __init__(self, phase: str, reason: str, words: str | None = None) -> None:
        super().__init__(reason)
        self.phase = phase
        self.words = words or reason


class AttemptPhase:
    """How far one attempt has come; to be called as httpx's `trace` extension is."""

    phase = "pool"
    head: Response | None = None
    """Status and headers of the answer, once they came."""

    async def __call__(self, event: str, _info: dict[str, Any]) -> None:
        self.phase = _PHASES.get(event.partition(".")[2], self.phase)


_PHASES = {
    "connect_tcp.started": "connect",
    "start_tls.started": "tls",
    "send_request_headers.started": "write",
    "receive_response_headers.started": "read",
    "receive_response_body.started": "body",
}
_TIMED_OUT = {
    "pool": "none of our connections became free in time",
    "connect": "no connection in time",
    "tls": "no TLS connection in time",
    "write": "the request could not be sent in time",
    "read": "no answer in time",
    "body": "no whole answer in time",
}
_BROKEN: tuple[tuple[type[Exception], str, str], ...] = (
    (httpx.ReadError, "read", "the connection broke before the answer was whole"),
    (httpx.WriteError, "write", "the connection broke while the request was sent"),
    (httpx.RemoteProtocolError, "protocol", "the server broke the protocol"),
    (httpx.DecodingError, "decode", "the answer is not compressed as it says"),
)
_DISCONNECTED = ("Server disconnected", "peer closed connection", "Connection closed")
"""How the messages begin that mean an end, and not nonsense."""
_OF_ONE_REQUEST = {
    REFUSED: "the server did not take the request up",
    BROKEN_OFF: "the server broke off the answer",
}


def unreachable_from(error: Exception, phase: str) -> Unreachable:
    """What ended an attempt in that phase, in words without a secret."""
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return Unreachable(phase, _TIMED_OUT[phase])
    if isinstance(error, httpx.ConnectError):
        return _connect_failure(error)
    if isinstance(error, httpx.RemoteProtocolError) and str(error).startswith(_DISCONNECTED):
        return Unreachable("read", "the connection was closed before the answer was whole")
    if str(error) in _OF_ONE_REQUEST:
        return Unreachable("read", _OF_ONE_REQUEST[str(error)])
    for kind, where, reason in _BROKEN:
        if isinstance(error, kind):
            return Unreachable(where, reason)
    return Unreachable("transport", type(error).__name__, "the connection failed")


def _connect_failure(error: Exception) -> Unreachable:
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return Unreachable("dns", "the host name cannot be resolved")
        if isinstance(cause, ssl.SSLCertVerificationError):
            words = "the certificate is refused"  # OpenSSL's own name the host
            return Unreachable("tls", f"{words}: {cause.verify_message.rstrip('.')}", words)
        if isinstance(cause, ssl.SSLError):
            words = "no TLS is spoken there as we know it"
            return Unreachable("tls", f"{words}: {(cause.reason or 'no reason given').lower()}", words)
        if isinstance(cause, ConnectionRefusedError):
            return Unreachable("connect", "the connection was refused")
    return Unreachable("connect", "no connection")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all that led to it: groups, causes and contexts."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _causes(one)
    for cause in (error.__cause__, error.__context__):
        if cause is not None:
            yield from _causes(cause)
            return
