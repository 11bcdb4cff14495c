"""The plain HTTP answers on the relay's port: the page, health, metrics and a look at the balances."""

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from importlib import resources
from urllib.parse import parse_qs

import anyio
import msgspec

from watcher.events import Filter, JournalError, Unavailable
from watcher.relay import filters, wire
from watcher.relay.share import Pages, Snapshots

STREAM = "/v1/stream"
GUARDED = ("/metrics", "/v1/balances")
"""Paths that need a token where tokens are set."""

JSON = "application/json"
PATIENCE = 20.0
"""Seconds that whoever asks for balances waits in line."""
INLINE = re.compile(rb"<(script|style)[^>]*>(.*?)</\1>", re.DOTALL)


class Answer(msgspec.Struct, frozen=True):
    """A body of several pieces is asked for the next one when the last was taken, and closed when nobody wants more."""

    status: int
    content_type: str
    body: bytes | AsyncIterator[bytes]
    headers: tuple[tuple[str, str], ...] = ()


def page() -> Answer:
    """The live page. It may run its own script, wear its own style and talk to where it came from; nothing else."""
    body = resources.files("watcher.relay").joinpath("page.html").read_bytes()
    allowed: dict[bytes, list[str]] = {b"script": [], b"style": []}
    for kind, text in INLINE.findall(body):
        allowed[kind].append(f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'")
    policy = (
        f"default-src 'none'; script-src {_sources(allowed[b'script'])}; style-src {_sources(allowed[b'style'])}; "
        "connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Answer(200, "text/html; charset=utf-8", body, (("Content-Security-Policy", policy),))


def _sources(hashes: list[str]) -> str:
    return " ".join(hashes) or "'none'"


def error(status: int, code: str, message: str, *headers: tuple[str, str]) -> Answer:
    body = {"error": {"code": code, "message": message, "temporary": status == 503}}
    return Answer(status, JSON, wire.encode(body), headers)


def unavailable(problem: JournalError) -> Answer:
    return error(503, "internal", f"the journal does not answer: {problem}", ("Retry-After", "5"))


class Body:
    """`{"cursor", "data": [rows]}`, a page at a time; nothing is opened before somebody asks for the first."""

    def __init__(self, snapshots: Snapshots, wanted: Filter) -> None:
        self._snapshots = snapshots
        self._wanted = wanted
        self._pages: Pages | None = None
        self._read = 0
        self._ended = False

    def __aiter__(self) -> "Body":
        return self

    async def __anext__(self) -> bytes:
        """Raises JournalError, where it cannot begin and where it is broken off."""
        if self._ended:
            raise StopAsyncIteration
        before = b","
        if self._pages is None:
            self._pages = await self._open()
            before = b'{"cursor":%b,"data":[' % wire.encode(str(self._pages.cursor))
        async with self._pages.page() as states:
            self._read += len(states)
            self._ended = self._read >= self._pages.rows or not states
            rows = wire.encode(wire.rows(states))[1:-1]
        return before + rows + (b"]}" if self._ended else b"")

    async def _open(self) -> Pages:
        with anyio.move_on_after(PATIENCE):
            return await self._snapshots.open(self._wanted)
        raise Unavailable("too many ask for balances at once")

    async def aclose(self) -> None:
        self._ended = True
        if self._pages is not None:
            self._pages.close()


class Plain:
    """Answers by path. `ready` gives what `/readyz` shows; its member `ready`, if it has one, decides the status."""

    def __init__(
        self,
        snapshots: Snapshots,
        metrics: Callable[[], bytes],
        ready: Callable[[], Mapping[str, object]],
        following: Callable[[], bool],
    ) -> None:
        self._snapshots = snapshots
        self._metrics = metrics
        self._ready = ready
        self._following = following
        self._page = page()

    async def answer(self, method: str, target: str, rights: Filter | None) -> Answer:
        """`rights`: of the token that came with the request; None without a valid one."""
        if method not in ("GET", "HEAD"):
            return error(405, "bad_request", "only GET is answered here", ("Allow", "GET, HEAD"))
        path, _, query = target.partition("?")
        if path in GUARDED and rights is None:
            return error(401, "unauthorized", "send Authorization: Bearer TOKEN", ("WWW-Authenticate", "Bearer"))
        if path == "/v1/balances" and rights is not None:
            return self._balances(query, rights)
        return self._look(path)

    def _look(self, path: str) -> Answer:
        if path == "/":
            return self._page
        if path == "/healthz":
            return Answer(200, JSON, b'{"status":"ok"}')
        if path == "/readyz":
            shown = {"following": self._following(), **self._ready()}
            shown["ready"] = good = bool(shown.get("ready", True)) and self._following()
            return Answer(200 if good else 503, JSON, wire.encode(shown))
        if path == "/metrics":
            return Answer(200, "text/plain; version=0.0.4; charset=utf-8", self._metrics())
        return error(404, "not_found", f"nothing here: the stream is at {STREAM}, the page at /")

    def _balances(self, query: str, rights: Filter) -> Answer:
        try:
            asked = filters.parse(parse_qs(query, max_num_fields=2000))
        except ValueError as mistake:
            return error(400, "bad_request", str(mistake))
        if filters.size(asked) > 1024:
            return error(400, "filter_limit", "at most 1024 filter values")
        wanted = filters.intersect(asked, rights)
        if wanted is None:
            return error(403, "forbidden", "the token allows nothing of what the filter asks for")
        return Answer(200, JSON, Body(self._snapshots, wanted))
