"""What was held at a past time, on a real log: each status, its limits, and clocks that were set back."""

import contextlib

import msgspec
import pytest

from watcher.journal import Batch
from watcher.journal.sqlite.file import inline
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.model import last_seen
from watcher.model.events import CommitRow
from watcher.model.keys import Filter
from watcher.model.last_seen import SeenNote
from watcher.model.times import format_rfc3339
from watcher.past.state_at import PastError, state_at
from watcher.testing.journal_samples import BEGAN, baseline, health
from watcher.testing.past_conformance import later

pytestmark = pytest.mark.anyio
SECOND = 1_000_000
NOW = 1000
"""Seconds after BEGAN, as all times here."""


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def clock():
    return [BEGAN + NOW * SECOND]


@pytest.fixture
async def journal(tmp_path, clock):
    journal = SqliteJournal(
        tmp_path / "balances.db", encoding="json", retention=990.0, clock=lambda: clock[0], runner=lambda: inline
    )
    await journal.init()
    yield journal
    await journal.close()


@pytest.fixture
async def writer(journal):
    writer = journal.writer(0)
    await writer.open()
    return writer


@pytest.fixture
async def ask(journal):
    """What was held at that second."""
    async with contextlib.AsyncExitStack() as stack:
        reader = await journal.reader()
        stack.push_async_callback(reader.close)

        async def ask(time, wanted=Filter(), now=NOW, **more):  # noqa: B008 (frozen)
            return await state_at(reader, BEGAN + round(time * SECOND), wanted, now=BEGAN + now * SECOND, **more)

        yield ask


def text(time):
    return format_rfc3339(BEGAN + time * SECOND)


def first(account, amount, at):
    return baseline(account, amount, BEGAN + at * SECOND)


def then(row, amount, since, at):
    """The next change; what was before was last seen at `since`."""
    made = later(row, amount, at * SECOND)
    known = (
        made.state
        if row.state.known_since is None
        else msgspec.structs.replace(made.state, first_observed_at=row.state.known_since)
    )
    return CommitRow(known, msgspec.structs.replace(made.event, previous_observed_at=text(since)))


def told(rows):
    return [(row.account, row.status, row.amount) for row in rows]


async def chain(writer):
    """Known at 10, seen until 90, another amount at 100, seen until 190, and another one at 200."""
    rows = [first("a", 5, 10)]
    rows.append(then(rows[-1], 6, 90, 100))
    rows.append(then(rows[-1], 7, 190, 200))
    for row in rows:
        await writer.commit(Batch([row]))
    return rows


async def test_each_status_has_its_limits(writer, ask):
    await chain(writer)
    assert told(await ask(9.999999)) == []
    assert told(await ask(10)) == told(await ask(90)) == [("a", "certain", "5")]
    for time in (90.000001, 99.999999):
        (row,) = await ask(time)
        assert (row.status, row.previous_amount, row.amount) == ("changing", "5", "6")
        assert row.between == (text(90), text(100))
        assert row.last_seen is None
    assert told(await ask(100)) == told(await ask(190)) == [("a", "certain", "6")]
    assert told(await ask(195)) == [("a", "changing", "7")]
    assert told(await ask(200)) == [("a", "certain", "7")]
    (row,) = await ask(200.000001)
    assert (row.status, row.amount, row.last_seen) == ("unseen", "7", text(200))


async def test_what_was_noted_as_seen_is_certain_until_then(writer, ask):
    (*_, last) = await chain(writer)
    name = last_seen.digest(last.state.key)
    note = last_seen.encode(SeenNote(BEGAN + NOW * SECOND, [(BEGAN + 500 * SECOND, name)], {}))
    await writer.commit(Batch([], {"seen:bank": note}))
    assert told(await ask(500)) == [("a", "certain", "7")]
    (row,) = await ask(501)
    assert (row.status, row.last_seen) == ("unseen", text(500))
    (row,) = await ask(250, now=400)  # a time that has not come says nothing
    assert (row.status, row.last_seen) == ("unseen", text(200))


async def test_rows_are_sorted_by_their_keys_and_say_what_the_amounts_are(writer, ask):
    await writer.commit(Batch([first("b", 1, 0), first("a", 2, 1), first("c", 3, 2)]))
    rows = await ask(1)
    assert told(rows) == [("a", "certain", "2"), ("b", "unseen", "1")]
    assert (rows[0].symbol, rows[0].unit, rows[0].decimals, rows[0].kind) == ("USDC", "base", 6, "total")
    assert told(await ask(2, Filter(account=("c", "d")))) == [("c", "certain", "3")]


async def test_thousands_of_balances_are_sorted_and_none_is_lost(writer, ask):
    rows = [first(f"a{number:04}", number, 0) for number in reversed(range(5000))]
    await writer.commit(Batch(rows))
    await writer.commit(Batch([then(row, 9, 50, 60) for row in rows[::2]]))
    found = await ask(0)
    assert [row.account for row in found] == [f"a{number:04}" for number in range(5000)]
    assert {(row.account, row.amount) for row in found} == {(row.state.account, row.state.amount) for row in rows}


async def test_a_balance_that_appeared_is_told_from_the_last_time_that_it_was_not_there(writer, ask):
    row = first("a", 0, 30)
    made = then(row, 5, 30, 40)
    state = msgspec.structs.replace(made.state, first_observed_at=text(30))
    await writer.commit(Batch([CommitRow(state, made.event)]))
    assert told(await ask(29)) == []
    assert told(await ask(30)) == [("a", "certain", "0")]
    assert told(await ask(35)) == [("a", "changing", "5")]


async def test_of_what_a_version_before_has_committed_only_what_its_events_prove_is_told(writer, ask):
    rows = [first("a", 5, 10)]
    rows.append(then(rows[-1], 6, 90, 100))
    rows.append(then(rows[-1], 7, 190, 200))
    for row in rows:
        state = msgspec.structs.replace(row.state, first_observed_at=None)
        await writer.commit(Batch([CommitRow(state, row.event)]))
    assert told(await ask(50)) == []  # whether it was known then nobody noted
    assert told(await ask(90)) == [("a", "certain", "5")]
    assert told(await ask(150)) == [("a", "certain", "6")]
    assert told(await ask(200)) == [("a", "certain", "7")]


async def test_after_a_clock_was_set_back_the_later_of_two_times_counts(writer, ask):
    """What was observed at 500 by a clock that ran ahead, and at 300 once it was right."""
    rows = [first("a", 5, 10)]
    rows.append(then(rows[-1], 6, 490, 500))
    rows.append(then(rows[-1], 7, 300, 300))
    rows.append(then(rows[-1], 8, 590, 600))
    for row in rows:
        await writer.commit(Batch([row]))
    assert told(await ask(400)) == told(await ask(550)) == [("a", "certain", "7")]
    assert told(await ask(595)) == [("a", "changing", "8")]
    assert told(await ask(200)) == [("a", "certain", "5")]


async def test_after_a_clock_was_set_back_the_state_counts_where_no_change_is_later(writer, ask):
    rows = [first("a", 5, 10)]
    rows.append(then(rows[-1], 6, 490, 500))
    rows.append(then(rows[-1], 7, 300, 300))
    for row in rows:
        await writer.commit(Batch([row]))
    (row,) = await ask(400)
    assert (row.status, row.amount, row.last_seen) == ("unseen", "7", text(300))


async def test_a_change_that_was_committed_late_is_told_at_its_time(writer, ask):
    one, two = first("a", 5, 10), first("b", 5, 10)
    await writer.commit(Batch([one, two]))
    await writer.commit(Batch([then(one, 6, 790, 800)]))
    await writer.commit(Batch([then(two, 7, 90, 100)]))
    assert told(await ask(95)) == [("a", "certain", "5"), ("b", "changing", "7")]


async def test_progress_is_told(writer, ask):
    await chain(writer)
    found = []
    await ask(20, progress=lambda done, of: found.append((done, of)))
    assert set(found) == {(2, 2)}


class TestWhatIsNotKept:
    async def test_a_time_in_the_future_is_refused(self, ask):
        with pytest.raises(PastError, match=f"{text(NOW + 1)} is in the future: now it is {text(NOW)}"):
            await ask(NOW + 1)
        assert await ask(NOW) == []

    async def test_behind_what_retention_has_deleted_everything_is_told_and_before_it_nothing(
        self, journal, writer, ask, clock
    ):
        await chain(writer)
        assert told(await ask(50)) == [("a", "certain", "5")]
        clock[0] = BEGAN + 1145 * SECOND  # what is older than 155 may go
        await journal.heartbeat([health("bank", clock[0])])
        assert told(await ask(101, now=1145)) == [("a", "certain", "6")]
        assert told(await ask(195, now=1145)) == [("a", "changing", "7")]
        assert told(await ask(100.000001, now=1145)) == [("a", "certain", "6")]
        reader = await journal.reader()
        assert await reader.kept_from() == BEGAN + 100 * SECOND + 1
        await reader.close()

    async def test_what_a_clock_that_ran_ahead_has_dated_bounds_the_past_at_the_time_of_its_end(
        self, journal, writer, clock
    ):
        row = first("a", 5, 10)
        await writer.commit(Batch([row]))
        await writer.commit(Batch([ahead := then(row, 6, 90, 90_000), then(ahead, 7, 20, 20)]))
        clock[0] = BEGAN + 1100 * SECOND
        await journal.heartbeat([health("bank", clock[0])])
        reader = await journal.reader()
        assert await reader.kept_from() == BEGAN + 1100 * SECOND + 1
        assert (await reader.bounds()).oldest.positions == (3,)
        await reader.close()
