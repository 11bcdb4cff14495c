"""The sandbox over loopback, and behind httpx in virtual time."""

import asyncio
import contextlib
import gc
import socket

import anyio
import httpx
import pytest
from trio.testing import MockClock

from watcher.sandbox.server import serve
from watcher.sandbox.transport import SandboxTransport
from watcher.sandbox.world import VALID_KEY, SandboxSettings, World, tables, watches

WALLET = watches(1)["jupiter"][0]["account"]
HELIUS = {
    "jsonrpc": "2.0",
    "id": "1",
    "method": "getTokenAccountBalance",
    "params": [watches(1)["helius"][0]["account"]],
}


def over_loopback(test, **settings):
    """Run `test(client, world)` against a real server."""

    async def main():
        world = World(SandboxSettings(**settings), start=anyio.current_time(), wall=1.8e9)
        async with anyio.create_task_group() as group:
            port = await group.start(serve, world)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                await test(client, world)
            group.cancel_scope.cancel()

    anyio.run(main)


def test_a_connection_is_kept_for_many_requests():
    async def test(client, world):
        for _ in range(20):
            answer = await client.get(f"/jupiter/ultra/v1/balances/{WALLET}")
            assert answer.status_code == 200
            assert "SOL" in answer.json()
        posted = await client.post("/helius/", params={"api-key": VALID_KEY}, json=HELIUS)
        assert posted.json()["result"]["value"]["decimals"] == 6
        assert len(client._transport._pool.connections) == 1

    over_loopback(test)


def test_the_truth_tells_every_balance_and_what_was_asked():
    async def test(client, world):
        await client.get(f"/jupiter/ultra/v1/balances/{WALLET}")
        truth = (await client.get("/_truth")).json()
        assert truth["providers"]["jupiter"]["requests"] == 1
        assert {name for name, told in truth["providers"].items() if told["balances"]} == set(truth["providers"])
        first = truth["providers"]["helius"]["balances"][0]
        assert first["key"] == "/".join(first[part] for part in ("provider", "chain", "account", "token", "kind"))
        short = (await client.get("/_truth", params={"history": "0"})).json()
        assert "changes" not in short["providers"]["helius"]["balances"][0]

    over_loopback(test)


def test_a_balance_can_be_set_and_the_world_frozen():
    async def test(client, world):
        assert (await client.post("/_freeze")).json()["frozen"]
        balance = (await client.get("/_truth")).json()["providers"]["bloxroute"]["balances"][0]
        asked = {part: balance[part] for part in ("provider", "chain", "account", "token", "kind")}
        told = (await client.post("/_set", json={**asked, "amount": "12.5"})).json()
        assert told["amount"] == told["changes"][-1]["amount"] == "12.5"
        wrong = [{**asked, "amount": "1e-9"}, {**asked, "amount": "-1"}, {**asked, "account": "x", "amount": "1"}, {}]
        assert [(await client.post("/_set", json=one)).status_code for one in wrong] == [400] * 4
        assert not (await client.post("/_thaw")).json()["frozen"]

    over_loopback(test, rate=0)


def test_faults_can_be_changed_while_it_runs():
    async def test(client, world):
        assert (await client.post("/_faults", content="refused=1")).json()["refused"] == 1.0
        assert (await client.get(f"/jupiter/ultra/v1/balances/{WALLET}")).status_code in (429, 500, 503)
        assert (await client.post("/_faults", content="rain=1")).status_code == 400

    over_loopback(test)


def test_torn_answers_reach_the_client_broken_and_leave_the_server_whole():
    async def test(client, world):
        broken = 0
        for _ in range(30):
            try:
                (await client.get(f"/jupiter/ultra/v1/balances/{WALLET}")).json()
            except (httpx.RemoteProtocolError, httpx.ReadError, ValueError):
                broken += 1
        assert broken == 30
        assert (await client.get("/_truth")).json()["providers"]["jupiter"]["faults"] == {"torn": 30}

    over_loopback(test, faults="torn=1", limits="none")


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x00\xff", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20000, b"POST / HTTP/1.1\r\n\r\n"]
)
def test_garbage_ends_its_own_connection_only(garbage):
    async def test(client, world):
        async with await anyio.connect_tcp("127.0.0.1", client.base_url.port) as stream:
            # Closed before all was written, or read.
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await stream.send(garbage)
                assert (await stream.receive()).startswith(b"HTTP/1.1 400")
        assert (await client.get("/_truth?history=0")).status_code == 200

    over_loopback(test)


def test_a_taken_port_is_an_oserror():
    async def main():
        world = World(SandboxSettings(), start=0.0, wall=0.0)
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
            await serve(world, port=taken.getsockname()[1])

    anyio.run(main)


def test_a_day_in_virtual_time_is_served_in_no_time():
    async def main():
        world = World(
            SandboxSettings(rate=0.05, faults="latency=0.03,late=0.1"), start=anyio.current_time(), wall=1.8e9
        )
        client = httpx.AsyncClient(transport=SandboxTransport(world), base_url="http://sandbox")
        statuses = []
        for _ in range(24 * 60):
            statuses.append((await client.get(f"/jupiter/ultra/v1/balances/{WALLET}")).status_code)
            await anyio.sleep(60)
        assert set(statuses) == {200}
        assert anyio.current_time() > 86_400
        assert world.report(anyio.current_time())["providers"]["jupiter"]["refusals"] == 0
        assert world.truth.moves_made > 3000

    anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


def test_a_torn_answer_in_virtual_time_is_a_protocol_error():
    async def main():
        world = World(SandboxSettings(faults="torn=1"), start=anyio.current_time(), wall=1.8e9)
        client = httpx.AsyncClient(transport=SandboxTransport(world), base_url="http://sandbox")
        broken = 0
        for _ in range(10):
            try:
                (await client.get(f"/jupiter/ultra/v1/balances/{WALLET}")).json()
            except (httpx.RemoteProtocolError, ValueError):
                broken += 1
        assert broken == 10

    anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": -1},
        {"port": 70000},
        {"faults": "rain"},
        {"limits": "rain"},
        {"rate": float("nan")},
        {"webhook": "rain"},
    ],
)
def test_settings_that_make_no_sense_are_refused_with_one_line(wrong):
    with pytest.raises(ValueError, match="--"):
        SandboxSettings(**wrong)


def test_the_tables_are_a_config_of_five_providers():
    from watcher.app import settings

    parsed = settings.parse({"providers": tables(9100, 1, "SANDBOX_KEY")})
    assert sorted(parsed.providers) == ["bloxroute", "helius", "jupiter", "ondo", "tokenkit"]


@pytest.mark.parametrize("clients", [1, 3])
@pytest.mark.parametrize("turns", range(8))
def test_a_server_may_end_in_whatever_instant_somebody_connects(turns, clients, recwarn):
    """`turns`: of the loop, from the connection to the end."""
    complaints = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        world = World(SandboxSettings(), start=anyio.current_time(), wall=1.8e9)
        with contextlib.ExitStack() as connected:
            async with anyio.create_task_group() as group:
                port = await group.start(serve, world)
                await anyio.wait_all_tasks_blocked()

                def end(left):
                    if left:
                        loop.call_soon(end, left - 1)
                    else:
                        group.cancel_scope.cancel()

                for _ in range(clients):
                    connected.enter_context(socket.create_connection(("127.0.0.1", port)))
                loop.call_soon(end, turns)
                await anyio.sleep_forever()

    anyio.run(main)
    gc.collect()
    assert complaints == []
    assert [each for each in recwarn if "unclosed" in str(each.message)] == []
