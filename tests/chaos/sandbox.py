"""The sandbox with more people in it, as a process of its own: `python -m tests.chaos.sandbox SEED RATE FAULTS`.

Prints its port. It enforces no limits. One listing is long, a whole chain, and most of its rows move just before each
look at it, so that one poll tells more than a thousand changes.
"""

import sys
import time

import anyio

from watcher.addresses import ONDO_NAMES, SOLANA
from watcher.sandbox.population import Population
from watcher.sandbox.server import serve
from watcher.sandbox.world import VALID_KEY, SandboxSettings, World

HOLDERS = 700
"""Of each of the three tokens on Ondo's Solana."""
LIVELY = 1800
"""Of these 2,100 balances so many move before each look at all of them."""
WALLETS = 4
KEY = "WATCHER_SANDBOX_KEY"
POLLS = {"jupiter": 16, "bloxroute": 12, "helius": 16, "ondo": 16, "tokenkit": 4}
"""Requests a second that the daemon may send: more would only heat the machine."""


class Crowd(Population):
    """The seed's population with a whole chain of Ondo holders and more wallets."""

    def _jupiter(self):
        for _ in range(WALLETS):
            super()._jupiter()

    def _bloxroute(self):
        for _ in range(WALLETS):
            super()._bloxroute()

    def _ondo_chain(self, chain, holders):
        return super()._ondo_chain(chain, HOLDERS if chain == SOLANA else holders)


class Lively(World):
    """The chain moves whenever somebody is about to look at it."""

    def _serve(self, desk, request, now):
        if desk.api.name == "ondo" and not self.truth.frozen and ONDO_NAMES[SOLANA] in request.path:
            chain = self.truth.of("ondo", chain=SOLANA)
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
