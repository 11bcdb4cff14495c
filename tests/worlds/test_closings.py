"""The ends of days, kept by daemons that are killed, moved and cut off, are what was true at each midnight."""

import random
import tempfile
from pathlib import Path

import anyio
import pytest

from tests.polling import START, virtually
from tests.worlds.closing_world import (
    DAY,
    FIRST,
    PROVIDERS,
    WATCHES,
    Process,
    World,
    closings,
    day_after,
    judge,
    reading,
    told,
)
from watcher.ingest import closing_queue, last_seen_notes
from watcher.past.state_at import PastError

pytestmark = pytest.mark.usefixtures("uncounted")

ALL = WATCHES * len(PROVIDERS)
HOUR = 3600.0


@pytest.fixture
def path(tmp_path, monkeypatch):
    """In memory where there is such a place: thousands of commits, and no disk is what is tested here."""
    monkeypatch.setattr(last_seen_notes, "SAVE", 120.0)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        yield Path(name) / "balances.db"


@pytest.fixture
def small_slices(monkeypatch):
    monkeypatch.setattr(closing_queue, "SLICE", 2)


def test_each_midnight_is_as_it_was_long_after_the_events_have_gone(path):
    async def main():
        world = World(path, 1, 6)
        await Process(world).live(FIRST + 4.5 * DAY)
        async with reading(world) as reader:
            kept_from, days = await reader.kept_from(), await reader.closing_days()
        assert days == [day_after(number) for number in range(5)]
        assert kept_from > START + (FIRST + 2 * DAY) * 1e6
        for number in range(5):
            rows = await told(world, number)
            counts = judge(world, rows, FIRST + number * DAY)
            assert sum(counts.values()) == ALL
            assert counts["unseen"] == 0
            assert counts["certain"] >= ALL * 0.8
            kept = await closings(world, day_after(number))
            assert sorted(kept.values(), key=lambda row: row.key) == list(rows)
        with pytest.raises(PastError, match=r"nothing is kept of .*the ends of days from"):
            await told(world, 0.5)

    virtually(main)


@pytest.mark.parametrize("seed", range(4))
def test_a_kill_in_the_midst_of_a_day_is_repeated_and_leaves_each_balance_once(path, small_slices, seed):
    """Each life is killed at one commit of closings, before or behind it, until one gets through."""

    async def main():
        world, dice, now, lives = World(path, seed, 4), random.Random(seed), 0.0, 0
        while now < FIRST + DAY + 2 * HOUR:
            process = Process(world, dies_at=dice.randint(1, 6), behind=dice.random() < 0.5)
            await process.live(FIRST + DAY + 2 * HOUR)
            lives += 1
            now = anyio.current_time()
            await anyio.sleep(dice.uniform(0.0, 300.0))
        assert lives > 2
        for number in range(2):
            rows = await closings(world, day_after(number))
            assert len(rows) == ALL
            assert judge(world, rows.values(), FIRST + number * DAY)["unseen"] == 0
        async with reading(world) as reader:
            assert await reader.closing_days() == [day_after(0), day_after(1)]

    virtually(main)


def test_days_that_were_missed_are_made_up_as_far_as_events_are_kept(path):
    async def main():
        world = World(path, 5, 9, retention=2.5 * DAY)
        await Process(world).live(FIRST + 0.2 * DAY)
        await anyio.sleep(3 * DAY)  # nobody is there at the ends of three days
        await Process(world).live(FIRST + 4.2 * DAY)
        async with reading(world) as reader:
            days = await reader.closing_days()
        assert days == [day_after(number) for number in (0, 1, 2, 3, 4)]
        for number in (1, 2, 3):
            counts = judge(world, (await closings(world, day_after(number))).values(), FIRST + number * DAY)
            assert sum(counts.values()) == ALL
            assert counts["changing"] >= 1
            assert counts["unseen"] == 0  # it was read again before the days were closed

    virtually(main)


def test_days_of_which_the_events_are_gone_are_left_out_and_said_to_be(path):
    async def main():
        world = World(path, 6, 12, retention=DAY)
        await Process(world).live(FIRST + 1.2 * DAY)
        await Process(world, ["alpha"]).live(
            FIRST + 4.5 * DAY
        )  # beta is in no config: nobody knows when it is read again
        async with reading(world) as reader:
            days = await reader.closing_days()
        assert days == [day_after(number) for number in range(5)]
        for number in range(5):
            rows = await told(world, number)
            assert len(rows) == ALL
            judge(world, rows, FIRST + number * DAY)
        unread = [row for row in await told(world, 4) if row.provider == "beta"]
        assert {row.status for row in unread} == {"unseen"}

    virtually(main)


def test_a_provider_that_is_out_of_reach_over_midnight_keeps_what_is_unseen_an_hour_later(path):
    async def main():
        world = World(path, 7, 3, outages={"beta": (FIRST - HOUR, FIRST + 3 * HOUR)})
        await Process(world).live(FIRST + 0.9 * HOUR)
        async with reading(world) as reader:
            notes = await reader.notes()
        assert "closed:alpha" in notes
        assert "closed:beta" not in notes  # it is waited for, and the others are not held up
        await Process(world).live(FIRST + 2.5 * HOUR)
        rows = await closings(world, day_after(0))
        assert judge(world, [row for row in rows.values() if row.provider == "alpha"], FIRST)["unseen"] == 0
        late = [row for row in rows.values() if row.provider == "beta"]
        assert judge(world, late, FIRST) == {"certain": 0, "changing": 0, "unseen": WATCHES}

    virtually(main)


def test_whoever_takes_a_partition_over_in_the_midst_closes_the_day_wholly(path, small_slices):
    async def main():
        world = World(path, 8, 3)
        old = Process(world)

        async def commit(batch, as_before=old.commit):
            if batch.closings and old.slices == 1:  # the other one opens while a slice is on its way
                tasks.start_soon(new.live, FIRST + 3 * HOUR)
                await anyio.sleep(1.0)
            await as_before(batch)

        old.commit, new = commit, Process(world)
        with anyio.fail_after(2 * DAY):
            async with anyio.create_task_group() as tasks:
                await old.live(FIRST + DAY)
        assert old.fenced
        rows = await closings(world, day_after(0))
        assert len(rows) == ALL
        assert judge(world, rows.values(), FIRST)["unseen"] == 0
        assert new.slices >= 4

    virtually(main)


@pytest.mark.parametrize(("ahead", "back"), [(DAY, 0.4 * HOUR), (40 * DAY, 5 * HOUR), (-2 * HOUR, 5 * HOUR)])
def test_a_wall_clock_that_is_set_and_set_back_leaves_the_days_as_they_were(path, ahead, back):
    """A clock that is ahead for half an hour closes nothing; one that is ahead for longer closes days that do not count."""

    async def main():
        world = World(path, 9, 4)

        async def set_clock():
            await anyio.sleep_until(FIRST - 6 * HOUR)
            world.offset = ahead
            await anyio.sleep(back)
            async with reading(world) as reader:
                seen.extend(await reader.closing_days())
            world.offset = 0.0

        seen = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(set_clock)
            await Process(world).live(FIRST + 1.2 * DAY)
        async with reading(world) as reader:
            days = await reader.closing_days()
        assert days == [day_after(0), day_after(1)]
        assert bool(seen) == (ahead > 30 * DAY)
        first, second = [await closings(world, day_after(number)) for number in range(2)]
        assert len(first) == len(second) == ALL
        # What was read while the clock was wrong is dated wrongly, and is told so until it is read again.
        assert judge(world, second.values(), FIRST + DAY)["unseen"] == 0

    virtually(main)


def test_a_day_waits_for_readings_no_longer_than_its_events_are_kept(path):
    async def main():
        world = World(path, 10, 2, retention=0.5 * HOUR, outages={"beta": (FIRST - HOUR, FIRST + 3 * HOUR)})
        await Process(world).live(FIRST + 0.3 * HOUR)
        assert len(await closings(world, day_after(0))) == ALL

    virtually(main)


def test_days_go_when_checkpoints_says_so(path):
    async def main():
        world = World(path, 11, 6, checkpoints=1.7 * DAY)
        await Process(world).live(FIRST + 3.5 * DAY)
        async with reading(world) as reader:
            assert await reader.closing_days() == [day_after(2), day_after(3)]
        assert [len(await closings(world, day_after(number))) for number in range(4)] == [0, 0, ALL, ALL]
        with pytest.raises(PastError, match="nothing is kept of"):
            await told(world, 1)

    virtually(main)
