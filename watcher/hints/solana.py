"""Solana's JSON-RPC pubsub (solana.com/docs/rpc/websocket): `accountSubscribe` and `logsSubscribe`. Pure.

A notification is a hint and nothing of it is read but whose it is: amounts are the API's to tell.
"""

from collections.abc import Collection, Generator, Mapping, Sequence
from typing import Any

from watcher.hints.channel import News, WatchedScope
from watcher.hints.json_rpc import JsonRpc, NodeError
from watcher.hints.solana_subscriptions import Feed, SubscriptionRequest, choose
from watcher.hints.subscriptions import Subscriptions
from watcher.model.keys import Scope

NOTIFICATIONS = ("accountNotification", "logsNotification")


class SolanaChannel:
    """Follows what is watched on Solana. `max_subscriptions`: on its connection, at most."""

    def __init__(self, max_subscriptions: int) -> None:
        self._most = max_subscriptions
        self._watched: tuple[WatchedScope, ...] = ()
        self._requests: dict[Feed, SubscriptionRequest] = {}
        self._feeds: dict[SubscriptionRequest, dict[Feed, None]] = {}
        """Those that need the same."""
        self._rpc = JsonRpc()
        self._subscriptions: Subscriptions[SubscriptionRequest] = Subscriptions(
            self._rpc, SubscriptionRequest.begin, SubscriptionRequest.end, max_subscriptions
        )

    def watch(self, watched: Sequence[WatchedScope]) -> Generator[None, None, None]:
        watched = tuple(watched)
        if watched == self._watched:
            return
        choice = yield from choose(watched, self._most)
        whole = ((scope, tuple(map(self._request, feeds))) for scope, feeds in choice.whole.items())
        yield from self._subscriptions.want(map(self._request, choice.keys), whole, choice.without_place)
        for feed in list(self._requests):
            if feed not in choice.keys:
                self._forget(feed)
                yield
        self._watched = watched

    def give_turn(self) -> None:
        self._subscriptions.give_turn()

    def connected(self) -> None:
        self._subscriptions.connected()

    def disconnected(self) -> None:
        self._rpc.reset()
        self._subscriptions.disconnected()

    def received(self, frame: str | bytes) -> News:
        message = self._rpc.received(frame)
        if isinstance(message, NodeError):
            return News(refused=str(message))
        if message is None or message.method not in NOTIFICATIONS or _failed(message.params):
            return News()
        request = self._subscriptions.key_of(message.subscription)
        feeds = () if request is None else self._feeds.get(request, ())
        return News(tuple(dict.fromkeys(feed.hint() for feed in feeds)))

    def outgoing(self) -> list[str]:
        self._subscriptions.ask()
        return self._rpc.outgoing()

    def covered(self) -> Collection[Scope]:
        return self._subscriptions.covered()

    @property
    def subscriptions(self) -> int:
        return len(self._subscriptions)

    @property
    def left_out(self) -> int:
        return self._subscriptions.left_out

    def _request(self, feed: Feed) -> SubscriptionRequest:
        """Made once, since that takes a while."""
        request = self._requests.get(feed)
        if request is None:
            request = self._requests[feed] = feed.request()
            self._feeds.setdefault(request, {})[feed] = None
        return request

    def _forget(self, feed: Feed) -> None:
        request = self._requests.pop(feed)
        del self._feeds[request][feed]
        if not self._feeds[request]:
            del self._feeds[request]


def _failed(params: Mapping[str, Any]) -> bool:
    """Whether it is of a transaction that failed. One changes nothing but what its sender pays, and the wallet itself tells of
    that; bots have many of them, which as hints would be noise."""
    result = params.get("result")
    value = result.get("value") if isinstance(result, dict) else None
    return isinstance(value, dict) and value.get("err") is not None
