"""A websocket connection as the relay wants it, and what it keeps for each."""

import asyncio
import uuid
from typing import TYPE_CHECKING

import msgspec
from websockets.datastructures import Headers
from websockets.protocol import State

from watcher.events import Cursor, Filter
from watcher.relay.link import Link
from watcher.relay.protocol import Session
from watcher.relay.settings import Pace
from watcher.relay.visitor import Visitor

if TYPE_CHECKING:
    from watcher.relay.delivery import Delivery


class Stats(msgspec.Struct):
    """Plain counters, read by the metrics."""

    connections: int = 0
    accepted: int = 0
    sent: int = 0
    """Updates."""
    conflated: int = 0
    lagging: int = 0
    """Times that a connection left the live path because its outbox was full."""
    replays: int = 0
    snapshots: int = 0
    stalled: int = 0
    """Connections that take nothing right now."""
    reading: int = 0
    """Connections that read the log right now."""
    refused: dict[str, int] = {}
    """Upgrades, and requests for another host, by reason."""
    dropped: dict[str, int] = {}
    """Connections that we ended, by reason."""
    log_errors: int = 0

    def refuse(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


class Connection(Visitor):
    """A connection that reads nothing from a client while that client takes nothing from us."""

    delivery: "Delivery"
    rights: Filter | None = None
    reserved = False
    ending: asyncio.TimerHandle | None = None
    peer: "Peer | None" = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.recv_messages.resume = self._resume_reading

    def forget_handshake(self) -> None:
        """Its headers are a tenth of what an idle connection costs, and nobody asks for them again."""
        for said in (self.request, self.response):
            if said is not None:
                said.headers = Headers()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.delivery.gone(self)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.peer is not None and self.protocol.state is not State.OPEN:
            self.peer.shut()  # nothing may follow the close frame that was just answered

    def pause_writing(self) -> None:
        super().pause_writing()
        # A visitor is read on, or nobody saw it go. TLS may pause before the connection is made.
        if self.streams:
            self.transport.pause_reading()
        if self.peer is not None:
            self.delivery.blocked(self.peer)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._resume_reading()
        if self.peer is not None:
            self.delivery.unblocked(self.peer)

    def _resume_reading(self) -> None:
        if not self.paused and not self.recv_messages.paused:
            self.transport.resume_reading()


class Peer(Link):
    """A link and its socket."""

    __slots__ = ("alarm", "beat_due", "connection", "direct", "heard", "id", "socket", "wake")

    def __init__(self, session: Session, pace: Pace, head: Cursor, connection: Connection) -> None:
        super().__init__(session, pace, head)
        self.connection = connection
        self.id = uuid.uuid4().hex[:16]
        self.socket: int | None = None
        """Where the bytes may be given to the kernel without a detour."""
        self.direct: int | None = None
        """The same while the connection is open and the kernel has taken everything."""
        self.wake: asyncio.Event | None = None
        """Set when there may be room in the outbox, or the connection ended."""
        self.alarm: asyncio.TimerHandle | None = None
        """When the next event that is held back is due."""
        self.beat_due = False
        self.heard = False
        """It has said something since that was looked at."""

    def shut(self) -> None:
        """Nothing more is sent."""
        self.open = False
        self.direct = None


def wake(peer: Peer) -> None:
    if peer.wake is not None:
        peer.wake.set()
        peer.wake = None
