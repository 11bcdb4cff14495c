"""websockets: what `watcher/relay/websocket.py` and `watcher/relay/http/connection.py` take from inside a connection."""

import asyncio
import contextlib

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State
from websockets.server import ServerProtocol

pytestmark = pytest.mark.anyio
PATIENCE = 60.0


@pytest.fixture
def anyio_backend():
    return "asyncio"


@contextlib.asynccontextmanager
async def served(handle, **more):
    async with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None, **more) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def test_recv_messages_pauses_when_its_queue_is_full_and_resumes_through_the_attribute_that_we_replace():
    paused, read, resumed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(connection):
        original = connection.recv_messages.resume
        assert original == connection.transport.resume_reading

        def resume():
            resumed.set()
            original()

        connection.recv_messages.resume = resume
        while not connection.recv_messages.paused:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        assert not connection.transport.is_reading()
        paused.set()
        await read.wait()
        async for _ in connection:
            pass

    async with asyncio.timeout(PATIENCE), served(handle, max_queue=4) as url, connect(url) as client:
        for _ in range(10):
            await client.send("x")
        await paused.wait()
        assert not resumed.is_set()
        read.set()
        await resumed.wait()


async def test_send_data_writes_at_once_what_the_protocol_was_told_to_send():
    async def handle(connection):
        assert connection.protocol.state is State.OPEN
        connection.protocol.send_close(4000, "because")
        connection.send_data()  # no await: nobody may come between
        assert connection.protocol.state is not State.OPEN
        with contextlib.suppress(ConnectionClosed):
            await connection.recv()

    async with asyncio.timeout(PATIENCE), served(handle) as url, connect(url) as client:
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "because")


async def test_a_connection_is_told_what_its_transport_tells_and_keeps_whether_it_is_paused():
    told, ended = [], asyncio.Event()

    class Watched(ServerConnection):
        def connection_made(self, transport):
            super().connection_made(transport)
            told.append(("made", self.transport is transport, self.paused))

        def pause_writing(self):
            super().pause_writing()
            told.append(("paused", self.paused))

        def resume_writing(self):
            super().resume_writing()
            told.append(("resumed", self.paused))

        def connection_lost(self, error):
            super().connection_lost(error)
            told.append(("lost",))
            ended.set()

    async def handle(connection):
        connection.transport.set_write_buffer_limits(high=1, low=0)
        connection.transport.write(b"\x82\x7f" + (1 << 24).to_bytes(8, "big") + bytes(1 << 24))  # one binary frame
        await connection.wait_closed()

    async with asyncio.timeout(PATIENCE), served(handle, create_connection=Watched) as url:
        async with connect(url, max_size=None, compression=None) as client:
            assert len(await client.recv()) == 1 << 24
        await ended.wait()
    assert told == [("made", True, False), ("paused", True), ("resumed", False), ("lost",)]


async def test_a_connection_lives_without_the_librarys_server_and_reads_its_request_from_bytes_that_it_is_given():
    class Serving:
        def is_serving(self):
            return True

    class Alone(ServerConnection):
        def connection_made(self, transport):
            super(ServerConnection, self).connection_made(transport)
            self.data_received(b"GET /x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
            self.task = self.loop.create_task(self.run())

        async def run(self):
            await self.handshake(server_header=None)
            assert (self.request.path, self.protocol.state) == ("/x", State.OPEN)
            async with self:
                await self.send("hello")

    def create():
        return Alone(ServerProtocol(max_size=1000), Serving(), ping_interval=None, max_queue=4, write_limit=0)

    async with asyncio.timeout(PATIENCE):
        server = await asyncio.get_running_loop().create_server(create, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(7) == b"\x81\x05hello"
        assert await reader.readexactly(4) == b"\x88\x02\x03\xe8"
        writer.close()
        await writer.wait_closed()
        server.close()
