"""Frames that are no messages (pings, pongs, fragments): read at a budget, and at nobody else's cost."""

import asyncio
import contextlib

import anyio
import pytest

from tests.relay.hostile import UPGRADE, frame
from tests.relay.stage import PATIENCE, staged, until
from watcher.relay import budgets, websocket

pytestmark = pytest.mark.anyio

PING, PONG = frame(9, b""), b"\x8a\x00"
A_PIECE = websocket.PIECE // len(PING) + 1


class Client:
    """Raw bytes to a stream, and what came back but for the welcome."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self.got = b""

    def send(self, data):
        self.writer.write(data)

    def pongs(self):
        return self.got.count(PONG)

    async def read(self, enough):
        with anyio.fail_after(PATIENCE):
            while not enough():
                piece = await self.reader.read(65536)
                assert piece, self.got[-200:]
                self.got += piece


@contextlib.asynccontextmanager
async def raw(stage):
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
    try:
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


@pytest.fixture
async def stage(tmp_path):
    async with staged(tmp_path) as stage:
        await stage.teller.tell("A")
        yield stage


@pytest.fixture
def scarce(monkeypatch):
    """A hundred frames, and as good as none after them."""
    monkeypatch.setattr(websocket, "FRAMES", 100)
    monkeypatch.setattr(websocket, "FRAMES_PER_SECOND", 1e-6)
    monkeypatch.setattr(budgets, "ALL_FRAMES_PER_SECOND", 1e-6)


def resting(stage):
    """The websockets that are not read now."""
    found = [accepted._connection for accepted in stage.relay.listener.admission.sockets.values()]
    return [each for each in found if each is not None and each._resting is not None]


@pytest.mark.parametrize(
    "flood",
    [PING * 5000, frame(10, b"") * 5000, frame(9, b"x" * 125) * 500, frame(1, b"", fin=False) + frame(0, b"", fin=False) * 4000],
    ids=["pings", "pongs", "long pings", "fragments"],
)  # fmt: skip
async def test_a_flood_is_read_no_further_than_its_budget(scarce, stage, flood):
    async with raw(stage) as flooder, stage.subscriber() as neighbour:
        await neighbour.subscribe()
        flooder.send(flood)
        await until(lambda: resting(stage))
        (held,) = resting(stage)
        assert not held.transport.is_reading()
        await stage.teller.tell("A")
        assert (await neighbour.push("update"))["event"]["version"] == 1
        assert "result" in await neighbour.ask("ping")
        assert held._budget.left(0.0) >= -A_PIECE
        assert len(resting(stage)) == 1


async def test_who_was_told_to_go_is_read_no_further_either(scarce, stage, monkeypatch):
    monkeypatch.setattr(websocket, "FRAMES", 300)
    monkeypatch.setattr(budgets, "FRAMES_A_TURN", 1_000_000)
    async with raw(stage) as flooder:
        flooder.send(frame(1, b"x") * 150 + PING * 50_000)
        await until(lambda: not len(stage.relay.connections) and resting(stage))


async def test_what_was_not_read_at_once_is_read_later_and_in_its_order(stage, monkeypatch):
    monkeypatch.setattr(websocket, "FRAMES", 100)
    monkeypatch.setattr(websocket, "FRAMES_PER_SECOND", 10_000)
    async with raw(stage) as client:
        client.send(PING * 500 + frame(1, b'{"id":1,', fin=False) + frame(0, b"", fin=False) * 300)
        client.send(frame(0, b'"method":"ping"}') + frame(9, b"the last"))
        await client.read(lambda: b"the last" in client.got and b'{"id":1,"result":{"time"' in client.got)
        assert client.pongs() == 500


async def test_several_share_a_budget_and_who_sends_little_does_not_pay_for_them(tmp_path, monkeypatch):
    monkeypatch.setattr(budgets, "ALL_FRAMES_PER_SECOND", 1e-6)
    async with staged(tmp_path) as stage, contextlib.AsyncExitStack() as opened:
        await stage.teller.tell("A")
        for _ in range(6):
            flooder = await opened.enter_async_context(raw(stage))
            flooder.send(PING * 3000)
        await until(lambda: len(resting(stage)) >= 4)
        neighbour = await opened.enter_async_context(stage.subscriber())
        await neighbour.subscribe()
        for _ in range(5):
            assert "result" in await neighbour.ask("ping")


async def test_a_turn_of_the_loop_that_had_enough_of_them_puts_the_rest_off_and_loses_nothing(stage, monkeypatch):
    monkeypatch.setattr(budgets, "FRAMES_A_TURN", 10)
    async with contextlib.AsyncExitStack() as opened:
        clients = [await opened.enter_async_context(raw(stage)) for _ in range(5)]
        for client in clients:
            client.send(PING * 1000)
        for client in clients:
            await client.read(lambda client=client: client.pongs() == 1000)


async def test_who_goes_while_it_is_held_back_leaves_nothing_behind(stage, monkeypatch):
    monkeypatch.setattr(websocket, "FRAMES", 100)
    async with raw(stage) as flooder:
        flooder.send(PING * 5000)
        await until(lambda: resting(stage))
    await until(lambda: not stage.relay.listener.admission.sockets)
    assert not len(stage.relay.connections)
