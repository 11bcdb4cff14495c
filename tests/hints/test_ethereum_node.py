"""The channel against a real node, over a real socket: who moves a balance is hinted at, and nobody else."""

import random
import statistics
from collections import Counter

import anyio
import pytest
from websockets.asyncio.client import connect

from tests.hints.ethereum_node import Tools, running
from tests.loopback import PATIENCE
from watcher.hints.channel import ChannelError, WatchedScope
from watcher.hints.ethereum import EthereumChannel
from watcher.model.keys import Scope

pytestmark = pytest.mark.anyio

CHAIN = "eip155:1"
WITHIN = 1.0
"""Seconds from a transaction that is sent to its hint; the node mines at once."""


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    return Tools(tmp_path_factory.mktemp("node") / "npm")


class Listener:
    """The channel on a socket of its own, and who was hinted at."""

    def __init__(self, channel, socket):
        self.channel = channel
        self._socket = socket
        self.hints = []
        self._news = anyio.Event()

    async def run(self):
        self.channel.connected()
        await self.send()
        async for frame in self._socket:
            news = self.channel.received(frame)
            assert news.refused is None
            self.hints += [(hint.account, hint.token) for hint in news.hints]
            await self.send()
            self._news.set()
            self._news = anyio.Event()

    async def send(self):
        for text in self.channel.outgoing():
            await self._socket.send(text)

    async def watch(self, *watched):
        self.channel.watch([WatchedScope(Scope("ondo", CHAIN, *scope)) for scope in watched])
        await self.send()
        await self.until(lambda: len(self.channel.covered()) == len(watched))

    async def until(self, true):
        with anyio.fail_after(PATIENCE):
            while not true():
                await self._news.wait()


@pytest.fixture
async def chain(tools):
    async with running(tools) as chain:
        yield chain


@pytest.fixture
async def listener(chain):
    async with connect(chain.url, proxy=None) as socket, anyio.create_task_group() as tasks:
        listener = Listener(EthereumChannel(CHAIN), socket)
        tasks.start_soon(listener.run)
        yield listener
        tasks.cancel_scope.cancel()


async def test_each_change_of_a_balance_is_hinted_at_within_a_second_and_what_changes_none_is_not(chain, listener):
    owner, alice, bob, carol, dave = chain.accounts[:5]
    named, other, whole = [await chain.deploy(owner) for _ in range(3)]
    await listener.watch((alice, named), (bob, named), (carol, None), (None, whole), (dave, other))
    heard = {
        (account, token)
        for account in chain.accounts
        for token in (named, other, whole)
        if token == whole or account == carol
    }
    heard |= {(alice, named), (bob, named), (dave, other)}
    dice = random.Random(16)
    expected, latencies = Counter(), []
    for token in (named, other, whole):
        for account in (alice, bob, carol, dave):
            await chain.do(owner, token, "transfer(address,uint256)", int(account, 16), 10**6)
            expected.update({(account, token), (owner, token)} & heard)
    for _ in range(40):
        token, sender, receiver = dice.choice([named, other, whole]), *dice.choices([alice, bob, carol, dave], k=2)
        amount = dice.choice([0, 1, 2])
        people = [alice, bob, carol, dave]
        before = [await chain.balance(token, account) for account in people]
        started = anyio.current_time()
        match dice.choice(["transfer", "deposit", "withdraw"]):
            case "transfer" if sender != receiver:
                await chain.do(sender, token, "transfer(address,uint256)", int(receiver, 16), amount)
            case "deposit":
                await chain.do(sender, token, "deposit()", value=amount)
            case _:
                backed = int(await chain.call("eth_getBalance", token, "latest"), 16)
                await chain.do(sender, token, "withdraw(uint256)", min(amount, backed))
        after = [await chain.balance(token, account) for account in people]
        changed = {(who, token) for who, old, new in zip(people, before, after, strict=True) if old != new}
        expected.update(changed & heard)
        await listener.until(lambda: not expected - Counter(listener.hints))
        latencies.append(anyio.current_time() - started)
    assert Counter(listener.hints) == expected
    assert expected.keys() >= {(alice, named), (carol, other), (dave, whole), (dave, other)}
    assert statistics.median(latencies) < WITHIN


async def test_what_is_watched_may_change_while_the_node_pushes(chain, listener):
    owner, alice, bob = chain.accounts[:3]
    token = await chain.deploy(owner)
    await listener.watch((alice, token))
    await chain.do(owner, token, "transfer(address,uint256)", int(alice, 16), 7)
    await listener.until(lambda: listener.hints == [(alice, token)])
    await listener.watch((bob, token))
    await listener.until(lambda: listener.channel.subscriptions == 2)
    await chain.do(alice, token, "transfer(address,uint256)", int(bob, 16), 7)
    await listener.until(lambda: listener.hints == [(alice, token), (bob, token)])


async def test_after_a_reorganisation_what_happens_at_the_same_height_is_hinted_at(chain, listener):
    owner, alice = chain.accounts[:2]
    token = await chain.deploy(owner)
    await listener.watch((alice, token))
    before = await chain.call("evm_snapshot")
    await chain.do(owner, token, "transfer(address,uint256)", int(alice, 16), 7)
    await listener.until(lambda: len(listener.hints) == 1)
    assert await chain.call("evm_revert", before)
    assert await chain.balance(token, alice) == 0
    seen = len(listener.hints)
    await chain.do(owner, token, "transfer(address,uint256)", int(alice, 16), 8)
    await listener.until(lambda: len(listener.hints) > seen)
    assert set(listener.hints) == {(alice, token)}


async def test_a_node_of_another_chain_is_refused(tools):
    async with running(tools, chain_id=56) as chain, connect(chain.url, proxy=None) as socket:
        listener = Listener(EthereumChannel(CHAIN), socket)
        listener.channel.watch([WatchedScope(Scope("ondo", CHAIN, chain.accounts[0]))])
        with pytest.raises(ChannelError, match="it serves the chain eip155:56, not eip155:1"):
            await listener.run()
