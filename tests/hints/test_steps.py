"""What is watched is taken over in steps, none of which grows with the number of watches: work is counted and not timed."""

import sys

import pytest

from tests.hints.solana_node import SolanaNode, talk
from watcher.hints.channel import WatchedScope
from watcher.hints.ethereum import EthereumChannel
from watcher.hints.solana import SolanaChannel
from watcher.hints.starknet import StarknetChannel
from watcher.model.addresses import ETHEREUM, SOLANA, STARKNET, base58
from watcher.model.keys import Scope

MOST_CALLS = 5000
"""Of functions in one step: a millisecond or so."""
WATCHES = 3000


def solana(number):
    return base58(bytes([1]) * 24 + number.to_bytes(8))


def evm(number):
    return f"0x{number:040x}"


def felt(number):
    return f"0x{number:064x}"


CHANNELS = [
    (lambda: SolanaChannel(200), SOLANA, solana),
    (EthereumChannel, ETHEREUM, evm),
    (StarknetChannel, STARKNET, felt),
]


def calls_of_each(steps):
    """Functions of Python and of C that each step has called."""
    found, calls = [], 0

    def count(_frame, event, _argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    there = True
    while there:
        calls = 0
        sys.setprofile(count)
        try:
            there = next(steps, "end") is None
        finally:
            sys.setprofile(None)
        found.append(calls)
    return found


def wallets(chain, address, *, first=()):
    """Holders of ten tokens each, as their listings name them; the first one has others besides."""
    for number in range(1, WATCHES + 1):
        tokens = [address(10**6 + 10 * number + place) for place in range(10)]
        yield WatchedScope(Scope("desk", chain, address(number)), tokens=tuple(sorted([*tokens, *first])))
        first = ()


@pytest.mark.parametrize(("make", "chain", "address"), CHANNELS, ids=["solana", "ethereum", "starknet"])
def test_no_step_grows_with_what_is_watched_at_first_with_a_new_token_and_at_the_end(make, chain, address):
    channel = make()
    for watched in (list(wallets(chain, address)), list(wallets(chain, address, first=[address(7)])), []):
        calls = calls_of_each(channel.watch(watched))
        assert max(calls) < MOST_CALLS
        assert max(calls) < sum(calls) / 10


def test_what_is_watched_already_costs_nothing():
    channel, watched = SolanaChannel(10), list(wallets(SOLANA, solana))
    calls_of_each(channel.watch(watched))
    channel.connected()
    talk(channel, SolanaNode())
    assert calls_of_each(channel.watch(list(watched))) == [pytest.approx(0, abs=10)]
    assert channel.outgoing() == []
