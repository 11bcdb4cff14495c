"""Solana's JSON-RPC pubsub (solana.com/docs/rpc/websocket): `accountSubscribe` and `logsSubscribe`. Pure.

A notification is a hint and nothing of it is read but whose it is: amounts are the API's to tell.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from watcher.hints.channel import ChannelError, News, WatchedScope
from watcher.hints.json_rpc import JsonRpc, NodeError, Request, SubscriptionId, is_subscription_id, whatever
from watcher.hints.solana_subscriptions import Choice, Feed, SubscriptionRequest, choose
from watcher.model.keys import Scope

LONGEST_TURN = 512
"""Turns that a refused subscription passes over, at most; there is one a second for all of them."""
NOTIFICATIONS = ("accountNotification", "logsNotification")


class _Subscription(msgspec.Struct, eq=False):
    """One at the node, for all feeds that need the same."""

    request: SubscriptionRequest
    feeds: list[Feed]
    number: SubscriptionId | None = None
    """What the node calls it; None: it has not answered."""


class _Refused(msgspec.Struct, eq=False):
    """A feed that the node did not want. It is asked for again by and by."""

    times: int = 0
    passes: int = 0
    """Turns that go by before its next try."""


class SolanaChannel:
    """Follows what is watched on Solana. `max_subscriptions`: on its connection, at most."""

    def __init__(self, max_subscriptions: int) -> None:
        self._most = max_subscriptions
        self._watched: tuple[WatchedScope, ...] = ()
        self._choice = Choice(0, {}, {})
        self._scopes_of: dict[Feed, list[Scope]] = {}
        """Of those that have a place for everything."""
        self._there = False
        self._queue: deque[Feed] = deque()
        self._refused: dict[Feed, _Refused] = {}
        """In the order of their turns."""
        self._left_out: dict[Scope, int] = {}
        """Scopes with a place for everything → how much of it was refused."""
        self._subscriptions: dict[SubscriptionRequest, _Subscription] = {}
        self._of_feed: dict[Feed, _Subscription] = {}
        self._numbers: dict[SubscriptionId, _Subscription] = {}
        self._rpc = JsonRpc()

    def watch(self, watched: Sequence[WatchedScope]) -> None:
        watched = tuple(watched)
        if watched == self._watched:
            self._give_a_turn()
            return
        self._watched = watched
        before, self._choice = self._choice.feeds, choose(watched, self._most)
        self._scopes_of = {}
        for scope, of_scope in self._choice.whole.items():
            for feed in of_scope:
                self._scopes_of.setdefault(feed, []).append(scope)
        now = self._choice.feeds
        for feed in before:
            if feed not in now:
                self._drop(feed)
        self._left_out = {}
        for feed in self._refused:
            self._leave_out(feed, 1)
        self._queue.extend(feed for feed in now if feed not in before)

    def connected(self) -> None:
        self._there = True

    def disconnected(self) -> None:
        self._there = False
        self._rpc.reset()
        for known in (self._subscriptions, self._of_feed, self._numbers, self._refused, self._left_out):
            known.clear()
        self._queue = deque(self._choice.feeds)

    def received(self, frame: str | bytes) -> News:
        message = self._rpc.received(frame)
        if isinstance(message, NodeError):
            return News(refused=str(message))
        if message is None or message.method not in NOTIFICATIONS or message.subscription is None:
            return News()
        subscription = self._numbers.get(message.subscription)
        if subscription is None or _failed(message.params):
            return News()
        return News(tuple(dict.fromkeys(feed.hint() for feed in subscription.feeds)))

    def outgoing(self) -> list[str]:
        while self._there and self._queue and self._rpc.room > 0:
            feed = self._queue.popleft()
            if feed in self._choice.feeds and feed not in self._of_feed:
                self._subscribe(feed)
        return self._rpc.outgoing()

    def covered(self) -> Collection[Scope]:
        return [
            scope
            for scope, of_scope in self._choice.whole.items()
            if all(feed in self._of_feed and self._of_feed[feed].number is not None for feed in of_scope)
        ]

    @property
    def subscriptions(self) -> int:
        return len(self._numbers)

    @property
    def left_out(self) -> int:
        return self._choice.scopes - len(self._choice.whole) + len(self._left_out)

    def _subscribe(self, feed: Feed) -> None:
        request = feed.request()
        subscription = self._subscriptions.get(request)
        if subscription is None:
            subscription = self._subscriptions[request] = _Subscription(request, [])
            self._rpc.ask(_call(request), partial(self._answered, subscription))
        subscription.feeds.append(feed)
        self._of_feed[feed] = subscription
        if subscription.number is not None:
            self._accept(feed)

    def _answered(self, subscription: _Subscription, result: object, error: NodeError | None) -> NodeError | None:
        if error is not None:
            self._refuse(subscription)
            return error
        if not is_subscription_id(result):
            raise ChannelError("it answers a subscription without its number")
        if result in self._numbers:
            raise ChannelError("it gives one number to two subscriptions")
        subscription.number = result
        self._numbers[result] = subscription
        for feed in subscription.feeds:
            self._accept(feed)
        self._end_if_unneeded(subscription)
        return None

    def _drop(self, feed: Feed) -> None:
        """It is not wanted any more."""
        self._refused.pop(feed, None)
        subscription = self._of_feed.pop(feed, None)
        if subscription is not None:
            subscription.feeds.remove(feed)
            self._end_if_unneeded(subscription)

    def _end_if_unneeded(self, subscription: _Subscription) -> None:
        """One without an answer is ended once its number is known."""
        if subscription.number is not None and not subscription.feeds:
            del self._numbers[subscription.number], self._subscriptions[subscription.request]
            # Refused: it was not there any more.
            self._rpc.ask((f"{subscription.request.method}Unsubscribe", [subscription.number]), whatever)

    def _refuse(self, subscription: _Subscription) -> None:
        del self._subscriptions[subscription.request]
        for feed in subscription.feeds:
            del self._of_feed[feed]
            refused = self._refused.pop(feed, None)
            if refused is None:
                refused = _Refused()
                self._leave_out(feed, 1)
            refused.times += 1
            refused.passes = min(2 ** min(refused.times - 1, 30), LONGEST_TURN) - 1
            self._refused[feed] = refused

    def _accept(self, feed: Feed) -> None:
        if self._refused.pop(feed, None) is not None:
            self._leave_out(feed, -1)

    def _leave_out(self, feed: Feed, more: int) -> None:
        for scope in self._scopes_of.get(feed, ()):
            count = self._left_out.pop(scope, 0) + more
            if count:
                self._left_out[scope] = count

    def _give_a_turn(self) -> None:
        """To the next of those that were refused: so they are no storm, however many they are, and each waits longer each
        time."""
        if not (self._there and self._refused):
            return
        feed = next(iter(self._refused))
        refused = self._refused[feed] = self._refused.pop(feed)
        if feed in self._of_feed:  # it is being asked for
            return
        if refused.passes:
            refused.passes -= 1
        else:
            self._queue.appendleft(feed)


def _call(request: SubscriptionRequest) -> Request:
    commitment = {"commitment": request.commitment}
    if request.method == "account":
        return "accountSubscribe", [request.address, {"encoding": "base64", **commitment}]
    return "logsSubscribe", [{"mentions": [request.address]}, commitment]  # it takes exactly one address


def _failed(params: Mapping[str, Any]) -> bool:
    """Whether it is of a transaction that failed. One changes nothing but what its sender pays, and the wallet itself tells of
    that; bots have many of them, which as hints would be noise."""
    result = params.get("result")
    value = result.get("value") if isinstance(result, dict) else None
    return isinstance(value, dict) and value.get("err") is not None
