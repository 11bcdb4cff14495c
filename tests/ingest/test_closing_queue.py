"""Closings go into the journal in slices of their own, whole, and hold up no row."""

import anyio
import pytest
from structlog.testing import capture_logs

from tests.ingest.test_committer import answer
from tests.ingest.test_slow_journal import SlowJournal, committing
from watcher.ingest.closing_queue import SLICE
from watcher.journal import Rejected
from watcher.testing.closing_conformance import closing
from watcher.testing.journal_samples import baseline

DAY = "2026-09-19"
BEFORE, AFTER = {"closed:bank": b"before"}, {"closed:bank": b"after"}


class Keeper(SlowJournal):
    """Keeps closings, and what came in each commit of them. Takes none of the accounts in `poison`; where it is not `knowing` it
    does not say which. `slowness`: seconds for each closing."""

    def __init__(self, *poison, knowing=True, slowness=0.0, **options):
        super().__init__(**options)
        self.closings, self.slices = {}, []
        self.poison, self.knowing, self.slowness = set(poison), knowing, slowness

    async def commit(self, batch):
        await anyio.sleep(self.slowness * len(batch.closings))
        wrong = {str(one.balance.key): "too large" for one in batch.closings if one.balance.account in self.poison}
        if batch.closings or batch.notes.keys() & BEFORE.keys():
            assert not batch.rows
            self.slices.append((len(batch.closings), batch.notes.get("closed:bank")))
        if wrong:
            raise Rejected("too large", wrong if self.knowing else None)
        await super().commit(batch)
        self.closings |= {one.balance.account: one for one in batch.closings}


def some(count):
    return [closing(baseline(f"a{number}", number), DAY) for number in range(count)]


def accounts(count, but=()):
    return {f"a{number}" for number in range(count)} - set(but)


def test_the_note_that_closes_the_day_comes_with_the_last_slice_alone():
    keeper = Keeper()

    async def main(committer):
        await committer.closings.save(some(2 * SLICE + 7), BEFORE, AFTER)

    committing(keeper, main)
    assert keeper.slices == [(SLICE, b"before"), (SLICE, b"before"), (7, b"after")]
    assert keeper.closings.keys() == accounts(2 * SLICE + 7)
    assert keeper.notes["closed:bank"] == b"after"


def test_a_day_without_balances_is_its_note():
    keeper = Keeper()

    async def main(committer):
        await committer.closings.save([], BEFORE, AFTER)

    committing(keeper, main)
    assert keeper.slices == [(0, b"after")]


def test_rows_go_on_between_slices():
    keeper = Keeper(slowness=0.01)

    async def main(committer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(committer.closings.save, some(4 * SLICE), BEFORE, AFTER)
            await anyio.sleep(1.0)
            await committer.accept(answer({1: 5}))
            await committer.flush()
            assert len(keeper.slices) <= 2
            assert keeper.amounts() == {1: "5"}

    committing(keeper, main)
    assert len(keeper.closings) == 4 * SLICE


@pytest.mark.parametrize("knowing", [True, False])
def test_a_closing_that_the_journal_does_not_take_is_left_out_and_logged_once(knowing):
    keeper = Keeper("a3", "a600", knowing=knowing)

    async def main(committer):
        with capture_logs() as logs:
            await committer.closings.save(some(700), BEFORE, AFTER)
        rejected = [one["key"] for one in logs if one["event"] == "record.rejected"]
        assert sorted(name.split("/")[2] for name in rejected) == ["a3", "a600"]

    committing(keeper, main)
    assert keeper.closings.keys() == accounts(700, ["a3", "a600"])
    assert keeper.notes["closed:bank"] == b"after"
    assert len(keeper.slices) < 60


@pytest.mark.parametrize("knowing", [True, False])
def test_a_day_of_which_no_closing_is_taken_is_closed_all_the_same(knowing):
    keeper = Keeper("a0", "a1", knowing=knowing)

    async def main(committer):
        await committer.closings.save(some(2), BEFORE, AFTER)

    committing(keeper, main)
    assert keeper.closings == {}
    assert keeper.notes["closed:bank"] == b"after"


@pytest.mark.parametrize("done", [True, False])
def test_a_journal_that_is_slow_takes_smaller_slices(done):
    keeper = Keeper(fixed=0.5, slowness=0.04, done=(done,))  # a whole slice needs 20 s

    async def main(committer):
        await committer.closings.save(some(SLICE), BEFORE, AFTER)

    committing(keeper, main)
    assert keeper.closings.keys() == accounts(SLICE)
    assert keeper.slices[-1][1] == b"after"


def test_whoever_gives_up_waiting_takes_what_waits_along():
    keeper = Keeper(slowness=0.01)

    async def main(committer):
        with anyio.move_on_after(6.0):
            await committer.closings.save(some(10 * SLICE), BEFORE, AFTER)
        await committer.closings.save([], BEFORE, AFTER)

    committing(keeper, main)
    assert SLICE <= len(keeper.closings) < 3 * SLICE
    assert keeper.slices[-1] == (0, b"after")
