"""JSON-RPC 2.0 as channels of subscriptions use it: requests and their answers, notifications, and what stays subscribed. Pure."""

from collections import deque
from collections.abc import Callable, Collection, Hashable, Mapping
from functools import partial
from typing import Annotated, Any, Generic, TypeGuard, TypeVar

import msgspec

from watcher.hints.channel import ChannelError
from watcher.model.keys import Scope
from watcher.redaction.safe_text import one_line

IN_FLIGHT = 20
"""Requests without an answer, at most: a node that is asked for a thousand subscriptions at once refuses some."""
METHOD_NOT_FOUND = -32601
MOST_PASSES = 512
"""Turns that a refused subscription passes over, at most."""
MOST_DIGITS = 20
"""Of an id that is an integer of 64 bits."""
MOST_ID = 256
"""Characters of an id of a subscription: nodes have up to 66. It is kept as long as the subscription."""
MOST_COMMAS = 20_000
"""In one message: no event has so many parts, and a megabyte of `[],[],` takes a fifth of a second to read."""
Word = Annotated[str, msgspec.Meta(max_length=80)]
"""A hash, an address or a number of a chain. What is remembered of a node must have a bound."""

K = TypeVar("K", bound=Hashable)
SubscriptionId = str | int
"""As the other side spells it: what is sent back must have the same type."""
Params = list[Any] | dict[str, Any]
Request = tuple[str, Params]
"""Method and params."""


class NodeError(msgspec.Struct, frozen=True):
    """What a node answered instead of a result."""

    code: int = 0
    message: str = ""

    def __str__(self) -> str:
        return one_line(f"{self.message or 'an error without a text'} ({self.code})")


class Notification(msgspec.Struct, frozen=True):
    """A message that answers no request."""

    method: str
    subscription: SubscriptionId | None
    params: Mapping[str, Any]


class _Message(msgspec.Struct, frozen=True):
    id: Any = None
    method: Any = None
    params: Any = None
    result: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(_Message).decode
Answered = Callable[[Any, NodeError | None], NodeError | None]
"""Given the result, or None and the error. Gives back what people should know of. May raise ChannelError."""


class JsonRpc:
    """Requests on their way, over one socket."""

    def __init__(self) -> None:
        self._last_id = 0
        self._queued: deque[tuple[str, Params, Answered]] = deque()
        self._in_flight: dict[int, Answered] = {}

    def reset(self) -> None:
        """Another socket, or none: what was asked is never answered."""
        self._queued.clear()
        self._in_flight.clear()

    @property
    def room(self) -> int:
        """Requests that could leave at once besides those that wait already."""
        return IN_FLIGHT - len(self._in_flight) - len(self._queued)

    def ask(self, request: Request, answered: Answered) -> None:
        self._queued.append((*request, answered))

    def outgoing(self) -> list[str]:
        """Requests to send now, in order; each is given once."""
        texts = []
        while self._queued and len(self._in_flight) < IN_FLIGHT:
            method, params, answered = self._queued.popleft()
            self._last_id += 1
            self._in_flight[self._last_id] = answered
            request = {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params}
            texts.append(msgspec.json.encode(request).decode())
        return texts

    def received(self, frame: str | bytes) -> Notification | NodeError | None:
        """A notification, or a refusal that people should know of. An answer goes to whoever asked, one to nobody is
        dropped. Raises ChannelError."""
        commas = frame.count(",") if isinstance(frame, str) else frame.count(b",")
        if commas > MOST_COMMAS:
            raise ChannelError(f"it sent a message of more than {MOST_COMMAS} parts")
        try:
            message = _decode(frame)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise ChannelError("it sent a message that is no JSON-RPC") from None
        if message.method is not None:
            return _notification(message)
        error = _error(message.error)
        if type(message.id) is int and message.id in self._in_flight:  # `True == 1`, and JSON has `true`
            return self._in_flight.pop(message.id)(None if error else message.result, error)
        if message.id is None and error:
            raise ChannelError(f"it refuses what it is asked: {error}")  # and never says which request that was
        return None


def is_subscription_id(value: object) -> TypeGuard[SubscriptionId]:
    if isinstance(value, str):
        return len(value) <= MOST_ID
    return type(value) is int and value.bit_length() <= 64


def _notification(message: _Message) -> Notification | None:
    if not isinstance(message.method, str) or not isinstance(message.params, dict):
        return None
    params = message.params
    number = params.get("subscription", params.get("subscription_id"))
    return Notification(message.method, number if is_subscription_id(number) else None, params)


def _error(raw: object) -> NodeError | None:
    if raw is None:
        return None
    try:
        return msgspec.convert(raw, NodeError)
    except msgspec.ValidationError:
        return NodeError(message="an error that is none of JSON-RPC's")


class _Refused(msgspec.Struct, eq=False):
    """A subscription that the node did not give."""

    times: int = 0
    passes: int = 0
    """Turns that go by before its next try."""


class Subscriptions(Generic[K]):
    """What is subscribed with one socket, what is to be, and what is heard of by it. `K` names one subscription.

    What takes the place of another is confirmed first, as long as there is room for both: nothing is missed in between.
    """

    def __init__(
        self,
        rpc: JsonRpc,
        subscribe: Callable[[K], Request],
        unsubscribe: Callable[[K, SubscriptionId], Request],
        most: int,
    ) -> None:
        """`most`: subscriptions at a time."""
        self._rpc = rpc
        self._subscribe = subscribe
        self._unsubscribe = unsubscribe
        self._most = most
        self._connected = False
        self._needs: dict[Scope, Collection[K]] = {}
        self._without_place: set[Scope] = set()
        self._wanted: dict[K, None] = {}
        self._asked: set[K] = set()
        self._ids: dict[K, SubscriptionId] = {}
        self._covered: frozenset[Scope] | None = None
        self._left_out: int | None = None
        self._refused: dict[K, _Refused] = {}
        """In the order of their turns."""

    def want(self, needs: Mapping[Scope, Collection[K]]) -> None:
        """From now on these: for each scope the subscriptions that it takes to hear of all its changes. One that takes none
        cannot be heard of; those that find no place within `most`, the last ones first, are left out."""
        self._needs = dict(needs)
        self._without_place = set()
        self._wanted = {}
        for scope, keys in needs.items():
            fresh = [key for key in keys if key not in self._wanted]
            if keys and len(self._wanted) + len(fresh) <= self._most:
                self._wanted.update(dict.fromkeys(fresh))
            else:
                self._without_place.add(scope)
        self._refused = {key: refused for key, refused in self._refused.items() if key in self._wanted}
        self._covered = self._left_out = None
        if self._connected:
            self._ask()

    def give_turn(self) -> None:
        """To the next one that was refused: so they are no storm, however many there are, and each waits longer each time."""
        key = next(iter(self._refused), None)
        if key is None or not self._connected:
            return
        refused = self._refused[key] = self._refused.pop(key)
        refused.passes -= 1
        if refused.passes < 0 and key not in self._asked:
            self._ask_for(key)

    def connected(self) -> None:
        """There is a socket on which nothing is subscribed yet."""
        self.disconnected()
        self._connected = True
        self._ask()

    def disconnected(self) -> None:
        self._connected = False
        self._covered = self._left_out = None
        self._asked.clear()
        self._ids.clear()
        self._refused.clear()

    def covered(self) -> frozenset[Scope]:
        """Scopes with all that they take confirmed. The same object as long as nothing has changed."""
        if self._covered is None:
            there = self._ids.keys()
            placed = (scope for scope in self._needs if scope not in self._without_place)
            self._covered = frozenset(scope for scope in placed if all(key in there for key in self._needs[scope]))
        return self._covered

    @property
    def left_out(self) -> int:
        """Scopes that nothing can be heard of: no place, or refused."""
        if self._left_out is None:
            refused = {scope for scope, keys in self._needs.items() if any(key in self._refused for key in keys)}
            self._left_out = len(self._without_place | refused)
        return self._left_out

    def __len__(self) -> int:
        """Those confirmed."""
        return len(self._ids)

    def _ask(self) -> None:
        fresh = [key for key in self._wanted if not (key in self._ids or key in self._asked or key in self._refused)]
        if len(self._ids) + len(self._asked) + len(fresh) > self._most:
            self._end_unwanted()
        for key in fresh:
            self._ask_for(key)
        self._replace()

    def _ask_for(self, key: K) -> None:
        self._asked.add(key)
        self._rpc.ask(self._subscribe(key), partial(self._answered, key))

    def _answered(self, key: K, result: object, error: NodeError | None) -> NodeError | None:
        self._asked.discard(key)
        self._covered = self._left_out = None
        if error and error.code == METHOD_NOT_FOUND:
            raise ChannelError(f"it does not know {self._subscribe(key)[0]}: {error}")
        if not error and is_subscription_id(result):
            self._refused.pop(key, None)
            self._ids[key] = result
        else:
            error = error or NodeError(message="an answer without the id of a subscription")
            self._refuse(key)
        self._replace()
        return error

    def _refuse(self, key: K) -> None:
        if key in self._wanted:
            refused = self._refused[key] = self._refused.pop(key, _Refused())
            refused.times += 1
            refused.passes = min(2 ** (refused.times - 1), MOST_PASSES)

    def _replace(self) -> None:
        if not self._asked & self._wanted.keys():
            self._end_unwanted()

    def _end_unwanted(self) -> None:
        for key in [key for key in self._ids if key not in self._wanted]:
            number = self._ids.pop(key)
            self._rpc.ask(self._unsubscribe(key, number), partial(self._end_answered, key, number))

    def _end_answered(self, key: K, number: SubscriptionId, _result: object, error: NodeError | None) -> None:
        """Refused: some nodes of Starknet tell ids as strings and take them as integers. If that fails too, the socket's
        end will end it."""
        if error and isinstance(number, str) and number.isdecimal() and len(number) < MOST_DIGITS:
            self._rpc.ask(self._unsubscribe(key, int(number)), whatever)


def whatever(_result: object, _error: NodeError | None) -> None:
    """What it is answered with changes nothing."""
