"""The plain HTTP answers on the relay's port: the page, health, metrics and a look at the balances."""

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from importlib import resources
from urllib.parse import parse_qs

import anyio
import msgspec

from watcher.model import filters
from watcher.model.keys import Filter
from watcher.model.log import JournalError, Unavailable
from watcher.relay import wire
from watcher.relay.http.auth import EVERYTHING
from watcher.relay.read_budget import SnapshotPages, SnapshotReader

STREAM = "/v1/stream"
BALANCES = "/v1/balances"
GUARDED = ("/metrics", BALANCES)
"""Paths that need a token where tokens are set."""

JSON = "application/json"
PATIENCE = 20.0
"""Seconds that whoever asks for balances waits in line."""
INLINE = re.compile(rb"<(script|style)[^>]*>(.*?)</\1>", re.DOTALL)


class HttpAnswer(msgspec.Struct, frozen=True):
    """A body of several pieces is asked for the next one when the last was taken, and closed when nobody wants more."""

    status: int
    content_type: str
    body: bytes | AsyncIterator[bytes]
    headers: tuple[tuple[str, str], ...] = ()


def page() -> HttpAnswer:
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
    return HttpAnswer(200, "text/html; charset=utf-8", body, (("Content-Security-Policy", policy),))


def _sources(hashes: list[str]) -> str:
    return " ".join(hashes) or "'none'"


def error(status: int, code: str, message: str, *headers: tuple[str, str]) -> HttpAnswer:
    body = {"error": {"code": code, "message": message, "temporary": status == 503}}
    return HttpAnswer(status, JSON, wire.encode(body), headers)


def unavailable(problem: JournalError) -> HttpAnswer:
    return error(503, "internal", f"the journal does not answer: {problem}", ("Retry-After", "5"))


def _in_a_word(part: object) -> str:
    good = all(said == "ok" for said in part.values()) if isinstance(part, Mapping) else part == "ok"
    return "ok" if good else "failing"


Sees = Callable[[Filter, str], bool]
"""Whether somebody with these rights may know how the provider of that name is."""


def named(rights: Filter, provider: str) -> bool:
    return rights.provider is None or provider in rights.provider


class BalancesBody:
    """`{"cursor", "data": [rows]}`, a page at a time; nothing is opened before somebody asks for the first."""

    def __init__(self, snapshots: SnapshotReader, wanted: Filter) -> None:
        self._snapshots = snapshots
        self._wanted = wanted
        self._pages: SnapshotPages | None = None
        self._read = 0
        self._ended = False

    def __aiter__(self) -> "BalancesBody":
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

    async def _open(self) -> SnapshotPages:
        with anyio.move_on_after(PATIENCE):
            return await self._snapshots.open(self._wanted)
        raise Unavailable("too many ask for balances at once")

    async def aclose(self) -> None:
        self._ended = True
        if self._pages is not None:
            self._pages.close()


class HttpRoutes:
    """Answers by path."""

    def __init__(
        self,
        snapshots: SnapshotReader | None,
        metrics: Callable[[Filter], bytes],
        ready: Callable[[], Mapping[str, object]],
        *,
        guarded: bool,
        following: Callable[[], bool] = lambda: True,
        sees: Sees = named,
    ) -> None:
        """`snapshots`: None in a half that has no log. `metrics`: their text, as far as those rights go.

        `ready` gives the parts that `/readyz` shows, each `ok` or what is wrong with it, or that for each provider; its
        member `ready`, if it has one, decides the status. `guarded`: tokens are asked for.
        """
        self._snapshots = snapshots
        self._metrics = metrics
        self._ready = ready
        self._guarded = guarded
        self._following = following
        self._sees = sees
        self._page = page()

    async def answer(self, method: str, target: str, rights: Filter | None) -> HttpAnswer:
        """`rights`: of the token that came with the request, all where none is asked for; None without a valid one."""
        if method not in ("GET", "HEAD"):
            return error(405, "bad_request", "only GET is answered here", ("Allow", "GET, HEAD"))
        path, _, query = target.partition("?")
        if path in GUARDED and rights is None:
            return error(401, "unauthorized", "send Authorization: Bearer TOKEN", ("WWW-Authenticate", "Bearer"))
        if self._snapshots is None and path in ("/", BALANCES, STREAM):
            return error(404, "not_found", "this process polls and has no relay: ask the one that has (--only relay)")
        if path == BALANCES and self._snapshots is not None and rights is not None:
            return _balances(self._snapshots, query, rights)
        return self._look(path, rights)

    def _look(self, path: str, rights: Filter | None) -> HttpAnswer:
        if path == "/":
            return self._page
        if path == "/healthz":
            return HttpAnswer(200, JSON, b'{"status":"ok"}')
        if path == "/readyz":
            return self._readiness(rights if self._guarded else None)
        if path == "/metrics" and rights is not None:
            return HttpAnswer(200, "text/plain; version=0.0.4; charset=utf-8", self._metrics(rights))
        return error(404, "not_found", f"nothing here: the stream is at {STREAM}, the page at /")

    def _readiness(self, rights: Filter | None) -> HttpAnswer:
        """Who shows no token learns which part is not ready; what is wrong with it may name accounts and hosts."""
        told = dict(self._ready())
        good = bool(told.pop("ready", True)) and self._following()
        shown = {name: self._narrowed(part, rights) for name, part in told.items()}
        shown = {"following": self._following(), **shown, "ready": good}
        return HttpAnswer(200 if good else 503, JSON, wire.encode(shown))

    def _narrowed(self, part: object, rights: Filter | None) -> object:
        if rights == EVERYTHING:
            return part
        if rights is None or not isinstance(part, Mapping):
            return _in_a_word(part)
        # A provider's words may name any of its accounts.
        whole = (rights.chain, rights.account, rights.token) == (None, None, None)
        theirs = {name: said for name, said in part.items() if self._sees(rights, name)}
        return theirs if whole else {name: _in_a_word(said) for name, said in theirs.items()}


def _balances(snapshots: SnapshotReader, query: str, rights: Filter) -> HttpAnswer:
    try:
        asked = filters.parse(parse_qs(query, max_num_fields=2000))
    except ValueError as mistake:
        return error(400, "bad_request", str(mistake))
    if filters.size(asked) > 1024:
        return error(400, "filter_limit", "at most 1024 filter values")
    wanted = filters.intersect(asked, rights)
    if wanted is None:
        return error(403, "forbidden", "the token allows nothing of what the filter asks for")
    return HttpAnswer(200, JSON, BalancesBody(snapshots, wanted))
