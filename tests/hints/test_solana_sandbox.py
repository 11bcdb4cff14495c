"""The channel of Solana at the sandbox's node, which was written from the same documents by others."""

import pytest

from tests.hints.test_sandbox_nodes import converse
from tests.sandbox.push_scene import DELAY, Scene
from watcher.hints.channel import WatchedScope
from watcher.hints.solana import SolanaChannel
from watcher.model.addresses import SOLANA
from watcher.model.keys import Scope
from watcher.runtime.slicing import run_at_once

CONFIRMED = 5.0
"""Seconds, at most, until what is processed is confirmed there."""
PARTS = [
    ("helius", ("account", "token")),
    ("jupiter", ("account",)),
    ("bloxroute", ("account",)),
    ("ondo", ("account", "token")),
    ("ondo", ("account",)),
]


@pytest.mark.parametrize(
    ("provider", "parts"), PARTS, ids=[f"{provider}-{'+'.join(parts)}" for provider, parts in PARTS]
)
def test_each_move_of_the_world_is_a_hint_for_every_watch_that_shows_it(provider, parts):
    scene, channel = Scene("solana"), SolanaChannel(1000)
    balances = list(scene.of(provider, chain=SOLANA))
    known = {}
    for balance in balances:
        key = balance.key
        scope = Scope(provider, SOLANA, key.account, key.token if "token" in parts else None)
        known.setdefault(scope, set()).add(key.token)
    run_at_once(
        channel.watch(
            [
                WatchedScope(scope, token_account=provider == "helius", tokens=tuple(sorted(tokens)))
                for scope, tokens in known.items()
            ]
        )
    )
    channel.connected()
    assert converse(scene, channel) == []
    assert {*channel.covered()} == known.keys()
    assert balances
    for balance in balances:
        scene.put(balance, balance.amount + 5)
        scene.now += DELAY + CONFIRMED
        hints = converse(scene, channel)
        touched = {scope for scope in known if any(hint.touches(scope) for hint in hints)}
        assert touched >= {scope for scope in known if scope.covers(balance.key)}
        assert {scope.account for scope in touched} == {balance.key.account}
    run_at_once(channel.watch([]))
    assert converse(scene, channel) == []
    assert scene.session.subscriptions == {}
