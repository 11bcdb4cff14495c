"""A websocket that is read at a pace: pings and fragments too, which cost as much as messages and never come up to a reader."""

import asyncio
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.frames import DATA_OPCODES, CloseCode, Frame
from websockets.protocol import Event

from watcher.hints.pace import Pace

PIECE = 1024
"""Bytes read at a stretch: five hundred of the smallest frames. A read of the socket brings 256 KiB."""
FREE = 1024
"""Bytes in a frame beyond which it counts as more than one: long messages take as long as many short ones."""
TURN = 0.004
"""Seconds that a read takes at a stretch, and that others have then."""
UNSENT = 2**20
"""Bytes of answers to pings that may wait, for somebody who sends and does not read."""


MOST_FRAGMENTS = 1000
"""Of one message. Those without a byte in them count for no bound of its size, and all are kept until the last has come."""


class PacedConnection(ClientConnection):
    """What comes beyond its pace waits in the sockets, and then at its sender's."""

    def __init__(self, pace: Pace, *args: Any, **options: Any) -> None:
        """`pace`: of frames. `args`, `options`: of websockets."""
        super().__init__(*args, **options)
        self._pace = pace
        self._unread = bytearray()
        self._resting: asyncio.TimerHandle | None = None
        """Nothing is read until then."""
        self._fragments = 0
        """Of the message that is coming."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.recv_messages.resume = self._go_on

    def data_received(self, data: bytes) -> None:
        self._unread += data
        self._read()

    def process_event(self, event: Event) -> None:
        self._pace.take(1 + len(event.data) // FREE if isinstance(event, Frame) else 1)
        if isinstance(event, Frame) and event.opcode in DATA_OPCODES:
            self._fragments = 0 if event.fin else self._fragments + 1
        super().process_event(event)

    def eof_received(self) -> None:
        """What waits still is lost: it came too fast, and the connection has ended."""
        self._unread.clear()
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unread.clear()
        if self._resting is not None:
            self._resting.cancel()
        super().connection_lost(exc)

    def _read(self) -> None:
        begun = self.loop.time()
        while self._unread and self._resting is None and not self.recv_messages.paused:
            piece = bytes(self._unread[:PIECE])
            del self._unread[:PIECE]
            super().data_received(piece)
            if self._fragments > MOST_FRAGMENTS:
                self._fragments = 0
                self.protocol.fail(CloseCode.MESSAGE_TOO_BIG)
                self.send_data()
            if self.transport.get_write_buffer_size() > UNSENT:
                self._unread.clear()
                self.transport.abort()
            seconds = self._pace.wait(now := self.loop.time())
            if seconds or now >= begun + TURN:
                self._resting = self.loop.call_later(max(seconds, TURN), self._rested)
        if self._unread or self._resting is not None:
            self.transport.pause_reading()

    def _rested(self) -> None:
        self._resting = None
        self._go_on()

    def _go_on(self) -> None:
        self._read()
        if self._resting is None and not self.recv_messages.paused:
            self.transport.resume_reading()
