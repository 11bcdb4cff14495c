"""One socket of a push channel: calls in, replies and notifications out. Pure: it never sends and reads no clock."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from watcher.sandbox.json_rpc import (
    INTERNAL_ERROR,
    METHOD_NOT_FOUND,
    RpcCall,
    RpcError,
    decode_call,
    error_frame,
    notification_frame,
    result_frame,
)
from watcher.sandbox.truth import Move, SimulatedBalance

MOST_SUBSCRIPTIONS = 1000
MOST_FRAMES = 10_000
"""That wait for a slow reader. One more, and the socket is cut, as geth does."""


class ChainEvent(msgspec.Struct, frozen=True, eq=False):
    """One move of a balance, as a node sees it."""

    balance: SimulatedBalance
    move: Move
    before: int
    number: int
    """Which of this balance's moves it is, from 1."""
    again: bool = False
    """It is told for a second time."""
    forged: bool = False
    """It has not happened."""

    @property
    def time(self) -> float:
        return self.move.time

    @property
    def slot(self) -> int:
        return self.move.slot

    @property
    def amount(self) -> int:
        return self.move.amount

    @property
    def incoming(self) -> bool:
        return self.amount > self.before

    def bytes32(self, purpose: str) -> bytes:
        """32 bytes that belong to this event alone: a hash, somebody's address."""
        return hashlib.sha256(f"{'/'.join(self.balance.key)}/{self.number}/{purpose}".encode()).digest()


class PushReceiver(Protocol):
    """Who is told of events: a socket, or a webhook."""

    def concerned(self, event: ChainEvent, level: str, /) -> bool:
        """Whether it would be told of the event at that level."""
        ...

    def tell(self, event: ChainEvent, level: str, /) -> int:
        """Gives the number of messages that this makes."""
        ...

    def break_off(self, event: ChainEvent, level: str, /) -> int:
        """The connection breaks instead; gives how many messages that would have made, or 1."""
        ...


class PushSubscription(Protocol):
    """What somebody subscribed to."""

    @property
    def level(self) -> str:
        """How certain a move must be before it is told: one of its dialect's levels."""
        ...

    def results(self, event: ChainEvent) -> Iterator[Any]:
        """One for each notification that the event is worth, none for an event that it is not about."""
        ...


class PushDialect(Protocol):
    """The pubsub of one kind of node."""

    @property
    def levels(self) -> Mapping[str, int]:
        """Level of certainty → how many slots lie between a move's own and the newest when it is reached; 0: at once."""
        ...

    @property
    def ending(self) -> frozenset[str]:
        """The methods that end a subscription."""
        ...

    @property
    def constants(self) -> Mapping[str, Any]:
        """Method → what it always answers."""
        ...

    def subscribe(self, method: str, params: list[Any] | dict[str, Any]) -> PushSubscription | None:
        """None: it is no method that subscribes. Raises RpcError."""
        ...

    def identifier(self, number: int) -> int | str:
        """Of the subscription with this running number."""
        ...

    def given(self, params: list[Any] | dict[str, Any]) -> Any:
        """The identifier in a call that ends a subscription. None: there is none."""
        ...

    def notification(
        self, subscription: PushSubscription, identifier: int | str, result: Any
    ) -> tuple[str, dict[str, Any]]:
        """Method and params."""
        ...

    def unknown(self) -> RpcError:
        """The refusal to end what is no subscription."""
        ...


class PushSession:
    """What one socket is subscribed to, and what has to be sent on it."""

    def __init__(self, dialect: PushDialect, *, most: int = MOST_SUBSCRIPTIONS) -> None:
        self.dialect = dialect
        self.subscriptions: dict[int | str, PushSubscription] = {}
        self.cut = False
        """The socket is to be closed without a word, whatever waits to be sent."""
        self.ready: Callable[[], None] = lambda: None
        """Called when there is something to send, or it is cut."""
        self._most = most
        self._made = 0
        self._outgoing: list[str] = []

    def outgoing(self) -> list[str]:
        """Frames to send now, in order; each is given once."""
        frames, self._outgoing = self._outgoing, []
        return frames

    def received(self, text: str | bytes) -> None:
        """A message came."""
        call = None
        try:
            call = decode_call(text)
            frame = result_frame(self._answer(call), call.id)
        except RpcError as error:
            frame = error_frame(error, call.id if call else None)
        self._outgoing.append(frame)
        self.ready()

    def tell(self, event: ChainEvent, level: str) -> int:
        """Of the event, to whoever wants that level; gives the number of notifications."""
        frames = list(self._notifications(event, level))
        self._outgoing += frames
        self.cut = self.cut or len(self._outgoing) > MOST_FRAMES
        if frames:
            self.ready()
        return len(frames)

    def break_off(self, event: ChainEvent, level: str) -> int:
        """Instead of telling it the event, the socket is cut."""
        concerned = self.concerned(event, level)
        self.cut = self.cut or concerned
        if concerned:
            self.ready()
        return int(concerned)

    def concerned(self, event: ChainEvent, level: str) -> bool:
        """Whether it would be told of the event."""
        return any(True for _ in self._notifications(event, level))

    def _notifications(self, event: ChainEvent, level: str) -> Iterator[str]:
        for identifier, subscription in self.subscriptions.items():
            if subscription.level == level:
                for result in subscription.results(event):
                    yield notification_frame(*self.dialect.notification(subscription, identifier, result))

    def _answer(self, call: RpcCall) -> Any:
        if call.method in self.dialect.constants:
            return self.dialect.constants[call.method]
        if call.method in self.dialect.ending:
            return self._end(call)
        subscription = self.dialect.subscribe(call.method, call.params)
        if subscription is None:
            raise RpcError(METHOD_NOT_FOUND, "Method not found")
        if len(self.subscriptions) >= self._most:
            raise RpcError(INTERNAL_ERROR, "Internal Error: PushSubscription refused. Node subscription limit reached")
        self._made += 1
        identifier = self.dialect.identifier(self._made)
        self.subscriptions[identifier] = subscription
        return identifier

    def _end(self, call: RpcCall) -> bool:
        identifier = self.dialect.given(call.params)
        if not isinstance(identifier, int | str) or identifier not in self.subscriptions:
            raise self.dialect.unknown()
        del self.subscriptions[identifier]
        return True
