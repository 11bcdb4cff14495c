"""The channels at the sandbox's nodes, which were written from the same documents by others: one must understand the other."""

import pytest

from tests.sandbox.push_scene import DELAY, Scene
from watcher.hints.channel import WatchedScope
from watcher.hints.ethereum import EthereumChannel
from watcher.hints.starknet import StarknetChannel
from watcher.model.addresses import BSC, ETHEREUM, STARKNET
from watcher.model.keys import Scope
from watcher.runtime.slicing import run_at_once

NODES = [
    ("ethereum", "ondo", ETHEREUM, lambda: EthereumChannel(ETHEREUM)),
    ("bsc", "ondo", BSC, lambda: EthereumChannel(BSC)),
    ("starknet", "tokenkit", STARKNET, StarknetChannel),
]


def converse(scene, channel):
    """Until neither has anything to say; gives the hints."""
    hints = []
    scene.world.pushes.advance(scene.now)
    while True:
        for text in channel.outgoing():
            scene.session.received(text)
        frames = scene.session.outgoing()
        if not frames:
            return hints
        for frame in frames:
            news = channel.received(frame)
            assert news.refused is None
            hints += news.hints


@pytest.mark.parametrize("parts", [("account", "token"), ("account",), ("token",)], ids="+".join)
@pytest.mark.parametrize(("node", "provider", "chain", "make"), NODES, ids=[node[0] for node in NODES])
def test_each_move_of_the_world_is_a_hint_for_every_watch_that_shows_it_and_for_no_other(
    node, provider, chain, make, parts
):
    scene, channel = Scene(node), make()
    balances = list(scene.of(provider, chain=chain))
    known = {}
    for balance in balances:
        key = balance.key
        scope = Scope(
            provider, chain, *[getattr(key, part) if part in parts else None for part in ("account", "token")]
        )
        known.setdefault(scope, set()).add(key.token)
    run_at_once(channel.watch([WatchedScope(scope, tokens=tuple(sorted(tokens))) for scope, tokens in known.items()]))
    channel.connected()
    assert converse(scene, channel) == []
    assert channel.covered() == known.keys()
    assert len(balances) > 3
    for balance in balances:
        scene.put(balance, balance.amount + 5)
        scene.now += DELAY
        hints = converse(scene, channel)
        touched = {scope for scope in known if any(hint.touches(scope) for hint in hints)}
        assert touched == {scope for scope in known if scope.covers(balance.key)}
    run_at_once(channel.watch([]))
    converse(scene, channel)
    assert not scene.session.subscriptions
