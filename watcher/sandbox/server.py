"""The thin part: HTTP/1.1 on loopback, one task a connection; a push channel takes its connection over. It decides nothing."""

import socket
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import anyio
import h11
from anyio.abc import SocketAttribute, SocketStream, TaskGroup, TaskStatus

from watcher.sandbox.messages import SimulatedReply, SimulatedRequest
from watcher.sandbox.push import PushLoop, PushSocket, channel_of
from watcher.sandbox.world import World

MOST_BODY = 1 << 20
IDLE = 120.0
"""Seconds after which a silent connection is closed."""


async def serve(
    world: World, *, host: str = "127.0.0.1", port: int = 0, task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled; `task_status` is given the port. Raises OSError when the port is taken."""
    pushing = PushLoop(world.pushes)

    async def converse(stream: SocketStream) -> None:
        await _Conversation(world, pushing, stream).run()

    async with (
        await anyio.create_tcp_listener(local_host=host, local_port=port) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(pushing.run)
        for each in listener.listeners:
            tasks.start_soon(_accept, each.extra(SocketAttribute.raw_socket), tasks, converse)  # noqa: S610 (anyio's)
        task_status.started(listener.extra(SocketAttribute.local_port))  # noqa: S610 (anyio's, not Django's)


async def _accept(
    listener: socket.socket, tasks: TaskGroup, converse: Callable[[SocketStream], Coroutine[Any, Any, None]]
) -> None:
    """For ever. It is cancelled while it waits, and never while it accepts: where somebody connects in the instant in which
    asyncio's own accept is cancelled, that accepts all the same, and the connection is lost with a traceback."""
    while True:
        await anyio.wait_readable(listener)
        with anyio.CancelScope(shield=True):
            stream = await _accepted(listener)
        if stream is not None:
            tasks.start_soon(converse, stream)


async def _accepted(listener: socket.socket) -> SocketStream | None:
    """None: who came has gone again."""
    try:
        one, _ = listener.accept()
    except (BlockingIOError, ConnectionAbortedError):
        return None
    try:
        one.setblocking(False)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return await SocketStream.from_socket(one)
    except (OSError, ValueError):  # ValueError: anyio's, of one that is not connected any more
        one.close()
        return None


class _Conversation:
    """One connection: requests one after another, until either side has had enough."""

    def __init__(self, world: World, pushing: PushLoop, stream: SocketStream) -> None:
        self._world = world
        self._pushing = pushing
        self._stream = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 16)

    async def run(self) -> None:
        async with self._stream:
            try:
                while await self._exchange():
                    self._http.start_next_cycle()
            except h11.RemoteProtocolError:
                await self._complain()
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, TimeoutError):
                return  # the client left; that is its right

    async def _exchange(self) -> bool:
        """One request and its reply. False: the connection ends here."""
        head = await self._event()
        if not isinstance(head, h11.Request):
            return False
        request = _request(head, await self._body())
        channel = channel_of(head)
        if channel is not None:
            rest, _ = self._http.trailing_data
            await PushSocket(self._pushing, self._stream).run(channel, head, rest)
            return False
        await anyio.sleep(self._world.travel())
        answer = self._world.answer(request, anyio.current_time())
        await anyio.sleep(answer.delay + self._world.travel())
        await self._send(answer)
        return answer.cut is None and self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _body(self) -> bytes:
        body = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
            if len(body) > MOST_BODY:
                raise h11.RemoteProtocolError("body too large", error_status_hint=413)
        return bytes(body)

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._receive())
        return event

    async def _receive(self) -> bytes:
        with anyio.fail_after(IDLE):
            try:
                return await self._stream.receive()
            except anyio.EndOfStream:
                return b""

    async def _send(self, answer: SimulatedReply) -> None:
        """Head and body in one write, as much of them as the reply wants to be seen."""
        if answer.cut is not None and answer.cut < 0:
            return
        headers = [*answer.headers.items(), ("content-length", str(len(answer.body)))]
        head = self._http.send(h11.Response(status_code=answer.status, headers=headers))
        body = answer.body[: answer.cut]
        data = [head, self._http.send(h11.Data(data=body))]
        if answer.cut is None:
            data.append(self._http.send(h11.EndOfMessage()))
        await self._stream.send(b"".join(part for part in data if part))

    async def _complain(self) -> None:
        """Not HTTP, or too much of it."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self._send(SimulatedReply(400, {"connection": "close"}, b"bad request"))


def _request(head: h11.Request, body: bytes) -> SimulatedRequest:
    target = urlsplit(head.target.decode("ascii", "replace"))
    return SimulatedRequest(
        method=head.method.decode("ascii"),
        path=unquote(target.path),
        query=dict(parse_qsl(target.query, keep_blank_values=True)),
        headers={name.decode("ascii"): value.decode("latin-1") for name, value in head.headers},
        body=body,
    )
