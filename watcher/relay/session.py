"""One connection's conversation: commands in, replies and things to do out. Never awaits, never reads a clock.

`Session.receive` takes one text message and returns actions in the order in which they are to be done. What needs the
journal comes back as an `OpenSubscription`; whoever did it reports with `subscribed` or `not_subscribed`, which give
the reply to send.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar

import msgspec
from msgspec import UNSET

from watcher.model import filters
from watcher.model.keys import Filter
from watcher.model.log import Bounds, Cursor, GapReason
from watcher.model.times import format_rfc3339
from watcher.model.watches import NOT_KNOWN, WatchIndex
from watcher.relay import commands, wire
from watcher.relay.budgets import TokenBucket
from watcher.relay.commands import CommandRefused, Params
from watcher.relay.http.auth import EVERYTHING, Tokens
from watcher.relay.messages import (
    BINARY,
    METHODS,
    RATE_LIMITED,
    UNAUTHORIZED,
    AuthResult,
    AuthState,
    CloseReason,
    Code,
    ListResult,
    PingResult,
    StreamLimits,
    SubscribeResult,
    SubscriptionInfo,
    UnsubscribeResult,
    Welcome,
)
from watcher.relay.subscription import Subscription

MAX_REFUSALS = 100
"""Messages refused for their rate before the connection is closed."""
ROW_BURST = 1_000_000
"""Balances of snapshots and events of old cursors that a connection may ask for at once."""
ROWS_PER_SECOND = 20_000
"""The same for as long as it goes on."""


class SendFrame(msgspec.Struct, frozen=True):
    frame: wire.ControlFrame


class OpenSubscription(msgspec.Struct, frozen=True):
    """Open the subscription at its cursor, or at the head, or with a snapshot. `id`: of the command."""

    id: bytes
    subscription: Subscription
    cursor: Cursor | None
    snapshot: bool


class SubscriptionChanged(msgspec.Struct, frozen=True):
    """A subscription matches less than before, or has ended."""

    subscription: Subscription


class Authorized(msgspec.Struct, frozen=True):
    """From now on the connection may ask, and gets heartbeats."""


Action = SendFrame | CloseReason | OpenSubscription | SubscriptionChanged | Authorized


class Session:
    """Commands, rights, rate and limits of one connection."""

    __slots__ = (
        "_count",
        "_limits",
        "_messages",
        "_now",
        "_refusals",
        "_rows",
        "_tokens",
        "_wall",
        "_watches",
        "auth",
        "rights",
        "subscriptions",
    )

    def __init__(
        self,
        tokens: Tokens | None,
        rights: Filter | None,
        limits: StreamLimits,
        now: float,
        watches: Callable[[], WatchIndex] = lambda: NOT_KNOWN,
    ) -> None:
        """`rights`: those of the token in the upgrade request, if it had one. `now`: monotonic seconds.

        `watches`: what labels and tags stand for now.
        """
        self._watches = watches
        self._tokens = tokens
        self._limits = limits
        self._messages = TokenBucket(limits.burst, limits.messages_per_second)
        self._now = now
        self._wall = 0
        self._refusals = 0
        self._rows = TokenBucket(ROW_BURST, ROWS_PER_SECOND)
        self._count = 0
        self.auth: AuthState = "none" if tokens is None else "required" if rights is None else "ok"
        self.rights = EVERYTHING if tokens is None else rights
        """None until the connection is authorized."""
        self.subscriptions: dict[str, Subscription] = {}

    def welcome(self, connection_id: str, bounds: Bounds, wall: int, heartbeat: float) -> wire.ControlFrame:
        """`wall`: microseconds. `heartbeat`: seconds between two."""
        message = Welcome(
            connection_id=connection_id,
            server_time=format_rfc3339(wall),
            heartbeat_ms=round(heartbeat * 1000),
            epoch=bounds.head.epoch,
            head=str(bounds.head),
            oldest_cursor=str(bounds.oldest),
            auth=self.auth,
            limits=self._limits,
        )
        return wire.ControlFrame(wire.push(message))

    def receive(self, message: str | bytes, now: float, wall: int) -> list[Action]:
        """One data message. `now`: monotonic seconds, `wall`: microseconds."""
        if isinstance(message, bytes):
            return [BINARY]
        self._now, self._wall = now, wall
        if self._messages.left(now) < 1.0:
            return self._refuse_rate(message)
        self._messages.take(1.0, now)
        id_ = None
        try:
            request = commands.request_of(message)
            id_ = commands.id_of(request)
            return self._command(id_, commands.method_of(request), commands.params_of(request))
        except CommandRefused as refused:
            frame = wire.error_reply(id_, refused.code, str(refused), temporary=refused.code == "rate_limited")
            return [SendFrame(frame)]

    def charge(self, rows: int, now: float) -> None:
        """So many balances and events were asked for; `now`: monotonic seconds."""
        self._rows.take(rows, now)

    # How the opening of a subscription ended, and how it ends.

    def subscribed(
        self,
        asked: OpenSubscription,
        cursor: Cursor,
        *,
        recovered: bool,
        rows: int,
        reason: GapReason | None,
        nothing: str | None = None,
    ) -> wire.ControlFrame:
        """The subscription stands; its data begins at `cursor`. `nothing`: why nothing matches now, if so."""
        subscription = asked.subscription
        subscription.open()
        result = SubscribeResult(
            subscription_id=subscription.id,
            filter=subscription.wanted,
            recovered=recovered,
            cursor=str(cursor),
            snapshot_rows=rows,
            delivery=subscription.delivery,
            matches=nothing is None,
            note=UNSET if nothing is None else nothing,
            reason=UNSET if reason is None else reason,
            crossed=subscription.crossed or UNSET,
        )
        return wire.reply(asked.id, result)

    def not_subscribed(self, asked: OpenSubscription, code: Code, message: str) -> wire.ControlFrame:
        self.subscriptions.pop(asked.subscription.id, None)
        return wire.error_reply(asked.id, code, message, temporary=code == "internal")

    def end_without_gaps(self, reason: GapReason) -> list[wire.ControlFrame]:
        """The log cannot be read on: end what asked for an error then; the pushes that say so."""
        ended = [each for each in self.subscriptions.values() if each.opened and each.without_gaps]
        for subscription in ended:
            del self.subscriptions[subscription.id]
        text = "subscription {} ended: the log cannot be read on: {}"
        return [wire.error_reply(None, "unrecoverable_cursor", text.format(each.id, reason)) for each in ended]

    # Commands.

    def _refuse_rate(self, message: str) -> list[Action]:
        self._refusals += 1
        try:
            id_: bytes | None = commands.id_of(commands.request_of(message))
        except CommandRefused:
            id_ = None
        text = f"at most {self._limits.messages_per_second} messages a second after a burst of {self._limits.burst}"
        error = SendFrame(wire.error_reply(id_, "rate_limited", text, temporary=True))
        return [error] if self._refusals < MAX_REFUSALS else [error, RATE_LIMITED]

    def _command(self, id_: bytes, method: str, params: Params) -> list[Action]:
        if self.rights is None and method != "auth":
            return [SendFrame(wire.error_reply(id_, "unauthorized", "send auth with a token first")), UNAUTHORIZED]
        if method not in self._handlers:
            known = ", ".join(METHODS)
            raise CommandRefused("unknown_method", f"no method {method[:40]!r}: the methods are {known}")
        return self._handlers[method](self, id_, params)

    def _auth(self, id_: bytes, params: Params) -> list[Action]:
        token = params.get("token")
        if not isinstance(token, str):
            raise CommandRefused("bad_request", "auth takes token, a string")
        if self._tokens is None:
            return [SendFrame(wire.reply(id_, AuthResult("none")))]
        rights = self._tokens.rights(token.encode(errors="surrogatepass"))
        if rights is None:
            error = SendFrame(wire.error_reply(id_, "unauthorized", "not a token of this relay"))
            return [error] if self.rights is not None else [error, UNAUTHORIZED]
        first, self.rights, self.auth = self.rights is None, rights, "ok"
        reply = SendFrame(wire.reply(id_, AuthResult("ok")))
        return [Authorized(), reply] if first else [*self._narrow(rights), reply]

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
            actions.append(SubscriptionChanged(subscription))
            if allowed is None and subscription.opened:
                text = f"subscription {subscription.id} ended: the new token allows nothing of it"
                actions.append(SendFrame(wire.error_reply(None, "forbidden", text)))
        return actions

    def _subscribe(self, id_: bytes, params: Params) -> list[Action]:
        assert self.rights is not None
        try:
            asked = filters.parse(params.get("filter", {}))
        except filters.FilterError as error:
            raise CommandRefused("bad_request", str(error)) from None
        conflate = commands.choice_of(params, "delivery", ("all", "conflate")) == "conflate"
        without_gaps = commands.choice_of(params, "on_gap", ("snapshot", "error")) == "error"
        snapshot = commands.flag_of(params, "snapshot", usual=True)
        crossed = commands.flag_of(params, "crossed", usual=False)
        interval, cursor, values = commands.interval_of(params), commands.cursor_of(params), filters.size(asked)
        self._check_limits(values)
        if snapshot or cursor is not None:
            self._check_rows()
        allowed = filters.intersect(asked, self.rights)
        if allowed is None:
            raise CommandRefused("forbidden", "the token allows nothing of what the filter asks for")
        self._count += 1
        subscription = Subscription(
            str(self._count),
            allowed,
            values,
            self._watches(),
            conflate=conflate,
            interval_seconds=interval,
            without_gaps=without_gaps,
            crossed=crossed,
        )
        self.subscriptions[subscription.id] = subscription
        return [OpenSubscription(id_, subscription, cursor, snapshot)]

    def _check_limits(self, values: int) -> None:
        if len(self.subscriptions) >= self._limits.subscriptions:
            text = f"at most {self._limits.subscriptions} subscriptions a connection"
            raise CommandRefused("subscription_limit", text)
        if sum(each.filter_values for each in self.subscriptions.values()) + values > self._limits.filter_values:
            text = f"at most {self._limits.filter_values} filter values over all subscriptions of a connection"
            raise CommandRefused("filter_limit", text)

    def _check_rows(self) -> None:
        if self._rows.left(self._now) < 0:
            text = (
                f"at most {ROWS_PER_SECOND} balances and events a second by snapshots and old cursors, "
                f"after {ROW_BURST} at once"
            )
            raise CommandRefused("rate_limited", text)

    def _unsubscribe(self, id_: bytes, params: Params) -> list[Action]:
        name = params.get("subscription_id")
        if not isinstance(name, str):
            raise CommandRefused("bad_request", "unsubscribe takes subscription_id, a string")
        subscription = self.subscriptions.get(name)
        if subscription is None or not subscription.opened:
            raise CommandRefused("not_found", f"no subscription {name[:40]!r} on this connection")
        del self.subscriptions[name]
        return [SubscriptionChanged(subscription), SendFrame(wire.reply(id_, UnsubscribeResult(name)))]

    def _list_subscriptions(self, id_: bytes, _: Params) -> list[Action]:
        standing = [each for each in self.subscriptions.values() if each.opened]
        listed = [
            SubscriptionInfo(each.id, each.wanted, each.delivery, crossed=each.crossed or UNSET) for each in standing
        ]
        return [SendFrame(wire.reply(id_, ListResult(listed)))]

    def _ping(self, id_: bytes, _: Params) -> list[Action]:
        return [SendFrame(wire.reply(id_, PingResult(format_rfc3339(self._wall))))]

    _handlers: ClassVar[Mapping[str, Callable[["Session", bytes, Params], list[Action]]]] = {
        "auth": _auth,
        "subscribe": _subscribe,
        "unsubscribe": _unsubscribe,
        "list_subscriptions": _list_subscriptions,
        "ping": _ping,
    }
