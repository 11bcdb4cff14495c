"""A journal that takes its time for each row and byte: what fits into a deadline alone is committed, whatever else waits."""

import itertools

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.ingest.test_committer import answer, in_virtual_time
from watcher.ingest.committer import DEADLINE, Committer
from watcher.ingest.group_size import GROUP_ROWS
from watcher.ingest.notes import DEFERRED, LARGE_NOTE
from watcher.journal import Restored
from watcher.ledger import Ledger
from watcher.limits.lease import LATE
from watcher.model.keys import Scope


def test_commits_that_take_longer_than_a_lease_are_told_once_a_minute():
    async def main():
        committer = Committer(SlowJournal(fixed=LATE), Ledger(), gather=0.0)
        async with anyio.create_task_group() as tasks:
            await tasks.start(committer.run)
            for _ in range(40):
                await committer.save("limiter:helius", b"")
            tasks.cancel_scope.cancel()

    with capture_logs() as logs:
        in_virtual_time(main)
    assert [line["event"] for line in logs] == ["journal.slow"] * 2


class SlowJournal:
    """In memory. `row` and `byte`: seconds for each, and `fixed` for each commit.

    A commit that is given up is done all the same where `done` says so, in turns.
    """

    def __init__(self, *, row=0.0, byte=0.0, fixed=0.0, done=(False,)):
        self.row, self.byte, self.fixed = row, byte, fixed
        self.states, self.notes, self.events = {}, {}, []
        self.sizes = []
        """Rows of each commit that was tried."""
        self.given_up = 0
        self._done = itertools.cycle(done)

    async def open(self):
        return Restored(list(self.states.values()), dict(self.notes), "e0", anyio.current_time(), released=True)

    async def commit(self, batch):
        self.sizes.append(len(batch.rows))
        taken = self.fixed + self.row * len(batch.rows) + self.byte * sum(map(len, batch.notes.values()))
        try:
            await anyio.sleep(taken)
        except BaseException:
            self.given_up += 1
            if next(self._done):
                self._put(batch)
            raise
        self._put(batch)

    async def release(self, *, in_doubt=0.0):
        pass

    async def close(self):
        pass

    def _put(self, batch):
        for row in batch.rows:
            self.states[row.state.key] = row.state
            if row.event is not None:
                self.events.append(row.event)
        self.notes |= batch.notes

    def amounts(self):
        return {int(key.account[1:]): state.amount for key, state in self.states.items()}

    def violations(self):
        """Of the laws of a log."""
        last, wrong = {}, []
        for event in self.events:
            version, amount = last.get(event.key, (0, event.previous_amount))
            if (event.version, event.previous_amount) != (version + 1, amount) or event.amount == amount:
                wrong.append(event)
            last[event.key] = (event.version, event.amount)
        told = {key: amount for key, (_, amount) in last.items()}
        return wrong + [key for key, amount in told.items() if self.states[key].amount != amount]


def committing(slow, main):
    """Runs `main(committer)` in virtual time; four hours are enough for everything here."""

    async def within():
        committer = Committer(slow, Ledger(), gather=0.01, bound=10_000)
        with anyio.fail_after(4 * 3600):
            async with anyio.create_task_group() as tasks:
                await tasks.start(committer.run)
                await main(committer)
                tasks.cancel_scope.cancel()

    in_virtual_time(within)


def test_a_thousand_rows_that_need_longer_than_a_commit_may_take_are_committed_in_smaller_groups():
    slow = SlowJournal(row=0.02)

    async def main(committer):
        await committer.accept(answer(dict.fromkeys(range(3000), 1), order=1))
        await committer.flush()
        assert len(slow.states) == 3000
        assert anyio.current_time() < 2 * (3000 * 0.02) + 2 * DEADLINE

    committing(slow, main)
    assert slow.sizes[:2] == [1000, 500]
    assert slow.given_up == 2  # 500 rows take 10 s; 250 take 5


def test_down_to_one_row():
    slow = SlowJournal(row=DEADLINE - 0.5)

    async def main(committer):
        await committer.accept(answer(dict.fromkeys(range(20), 1), order=1))
        await committer.flush()
        assert len(slow.states) == 20

    committing(slow, main)
    assert slow.sizes[:5] == [20, 10, 5, 2, 1]
    assert set(slow.sizes[4:]) == {1}


def test_groups_grow_again_when_the_journal_is_quick_again():
    slow = SlowJournal(row=0.1)

    async def main(committer):
        await committer.accept(answer(dict.fromkeys(range(500), 1), order=1))
        await committer.flush()
        slow.row, slow.sizes = 0.0, []
        for order in range(2, 12):
            await committer.accept(answer(dict.fromkeys(range(GROUP_ROWS), order), order=order))
            await committer.flush()

    committing(slow, main)
    assert slow.sizes[-3:] == [GROUP_ROWS] * 3
    assert slow.violations() == []


def test_a_note_that_fits_into_no_commit_keeps_no_row_and_no_other_note_from_theirs():
    slow = SlowJournal(byte=1e-5)

    async def main(committer):
        committer.note("schedule:bank", bytes(1_000_000))
        for order in range(1, 100):
            await committer.accept(answer({1: order}, order=order))
            committer.note("limiter:bank", b"%d" % order)
            await committer.flush()
            assert (slow.amounts(), slow.notes["limiter:bank"]) == ({1: str(order)}, b"%d" % order)
            await anyio.sleep(10.0)

    committing(slow, main)
    assert "schedule:bank" not in slow.notes
    assert slow.given_up <= 2 + 1000 / DEFERRED
    assert slow.violations() == []


def test_a_note_that_was_put_off_is_committed_once_it_fits():
    slow = SlowJournal(byte=1e-5)

    async def main(committer):
        committer.note("schedule:bank", bytes(1_000_000))
        await anyio.sleep(3 * DEADLINE)
        committer.note("schedule:bank", bytes(LARGE_NOTE + 1))
        await committer.flush()
        await anyio.sleep(DEFERRED)
        committer.note("limiter:bank", b"later")
        await committer.flush()
        await committer.flush()

    committing(slow, main)
    assert {key: len(data) for key, data in slow.notes.items()} == {"schedule:bank": LARGE_NOTE + 1, "limiter:bank": 5}


@pytest.mark.parametrize("rows", [0, 3000])
def test_what_flush_waited_for_is_committed_when_notes_go_one_by_one(rows):
    """Noted again while it is on its way, a note is not committed before the later one is."""
    slow = SlowJournal(row=0.02, byte=0.01)

    async def main(committer):
        if rows:
            await committer.accept(answer(dict.fromkeys(range(rows), 1), order=1))
        for name in "abc":
            committer.note(name, bytes(600))
        await anyio.sleep(DEADLINE + 1)
        for number in range(5):
            committer.note("a", b"%d" % number)
            await committer.flush()
            assert slow.notes["a"] == b"%d" % number
            assert len(slow.states) == rows
        assert set(slow.notes) >= {"a", "b", "c"}

    committing(slow, main)


def test_flush_waits_for_its_notes_behind_rows_that_never_end():
    slow = SlowJournal(row=1.0, byte=0.004)

    async def main(committer):
        async def rows():
            for order in itertools.count(1):
                await committer.accept(answer({order % 7: order}, order=order))
                await anyio.sleep(0.5)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(rows)
            for name in "abcdefgh":
                committer.note(name, bytes(500))
            await committer.flush()
            assert set(slow.notes) == set("abcdefgh")
            committer.note("a", b"first")
            await anyio.sleep(1.0)
            committer.note("a", b"second")
            await committer.flush()
            assert slow.notes["a"] == b"second"
            tasks.cancel_scope.cancel()

    committing(slow, main)


def test_that_a_listing_is_complete_is_committed_with_it():
    scope = Scope("bank", "eip155:1")
    slow = SlowJournal(row=0.1)

    async def main(committer):
        for order in (1, 2):
            await committer.accept(answer(dict.fromkeys(range(300), 1), order=order, listing=scope))
            committer.note("limiter:bank", b"stamps")
            await committer.flush()
            assert len(slow.states) == 300
            assert any(key.startswith("listing:") for key in slow.notes), list(slow.notes)

    committing(slow, main)


worlds = st.fixed_dictionaries(
    {
        "row": st.sampled_from([0.0, 0.001, 0.02, 0.5, 7.0]),
        "byte": st.sampled_from([0.0, 1e-6, 1e-4]),
        "fixed": st.sampled_from([0.0, 0.9]),
        "done": st.lists(st.booleans(), min_size=1, max_size=5),
    }
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("rows"), st.integers(0, 40), st.integers(1, 40)),
        st.tuples(st.just("note"), st.sampled_from("abc"), st.sampled_from([1, 1000, 60_000, 200_000])),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.5, 9.0, 61.0])),
        st.tuples(st.just("speed"), st.sampled_from([0.0, 0.02, 7.0])),
        st.tuples(st.just("flush")),
    ),
    max_size=25,
)


@settings(max_examples=150)
@given(world=worlds, steps=steps)
def test_nothing_is_lost_or_told_twice_however_slow_the_journal_is(world, steps):
    slow, amounts, notes = SlowJournal(**world), {}, {}

    async def main(committer):
        async def flushed():
            now, noted, before = dict(amounts), dict(notes), committer.commits
            await committer.flush()
            assert slow.amounts() == {number: str(amount) for number, amount in now.items()}
            late = {key for key in noted if slow.notes.get(key) != noted[key]}
            assert all(len(noted[key]) * slow.byte + slow.fixed >= DEADLINE for key in late), (late, before)

        for order, step in enumerate(steps, 1):
            match step:
                case "rows", first, count:
                    amounts.update(dict.fromkeys(range(first, first + count), order))
                    await committer.accept(answer(dict.fromkeys(range(first, first + count), order), order=order))
                case "note", key, size:
                    notes[key] = bytes([order]) * size
                    committer.note(key, notes[key])
                case "wait", seconds:
                    await anyio.sleep(seconds)
                case "speed", row:
                    slow.row = row
                case ["flush"]:
                    await flushed()
        await flushed()

    committing(slow, main)
    assert slow.violations() == []
