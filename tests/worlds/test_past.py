"""Every row of the past is right at random times of a recorded world, and certain only where it is certain."""

import random
import tempfile
from pathlib import Path

import anyio
import pytest
import trio
from trio.testing import MockClock

from tests.worlds.past_world import LAG, LIES, live

pytestmark = pytest.mark.usefixtures("uncounted")

HONEST = "none,latency=0.03,late=0.05,refused=0.05,torn=0.03,error=0.03"
"""Answers that do not come, or come late; but what they say is true."""
FAULTY = "default,latency=0.03,refused=0.05,torn=0.03,cached=0,missing=0"
"""Lies, too, that are old by so much at most."""


@pytest.fixture
def file(tmp_path):
    """In memory where there is such a place."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        yield Path(name) / "balances.db"


def lived(file, seed, faults, lag, *, length, times):
    """Seeded to the last coin."""
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING, before = True, trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING
    trio._core._run._r = random.Random(seed)
    try:
        clock = MockClock(autojump_threshold=0)
        options = {"clock": clock}

        async def main():
            return await live(file, seed, faults, length=length, times=times, lag=lag)

        return anyio.run(main, backend="trio", backend_options=options)
    finally:
        trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = before
        trio._core._run._r = random.Random()


@pytest.mark.parametrize(("seed", "faults", "lag", "hours"), [(1, HONEST, LAG, 4), (2, FAULTY, LIES, 2)])
def test_every_row_is_right_at_random_times_and_certain_only_where_it_is_certain(file, seed, faults, lag, hours):
    asker = lived(file, seed, faults, lag, length=hours * 3600.0, times=250 * hours)
    assert asker.wrong == []
    rows = sum(asker.counts.values())
    assert asker.counts["certain"] > 0.5 * rows
    assert all(count > 0.002 * rows for count in asker.counts.values())
