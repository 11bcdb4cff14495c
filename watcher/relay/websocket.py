"""The websocket of one connection: its frames are read at a budget, and it ends with a close frame or an abort."""

import asyncio
import contextlib
from typing import Any

from websockets.datastructures import Headers
from websockets.protocol import Event, State

from watcher.model.keys import Filter
from watcher.relay.budgets import FrameBudget, TokenBucket
from watcher.relay.connection import Connection
from watcher.relay.connections import ConnectionRegistry
from watcher.relay.http.connection import HttpConnection, HttpService
from watcher.relay.messages import CloseReason

FRAMES = 4000
"""Frames of a connection that are read at once: control frames and fragments are no messages, and cost as much."""
FRAMES_PER_SECOND = 200
"""The same for as long as it goes on; what comes beyond is read later."""
FEW = 32
"""Frames that a connection sends without paying for what others send."""
PIECE = 1024
"""Bytes read at a stretch: some 170 pings, two milliseconds of work."""
NEXT_TURN = 0.005
"""Seconds until a connection is read on when a turn of the loop has read enough of others."""
LONGEST = 10.0
"""Seconds that a connection is not read at most: that its client has left is seen only when it is read."""


class WebSocket(HttpConnection):
    """Reads nothing from a client while that client takes nothing from us."""

    rights: Filter | None = None
    """Of the token in its request, if it had one."""
    connection: Connection | None = None
    _reserved = False
    _ending: asyncio.TimerHandle | None = None
    """It was sent a close frame, and is aborted then."""
    _unread = b""
    _frames = 0
    """Read since the last look."""
    _resting: asyncio.TimerHandle | None = None
    """Nothing is read until then."""

    def __init__(
        self,
        connections: ConnectionRegistry,
        frame_budget: FrameBudget,
        service: HttpService,
        *args: Any,
        **options: Any,
    ) -> None:
        """`args`, `options`: of websockets."""
        super().__init__(service, *args, **options)
        self._connections = connections
        self._frame_budget = frame_budget

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._budget = TokenBucket(FRAMES, FRAMES_PER_SECOND)
        if hasattr(self.transport, "max_size"):  # asyncio's own, for what one read takes; TLS has none
            self.transport.max_size = PIECE
        self.recv_messages.resume = self._resume_reading

    def admit(self, rights: Filter | None) -> None:
        """It may become a stream. `rights`: of the token in its request, if it had one."""
        self.rights = rights
        self._reserved = True
        self._connections.reserve()

    def serve(self, connection: Connection) -> None:
        """It is a stream, of that connection."""
        self.connection = connection
        self._connections.add(connection)
        if self.paused:
            self._connections.block(connection)

    def hang_up(self, why: CloseReason, seconds: float) -> None:
        """Send the close frame, and abort so many seconds later."""
        if self.protocol.state is State.OPEN:
            self.protocol.send_close(why.code, why.reason)
            with contextlib.suppress(RuntimeError):  # the transport is closing already
                self.send_data()
            self._ending = self.loop.call_later(seconds, self.transport.abort)

    def forget_handshake(self) -> None:
        """Its headers are a tenth of what an idle connection costs, and nobody asks for them again."""
        for head in (self.request, self.response):
            if head is not None:
                head.headers = Headers()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._resting is not None:
            self._resting.cancel()
        self._unread = b""
        super().connection_lost(exc)
        if self._ending is not None:  # or this were kept in memory until then, and who comes again fills it
            self._ending.cancel()
        if self._reserved:
            self._connections.release()
        if self.connection is not None:  # at once: asyncio closes the descriptor next, and another may get its number
            self._connections.remove(self.connection)

    def data_received(self, data: bytes) -> None:
        if not self.streams:
            super().data_received(data)
            return
        self._unread += data
        self._read()

    def _read(self) -> None:
        """What has come, a piece at a time: control frames and fragments are answered as they are parsed."""
        while self._unread and self._reads:
            if self._frame_budget.full:
                self._rest(NEXT_TURN)
                break
            piece, self._unread = self._unread[:PIECE], self._unread[PIECE:]
            self._frames = 0
            super().data_received(piece)
            if self.connection is not None and self.protocol.state is not State.OPEN:
                self.connection.outbox.shut()  # nothing may follow the close frame that was just answered
            self._pay(max(1, self._frames))
        if self._unread:
            self._pause_reading()

    def process_event(self, event: Event) -> None:
        self._frames += 1
        super().process_event(event)

    def _pay(self, frames: int) -> None:
        """Read no further while the budget is overdrawn: its own, or that of all who send more than a few."""
        now = self.loop.time()
        seconds, others = self._budget.take(frames, now), self._frame_budget.take(frames, self.loop)
        if self._budget.left(now) < FRAMES - FEW:
            seconds = max(seconds, others)
        if seconds > 0 and self.protocol.state is not State.CLOSED:  # one that was sent a close frame may go on sending
            self._rest(seconds)

    def _rest(self, seconds: float) -> None:
        self._pause_reading()
        self._resting = self.loop.call_later(min(seconds, LONGEST), self._go_on)

    def _go_on(self) -> None:
        self._resting = None
        self._resume_reading()

    @property
    def _reads(self) -> bool:
        return self._resting is None and not self.paused and not self.recv_messages.paused

    def pause_writing(self) -> None:
        super().pause_writing()
        # Who is no stream yet is read on, or nobody saw it go. TLS may pause before the connection is made.
        if self.streams:
            self._pause_reading()
        if self.connection is not None:
            self._connections.block(self.connection)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._resume_reading()
        if self.connection is not None:
            self._connections.unblock(self.connection)

    def _resume_reading(self) -> None:
        self._read()
        if self._reads and not self.transport.is_closing():
            self.transport.resume_reading()

    def _pause_reading(self) -> None:
        if not self.transport.is_closing():  # TLS fails when it is asked between its end and the report of it
            self.transport.pause_reading()
