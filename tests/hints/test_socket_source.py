"""The loop of a socket source against real servers on loopback: good ones, dead ones, hostile ones."""

import asyncio
import contextlib
import gzip
import itertools
import json
import re
import socket
from collections import deque
from http import HTTPStatus

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.server import serve
from websockets.utils import accept_key

from tests.hints.solana_node import SolanaNode
from tests.hints.test_solana import ACCOUNT, HELIUS, JUPITER, ONDO, WALLET
from tests.loopback import context, made
from tests.relay.stage import PATIENCE, until
from watcher.hints.figures import SourceFigures
from watcher.hints.settings import parse, secret_of
from watcher.hints.socket_source import SocketSource, SocketTuning
from watcher.hints.solana import SolanaChannel
from watcher.hints.starknet import StarknetChannel
from watcher.model.addresses import SOLANA
from watcher.model.hints import Hint
from watcher.redaction.redactor import SECRETS
from watcher.runtime.backoff import Backoff
from watcher.runtime.slicing import run_at_once

pytestmark = pytest.mark.anyio

KEY = "canary-Q2x8wLmRtYpX5vBn"
QUICK = {"tick": 0.01, "close": 0.05, "backoff": Backoff(first=0.005, longest=0.02), "steady": 3600.0}


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Sink:
    """Remembers what it is given, in order."""

    def __init__(self):
        self.calls = []

    def take(self, source, hints):
        self._note(source, "take", *hints)

    def missed(self, source):
        self._note(source, "missed")

    def covers(self, source, scopes):
        self._note(source, "covers", *scopes)

    def _note(self, source, *call):
        assert source == "solana"
        self.calls.append(call)


class Serving:
    """A node behind a websocket. Each connection is `sockets[n]`; what `script` does with it is given."""

    def __init__(self, node):
        self.node = node
        self.sockets = []
        self.paths = []

    async def converse(self, socket):
        self.sockets.append(socket)
        self.paths.append(socket.request.path)
        self.node.numbers.clear()
        async for message in socket:
            await socket.send(json.dumps(self.node.answer(message)))

    async def tell(self, frames):
        for frame in frames:
            await self.sockets[-1].send(frame)


def source_of(port, *watched, scheme="ws", host="127.0.0.1", channel=None, **tuning):
    url = f"{scheme}://{host}:{port}/v2/?api-key={KEY}"
    (table,) = parse([{"type": "solana", "url_env": "URL"}])
    sink, figures = Sink(), SourceFigures(name="solana", type="solana")
    source = SocketSource(
        *("solana", "solana", secret_of(table, {"URL": url}), channel or SolanaChannel(1000), sink, figures),
        wall=itertools.count(1_000_000).__next__,
        seed=1,
        tuning=SocketTuning(**QUICK | tuning),
    )
    run_at_once(source.watch(watched))
    return source, sink, figures


@contextlib.asynccontextmanager
async def running(source):
    task = asyncio.create_task(source.run())
    try:
        async with asyncio.timeout(PATIENCE):
            yield
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE)
        assert task.cancelled()


@contextlib.asynccontextmanager
async def following(*watched, node=None, tuning=None, **options):
    """A source that is connected to a node, with everything that the node takes subscribed."""
    serving = Serving(node or SolanaNode())
    async with serve(serving.converse, "127.0.0.1", 0, **options) as server:
        source, sink, figures = source_of(server.sockets[0].getsockname()[1], *watched, **tuning or {})
        async with running(source):
            await until(lambda: figures.subscriptions and sink.calls[-1:] and sink.calls[-1][0] == "covers")
            yield serving, source, sink, figures


def covered(sink):
    return {*next((scopes for call, *scopes in reversed(sink.calls) if call == "covers"), ())}


def hints(sink):
    return [hint for call, *found in sink.calls if call == "take" for hint in found]


async def test_a_change_that_is_pushed_is_a_hint_and_what_is_confirmed_is_covered():
    async with following(HELIUS, JUPITER) as (serving, _, sink, figures):
        await until(lambda: covered(sink) == {HELIUS.scope, JUPITER.scope})
        await serving.tell(serving.node.account_changed(ACCOUNT))
        await until(lambda: hints(sink) == [Hint(chain=SOLANA, account=ACCOUNT)])
        assert (figures.connected, figures.problem, figures.connections) == (True, None, 1)
        assert (figures.subscriptions, figures.left_out) == (5, 0)
        assert figures.since >= 1_000_000
        assert ("missed",) not in sink.calls  # what was before us is read anyway
        assert serving.paths == [f"/v2/?api-key={KEY}"]


async def test_after_a_cut_all_is_subscribed_anew_and_what_was_missed_is_hinted_once_all_is_covered():
    with capture_logs() as logs:
        async with following(HELIUS, JUPITER) as (serving, _, sink, figures):
            await until(lambda: covered(sink) == {HELIUS.scope, JUPITER.scope})
            for cuts in (1, 2):
                before = len(sink.calls)
                serving.sockets[-1].transport.abort()
                await until(lambda before=before: ("missed",) in sink.calls[before:])
                calls = [(call, {*scopes}) for call, *scopes in sink.calls[before:]]
                assert calls[0] == ("covers", set())
                assert calls[-2:] == [("covers", {HELIUS.scope, JUPITER.scope}), ("missed", set())]
                assert (figures.connected, figures.connections) == (True, cuts + 1)
            await serving.tell(serving.node.account_changed(ACCOUNT))
            await until(lambda: hints(sink))
            assert sink.calls.count(("missed",)) == 2
    assert [(line["event"], line.get("why")) for line in logs] == [
        ("hints.connected", None),
        *[("hints.away", "the connection was lost"), ("hints.connected", None)] * 2,
    ]


async def test_an_edit_reaches_the_node_while_the_connection_stays():
    async with following(HELIUS) as (serving, source, sink, figures):
        run_at_once(source.watch([JUPITER, ONDO]))
        await until(lambda: covered(sink) == {JUPITER.scope, ONDO.scope})
        await until(lambda: len(serving.node.numbers) == 6)  # what is over is told to the node beside what is new
        assert figures.connections == 1


async def test_a_refused_subscription_is_told_and_tried_again():
    refused = {"logs"}
    with capture_logs() as logs:
        async with following(HELIUS, JUPITER, node=SolanaNode(refuses=lambda kind, _: kind in refused)) as (
            *_,
            sink,
            figures,
        ):
            await until(lambda: figures.left_out == 1)
            assert covered(sink) <= {HELIUS.scope}
            refused.clear()
            await until(lambda: covered(sink) == {HELIUS.scope, JUPITER.scope})
            assert figures.left_out == 0
    (line, *_) = [line for line in logs if line["event"] == "hints.refused"]
    assert (line["source"], line["why"]) == ("solana", "Too many subscriptions (-32005)")


async def away(port, *, times=1, **tuning):
    """What the source says of a server, with the pauses; nothing of it may show the key."""
    source, sink, figures = source_of(port, HELIUS, **tuning)
    with capture_logs() as logs:
        async with running(source):
            await until(lambda: sum(line["event"] == "hints.away" for line in logs) >= times)
    assert not SECRETS.leaks(repr(logs))
    assert not figures.connected
    return [(line["why"], line["again_in"]) for line in logs if line["event"] == "hints.away"][:times], figures, sink


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "HTTP 401: it does not take the key"),
        (403, "HTTP 403: it does not take the key"),
        (404, "HTTP 404: there is nothing at that path"),
        (429, "HTTP 429: too often"),
        (500, "HTTP 500"),
    ],
)
async def test_a_refused_handshake_is_told_by_its_status(status, says):
    def refuse(connection, _request):
        return connection.respond(HTTPStatus(status), f"no: {KEY}")

    async with serve(lambda _: None, "127.0.0.1", 0, process_request=refuse) as server:
        ((why, pause),), figures, _ = await away(server.sockets[0].getsockname()[1], backoff=Backoff(0.005, 0.02))
    assert why.startswith(says)
    assert why == figures.problem
    assert pause <= 0.02
    assert figures.connections == 0


async def test_a_server_that_says_when_to_come_again_is_obeyed_within_an_hour():
    for asked, least in ((b"100", 50.0), (b"99999999", 1800.0), (b"soon", 0.0), (b"-5", 0.0)):
        async with answering(b"HTTP/1.1 503 Busy\r\nRetry-After: %b\r\nContent-Length: 0\r\n\r\n" % asked) as (port, _):
            ((why, pause),), *_ = await away(port)
        assert why == "HTTP 503"
        assert least <= pause <= max(0.02, 2 * least)


async def test_a_redirect_is_not_followed_since_the_key_is_for_one_host_alone():
    followed = []

    async def elsewhere(socket):
        followed.append(socket.request.path)

    async with serve(elsewhere, "127.0.0.1", 0) as other:
        location = f"ws://127.0.0.1:{other.sockets[0].getsockname()[1]}/{KEY}".encode()
        head = b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location
        async with answering(head) as (port, _):
            ((why, _),), *_ = await away(port)
    assert why == "HTTP 302: write the address that it leads to; no redirect is followed"
    assert followed == []


UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n"


@contextlib.asynccontextmanager
async def answering(head=UPGRADE, *frames):
    """A server of bytes: gives the port, and the requests that came. It answers with that, and reads for ever."""
    requests = []

    async def talk(reader, writer):
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", requests[-1])[1].decode()
        writer.write(head.replace(b"ACCEPT", accept_key(key).encode()))
        for frame in frames:
            writer.write(frame)
        await for_ever(await reader.read())

    async with listening(talk) as port:
        yield port, requests


async def test_a_server_that_does_not_answer_the_handshake_is_left():
    async with silent() as port:
        ((why, _),), *_ = await away(port, open=0.05)
    assert why == "no connection within 0.05 s"


@contextlib.asynccontextmanager
async def listening(talk):
    """A server of bytes, whose connections are gone when it is."""
    tasks = set()

    async def hold(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            with contextlib.suppress(
                OSError, EOFError, asyncio.CancelledError
            ):  # the last: asyncio logs a task with it
                await talk(reader, writer)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def for_ever(*_):
    await asyncio.Event().wait()


def silent():
    """Takes a connection, and says nothing for ever."""
    return listening(for_ever)


async def test_a_server_that_takes_subscriptions_and_says_nothing_is_left():
    async with answering() as (port, _):
        ((why, _),), figures, sink = await away(port, answer=0.05)
    assert why == "it takes what we ask for and says nothing for 0.05 s"
    assert figures.connections >= 1
    assert covered(sink) == set()


async def test_a_silent_connection_with_nothing_to_ask_for_is_kept_as_long_as_it_answers_pings():
    async with following(HELIUS, tuning={"ping": 0.02, "pong": 5.0, "answer": 0.02}) as (serving, _, _, figures):
        pings = []
        process = serving.sockets[-1].process_event

        def count(frame):
            pings.append(frame.opcode.name)
            process(frame)

        serving.sockets[-1].process_event = count
        await until(lambda: pings.count("PING") > 5)
        assert (figures.connected, figures.connections) == (True, 1)


async def test_a_dead_connection_is_found_by_its_pings():
    async with answering() as (port, _):
        ((why, _),), *_ = await away(port, ping=0.02, pong=0.05)
    assert why == "no answer to a ping within 0.05 s"


def frame_of(payload, first=0x81):
    length = len(payload)
    head = bytes([first, length]) if length < 126 else bytes([first, 126]) + length.to_bytes(2, "big")
    if length > 65535:
        head = bytes([first, 127]) + length.to_bytes(8, "big")
    return head + payload


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (frame_of(b"nonsense"), "it sent a message that is no JSON-RPC"),
        (frame_of(b"\xff\xfe"), "it sent a text that is not UTF-8"),
        (frame_of(b"\0" * 100, 0x82), "it sent a message that is no JSON-RPC"),
        (frame_of(b"x" * 5000), "it sent a message of more than 4096 bytes"),
        (bytes([0x81, 127]) + (2**62).to_bytes(8, "big"), "it sent a message of more than 4096 bytes"),
        (frame_of(b"x" * 3000, 0x01) + frame_of(b"x" * 3000, 0x80), "it sent a message of more than 4096 bytes"),
        (frame_of(gzip.compress(b"0" * 10**6), 0xC1), "it speaks no websocket as it should"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 100, "it speaks no websocket as it should"),
        (frame_of((4000).to_bytes(2, "big") + KEY.encode(), 0x88), "closed by the other side with 4000 (withheld"),
        (frame_of((1013).to_bytes(2, "big") + b"later\x1b[2J", 0x88), "closed by the other side with 1013 later\\x1b"),
        (frame_of(b"", 0x88), "closed by the other side with 1005"),
        (
            frame_of(b'{"error":{"code":-32600,"message":"slow\\u001bdown"},"id":null}'),
            "it refuses what it is asked: slow\\x1b",
        ),
    ],
)
async def test_what_is_no_pubsub_ends_the_connection_in_our_words(frame, says):
    async with answering(UPGRADE, frame) as (port, _):
        ((why, _),), *_ = await away(port, message_bytes=4096)
    assert why.startswith(says)


async def test_garbage_is_counted_as_rejected():
    async with answering(UPGRADE, frame_of(b"nonsense")) as (port, _):
        _, figures, sink = await away(port, times=3)
    assert figures.by_result["rejected"] >= 3
    assert hints(sink) == []


async def test_no_compression_is_offered_and_none_is_taken():
    async with answering() as (port, requests):
        await away(port, answer=0.02)
    assert b"extensions" not in requests[0].lower()
    agreed = UPGRADE.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
    async with answering(agreed) as (port, _):
        ((why, _),), figures, _ = await away(port)
    assert figures.connections == 0
    assert "extension" in why


async def test_one_that_closes_at_once_again_and_again_is_asked_more_and_more_seldom():
    async def close(socket):
        await socket.close(1001)

    async with serve(close, "127.0.0.1", 0) as server:
        found, figures, sink = await away(
            server.sockets[0].getsockname()[1], times=7, backoff=Backoff(first=0.002, longest=0.064)
        )
    assert {why for why, _ in found} == {"closed by the other side with 1001"}
    pauses = [pause for _, pause in found]
    assert pauses[-1] >= 0.032 / 1.5
    assert figures.connections >= 7
    assert sink.calls == []  # nothing was covered, so nothing was missed


async def test_one_that_stayed_is_connected_to_anew_without_a_long_pause():
    async with following(HELIUS, tuning={"steady": 0.0, "backoff": Backoff(0.001, 3600.0)}) as (serving, _, sink, _):
        for _ in range(30):
            before = len(sink.calls)
            serving.sockets[-1].transport.abort()
            await until(lambda before=before: ("missed",) in sink.calls[before:])


async def test_nobody_there_is_told_without_the_address():
    async with silent() as port:
        pass
    found, figures, _ = await away(port, times=2)
    assert all("127.0.0.1" not in why or KEY not in why for why, _ in found)
    assert figures.connections == 0
    assert figures.problem


async def test_a_flood_is_read_at_a_pace_and_others_have_their_turns():
    node = SolanaNode()
    async with following(HELIUS, node=node, tuning={"reads": 500.0, "reads_at_once": 200}) as (serving, _, sink, _):
        (frame,) = node.account_changed(ACCOUNT)
        begun = asyncio.get_running_loop().time()
        flood = asyncio.create_task(serving.tell(itertools.repeat(frame)))
        gaps: deque[float] = deque()
        while len(hints(sink)) < 700:
            before = asyncio.get_running_loop().time()
            await asyncio.sleep(0)
            gaps.append(asyncio.get_running_loop().time() - before)
        passed = asyncio.get_running_loop().time() - begun
        flood.cancel()
        assert passed >= (700 - 200) / 500 * 0.9
        assert len(gaps) > 100


PONG = 6
"""Bytes of one from us with nothing in it."""


async def test_pings_are_answered_at_a_pace_however_many_come_in_one_read():
    """A hundred thousand of them would hold everybody up for seconds."""
    measured = []

    async def measure(reader, writer):
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", await reader.readuntil(b"\r\n\r\n"))[1].decode()
        writer.write(UPGRADE.replace(b"ACCEPT", accept_key(key).encode()) + frame_of(b"", 0x89) * 50_000)
        at_a_stretch = len(await reader.read(2**20))
        begun = asyncio.get_running_loop().time()
        await reader.readexactly(4000 * PONG)
        measured.append((at_a_stretch, 4000 / (asyncio.get_running_loop().time() - begun)))
        await for_ever()

    async with listening(measure) as port:
        source, *_ = source_of(port, HELIUS, reads=2000.0, reads_at_once=100)
        async with running(source):
            await until(lambda: measured)
    ((at_a_stretch, rate),) = measured
    assert at_a_stretch < 1200 * PONG
    assert rate < 3000.0


async def test_of_what_its_pace_allows_at_once_others_have_their_turns_in_between():
    stretches = []

    async def measure(reader, writer):
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", await reader.readuntil(b"\r\n\r\n"))[1].decode()
        writer.write(UPGRADE.replace(b"ACCEPT", accept_key(key).encode()) + frame_of(b"", 0x89) * 50_000)
        while sum(stretches) < 40_000 * PONG:
            stretches.append(len(await reader.read(2**20)))
        await for_ever()

    async with listening(measure) as port:
        source, *_ = source_of(port, HELIUS, reads_at_once=10**6)
        async with running(source):
            await until(lambda: sum(stretches) >= 40_000 * PONG)
    assert max(stretches) < 12_000 * PONG


async def test_a_node_that_is_reorganised_without_an_end_has_all_read_anew_now_and_then():
    """Each time costs a look at all that is covered, and reads that no precision holds back."""
    told = []

    async def reorganise(socket):
        for number in range(600):
            if number == 300:
                await until(lambda: told)
            params = {"subscription_id": "1", "result": {"starting_block_number": number}}
            await socket.send(json.dumps({"method": "starknet_subscriptionReorg", "params": params}))
        await socket.send("nonsense")

    async with serve(reorganise, "127.0.0.1", 0) as server:
        channel = StarknetChannel()
        source, sink, figures = source_of(server.sockets[0].getsockname()[1], channel=channel, settle=3600.0)
        told = sink.calls
        async with running(source):
            await until(lambda: figures.by_result["rejected"])
        assert sink.calls.count(("missed",)) == 1


async def test_long_messages_count_as_many_short_ones():
    node = SolanaNode()
    async with following(HELIUS, node=node, tuning={"reads": 2000.0, "reads_at_once": 100}) as (serving, _, sink, _):
        (frame,) = node.account_changed(ACCOUNT)
        long, begun = frame[:-1] + " " * 200_000 + "}", asyncio.get_running_loop().time()
        await serving.tell([long] * 4)
        await until(lambda: len(hints(sink)) == 4)
        assert asyncio.get_running_loop().time() - begun > (3 * 195 - 100) / 2000 * 0.9


async def test_all_of_what_comes_at_once_is_read_although_nothing_comes_after_it():
    node = SolanaNode()
    async with following(HELIUS, node=node) as (serving, _, sink, _):
        (frame,) = node.account_changed(ACCOUNT)
        serving.sockets[-1].transport.write(frame_of(frame.encode()) * 500)
        await until(lambda: len(hints(sink)) == 500)


async def test_who_sends_pings_and_reads_nothing_of_the_answers_is_cut():
    async def deaf(reader, writer):
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", await reader.readuntil(b"\r\n\r\n"))[1].decode()
        writer.transport.pause_reading()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        writer.write(UPGRADE.replace(b"ACCEPT", accept_key(key).encode()))
        while True:
            writer.write(frame_of(b"x" * 125, 0x89) * 1000)
            await writer.drain()

    async with listening(deaf) as port:
        ((why, _),), *_ = await away(port, reads=1e6, reads_at_once=10**6)
    assert why == "the connection was lost"


async def test_who_is_cancelled_waits_for_no_farewell():
    async with answering() as (port, _):
        source, _, figures = source_of(port, HELIUS, close=3600.0)
        async with running(source):
            await until(lambda: figures.connected)
    assert not figures.connected


async def test_who_is_cancelled_leaves_nothing_behind():
    serving = Serving(SolanaNode())
    async with serve(serving.converse, "127.0.0.1", 0) as server:
        source, sink, figures = source_of(server.sockets[0].getsockname()[1], HELIUS, close=3600.0)
        async with running(source):
            await until(lambda: covered(sink) == {HELIUS.scope})
        assert sink.calls[-1] == ("covers",)
        assert (figures.connected, figures.subscriptions) == (False, 0)
        await asyncio.wait_for(serving.sockets[0].wait_closed(), PATIENCE)


async def test_a_certificate_that_is_not_trusted_is_refused_and_one_that_is_serves(tmp_path, monkeypatch):
    certificate = made(tmp_path, "DNS:localhost,IP:127.0.0.1")
    serving = Serving(SolanaNode())
    async with serve(serving.converse, "127.0.0.1", 0, ssl=context(certificate)) as server:
        port = server.sockets[0].getsockname()[1]
        ((why, _),), figures, _ = await away(port, scheme="wss")
        assert "certificate" in why.lower()
        assert (serving.sockets, figures.connections) == ([], 0)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        source, sink, _ = source_of(port, JUPITER, scheme="wss")
        async with running(source):
            await until(lambda: covered(sink) == {JUPITER.scope})
            await serving.tell(serving.node.transaction(WALLET))
            await until(lambda: hints(sink) == [Hint(chain=SOLANA, account=WALLET)])
