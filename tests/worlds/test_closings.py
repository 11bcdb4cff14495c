"""The ends of days, kept by daemons that are killed, moved and cut off, are what was true at each midnight."""

import tempfile
from pathlib import Path

import anyio
import pytest

from tests.polling import START, virtually
from tests.worlds import closing_world
from tests.worlds.closing_world import DAY, FIRST, PROVIDERS, WATCHES, Process, World, closings, day_after, judge, reading, told
from watcher.ingest import closing_queue, last_seen_notes
from watcher.model.days import midnight_after
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
    monkeypatch.setattr(closing_queue, "SLICE", 5)


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
        with pytest.raises(PastError, match="nothing is kept of .*the ends of days from"):
            await told(world, 0.5)

    virtually(main)
