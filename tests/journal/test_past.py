"""The past as journals tell it: SQLite with JSON and with MessagePack, and one of somebody else's."""

import contextlib
import sqlite3

import pytest

from tests.journal.acme_memory import Log, MemoryJournal
from watcher.app.daemon import wall
from watcher.journal.sqlite import file as sqlite_file
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.testing.journal_samples import BEGAN, reading
from watcher.testing.past_conformance import PastConformance

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


class TestSqlite(PastConformance):
    """Each test twice: with JSON and with MessagePack in the file."""

    @pytest.fixture
    def at(self, tmp_path):
        return lambda encoding="json": SqliteJournal(
            tmp_path / "balances.db", encoding=encoding, retention=604800.0, clock=lambda: BEGAN
        )

    @pytest.fixture(params=["json", "msgpack"])
    async def journal(self, request, at):
        journal = at(request.param)
        await journal.init()
        yield journal
        await journal.close()

    @pytest.fixture
    async def twin(self, at):
        twin = at()
        yield twin
        await twin.close()


class TestThird(PastConformance):
    @pytest.fixture
    async def log(self):
        return Log()

    @pytest.fixture
    async def journal(self, log):
        return MemoryJournal(log)

    @pytest.fixture
    async def twin(self, log):
        return MemoryJournal(log)


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
