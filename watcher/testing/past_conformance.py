"""What every journal must tell of the past. For a test module, as `journal_conformance`; its fixtures are the same."""

import msgspec
import pytest

from watcher.journal import Batch, Journal, Reader
from watcher.model.events import JSON, CommitRow, changed
from watcher.model.keys import Filter
from watcher.model.log import Cursor, Expired, Published
from watcher.model.past import HistorySlice
from watcher.model.times import format_rfc3339
from watcher.testing.journal_samples import (
    BEGAN,
    baseline,
    change,
    collect,
    crossing,
    events,
    opened,
    reading,
    snapshot,
)

SECOND = 1_000_000
HOUR = 3_600 * SECOND


def later(row: CommitRow, amount: int, at: int) -> CommitRow:
    """The next change of that balance, observed `at` microseconds after BEGAN."""
    before, observed_at = row.state, format_rfc3339(BEGAN + at)
    state = msgspec.structs.replace(before, version=before.version + 1, amount=str(amount), observed_at=observed_at)
    return CommitRow(state, changed("e0", state, before.amount, min(before.observed_at, observed_at)))


async def slices_between(
    reader: Reader,
    first: int,
    last: int,
    until: Cursor,
    wanted: Filter = Filter(),  # noqa: B008 (frozen)
) -> list[HistorySlice]:
    """What was observed from `first` to `last` microseconds after BEGAN."""
    return [part async for part in reader.between(wanted, BEGAN + first, BEGAN + last, until)]


def found(slices: list[HistorySlice]) -> list[Published]:
    return [event for part in slices for event in part.events]


def named(slices: list[HistorySlice]) -> list[tuple[str, int]]:
    """Account and version of each."""
    return [(event.key.account, event.version) for event in found(slices)]


async def firsts(
    reader: Reader,
    time: int,
    until: Cursor,
    wanted: Filter = Filter(),  # noqa: B008 (frozen)
) -> dict[str, int]:
    """Account and version of each first change behind `time` microseconds after BEGAN."""
    changes = found([part async for part in reader.first_changes(wanted, BEGAN + time, until)])
    assert len({event.key for event in changes}) == len(changes)
    assert all(event.type == "changed" for event in changes)
    return {event.key.account: event.version for event in changes}


class PastConformance:
    """Asynchronous tests: the module that inherits sets `pytestmark = pytest.mark.anyio`."""

    async def test_a_log_that_is_new_has_kept_everything_and_holds_nothing(self, journal: Journal) -> None:
        async with opened(journal), reading(journal) as reader:
            head = (await reader.bounds()).head
            assert await reader.kept_from() <= BEGAN
            assert named(await slices_between(reader, 0, HOUR, head)) == []

    async def test_events_of_an_interval_come_in_the_order_of_the_log_with_both_ends(
        self, journal: Journal, twin: Journal
    ) -> None:
        first, second = baseline("account1", 5), baseline("account2", 5)
        rows = [one := later(first, 6, SECOND), later(second, 7, 2 * SECOND), two := later(one, 8, 3 * SECOND)]
        async with opened(journal) as (writer, _), reading(twin) as reader:
            await writer.commit(Batch([first, second]))
            for row in [*rows, later(two, 9, 4 * SECOND)]:
                await writer.commit(Batch([row]))
            head = (await reader.bounds()).head
            slices = await slices_between(reader, SECOND, 3 * SECOND, head)
            assert named(slices) == [("account1", 1), ("account2", 1), ("account1", 2)]
            assert named(await slices_between(reader, SECOND + 1, 3 * SECOND - 1, head)) == [("account2", 1)]
            assert named(await slices_between(reader, 5 * SECOND, HOUR, head)) == []
            assert await reader.kept_from() <= BEGAN

    async def test_an_event_is_the_one_that_a_follower_gets(self, journal: Journal) -> None:
        first = baseline("account1", 5)
        async with opened(journal) as (writer, _), reading(journal) as reader:
            begin = (await reader.bounds()).head
            await writer.commit(Batch([first]))
            await writer.commit(Batch([later(first, 6, SECOND)]))
            followed = events(await collect(reader, begin, events))
            head = (await reader.bounds()).head
            assert found(await slices_between(reader, 0, HOUR, head)) == followed
            assert JSON.event(followed[0].data).amount == "6"

    async def test_what_stands_at_or_behind_the_cursor_is_left_out(self, journal: Journal) -> None:
        first = baseline("account1", 5)
        one = later(first, 6, SECOND)
        async with opened(journal) as (writer, _), reading(journal) as reader:
            await writer.commit(Batch([first]))
            none = (await reader.bounds()).head
            await writer.commit(Batch([one]))
            before, _ = await snapshot(reader)
            await writer.commit(Batch([later(one, 7, 2 * SECOND)]))
            assert named(await slices_between(reader, 0, HOUR, none)) == []
            assert named(await slices_between(reader, 0, HOUR, before)) == [("account1", 1)]

    async def test_a_reading_that_was_broken_off_goes_on_behind_what_it_had(self, journal: Journal) -> None:
        row = baseline("account1", 5)
        async with opened(journal) as (writer, _), reading(journal) as reader:
            await writer.commit(Batch([row]))
            for number in range(1, 7):
                row = later(row, 5 + number, number * SECOND)
                await writer.commit(Batch([row]))
            bounds = await reader.bounds()
            whole = found(await slices_between(reader, 2 * SECOND, 5 * SECOND, bounds.head))
            assert [event.version for event in whole] == [2, 3, 4, 5]
            places = [bounds.oldest]
            for event in whole:
                places.append(places[-1].after(event.partition, event.position))
            for number, place in enumerate([*places, bounds.head]):
                rest = reader.between(Filter(), BEGAN + 2 * SECOND, BEGAN + 5 * SECOND, bounds.head, place)
                assert found([part async for part in rest]) == whole[number:], number

    @pytest.mark.parametrize("part", ["provider", "chain", "account", "token"])
    async def test_a_filter_takes_any_part_of_the_key(self, journal: Journal, part: str) -> None:
        first, other = baseline("account1", 5), baseline("account2", 5)
        other = CommitRow(msgspec.structs.replace(other.state, chain="eip155:10", token="native"))  # noqa: S106
        async with opened(journal) as (writer, _), reading(journal) as reader:
            await writer.commit(Batch([first, other]))
            await writer.commit(Batch([later(first, 6, SECOND), later(other, 6, SECOND)]))
            head = (await reader.bounds()).head
            value = getattr(first.state, part)
            both = [("account1", 1), ("account2", 1)]
            wanted = await slices_between(reader, 0, HOUR, head, Filter(**{part: (value, "another")}))
            assert named(wanted) == (both if part == "provider" else both[:1])
            assert named(await slices_between(reader, 0, HOUR, head, Filter(**{part: ("another",)}))) == []

    async def test_a_change_that_waited_for_its_commit_for_hours_is_found_by_the_time_at_which_it_was_observed(
        self, journal: Journal
    ) -> None:
        first, second = baseline("account1", 5), baseline("account2", 5)
        one = later(first, 6, 5 * HOUR)
        async with opened(journal) as (writer, _), reading(journal) as reader:
            await writer.commit(Batch([first, second]))
            await writer.commit(Batch([one]))
            await writer.commit(Batch([later(second, 7, 2 * HOUR), later(one, 8, 6 * HOUR)]))
            head = (await reader.bounds()).head
            assert named(await slices_between(reader, HOUR, 3 * HOUR, head)) == [("account2", 1)]
            assert named(await slices_between(reader, 4 * HOUR, 7 * HOUR, head)) == [("account1", 1), ("account1", 2)]

    async def test_times_before_and_after_a_clock_was_set_back_are_all_found(self, journal: Journal) -> None:
        first = baseline("account1", 5)
        rows = [first]
        for number, at in enumerate((3000, 3600, 600, 1200, 3300), 6):  # seconds; set back by most of an hour
            rows.append(later(rows[-1], number, at * SECOND))
        async with opened(journal) as (writer, _), reading(journal) as reader:
            for row in rows:
                await writer.commit(Batch([row]))
            head = (await reader.bounds()).head
            versions = [version for _, version in named(await slices_between(reader, 3000 * SECOND, HOUR, head))]
            assert versions == [1, 2, 5]
            versions = [version for _, version in named(await slices_between(reader, 0, 2000 * SECOND, head))]
            assert versions == [3, 4]
            slices = await slices_between(reader, 3000 * SECOND, 3600 * SECOND - 1, head)
            assert [version for _, version in named(slices)] == [1, 5]

    async def test_slices_say_how_far_the_reading_is(self, journal: Journal) -> None:
        rows = [baseline("account1", 5)]
        async with opened(journal) as (writer, _), reading(journal) as reader:
            await writer.commit(Batch(rows))
            for number in range(1, 40):
                rows.append(later(rows[-1], 5 + number, number * SECOND))
                await writer.commit(Batch([rows[-1]]))
            head = (await reader.bounds()).head
            slices = await slices_between(reader, 10 * SECOND, 19 * SECOND, head, Filter(account=("account1",)))
            assert [event.version for event in found(slices)] == [*range(10, 20)]
            done = [part.done for part in slices]
            assert done == sorted(done)
            assert slices[-1].done == slices[-1].of >= 10
            assert {part.of for part in slices} == {slices[-1].of}

    async def test_of_each_balance_the_first_change_after_a_time_is_found(self, journal: Journal) -> None:
        first, second, third = (baseline(f"account{number}", 5) for number in (1, 2, 3))
        one, other = later(first, 6, 10 * SECOND), later(second, 6, 20 * SECOND)
        async with opened(journal) as (writer, _), reading(journal) as reader:
            await writer.commit(Batch([first, second, third]))
            await writer.commit(Batch([one, other], {"alert:1": b"1"}, [crossing(one)]))
            await writer.commit(Batch([], {"alert:1": b"2"}, [crossing(later(third, 6, 25 * SECOND))]))  # by itself
            before = (await reader.bounds()).head
            await writer.commit(Batch([two := later(one, 7, 30 * SECOND)]))
            await writer.commit(Batch([later(two, 8, 40 * SECOND), later(other, 7, 50 * SECOND)]))
            head = (await reader.bounds()).head
            for time, expected in (
                (0, {"account1": 1, "account2": 1}),
                (10 * SECOND - 1, {"account1": 1, "account2": 1}),
                (10 * SECOND, {"account1": 2, "account2": 1}),
                (30 * SECOND, {"account1": 3, "account2": 2}),
                (50 * SECOND, {}),
            ):
                assert await firsts(reader, time, head) == expected, time
            assert await firsts(reader, 0, head, Filter(account=("account2", "account9"))) == {"account2": 1}
            assert await firsts(reader, 10 * SECOND, before) == {"account2": 1}
            slices = [part async for part in reader.first_changes(Filter(), BEGAN, head)]
            followed = events(await collect(reader, before, lambda commits: len(events(commits)) >= 3))
            assert followed[0] in found(
                [part async for part in reader.first_changes(Filter(), BEGAN + 10 * SECOND, head)]
            )
            assert [part.done for part in slices] == sorted(part.done for part in slices)
            assert slices[-1].done == slices[-1].of

    async def test_a_clock_that_was_set_back_makes_the_changes_before_it_no_first_ones(self, journal: Journal) -> None:
        """Observed at 500 s and 600 s by a clock that ran ahead, at 300 s once it was right, and then later."""
        rows = [baseline("account1", 5)]
        for amount, at in ((6, 500), (7, 600), (8, 300), (9, 700), (10, 800)):
            rows.append(later(rows[-1], amount, at * SECOND))
        async with opened(journal) as (writer, _), reading(journal) as reader:
            for row in rows:
                await writer.commit(Batch([row]))
            head = (await reader.bounds()).head
            assert await firsts(reader, 299 * SECOND, head) == {"account1": 1}
            for time in (300, 400, 550, 650):
                assert await firsts(reader, time * SECOND, head) == {"account1": 4}, time
            assert await firsts(reader, 700 * SECOND, head) == {"account1": 5}

    async def test_of_thousands_of_changes_each_balance_has_its_first(self, journal: Journal) -> None:
        rows = [baseline(f"account{number:04}", 5) for number in range(3000)]
        async with opened(journal) as (writer, _), reading(journal) as reader:
            await writer.commit(Batch(rows))
            for number in range(1, 5):
                rows = [later(row, 5 + number, number * SECOND) for row in rows]
                await writer.commit(Batch(rows))
            head = (await reader.bounds()).head
            assert await firsts(reader, 2 * SECOND, head) == dict.fromkeys((row.state.account for row in rows), 3)

    async def test_first_changes_of_another_log_or_beyond_the_head_are_refused(self, journal: Journal) -> None:
        async with opened(journal), reading(journal) as reader:
            head = (await reader.bounds()).head
            beyond = Cursor(head.epoch, tuple(position + 9 for position in head.positions))
            for cursor, reason in ((Cursor("0af0", head.positions), "epoch_changed"), (beyond, "ahead")):
                with pytest.raises(Expired) as refused:
                    await firsts(reader, 0, cursor)
                assert refused.value.reason == reason

    async def test_followers_go_on_while_the_past_is_read(self, journal: Journal) -> None:
        first = baseline("account1", 5)
        one = later(first, 6, SECOND)
        async with opened(journal) as (writer, _), reading(journal) as reader:
            await writer.commit(Batch([first]))
            await writer.commit(Batch([one]))
            head = (await reader.bounds()).head
            past = reader.between(Filter(), BEGAN, BEGAN + HOUR, head)
            part = await anext(past)
            await writer.commit(Batch([change(one, 7)]))
            assert [event.version for event in events(await collect(reader, head, events))] == [2]
            assert [event.version for event in part.events] + [
                event.version async for part in past for event in part.events
            ] == [1]

    async def test_a_cursor_of_another_log_or_beyond_the_head_is_refused(self, journal: Journal) -> None:
        async with opened(journal), reading(journal) as reader:
            head = (await reader.bounds()).head
            beyond = Cursor(head.epoch, tuple(position + 9 for position in head.positions))
            for cursor, reason in ((Cursor("0af0", head.positions), "epoch_changed"), (beyond, "ahead")):
                with pytest.raises(Expired) as refused:
                    await slices_between(reader, 0, HOUR, cursor)
                assert refused.value.reason == reason
