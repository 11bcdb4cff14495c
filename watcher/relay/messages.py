"""Every message of the stream as a type: commands, results, pushes, errors, and why a connection is closed.

The one description of the protocol: the server answers with these, the client and `tail` read them, the page is tested
against them, and AsyncAPI is made of them. The order of fields is the order on the wire. A field that may be UNSET is
left out then; null is written where a value is None.
"""

from typing import Annotated, Any, Generic, Literal, TypeVar, get_args

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from watcher.model.alerts import Crossing
from watcher.model.events import BalanceChanged, HintsHealth, ProviderState, UnreadAlert
from watcher.model.keys import Filter, Kind
from watcher.model.log import GapReason
from watcher.model.readings import Unit

SUBPROTOCOL = "balances.v1.json"

Code = Literal[
    "bad_request",
    "unknown_method",
    "unauthorized",
    "forbidden",
    "bad_cursor",
    "unrecoverable_cursor",
    "not_found",
    "filter_limit",
    "subscription_limit",
    "rate_limited",
    "internal",
]
"""What is wrong, for programs. Answers over HTTP use the same words."""
AnyCode = Annotated[str, Meta(extra_json_schema={"enum": list(get_args(Code))})]
"""As a client reads it: a word that is new is no reason not to read on, since `temporary` has the rule."""
AnyGapReason = Annotated[str, Meta(extra_json_schema={"enum": list(get_args(GapReason))})]
"""As a client reads it: whatever the reason, the snapshot is as good."""
Delivery = Literal["all", "conflate"]
OnGap = Literal["snapshot", "error"]
AuthState = Literal["none", "required", "ok"]
AnyDelivery = Annotated[str, Meta(extra_json_schema={"enum": list(get_args(Delivery))})]
AnyAuthState = Annotated[str, Meta(extra_json_schema={"enum": list(get_args(AuthState))})]
"""As a client reads them: it goes by neither."""
AnyProviderState = Annotated[str, Meta(extra_json_schema={"enum": list(get_args(ProviderState))})]
"""As a client reads it: what is not `ok` is trouble, in the reason's words."""
Retry = Literal["never", "backing_off", "at_once"]
Id = Annotated[Raw, Meta(extra_json_schema={"type": ["integer", "string"]})]
"""A command's id in the client's own spelling, which comes back as it was."""


# Why a connection is closed.


class CloseReason(Struct, frozen=True):
    """A close frame: its code carries the rule for coming again, its reason is a word of the protocol."""

    code: int
    reason: str

    @property
    def retry(self) -> Retry:
        return retry_after(self.code)


def retry_after(code: int) -> Retry:
    """What a client does when its connection was closed with that code."""
    if 4000 <= code < 4100:
        return "never"
    return "at_once" if 4200 <= code < 4300 else "backing_off"


BINARY = CloseReason(1003, "bad_request")
SHUTDOWN = CloseReason(1012, "shutdown")
JOURNAL_AWAY = CloseReason(1012, "internal")
UNAUTHORIZED = CloseReason(4001, "unauthorized")
RATE_LIMITED = CloseReason(4101, "rate_limited")
AUTH_TIMEOUT = CloseReason(4102, "auth_timeout")
TOKEN_EXPIRED = CloseReason(4201, "token_expired")
SLOW_CONSUMER = CloseReason(4200, "slow_consumer")


# Parts.


class Error(Struct, frozen=True):
    """Why something was not done."""

    code: AnyCode
    message: str
    temporary: bool


class StreamLimits(Struct, frozen=True):
    """What a client may ask for."""

    message_bytes: int = 64 * 1024
    messages_per_second: int = 5
    burst: int = 20
    filter_values: int = 1024
    subscriptions: int = 32
    connections: int = 10_000


class BalanceRow(Struct, frozen=True):
    """One balance in a snapshot, and in an answer of `/v1/balances`. Version 0: it has never changed."""

    provider: str
    chain: str
    account: str
    token: str
    kind: Kind
    symbol: str | None
    amount: str
    unit: Unit
    decimals: int | None
    version: int
    slot: int | None
    as_of: str | None
    observed_at: str
    label: str | None
    """What the config calls it; None: nothing."""
    tags: tuple[str, ...]
    watched: bool
    """False: by the relay's config nobody reads it any more."""


class ProviderStatus(Struct, frozen=True):
    """How a provider fares."""

    last_success: str | None
    paused_until: str | None
    budget_used: float
    """0..1 of the binding limit."""
    state: AnyProviderState
    reason: str | None
    """Why, in our words; at most 200 characters. None: it is `ok`."""
    since: str | None
    """Since when it is in that state, or nothing is heard of it."""
    hints: HintsHealth | None = None
    """What hints do for it. None: nothing, or nothing is heard of it."""
    unread: tuple[UnreadAlert, ...] | UnsetType = UNSET
    """Alerts on balances that are not read. Left out where there are none, or where the token does not see all of the provider."""


class SubscriptionInfo(Struct, frozen=True):
    """A subscription that stands."""

    subscription_id: str
    filter: Filter
    delivery: Delivery
    crossed: bool | UnsetType = UNSET
    """True: it gets crossings too."""


# Pushes: what has no id and has a type.


class Push(Struct, frozen=True, kw_only=True, tag_field="type"):
    """Anything the relay says by itself."""


class Welcome(Push, frozen=True, kw_only=True, tag="welcome"):
    """The first message of every connection."""

    connection_id: str
    server_time: str
    heartbeat_ms: int
    epoch: str
    head: str
    """Where the log ends. No place to resume from: nothing before it was sent."""
    oldest_cursor: str
    auth: AnyAuthState
    limits: StreamLimits


class SnapshotPage(Push, frozen=True, kw_only=True, tag="snapshot"):
    """A page of the state at one cursor: at most 500 balances, each page with the same cursor."""

    subscription_id: str
    cursor: str
    page: int
    last: bool
    reason: AnyGapReason | UnsetType = UNSET
    """In page 1 of a snapshot that comes unasked."""
    data: list[BalanceRow]


class Update(Push, frozen=True, kw_only=True, tag="update"):
    """One change, and the cursor that resumes behind it."""

    # The server never builds one: the event's bytes go out unopened (`wire.event`).

    cursor: str
    label: str | UnsetType = UNSET
    """What the config calls the balance now."""
    event: BalanceChanged


class Crossed(Push, frozen=True, kw_only=True, tag="crossed"):
    """An alert fired on a balance, or cleared, and the cursor that resumes behind that. For whoever subscribed with `crossed`."""

    cursor: str
    label: str | UnsetType = UNSET
    """What the config calls the balance now."""
    event: Crossing


class Heartbeat(Push, frozen=True, kw_only=True, tag="heartbeat"):
    """Every 15 s from authorization on, whatever the traffic: its silence is a dead connection."""

    cursor: str | UnsetType = UNSET
    """Everything that matches before it was sent. Left out while no subscription stands."""
    sent: int
    conflated: int
    lag_ms: int
    time: str
    providers: dict[str, ProviderStatus]


class Lagging(Push, frozen=True, kw_only=True, tag="lagging"):
    """The client reads too slowly: from now on the relay reads the log for it, and nothing is lost."""

    cursor: str


class Live(Push, frozen=True, kw_only=True, tag="live"):
    """The client has caught up."""

    cursor: str


class Shutdown(Push, frozen=True, kw_only=True, tag="shutdown"):
    """The relay ends: the connection is closed with 1012 next."""

    reconnect_after_ms: int


class ErrorPush(Push, frozen=True, kw_only=True, tag="error"):
    """A message without a usable id was wrong, or a subscription has ended."""

    code: AnyCode
    message: str
    temporary: bool


AnyPush = Welcome | SnapshotPage | Update | Crossed | Heartbeat | Lagging | Live | Shutdown | ErrorPush
PUSHES: dict[str, type[Push]] = {
    str(each.__struct_config__.tag): each
    for each in (Welcome, SnapshotPage, Update, Crossed, Heartbeat, Lagging, Live, Shutdown, ErrorPush)
}


# Commands and their results.


class AuthParams(Struct, frozen=True):
    """A token, where the upgrade had none; later, one in the place of the former."""

    token: str


class SubscribeParams(Struct, frozen=True, kw_only=True):
    """Changes from now on, after a snapshot if that is wished; with a cursor, from there on."""

    filter: Filter = Filter()
    delivery: Delivery = "all"
    snapshot: bool = True
    cursor: str | UnsetType = UNSET
    on_gap: OnGap | UnsetType = UNSET
    interval_ms: Annotated[int, Meta(ge=0, le=60_000)] | UnsetType = UNSET
    crossed: bool | UnsetType = UNSET


class UnsubscribeParams(Struct, frozen=True):
    """The end of a subscription: nothing comes for it after the result."""

    subscription_id: str


class NoParams(Struct, frozen=True):
    """Nothing."""


class AuthResult(Struct, frozen=True):
    """What the connection may do now."""

    auth: AnyAuthState


class SubscribeResult(Struct, frozen=True, kw_only=True):
    """Where the data begins; always before the first of it."""

    subscription_id: str
    filter: Filter
    recovered: bool
    cursor: str
    snapshot_rows: int
    delivery: AnyDelivery
    matches: bool
    """False: no balance of the state, and no watch of the relay's config, matches the filter now."""
    note: str | UnsetType = UNSET
    """Where nothing matches: what of the filter is not known, and what is nearest."""
    reason: AnyGapReason | UnsetType = UNSET
    crossed: bool | UnsetType = UNSET
    """True: crossings come too. A relay that knows of none leaves it out, as it does where nobody asked."""


class UnsubscribeResult(Struct, frozen=True):
    """The subscription that has ended."""

    subscription_id: str


class ListResult(Struct, frozen=True):
    """Of this connection."""

    subscriptions: list[SubscriptionInfo]


class PingResult(Struct, frozen=True):
    """The relay answers."""

    time: str


Params = TypeVar("Params", bound=Struct)
Result = TypeVar("Result", bound=Struct)


class Command(Struct, Generic[Params], frozen=True):
    """What a client asks for; the reply repeats its id."""

    # The server takes a command apart piece by piece (`commands.py`), so that each mistake gets its words.

    id: int | str
    method: str
    params: Params


class Reply(Struct, Generic[Result], frozen=True):
    """A command was done."""

    id: Id
    result: Result


class ErrorReply(Struct, frozen=True):
    """A command was not done."""

    id: Id
    error: Error


class Method(Struct, frozen=True):
    """What a command takes and what it gives."""

    command: Any
    reply: Any


METHODS: dict[str, Method] = {
    "auth": Method(Command[AuthParams], Reply[AuthResult]),
    "subscribe": Method(Command[SubscribeParams], Reply[SubscribeResult]),
    "unsubscribe": Method(Command[UnsubscribeParams], Reply[UnsubscribeResult]),
    "list_subscriptions": Method(Command[NoParams], Reply[ListResult]),
    "ping": Method(Command[NoParams], Reply[PingResult]),
}
