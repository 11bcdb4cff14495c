"""The thin part of the push channels: websockets on the sandbox's own port. It decides nothing."""

import anyio
import h11
from anyio.abc import SocketStream
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from watcher.sandbox.push_board import DIALECTS, PushBoard
from watcher.sandbox.push_session import PushSession

PREFIX = "/_push/"
MOST_MESSAGE = 1 << 20
PATIENCE = 5.0
"""Seconds that a slow reader may keep us from writing before its socket is cut."""


def channel_of(head: h11.Request) -> str | None:
    """The channel that a request for a websocket names; None: it is another request."""
    path = head.target.decode("ascii", "replace").partition("?")[0]
    name = path.removeprefix(PREFIX)
    return name if path.startswith(PREFIX) and name in DIALECTS and head.method == b"GET" else None


class PushLoop:
    """Wakes when the world's next move or push is due."""

    def __init__(self, board: PushBoard) -> None:
        self.board = board
        self._earlier = anyio.Event()
        board.earlier = self._wake

    async def run(self) -> None:
        while True:
            self._earlier = anyio.Event()
            self.board.advance(anyio.current_time())
            with anyio.CancelScope(deadline=self.board.next_at):
                await self._earlier.wait()

    def _wake(self) -> None:
        self._earlier.set()


class PushSocket:
    """One websocket, from the request that opens it to its end. Whoever made the stream closes it."""

    def __init__(self, loop: PushLoop, stream: SocketStream) -> None:
        self._loop = loop
        self._stream = stream
        self._protocol = ServerProtocol(max_size=MOST_MESSAGE)
        self._parts = bytearray()
        self._work = anyio.Event()

    async def run(self, channel: str, head: h11.Request, rest: bytes) -> None:
        """`rest`: what came behind the request."""
        self._protocol.receive_data(_request_bytes(head))
        for request in self._protocol.events_received():
            if isinstance(request, Request):
                self._protocol.send_response(self._protocol.accept(request))
        await self._flush()
        if self._protocol.state is not State.OPEN:
            return
        session = self._loop.board.connect(channel, anyio.current_time())
        session.ready = self._wake
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listen, session, rest)
                await self._write(session)
                tasks.cancel_scope.cancel()
        finally:
            self._loop.board.leave(session)

    async def _listen(self, session: PushSession, data: bytes) -> None:
        while self._protocol.state is State.OPEN:
            if data:
                self._protocol.receive_data(data)
            for event in self._protocol.events_received():
                if isinstance(event, Frame):
                    self._read(session, event)
            self._wake()
            try:
                data = await self._stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                self._protocol.receive_eof()
        self._wake()

    def _wake(self) -> None:
        """There may be something to send."""
        self._work.set()

    def _read(self, session: PushSession, frame: Frame) -> None:
        """A message may come in parts."""
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        self._parts += frame.data
        if frame.fin:
            message, self._parts = bytes(self._parts), bytearray()
            session.received(message)

    async def _write(self, session: PushSession) -> None:
        """The only one who sends, until the socket is closed or cut."""
        while not session.cut:
            for frame in session.outgoing() if self._protocol.state is State.OPEN else ():
                self._protocol.send_text(frame.encode())
            try:
                await self._flush()
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, TimeoutError):
                return  # gone, or too slow
            if self._protocol.state is not State.OPEN:
                return
            await self._work.wait()
            self._work = anyio.Event()

    async def _flush(self) -> None:
        """Raises TimeoutError for a reader who is too slow."""
        data = b"".join(self._protocol.data_to_send())
        if data:
            with anyio.fail_after(PATIENCE):
                await self._stream.send(data)


def _request_bytes(head: h11.Request) -> bytes:
    lines = [b"%s %s HTTP/1.1" % (head.method, head.target), *(b"%s: %s" % each for each in head.headers)]
    return b"\r\n".join([*lines, b"", b""])
