"""A rehearsal says beforehand what the real poller then does: the same sandbox, once polled in virtual time and once rehearsed."""

import anyio
import msgspec
import pytest

from tests.polling import START, journal, poller_of, virtually, wall
from tests.rehearsal.beside import delays, key_of, mean, rehearsed, shown_at
from watcher.journal.sqlite.file import inline
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.providers.registry import known
from watcher.rehearsal.pieces import answer_age
from watcher.rehearsal.recorded import read
from watcher.sandbox.transport import SandboxTransport
from watcher.sandbox.world import VALID_KEY, SandboxSettings, World, watches

pytestmark = pytest.mark.usefixtures("uncounted")

SECONDS = 2400.0
SELDOM, LONG = 0.15, 4800.0
"""Moves a second, of all balances of all providers together: so few that hardly two come between two reads."""
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


async def live(path, world, provider, seconds):
    answer = SandboxTransport(world).handle_async_request
    async with journal(path) as intake:
        watched = Watched(intake)
        poller = poller_of(provider, answer, watched, secret=VALID_KEY)
        with anyio.move_on_after(seconds):
            await poller.run()
    return watched


def polled(name, seed, path, rate, seconds):
    """The settings, what the API shows of each balance, and the delays of each move, with a journal at `path`."""
    settings = table(name, seed, **CASES[name])
    faults = f"latency={TRAVEL},cache=60"
    world = World(SandboxSettings(rate=rate, seed=seed, limits=GENEROUS, faults=faults), start=0.0, wall=START / 1e6)
    watched = virtually(live, path, world, known()[name](name, settings, keyed=True), seconds)
    world.truth.advance(seconds)
    moved = {key_of(balance): balance for balance in world.truth.of(name)}
    begin = world.truth.begins(world.truth.slot(0.0))
    shown = {
        key: (
            [shown_at(name, move.time, begin) for move in one.moves[1:]],
            [one.text(move.amount) for move in one.moves],
        )
        for key, one in moved.items()
    }
    return settings, shown, delays(shown, watched.events, watched.baselines, LATENCY / 2)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_the_mean_delay_is_the_one_that_was_rehearsed(name, seed, tmp_path):
    settings, shown, real = polled(name, seed, tmp_path / "balances.db", 1.0, SECONDS)
    outcome = rehearsed(settings, shown, SECONDS, latency=LATENCY)
    assert len(real) > 200
    assert outcome.delays.mean == pytest.approx(mean(real), rel=0.10)


async def recorded_in(path):
    journal = SqliteJournal(path, encoding="json", retention=1e9, clock=wall, runner=lambda: inline)
    reader = await journal.reader()
    try:
        return await read(reader, lambda _: None)
    finally:
        await reader.close()
        await journal.close()


@pytest.mark.parametrize("name", ["ondo", "tokenkit"])
def test_behind_a_cache_a_journal_that_missed_little_gives_the_mean_delay_too(name, tmp_path):
    ratios = []
    for seed in (1, 2):
        settings, _, real = polled(name, seed, tmp_path / f"{seed}.db", SELDOM, LONG)
        found = anyio.run(recorded_in, tmp_path / f"{seed}.db")
        assert len(found.changes[name]) >= 0.9 * len(real) > 90
        age = answer_age(known()[name](name, settings, keyed=True))
        for draw in range(1, 6):
            history = found.histories(LONG, LONG, draw, {name: age})[name]
            balances = {one.key: (one.times, one.amounts) for one in history.balances}
            outcome = rehearsed(settings, balances, history.seconds, latency=LATENCY)
            ratios.append(outcome.delays.mean / mean(real))
    assert mean(ratios) == pytest.approx(1.0, abs=0.10), ratios
