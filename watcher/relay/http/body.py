"""The bodies of HTTP/1.x requests: bytes in, in whatever pieces; the body or the right refusal out. Pure.

What two readers of one request could understand differently is refused: a proxy in front of us might take the rest of
a body for a request of somebody else.
"""

import math
import re
from typing import NamedTuple

from websockets.http11 import Request

from watcher.relay.http.head import HttpAnswer, error, field

CHUNK_LINE = 256
"""Bytes of the line before a chunk, or of one behind the last, its end included."""
FRAMING = 16 * 1024
"""Bytes that may stand around the chunks beyond an eighth of what they hold: small chunks cost us more than their sender."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_LENGTH = re.compile(r"[0-9]+")
_SIZE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")

BOTH = "a body has Content-Length or Transfer-Encoding, not both"
WRONG_LENGTH = "Content-Length is one decimal number"
WRONG_CHUNKS = "the chunks of the body make no sense, or are too small"
SHORT = "the body ends before its end has come"


def too_long(most: int) -> HttpAnswer:
    return error(413, "bad_request", f"a body has at most {most} bytes here")


def too_fast(seconds: float) -> HttpAnswer:
    """`seconds`: until the next may come."""
    return error(
        429, "rate_limited", "too many bytes a second: come back later", ("Retry-After", str(math.ceil(seconds)))
    )


class Framing(NamedTuple):
    """How the end of a body is found."""

    length: int | None
    """In bytes; None: it comes in chunks."""


def framing(request: Request) -> Framing | HttpAnswer:
    """That of a request's body, or the refusal."""
    codings, lengths = (request.headers.get_all(name) for name in ("Transfer-Encoding", "Content-Length"))
    if codings and lengths:
        return error(400, "bad_request", BOTH)
    if codings:
        return _chunked([coding.strip().lower() for value in codings for coding in value.split(",")], request.protocol)
    if not lengths:
        return Framing(0)
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        return error(400, "bad_request", WRONG_LENGTH)
    digits = lengths[0].lstrip("0")
    return Framing(int(digits[:19] or "0"))  # so many are too many anywhere; thousands of digits Python would not read


def _chunked(codings: list[str], protocol: str) -> Framing | HttpAnswer:
    if protocol != "HTTP/1.1" or codings[-1] != "chunked" or "chunked" in codings[:-1]:
        return error(400, "bad_request", "Transfer-Encoding makes no sense")
    if len(codings) > 1:
        return error(501, "bad_request", "no transfer coding but chunked is understood")
    return Framing(None)


def expects_continue(request: Request) -> bool:
    """Whether the sender waits for our word before it sends the body."""
    expected = field(request.headers, "Expect") or ""
    return request.protocol == "HTTP/1.1" and expected.strip().lower() == "100-continue"


class BodyReader:
    """One body as it comes. What follows it is left alone: a connection has one request."""

    def __init__(self, framing: Framing, most: int) -> None:
        """`most`: bytes."""
        self.end: bytes | HttpAnswer | None = None
        """The whole body, or why it is refused; None: it is still coming."""
        self.came = 0
        """Bytes of it, also where they were given back since."""
        self._most = most
        self._body = bytearray()
        self._left = framing.length or 0
        """Bytes of the body, or of its chunk, that have not come."""
        self._chunks = None if framing.length is not None else _ChunkLines()
        if self._left > most:
            self.refuse(too_long(most))
        elif framing.length == 0:
            self.end = b""

    @property
    def held(self) -> int:
        """Bytes in memory."""
        return len(self.end) if isinstance(self.end, bytes) else len(self._body)

    def receive(self, data: bytes) -> None:
        """The next bytes."""
        at = 0
        while self.end is None and at < len(data):
            if self._left:
                at += self._take(data[at : at + self._left])
            elif self._chunks is not None:
                at = self._take_line(self._chunks, data, at)

    def refuse(self, answer: HttpAnswer) -> None:
        """Nothing of it is of use any more."""
        self.end = answer
        self._body = bytearray()

    def _take(self, taken: bytes) -> int:
        self._body += taken
        self.came += len(taken)
        self._left -= len(taken)
        if self._chunks is None and not self._left:
            self._whole()
        return len(taken)

    def _take_line(self, chunks: "_ChunkLines", data: bytes, at: int) -> int:
        """What stands between the bytes of two chunks, up to the end of a line; where that is."""
        line, at = chunks.next(data, at)
        size = 0 if line is None else chunks.read(line)
        if size is None or chunks.hopeless(len(self._body)):
            self.refuse(error(400, "bad_request", WRONG_CHUNKS))
        elif len(self._body) + size > self._most:
            self.refuse(too_long(self._most))
        elif chunks.ended:
            self._whole()
        else:
            self._left = size
        return at

    def _whole(self) -> None:
        self.end, self._body = bytes(self._body), bytearray()


class _ChunkLines:
    """The lines around the chunks of a body: before each its size, behind each an empty one, and the trailer."""

    def __init__(self) -> None:
        self.ended = False
        """The last line has come."""
        self._begun = bytearray()
        """Of a line whose end has not come."""
        self._framing = 0
        self._read = self._size

    def next(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """The line that ends next in these bytes, and where to go on."""
        end = data.find(b"\n", at, at + CHUNK_LINE) + 1 or min(len(data), at + CHUNK_LINE)
        self._begun += data[at:end]
        self._framing += end - at
        if not self._begun.endswith(b"\n"):
            return None, end
        line, self._begun = bytes(self._begun), bytearray()
        return line, end

    def read(self, line: bytes) -> int | None:
        """How many bytes of a chunk follow it; None: it makes no sense."""
        if len(line) > CHUNK_LINE or not line.endswith(b"\r\n"):
            return None
        return self._read(line[:-2])

    def hopeless(self, body: int) -> bool:
        """Whether no end can mend it, with so many bytes in chunks."""
        return len(self._begun) >= CHUNK_LINE or self._framing > FRAMING + body // 8

    def _size(self, line: bytes) -> int | None:
        found = _SIZE.fullmatch(line)
        if found is None:
            return None
        size = int(found[1], 16)
        self._read = self._end if size else self._trailer
        return size

    def _end(self, line: bytes) -> int | None:
        self._read = self._size
        return None if line else 0

    def _trailer(self, line: bytes) -> int | None:
        self.ended = not line
        return 0 if not line or _TRAILER.fullmatch(line) else None
