"""Large snapshots, over the stream and over HTTP: a page at a time, at the reader's pace, and nobody else waits."""

import asyncio
import contextlib
import json
import socket

import anyio
import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from tests.relay.stage import PATIENCE, calm, relaying, staged, until
from tests.relay.test_slow import BIG, slow
from watcher.journal.views import ViewLimits
from watcher.model.log import Unavailable
from watcher.relay import session, snapshots

pytestmark = pytest.mark.anyio


class Counting:
    """A journal that says how many pages were read of its snapshots, and lets none be begun while it is told so."""

    def __init__(self, journal):
        self.journal = journal
        self.pages = 0
        self.open = 0
        self.broken = False
        self.may = anyio.Event()
        self.may.set()

    async def reader(self):
        self.source = await self.journal.reader()
        self.bounds, self.follow, self.close = self.source.bounds, self.source.follow, self.source.close
        return self

    async def glance(self, wanted, most):
        await self.may.wait()
        return await self.source.glance(wanted, most)

    async def snapshot(self, wanted):
        self.open += 1
        return Counted(self, await self.source.snapshot(wanted))


class Counted:
    def __init__(self, log, snapshot):
        self.log = log
        self.snapshot = snapshot
        self.cursor = snapshot.cursor
        self.rows = snapshot.rows

    @property
    def over(self):
        return self.snapshot.over

    async def page(self, size):
        if self.log.broken:
            raise Unavailable("the disk is gone")
        self.log.pages += 1
        return await self.snapshot.page(size)

    def close(self):
        self.log.open -= 1
        self.snapshot.close()


@pytest.fixture
async def stage(tmp_path):
    """1,500 balances that a slow reader takes long for, in pages of 50, and a log that counts them."""
    async with staged(tmp_path) as stage:
        await stage.teller.tell(*(f"a{number}" for number in range(1500)), symbol=BIG[:1000])
        stage.log = Counting(stage.teller.journal)
        async with relaying(stage.log, calm(page=50, outbox_bytes=20_000, sweep=0.01)) as (stage.relay, stage.port):
            yield stage


async def told(stage, subscriber):
    await stage.teller.tell("a7")
    return (await subscriber.push("update"))["event"]["version"]


async def test_balances_come_in_pages_and_are_those_of_one_moment(stage):
    async with stage.http() as http, http.stream("GET", "/v1/balances") as answer:
        assert answer.status_code == 200
        pieces = answer.aiter_bytes()
        text = await anext(pieces)
        await stage.teller.tell(*(f"a{number}" for number in range(1500)))
        async for piece in pieces:
            text += piece
    whole = httpx.Response(200, content=text).json()
    assert list(whole) == ["cursor", "data"]
    assert [row["account"] for row in whole["data"]] == [f"a{number}" for number in range(1500)]
    assert {row["version"] for row in whole["data"]} == {0}
    async with stage.subscriber() as one:
        await one.subscribe(cursor=whole["cursor"])
        updates = await one.updates(1500)
        assert {update["event"]["version"] for update in updates} == {1}
    await until(lambda: not stage.log.open)


@contextlib.asynccontextmanager
async def asking(stage):
    """A socket on which somebody has asked for all balances and reads nothing."""
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(raw, ("127.0.0.1", stage.port))
        await loop.sock_sendall(raw, b"GET /v1/balances HTTP/1.1\r\nHost: localhost\r\n\r\n")
        yield raw


async def test_who_asks_for_balances_and_does_not_read_them_costs_a_page(stage):
    async with asking(stage), stage.subscriber() as one:
        await one.subscribe(snapshot=False)
        await until(lambda: stage.log.pages)
        assert [await told(stage, one) for _ in range(20)] == list(range(1, 21))
        assert stage.log.pages < 20
        assert stage.log.open == 1
    await until(lambda: not stage.log.open)


async def test_a_stream_that_is_read_slowly_costs_a_page_and_gets_the_whole(stage):
    async with slow(stage) as one, stage.subscriber() as other:
        await one.subscribe()
        await other.subscribe(snapshot=False)
        await until(lambda: stage.log.pages)
        assert [await told(stage, other) for _ in range(20)] == list(range(1, 21))
        assert stage.log.pages < 20
        pages = [await one.push("snapshot")]
        while not pages[-1]["last"]:
            pages.append(await one.push("snapshot"))
        assert [page["page"] for page in pages] == list(range(1, 31))
        assert len({row["account"] for page in pages for row in page["data"]}) == 1500
        assert [update["event"]["version"] for update in await one.updates(20)] == list(range(1, 21))
        await until(lambda: not stage.log.open)


async def test_who_holds_a_snapshot_for_too_long_is_ended_and_told_why(stage):
    async with asking(stage) as raw, slow(stage) as one:
        await one.subscribe()
        await until(lambda: stage.log.open == 2)
        stage.log.source._views.limits = ViewLimits(longest=0.0)
        await until(lambda: stage.relay.stats.dropped == {"outlived": 1})
        got = b""
        with anyio.fail_after(PATIENCE), contextlib.suppress(ConnectionError):
            while piece := await asyncio.get_running_loop().sock_recv(raw, 65536):
                got += piece
        assert got.startswith(b"HTTP/1.1 200")
        assert not got.endswith(b"0\r\n\r\n")
        await until(lambda: not stage.log.open)


async def test_while_a_snapshot_waits_in_line_the_other_subscriptions_of_its_connection_are_live(stage):
    async with stage.subscriber() as one:
        await one.subscribe(snapshot=False)
        stage.log.may = anyio.Event()
        await one.socket.send('{"id":"later","method":"subscribe"}')
        assert [await told(stage, one) for _ in range(3)] == [1, 2, 3]
        stage.log.may.set()
        assert (await one.answer("later"))["result"]["snapshot_rows"] == 1500
        await stage.teller.tell("a7")
        assert (await one.push("update"))["event"]["version"] == 4


async def test_a_snapshot_that_fails_in_its_midst_ends_the_connection_and_not_the_relay(stage):
    async with slow(stage) as one, stage.subscriber() as other:
        await one.subscribe()
        await other.subscribe(snapshot=False)
        await until(lambda: stage.log.pages)
        stage.log.broken = True
        with pytest.raises(ConnectionClosed):
            await one.push("no more")
        assert await one.closed() == (1012, "internal")
        assert await told(stage, other) == 1


async def test_who_waits_too_long_in_line_for_balances_is_told_to_come_back(stage, monkeypatch):
    monkeypatch.setattr(snapshots, "PATIENCE", 0.01)
    stage.log.may = anyio.Event()
    async with stage.http() as http:
        answer = await http.get("/v1/balances")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert answer.json()["error"]["temporary"] is True
        monkeypatch.undo()
        stage.log.may.set()
        assert len((await http.get("/v1/balances")).json()["data"]) == 1500


async def test_what_a_connection_asks_for_again_and_again_is_refused_in_the_end(stage, monkeypatch):
    monkeypatch.setattr(session, "ROW_BURST", 2000)
    monkeypatch.setattr(session, "ROWS_PER_SECOND", 1e-6)
    async with stage.subscriber() as one:
        for _ in range(2):
            assert (await one.subscribe())["snapshot_rows"] == 1500
        error = (await one.ask("subscribe"))["error"]
        assert (error["code"], error["temporary"]) == ("rate_limited", True)
        await one.subscribe(snapshot=False)
    async with stage.subscriber() as another:
        assert (await another.subscribe(filter={"account": ["a1"]}))["snapshot_rows"] == 1


async def test_who_comes_back_with_all_its_subscriptions_pays_once_for_the_log_that_is_read_once(stage, monkeypatch):
    monkeypatch.setattr(session, "ROW_BURST", 40)
    monkeypatch.setattr(session, "ROWS_PER_SECOND", 1e-6)
    bounds, may = stage.log.bounds, anyio.Event()
    old = (await bounds()).head
    for _ in range(30):
        await stage.teller.tell("a7")

    async def held_back():
        await may.wait()
        return await bounds()

    async with stage.subscriber() as one:
        await one.push("welcome")
        stage.log.bounds = held_back
        for number in range(100, 110):
            command = {"id": number, "method": "subscribe", "params": {"cursor": str(old)}}
            await one.socket.send(json.dumps(command))
        (connection,) = stage.relay.connections
        await until(lambda: len(connection.pending) == 9)
        may.set()
        assert all(["result" in await one.answer(number) for number in range(100, 110)])
        assert "result" in await one.ask("subscribe", cursor=str((await bounds()).head))
