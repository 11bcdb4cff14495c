"""What every journal must do with closings. For a test module, as `journal_conformance`; its fixtures are the same."""

import msgspec
import pytest

from watcher.journal import Batch, Fenced, Journal, Reader, Rejected
from watcher.model.closed_days import NOTE, ClosedDays
from watcher.model.events import BalanceState, CommitRow
from watcher.model.keys import Filter
from watcher.model.past import Closing, PastBalance
from watcher.testing.journal_samples import baseline, by_key, change, opened, read, reading, snapshot

DAYS = ("2026-09-17", "2026-09-18", "2026-09-19")
"""That ended before these little worlds begin."""


def closing(row: CommitRow, day: str, amount: int | None = None) -> Closing:
    """What that row says, as the end of that day."""
    state: BalanceState = row.state
    named = {name: getattr(state, name) for name in ("provider", "chain", "account", "token", "kind", "symbol", "unit")}
    held = state.amount if amount is None else str(amount)
    return Closing(day=day, balance=PastBalance(**named, decimals=state.decimals, status="certain", amount=held))


def note(*days: str, provider: str = "bank") -> dict[str, bytes]:
    """That those days of the provider are closed."""
    closed = ClosedDays()
    for day in days:
        closed = closed.after(day)
    return {NOTE + provider: closed.encode()}


async def kept(
    reader: Reader,
    day: str,
    wanted: Filter = Filter(),  # noqa: B008 (frozen)
) -> dict[str, Closing]:
    """What a journal has of that day, by key; each once."""
    found = [one async for part in reader.closings(day, wanted) for one in part]
    keyed = {str(one.balance.key): one for one in found}
    assert len(keyed) == len(found), "a balance twice"
    return keyed


def keyed(*closings: Closing) -> dict[str, Closing]:
    return {str(one.balance.key): one for one in closings}


class ClosingConformance:
    """Asynchronous tests: the module that inherits sets `pytestmark = pytest.mark.anyio`."""

    async def test_a_journal_without_closings_has_no_day(self, journal: Journal) -> None:
        async with opened(journal), reading(journal) as reader:
            assert await reader.closing_days() == []
            assert await kept(reader, DAYS[0]) == {}

    async def test_closings_come_back_day_by_day_as_they_were_committed(self, journal: Journal, twin: Journal) -> None:
        rows = [baseline(f"account{number}", number) for number in range(5)]
        changing = msgspec.structs.replace(
            closing(rows[0], DAYS[1]).balance,
            status="changing",
            previous_amount="7",
            between=("2026-09-18T23:59:00.000000Z", "2026-09-19T00:01:00.000000Z"),
        )
        unseen = msgspec.structs.replace(
            closing(rows[1], DAYS[1]).balance, status="unseen", last_seen="2026-09-18T23:59:00.000000Z", symbol=None
        )
        first = [closing(row, DAYS[0]) for row in rows]
        second = [Closing(day=DAYS[1], balance=changing), Closing(day=DAYS[1], balance=unseen)]
        async with opened(journal) as (writer, _), reading(twin) as reader:
            await writer.commit(Batch(rows))
            await writer.commit(Batch([], note(DAYS[0]), (), first))
            await writer.commit(Batch([], note(DAYS[0], DAYS[1]), (), second))
            assert await kept(reader, DAYS[0]) == keyed(*first)
            assert await kept(reader, DAYS[1]) == keyed(*second)
            assert await kept(reader, DAYS[2]) == {}
            assert await reader.closing_days() == [*DAYS[:2]]
            wanted = Filter(account=("account3", "account4"), chain=("eip155:1",))
            assert await kept(reader, DAYS[0], wanted) == keyed(*first[3:])
            assert await kept(reader, DAYS[0], Filter(provider=("elsewhere",))) == {}

    async def test_of_a_day_and_a_balance_the_last_closing_stays(self, journal: Journal, twin: Journal) -> None:
        one, other = baseline("account1", 1), baseline("account2", 2)
        async with opened(journal) as (writer, _), reading(twin) as reader:
            await writer.commit(Batch([one, other]))
            for day in DAYS:
                await writer.commit(Batch([], {}, (), [closing(one, day), closing(other, day)]))
            await writer.commit(Batch([], {}, (), [closing(one, DAYS[0], 5), closing(one, DAYS[1], 6)]))
            assert await kept(reader, DAYS[0]) == keyed(closing(one, DAYS[0], 5), closing(other, DAYS[0]))
            assert await kept(reader, DAYS[1]) == keyed(closing(one, DAYS[1], 6), closing(other, DAYS[1]))
            assert await kept(reader, DAYS[2]) == keyed(closing(one, DAYS[2]), closing(other, DAYS[2]))

    async def test_a_day_counts_as_kept_once_the_note_says_that_it_is_closed(
        self, journal: Journal, twin: Journal
    ) -> None:
        row = baseline("account1", 1)
        async with opened(journal) as (writer, _), reading(twin) as reader:
            await writer.commit(Batch([row], {}, (), [closing(row, DAYS[0])]))
            assert await reader.closing_days() == []
            await writer.commit(Batch([], note(DAYS[0], DAYS[2]), (), []))
            assert await reader.closing_days() == [DAYS[0], DAYS[2]]
            await writer.commit(Batch([], note(DAYS[1], "2299-12-31", provider="other"), (), []))
            assert await reader.closing_days() == [*DAYS]

    async def test_closings_are_committed_with_rows_and_are_no_events(self, journal: Journal, twin: Journal) -> None:
        row = baseline("account1", 1)
        async with opened(journal) as (writer, _), reading(twin) as reader:
            start = (await reader.bounds()).head
            await writer.commit(Batch([row], {}, (), [closing(row, DAYS[0])]))
            await writer.commit(Batch([], note(DAYS[0]), (), [closing(row, DAYS[1])]))
            later = change(row, 2)
            await writer.commit(Batch([later], {}, (), [closing(later, DAYS[2])]))
            assert [event.version for event in await read(reader, start, 1)] == [1]
            _, states = await snapshot(reader, Filter())
            assert [(state.version, state.amount) for state in states] == [(1, "2")]
            assert [await kept(reader, day) for day in DAYS] == [
                keyed(closing(held, day)) for held, day in ((row, DAYS[0]), (row, DAYS[1]), (later, DAYS[2]))
            ]
        async with opened(twin) as (_, restored):
            assert by_key(restored.states) == by_key([later.state])
            assert restored.notes == note(DAYS[0])

    async def test_a_closing_that_is_too_large_is_refused_by_its_key_and_nothing_of_its_batch_is_committed(
        self, journal: Journal, twin: Journal
    ) -> None:
        good, other = baseline("account1", 1), baseline("account2", 2)
        bad = closing(other, DAYS[0])
        large = Closing(day=DAYS[0], balance=msgspec.structs.replace(bad.balance, symbol="s" * 300_000))
        odd = Closing(day=DAYS[0], balance=msgspec.structs.replace(bad.balance, account="a/b"))
        async with opened(journal) as (writer, _), reading(twin) as reader:
            for wrong in (large, odd):
                with pytest.raises(Rejected) as refused:
                    await writer.commit(Batch([good], note(DAYS[0]), (), [closing(good, DAYS[0]), wrong]))
                assert list(refused.value.records) == [str(wrong.balance.key)]
            assert await kept(reader, DAYS[0]) == {}
            assert await reader.notes() == {}
            await writer.commit(Batch([good], note(DAYS[0]), (), [closing(good, DAYS[0])]))
            assert await kept(reader, DAYS[0]) == keyed(closing(good, DAYS[0]))

    async def test_a_writer_that_was_fenced_commits_no_closing(self, journal: Journal, twin: Journal) -> None:
        row = baseline("account1", 1)
        async with opened(journal) as (old, _):
            await old.commit(Batch([row]))
            async with opened(twin) as (new, _), reading(twin) as reader:
                with pytest.raises(Fenced):
                    await old.commit(Batch([], note(DAYS[0]), (), [closing(row, DAYS[0])]))
                await new.commit(Batch([], {}, (), [closing(row, DAYS[1])]))
                assert await kept(reader, DAYS[0]) == {}
                assert await kept(reader, DAYS[1]) == keyed(closing(row, DAYS[1]))

    async def test_days_of_many_balances_come_back_whole(self, journal: Journal, twin: Journal) -> None:
        rows = [baseline(f"account{number}", number) for number in range(1_200)]
        async with opened(journal) as (writer, _), reading(twin) as reader:
            for number, day in enumerate(DAYS):
                for start in range(0, len(rows), 500):
                    part = [closing(row, day, number) for row in rows[start : start + 500]]
                    await writer.commit(Batch([], note(day), (), part))
            for number, day in enumerate(DAYS):
                assert await kept(reader, day) == keyed(*(closing(row, day, number) for row in rows))

    async def test_closings_outlive_writers_and_a_new_log(self, journal: Journal, twin: Journal) -> None:
        row = baseline("account1", 1)
        async with opened(journal) as (writer, _):
            await writer.commit(Batch([row], note(DAYS[0]), (), [closing(row, DAYS[0])]))
            await writer.release()
        await twin.init(new_log=True)
        async with opened(twin), reading(twin) as reader:
            assert await reader.closing_days() == [DAYS[0]]
            assert await kept(reader, DAYS[0]) == keyed(closing(row, DAYS[0]))
