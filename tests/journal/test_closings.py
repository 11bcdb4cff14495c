"""Closings as journals keep them: SQLite, with JSON and with MessagePack for the log, and one of somebody else's."""

import contextlib
import sqlite3

import pytest

from tests.journal.conformed import OnSqlite, OnThird
from watcher.journal import Batch
from watcher.journal.sqlite import closings
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.model.days import DAY, midnight_after
from watcher.testing.closing_conformance import DAYS, ClosingConformance, closing, kept, keyed, note
from watcher.testing.journal_samples import BEGAN, baseline, opened, reading

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def at(tmp_path):
    return lambda **options: SqliteJournal(
        tmp_path / "balances.db", **{"encoding": "json", "retention": 604800.0, "clock": lambda: BEGAN, **options}
    )


class TestSqlite(OnSqlite, ClosingConformance):
    pass


class TestThird(OnThird, ClosingConformance):
    """With those of somebody else's."""


class TestTrimming:
    async def test_days_go_once_they_ended_longer_ago_than_checkpoints_says_and_a_slice_at_a_time(
        self, at, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(closings, "TRIM", 4)
        now = midnight_after(DAYS[2])
        journal = at(clock=lambda: now, checkpoints=2 * 86400.0)
        await journal.init()
        rows = [baseline(f"account{number}", number) for number in range(10)]
        left = []
        async with opened(journal) as (writer, _), reading(journal) as reader:
            for day in DAYS:
                await writer.commit(Batch([], note(*DAYS), (), [closing(row, day) for row in rows]))
            assert await reader.closing_days() == [*DAYS]  # the first one ended exactly so long ago
            now += 1
            for _ in range(5):
                assert await reader.closing_days() == [*DAYS[1:]]  # even while most of it is there
                assert await kept(reader, DAYS[0]) == {}
                left.append(count(tmp_path))
                await writer.commit(Batch([], {"limiter:bank": b"stamps"}))
            assert left == [30, 26, 22, 20, 20]
            now += DAY
            await writer.commit(Batch([], {"limiter:bank": b"stamps"}))
            assert count(tmp_path) == 16
            assert await kept(reader, DAYS[2]) == keyed(*(closing(row, DAYS[2]) for row in rows))

    async def test_for_ever_is_for_ever(self, at):
        now = BEGAN
        journal = at(clock=lambda: now)
        await journal.init()
        row = baseline("account1", 1)
        async with opened(journal) as (writer, _), reading(journal) as reader:
            await writer.commit(Batch([], note(DAYS[0]), (), [closing(row, DAYS[0])]))
            now += 100 * 366 * DAY
            await writer.commit(Batch([], {"limiter:bank": b"stamps"}))
            assert await reader.closing_days() == [DAYS[0]]
            assert await kept(reader, DAYS[0]) == keyed(closing(row, DAYS[0]))


def count(folder):
    with contextlib.closing(sqlite3.connect(folder / "balances.db")) as connection:
        return connection.execute("SELECT count(*) FROM closing").fetchone()[0]
