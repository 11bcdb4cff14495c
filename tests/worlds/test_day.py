"""A simulated day of polling five providers with random faults: real everything, but for the wires and the clocks."""

import random
import tempfile
from pathlib import Path

import anyio
import msgspec
import pytest
import trio
from trio.testing import MockClock

from tests.journal.laws import name, records, violations
from tests.polling import START, journal, poller_of
from watcher.providers.registry import known
from watcher.sandbox.messages import VALID_KEY
from watcher.sandbox.registry import PROVIDERS
from watcher.sandbox.transport import SandboxTransport
from watcher.sandbox.world import SandboxSettings, World, watches

pytestmark = pytest.mark.usefixtures("uncounted")

DAY = 86400.0
CALM = 7200.0
"""Seconds at the end in which nothing moves, so that the last amount of everything can be read, and confirmed."""
LIMITS = {"jupiter": (1, 120), "bloxroute": (5, 120), "helius": (1, 60), "ondo": (1, 120), "tokenkit": (1, 120)}
"""(requests, seconds): 4,320 polls a day, and bloXroute's cost five each."""


@pytest.fixture
def folder(tmp_path):
    """In memory where there is such a place: a day is ten thousand commits, and no disk is what is tested here."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        yield Path(name)


def sandbox(seed):
    limits = "none," + ",".join(f"{each}={requests}/{per}" for each, (requests, per) in LIMITS.items())
    faults = "default,latency=0.03,refused=0.05,torn=0.03,cache=60"
    settings = SandboxSettings(seed=seed, rate=0.05, faults=faults, limits=limits)
    return World(settings, start=anyio.current_time(), wall=START / 1e6)


def provider(each, seed):
    kind, (requests, per) = known()[each], LIMITS[each]
    table = {
        "type": each,
        "base_url": f"http://127.0.0.1/{each}",
        "api_key_env": "KEY",
        "limits": [{"requests": requests, "per": per}],
        "watch": watches(seed)[each],
    }
    return kind(each, msgspec.convert(table, kind.Settings), keyed=True)


async def live(file, seed, lives, length):
    """As many processes one after the other, the last of which sees the calm."""
    world = sandbox(seed)
    ends = [length * (n + 1) / lives for n in range(lives)]
    stats = []
    for end in [*ends[:-1], length + CALM]:
        async with journal(file) as intake, anyio.create_task_group() as tasks:
            pollers = [
                poller_of(
                    provider(each, seed), None, intake, seed=seed, secret=VALID_KEY, transport=SandboxTransport(world)
                )
                for each in PROVIDERS
            ]
            for poller in pollers:
                tasks.start_soon(poller.run)
            if end > length:
                await trio.sleep_until(length)
                world.truth.freeze(anyio.current_time())
            await trio.sleep_until(end)
            tasks.cancel_scope.cancel()
        stats.append([poller.stats for poller in pollers])
    return world, stats


def day(file, seed, lives=1, length=DAY):
    """Seeded to the last coin: trio, too, tosses one to order tasks that are ready together."""
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING, before = True, trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING
    trio._core._run._r = random.Random(seed)
    try:
        clock = MockClock(autojump_threshold=0)
        return anyio.run(live, file, seed, lives, length, backend="trio", backend_options={"clock": clock})
    finally:
        trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = before
        trio._core._run._r = random.Random()


def wrong(world, file):
    """Balances whose committed amount is not the last that really was."""
    _, states = records(file)
    amounts = {name(state): state["amount"] for state in states}
    return [
        (key, amounts.get(key), balance.text(balance.amount))
        for key, balance in (("/".join(balance.key), balance) for balance in world.truth.balances.values())
        if amounts.get(key, "0") != balance.text(balance.amount)
    ]


def test_a_day_of_five_faulty_providers_ends_with_every_amount_right_and_no_limit_broken(folder):
    file = folder / "balances.db"
    world, stats = day(file, seed=1, lives=5)
    events, _ = records(file)
    assert violations(file) == []
    assert wrong(world, file) == []
    assert {each: desk.refusals for each, desk in world.desks.items()} == dict.fromkeys(PROVIDERS, 0)
    assert all(desk.faults for desk in world.desks.values())
    assert all(sum(life[n].answers for life in stats) > 500 for n in range(len(PROVIDERS)))
    assert len(events) > 1000


def test_a_day_can_be_replayed_to_the_letter(folder):
    first, second = (day(folder / f"{n}.db", seed=3, lives=2, length=DAY / 12) for n in range(2))
    (events, states), (events_again, states_again) = (records(folder / f"{n}.db") for n in range(2))
    for (_, event), (_, again) in zip(events, events_again, strict=True):
        assert event.pop("id") != again.pop("id")  # two logs
    assert (events, states) == (events_again, states_again)
    assert first[1] == second[1]
