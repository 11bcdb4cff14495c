"""A rehearsal says beforehand what the real poller then does: the same sandbox, once polled in virtual time and once rehearsed."""

import anyio
import msgspec
import pytest

from tests.polling import START, journal, poller_of, virtually
from tests.rehearsal.beside import delays, key_of, mean, rehearsed, shown_at
from watcher.providers.registry import known
from watcher.sandbox.transport import SandboxTransport
from watcher.sandbox.world import VALID_KEY, SandboxSettings, World, watches

pytestmark = pytest.mark.usefixtures("uncounted")

SECONDS = 2400.0
TRAVEL = 0.05
"""Median seconds of the network, each way: the mean is a little more."""
LATENCY = 2 * TRAVEL * 1.083

CASES = {
    "jupiter": {"limits": [{"requests": 30, "per": 60.0}]},
    "bloxroute": {"limits": [{"requests": 30, "per": 60.0}], "cost": 1},
    "helius": {"limits": [{"requests": 60, "per": 60.0}]},
    "ondo": {"limits": [{"requests": 30, "per": 60.0}]},
    "tokenkit": {"limits": [{"requests": 4, "per": 60.0}]},
}
GENEROUS = ",".join(f"{name}=100000/1" for name in CASES)


def table(name, seed, **settings):
    raw = {"type": name, "watch": watches(seed)[name], "base_url": f"http://sandbox/{name}", "api_key_env": "KEY"}
    return msgspec.convert({**raw, **settings}, known()[name].Settings)


class Watched:
    """The journal's intake, and when it accepted a change of each key."""

    def __init__(self, intake):
        self._intake = intake
        self.note, self.save, self.notes, self.repeat = intake.note, intake.save, intake.notes, intake.repeat
        self.lease, self.in_doubt, self.problem = intake.lease, intake.in_doubt, None
        self.events, self.baselines = {}, {}

    async def accept(self, answer):
        verdict = await self._intake.accept(answer)
        for reading in answer.readings:
            self.baselines.setdefault(reading.key, answer.times.received)
        for key in verdict.changed:
            self.events.setdefault(key, []).append(answer.times.received)
        return verdict


async def live(path, world, provider):
    answer = SandboxTransport(world).handle_async_request
    async with journal(path) as intake:
        watched = Watched(intake)
        poller = poller_of(provider, answer, watched, secret=VALID_KEY)
        with anyio.move_on_after(SECONDS):
            await poller.run()
    return watched


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_the_mean_delay_is_the_one_that_was_rehearsed(name, seed, tmp_path):
    settings = table(name, seed, **CASES[name])
    faults = f"latency={TRAVEL},cache=60"
    world = World(SandboxSettings(rate=1.0, seed=seed, limits=GENEROUS, faults=faults), start=0.0, wall=START / 1e6)
    watched = virtually(live, tmp_path / "balances.db", world, known()[name](name, settings, keyed=True))
    world.truth.advance(SECONDS)
    moved = {key_of(balance): balance for balance in world.truth.of(name)}
    begin = world.truth.begins(world.truth.slot(0.0))
    shown = {
        key: (
            [shown_at(name, move.time, begin) for move in one.moves[1:]],
            [one.text(move.amount) for move in one.moves],
        )
        for key, one in moved.items()
    }
    real = delays(shown, watched.events, watched.baselines, LATENCY / 2)
    outcome = rehearsed(settings, shown, SECONDS, latency=LATENCY)
    assert len(real) > 200
    assert outcome.delays.mean == pytest.approx(mean(real), rel=0.10)
