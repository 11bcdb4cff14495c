"""A websocket connection as the relay wants it, and what it keeps for each."""

import asyncio
import uuid
from typing import TYPE_CHECKING

import msgspec
from websockets.datastructures import Headers
from websockets.protocol import Event, State

from watcher.model.keys import Filter
from watcher.model.log import Cursor
from watcher.relay.budgets import TokenBucket
from watcher.relay.http.connection import HttpConnection
from watcher.relay.outbox import Link
from watcher.relay.session import Session
from watcher.relay.settings import ALL_FRAMES_PER_SECOND, FEW, FRAMES, FRAMES_PER_SECOND, RelayTuning
from watcher.relay.snapshots import SnapshotPages

if TYPE_CHECKING:
    from watcher.relay.flusher import Delivery

PIECE = 1024
"""Bytes read at a stretch: some 170 pings, two milliseconds of work."""
A_TURN = 32
"""Frames read in one turn of the loop, of all connections; who comes beyond waits for another turn."""
ALL_AT_ONCE = 512
"""Frames of all who send more than a few that are read one after another: some tens of milliseconds of work, if those are
commands."""
NEXT = 0.005
"""Seconds until then."""
LONGEST = 10.0
"""Seconds without a look at a connection: who goes meanwhile is seen to go behind them."""


class FrameBudget:
    """The budget of all connections for the frames that they send."""

    def __init__(self) -> None:
        self._all = TokenBucket(ALL_AT_ONCE, ALL_FRAMES_PER_SECOND)
        self._turn = 0

    @property
    def full(self) -> bool:
        """This turn of the loop has had enough of them."""
        return self._turn >= A_TURN

    def take(self, frames: int, loop: asyncio.AbstractEventLoop) -> float:
        """Seconds that whoever has sent more than a few should wait then."""
        if not self._turn:
            loop.call_soon(self._end_turn)
        self._turn += frames
        return self._all.take(frames, loop.time())

    def _end_turn(self) -> None:
        self._turn = 0


class RelayStats(msgspec.Struct):
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


class Connection(HttpConnection):
    """A connection that reads nothing from a client while that client takes nothing from us."""

    delivery: "Delivery"
    rights: Filter | None = None
    reserved = False
    ending: asyncio.TimerHandle | None = None
    peer: "Peer | None" = None
    _unread = b""
    _heard = 0
    """Frames, since the last look."""
    _resting: asyncio.TimerHandle | None = None
    """Nothing is read until then."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._budget = TokenBucket(FRAMES, FRAMES_PER_SECOND)
        if hasattr(self.transport, "max_size"):  # asyncio's own, for what one read takes; TLS has none
            self.transport.max_size = PIECE
        self.recv_messages.resume = self._resume_reading

    def admit(self, rights: Filter | None) -> None:
        """It is to become a stream. `rights`: of the token in its request, if it had one."""
        self.rights = rights
        self.reserved = True
        self.delivery.stats.connections += 1

    def forget_handshake(self) -> None:
        """Its headers are a tenth of what an idle connection costs, and nobody asks for them again."""
        for said in (self.request, self.response):
            if said is not None:
                said.headers = Headers()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._resting is not None:
            self._resting.cancel()
        self._unread = b""
        super().connection_lost(exc)
        self.delivery.gone(self)

    def data_received(self, data: bytes) -> None:
        if not self.streams:
            super().data_received(data)
            return
        self._unread += data
        self._read()

    def _read(self) -> None:
        """What has come, a piece at a time: control frames and fragments are answered as they are parsed."""
        while self._unread and self._reads:
            if self.delivery.hearing.full:
                self._rest(NEXT)
                break
            piece, self._unread = self._unread[:PIECE], self._unread[PIECE:]
            self._heard = 0
            super().data_received(piece)
            if self.peer is not None and self.protocol.state is not State.OPEN:
                self.peer.shut()  # nothing may follow the close frame that was just answered
            self._pay(max(1, self._heard))
        if self._unread:
            self.transport.pause_reading()

    def process_event(self, event: Event) -> None:
        self._heard += 1
        super().process_event(event)

    def _pay(self, frames: int) -> None:
        """Read no further while the budget is overdrawn: its own, or that of all who send more than a few."""
        now = self.loop.time()
        seconds, others = self._budget.take(frames, now), self.delivery.hearing.take(frames, self.loop)
        if self._budget.left(now) < FRAMES - FEW:
            seconds = max(seconds, others)
        if seconds > 0 and self.protocol.state is not State.CLOSED:  # one that was told to go may go on sending
            self._rest(seconds)

    def _rest(self, seconds: float) -> None:
        self.transport.pause_reading()
        self._resting = self.loop.call_later(min(seconds, LONGEST), self._go_on)

    def _go_on(self) -> None:
        self._resting = None
        self._resume_reading()

    @property
    def _reads(self) -> bool:
        return self._resting is None and not self.paused and not self.recv_messages.paused

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
        self._read()
        if self._reads:
            self.transport.resume_reading()


class Peer(Link):
    """A link and its socket."""

    __slots__ = ("alarm", "beat_due", "connection", "direct", "id", "pages", "socket", "wake")

    def __init__(self, session: Session, pace: RelayTuning, head: Cursor, connection: Connection) -> None:
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
        self.pages: SnapshotPages | None = None
        """The snapshot that it is being sent."""

    def shut(self) -> None:
        """Nothing more is sent."""
        self.open = False
        self.direct = None


def wake(peer: Peer) -> None:
    if peer.wake is not None:
        peer.wake.set()
        peer.wake = None
