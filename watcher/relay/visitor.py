"""A connection until it is a stream: its request, and the plain answer if that is all it gets.

websockets knows answers of one piece only, and gives request and answer one time limit together. So a visitor reads
the head and writes a plain answer by itself; an upgrade is handed to websockets with the bytes that came.
"""

import asyncio
import contextlib
import http
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import structlog
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from watcher.events import JournalError
from watcher.relay import heads
from watcher.relay.door import ANSWERED, STARTING, TELLING, Door, Guest
from watcher.relay.plain import Answer, error, unavailable

THROWN = 1024 * 1024
"""Bytes behind a head that are read and thrown away (a body, further requests): one answer is all there is."""
LEAST = 16 * 1024
"""Bytes that a reader takes in the time after which it is cut: one at a time would hold its place for ever."""
RESET = struct.pack("ii", 1, 0)
BUG = error(500, "internal", "this is a bug of the relay: its log says more")

logger = structlog.get_logger()


class Visitor(ServerConnection):
    """Reads one request and asks `answer` for what to say: None lets it become a stream."""

    answer: Callable[["Visitor", Request], Awaitable[Answer | None]]
    handle: Callable[["Visitor"], Awaitable[None]]
    """Serves it once it is a stream."""
    door: Door
    tasks: set[asyncio.Task[None]]
    """Where its own is kept until it ends."""
    upgrade: float
    """Seconds for the upgrade to a stream."""
    stall: float
    """Seconds in which something of a plain answer must be taken."""
    streams = False
    """It is websockets' from now on."""
    _guest: Guest | None = None
    _among: "set[Visitor] | None" = None
    _telling: anyio.CancelScope | None = None
    """Ends the answer. A task's own cancellation would leave a thread alone with the view that it reads in."""
    _in_pieces = False
    _thrown = 0
    _parting = False
    _ended = False
    """The other side has said that it sends no more."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._received = bytearray()
        self._asked: asyncio.Future[Request | Answer] = self.loop.create_future()

    def join(self, others: "set[Visitor]") -> None:
        """Be among those until the answer is told."""
        self._among = others
        others.add(self)

    @property
    def address(self) -> str:
        """Whose it is; see `door.network`."""
        return "" if self._guest is None else self._guest.address

    def _has_gone(self) -> bool:
        """TLS may tell of its request and of its end at once. What it had is given back then, and it takes no more."""
        return self.connection_lost_waiter.done()

    def _move(self, stage: int) -> None:
        if self._guest is not None:
            self.door.move(self._guest, stage)

    def dismiss(self) -> None:
        # A transport that was closed before its buffer was empty forgets its loop, and fails in `abort` once it is lost.
        if not self._has_gone():
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._guest = self.door.guests.get(transport.get_extra_info("socket").fileno())
        if self._guest is not None:
            self._guest.visitor = self
        super(ServerConnection, self).connection_made(transport)  # which would have a server of websockets run it
        task = self.loop.create_task(self._run())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        if self._guest is not None and self._guest.received:
            self.data_received(bytes(self._guest.received))
            self._guest.received.clear()

    async def _run(self) -> None:
        try:
            await self.handshake(server_header=None)
            if self.protocol.state is State.OPEN:
                async with self:
                    await self.handle(self)
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
        if self._asked.done():
            self._thrown += len(data)
            if self._thrown > THROWN:
                self._cut()
            return
        self._received += data
        size = heads.size(self._received)
        asked = heads.hopeless(self._received) if size is None else heads.parse(bytes(self._received[:size]))
        if asked is not None:
            self.transport.pause_reading()  # until it is known whose the rest is
            self._move(STARTING)
            self._asked.set_result(asked)

    def eof_received(self) -> bool | None:  # type: ignore[override] # asyncio reads it
        if self.streams:
            return super().eof_received()
        self._ended = True
        if self._in_pieces and self._telling is not None:
            self._telling.cancel()
        # What is asked for may still go out, but for TLS, which ends both ways at once.
        return (
            self._telling is not None and not self._in_pieces and not self._parting and self.transport.can_write_eof()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._telling is not None:
            self._telling.cancel()

    async def handshake(self, *args: Any, **options: Any) -> None:
        waited: list[asyncio.Future[Any]] = [self._asked, self.connection_lost_waiter]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)  # the door lets nobody wait for ever
        if self._has_gone() or not self._asked.done():
            return
        streams = False
        with anyio.CancelScope() as self._telling:
            streams = await self._tell(self._asked.result())
        if self._has_gone() or not streams:
            return
        self._telling = None
        received, self._received = bytes(self._received), bytearray()
        self.streams = True
        self._move(TELLING)
        del self._asked  # what a stream costs while it is idle is counted in bytes
        super().data_received(received)
        if not self.paused:
            self.transport.resume_reading()
        async with asyncio.timeout(self.upgrade):
            await super().handshake(*args, **options)
        if self._guest is not None and self.protocol.state is State.OPEN:
            self.door.stays(self._guest)

    async def _tell(self, asked: Request | Answer) -> bool:
        """Find the answer and write it; True when there is none, since it may become a stream. Ends when it goes."""
        try:
            request, answer = (None, asked) if isinstance(asked, Answer) else (asked, await self._answer(asked))
            if answer is None:
                return True
            self._received.clear()
            self._move(TELLING)
            self.transport.resume_reading()
            await self._write(answer, request)
        except asyncio.CancelledError:
            self._cut()
            raise
        except Exception as problem:
            self._cut()
            if isinstance(problem, JournalError):
                logger.warning("relay.answer_broken", problem=str(problem))
            elif not isinstance(problem, TimeoutError | ConnectionError):  # it stalls, or has gone
                logger.exception("relay.answer_broken")
            return False
        finally:
            if self._among is not None:
                self._among.discard(self)
        await self._part()
        return False

    async def _answer(self, request: Request) -> Answer | None:
        try:
            return await self.answer(self, request)
        except Exception:
            logger.exception("relay.answer_failed")
            return BUG

    async def _part(self) -> None:
        """Everything is told: the other side is given a while to close."""
        self._parting = True
        self._move(ANSWERED)
        if self._ended or not self.transport.can_write_eof():
            self.transport.close()
        else:
            with contextlib.suppress(OSError):  # it has gone, and the loop has not heard of it yet
                self.transport.write_eof()
        await asyncio.wait([self.connection_lost_waiter], timeout=self.close_timeout)

    async def _write(self, answer: Answer, request: Request | None) -> None:
        """Raises TimeoutError when no byte is taken for too long, and what a body raises behind its first piece."""
        body = answer.body
        if isinstance(body, bytes):
            wanted = request is None or request.method != "HEAD"
            self.transport.write(_head(answer, length=len(body)) + (body if wanted else b""))
            await self._taken()
            return
        self._in_pieces = True
        try:
            await self._write_pieces(answer, body, request)
        finally:
            if close := getattr(body, "aclose", None):
                await close()

    async def _write_pieces(self, answer: Answer, body: AsyncIterator[bytes], request: Request | None) -> None:
        chunked = request is None or request.protocol == "HTTP/1.1"
        if request is not None and request.method == "HEAD":
            self.transport.write(_head(answer, chunked=chunked))
            return
        try:
            piece = await _next(body)
        except Exception as problem:  # who cannot even begin gets that as the answer
            if not isinstance(problem, JournalError):
                logger.exception("relay.answer_failed")
            await self._write(unavailable(problem) if isinstance(problem, JournalError) else BUG, request)
            return
        self.transport.write(_head(answer, chunked=chunked))
        while piece:
            self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await self._taken()
            piece = await _next(body)
        if chunked:
            self.transport.write(b"0\r\n\r\n")
            await self._taken()

    async def _taken(self) -> None:
        """Until the kernel has everything. Raises TimeoutError when it takes next to nothing in `stall` seconds."""
        left = self.transport.get_write_buffer_size()
        while self.paused:
            try:
                async with asyncio.timeout(self.stall):
                    await self.drain()
            except TimeoutError:
                before, left = left, self.transport.get_write_buffer_size()
                if before - left < LEAST:
                    raise

    def _cut(self) -> None:
        """End it so that the other side sees that it has not got the whole: without chunks only a reset tells."""
        if (raw := self.transport.get_extra_info("socket")) is not None and not self.transport.is_closing():
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.dismiss()


async def _next(body: AsyncIterator[bytes]) -> bytes:
    """The next piece that holds something; none when there is none."""
    async for piece in body:
        if piece:
            return piece
    return b""


def _head(answer: Answer, *, length: int | None = None, chunked: bool = False) -> bytes:
    headers = Headers({"Content-Type": answer.content_type})
    if length is not None:
        headers["Content-Length"] = str(length)
    elif chunked:
        headers["Transfer-Encoding"] = "chunked"
    headers.update(
        {
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Connection": "close",
            **dict(answer.headers),
        }
    )
    return Response(answer.status, http.HTTPStatus(answer.status).phrase, headers).serialize()
