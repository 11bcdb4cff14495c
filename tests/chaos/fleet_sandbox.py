"""The sandbox for a fleet, as a process of its own: `python -m tests.chaos.fleet_sandbox SEED RATE FAULTS WORLDS`.

Prints its port. Each of the WORLDS is a whole sandbox of its own, with its own seed, limits and counters: `/helius-2/…` is
Helius of the third one. So there are five credentials a world, and each counts strictly, whoever asks.

Each process of the fleet marks its requests by the key that its environment holds, `KEY-p7`: nothing in production or in
the config changes for it, and the hash of the provider tables is the same for all. The mark is taken off here.
"""

import re
import sys
import time
from itertools import islice

import anyio
import msgspec

from tests.chaos.fleet_judge import Arrival, Quota
from watcher.sandbox.messages import VALID_KEY, json_reply
from watcher.sandbox.server import serve
from watcher.sandbox.world import SandboxSettings, World, watches

KEY = "WATCHER_SANDBOX_KEY"
SETTLE = 3.0
"""Seconds, of each provider: a run need not wait longer at its end."""
MARK = re.compile(re.escape(VALID_KEY) + r"-(p\d+)")
QUOTAS = {
    "jupiter": Quota(3, 1.0),
    "bloxroute": Quota(50, 5.0, cost=5),
    "helius": Quota(5, 1.0),
    "ondo": Quota(2, 1.0),
    "tokenkit": Quota(1, 2.0),
}
"""Narrow and wide windows, a cost, and one in which a single request fits: it has no halves."""


def key_of(process):
    """What the environment of that process holds."""
    return f"{VALID_KEY}-{process}"


def quotas(worlds):
    """Provider table → what it counts by."""
    return {f"{name}-{number}": [quota] for number in range(worlds) for name, quota in QUOTAS.items()}


def limits_of():
    """The same, as a sandbox takes it."""
    return ",".join(f"{name}={quota.calls}/{quota.per:g}" for name, quota in QUOTAS.items())


def seeds(seed, worlds):
    return [seed * 1000 + number for number in range(worlds)]


def tables(port, seed, worlds, **more):
    """`[providers.NAME]` tables that see every balance. `more`: further keys of each."""
    return {
        f"{name}-{number}": {
            "type": name,
            "base_url": f"http://127.0.0.1:{port}/{name}-{number}",
            "api_key_env": KEY,
            "limits": [{"requests": QUOTAS[name].calls, "per": QUOTAS[name].per}],
            "watch": entries,
            "settle": SETTLE,
            **({"cost": QUOTAS[name].cost} if QUOTAS[name].cost > 1 else {}),
            **({"max_age": 0} if name == "tokenkit" else {}),
            **more,
        }
        for number, each in enumerate(seeds(seed, worlds))
        for name, entries in watches(each).items()
        if name in QUOTAS
    }


class Worlds:
    """What `serve` asks of a world, for all of them: it looks at the mark, and hands on."""

    def __init__(self, worlds):
        self._worlds = worlds
        self.pushes = worlds[0].pushes
        self._arrivals = []

    def travel(self):
        return self._worlds[0].travel()

    def answer(self, request, now):
        table, _, rest = request.path.removeprefix("/").partition("/")
        name, _, number = table.rpartition("-")
        if name not in QUOTAS:
            return self._control(table, request, now)
        found = MARK.search(f"{request.query} {request.headers}")
        world = self._worlds[int(number)]
        refusals = world.desks[name].refusals
        reply = world.answer(_unmarked(request, f"/{name}/{rest}"), now)
        refused = world.desks[name].refusals > refusals
        self._arrivals.append(Arrival(now, table, found[1] if found else "?", refused))
        return reply

    def _control(self, path, request, now):
        if path == "_arrivals":
            return json_reply(200, list(islice(self._arrivals, int(request.query.get("from", 0)), None)))
        if path == "_truth":
            history = request.query.get("history") != "0"
            return json_reply(200, {"providers": {k: v for w in self._reports(now, history=history) for k, v in w}})
        replies = [world.answer(request, now) for world in self._worlds]
        return replies[0]

    def _reports(self, now, *, history):
        for number, world in enumerate(self._worlds):
            yield [
                (f"{name}-{number}", {**told, "balances": [_renamed(each, number) for each in told["balances"]]})
                for name, told in world.report(now, history=history)["providers"].items()
                if name in QUOTAS
            ]


def _unmarked(request, path):
    strip = lambda texts: {name: MARK.sub(VALID_KEY, text) for name, text in texts.items()}  # noqa: E731
    return msgspec.structs.replace(request, path=path, query=strip(request.query), headers=strip(request.headers))


def _renamed(balance, number):
    provider, _, rest = balance["key"].partition("/")
    return {**balance, "key": f"{provider}-{number}/{rest}"}


def main(seed, rate, faults, worlds):
    each = [
        SandboxSettings(seed=number, rate=float(rate) / int(worlds), faults=faults, limits=limits_of())
        for number in seeds(int(seed), int(worlds))
    ]

    async def run():
        start, wall = anyio.current_time(), time.time()
        world = Worlds([World(settings, start=start, wall=wall) for settings in each])
        async with anyio.create_task_group() as tasks:
            port = await tasks.start(lambda task_status: serve(world, task_status=task_status))
            print(port, flush=True)

    anyio.run(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
