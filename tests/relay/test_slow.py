"""Readers that do not keep up: told, served from the log, or ended with the reason; the others never notice."""

import asyncio
import contextlib
import socket

import anyio
import pytest

from tests.relay.stage import PATIENCE, Subscriber, calm, staged, until

pytestmark = pytest.mark.anyio

BIG = "x" * 4000
"""A symbol that makes events large, so that few of them fill a socket."""


@contextlib.asynccontextmanager
async def slow(stage):
    """A subscriber with a small receive buffer, that reads only when asked to."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", stage.port))
    async with stage.connect(sock=raw, compression=None, max_queue=1, ping_interval=None, close_timeout=0.1) as client:
        yield Subscriber(client)


async def test_a_full_outbox_is_told_and_the_log_tells_the_rest(tmp_path):
    async with staged(tmp_path, calm(outbox_bytes=20_000, replay_bytes=8_000)) as stage:
        await stage.teller.tell("A", "B")
        async with slow(stage) as one, stage.subscriber() as other:
            await one.push("welcome")
            await one.subscribe(snapshot=False)
            await other.subscribe(snapshot=False)
            for _ in range(200):
                await stage.teller.tell("A", symbol=BIG)
                await other.push("update")
            await until(lambda: stage.relay.stats.lagging)
            seen, kinds, cursors = [], [], []
            while len(seen) < 200 or kinds[-1] != "live":
                message = await one.next()
                if message["type"] == "update":
                    seen.append(message["event"]["version"])
                else:
                    kinds.append(message["type"])
                cursors.append(int(message["cursor"].split(".")[1]))
            assert seen == list(range(1, 201))
            assert kinds[0] == "lagging"
            assert kinds == ["lagging", "live"] * (len(kinds) // 2)
            assert cursors == sorted(cursors)
            await stage.teller.tell("B")
            assert (await one.push("update"))["event"]["account"] == "B"


async def test_answers_outlive_a_cleared_outbox(tmp_path):
    async with staged(tmp_path, calm(outbox_bytes=20_000, replay_bytes=8_000)) as stage:
        await stage.teller.tell("A")
        async with slow(stage) as one:
            await one.subscribe(snapshot=False)
            for number in range(100):
                await stage.teller.tell("A", symbol=BIG)
                if number == 50:
                    await one.socket.send('{"id":"here","method":"ping"}')
            await until(lambda: stage.relay.stats.lagging)
            assert "result" in await one.answer("here")


async def test_a_slow_conflating_reader_gets_the_latest_and_is_told_how_many_it_did_not(tmp_path):
    async with staged(tmp_path, calm(outbox_bytes=20_000, heartbeat=0.2, sweep=0.02)) as stage:
        await stage.teller.tell("A", "B")
        async with slow(stage) as one:
            await one.subscribe(snapshot=False, delivery="conflate")
            for _ in range(200):
                await stage.teller.tell("A", "B", symbol=BIG)
            seen = {"A": [], "B": []}
            while seen["A"][-1:] != [200] or seen["B"][-1:] != [200]:
                message = await one.push("update")
                seen[message["event"]["account"]].append(message["event"]["version"])
            assert all(versions == sorted(set(versions)) for versions in seen.values())
            told = sum(map(len, seen.values()))
            assert told < 400
            while (beat := await one.push("heartbeat"))["sent"] < told:
                pass
            assert (beat["sent"], beat["conflated"]) == (told, 400 - told)
            assert stage.relay.stats.lagging == 0


async def test_a_fast_conflating_reader_without_an_interval_gets_every_event(tmp_path):
    async with staged(tmp_path) as stage:
        await stage.teller.tell("A")
        for _ in range(20):
            await stage.teller.tell("A")
        async with stage.subscriber() as one:
            oldest = (await one.next())["oldest_cursor"]
            await one.subscribe(cursor=oldest, delivery="conflate")
            for _ in range(20):
                await stage.teller.tell("A")
            assert [each["event"]["version"] for each in await one.updates(40)] == list(range(1, 41))


async def test_a_reader_that_takes_nothing_is_seen_and_ended(tmp_path):
    async with staged(tmp_path, calm(stall=1800.0, stuck=1e9, close_timeout=0.2, sweep=0.02)) as stage:
        await stage.teller.tell("A")
        async with slow(stage) as one, stage.subscriber() as other:
            await one.subscribe(snapshot=False)
            await other.subscribe(snapshot=False)
            for _ in range(200):
                await stage.teller.tell("A", symbol=BIG)
                await other.push("update")
            await until(lambda: stage.relay.stats.stalled)
            assert not stage.relay.stats.dropped
            with anyio.fail_after(PATIENCE):
                while not stage.relay.stats.dropped:  # its time begins anew if the kernel took a last little more
                    stage.later(1800.0)
                    await anyio.sleep(0.1)
            assert stage.relay.stats.dropped == {"stalled": 1}
            await until(lambda: len(stage.relay.listener.admission.sockets) == 1)
            assert not stage.relay.connections.blocked
            await stage.teller.tell("A")
            assert (await other.push("update"))["event"]["version"] == 201
            assert stage.relay.stats.stalled == 0


async def test_a_reader_that_falls_too_far_behind_is_ended(tmp_path):
    pace = calm(outbox_bytes=20_000, replay_bytes=8_000, stuck_events=100, sweep=0.02)
    async with staged(tmp_path, pace) as stage:
        await stage.teller.tell("A", "B", "C", "D")
        async with slow(stage) as one:
            await one.subscribe(snapshot=False)
            for _ in range(80):
                await stage.teller.tell("A", "B", "C", "D", symbol=BIG)
            await until(lambda: stage.relay.stats.dropped)
            assert stage.relay.stats.dropped == {"astray": 1}


async def test_a_reader_that_comes_no_nearer_is_ended(tmp_path):
    pace = calm(outbox_bytes=20_000, replay_bytes=8_000, stuck=1800.0, sweep=0.02)
    async with staged(tmp_path, pace) as stage:
        await stage.teller.tell("A")
        async with slow(stage) as one:
            await one.subscribe(snapshot=False)
            for _ in range(150):
                await stage.teller.tell("A", symbol=BIG)
            await until(lambda: stage.relay.stats.lagging)
            assert not stage.relay.stats.dropped
            stage.later(1800.0)
            await until(lambda: stage.relay.stats.dropped)
            assert stage.relay.stats.dropped == {"astray": 1}


async def test_a_flood_of_pings_from_a_client_that_reads_nothing_costs_no_memory(tmp_path):
    async with staged(tmp_path) as stage:
        raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with raw:
            await anyio.to_thread.run_sync(raw.connect, ("127.0.0.1", stage.port))
            raw.sendall(
                b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            await until(lambda: len(stage.relay.connections))
            raw.setblocking(False)
            ping = (b"\x89\xfd\0\0\0\0" + b"p" * 125) * 500
            sent = full = 0
            with anyio.fail_after(PATIENCE):
                while full < 20:  # neither side takes anything, for 20 looks in a row
                    try:
                        sent += raw.send(ping[sent % len(ping) :])
                        full = 0
                    except BlockingIOError:
                        full = full + 1 if stage.relay.connections.blocked else 0
                    assert sent < 26_000_000, "26 MB of pings were read from a client that reads nothing"
                    await anyio.sleep(0.01 if full else 0)
            (accepted,) = stage.relay.listener.admission.sockets.values()
            transport = accepted._connection.transport
            assert transport.get_write_buffer_size() < 1_000_000


async def test_several_subscriptions_of_one_slow_reader_lose_nothing(tmp_path):
    async with staged(tmp_path, calm(outbox_bytes=20_000, replay_bytes=8_000)) as stage:
        await stage.teller.tell("A", "B")
        async with slow(stage) as one:
            await one.subscribe(snapshot=False, filter={"account": ["A"]})
            await one.subscribe(snapshot=False, filter={"account": ["B"]})
            for _ in range(100):
                await stage.teller.tell("A", "B", symbol=BIG)
            await until(lambda: stage.relay.stats.lagging)
            seen = {"A": [], "B": []}
            while len(seen["A"]) + len(seen["B"]) < 200:
                message = await one.push("update")
                seen[message["event"]["account"]].append(message["event"]["version"])
            assert seen == {"A": list(range(1, 101)), "B": list(range(1, 101))}


async def test_one_slow_reader_of_all_and_of_the_latest_is_told_nothing_twice(tmp_path):
    """C is held back for its interval, D is told meanwhile, and then A, which is wanted in full, fills the outbox."""
    async with staged(tmp_path, calm(outbox_bytes=20_000, replay_bytes=8_000)) as stage:
        await stage.teller.tell("A", "C", "D")
        async with slow(stage) as one:
            await one.subscribe(snapshot=False, filter={"account": ["A"]})
            paced = {"delivery": "conflate", "interval_ms": 1000}
            await one.subscribe(snapshot=False, filter={"account": ["C"]}, **paced)
            await one.subscribe(snapshot=False, filter={"account": ["D"]}, delivery="conflate")
            seen = []
            for accounts in ("C", "CD"):  # told before the next, or it would give way to it
                await stage.teller.tell(*accounts)
                seen.append(await one.push("update"))
            for _ in range(100):
                await stage.teller.tell("A", symbol=BIG)
            await until(lambda: stage.relay.stats.lagging)
            while len(seen) < 103:
                seen.append(await one.push("update"))
            told = {(each["event"]["account"], each["event"]["version"]) for each in seen}
            assert told == {("C", 1), ("C", 2), ("D", 1), *(("A", version) for version in range(1, 101))}
