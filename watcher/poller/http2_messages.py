"""Heads of requests and answers as HTTP/2 has them, and which frames belong to a request. Pure."""

from collections.abc import Container

import h2.events
import httpcore

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client of HTTP/2 says before its first frame."""
HEAD = 9
"""Bytes of a frame before its content."""
_OF_REQUESTS = (0, 1, 3, 9)
"""Types of frames: data, headers, reset, and headers continued."""


def has_body(request: httpcore.Request) -> bool:
    """Whether more than headers is to be sent."""
    return any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in request.headers)


def request_headers(request: httpcore.Request) -> list[tuple[bytes, bytes]]:
    """Its head."""
    named = [(name.lower(), value) for name, value in request.headers]
    url = request.url
    return [
        (b":method", request.method),
        (b":authority", dict(named)[b"host"]),
        (b":scheme", url.scheme),
        (b":path", url.target),
        *((name, value) for name, value in named if name not in (b"host", b"transfer-encoding")),
    ]


def status_and_headers(answer: h2.events.ResponseReceived) -> tuple[int, list[tuple[bytes, bytes]]]:
    """Of an answer's head. Raises RemoteProtocolError."""
    headers = [(bytes(name), bytes(value)) for name, value in answer.headers or ()]
    status = next((value for name, value in headers if name == b":status"), b"")
    if not status.isdigit():
        raise httpcore.RemoteProtocolError("no status")
    return int(status), [(name, value) for name, value in headers if not name.startswith(b":")]


def without_requests(outgoing: bytes, numbers: Container[int]) -> bytes:
    """What a connection of HTTP/2 is about to write, but for the requests of these streams.

    The rest goes out: acknowledgements are owed to answers on their way.
    """
    kept, rest = (PREFACE, outgoing[len(PREFACE) :]) if outgoing.startswith(PREFACE) else (b"", outgoing)
    while rest:
        size = HEAD + int.from_bytes(rest[:3])
        frame, rest = rest[:size], rest[size:]
        number = int.from_bytes(frame[5:HEAD]) & 0x7FFFFFFF
        if number not in numbers or frame[3] not in _OF_REQUESTS:
            kept += frame
    return kept
