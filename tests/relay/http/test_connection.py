"""A plain answer on the wire: whole or in pieces, to those who read, who stall and who go."""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading

import anyio
import httpx
import pytest
from websockets.server import ServerProtocol

from tests import loopback
from tests.relay.hostile import UPGRADE, frame
from tests.relay.stage import PATIENCE, until
from watcher.model.log import Unavailable
from watcher.relay.http.admission import Admission
from watcher.relay.http.connection import DISCARDED, HttpConnection, HttpService
from watcher.relay.http.head import HttpAnswer

pytestmark = pytest.mark.anyio

BIG = bytes(1 << 20)


class Pieces:
    """A body that keeps count: what was asked of it, and whether it was closed."""

    def __init__(self, *pieces, then=None):
        self.pieces = pieces
        self.then = then
        self.asked = 0
        self.closed = asyncio.Event()

    async def __call__(self):
        try:
            for piece in self.pieces:
                self.asked += 1
                yield piece
            if self.then is not None:
                await self.then()
        finally:
            self.closed.set()


class Serving:
    """What websockets asks of a server."""

    def is_serving(self):
        return True


class Made(list):
    """The connections of a server, and the tasks that they run in."""

    def __init__(self):
        super().__init__()
        self.tasks = set()


@contextlib.asynccontextmanager
async def visited(answer, serve_stream=None, *, stall=3600.0, kind=HttpConnection, tls=None):
    """A server of connections that get that answer, or become streams; gives its port, and those that it made."""
    made = Made()
    service = HttpService(answer, serve_stream, Admission(1), made.tasks, PATIENCE, stall)

    def create():
        options = {"ping_interval": None, "close_timeout": PATIENCE, "write_limit": 0 if tls is None else (1, 0)}
        made.append(kind(service, ServerProtocol(), Serving(), **options))
        return made[-1]

    async with asyncio.timeout(PATIENCE):
        server = await asyncio.get_running_loop().create_server(create, "127.0.0.1", 0, ssl=tls)
        try:
            yield server.sockets[0].getsockname()[1], made
        finally:
            server.close()
            for connection in made:
                connection.dismiss()
                await connection.wait_closed()


def telling(body, *, stall=3600.0):
    """A server that answers everything with that body."""

    async def answer(connection, request):
        return HttpAnswer(200, "text/plain", body() if isinstance(body, Pieces) else body)

    return visited(answer, stall=stall)


@contextlib.asynccontextmanager
async def asking(port, request=b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", *, buffer=None):
    """A client that has sent its request and reads when it is told to."""
    raw = socket.socket()
    if buffer is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=1024)
    writer.write(request)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


class Lost(HttpConnection):
    """Its connection ends in the turn of the loop in which it has asked, as TLS can."""

    def data_received(self, data):
        super().data_received(data)
        self.transport.abort()


async def forever():
    await asyncio.Event().wait()


async def broken():
    raise OSError("the disk is gone")


async def test_who_resets_as_the_last_byte_is_told_has_gone_and_no_more(capsys):
    raw = socket.socket()

    async def resets():
        """In the turn of the loop in which the answer ends: nobody else has heard of it."""
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()

    async with telling(Pieces(b"all of it", then=resets)) as (port, made):
        raw.connect(("127.0.0.1", port))
        raw.sendall(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
        await until(lambda: made and raw.fileno() < 0)
        await made[0].wait_closed()
    assert "relay.connection_failed" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", [Lost, HttpConnection])
async def test_who_is_gone_before_it_is_a_stream_takes_no_place(kind, capsys):
    """Nobody would give it back: that it has gone was told already."""
    taken = []

    async def upgrade(connection, request):
        taken.append(connection)
        connection.transport.abort()  # for who is still there

    async with visited(upgrade, kind=kind) as (port, made), asking(port, UPGRADE):
        await until(lambda: made)
        await made[0].wait_closed()
        await until(lambda: not made.tasks)
        assert taken == ([] if kind is Lost else made)
    assert "relay.connection_failed" not in capsys.readouterr().out


async def test_who_asks_for_a_stream_over_tls_and_closes_before_it_is_one_is_no_fault_of_ours(tmp_path, capsys):
    certificate = loopback.made(tmp_path, "IP:127.0.0.1")

    async def upgrade(connection, request):
        while not connection.transport._closed:  # noqa: ASYNC110 - until the turn before the connection hears of it
            await asyncio.sleep(0)

    async with visited(upgrade, tls=loopback.context(certificate)) as (port, made):
        trust = ssl.create_default_context(cafile=certificate[0])
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
        writer.write(UPGRADE + frame(8, b"\x03\xe8"))
        writer.close()
        await until(lambda: made and made[0].connection_lost_waiter.done() and not made.tasks)
    assert "relay.connection_failed" not in capsys.readouterr().out


@pytest.mark.parametrize("leave", ["abort", "half", "reset"])
async def test_who_goes_while_a_thread_reads_for_it_is_waited_for_by_nobody_but_its_body(leave, capsys):
    """A view is closed by the last who reads in it. A thread that still did would take the whole process with it."""
    done = threading.Event()
    events = []

    async def reads():
        def work():
            done.wait(PATIENCE)
            events.append("read")

        try:
            await anyio.to_thread.run_sync(work)
        finally:
            events.append("closed")

    async with telling(Pieces(b"first", then=reads)) as (port, made), asking(port) as (reader, writer):
        try:
            await reader.readuntil(b"first")
            if leave == "half":
                writer.write_eof()
            elif leave == "reset":
                made[0].transport.abort()
            else:
                writer.transport.abort()
            await until(lambda: made[0].transport.is_closing() or made[0]._ended)
            for _ in range(10):
                await asyncio.sleep(0)
        finally:
            done.set()
        await until(lambda: not made.tasks)
    assert events == ["read", "closed"]


async def test_who_resets_while_it_is_told_is_no_fault_of_ours(capsys):
    async with telling(Pieces(*[BIG] * 64)) as (port, made), asking(port, buffer=4096) as (_, writer):
        await until(lambda: made and made[0].paused)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await made[0].wait_closed()
        await until(lambda: not made.tasks)
    assert "answer_broken" not in capsys.readouterr().out


async def test_who_takes_the_last_byte_and_sends_no_more_in_one_moment_is_no_fault_of_ours(capsys):
    body = Pieces(*[bytes(500)] * 20_000)
    async with telling(body) as (port, made):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: made and made[0].paused)
            assert 0 < made[0].transport.get_write_buffer_size() < 1000
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):  # nobody else has the loop: the server sees both at once
                while client.recv(1 << 20):
                    pass
            client.shutdown(socket.SHUT_WR)
            await until(made[0].connection_lost_waiter.done)
    assert body.closed.is_set()
    assert not capsys.readouterr().out


async def test_a_body_in_pieces_arrives_whole_and_empty_pieces_do_not_end_it():
    body = Pieces(b"", b"one ", b"", BIG, b" two")
    async with telling(body) as (port, _), httpx.AsyncClient(timeout=PATIENCE) as client:
        answer = await client.get(f"http://127.0.0.1:{port}/")
        assert (answer.status_code, answer.content) == (200, b"one " + BIG + b" two")
        assert answer.headers["transfer-encoding"] == "chunked"
        assert "content-length" not in answer.headers
        assert body.closed.is_set()


@pytest.mark.parametrize(
    ("request_line", "said"),
    [
        (b"GET / HTTP/1.0", b"\r\n\r\nonetwo"),
        (b"GET / HTTP/1.1", b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"),
        (b"HEAD / HTTP/1.1", b"close\r\n\r\n"),
    ],
)
async def test_the_way_it_ends_is_that_of_the_protocol_asked_in(request_line, said):
    body = Pieces(b"one", b"two")
    async with telling(body) as (port, _), asking(port, request_line + b"\r\nHost: x\r\n\r\n") as (reader, _):
        assert (await reader.read(-1)).endswith(said)
        assert body.asked == (0 if request_line.startswith(b"HEAD") else 2)


async def test_the_next_piece_is_asked_for_when_the_last_was_taken():
    body = Pieces(*[BIG] * 64)
    async with telling(body) as (port, made), asking(port, buffer=4096) as (reader, _):
        await until(lambda: made and made[0].paused)
        asked = body.asked
        assert asked < 10
        assert made[0].transport.get_write_buffer_size() <= len(BIG) + 16
        await reader.readexactly(len(BIG) * (asked + 1))
        await until(lambda: body.asked > asked)


async def test_a_reader_that_takes_nothing_is_cut_and_its_body_closed():
    body = Pieces(*[BIG] * 64)
    async with telling(body, stall=0.05) as (port, made), asking(port, buffer=4096):
        await body.closed.wait()
        await made[0].wait_closed()
        assert body.asked < 64


async def test_a_reader_that_takes_a_little_now_and_then_is_cut_too():
    body = Pieces(*[BIG] * 64)
    async with telling(body, stall=0.2) as (port, made), asking(port, buffer=4096) as (reader, writer):
        while not body.closed.is_set():
            writer.transport.resume_reading()
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
                await reader.readexactly(1)
            writer.transport.pause_reading()
            await asyncio.sleep(0.05)
        await made[0].wait_closed()
        assert body.asked < 64


@pytest.mark.parametrize("leave", ["abort", "half"])
async def test_a_reader_that_goes_ends_the_body_at_once(leave):
    body = Pieces(b"first", then=forever)
    async with telling(body) as (port, made), asking(port) as (reader, writer):
        await reader.readuntil(b"first")
        writer.transport.abort() if leave == "abort" else writer.write_eof()
        await body.closed.wait()
        await made[0].wait_closed()


async def test_whoever_shuts_the_server_down_ends_the_body():
    body = Pieces(b"first", then=forever)
    async with telling(body) as (port, made), asking(port) as (reader, _):
        await reader.readuntil(b"first")
        made[0].transport.abort()
        await body.closed.wait()


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_body_that_fails_half_way_is_never_taken_for_a_whole_one(version, caplog):
    body = Pieces(b"first", then=broken)
    request = b"GET / HTTP/%b\r\nHost: x\r\n\r\n" % version
    async with telling(body) as (port, _), asking(port, request) as (reader, _):
        said = b""
        try:
            said = await reader.read(-1)
        except ConnectionResetError:
            pass
        else:
            raise AssertionError(f"not told that {said!r} is not whole")
        await body.closed.wait()


async def test_a_body_that_cannot_begin_is_an_error_with_a_status():
    async def away():
        raise Unavailable("locked")

    for then, status in ((away, 503), (broken, 500)):
        async with telling(Pieces(then=then)) as (port, _), httpx.AsyncClient(timeout=PATIENCE) as client:
            answer = await client.get(f"http://127.0.0.1:{port}/")
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, "internal")
            assert "disk" not in answer.text


async def test_a_client_that_sends_no_more_still_gets_its_answer():
    async with telling(b"whole") as (port, _), asking(port) as (reader, writer):
        writer.write_eof()
        assert (await reader.read(-1)).endswith(b"\r\n\r\nwhole")


async def test_what_comes_behind_a_request_is_thrown_away_and_not_for_ever():
    body = Pieces(b"first", then=forever)
    async with telling(body) as (port, made), asking(port) as (reader, writer):
        await reader.readuntil(b"first")
        writer.write(bytes(DISCARDED))
        await writer.drain()
        assert not body.closed.is_set()
        writer.write(b"more")
        await body.closed.wait()
        await made[0].wait_closed()


async def test_what_comes_with_an_upgrade_and_right_behind_it_is_the_streams():
    """However the bytes are cut: nothing of them is lost between who reads the head and who reads the frames."""
    got = asyncio.Queue()

    async def stream(connection):
        async for message in connection:
            got.put_nowait(message)

    async def upgrade(connection, request):
        return None

    said = UPGRADE + frame(1, b"one") + frame(1, b"two")
    async with visited(upgrade, stream) as (port, _):
        for cut in (1, len(UPGRADE) - 1, len(UPGRADE), len(UPGRADE) + 1, len(said)):
            async with asking(port, said[:cut]) as (_, writer):
                await asyncio.sleep(0)
                writer.write(said[cut:])
                assert [await got.get(), await got.get()] == ["one", "two"]
