"""The channel against a real node, over a real socket: who moves a balance is hinted at, and nobody else."""

import random
import statistics
from collections import Counter

import anyio
import pytest

from tests.hints.ethereum_node import Tools, running
from tests.loopback import PATIENCE
from watcher.hints.channel import WatchedScope
from watcher.hints.ethereum import EthereumChannel
from watcher.hints.figures import SourceFigures
from watcher.hints.settings import parse, secret_of
from watcher.hints.socket_source import SocketSource, SocketTuning
from watcher.model.keys import Scope
from watcher.runtime.slicing import run_at_once

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
    """The source as the product runs it, and who was hinted at."""

    def __init__(self, url):
        self.hints = []
        self.covered = set()
        self.missed_times = 0
        self._news = anyio.Event()
        self.figures = SourceFigures(name="ethereum", type="ethereum")
        channel = EthereumChannel(CHAIN)
        (table,) = parse([{"type": "ethereum", "url_env": "URL"}])
        secret = secret_of(table, {"URL": url})  # it hides the key of an address, and not the address of this machine
        tuning = SocketTuning(tick=0.05)
        self.source = SocketSource(
            "ethereum", "ethereum", secret, channel, self, self.figures, wall=lambda: 0, seed=1, tuning=tuning
        )

    def take(self, _source, hints):
        self.hints += [(hint.account, hint.token) for hint in hints]
        self._tell()

    def missed(self, _source):
        self.missed_times += 1
        self._tell()

    def covers(self, _source, scopes):
        self.covered = set(scopes)
        self._tell()

    def _tell(self):
        self._news.set()
        self._news = anyio.Event()

    async def watch(self, *watched):
        scopes = [Scope("ondo", CHAIN, *scope) for scope in watched]
        run_at_once(self.source.watch([WatchedScope(scope) for scope in scopes]))
        await self.until(lambda: self.covered == set(scopes))

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
    async with anyio.create_task_group() as tasks:
        listener = Listener(chain.url)
        tasks.start_soon(listener.source.run)
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
    assert listener.missed_times == 0


async def test_what_is_watched_may_change_while_the_node_pushes(chain, listener):
    owner, alice, bob = chain.accounts[:3]
    token = await chain.deploy(owner)
    await listener.watch((alice, token))
    await chain.do(owner, token, "transfer(address,uint256)", int(alice, 16), 7)
    await listener.until(lambda: listener.hints == [(alice, token)])
    await listener.watch((bob, token))
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


async def test_a_node_that_is_killed_covers_nothing_and_when_it_is_back_something_was_missed_and_hints_go_on(tools):
    async with anyio.create_task_group() as tasks:
        async with running(tools) as chain:
            owner, alice = chain.accounts[:2]
            token = await chain.deploy(owner)
            listener = Listener(chain.url)
            tasks.start_soon(listener.source.run)
            await listener.watch((alice, token))
        await listener.until(lambda: listener.covered == set())
        async with running(tools, port=int(chain.url.rpartition(":")[2])) as chain:
            assert await chain.deploy(owner) == token
            await listener.until(lambda: len(listener.covered) == 1)
            await listener.until(lambda: listener.missed_times == 1)
            await chain.do(owner, token, "transfer(address,uint256)", int(alice, 16), 7)
            await listener.until(lambda: listener.hints == [(alice, token)])
        tasks.cancel_scope.cancel()


async def test_a_node_of_another_chain_is_refused_and_the_figures_say_so(tools):
    async with running(tools, chain_id=56) as chain, anyio.create_task_group() as tasks:
        listener = Listener(chain.url)
        tasks.start_soon(listener.source.run)
        with anyio.fail_after(PATIENCE):
            while listener.figures.problem is None:  # noqa: ASYNC110 - the figures are looked at, and tell nobody
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert listener.figures.problem.startswith("it serves the chain eip155:56, not eip155:1")
    assert listener.covered == set()
