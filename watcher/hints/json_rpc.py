"""JSON-RPC 2.0 as channels of subscriptions use it: requests and their answers, and notifications. Pure."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeGuard

import msgspec

from watcher.hints.channel import ChannelError
from watcher.redaction.safe_text import one_line

IN_FLIGHT = 20
"""Requests without an answer, at most: a node that is asked for a thousand subscriptions at once refuses some."""
MOST_ID = 256
"""Characters of an id of a subscription: nodes have up to 66. It is kept as long as the subscription."""
MOST_COMMAS = 20_000
"""In one message: no event has so many parts, and a megabyte of `[],[],` takes a fifth of a second to read."""
Word = Annotated[str, msgspec.Meta(max_length=80)]
"""A hash, an address or a number of a chain. What is remembered of a node must have a bound."""

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


def whatever(_result: object, _error: NodeError | None) -> None:
    """What it is answered with changes nothing."""
