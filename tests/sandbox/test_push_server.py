"""The push channels over loopback, before a client that is not ours: on the port of the HTTP APIs, beside them."""

import contextlib
import hashlib
import hmac
import json

import anyio
import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from tests.sandbox.push_scene import account
from watcher.model.addresses import BSC, ETHEREUM, SOLANA, STARKNET
from watcher.sandbox.push_board import DIALECTS
from watcher.sandbox.server import serve
from watcher.sandbox.webhook_sender import send_webhooks
from watcher.sandbox.webhooks import WebhookTarget
from watcher.sandbox.world import SandboxSettings, World, hint_environment, hint_tables

PATIENCE = 30.0
FAST = "push_delay=0.01"


def over_loopback(test, **settings):
    """Run `test(world, port)` against a real server, whose world moves only when it is told to unless `rate` is given."""

    async def main():
        world = World(
            SandboxSettings(**{"rate": 0.0, "faults": FAST} | settings), start=anyio.current_time(), wall=1.8e9
        )
        async with anyio.create_task_group() as group:
            port = await group.start(serve, world)
            with anyio.fail_after(PATIENCE):
                await test(world, port)
            group.cancel_scope.cancel()

    anyio.run(main)


async def until(condition):
    """Of what no event tells: the server's own state."""
    while not condition():  # noqa: ASYNC110 (see above)
        await anyio.sleep(0.01)


def push_report(world):
    return world.report(anyio.current_time(), history=False)["push"]


async def call(socket, method, params, number=1):
    await socket.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))
    reply = json.loads(await socket.recv())
    assert reply["id"] == number
    return reply["result"]


async def set_balance(port, balance, amount):
    async with httpx.AsyncClient() as client:
        asked = {**balance.key._asdict(), "amount": balance.text(amount)}
        assert (await client.post(f"http://127.0.0.1:{port}/_set", json=asked)).status_code == 200


SUBSCRIPTIONS = {
    "solana": ("logsSubscribe", ["all", {"commitment": "processed"}], SOLANA),
    "ethereum": ("eth_subscribe", ["logs", {}], ETHEREUM),
    "bsc": ("eth_subscribe", ["logs", {}], BSC),
    "starknet": ("starknet_subscribeEvents", {}, STARKNET),
}


@pytest.mark.parametrize("channel", DIALECTS)
def test_a_balance_that_is_set_over_http_is_pushed(channel):
    method, params, chain = SUBSCRIPTIONS[channel]

    async def test(world, port):
        balance = next(each for each in world.truth.balances.values() if each.key.chain == chain)
        async with connect(hint_environment(f"http://127.0.0.1:{port}/")[_variable(channel)]) as socket:
            await call(socket, method, params)
            await set_balance(port, balance, balance.amount + 1)
            frame = json.loads(await socket.recv())
            assert frame["method"].startswith(("logsNotification", "eth_subscription", "starknet_subscriptionEvents"))
            await (await socket.ping())

    over_loopback(test)


def _variable(channel):
    table = next(table for table in hint_tables() if table.get("name", table["type"]) == channel)
    return table["url_env"]


def test_a_moving_world_wakes_by_itself():
    """Nobody asks for anything: the push comes all the same, `push_delay` after the move."""

    async def test(world, port):
        async with connect(f"ws://127.0.0.1:{port}/_push/solana", max_queue=None) as socket:
            await call(socket, "logsSubscribe", ["all", {"commitment": "processed"}])
            for _ in range(20):
                await socket.recv()
        pushed = world.report(anyio.current_time())["push"]["pushed"]
        assert len(pushed) >= 20
        assert world.desks["helius"].requests == 0

    over_loopback(test, rate=50.0)


def test_requests_are_answered_while_sockets_are_open():
    async def test(world, port):
        async with (
            connect(f"ws://127.0.0.1:{port}/_push/solana"),
            connect(f"ws://127.0.0.1:{port}/_push/starknet"),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
        ):
            for _ in range(5):
                told = (await client.get("/_truth?history=0")).json()["push"]
            assert (told["solana"]["connected"], told["starknet"]["connected"], told["bsc"]["connected"]) == (1, 1, 0)
        await until(lambda: not any(world.pushes.receivers.values()))

    over_loopback(test)


def test_a_message_may_come_in_parts_and_calls_behind_one_another():
    async def test(world, port):
        async with connect(f"ws://127.0.0.1:{port}/_push/ethereum") as socket:
            await socket.send(['{"jsonrpc":"2.0","id":7,', '"method":"eth_ch', 'ainId"}'])
            assert json.loads(await socket.recv())["result"] == "0x1"
            for number in range(50):
                await socket.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": "eth_chainId"}))
            assert [json.loads(await socket.recv())["id"] for _ in range(50)] == list(range(50))

    over_loopback(test)


def test_a_cut_breaks_the_socket_without_a_word():
    async def test(world, port):
        balance = world.truth.of("helius")[0]
        async with connect(f"ws://127.0.0.1:{port}/_push/solana") as socket:
            await call(socket, "accountSubscribe", account(balance.key.account, "processed"))
            await set_balance(port, balance, balance.amount + 1)
            with pytest.raises(ConnectionClosedError) as closed:
                await socket.recv()
            assert closed.value.rcvd is None
        async with connect(f"ws://127.0.0.1:{port}/_push/solana") as socket:
            assert isinstance(await call(socket, "accountSubscribe", account(balance.key.account)), int)

    over_loopback(test, faults=f"{FAST},push_cut=1")


@pytest.mark.parametrize(
    ("path", "status"), [("/_push/dogecoin", 404), ("/_push/", 404), ("/_push", 404), ("/helius/", 404)]
)
def test_a_channel_that_is_none_is_no_websocket(path, status):
    async def test(world, port):
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{port}{path}")
        assert refused.value.response.status_code in (status, 401)

    over_loopback(test)


def test_a_request_that_is_no_upgrade_is_told_what_is_missing():
    async def test(world, port):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/_push/solana")).status_code == 426
            assert (await client.post("/_push/solana", content=b"{}")).status_code == 404

    over_loopback(test)


def test_what_breaks_the_protocol_ends_its_own_socket_only():
    async def test(world, port):
        async with connect(f"ws://127.0.0.1:{port}/_push/solana") as other:
            async with connect(f"ws://127.0.0.1:{port}/_push/solana") as socket:
                with contextlib.suppress(ConnectionClosed):
                    await socket.send("x" * (2 << 20))
                with pytest.raises(ConnectionClosedError) as closed:
                    await socket.recv()
                assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
            async with connect(f"ws://127.0.0.1:{port}/_push/solana") as socket:
                socket.transport.write(b"\xff\xff\xff\xff")
                with pytest.raises(ConnectionClosedError):
                    await socket.recv()
            await (await other.ping())

    over_loopback(test)


def test_a_reader_who_takes_nothing_holds_nobody_up():
    """Its socket is full of what a fast world tells; another one is told all the while."""

    async def test(world, port):
        balance = world.truth.of("helius")[0]
        async with (
            await anyio.connect_tcp("127.0.0.1", port) as deaf,
            connect(f"ws://127.0.0.1:{port}/_push/solana", max_queue=None) as socket,
        ):
            await deaf.send(_upgrade("solana") + _masked(_subscribe_all()))
            await call(socket, "accountSubscribe", account(balance.key.account, "processed"))
            await until(lambda: push_report(world)["solana"]["subscriptions"] == 2)
            for number in range(20):
                world.truth.put(balance, balance.amount + 1 + number, anyio.current_time())
                await socket.recv()

    over_loopback(test, rate=3000.0)


def _upgrade(channel):
    return (
        f"GET /_push/{channel} HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


def _subscribe_all():
    params = ["all", {"commitment": "processed"}]
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "logsSubscribe", "params": params}).encode()


def _masked(text):
    """A frame of a client behind its handshake, without waiting for the answer; the mask is zero."""
    assert len(text) < 126
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text


def test_webhooks_are_posted_to_a_real_receiver():
    async def test(world, port):
        arrived, came = [], anyio.Event()

        async def receive(stream):
            async with stream:
                data = b""
                while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < _length(data):
                    data += await stream.receive()
                arrived.append(data)
                await stream.send(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")
                came.set()

        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as there, anyio.create_task_group() as tasks:
            address = there.extra(anyio.abc.SocketAttribute.local_port)
            tasks.start_soon(there.serve, receive)
            target = WebhookTarget(f"http://127.0.0.1:{address}/hook", "canary")
            tasks.start_soon(send_webhooks, world.pushes, target)
            await until(lambda: world.pushes.receivers["webhook"])
            balance = world.truth.of("tokenkit")[0]
            await set_balance(port, balance, balance.amount + 1)
            await came.wait()
            await until(lambda: push_report(world)["webhook"]["deliveries"][0]["accepted"])
            tasks.cancel_scope.cancel()
        head, _, body = arrived[0].partition(b"\r\n\r\n")
        signature = hmac.new(b"canary", body, hashlib.sha256).hexdigest()
        assert head.startswith(b"POST /hook HTTP/1.1")
        assert f"x-tokenkit-signature: sha256={signature}".encode() in head.lower()

    over_loopback(test)


def _length(data):
    lines = data.lower().split(b"\r\n")
    return int(next(line for line in lines if line.startswith(b"content-length")).partition(b":")[2])
