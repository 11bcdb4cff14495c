"""The sandbox with more people in it, as a process of its own: `python -m tests.chaos.sandbox SEED RATE FAULTS`.

Prints its port. It enforces no limits. One listing is long, a whole chain, and most of its rows move just before each
look at it, so that one poll tells more than a thousand changes.
"""

import sys
import time

import anyio

from watcher.model.addresses import SOLANA
from watcher.providers.ondo import CHAINS
from watcher.sandbox.bloxroute import SimulatedBloxroute
from watcher.sandbox.helius import SimulatedHelius
from watcher.sandbox.jupiter import SimulatedJupiter
from watcher.sandbox.messages import json_reply
from watcher.sandbox.ondo import SimulatedOndo
from watcher.sandbox.population import Population
from watcher.sandbox.server import serve
from watcher.sandbox.tokenkit import SimulatedTokenKit
from watcher.sandbox.world import VALID_KEY, SandboxSettings, World

HOLDERS = 700
"""Of each of the three tokens on Ondo's Solana."""
LIVELY = 1800
"""Of these 2,100 balances so many move before each look at all of them."""
WALLETS = 4
KEY = "WATCHER_SANDBOX_KEY"
SETTLE = 3.0
"""Seconds. Short, so that a balance on which nothing is told is soon called silent."""
POLLS = {"jupiter": 16, "bloxroute": 12, "helius": 16, "ondo": 16, "tokenkit": 4}
"""Requests a second that the daemon may send: more would only heat the machine."""


class Wallets:
    """More of them."""

    def populate(self, population):
        for _ in range(WALLETS):
            super().populate(population)


class JupiterCrowd(Wallets, SimulatedJupiter):
    pass


class BloxrouteCrowd(Wallets, SimulatedBloxroute):
    pass


class OndoCrowd(SimulatedOndo):
    """A whole chain of holders."""

    def _settle(self, population, chain, holders):
        return super()._settle(population, chain, HOLDERS if chain == SOLANA else holders)


class Crowd(Population):
    """The seed's population with a whole chain of Ondo holders and more wallets."""

    def __init__(self, seed):
        super().__init__(seed, [JupiterCrowd(), BloxrouteCrowd(), SimulatedHelius(), OndoCrowd(), SimulatedTokenKit()])
        self.hot = {}
        """Provider → the balance that differs at every look. It does not move by itself."""
        for balance in self.balances:
            if balance.key.kind in ("total", "settled"):
                self.hot.setdefault(balance.key.provider, balance)
        for balance in self.hot.values():
            balance.weight = 0.0


class Lively(World):
    """The chain moves whenever somebody is about to look at it, and so do the hot balances, which only ever grow."""

    def __init__(self, *args, population, **more):
        super().__init__(*args, population=population, **more)
        self.hot = population.hot
        self.looks = dict.fromkeys(self.hot, 0)

    def _control(self, name, request, now):
        if name == "_hot":
            hot = self.hot.items()
            return json_reply(200, {"/".join(b.key): [self.looks[each], b.text(b.amount)] for each, b in hot})
        return super()._control(name, request, now)

    def _heat(self, name, request, now):
        """An amount that it never had, whenever it is asked for."""
        balance = self.hot[name]
        asked = f"{request.path} {request.query} {request.body.decode()}"
        if balance.key.account in asked or (name == "ondo" and CHAINS[balance.key.chain] in asked):
            self.truth.put(balance, balance.amount + 1, now)
            self.looks[name] += 1

    def _serve(self, desk, request, now):
        if not self.truth.frozen:
            self._heat(desk.api.name, request, now)
        if desk.api.name == "ondo" and not self.truth.frozen and CHAINS[SOLANA] in request.path:
            chain = [balance for balance in self.truth.of("ondo", chain=SOLANA) if balance is not self.hot["ondo"]]
            for balance in self._network.sample(chain, min(LIVELY, len(chain))):
                self.truth.put(balance, self.truth._another(balance), now)
        return super()._serve(desk, request, now)


def tables(port, seed):
    """`[providers.NAME]` tables that see every balance of the crowd."""
    cost = {"bloxroute": 5}
    return {
        name: {
            "type": name,
            "base_url": f"http://127.0.0.1:{port}/{name}",
            "api_key_env": KEY,
            "limits": [{"requests": POLLS[name] * cost.get(name, 1), "per": 1.0}],
            "watch": entries,
            "settle": SETTLE,
            **({"max_age": 0} if name == "tokenkit" else {}),
        }
        for name, entries in Crowd(seed).watches.items()
    }


def main(seed, rate, faults):
    settings = SandboxSettings(seed=int(seed), rate=float(rate), faults=faults, limits="none")
    wall = time.time()

    async def run():
        world = Lively(settings, start=anyio.current_time(), wall=wall, population=Crowd(settings.seed))
        async with anyio.create_task_group() as tasks:
            port = await tasks.start(lambda task_status: serve(world, task_status=task_status))
            print(port, flush=True)

    anyio.run(run)


if __name__ == "__main__":
    main(*sys.argv[1:])

__all__ = ["KEY", "VALID_KEY", "tables"]
