"""What was held at a past time, on a real log: each status, its limits, and clocks that were set back."""

import contextlib

import msgspec
import pytest

from tests.journal.acme_memory import Log, MemoryJournal
from watcher.journal import Batch
from watcher.journal.sqlite.file import inline
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.model import last_seen
from watcher.model.closed_days import ClosedDays
from watcher.model.days import last_day_over, midnight_after
from watcher.model.events import CommitRow, changed
from watcher.model.keys import Filter
from watcher.model.last_seen import SeenNote
from watcher.model.past import Closing, PastBalance
from watcher.model.times import format_rfc3339
from watcher.past.state_at import PastError, state_at
from watcher.testing.journal_samples import BEGAN, baseline, health, opened, reading
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


class TestEndsOfDays:
    """What is told of a midnight from which no events are kept any more."""

    DAY = 86_400 * SECOND
    MIDNIGHT = midnight_after(last_day_over(BEGAN)) + DAY

    @pytest.fixture
    def clock(self):
        return [self.MIDNIGHT + 10 * self.DAY]

    @pytest.fixture
    def at(self, journal, clock):
        async def at(time, wanted=Filter()):  # noqa: B008 (frozen)
            reader = await journal.reader()
            try:
                return await state_at(reader, time, wanted, now=clock[0])
            finally:
                await reader.close()

        return at

    def closing(self, row, status="certain", day=0, **more):
        state = row.state
        names = {name: getattr(state, name) for name in ("provider", "chain", "account", "token", "kind")}
        more = {"symbol": None, "unit": "base", "decimals": None, "amount": state.amount, **more}
        balance = PastBalance(**names, status=status, **more)
        return Closing(day=last_day_over(self.MIDNIGHT + day * self.DAY), balance=balance)

    def row(self, account, amount, hours, *, version=0, since=None, provider="bank"):
        """A balance as it has stood since so many hours behind the midnight."""
        row = baseline(account, amount, self.MIDNIGHT + round(hours * 3600) * SECOND)
        since = None if since is None else format_rfc3339(self.MIDNIGHT + since * 3600 * SECOND)
        return CommitRow(
            msgspec.structs.replace(row.state, provider=provider, version=version, first_observed_at=since)
        )

    def closed(self, provider="bank", *days):
        first, last = (last_day_over(self.MIDNIGHT + day * self.DAY) for day in days or (0, 0))
        return {f"closed:{provider}": ClosedDays(((first, last),)).encode()}

    async def gone(self, journal, writer):
        """An event is deleted that was observed behind all that is asked for."""
        row = self.row("gone", 5, 24 * 5)
        await writer.commit(Batch([row]))
        made = msgspec.structs.replace(row.state, version=1, amount="6")
        await writer.commit(Batch([CommitRow(made, changed("e0", made, "5", row.state.observed_at))]))
        await journal.heartbeat([health("bank", BEGAN)])

    async def test_it_is_what_was_kept_of_it(self, journal, writer, at):
        a, b = self.row("a", 9, 50, version=3, since=-50), self.row("b", 8, 50, version=1, since=-50)
        seen = format_rfc3339(self.MIDNIGHT - SECOND)
        kept = [self.closing(a, amount="7"), self.closing(b, "unseen", amount="6", last_seen=seen)]
        await writer.commit(Batch([a, b], self.closed(), closings=kept))
        await self.gone(journal, writer)
        assert told(await at(self.MIDNIGHT)) == [("a", "certain", "7"), ("b", "unseen", "6")]
        assert (await at(self.MIDNIGHT))[1].last_seen == seen
        assert told(await at(self.MIDNIGHT, Filter(account=("b",)))) == [("b", "unseen", "6")]
        assert told(await at(self.MIDNIGHT, Filter(provider=("nobody",)))) == []

    async def test_every_other_instant_and_day_is_refused_with_what_is_kept(self, journal, writer, at):
        a = self.row("a", 9, 50, version=3, since=-50)
        kept = [self.closing(a, amount="7", day=day) for day in (0, 1)]
        await writer.commit(Batch([a], self.closed("bank", 0, 1), closings=kept))
        await self.gone(journal, writer)
        days = [last_day_over(self.MIDNIGHT + day * self.DAY) for day in (0, 1)]
        for time in (self.MIDNIGHT + 1, self.MIDNIGHT - 1, self.MIDNIGHT - self.DAY, self.MIDNIGHT + 2 * self.DAY):
            with pytest.raises(PastError, match=f"of the ends of days from {days[0]} to {days[1]}"):
                await at(time)
        assert told(await at(self.MIDNIGHT + self.DAY)) == [("a", "certain", "7")]

    async def test_of_a_provider_that_was_not_closed_then_only_what_has_not_changed_since_is_told(
        self, journal, writer, at
    ):
        """And nothing of what was begun and not ended."""
        a, still = self.row("a", 9, -5), self.row("still", 4, -5, version=2, since=-90, provider="other")
        new = self.row("new", 3, 7, provider="other")  # unknown at midnight
        kept = [self.closing(a, amount="7"), self.closing(still, amount="1"), self.closing(new, amount="2")]
        await writer.commit(Batch([a, still, new], self.closed(), closings=kept))
        await self.gone(journal, writer)
        rows = await at(self.MIDNIGHT)
        assert told(rows) == [("a", "certain", "7"), ("still", "unseen", "4")]
        assert rows[1].last_seen == still.state.observed_at
        note = SeenNote(self.MIDNIGHT + self.DAY, [(self.MIDNIGHT + SECOND, last_seen.digest(still.state.key))], {})
        await writer.commit(Batch([], {"seen:other": last_seen.encode(note)}))
        assert told(await at(self.MIDNIGHT)) == [("a", "certain", "7"), ("still", "certain", "4")]

    async def test_a_provider_that_was_not_closed_and_has_changed_since_is_named(self, journal, writer, at):
        a, moved = self.row("a", 9, -5), self.row("moved", 4, 5, version=2, since=-90, provider="other")
        await writer.commit(Batch([a, moved], self.closed(), closings=[self.closing(a, amount="7")]))
        await self.gone(journal, writer)
        with pytest.raises(PastError, match="of other nothing is kept of"):
            await at(self.MIDNIGHT)
        assert told(await at(self.MIDNIGHT, Filter(provider=("bank",)))) == [("a", "certain", "7")]
        assert told(await at(self.MIDNIGHT, Filter(account=("a",)))) == [("a", "certain", "7")]

    async def test_a_balance_that_became_known_later_is_left_out(self, journal, writer, at):
        a, late = self.row("a", 9, -5), self.row("late", 4, 30)
        await writer.commit(Batch([a, late], self.closed(), closings=[self.closing(a)]))
        await self.gone(journal, writer)
        assert told(await at(self.MIDNIGHT)) == [("a", "certain", "9")]

    async def test_while_events_are_kept_they_tell_it_and_no_closing(self, writer, at):
        a = self.row("a", 9, -5)
        await writer.commit(Batch([a], self.closed(), closings=[self.closing(a, amount="1")]))
        assert [row.amount for row in await at(self.MIDNIGHT)] == ["9"]

    async def test_days_that_a_clock_that_ran_ahead_has_closed_are_no_days(self, journal, writer, at, clock):
        a = self.row("a", 9, -5)
        kept = [self.closing(a, amount="7", day=day) for day in range(20)]
        await writer.commit(Batch([a], self.closed("bank", 0, 19), closings=kept))
        await self.gone(journal, writer)
        with pytest.raises(PastError, match=rf"to {last_day_over(clock[0])}$"):
            await at(self.MIDNIGHT + 1)


async def test_the_state_counts_after_a_clock_was_set_back_for_a_journal_that_has_no_short_way(clock):
    journal = MemoryJournal(Log())
    rows = [first("a", 5, 10)]
    rows.append(then(rows[-1], 6, 490, 500))
    rows.append(then(rows[-1], 7, 300, 300))
    async with opened(journal) as (writer, _), reading(journal) as reader:
        for row in rows:
            await writer.commit(Batch([row]))
        (row,) = await state_at(reader, BEGAN + 400 * SECOND, Filter(), now=clock[0])
    assert (row.status, row.amount, row.last_seen) == ("unseen", "7", text(300))
