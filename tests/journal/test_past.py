"""The past as journals tell it: SQLite with JSON and with MessagePack, and one of somebody else's."""

import contextlib
import random
import sqlite3

import pytest

from tests.journal.conformed import OnSqlite, OnThird
from watcher.app.daemon import wall
from watcher.journal import Batch
from watcher.journal.sqlite import file as sqlite_file
from watcher.journal.sqlite import first_changes as sqlite_firsts
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.journal.sqlite.reading import OpenFile
from watcher.model.keys import Filter
from watcher.model.log import Unavailable
from watcher.testing.journal_samples import BEGAN, baseline, opened, reading
from watcher.testing.past_conformance import SECOND, PastConformance, firsts, found, later

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


class TestSqlite(OnSqlite, PastConformance):
    pass


class TestThird(OnThird, PastConformance):
    """With those of somebody else's."""


class TestOlderFiles:
    """What of the past a file has that a version before this has trimmed, or not."""

    @pytest.mark.parametrize(("made", "left", "kept"), [(0, 0, 0), (3, 3, 0), (3, 2, BEGAN + 2)])
    async def test_all_is_kept_that_was_not_deleted(self, tmp_path, monkeypatch, made, left, kept):
        path = tmp_path / "balances.db"
        journal = SqliteJournal(path, encoding="json", retention=604800.0, clock=lambda: BEGAN)
        with monkeypatch.context() as patch:
            patch.setattr(sqlite_file, "FORMATS", sqlite_file.FORMATS[:3])
            await journal.init()
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            for number in range(1, made + 1):
                connection.execute("INSERT INTO event VALUES (?, 'k', 1, ?, 'json', '')", (number, BEGAN + number))
            connection.execute("DELETE FROM event WHERE seq <= ?", (made - left,))
        await journal.init()
        async with reading(journal) as reader:
            assert await reader.kept_from() == kept

    async def test_of_a_file_without_any_event_left_nothing_before_now_is_kept(self, tmp_path, monkeypatch):
        path = tmp_path / "balances.db"
        journal = SqliteJournal(path, encoding="json", retention=604800.0, clock=lambda: BEGAN)
        with monkeypatch.context() as patch:
            patch.setattr(sqlite_file, "FORMATS", sqlite_file.FORMATS[:3])
            await journal.init()
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("INSERT INTO event VALUES (1, 'k', 1, 5, 'json', '')")
            connection.execute("DELETE FROM event")
        before = wall()
        await journal.init()
        async with reading(journal) as reader:
            assert before - 1_000_000 <= await reader.kept_from() <= wall()


class TestFirstChangesOfAFile:
    """What SQLite finds in a table of its own."""

    @pytest.fixture
    async def journal(self, tmp_path):
        journal = SqliteJournal(tmp_path / "balances.db", encoding="json", retention=604800.0, clock=lambda: BEGAN)
        await journal.init()
        yield journal
        await journal.close()

    async def test_slices_end_anywhere_and_nothing_is_lost_or_found_twice(self, journal, monkeypatch):
        dice = random.Random(3)
        rows = [baseline(f"account{number}", 5) for number in range(8)]
        async with opened(journal) as (writer, _), reading(journal) as reader:
            await writer.commit(Batch(rows))
            changes = []
            for amount in range(100, 160):
                number, at = dice.randrange(8), dice.randrange(50) * SECOND  # a clock that stands nowhere
                rows[number] = later(rows[number], amount, at)
                changes.append((number, rows[number].state.version, at))
                await writer.commit(Batch([rows[number]]))
            head = (await reader.bounds()).head
            monkeypatch.setattr(sqlite_firsts, "ROWS_PER_SLICE", 7)
            monkeypatch.setattr(sqlite_firsts, "FOUND_PER_SLICE", 3)
            for time in range(-1, 51):
                expected = {}
                for number, version, at in changes:
                    if at <= time * SECOND:
                        expected.pop(f"account{number}", None)
                    else:
                        expected.setdefault(f"account{number}", version)
                assert await firsts(reader, time * SECOND, head) == expected, time

    async def test_writers_and_other_readers_are_not_held_up_between_two_slices(self, journal, monkeypatch):
        monkeypatch.setattr(sqlite_firsts, "ROWS_PER_SLICE", 1)
        row = later(baseline("account1", 5), 6, SECOND)
        async with opened(journal) as (writer, _), reading(journal) as reader:
            await writer.commit(Batch([row, other := later(baseline("account2", 5), 6, SECOND)]))
            head = (await reader.bounds()).head
            search = reader.first_changes(Filter(), BEGAN, head)
            parts = [await anext(search)]
            await writer.commit(Batch([later(row, 7, 2 * SECOND), later(other, 7, 2 * SECOND)]))
            with contextlib.closing(sqlite3.connect(journal.path)) as connection:
                busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            assert not busy, "no view of the file stands meanwhile"
            parts += [part async for part in search]
            assert sorted(event.version for event in found(parts)) == [1, 1]

    async def test_its_connection_is_closed_however_it_ends(self, journal, monkeypatch):
        opened_connections = []
        made = OpenFile.another
        monkeypatch.setattr(
            OpenFile, "another", lambda self: opened_connections.append(made(self)) or opened_connections[-1]
        )
        async with opened(journal) as (writer, _), reading(journal) as reader:
            await writer.commit(Batch([later(baseline("account1", 5), 6, SECOND)]))
            head = (await reader.bounds()).head
            await firsts(reader, 0, head)
            search = reader.first_changes(Filter(), BEGAN, head)
            await anext(search)
            await search.aclose()
        assert len(opened_connections) == 2
        for connection in opened_connections:
            with pytest.raises(sqlite3.ProgrammingError):
                connection.execute("SELECT 1")

    async def test_a_log_that_is_begun_anew_meanwhile_ends_it(self, journal, monkeypatch):
        monkeypatch.setattr(sqlite_firsts, "ROWS_PER_SLICE", 1)
        async with reading(journal) as reader:
            async with opened(journal) as (writer, _):
                row = later(baseline("account1", 5), 6, SECOND)
                await writer.commit(Batch([row]))
                await writer.commit(Batch([later(row, 7, 2 * SECOND)]))
            search = reader.first_changes(Filter(), BEGAN, (await reader.bounds()).head)
            await anext(search)
            await journal.init(new_log=True)
            with pytest.raises(Unavailable, match="a new log was begun"):
                await anext(search)


async def test_a_page_of_history_need_not_read_more_than_a_little_of_the_log(tmp_path):
    journal = SqliteJournal(tmp_path / "balances.db", encoding="json", retention=604800.0, clock=lambda: BEGAN)
    await journal.init()
    rows = [baseline(f"account{number:04}", 5) for number in range(4000)]
    async with opened(journal) as (writer, _), reading(journal) as reader:
        await writer.commit(Batch(rows))
        for number in (1, 2):
            rows = [later(row, 5 + number, number * SECOND) for row in rows]
            await writer.commit(Batch(rows))
        head = (await reader.bounds()).head
        sizes = [len(part.events) async for part in reader.between(Filter(), BEGAN, BEGAN + 9 * SECOND, head)]
    assert sum(sizes) == 8000
    assert sizes[0] <= 500
    assert len(sizes) < 8000 / 1000, "and many pages are no more work than one"
    await journal.close()
