"""One connection's conversation: commands in, answers and things to do out. Never awaits, never reads a clock.

`Session.receive` takes one text message and returns actions in the order in which they are to be done. What needs the
journal comes back as a `Subscribe`; whoever did it reports with `opened` or `failed`, which give the answer to send.
"""

import msgspec

from watcher.model import filters
from watcher.model.keys import Filter
from watcher.model.log import Bounds, Cursor
from watcher.model.times import format_rfc3339
from watcher.relay import commands, wire
from watcher.relay.commands import CommandRefused, Params
from watcher.relay.http.auth import EVERYTHING, Tokens
from watcher.relay.settings import REFUSALS, ROWS, ROWS_PER_SECOND, RelayTuning, StreamLimits
from watcher.relay.subscription import Subscription
from watcher.relay.token_bucket import TokenBucket

UNAUTHORIZED = 4001
RATE_LIMITED = 4101
AUTH_TIMEOUT = 4102
SLOW_CONSUMER = 4200
GOING_AWAY = 1012
BINARY = 1003


class Send(msgspec.Struct, frozen=True):
    reply: wire.ControlFrame


class Close(msgspec.Struct, frozen=True):
    code: int
    reason: str


class Subscribe(msgspec.Struct, frozen=True):
    """Open the subscription at its cursor, or at the head, or with a snapshot."""

    id: bytes
    subscription: Subscription
    cursor: Cursor | None
    snapshot: bool


class Changed(msgspec.Struct, frozen=True):
    """A subscription matches less than before, or has ended."""

    subscription: Subscription


class Authorized(msgspec.Struct, frozen=True):
    """From now on the connection may ask, and is told that it lives."""


Action = Send | Close | Subscribe | Changed | Authorized


class Session:
    """Commands, rights, rate and limits of one connection."""

    __slots__ = (
        "_allowance",
        "_count",
        "_limits",
        "_now",
        "_refusals",
        "_rows",
        "_tokens",
        "_wall",
        "auth",
        "rights",
        "subscriptions",
    )

    def __init__(self, tokens: Tokens | None, rights: Filter | None, limits: StreamLimits, now: float) -> None:
        """`rights`: those of the token in the upgrade request, if it had one. `now`: monotonic seconds."""
        self._tokens = tokens
        self._limits = limits
        self._allowance = float(limits.burst)
        self._now = now
        self._wall = 0
        self._refusals = 0
        self._rows = TokenBucket(ROWS, ROWS_PER_SECOND)
        self._count = 0
        self.auth = "none" if tokens is None else "required" if rights is None else "ok"
        self.rights = EVERYTHING if tokens is None else rights
        """None until the connection is authorized."""
        self.subscriptions: dict[str, Subscription] = {}

    def welcome(self, connection_id: str, bounds: Bounds, wall: int, pace: RelayTuning) -> wire.ControlFrame:
        return wire.ControlFrame(
            wire.push(
                "welcome",
                connection_id=connection_id,
                server_time=format_rfc3339(wall),
                heartbeat_ms=round(pace.heartbeat * 1000),
                epoch=bounds.head.epoch,
                cursor=str(bounds.head),
                oldest_cursor=str(bounds.oldest),
                auth=self.auth,
                limits=self._limits,
            )
        )

    def receive(self, message: str | bytes, now: float, wall: int) -> list[Action]:
        """One data message. `now`: monotonic seconds, `wall`: microseconds."""
        if isinstance(message, bytes):
            return [Close(BINARY, "bad_request")]
        self._wall = wall
        if not self._admit(now):
            return self._refuse_rate(message)
        id_ = None
        try:
            fields = commands.fields(message)
            id_ = commands.id_of(fields)
            return self._command(id_, commands.method_of(fields), commands.params_of(fields))
        except CommandRefused as error:
            return [Send(wire.refusal(id_, error.code, str(error), temporary=error.code == "rate_limited"))]

    def charge(self, rows: int, now: float) -> None:
        """So many balances and events were asked for; `now`: monotonic seconds."""
        self._rows.take(rows, now)

    def _admit(self, now: float) -> bool:
        earned = (now - self._now) * self._limits.messages_per_second
        self._now = now
        self._allowance = min(self._limits.burst, self._allowance + earned)
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

    def _refuse_rate(self, message: str) -> list[Action]:
        self._refusals += 1
        try:
            id_: bytes | None = commands.id_of(commands.fields(message))
        except CommandRefused:
            id_ = None
        text = f"at most {self._limits.messages_per_second} messages a second after a burst of {self._limits.burst}"
        answer = Send(wire.refusal(id_, "rate_limited", text, temporary=True))
        return [answer] if self._refusals < REFUSALS else [answer, Close(RATE_LIMITED, "rate_limited")]

    def _command(self, id_: bytes, method: str, params: Params) -> list[Action]:
        if method == "auth":
            return self._auth(id_, params)
        if self.rights is None:
            answer = wire.refusal(id_, "unauthorized", "send auth with a token first")
            return [Send(answer), Close(UNAUTHORIZED, "unauthorized")]
        if method == "subscribe":
            return [self._subscribe(id_, params)]
        if method == "unsubscribe":
            return self._unsubscribe(id_, params)
        if method == "list_subscriptions":
            listed = [_listed(each) for each in self.subscriptions.values() if each.opened]
            return [Send(wire.answer(id_, {"subscriptions": listed}))]
        if method == "ping":
            return [Send(wire.answer(id_, {"time": format_rfc3339(self._wall)}))]
        known = "auth, subscribe, unsubscribe, list_subscriptions, ping"
        raise CommandRefused("unknown_method", f"no method {method[:40]!r}: the methods are {known}")

    def _auth(self, id_: bytes, params: Params) -> list[Action]:
        token = params.get("token")
        if not isinstance(token, str):
            raise CommandRefused("bad_request", "auth takes token, a string")
        if self._tokens is None:
            return [Send(wire.answer(id_, {"auth": "none"}))]
        rights = self._tokens.rights(token.encode(errors="surrogatepass"))
        if rights is None:
            answer = Send(wire.refusal(id_, "unauthorized", "not a token of this relay"))
            return [answer] if self.rights is not None else [answer, Close(UNAUTHORIZED, "unauthorized")]
        first, self.rights, self.auth = self.rights is None, rights, "ok"
        answer = Send(wire.answer(id_, {"auth": "ok"}))
        return [Authorized(), answer] if first else [*self._narrow(rights), answer]

    def _narrow(self, rights: Filter) -> list[Action]:
        """A refreshed token may allow less. It never widens what runs: that would leave gaps behind."""
        actions: list[Action] = []
        for subscription in list(self.subscriptions.values()):
            allowed = filters.intersect(subscription.wanted, rights)
            if allowed == subscription.wanted:
                continue
            if allowed is None:
                del self.subscriptions[subscription.id]
            else:
                subscription.narrow(allowed)
            actions.append(Changed(subscription))
            if allowed is None and subscription.opened:
                text = f"subscription {subscription.id} ended: the new token allows nothing of it"
                actions.append(Send(wire.refusal(None, "forbidden", text)))
        return actions

    def _subscribe(self, id_: bytes, params: Params) -> Subscribe:
        assert self.rights is not None
        try:
            asked = filters.parse(params.get("filter", {}))
        except filters.FilterError as error:
            raise CommandRefused("bad_request", str(error)) from None
        conflate = commands.choice(params, "delivery", ("all", "conflate")) == "conflate"
        strict = commands.choice(params, "on_gap", ("snapshot", "error")) == "error"
        snapshot = params.get("snapshot", True)
        if not isinstance(snapshot, bool):
            raise CommandRefused("bad_request", "snapshot is true or false")
        interval = commands.interval(params)
        cursor = commands.cursor(params)
        values = filters.size(asked)
        self._check_limits(values)
        if (snapshot or cursor is not None) and self._rows.left(self._now) < 0:
            text = f"at most {ROWS_PER_SECOND} balances and events a second by snapshots and old cursors, after {ROWS} at once"
            raise CommandRefused("rate_limited", text)
        allowed = filters.intersect(asked, self.rights)
        if allowed is None:
            raise CommandRefused("forbidden", "the token allows nothing of what the filter asks for")
        self._count += 1
        subscription = Subscription(
            str(self._count), allowed, values, conflate=conflate, interval_seconds=interval / 1000, without_gaps=strict
        )
        self.subscriptions[subscription.id] = subscription
        return Subscribe(id_, subscription, cursor, snapshot)

    def _check_limits(self, values: int) -> None:
        if len(self.subscriptions) >= self._limits.subscriptions:
            raise CommandRefused(
                "subscription_limit", f"at most {self._limits.subscriptions} subscriptions a connection"
            )
        if sum(each.filter_values for each in self.subscriptions.values()) + values > self._limits.filter_values:
            text = f"at most {self._limits.filter_values} filter values over all subscriptions of a connection"
            raise CommandRefused("filter_limit", text)

    def _unsubscribe(self, id_: bytes, params: Params) -> list[Action]:
        name = params.get("subscription_id")
        if not isinstance(name, str):
            raise CommandRefused("bad_request", "unsubscribe takes subscription_id, a string")
        subscription = self.subscriptions.get(name)
        if subscription is None or not subscription.opened:
            raise CommandRefused("not_found", f"no subscription {name[:40]!r} on this connection")
        del self.subscriptions[name]
        return [Changed(subscription), Send(wire.answer(id_, {"subscription_id": name}))]

    def opened(
        self, asked: Subscribe, cursor: Cursor, *, recovered: bool, rows: int, reason: str | None
    ) -> wire.ControlFrame:
        """The subscription stands; its data begins at `cursor`."""
        subscription = asked.subscription
        subscription.open()
        result = {
            "subscription_id": subscription.id,
            "filter": wire.shown(subscription.wanted),
            "recovered": recovered,
            "cursor": str(cursor),
            "snapshot_rows": rows,
            "delivery": subscription.delivery,
        }
        return wire.answer(asked.id, result if reason is None else {**result, "reason": reason})

    def end_strict(self, reason: str) -> list[wire.ControlFrame]:
        """The log cannot be read on: end what asked for an error then; the pushes that say so."""
        ended = [each for each in self.subscriptions.values() if each.opened and each.without_gaps]
        for subscription in ended:
            del self.subscriptions[subscription.id]
        text = "subscription {} ended: the log cannot be read on: {}"
        return [wire.refusal(None, "unrecoverable_cursor", text.format(each.id, reason)) for each in ended]

    def failed(self, asked: Subscribe, code: str, message: str) -> wire.ControlFrame:
        self.subscriptions.pop(asked.subscription.id, None)
        return wire.refusal(asked.id, code, message, temporary=code == "internal")


def _listed(subscription: Subscription) -> dict[str, object]:
    return {
        "subscription_id": subscription.id,
        "filter": wire.shown(subscription.wanted),
        "delivery": subscription.delivery,
    }
