"""A node of events and a channel that listens: what the tests of Ethereum and of Starknet have in common."""

import json

from watcher.hints.channel import News
from watcher.runtime.slicing import run_at_once


class EventNode:
    """Answers with `result`, remembers what it was asked, and sends what matches its filters."""

    def __init__(self):
        self.filters = {}
        """By the id of their subscription."""
        self.asked = []

    def answers(self, text):
        request = json.loads(text)
        self.asked.append(request["method"])
        return json.dumps({"jsonrpc": "2.0", "id": request["id"], **self.result(request["method"], request["params"])})

    def pushes(self, event):
        """What it sends when this happens: a frame for each subscription that it matches."""
        for number, wanted in self.filters.items():
            if self.matches(wanted, event):
                yield self.frame(number, event)


def fits(wanted, found):
    """Whether topics, or keys, are among those of a filter, place by place."""
    return len(wanted) <= len(found) and all(not part or one in part for part, one in zip(wanted, found, strict=False))


def settle(channel, node):
    """Until nothing more is asked for."""
    while texts := channel.outgoing():
        for text in texts:
            assert channel.received(node.answers(text)) == News()


def connected(channel, node, watches):
    run_at_once(channel.watch(watches))
    channel.connected()
    settle(channel, node)
    return channel, node


def heard(channel, node, events, chain):
    """The accounts and tokens of the hints, in order."""
    news = [channel.received(frame) for event in events for frame in node.pushes(event)]
    assert not any(one.missed for one in news)
    hints = [hint for one in news for hint in one.hints]
    assert all(hint.chain == chain and hint.provider is None for hint in hints)
    return [(hint.account, hint.token) for hint in hints]
