"""What every journal must do with crossings: they are committed as their changes are, and stand in the log. A part of the suite.

A journal may put them anywhere among the changes, each in the order of its own key, and a cursor covers both.
"""

import msgspec
import pytest

from watcher.journal import Batch, Fenced, Journal, Rejected
from watcher.model.alerts import Crossing
from watcher.model.events import JSON, BalanceChanged
from watcher.model.keys import Filter
from watcher.model.log import Cursor, Published
from watcher.model.times import format_rfc3339
from watcher.testing.aside_conformance import AsideConformance
from watcher.testing.journal_samples import (
    baseline,
    by_key,
    change,
    collect,
    crossing,
    crossings,
    events,
    opened,
    read,
    reading,
    snapshot,
)

LARGE = "9" * 300_000
"""An amount that fits into no record."""


class CrossingConformance(AsideConformance):
    """Passes where a journal keeps changes and crossings in one place, and where it does not."""

    async def test_crossings_are_followed_once_and_in_order_as_they_were_committed(self, journal: Journal) -> None:
        rows = [baseline(f"account{number}", 0) for number in range(3)]
        changes: list[BalanceChanged] = []
        committed: list[Crossing] = []
        async with opened(journal) as (writer, _), reading(journal) as reader:
            start = (await reader.bounds()).head
            await writer.commit(Batch(rows, {"alert:1": b"0"}, [crossing(rows[0])]))
            committed.append(crossing(rows[0]))
            for amount in range(1, 11):
                rows = [change(row, amount) for row in rows]
                changes += [row.event for row in rows if row.event is not None]
                made = [crossing(row, alert) for row in rows[: amount % 3] for alert in ("low", "lower")]
                committed += made
                await writer.commit(Batch(rows, {"alert:1": b"%d" % amount}, made))
            found = await read(reader, start, len(changes) + len(committed))
        _in_order(found)
        assert _changes(found) == _each_key(changes)
        assert _crossings(found) == _each_key(committed)
        for event in found:
            fields = JSON.crossing(event.data) if event.type == "crossed" else JSON.event(event.data)
            assert (event.key, event.version) == (fields.key, fields.version)
            assert format_rfc3339(event.observed_at) == fields.observed_at

    async def test_a_crossing_may_come_alone_and_leaves_the_state_as_it_is(
        self, journal: Journal, twin: Journal
    ) -> None:
        row = baseline("account1", 5)
        async with opened(journal) as (writer, _), reading(twin) as reader:
            await writer.commit(Batch([row]))
            start = (await reader.bounds()).head
            await writer.commit(Batch([], {}, [crossing(row)]))
            await writer.commit(Batch([], {"alert:1": b"1"}, [crossing(row, "high", "above")]))
            found = await read(reader, start, 2)
            assert [JSON.crossing(event.data) for event in found] == [crossing(row), crossing(row, "high", "above")]
            assert await reader.notes() == {"alert:1": b"1"}
            cursor, states = await snapshot(reader, Filter())
            assert states == [row.state]
            assert cursor.reaches(start)
            assert cursor != start
        async with opened(twin) as (_, restored):
            assert restored.states == [row.state]
            assert restored.notes == {"alert:1": b"1"}

    async def test_a_cursor_resumes_behind_the_last_crossing_sent(self, journal: Journal, twin: Journal) -> None:
        row = baseline("account1", 0)
        async with opened(journal) as (writer, _), reading(journal) as reader:
            cursor = (await reader.bounds()).head
            await writer.commit(Batch([row], {}, [crossing(row)]))
            for amount in range(1, 4):
                row = change(row, amount)
                await writer.commit(Batch([row], {}, [crossing(row), crossing(row, "lower")]))
            everything = await read(reader, cursor, 10)
            assert len(everything) == 10
            for place, event in enumerate(everything[:-1], 1):
                cursor = cursor.after(event.partition, event.position)
                async with reading(twin) as another:
                    rest = await read(another, Cursor.parse(str(cursor)), len(everything) - place)
                assert sorted(rest, key=_place) == sorted(everything[place:], key=_place)
                _in_order(rest)

    async def test_a_snapshot_is_behind_the_crossings_of_before_and_the_next_one_follows(
        self, journal: Journal, twin: Journal
    ) -> None:
        row = baseline("account1", 0)
        async with opened(journal) as (writer, _), reading(twin) as reader:
            await writer.commit(Batch([row], {}, [crossing(row)]))
            await writer.commit(Batch([row := change(row, 1)], {}, [crossing(row)]))
            cursor, states = await snapshot(reader, Filter())
            assert states[0].version == 1
            await writer.commit(Batch([row := change(row, 2)], {}, [crossing(row)]))
            commits = await collect(reader, cursor, lambda found: len(events(found)) >= 2)
            assert [event.version for event in crossings(commits)] == [2]
            assert (await reader.bounds()).head.reaches(commits[-1].cursor)

    async def test_a_crossing_that_is_too_large_is_refused_by_its_key_and_nothing_of_its_batch_is_committed(
        self, journal: Journal, twin: Journal
    ) -> None:
        good, other = baseline("account1", 5), baseline("account2", 5)
        bad = msgspec.structs.replace(crossing(other), amount=LARGE)
        async with opened(journal) as (writer, _), reading(twin) as reader:
            start = (await reader.bounds()).head
            with pytest.raises(Rejected) as refused:
                await writer.commit(Batch([good], {"alert:1": b"1"}, [crossing(good), bad]))
            assert list(refused.value.records) == [str(other.state.key)]
            await writer.commit(Batch([good], {}, [crossing(good)]))
            found = await read(reader, start, 1)
            assert [JSON.crossing(event.data) for event in found] == [crossing(good)]
        async with opened(twin) as (_, restored):
            assert by_key(restored.states) == by_key([good.state])
            assert restored.notes == {}

    async def test_a_crossing_whose_key_cannot_be_read_again_is_refused(self, journal: Journal) -> None:
        good = baseline("account1", 5)
        bad = msgspec.structs.replace(crossing(good), token="a/b")  # noqa: S106 (an address)
        async with opened(journal) as (writer, _):
            with pytest.raises(Rejected) as refused:
                await writer.commit(Batch([good], {}, [bad]))
            assert list(refused.value.records) == [str(bad.key)]
            await writer.commit(Batch([good]))

    async def test_a_writer_that_was_fenced_commits_no_crossing(self, journal: Journal, twin: Journal) -> None:
        row = baseline("account1", 5)
        async with opened(journal) as (old, _):
            await old.commit(Batch([row]))
            async with reading(twin) as reader, opened(twin) as (writer, _):
                start = (await reader.bounds()).head
                with pytest.raises(Fenced):
                    await old.commit(Batch([], {"alert:1": b"1"}, [crossing(row)]))
                await writer.commit(Batch([], {}, [crossing(row, "lower")]))
                (event,) = await read(reader, start, 1)
        assert JSON.crossing(event.data).alert == "lower"


def _place(event: Published) -> tuple[int, int]:
    return event.partition, event.position


def _in_order(found: list[Published]) -> None:
    """Each place once, and those of each partition in order."""
    for partition in {event.partition for event in found}:
        positions = [event.position for event in found if event.partition == partition]
        assert positions == sorted(set(positions))


def _changes(found: list[Published]) -> dict[str, list[BalanceChanged | Crossing]]:
    return _each_key([JSON.event(event.data) for event in found if event.type == "changed"])


def _crossings(found: list[Published]) -> dict[str, list[BalanceChanged | Crossing]]:
    return _each_key([JSON.crossing(event.data) for event in found if event.type == "crossed"])


def _each_key(records: list[BalanceChanged] | list[Crossing]) -> dict[str, list[BalanceChanged | Crossing]]:
    """In the order of each key."""
    keyed: dict[str, list[BalanceChanged | Crossing]] = {}
    for record in records:
        keyed.setdefault(str(record.key), []).append(record)
    return keyed
