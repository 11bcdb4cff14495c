"""Solana's JSON-RPC pubsub (solana.com/docs/rpc/websocket): `accountSubscribe` and `logsSubscribe`. Pure.

A notification is a hint and nothing of it is read but whose it is: amounts are the API's to tell.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from watcher.hints.channel import ChannelError, News, WatchedScope
from watcher.hints.solana_subscriptions import Choice, Feed, Method, SubscriptionRequest, choose, feeds
from watcher.model.keys import Scope
from watcher.redaction.safe_text import one_line

WINDOW = 32
"""Requests without an answer, at most: a node that is slow to answer is asked slowly."""
LONGEST_TURN = 512
"""Turns that a refused subscription passes over, at most; there is one a second for all of them."""


NOTIFICATIONS: Mapping[str, Method] = {"accountNotification": "account", "logsNotification": "logs"}


class _Params(msgspec.Struct):
    subscription: int
    result: msgspec.Raw


class _Message(msgspec.Struct):
    """An answer has an id, a notification a method."""

    id: int | float | str | None = None
    method: str | None = None
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    params: msgspec.Raw = msgspec.Raw()


class _Refusal(msgspec.Struct):
    code: Any = None
    message: Any = None


class _Transaction(msgspec.Struct):
    err: Any = None


class _LogsResult(msgspec.Struct):
    value: _Transaction


_MESSAGE = msgspec.json.Decoder(_Message)
_PARAMS = msgspec.json.Decoder(_Params)
_NUMBER = msgspec.json.Decoder(int)
_REFUSAL = msgspec.json.Decoder(_Refusal)
_LOGS = msgspec.json.Decoder(_LogsResult)


class _Subscription(msgspec.Struct, eq=False):
    """One at the node, for all feeds that need the same."""

    request: SubscriptionRequest
    feeds: list[Feed]
    number: int | None = None
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
        self._scopes = 0
        """Of this chain."""
        self._choice = Choice({}, {})
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
        self._asked: dict[int, _Subscription] = {}
        """By the id of the request."""
        self._numbers: dict[int, _Subscription] = {}
        self._cancelled: list[tuple[Method, int]] = []
        """Numbers that nobody needs any more."""
        self._id = 0

    def watch(self, watched: Sequence[WatchedScope]) -> None:
        watched = tuple(watched)
        if watched == self._watched:
            self._give_a_turn()
            return
        self._watched = watched
        wanted = feeds(watched)
        before, self._choice = self._choice.feeds, choose(wanted, self._most)
        self._scopes = len(wanted)
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
        for known in (self._subscriptions, self._of_feed, self._asked, self._numbers, self._refused, self._left_out):
            known.clear()
        self._cancelled.clear()
        self._queue = deque(self._choice.feeds)

    def received(self, frame: str | bytes) -> News:
        try:
            message = _MESSAGE.decode(frame)
        except (ValueError, RecursionError):  # no JSON, not UTF-8, no object
            raise ChannelError("what came is no message of JSON-RPC") from None
        if message.method is not None:
            return self._notified(message)
        if message.id is None and bytes(message.error) not in (b"", b"null"):
            raise ChannelError(f"it refuses what we send: {_words(message.error)}")
        return self._answered(message)

    def outgoing(self) -> list[str]:
        if not self._there:
            return []
        messages = [self._call(f"{method}Unsubscribe", [number]) for method, number in self._cancelled]
        self._cancelled.clear()
        while self._queue and len(self._asked) < WINDOW:
            feed = self._queue.popleft()
            if feed in self._choice.feeds and feed not in self._of_feed:
                messages += self._subscribe(feed)
        return messages

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
        return self._scopes - len(self._choice.whole) + len(self._left_out)

    def _subscribe(self, feed: Feed) -> Iterable[str]:
        request = feed.request()
        subscription = self._subscriptions.get(request)
        if subscription is not None:
            subscription.feeds.append(feed)
            self._of_feed[feed] = subscription
            if subscription.number is not None:
                self._accept(feed)
            return
        subscription = self._subscriptions[request] = self._of_feed[feed] = _Subscription(request, [feed])
        commitment = {"commitment": request.commitment}
        if request.method == "account":
            params: list[Any] = [request.address, {"encoding": "base64", **commitment}]
        else:  # it takes exactly one address
            params = [{"mentions": [request.address]}, commitment]
        yield self._call(f"{request.method}Subscribe", params)
        self._asked[self._id] = subscription

    def _call(self, method: str, params: list[Any]) -> str:
        self._id += 1
        return msgspec.json.encode({"jsonrpc": "2.0", "id": self._id, "method": method, "params": params}).decode()

    def _answered(self, message: _Message) -> News:
        """What is no answer to a subscription says nothing: that one was ended, or was not there any more."""
        if type(message.id) is not int:
            return News()
        subscription = self._asked.pop(message.id, None)
        if subscription is None:
            return News()
        if bytes(message.error) not in (b"", b"null"):
            words = _words(message.error)
            self._refuse(subscription)
            return News(refused=words)
        try:
            number = _NUMBER.decode(message.result)
        except (ValueError, RecursionError):
            raise ChannelError("it answers a subscription without its number") from None
        if number in self._numbers:
            raise ChannelError("it gives one number to two subscriptions")
        subscription.number = number
        self._numbers[number] = subscription
        for feed in subscription.feeds:
            self._accept(feed)
        self._end_if_unneeded(subscription)
        return News()

    def _notified(self, message: _Message) -> News:
        """What we do not know is passed over: a provider may have notifications of its own."""
        method = NOTIFICATIONS.get(message.method or "")
        if method is None:
            return News()
        try:
            params = _PARAMS.decode(message.params)
            # A failed transaction changes nothing but what its sender pays, and the wallet itself tells of that. Bots have
            # many of them: as hints they would be noise.
            failed = method == "logs" and _LOGS.decode(params.result).value.err is not None
        except (ValueError, RecursionError):
            raise ChannelError(f"its {message.method} is not as documented") from None
        subscription = self._numbers.get(params.subscription)
        if subscription is None or failed:
            return News()
        return News(tuple(dict.fromkeys(feed.hint() for feed in subscription.feeds)))

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
            self._cancelled.append((subscription.request.method, subscription.number))

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


def _words(error: msgspec.Raw) -> str:
    """Of the other side."""
    try:
        refusal = _REFUSAL.decode(error)
    except (ValueError, RecursionError):
        return one_line(bytes(error[:1000]).decode("utf-8", "replace"))
    return one_line(f"{str(refusal.message)[:1000]} ({str(refusal.code)[:20]})")
