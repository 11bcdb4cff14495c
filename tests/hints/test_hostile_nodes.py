"""Nodes that a stranger would make: whatever they send or leave out, the source lives, stays within its bounds, and says why it
is away in our words and without its address."""

import asyncio
import base64
import json
import re
import tracemalloc
from urllib.parse import quote

import pytest
from structlog.testing import capture_logs
from websockets.utils import accept_key

from tests.hints.test_socket_source import KEY, UPGRADE, away, for_ever, frame_of, listening, running, source_of
from tests.hints.test_solana import ACCOUNT, HELIUS
from tests.relay.stage import until
from watcher.hints.socket_source_connection import MOST_FRAGMENTS
from watcher.model.addresses import SOLANA
from watcher.model.hints import Hint

pytestmark = pytest.mark.anyio
GIVEN = frame_of(b'{"jsonrpc":"2.0","id":1,"result":7}')
CHANGED = b'{"method":"accountNotification","params":{"subscription":7,"result":{"value":{}}}}'
USER, PASSWORD = "canary-user-7fQ2", "canary/pass=Zx81"


@pytest.fixture
def anyio_backend():
    return "asyncio"


def node(*parts, head=UPGRADE, again=b""):
    """Answers the handshake, sends these, then this again and again, and reads nothing. Without `again` it ends."""

    async def talk(reader, writer):
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", await reader.readuntil(b"\r\n\r\n"))[1].decode()
        writer.write(head.replace(b"ACCEPT", accept_key(key).encode()))
        for part in parts:
            writer.write(part)
            await writer.drain()
        while again:
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(0)

    return listening(talk)


async def reason(serving, **tuning):
    """What is said of it, twice the same."""
    async with serving as port:
        found, *_ = await away(port, times=2, **tuning)
    ((why, _), (again, _)) = found
    assert why == again
    return why


@pytest.mark.parametrize("between", [b"", frame_of(b"", 0x89)], ids=["alone", "with pings"])
async def test_a_message_in_too_many_pieces_is_cut_although_no_piece_has_a_byte(between):
    """Its size stays nothing; what is kept of each piece does not."""
    pieces = frame_of(b"", 0x01) + (between + frame_of(b"", 0x00)) * MOST_FRAGMENTS
    why = await reason(node(GIVEN, pieces, again=frame_of(b"", 0x8A)), reads_at_once=10**4, message_bytes=4096)
    assert why == "it sent a message of more than 4096 bytes, or in more than 1000 pieces"


async def test_messages_in_as_many_pieces_as_may_be_are_hints():
    pieces = frame_of(CHANGED[:9], 0x01) + frame_of(b"", 0x00) * (MOST_FRAGMENTS - 1) + frame_of(CHANGED[9:], 0x80)
    async with node(GIVEN, pieces * 3, again=frame_of(b"", 0x8A)) as port:
        source, sink, figures = source_of(port, HELIUS, reads_at_once=10**4)
        async with running(source):
            await until(lambda: sink.calls.count(("take", Hint(chain=SOLANA, account=ACCOUNT))) == 3)
        assert figures.connections == 1


@pytest.mark.parametrize(
    ("head", "again"),
    [
        (b"HTTP/1.1 101 OK\r\n", b"x: y\r\n" * 1000),
        (b"HTTP/1.1 ", b"y" * 10_000),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"y" * 100_000),
        (b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\ny\r\n" * 10_000),
        (b"SSH-2.0-OpenSSH_9.6\r\n", b"\0" * 10_000),
    ],
    ids=["headers", "status line", "body", "chunks", "another protocol"],
)
async def test_an_answer_to_the_handshake_without_an_end_is_left_and_not_kept(head, again):
    tracemalloc.start()
    try:
        why = await reason(node(head=head, again=again), open=0.3)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert why


@pytest.mark.parametrize(
    ("head", "parts"),
    [
        (b"", ()),
        (b"HTTP/1.1 101 Switching", ()),
        (UPGRADE, ()),
        (UPGRADE, (GIVEN[:5],)),
        (UPGRADE, (GIVEN, frame_of(CHANGED)[:20])),
        (UPGRADE, (GIVEN, frame_of(CHANGED[:9], 0x01))),
        (UPGRADE, (GIVEN, frame_of(CHANGED) * 50)),
    ],
    ids=["at once", "in the handshake", "after it", "in a frame", "in a later one", "in pieces", "in a flood"],
)
async def test_who_hangs_up_in_whatever_phase_is_come_back_to(head, parts):
    why = await reason(node(*parts, head=head))
    assert why in {
        "the connection was lost",
        "did not receive a valid HTTP response",
        "connection closed while reading HTTP status line",
    }


async def test_a_frame_that_never_ends_keeps_nothing_from_the_pings_that_find_a_dead_node():
    async def half(reader, writer):
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", await reader.readuntil(b"\r\n\r\n"))[1].decode()
        writer.write(UPGRADE.replace(b"ACCEPT", accept_key(key).encode()) + GIVEN + frame_of(CHANGED)[:20])
        await for_ever()

    assert await reason(listening(half), ping=0.02, pong=0.05) == "no answer to a ping within 0.05 s"


@pytest.mark.parametrize("answer", [b"\x15\x03\x01\x00\x02\x02\x28", b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
async def test_what_speaks_no_tls_is_told(answer):
    async def plain(reader, writer):
        await reader.read(1)
        writer.write(answer)
        await writer.drain()

    async with listening(plain) as port:
        ((why, _),), *_ = await away(port, scheme="wss")
    assert why


ECHOES = [
    lambda said, _: b"HTTP/1.1 401 %b\r\nContent-Length: 0\r\n\r\n" % said,
    lambda said, _: b"HTTP/1.1 101 OK\r\nUpgrade: %b\r\nConnection: Upgrade\r\n\r\n" % said,
    lambda said, _: (
        b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n" % said
    ),
    lambda said, upgrade: upgrade + frame_of(b"\x0f\xa0" + said[:100], 0x88),
    lambda said, upgrade: upgrade + frame_of(json.dumps({"id": None, "error": {"message": said.decode()}}).encode()),
    lambda said, upgrade: upgrade + frame_of(json.dumps({"id": 1, "error": {"message": said.decode()}}).encode()),
]


@pytest.mark.parametrize("echo", ECHOES, ids=["status", "upgrade", "accept", "close", "error", "refusal"])
@pytest.mark.parametrize("what", ["header", "decoded", "path"])
async def test_an_address_with_a_user_and_a_password_is_shown_by_no_echo_of_it(echo, what):
    async def talk(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", head)[1].decode()
        basic = re.search(rb"Authorization: Basic (\S+)", head)[1]
        said = {"header": basic, "decoded": base64.b64decode(basic), "path": head.split()[1]}[what]
        writer.write(echo(said, UPGRADE.replace(b"ACCEPT", accept_key(key).encode())))
        await for_ever(await reader.read())

    async with listening(talk) as port:
        host = f"{quote(USER)}:{quote(PASSWORD, safe='')}@127.0.0.1"
        source, _, figures = source_of(port, HELIUS, host=host)
        with capture_logs() as logs:
            async with running(source):
                await until(lambda: any(line["event"] in ("hints.away", "hints.refused") for line in logs))
    shown = f"{logs}{figures.problem}"
    basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    for secret in (USER, PASSWORD, quote(PASSWORD, safe=""), basic, basic[:20], KEY):
        assert secret not in shown
