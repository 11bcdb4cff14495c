"""The heads of HTTP/1.x: bytes in, a request or the right refusal out; and the answer, as bytes. Pure.

websockets reads heads too, and closes without an answer on everything that cannot become a websocket: other methods
with a body, other protocols, a line that makes no sense. Here each gets its answer. A request that does become one is
checked by the same rules and then given to websockets as it came.
"""

import http
import re
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import msgspec
from websockets.datastructures import Headers, MultipleValuesError
from websockets.http11 import Request, Response

from watcher.model.log import JournalError
from watcher.relay.messages import Code, Error

MOST = 16 * 1024
"""Bytes of a head."""
LINE = 8 * 1024
"""Bytes of one line, its end included."""
FIELDS = 128
JSON = "application/json"

METHOD = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]{1,32}")
NAME = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
BODY = ("Content-Length", "Transfer-Encoding")


class HttpAnswer(msgspec.Struct, frozen=True):
    """A body of several pieces is asked for the next one when the last was taken, and closed when nobody wants more."""

    status: int
    content_type: str
    body: bytes | AsyncIterator[bytes]
    headers: tuple[tuple[str, str], ...] = ()


class NotBegun(Exception):
    """Raised by a body of several pieces before the first one: what is answered in its place."""

    def __init__(self, answer: HttpAnswer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def json_answer(status: int, body: object, *headers: tuple[str, str]) -> HttpAnswer:
    return HttpAnswer(status, JSON, msgspec.json.encode(body), headers)


class ErrorBody(msgspec.Struct, frozen=True):
    """The JSON of every answer that is an error."""

    error: Error


def error(status: int, code: Code, message: str, *headers: tuple[str, str]) -> HttpAnswer:
    return json_answer(status, ErrorBody(Error(code, message, temporary=status in (429, 503))), *headers)


def unavailable(problem: JournalError) -> HttpAnswer:
    return error(503, "internal", f"the journal does not answer: {problem}", ("Retry-After", "5"))


def answer_head(answer: HttpAnswer, *, length: int | None = None, chunked: bool = False) -> bytes:
    """`length`: of the body, in bytes, if it is known; otherwise it comes `chunked`, or ends with the connection."""
    headers = Headers({"Content-Type": answer.content_type})
    if length is not None:
        headers["Content-Length"] = str(length)
    elif chunked:
        headers["Transfer-Encoding"] = "chunked"
    headers.update(
        {
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Connection": "close",
            **dict(answer.headers),
        }
    )
    return Response(answer.status, http.HTTPStatus(answer.status).phrase, headers).serialize()


def field(headers: Headers, name: str) -> str | None:
    """A field of the head, None without it. One that is there twice is as good as a wrong one: empty."""
    try:
        return headers.get(name)
    except MultipleValuesError:
        return ""


def size(received: bytes | bytearray) -> int | None:
    """How many of these bytes are the head; None while its end has not come."""
    end = received.find(b"\r\n\r\n")
    return None if end < 0 else end + 4


def hopeless(received: bytes | bytearray) -> HttpAnswer | None:
    """The refusal of a head whose end has not come, where no end can mend it."""
    line, end, _ = received.partition(b"\n")
    if not METHOD.fullmatch(line[:33].partition(b" ")[0]):
        return error(400, "bad_request", "this port speaks HTTP/1.1")
    if len(line) >= LINE:
        return error(414, "bad_request", f"a request line has at most {LINE} bytes")
    if end and (refused := _line(bytes(line)[:-1] if line.endswith(b"\r") else b"")):
        return refused
    return (
        error(431, "bad_request", f"the head of a request has at most {MOST} bytes") if len(received) > MOST else None
    )


def parse(head: bytes) -> Request | HttpAnswer:
    """A whole head. A target in absolute form becomes its path, and its authority the Host, as RFC 9112 has it."""
    if len(head) > MOST:
        return error(431, "bad_request", f"the head of a request has at most {MOST} bytes")
    line, *fields = head[:-4].split(b"\r\n")
    if len(line) + 2 > LINE:
        return error(414, "bad_request", f"a request line has at most {LINE} bytes")
    if refused := _line(line):
        return refused
    if len(fields) > FIELDS or any(len(field) + 2 > LINE for field in fields):
        return error(431, "bad_request", f"at most {FIELDS} fields of {LINE} bytes")
    headers = Headers()
    for field in fields:
        name, colon, value = field.partition(b":")
        value = value.strip(b" \t")
        if not (colon and NAME.fullmatch(name) and VALUE.fullmatch(value)):
            return error(400, "bad_request", "a header field makes no sense")
        headers[name.decode("ascii")] = value.decode("latin-1")
    method, target, protocol = line.decode("ascii").split(" ")
    if target.lower().startswith(("http://", "https://")):
        try:
            url = urlsplit(target)
        except ValueError:
            return error(400, "bad_request", "the target of the request makes no sense")
        if "Host" in headers:  # any number of them: `pop` has no answer to two
            del headers["Host"]
        headers["Host"] = url.netloc
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    return Request(target, headers, method, protocol)


def _line(line: bytes) -> HttpAnswer | None:
    parts = line.split(b" ")
    if len(parts) != 3 or not all(parts) or not line.isascii() or not METHOD.fullmatch(parts[0]):
        return error(400, "bad_request", "the request line makes no sense")
    if parts[2] in (b"HTTP/1.1", b"HTTP/1.0"):
        return None
    if re.fullmatch(rb"HTTP/\d\.\d", parts[2]):
        return error(505, "bad_request", "this port speaks HTTP/1.1")
    return error(400, "bad_request", "the request line makes no sense")


def has_body(request: Request) -> bool:
    return any(value != "0" for name in BODY for value in request.headers.get_all(name))
