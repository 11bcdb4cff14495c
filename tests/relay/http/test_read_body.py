"""Bodies on a real port: read within time, place and memory, and refused so that who is still sending sees why."""

import asyncio
import contextlib
import json
import random
import re
import socket
import ssl

import anyio
import pytest

from tests import loopback
from tests.relay.stage import PATIENCE, calm, nothing, until
from watcher.relay.http import body_budget, connection
from watcher.relay.http.admission import HANDLING_AT_ONCE, PENDING_SOCKETS, Stage
from watcher.relay.http.auth import Guard
from watcher.relay.http.body import CONTINUE
from watcher.relay.http.body_memory import MOST_HELD
from watcher.relay.http.connection import DISCARDED
from watcher.relay.http.head import HttpAnswer
from watcher.relay.http.listener import Listener
from watcher.relay.http.routes import WITHOUT_RELAY, HttpRoutes, Readiness, Route, Status
from watcher.relay.settings import RelaySettings

pytestmark = pytest.mark.anyio

MOST = 100_000


class Port:
    """A port that answers a POST to /echo with its body, and counts."""

    def __init__(self):
        self.bodies = []
        self.refused = []
        self.waiting = asyncio.Event()
        self.number = 0
        self.listener = None
        self.trust = None

    async def echo(self, request):
        self.bodies.append(request.body)
        return HttpAnswer(200, "text/plain", request.body)

    async def hold(self, request):
        self.bodies.append(request.body)
        await self.waiting.wait()
        return HttpAnswer(200, "text/plain", b"")

    @property
    def memory(self):
        return self.listener._connection.args[0].body_memory

    @contextlib.asynccontextmanager
    async def asking(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.number, ssl=self.trust)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def says(self, *pieces):
        """What is answered to these pieces, each sent on its own: the whole of it, as bytes."""
        async with self.asking() as (reader, writer):
            with contextlib.suppress(ConnectionError):  # it is answered and closed before the last of them
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
            async with asyncio.timeout(PATIENCE):
                return await reader.read(-1)


@contextlib.asynccontextmanager
async def opened(tuning=None, *, certificate=None, room=None, most=MOST):
    port = Port()
    tls = {} if certificate is None else {"certificate": str(certificate[0]), "key": str(certificate[1])}
    settings = RelaySettings(port=0, **tls)
    routes = {
        "/echo": Route(port.echo, methods=("POST",), body=most),
        "/hold": Route(port.hold, methods=("POST",), body=most),
    }
    told = HttpRoutes(
        {**WITHOUT_RELAY, **routes}, Guard(settings, None), Status(nothing, Readiness), port.refused.append
    )
    port.listener = Listener(settings, told, tuning=tuning or calm(), room=room)
    port.trust = None if certificate is None else ssl.create_default_context(cafile=certificate[0])
    async with anyio.create_task_group() as tasks:
        port.number = await tasks.start(lambda task_status: port.listener.run(task_status=task_status))
        yield port
        port.waiting.set()
        tasks.cancel_scope.cancel()


@pytest.fixture(params=["plain", "tls"])
def certificate(request, tmp_path):
    return loopback.made(tmp_path, "IP:127.0.0.1") if request.param == "tls" else None


def post(body=b"", *fields, path=b"/echo", length=None, protocol=b"HTTP/1.1"):
    """`length`: False: no field of it."""
    size = [] if length is False else [b"Content-Length: %d" % (len(body) if length is None else length)]
    return b"\r\n".join([b"POST %b %b" % (path, protocol), b"Host: localhost", *size, *fields, b"", body])


def chunked(body, size=1000):
    chunks = (body[at : at + size] for at in range(0, len(body), size))
    wire = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    return post(b"", b"Transfer-Encoding: chunked", length=False) + wire


async def send_for_ever(writer):
    """Until it is cut."""
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(bytes(100_000))
                await writer.drain()


def status(said):
    return int(said.split(b" ", 2)[1]) if said else None


def answer(said):
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.count(b"HTTP/1.1 ") == 1, said[:400]
    return status(said), body


# ── Whole ones ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_same_request_in_any_pieces_gets_the_same_answer(certificate):
    rng = random.Random(7)
    body = rng.randbytes(5000)
    async with opened(certificate=certificate) as port:
        for wire in (post(body), chunked(body, 300), chunked(b""), post(), post(length=False), post(body) + post(body)):
            right = await port.says(wire)
            head = wire.index(b"\r\n\r\n") + 4
            cuts = [[head - 1], [head], [head + 1], [len(wire) - 1], range(0, len(wire), 97)]
            cuts += [sorted(rng.sample(range(len(wire)), min(len(wire), 9))) for _ in range(20)]
            for each in cuts:
                places = [0, *each, len(wire)]
                pieces = [wire[places[at] : places[at + 1]] for at in range(len(places) - 1)]
                assert await port.says(*pieces) == right
            assert status(right) == 200
        assert set(port.bodies) == {body, b""}
        assert port.memory.total == 0


async def test_a_body_as_large_as_may_be_arrives_and_one_byte_more_does_not(certificate):
    async with opened(certificate=certificate) as port:
        for size, right in ((MOST, 200), (MOST + 1, 413)):
            for wire in (post(b"x" * size), chunked(b"x" * size), post(b"x" * size, b"Expect: 100-continue")):
                found = (await port.says(wire)).removeprefix(CONTINUE)
                assert answer(found)[0] == right
        assert [len(body) for body in port.bodies] == [MOST] * 3


async def test_who_waits_for_a_word_gets_it_once_and_before_a_refusal_not():
    async with opened() as port, port.asking() as (reader, writer):
        writer.write(post(b"", b"Expect: 100-continue", length=5))
        assert await reader.readexactly(len(CONTINUE)) == CONTINUE
        writer.write(b"hello")
        assert answer(await reader.read(-1)) == (200, b"hello")
        for wire, right in (
            (post(b"", b"Expect: 100-continue", length=MOST + 1), 413),
            (post(b"", b"Expect: 100-continue", b"Content-Length: 7", length=5), 400),
            (post(b"", b"Expect: 100-continue", b"Origin: https://evil.example", length=5), 403),
            (post(b"", b"Expect: 100-continue", path=b"/healthz", length=5), 405),
            (post(b"hello", b"Expect: 100-continue"), 200),
            (post(b"", b"Expect: 100-continue", length=0), 200),
        ):
            assert answer(await port.says(wire))[0] == right


async def test_the_older_protocol_is_told_no_word_and_is_answered():
    async with opened() as port, port.asking() as (reader, writer):
        writer.write(post(b"", b"Expect: 100-continue", length=5, protocol=b"HTTP/1.0"))
        await until(lambda: port.memory._held)
        writer.write(b"hello")
        assert answer(await reader.read(-1)) == (200, b"hello")


@pytest.mark.parametrize(
    "fields",
    [
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"Content-Length: 5", b"Content-Length: 6"],
        [b"Content-Length: 5", b"Content-Length: 5"],
        [b"Content-Length: 5,6"],
        [b"Content-Length: +5"],
        [b"Content-Length: -5"],
        [b"Content-Length: 5 ", b" 5"],
        [b"Content-Length : 5"],
        [b"Transfer-Encoding: chunked, identity"],
        [b"Transfer-Encoding:\x0bchunked"],
    ],
)
async def test_a_request_within_a_body_is_never_one_of_its_own(fields):
    """Whatever a proxy takes for the end: there is one answer, and the connection ends."""
    within = b"0\r\n\r\nPOST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
    async with opened() as port:
        assert answer(await port.says(post(within, *fields, length=False)))[0] == 400
        assert port.bodies == []


async def test_what_follows_a_body_is_no_second_request():
    async with opened() as port:
        assert answer(await port.says(post(b"one") + post(b"two"))) == (200, b"one")
        assert port.bodies == [b"one"]


async def test_a_path_that_takes_no_body_answers_as_ever():
    async with opened() as port:
        for wire, right in (
            (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", 200),
            (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\nTransfer-Encoding: y\r\n\r\n", 200),
            (post(b"hello", path=b"/healthz"), 405),
            (post(b"hello", path=b"/nowhere"), 405),
            (post(b"hello").replace(b"POST", b"GET"), 405),
        ):
            assert answer(await port.says(wire))[0] == right


# ── Refused ones ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", ["length", "chunks"])
async def test_who_sends_too_much_sees_why_also_when_it_reads_at_the_end_alone(certificate, way):
    body = b"x" * (DISCARDED - MOST)
    async with opened(calm(close_timeout=1.0), certificate=certificate) as port:
        wire = post(body) if way == "length" else chunked(body, 20_000)

        def sent_whole():
            """By a client that looks at nothing until it has sent everything, and fails where it cannot."""
            raw = socket.create_connection(("127.0.0.1", port.number), PATIENCE)
            with raw if port.trust is None else port.trust.wrap_socket(raw, server_hostname="127.0.0.1") as one:
                for at in range(0, len(wire), 50_000):
                    one.sendall(wire[at : at + 50_000])
                return b"".join(iter(lambda: one.recv(1 << 16), b""))

        found, said = answer(await anyio.to_thread.run_sync(sent_whole))
        assert (found, json.loads(said)["error"]["message"]) == (413, f"a body has at most {MOST} bytes here")


async def test_who_sends_without_an_end_is_cut():
    async with opened() as port, port.asking() as (_, writer):
        writer.write(post(length=10**15))
        await send_for_ever(writer)


async def test_a_body_that_ends_too_early_is_told_so():
    async with opened() as port:
        for wire in (post(b"hell", length=5), chunked(b"hello")[:-2]):
            async with port.asking() as (reader, writer):
                writer.write(wire)
                writer.write_eof()
                assert answer(await reader.read(-1))[0] == 400
        assert (port.bodies, port.memory.total) == ([], 0)


async def test_who_goes_in_the_middle_of_a_body_gives_its_memory_back(certificate):
    async with opened(certificate=certificate) as port:
        for _ in range(3):
            async with port.asking() as (_, writer):
                writer.write(post(b"x" * 1000, length=MOST))
                await until(lambda: port.memory.total == 1000)
            await until(lambda: port.memory.total == 0)
        assert port.bodies == []
        await until(lambda: not port.listener.admission.sockets)


async def test_a_body_that_is_at_work_is_counted_until_its_answer_is_found():
    async with opened() as port, port.asking() as (reader, writer):
        writer.write(post(b"x" * 1000, path=b"/hold"))
        await until(lambda: port.bodies)
        assert port.memory.total == 1000
        port.waiting.set()
        assert answer(await reader.read(-1))[0] == 200
        assert port.memory.total == 0


# ── Slow ones, and many ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_body_that_comes_too_slowly_ends_as_a_head_does(certificate):
    async with (
        opened(calm(upgrade=0.4, sweep=0.05), certificate=certificate) as port,
        port.asking() as (reader, writer),
    ):
        writer.write(post(b"x", length=MOST))

        async def drip():
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                assert await reader.read(-1) == b""
        dripping.cancel()
        await until(lambda: port.memory.total == 0)
        assert port.bodies == []


async def test_slow_bodies_keep_nobody_from_being_accepted():
    """As requests that wait for our own work would."""
    async with opened() as port, contextlib.AsyncExitStack() as stack:
        for _ in range(HANDLING_AT_ONCE + 10):
            _, writer = await stack.enter_async_context(port.asking())
            writer.write(post(b"x", length=MOST))
        await until(lambda: port.memory.total == HANDLING_AT_ONCE + 10)
        assert port.listener.admission.handling == 0
        assert answer(await port.says(post(b"hello"))) == (200, b"hello")


async def test_slow_bodies_are_crowded_out_as_slow_heads_are(certificate):
    """The oldest first, and one that is at work is not among them."""
    async with (
        opened(certificate=certificate, room=32) as port,
        contextlib.AsyncExitStack() as stack,
    ):  # six of one address
        _, held = await stack.enter_async_context(port.asking())
        held.write(post(b"held", path=b"/hold"))
        await until(lambda: port.bodies)
        slow = []
        for number in range(8):
            reader, writer = await stack.enter_async_context(port.asking())
            writer.write(post(b"x" * (number + 1), length=MOST))
            slow.append(reader)
            await until(lambda number=number: number + 1 in port.memory._held.values())
        for reader in slow[:3]:
            with contextlib.suppress(ConnectionError):
                assert await reader.read(-1) == b""
        assert port.listener.admission.crowded_out == 3
        assert answer(await port.says(post(b"hello"))) == (200, b"hello")
        assert not any(reader.at_eof() for reader in slow[4:])
        port.waiting.set()


async def test_however_many_send_slowly_they_hold_so_much_and_no_more(monkeypatch):
    """Whoever gives way is told to come back; a small body beside them is served."""
    monkeypatch.setattr(body_budget, "BYTES", 1 << 40)
    monkeypatch.setattr(body_budget, "ALL_BYTES", 1 << 40)
    most = 512 * 1024
    async with opened(most=most) as port, contextlib.AsyncExitStack() as stack:
        readers = []
        for _ in range(40):
            reader, writer = await stack.enter_async_context(port.asking())
            writer.write(post(b"x" * (most - 1), length=most))
            await writer.drain()
            readers.append(reader)
            assert port.memory.total <= MOST_HELD
        await until(lambda: len(port.refused) >= 40 - MOST_HELD // most)
        assert set(port.refused) == {"busy"}
        found, said = answer(await readers[0].read(-1))
        assert (found, json.loads(said)["error"]["temporary"]) == (503, True)
        assert b"Retry-After: 5" in (await readers[1].read(-1))
        assert answer(await port.says(post(b"hello"))) == (200, b"hello")
        assert len(port.listener.admission.sockets) <= PENDING_SOCKETS


# ── Too many bytes a second ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def little(monkeypatch):
    """Budgets of so many bytes that do not refill while a test runs; a refusal takes no time."""
    monkeypatch.setattr(body_budget, "BYTES_PER_SECOND", 1)
    monkeypatch.setattr(body_budget, "ALL_BYTES_PER_SECOND", 1)
    monkeypatch.setattr(connection, "REST", 0.0)

    def put(*, own=1 << 40, of_all=1 << 40):
        monkeypatch.setattr(body_budget, "BYTES", own)
        monkeypatch.setattr(body_budget, "ALL_BYTES", of_all)
        monkeypatch.setattr(body_budget, "FEW_OF_ALL", 0)

    return put


@pytest.mark.parametrize("whose", ["own", "of_all"])
async def test_who_sends_too_many_bytes_is_told_when_to_come_back_whole_bodies_and_chunks_alike(
    certificate, little, whose
):
    little(**{whose: MOST + 1})
    async with opened(calm(close_timeout=1.0), certificate=certificate) as port:
        assert answer(await port.says(post(b"x" * MOST)))[0] == 200
        assert answer(await port.says(chunked(b"y" * 10_001)))[0] == 200
        for wire in (
            post(b"hello"),
            chunked(b"hello"),
            post(b"x" * MOST),
            post(b"", b"Expect: 100-continue", length=5),
        ):
            said = await port.says(wire)
            found, body = answer(said)
            assert (found, json.loads(body)["error"]["temporary"]) == (429, True)
            assert 1 < int(re.search(rb"Retry-After: ([0-9]+)\r\n", said)[1]) <= 10_000
        assert [len(body) for body in port.bodies] == [MOST, 10_001]
        assert port.refused == ["rate"] * 4
        assert port.memory.total == 0
        assert answer(await port.says(post()))[0] == 200
        assert answer(await port.says(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"))[0] == 200


async def test_bytes_that_did_not_come_are_not_counted(little):
    little(own=MOST)
    async with opened() as port:
        for _ in range(5):
            async with port.asking() as (_, writer):
                writer.write(post(b"x" * 1000, length=MOST))
                await until(lambda: port.memory.total == 1000)
            await until(lambda: port.memory.total == 0)
            assert answer(await port.says(chunked(b"y" * 1000)))[0] == 200
            assert answer(await port.says(post(length=MOST + 1)))[0] == 413
        assert answer(await port.says(post(b"x" * (MOST - 5000))))[0] == 200
        assert port.refused == []
        assert answer(await port.says(post(b"hello")))[0] == 429


async def test_nothing_is_read_of_who_sends_too_many_bytes_before_the_refusal(little, monkeypatch):
    monkeypatch.setattr(connection, "REST", 10 * PATIENCE)
    little(own=1)
    async with opened(most=DISCARDED) as port:
        assert answer(await port.says(post(b"x" * 1000)))[0] == 200
        await until(lambda: not port.listener.admission.sockets)
        async with port.asking() as (reader, writer):
            writer.write(post(length=DISCARDED))
            sending = asyncio.create_task(send_for_ever(writer))
            await until(lambda: [each for each in port.listener.admission.sockets.values() if each.is_served])
            (refused,) = port.listener.admission.sockets.values()
            await until(lambda: refused.stage is Stage.READING)
            for _ in range(5):
                assert answer(await port.says(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"))[0] == 200
            assert (refused.stage, refused._connection._discarded) == (Stage.READING, 0)
            assert port.listener.admission.handling == 0
            assert not reader._buffer
            sending.cancel()
