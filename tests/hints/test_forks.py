"""Forks: what geth 1.16.4 sent when a chain with a transfer lost against a longer one, which had it too.

`geth_reorganisation.jsonl` is what came on its socket, untouched: the answers to `eth_chainId` and to both subscriptions for
one balance, then the log, the same log removed, and the log in its new block.
"""

from pathlib import Path

import msgspec
import pytest

from watcher.hints.channel import WatchedScope
from watcher.hints.ethereum import EthereumChannel
from watcher.model.keys import Scope
from watcher.runtime.slicing import run_at_once

FRAMES = Path(__file__).with_name("geth_reorganisation.jsonl").read_text().splitlines()
LOGS = [msgspec.json.decode(frame)["params"]["result"] for frame in FRAMES[3:]]
CHAIN = "eip155:1337"
HOLDER = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8"


@pytest.fixture
def channel():
    channel = EthereumChannel(CHAIN)
    run_at_once(channel.watch([WatchedScope(Scope("ondo", CHAIN, HOLDER, LOGS[0]["address"]))]))
    channel.connected()
    return channel


def play(channel, frames):
    """The accounts of the hints that each frame gave."""
    accounts = []
    for frame in frames:
        channel.outgoing()
        news = channel.received(frame)
        assert news.refused is None
        accounts.append([hint.account for hint in news.hints])
    return accounts


def test_the_transfer_its_end_and_its_return_are_a_hint_each(channel):
    assert [(log["removed"], log["blockHash"]) for log in LOGS] == [
        (False, LOGS[0]["blockHash"]),
        (True, LOGS[0]["blockHash"]),
        (False, LOGS[2]["blockHash"]),
    ]
    assert LOGS[0]["transactionHash"] == LOGS[2]["transactionHash"]
    assert play(channel, FRAMES) == [[], [], [], [HOLDER], [HOLDER], [HOLDER]]


def test_when_the_first_chain_wins_in_the_end_that_is_a_hint_each_time_too(channel):
    mined, removed, elsewhere = FRAMES[3:]
    back = [elsewhere.replace('"removed":false', '"removed":true'), mined]
    assert play(channel, [*FRAMES, *back, removed, elsewhere])[3:] == [[HOLDER]] * 7


def test_geth_answers_in_another_order_than_it_is_asked(channel):
    channel.outgoing()
    channel.received(FRAMES[0])
    channel.outgoing()
    assert play(channel, [FRAMES[2], FRAMES[1]]) == [[], []]
    assert len(channel.covered()) == 1
