"""What one port answers, by path, and the guard before every answer."""

from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec
from msgspec import UNSET, UnsetType
from websockets.http11 import Request

from watcher.model.keys import Filter
from watcher.relay.http import head
from watcher.relay.http.auth import EVERYTHING, Guard
from watcher.relay.http.connection import HttpConnection
from watcher.relay.http.head import HttpAnswer, error, json_answer

STREAM = "/v1/stream"
BALANCES = "/v1/balances"
HISTORY = "/v1/history"
NOT_OURS = (
    "a relay without tokens answers to localhost and loopback addresses only: "
    "add the origin that you came by to [relay] origins, or set tokens"
)

NO_HINTS = "this token may not send hints: it needs hint = true in its [[token]] of the tokens file"

BODY_REFUSALS: Mapping[int, str] = {429: "rate", 503: "busy"}
"""The reasons that are counted, by the status of a refused body."""

Sees = Callable[[Filter, str], bool]
"""Whether somebody with these rights may know how the provider of that name is."""


def named(rights: Filter, provider: str) -> bool:
    return rights.provider is None or provider in rights.provider


class Readiness(msgspec.Struct, frozen=True):
    """Whether a process does its work, and which part does not. What is UNSET is not shown."""

    ready: bool = True
    journal: str | UnsetType = UNSET
    """`ok`, or what is wrong with it."""
    providers: Mapping[str, str] | UnsetType = UNSET
    """The same by provider."""
    webhooks: Mapping[str, str] | UnsetType = UNSET
    """The same by webhook. One that fails makes nothing unready: changes are committed and published without it."""


class MetricsText(msgspec.Struct, frozen=True):
    """What `/metrics` answers."""

    content_type: str
    body: bytes


class Status(msgspec.Struct, frozen=True):
    """What a process reports of itself; made once by the root, for the relay's port and for `metrics_port`."""

    metrics: Callable[[Filter, str], MetricsText]
    """As far as those rights go, in the format that this `Accept` asks for."""
    readiness: Callable[[], Readiness]
    sees: Sees = named
    following: Callable[[], bool] = lambda: True
    """Whether the log is followed; the relay puts its own here."""


class RoutedRequest(msgspec.Struct, frozen=True):
    """A request that has passed the guard."""

    connection: HttpConnection
    http: Request
    path: str
    query: str
    host: str
    presented: bool
    """It came with an `Authorization`."""
    rights: Filter | None
    """Of the token that came with it, all where none is asked for; None without a valid one."""
    sender: str
    """What hints that it brings are counted under; empty: under no name of their own."""
    body: bytes = b""


class Route(msgspec.Struct, frozen=True):
    """One path. `handle` gives None where the connection may become a stream."""

    handle: Callable[[RoutedRequest], Awaitable[HttpAnswer | None]]
    guarded: bool = False
    """It takes a token where tokens are set."""
    methods: tuple[str, ...] = ("GET", "HEAD")
    wrong_method: str = "only GET is answered here"
    hints: bool = False
    """It takes hints, which not every token may send."""
    body: int = 0
    """Most bytes of a request's body; 0: none is read."""


class HttpRoutes:
    """Every path of one port: those given, `/healthz`, `/readyz` and `/metrics`."""

    def __init__(
        self, routes: Mapping[str, Route], guard: Guard, status: Status, refused: Callable[[str], None] | None = None
    ) -> None:
        """`refused`: counts a request that was refused, by the reason."""
        self.guard = guard
        self._status = status
        self._refused = refused
        self._routes: Mapping[str, Route] = {
            "/healthz": Route(self._health),
            "/readyz": Route(self._readiness),
            "/metrics": Route(self._metrics, guarded=True),
            **routes,
        }
        self._unknown = Route(_nothing)

    async def answer(self, connection: HttpConnection, request: Request) -> HttpAnswer | None:
        """What a request gets; None lets it become a stream."""
        host = head.field(request.headers, "Host") or ""
        if not self.guard.answers_to(host):
            if self._refused is not None:
                self._refused("host")
            return error(403, "forbidden", NOT_OURS)
        path, _, _ = request.path.partition("?")
        route = self._routes.get(path, self._unknown)
        if request.method not in route.methods:
            return error(405, "bad_request", route.wrong_method, ("Allow", ", ".join(route.methods)))
        if route.body and (refused := self._foreign(request, host)) is not None:
            return refused
        presented = head.field(request.headers, "Authorization")
        if (refused := self._unauthorized(route, presented)) is not None:
            return refused
        sender = self.guard.digest(presented) or connection.address
        body = await connection.read_body(request, route.body, sender) if route.body else b""
        if isinstance(body, HttpAnswer):
            if body.status in BODY_REFUSALS and self._refused is not None:
                self._refused(BODY_REFUSALS[body.status])
            return body
        if (
            refused := self._unauthorized(route, presented)
        ) is not None:  # while the body came the token was taken away
            return refused
        return await route.handle(self._routed(connection, request, host, presented, body))

    def _routed(
        self, connection: HttpConnection, request: Request, host: str, presented: str | None, body: bytes
    ) -> RoutedRequest:
        path, _, query = request.path.partition("?")
        token = self.guard.find(presented)
        return RoutedRequest(
            connection,
            request,
            path,
            query,
            host,
            presented is not None,
            rights=None if token is None else token.rights,
            sender="" if token is None else token.sender,
            body=body,
        )

    def _unauthorized(self, route: Route, presented: str | None) -> HttpAnswer | None:
        """The refusal of who may not ask for that. `presented`: its `Authorization`."""
        if route.guarded and self.guard.rights(presented) is None:
            return error(401, "unauthorized", "send Authorization: Bearer TOKEN", ("WWW-Authenticate", "Bearer"))
        if route.hints and self.guard.may_hint(presented) is None:
            return error(403, "forbidden", NO_HINTS)
        return None

    def _foreign(self, request: Request, host: str) -> HttpAnswer | None:
        """The refusal of what a page of another origin sends: its browser asks nobody before a simple POST."""
        origin, site = (head.field(request.headers, name) for name in ("Origin", "Sec-Fetch-Site"))
        ours = self.guard.allows_origin(origin, host) if origin is not None else site in (None, "same-origin", "none")
        if ours:
            return None
        if self._refused is not None:
            self._refused("origin")
        return error(403, "forbidden", "pages of that origin may send nothing: see [relay] origins")

    async def _health(self, _: RoutedRequest) -> HttpAnswer:
        return HttpAnswer(200, head.JSON, b'{"status":"ok"}')

    async def _metrics(self, request: RoutedRequest) -> HttpAnswer:
        assert request.rights is not None
        accept = head.field(request.http.headers, "Accept") or ""
        text = self._status.metrics(request.rights, accept)
        return HttpAnswer(200, text.content_type, text.body, (("Vary", "Accept"),))

    async def _readiness(self, request: RoutedRequest) -> HttpAnswer:
        """Who shows no token learns which part is not ready; what is wrong with it may name accounts and hosts."""
        rights = request.rights if self.guard.asks_for_tokens else None
        found, following = self._status.readiness(), self._status.following()
        ready = found.ready and following
        shown: dict[str, object] = {"following": following}
        if found.journal is not UNSET:
            shown["journal"] = found.journal if rights == EVERYTHING else ok_or_failing([found.journal])
        if found.providers is not UNSET:
            shown["providers"] = self._shown_providers(found.providers, rights)
        if found.webhooks is not UNSET:
            shown["webhooks"] = found.webhooks if rights == EVERYTHING else ok_or_failing(found.webhooks.values())
        return json_answer(200 if ready else 503, {**shown, "ready": ready})

    def _shown_providers(self, providers: Mapping[str, str], rights: Filter | None) -> object:
        if rights == EVERYTHING:
            return providers
        if rights is None:
            return ok_or_failing(providers.values())
        # A provider's words may name any of its accounts.
        whole = (rights.chain, rights.account, rights.token) == (None, None, None)
        theirs = {name: words for name, words in providers.items() if self._status.sees(rights, name)}
        return theirs if whole else {name: ok_or_failing([words]) for name, words in theirs.items()}


def ok_or_failing(parts: Iterable[str]) -> str:
    return "ok" if all(part == "ok" for part in parts) else "failing"


async def _nothing(_: RoutedRequest) -> HttpAnswer:
    return error(404, "not_found", f"nothing here: the stream is at {STREAM}, the page at /")


async def _no_relay(_: RoutedRequest) -> HttpAnswer:
    return error(404, "not_found", "this process polls and has no relay: ask the one that has (--only relay)")


WITHOUT_RELAY: Mapping[str, Route] = {
    "/": Route(_no_relay),
    BALANCES: Route(_no_relay, guarded=True),
    HISTORY: Route(_no_relay, guarded=True),
    STREAM: Route(_no_relay),
}
"""For the port of a half that polls and has no stream."""
