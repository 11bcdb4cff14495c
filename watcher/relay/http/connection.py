"""A connection until it is a stream: its request, and the plain answer if that is all it gets.

websockets knows answers of one piece only, and gives request and answer one time limit together. So this reads the
head and writes a plain answer by itself; an upgrade is handed to websockets with the bytes that came.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import msgspec
import structlog
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request
from websockets.protocol import State

from watcher.model.log import JournalError
from watcher.relay.http import body as bodies
from watcher.relay.http import head
from watcher.relay.http.admission import AcceptedSocket, Admission, Stage
from watcher.relay.http.body import BodyReader
from watcher.relay.http.body_budget import BodyBudget, Sender
from watcher.relay.http.body_memory import BodyMemory
from watcher.relay.http.head import HttpAnswer, NotBegun, answer_head, error, unavailable

DISCARDED = 4 * 1024 * 1024
"""Bytes that are read and thrown away (the body of who is refused, further requests): one answer is all there is."""
LEAST_TAKEN = 16 * 1024
"""Bytes that a reader takes in the time after which it is cut: one at a time would hold its place for ever."""
PIECE = 8 * 1024
"""Bytes of a body, or of what is thrown away, that are read at a stretch: in tiny chunks, three milliseconds of work."""
RESET = struct.pack("ii", 1, 0)
REST = 0.5
"""Seconds in which nothing is read of who sends too many bytes, before it is told so."""
CROWDED_OUT = error(503, "rate_limited", "too many send at once: come back later", ("Retry-After", "5"))
BUG = error(500, "internal", "this is a bug of the relay: its log says more")

logger = structlog.get_logger()


class HttpService(msgspec.Struct, frozen=True):
    """What all connections of one port share."""

    answer: Callable[["HttpConnection", Request], Awaitable[HttpAnswer | None]]
    """What a request gets; None lets it become a stream."""
    serve_stream: Callable[["HttpConnection"], Awaitable[None]]
    admission: Admission
    tasks: set[asyncio.Task[None]]
    """Where the task of each is kept until it ends."""
    upgrade_seconds: float
    """For the upgrade to a stream."""
    stall_seconds: float
    """In which something of a plain answer must be taken."""
    body_memory: BodyMemory = msgspec.field(default_factory=BodyMemory)
    body_budget: BodyBudget = msgspec.field(default_factory=BodyBudget)


class HttpConnection(ServerConnection):
    """Reads one request, and writes its answer or becomes a stream."""

    streams = False
    """It is websockets' from now on."""
    sender: Sender = ""
    """Whose body it has been asked for."""
    _socket: AcceptedSocket | None = None
    _limited_to: "set[HttpConnection] | None" = None
    _answering: anyio.CancelScope | None = None
    """Ends the answer. A task's own cancellation would leave a thread alone with the view that it reads in."""
    _body: BodyReader | None = None
    """Of a request whose body is read; kept until its answer is found."""
    _body_ended: "asyncio.Future[None] | None" = None
    """While the body is coming."""
    _body_left = False
    """The request has a body, which nobody has read to its end."""
    _in_pieces = False
    _discarded = 0
    _closing = False
    _ended = False
    """The other side has said that it sends no more."""

    def __init__(self, service: HttpService, *args: Any, **options: Any) -> None:
        """`args`, `options`: of websockets."""
        super().__init__(*args, **options)
        self._service = service
        self._received = bytearray()
        self._request: asyncio.Future[Request | HttpAnswer] = self.loop.create_future()

    def count_in(self, others: "set[HttpConnection]") -> None:
        """Be among those until the answer is written."""
        self._limited_to = others
        others.add(self)

    @property
    def address(self) -> str:
        """Whose it is; see `admission.address_group`."""
        return "" if self._socket is None else self._socket.address

    @property
    def held(self) -> int:
        """Bytes of a body."""
        return 0 if self._body is None else self._body.held

    def _has_gone(self) -> bool:
        """TLS may report a request and the end at once. What the connection held is given back by then."""
        return self.connection_lost_waiter.done()

    def _reach(self, stage: Stage) -> None:
        if self._socket is not None:
            self._socket.reach(stage)

    def dismiss(self) -> None:
        # A transport that was closed before its buffer was empty forgets its loop, and fails in `abort` once it is lost.
        if not self._has_gone():
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = self._service.admission.sockets.get(transport.get_extra_info("socket").fileno())
        if self._socket is not None:
            self._socket.serve(self)
        super(ServerConnection, self).connection_made(transport)  # which would have a server of websockets run it
        task = self.loop.create_task(self._run())
        self._service.tasks.add(task)
        task.add_done_callback(self._service.tasks.discard)
        if self._socket is not None and (received := self._socket.take_received()):
            self.data_received(received)

    async def _run(self) -> None:
        try:
            await self.handshake(server_header=None)
            if self.protocol.state is State.OPEN:
                async with self:
                    await self._service.serve_stream(self)
        except (ConnectionClosed, TimeoutError):
            pass  # it went, or is let go
        except Exception:
            logger.exception("relay.connection_failed")
        finally:
            self.dismiss()

    def data_received(self, data: bytes) -> None:
        if self.streams:
            super().data_received(data)
            return
        if self._body_ended is not None:
            self._receive_body(data)
            return
        if self._request.done():
            self._discarded += len(data)
            if self._discarded > DISCARDED:
                self._reset()
            return
        self._received += data
        size = head.size(self._received)
        request = head.hopeless(self._received) if size is None else head.parse(bytes(self._received[:size]))
        if request is not None:
            self.transport.pause_reading()  # until it is known whose the rest is
            self._reach(Stage.HANDLING)
            self._request.set_result(request)

    def eof_received(self) -> bool | None:  # type: ignore[override] # asyncio reads it
        if self.streams:
            return super().eof_received()
        self._ended = True
        if self._body is not None and self._body.end is None:
            self._refuse_body(error(400, "bad_request", bodies.SHORT))
        if self._in_pieces and self._answering is not None:
            self._answering.cancel()
        # An answer may still go out, except over TLS, which ends both ways at once.
        whole = self._answering is not None and not self._in_pieces and not self._closing
        return whole and self.transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._answering is not None:
            self._answering.cancel()

    async def handshake(self, *args: Any, **options: Any) -> None:
        waited: list[asyncio.Future[Any]] = [self._request, self.connection_lost_waiter]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)  # the port lets nobody wait for ever
        if self._has_gone() or not self._request.done():
            return
        streams = False
        with anyio.CancelScope() as self._answering:
            streams = await self._respond(self._request.result())
        # TLS is closed one turn of the loop before that is reported, and fails when it is closed and used once more.
        if self._has_gone() or self.transport.is_closing() or not streams:
            return
        self._answering = None
        received, self._received = bytes(self._received), bytearray()
        self.streams = True
        self._reach(Stage.WRITING)
        del self._request  # what a stream costs while it is idle is counted in bytes
        super().data_received(received)
        if not self.paused:
            self.transport.resume_reading()
        async with asyncio.timeout(self._service.upgrade_seconds):
            await super().handshake(*args, **options)
        if self._socket is not None and self.protocol.state is State.OPEN:
            self._service.admission.leave_pending(self._socket)

    async def _respond(self, found: Request | HttpAnswer) -> bool:
        """Find the answer and write it; True when there is none, since it may become a stream. Cancelled when it closes."""
        try:
            request, answer = (None, found) if isinstance(found, HttpAnswer) else (found, await self._answer(found))
            if answer is None:
                return True
            self._received.clear()
            self._reach(Stage.WRITING)
            self._read_in_pieces()
            await self._write(answer, request)
        except asyncio.CancelledError:
            self._reset()
            raise
        except Exception as problem:
            self._reset()
            if isinstance(problem, JournalError):
                logger.warning("relay.answer_broken", problem=str(problem))
            elif not isinstance(problem, TimeoutError | ConnectionError):  # it stalls, or has gone
                logger.exception("relay.answer_broken")
            return False
        finally:
            if self._limited_to is not None:
                self._limited_to.discard(self)
        await self._close()
        return False

    async def _answer(self, request: Request) -> HttpAnswer | None:
        self._body_left = head.has_body(request)
        try:
            return await self._service.answer(self, request)
        except Exception:
            logger.exception("relay.answer_failed")
            return BUG
        finally:
            if self._body is not None:
                self._body = None
                self._service.body_memory.leave(self)

    async def read_body(self, request: Request, most: int, sender: Sender) -> bytes | HttpAnswer:
        """That of the request which has come, of at most so many bytes; or why it is refused. Cancelled when it closes.

        Until it is whole it is a request that has not come, and ends as one when it takes too long. `sender`: whose bytes
        they are.
        """
        self.sender = sender
        framing = bodies.framing(request)
        if isinstance(framing, HttpAnswer):
            return framing
        body = BodyReader(framing, most)
        if body.end is not None:
            return body.end
        size = most if framing.length is None else framing.length
        if (seconds := self._service.body_budget.take(sender, size, self.loop.time())) > 0:
            await self._rest_unread()
            return bodies.too_fast(seconds)
        try:
            return await self._read_whole(request, body)
        finally:
            self._service.body_budget.give_back(sender, size - body.came)

    async def _rest_unread(self) -> None:
        """To refuse a body at once and throw it away costs as much as to take it, and its sender were back the sooner."""
        self._reach(Stage.READING)
        await asyncio.wait([self.connection_lost_waiter], timeout=REST)
        self._reach(Stage.HANDLING)

    async def _read_whole(self, request: Request, body: BodyReader) -> bytes | HttpAnswer:
        self._body = body
        begun = bytes(self._received[head.size(self._received) :])
        self._received.clear()
        body.receive(begun)
        self._service.body_memory.update(self)
        if body.end is None:
            await self._body_comes(wanted=not begun and bodies.expects_continue(request))
        assert body.end is not None
        if isinstance(body.end, bytes):
            self._body_left = False
            self._service.body_memory.keep(self)
        return body.end

    async def _body_comes(self, *, wanted: bool) -> None:
        """`wanted`: whether its sender waits until it hears that it is."""
        self._body_ended = self.loop.create_future()
        self._reach(Stage.READING)
        if wanted:
            self.transport.write(bodies.CONTINUE)
        if not self.transport.is_closing():
            self._read_in_pieces()
        try:
            await self._body_ended
        finally:
            self._body_ended = None
        self._reach(Stage.HANDLING)

    def _read_in_pieces(self) -> None:
        """It is no stream, and none any more: what is right for many small frames is too small for it."""
        if hasattr(self.transport, "max_size"):  # asyncio's own, for what one read takes; TLS has none
            self.transport.max_size = PIECE
        self.transport.resume_reading()

    def _receive_body(self, data: bytes) -> None:
        assert self._body is not None
        self._body.receive(data)
        self._service.body_memory.update(self)
        if self._body.end is not None:
            self._end_body()

    def crowd_out(self) -> None:
        self._refuse_body(CROWDED_OUT)

    def _refuse_body(self, answer: HttpAnswer) -> None:
        assert self._body is not None
        self._body.refuse(answer)
        self._end_body()

    def _end_body(self) -> None:
        if self._body_ended is not None and not self._body_ended.done():
            if not self.transport.is_closing():
                self.transport.pause_reading()  # until its answer is known, as behind a head
            self._body_ended.set_result(None)

    async def _close(self) -> None:
        """Everything is written: the other side is given a while to close."""
        self._closing = True
        self._reach(Stage.CLOSING)
        if self._body_left and not self._ended and not self.transport.can_write_eof():
            # TLS ends both ways at once: who is still sending would see that alone, and not the answer.
            await asyncio.wait([self.connection_lost_waiter], timeout=self.close_timeout)
        if self._has_gone():
            return
        if self._ended or not self.transport.can_write_eof():
            self.transport.close()
        else:
            with contextlib.suppress(OSError):  # it is closed, and the loop has not reported it yet
                self.transport.write_eof()
        await asyncio.wait([self.connection_lost_waiter], timeout=self.close_timeout)

    async def _write(self, answer: HttpAnswer, request: Request | None) -> None:
        """Raises TimeoutError when no byte is taken for too long, and what a body raises behind its first piece."""
        body = answer.body
        if isinstance(body, bytes):
            wanted = request is None or request.method != "HEAD"
            self.transport.write(answer_head(answer, length=len(body)) + (body if wanted else b""))
            await self._drained()
            return
        self._in_pieces = True
        try:
            await self._write_pieces(answer, body, request)
        finally:
            if close := getattr(body, "aclose", None):
                await close()

    async def _write_pieces(self, answer: HttpAnswer, body: AsyncIterator[bytes], request: Request | None) -> None:
        chunked = request is None or request.protocol == "HTTP/1.1"
        if request is not None and request.method == "HEAD":
            self.transport.write(answer_head(answer, chunked=chunked))
            return
        try:
            piece = await _next(body)
        except NotBegun as end:
            await self._write(end.answer, request)
            return
        except Exception as problem:  # who cannot even begin gets that as the answer
            if not isinstance(problem, JournalError):
                logger.exception("relay.answer_failed")
            await self._write(unavailable(problem) if isinstance(problem, JournalError) else BUG, request)
            return
        self.transport.write(answer_head(answer, chunked=chunked))
        while piece:
            self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await self._drained()
            piece = await _next(body)
        if chunked:
            self.transport.write(b"0\r\n\r\n")
            await self._drained()

    async def _drained(self) -> None:
        """Until the kernel has everything. Raises TimeoutError when it takes next to nothing in `stall_seconds`."""
        left = self.transport.get_write_buffer_size()
        while self.paused:
            try:
                async with asyncio.timeout(self._service.stall_seconds):
                    await self.drain()
            except TimeoutError:
                before, left = left, self.transport.get_write_buffer_size()
                if before - left < LEAST_TAKEN:
                    raise

    def _reset(self) -> None:
        """End it so that the other side sees that the answer is not whole: without chunks only a reset shows that."""
        if (raw := self.transport.get_extra_info("socket")) is not None and not self.transport.is_closing():
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.dismiss()


async def _next(body: AsyncIterator[bytes]) -> bytes:
    """The next piece that holds something; none when there is none."""
    async for piece in body:
        if piece:
            return piece
    return b""
