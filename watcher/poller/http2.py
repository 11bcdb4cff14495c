"""One connection of HTTP/2, for as many requests at a time as the server takes.

httpcore's own reads only while a request waits, loses what the server promised to finish when it sends GOAWAY, and never
ends once the other end is silent, since our deadline ends an attempt from outside. Here one task reads for all
requests, idle or not, so that the end of a connection is known before the next request is sent on it:

- GOAWAY: no new request. What the server will finish is read, what it did not accept fails.
- RST_STREAM: that request fails, the others go on.
- A request that times out: no new request. When nothing at all came since it began, the connection is dead, and
  with it whatever else was sent on it.

Nothing is repeated. Only a request of which no byte was sent moves to another connection. One whose lease is over when
it would be written is withdrawn.
"""

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from typing import NoReturn

import anyio
import anyio.lowlevel
import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import httpcore

from watcher.limits.lease import Unsent
from watcher.poller.http2_messages import has_body, request_headers, status_and_headers, without_requests

READ_BYTES = 64 * 1024
"""Bytes off the wire at once."""
RECEIVE_WINDOW = 2**24
"""Bytes that may come unread, of one answer and of all together."""
FRAMES_PER_STEP = 32
"""Handled in one step of work."""
MAX_IDLE_FRAMES = 5_000
"""Frames in a row, at most, that belong to no answer: pings, settings, interim answers."""
MAX_STREAMS = 100
"""Requests at a time at most, whatever the server allows."""
TURNS_BEFORE_SEND = 3
"""Turns of the loop in which what the kernel holds already is read; when we were stalled, that may be a GOAWAY."""
REFUSED = "Request refused"
"""The message when the server did not accept a request."""
BROKEN_OFF = "Answer broken off"
"""The message when the server gave up one answer alone."""
_GOAWAY = 7
_FRAME_HEAD = 9
_H2_CONFIG = h2.config.H2Configuration(validate_inbound_headers=False)
_Event = h2.events.ResponseReceived | h2.events.DataReceived | h2.events.StreamEnded | h2.events.StreamReset


class _Stream:
    """One request and its answer."""

    def __init__(self) -> None:
        self.number = 0
        self.events: deque[_Event] = deque()
        self.failure: tuple[type[Exception], str] | None = None
        """What ends it after the events."""
        self.sent = False
        self.whole = False
        """The whole answer has come."""
        self._news = anyio.Event()

    def wake(self) -> None:
        self._news.set()

    async def changed(self) -> None:
        """Wait for whatever may concern this stream."""
        await self._news.wait()
        self._news = anyio.Event()

    async def next(self) -> _Event:
        """The next event. Raises what ended the stream."""
        while not self.events:
            if self.failure is not None:
                kind, message = self.failure
                raise kind(message)
            await self.changed()
        return self.events.popleft()


class Http2(httpcore.AsyncConnectionInterface):
    """Over a network stream. `run` has to run beside the requests.

    keep: seconds that it is kept idle. may_write: whether a request may leave now.
    """

    def __init__(
        self, origin: httpcore.Origin, stream: httpcore.AsyncNetworkStream, keep: float, may_write: Callable[[], bool]
    ) -> None:
        self._origin = origin
        self._network = stream
        self._keep = keep
        self._may_write = may_write
        self._h2 = _greeting()
        self._streams: dict[int, _Stream] = {}
        self._unwritten: dict[int, _Stream] = {}
        """Requests of which something waits to be written."""
        self._greeted = False
        """The server's settings have come: how many requests it takes at a time."""
        self._retired = False
        """Takes no new request."""
        self._closed = False
        self._used = False
        self._end_reason: tuple[type[Exception], str] = (httpcore.RemoteProtocolError, REFUSED)
        """What ended it."""
        self._last_received = self._idle_since = anyio.current_time()
        self._idle_frames = 0
        self._unread = bytearray()
        """The beginning of a frame."""
        self._outgoing = anyio.Event()
        self._outgoing.set()
        self._room = anyio.Event()
        self._tasks = anyio.create_task_group()

    # --- the two tasks of a connection

    async def run(self) -> None:
        """Read and write until the end; closes the network stream."""
        try:
            async with self._tasks as tasks:
                tasks.start_soon(self._write)
                await self._read()
        finally:
            self._end(httpcore.ReadError, "closed by us")
            with anyio.CancelScope(shield=True):
                await self._network.aclose()

    async def _read(self) -> None:
        try:
            while data := await self._network.read(READ_BYTES):
                self._last_received = anyio.current_time()
                self._unread += data
                for number, frame in enumerate(self._frames(), 1):
                    self._receive(frame)
                    if number % FRAMES_PER_STEP == 0:
                        await anyio.lowlevel.checkpoint()
                self._outgoing.set()
            self._end(httpcore.RemoteProtocolError, "Server disconnected")
        except httpcore.NetworkError as error:
            self._end(type(error), "broken")
        except h2.exceptions.ProtocolError:
            self._end(httpcore.RemoteProtocolError, "no HTTP/2 as we know it")

    async def _write(self) -> None:
        try:
            while True:
                await self._outgoing.wait()
                self._outgoing = anyio.Event()
                frames = self._h2.data_to_send()
                if self._unwritten and not self._may_write():
                    frames = without_requests(frames, self._unwritten)
                    self._withdraw_requests()
                self._unwritten.clear()
                await self._network.write(frames)
        except httpcore.NetworkError:
            self._retire()  # something may be left to read, and reading meets the end

    def _withdraw_requests(self) -> None:
        """The lease is over: what is not written of requests never will be. No other may follow here, since the server
        will miss headers that our compression has counted in."""
        self._retired = True
        for stream in self._unwritten.values():
            stream.failure = stream.failure or (Unsent, "")
        self._wake_all()

    def _frames(self) -> Iterator[bytes]:
        """Those that are whole, one by one: what is right before a wrong one is used."""
        unread = self._unread
        while len(unread) >= _FRAME_HEAD:
            size = _FRAME_HEAD + int.from_bytes(unread[:3])
            if size > _FRAME_HEAD + self._h2.max_inbound_frame_size:
                raise h2.exceptions.FrameTooLargeError
            if len(unread) < size:
                break
            frame = bytes(unread[:size])
            del unread[:size]
            yield frame

    def _receive(self, frame: bytes) -> None:
        if frame[3] == _GOAWAY:  # h2 would receive nothing any more, not even what the server promises here to finish
            self._go_away(int.from_bytes(frame[_FRAME_HEAD : _FRAME_HEAD + 4]) & 0x7FFFFFFF)
            return
        self._idle_frames += 1
        if self._idle_frames > MAX_IDLE_FRAMES:
            raise h2.exceptions.ProtocolError
        for event in self._h2.receive_data(frame):
            if isinstance(event, _Event):
                self._receive_for_stream(event)
            elif isinstance(event, h2.events.RemoteSettingsChanged):
                self._greeted = True
                self._wake_all()
            elif isinstance(event, h2.events.WindowUpdated):
                self._wake_all()

    def _receive_for_stream(self, event: _Event) -> None:
        stream = self._streams.get(event.stream_id or 0)
        if stream is None:  # given up before
            if isinstance(event, h2.events.DataReceived):
                self._acknowledge(event)
            return
        if isinstance(event, h2.events.StreamReset):
            refused = event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM
            stream.failure = stream.failure or (httpcore.RemoteProtocolError, REFUSED if refused else BROKEN_OFF)
        else:
            self._idle_frames = 0
            stream.events.append(event)
            stream.whole = isinstance(event, h2.events.StreamEnded)
        stream.wake()

    def _go_away(self, last: int) -> None:
        for number, stream in self._streams.items():
            if number > last:
                stream.failure = (httpcore.RemoteProtocolError, REFUSED)
        self._retire()

    # --- one request

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Raises ConnectionNotAvailable when nothing of it was sent, and the network's and the protocol's errors."""
        began, stream = anyio.current_time(), _Stream()
        try:
            await self._begin(stream, request)
            await trace_phase(request, "http2.send_request_headers.started")
            await self._send_body(stream, request)
            await trace_phase(request, "http2.receive_response_headers.started")
            answer = await stream.next()
            assert isinstance(answer, h2.events.ResponseReceived), "h2 lets nothing come before it"
            status, headers = status_and_headers(answer)
        except BaseException as error:
            self._leave_stream(stream)
            if isinstance(error, anyio.get_cancelled_exc_class()):
                self._timed_out(began)
            raise
        body = self._body(stream, request, began)
        return httpcore.Response(
            status,
            headers=headers,
            content=_Body(body, lambda: self._leave_stream(stream)),
            extensions={"http_version": b"HTTP/2"},
        )

    async def _begin(self, stream: _Stream, request: httpcore.Request) -> None:
        for _ in range(TURNS_BEFORE_SEND):
            await anyio.lowlevel.checkpoint()
        while not self._retired and len(self._streams) >= self._most:
            await self._room.wait()
        if self._retired:
            self._move_request()
        try:
            number = self._h2.get_next_available_stream_id()
        except h2.exceptions.NoAvailableStreamIDError:
            self._retire()
            raise httpcore.ConnectionNotAvailable from None
        self._used = True
        stream.sent = not has_body(request)
        self._h2.send_headers(number, request_headers(request), end_stream=stream.sent)
        stream.number = number
        self._streams[number] = self._unwritten[number] = stream
        self._outgoing.set()

    def _move_request(self) -> NoReturn:
        """To another connection; but one that took no request at all would be followed by more like it, without end."""
        kind, message = self._end_reason
        raise httpcore.ConnectionNotAvailable if self._used else kind(message)

    @property
    def _most(self) -> int:
        """Until the server has spoken, one."""
        return min(self._h2.remote_settings.max_concurrent_streams, MAX_STREAMS) if self._greeted else 1

    async def _send_body(self, stream: _Stream, request: httpcore.Request) -> None:
        if stream.sent:
            return
        assert isinstance(request.stream, AsyncIterable)
        async for data in request.stream:
            rest = memoryview(data)
            while rest:
                if stream.failure or stream.whole:
                    return  # the server does not want the rest
                room = min(self._h2.local_flow_control_window(stream.number), self._h2.max_outbound_frame_size)
                if room > 0:
                    self._h2.send_data(stream.number, bytes(rest[:room]))
                    self._unwritten[stream.number] = stream
                    self._outgoing.set()
                    rest = rest[room:]
                else:
                    await stream.changed()
        if not (stream.failure or stream.whole):
            self._h2.end_stream(stream.number)
            self._unwritten[stream.number] = stream
            self._outgoing.set()
            stream.sent = True

    async def _body(self, stream: _Stream, request: httpcore.Request, began: float) -> AsyncIterator[bytes]:
        try:
            await trace_phase(request, "http2.receive_response_body.started")
            while not isinstance(event := await stream.next(), h2.events.StreamEnded):
                if isinstance(event, h2.events.DataReceived):
                    self._acknowledge(event)
                    yield event.data or b""
        except anyio.get_cancelled_exc_class():
            self._timed_out(began)
            raise

    def _acknowledge(self, event: h2.events.DataReceived) -> None:
        """Let the server send as much again."""
        self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        self._outgoing.set()

    def _leave_stream(self, stream: _Stream) -> None:
        """The stream is whole or given up."""
        if self._streams.pop(stream.number, None) is None:
            return
        for event in stream.events:
            if isinstance(event, h2.events.DataReceived):
                self._acknowledge(event)
        if not (stream.failure or (stream.sent and stream.whole)):
            self._h2.reset_stream(stream.number, h2.errors.ErrorCodes.CANCEL)
        self._outgoing.set()
        self._idle_since = anyio.current_time()
        self._wake_all()
        if self._retired:
            self._retire()

    # --- its end

    def _timed_out(self, began: float) -> None:
        """An attempt that began at `began` was ended by its deadline."""
        if self._last_received <= began:
            self._end(httpcore.ReadTimeout, "silent")
        else:
            self._retire()

    def _retire(self) -> None:
        """Take no new request, and close when the last answer has come."""
        self._retired = True
        self._wake_all()
        if not self._streams:
            self._end(httpcore.ReadError, "closed by us")

    def _end(self, kind: type[Exception], message: str) -> None:
        if not self._closed:
            if not self._retired:
                self._end_reason = (kind, message)
            self._closed = self._retired = True
            for stream in self._streams.values():
                stream.failure = stream.failure or (kind, message)
            self._wake_all()
            self._tasks.cancel_scope.cancel()

    def _wake_all(self) -> None:
        room, self._room = self._room, anyio.Event()
        room.set()
        for stream in self._streams.values():
            stream.wake()

    async def aclose(self) -> None:
        """Ends `run`, which closes the stream."""
        self._end(httpcore.ReadError, "closed by us")

    # --- what a pool asks

    def info(self) -> str:
        return f"HTTP/2, {len(self._streams)} requests"

    def can_handle_request(self, origin: httpcore.Origin) -> bool:
        return origin == self._origin

    def is_available(self) -> bool:
        return not self._retired

    def has_expired(self) -> bool:
        return self.is_idle() and anyio.current_time() - self._idle_since > self._keep

    def is_idle(self) -> bool:
        return not self._closed and not self._streams

    def is_closed(self) -> bool:
        return self._closed


class _Body:
    """The body of an answer. `leave` is called when it ends, however it does."""

    def __init__(self, parts: AsyncIterator[bytes], leave: Callable[[], None]) -> None:
        self._parts = parts
        self._leave_stream = leave

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._parts

    async def aclose(self) -> None:
        self._leave_stream()


async def trace_phase(request: httpcore.Request, event: str) -> None:
    """Call the request's `trace` with how far it is, in httpcore's words."""
    if (trace := request.extensions.get("trace")) is not None:
        await trace(event, {})


def _greeting() -> h2.connection.H2Connection:
    """A connection with a client's first frames ready to be sent."""
    codes = h2.settings.SettingCodes
    ours = {codes.ENABLE_PUSH: 0, codes.INITIAL_WINDOW_SIZE: RECEIVE_WINDOW, codes.MAX_HEADER_LIST_SIZE: READ_BYTES}
    connection = h2.connection.H2Connection(_H2_CONFIG)
    connection.local_settings = h2.settings.Settings(client=True, initial_values=ours)
    del connection.local_settings[codes.ENABLE_CONNECT_PROTOCOL]  # for servers alone, and some refuse it from a client
    connection.initiate_connection()
    connection.increment_flow_control_window(RECEIVE_WINDOW)
    return connection
