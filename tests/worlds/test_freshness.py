"""The gain of `sched-v1` survives the way through limiter, poller, sandbox, ledger and journal."""

import anyio
import numpy as np
import pytest

from tests.bench import streams
from tests.bench.freshness import Polls, Stream, cold, delays, product, round_robin
from tests.polling import START, helius, journal, poller_of, solana, virtually
from watcher.model.addresses import SOLANA
from watcher.sandbox.helius import BEHIND
from watcher.sandbox.transport import SandboxTransport
from watcher.sandbox.truth import SLOT_SECONDS, BalanceKey, SimulatedBalance, Truth
from watcher.sandbox.world import VALID_KEY, SandboxSettings, World

pytestmark = pytest.mark.usefixtures("uncounted")

TARGETS, SECONDS, CYCLE = 100, 3600.0, 60.0
MEASURED = (900.0, 3300.0)
FIRST_SLOT = 1_000_000


def zipf():
    made = streams.records("zipf1.2", 100, TARGETS, SECONDS)
    return made["ms"] / 1000.0, made["target"].astype(np.int64)


def as_the_api_shows_it(times, ids):
    """A change can be read once its slot is confirmed: what comes before that is not the scheduler's doing."""
    shown = (np.floor(times / SLOT_SECONDS) + BEHIND["confirmed"]) * SLOT_SECONDS
    return Stream(shown, ids, TARGETS, SECONDS)


def sandbox_of(times, ids):
    """The sandbox with balances that move exactly as the stream says."""
    held = [
        SimulatedBalance(BalanceKey("helius", SOLANA, solana(i), "any"), 1, 6, symbol="ANY") for i in range(TARGETS)
    ]
    truth = Truth(held, seed=1, rate=0.0, start=0.0, slot=FIRST_SLOT)
    for time, i in zip(times.tolist(), ids.tolist(), strict=True):
        held[i].move(time, truth.slot(time), held[i].amount + 1)
    world = World(SandboxSettings(rate=0.0, limits=f"helius={TARGETS}/{CYCLE}"), start=0.0, wall=START / 1e6)
    world.truth = truth
    return world


class Watched:
    """The journal's intake, and when it accepted each change."""

    def __init__(self, intake):
        self._intake = intake
        self.note, self.save, self.notes = intake.note, intake.save, intake.notes
        self.lease, self.in_doubt, self.problem = intake.lease, intake.in_doubt, None
        self.changes = []

    async def accept(self, answer):
        verdict = await self._intake.accept(answer)
        self.changes += [(answer.times.received, key.account) for key in verdict.changed]
        return verdict


async def live(path, world):
    provider = helius(TARGETS, limits=((TARGETS, CYCLE),), base_url="http://sandbox/helius")
    answer = SandboxTransport(world).handle_async_request
    async with journal(path) as intake:
        watched = Watched(intake)
        poller = poller_of(provider, answer, watched, seed=100, secret=VALID_KEY)
        with anyio.move_on_after(SECONDS):
            await poller.run()
    return watched.changes


def test_zipf_is_seen_as_soon_through_the_whole_system_as_in_the_pure_benchmark(tmp_path):
    times, ids = zipf()
    world = sandbox_of(times, ids)
    changes = virtually(live, tmp_path / "balances.db", world)
    assert world.desks["helius"].refusals == 0
    number = {solana(i): i for i in range(TARGETS)}
    seen = Polls(np.array([time for time, _ in changes]), np.array([number[account] for _, account in changes]))
    stream = as_the_api_shows_it(times, ids)
    whole, pure, even = (
        delays(stream, polls, MEASURED)[0].mean()
        for polls in (seen, product(stream, cold(100, TARGETS), CYCLE), round_robin(stream, CYCLE))
    )
    assert whole <= 1.10 * pure
    assert whole <= 0.7 * even  # with a hundred watches and an hour there is less to learn than in the benchmark
