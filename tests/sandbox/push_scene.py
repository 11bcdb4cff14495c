"""A world with pushes and nothing that waits: time is given, frames are read as they would be sent."""

import msgspec

from tests.sandbox.test_apis import START, world
from watcher.model.addresses import SOLANA

DELAY = 0.5
CONFIRMED = 1.2 + 1e-6
"""Seconds after which every move is confirmed at the latest."""


class Scene:
    def __init__(self, channel, **settings):
        self.world = world(rate=0.0, **settings) if "rate" not in settings else world(**settings)
        self.now = START
        self.channel = channel
        self.session = self.world.pushes.connect(channel, START)
        self._calls = 0

    def raw(self, text):
        """The reply to a message."""
        self.session.received(text)
        return self.frames()[-1]

    def call(self, method, params=()):
        self._calls += 1
        given = params if isinstance(params, dict) else list(params)
        call = {"jsonrpc": "2.0", "id": self._calls, "method": method, "params": given}
        reply = self.raw(msgspec.json.encode(call))
        assert (reply["jsonrpc"], reply["id"]) == ("2.0", self._calls)
        return reply["result"] if "result" in reply else (reply["error"]["code"], reply["error"]["message"])

    def frames(self):
        return [msgspec.json.decode(frame) for frame in self.session.outgoing()]

    def put(self, balance, amount):
        self.world.truth.put(balance, amount, self.now)

    def wait(self, seconds):
        """What comes within so many seconds."""
        self.now += seconds
        self.world.pushes.advance(self.now)
        return self.frames()

    def of(self, provider, **parts):
        return self.world.truth.of(provider, **parts)

    def holding(self, provider, **parts):
        """A balance that holds something, and is no wrapped or native one unless asked for."""
        return next(balance for balance in self.of(provider, **parts) if balance.amount > 10)


def account(address, commitment="confirmed"):
    return [address, {"encoding": "base64", "commitment": commitment}]


def mentions(address, commitment="confirmed"):
    return [{"mentions": [address]}, {"commitment": commitment}]


def wallets(scene, provider):
    return list(dict.fromkeys(balance.key.account for balance in scene.of(provider, chain=SOLANA)))
