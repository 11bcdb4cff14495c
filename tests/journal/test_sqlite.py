"""The SQLite journal: the common suite, and what only a file can suffer."""

import contextlib
import os
import random
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.journal.laws import records, violations
from watcher.journal import Batch, Fenced, OlderFormat, Unwritable, WrongJournal
from watcher.journal.sqlite import file as sqlite_file
from watcher.journal.sqlite import identity as sqlite_identity
from watcher.journal.sqlite import reader as sqlite_reader
from watcher.journal.sqlite.file import inline, open_to_write, worker
from watcher.journal.sqlite.journal import SqliteJournal, path_of
from watcher.journal.sqlite.reader import SqliteReader
from watcher.journal.sqlite.reading import CommitSignal
from watcher.journal.sqlite.view import SqliteView, small_snapshot
from watcher.journal.sqlite.writer import PUT_STATE, ROWS
from watcher.journal.views import ViewLimits
from watcher.model.events import JSON
from watcher.model.keys import Filter
from watcher.model.log import Cursor, Expired, Unavailable
from watcher.testing.journal_conformance import JournalConformance
from watcher.testing.journal_samples import (
    BEGAN,
    baseline,
    baselines,
    by_key,
    change,
    collect,
    crossing,
    events,
    health,
    opened,
    read,
    reading,
    snapshot,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def clock():
    return lambda: BEGAN + 3_600_000_000


@pytest.fixture
def at(tmp_path, clock):
    """A journal on the one file of this test, as another process would open it."""
    return lambda **options: SqliteJournal(
        tmp_path / "balances.db", **{"encoding": "json", "retention": 604800.0, "clock": clock, **options}
    )


@pytest.fixture(params=["json", "msgpack"])
async def journal(request, at):
    journal = at(encoding=request.param)
    await journal.init()
    yield journal
    await journal.close()


@pytest.fixture
async def hasty(at, journal):
    hasty = at(view_limits=ViewLimits(longest=0.0))
    yield hasty
    await hasty.close()


@pytest.fixture
async def twin(at, journal):
    twin = at()
    yield twin
    await twin.close()


@pytest.mark.anyio
class TestConformance(JournalConformance):
    """Each test twice: with JSON and with MessagePack in the file."""


@pytest.mark.anyio
class TestTheFile:
    async def test_the_default_folder_is_made_with_the_database(self, clock, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        journal = SqliteJournal(path_of("sqlite:///var/balances.db"), encoding="json", retention=1.0, clock=clock)
        assert await journal.init() == "made the database var/balances.db"
        assert await journal.init() == "the database var/balances.db is ready: 0 balances, 0 events"

    def test_four_slashes_make_a_path_absolute(self):
        assert path_of("sqlite:////srv/x.db") == Path("/srv/x.db")
        assert path_of("sqlite:///x.db") == Path("x.db")

    async def test_a_writer_makes_a_missing_database(self, at):
        async with opened(at()) as (_, restored):
            assert restored.states == []

    async def test_a_reader_makes_nothing_and_says_who_does(self, at, tmp_path):
        for look in (at().reader, at().check):
            with pytest.raises(WrongJournal, match="`watcher init` and `watcher run` make it"):
                await look()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("path", "complaint"),
        [("missing/x.db", "there is no folder"), (".", "is a folder"), ("file/x.db", "there is no folder")],
    )
    async def test_a_place_where_no_file_can_be_is_told_in_one_line(self, tmp_path, clock, path, complaint):
        (tmp_path / "file").touch()
        journal = SqliteJournal(tmp_path / path, encoding="json", retention=1.0, clock=clock)
        with pytest.raises(Unwritable, match=complaint) as refusal:
            await journal.writer(0).open()
        assert "\n" not in str(refusal.value)

    async def test_a_file_that_is_no_database_is_refused(self, at, tmp_path):
        (tmp_path / "balances.db").write_bytes(b"not a database, but long enough to be looked at " * 100)
        for attempt in (at().init, at().writer(0).open, at().reader, at().check):
            with pytest.raises(Unwritable, match="is damaged"):
                await attempt()

    async def test_the_database_of_another_program_is_left_alone(self, at, tmp_path):
        with contextlib.closing(sqlite3.connect(tmp_path / "balances.db")) as connection:
            connection.execute("CREATE TABLE cookies (name)")
        before = (tmp_path / "balances.db").read_bytes()
        for attempt in (at().init, at().writer(0).open, at().reader):
            with pytest.raises(WrongJournal, match="another program's database"):
                await attempt()
        assert (tmp_path / "balances.db").read_bytes() == before

    async def test_a_newer_format_is_refused(self, at, tmp_path):
        await at().init()
        with contextlib.closing(sqlite3.connect(tmp_path / "balances.db")) as connection:
            connection.execute("PRAGMA user_version = 99")
        for attempt in (at().init, at().writer(0).open, at().reader):
            with pytest.raises(WrongJournal, match=r"format 99 .* upgrade watcher"):
                await attempt()

    async def test_an_older_format_is_brought_to_the_newest_with_all_it_holds(self, at, monkeypatch):
        row = baseline("a", 1)
        async with opened(at()) as (writer, _):
            await writer.commit(Batch([row]))
        newer = (*sqlite_file.FORMATS, ("ALTER TABLE note ADD COLUMN age INTEGER", "UPDATE note SET age = 0"))
        monkeypatch.setattr(sqlite_file, "FORMATS", newer)
        with pytest.raises(WrongJournal, match="`watcher init` brings it there"):
            await at().reader()
        async with opened(at()) as (_, restored), reading(at()):
            assert restored.states == [row.state]

    async def test_a_file_of_format_3_takes_crossings_behind_the_changes_that_it_holds(self, at, tmp_path, monkeypatch):
        row = baseline("a", 1)
        with monkeypatch.context() as older:
            older.setattr(sqlite_file, "FORMATS", sqlite_file.FORMATS[:3])
            async with opened(at()) as (writer, _):
                await writer.commit(Batch([row]))
                await writer.commit(Batch([row := change(row, 2)], {"limiter:bank": b"stamps"}))
        with contextlib.closing(sqlite3.connect(tmp_path / "balances.db")) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (3,)
            assert "type" not in [column for _, column, *_ in connection.execute("PRAGMA table_info(event)")]
        with pytest.raises(OlderFormat, match="is of format 3, not 4"):
            await at().reader()
        async with opened(at()) as (writer, restored), reading(at()) as reader:
            assert (restored.states, restored.notes) == ([row.state], {"limiter:bank": b"stamps"})
            await writer.commit(Batch([row := change(row, 3)], {}, [crossing(row)]))
            found = await read(reader, Cursor(restored.epoch, (0,)), 3)
        assert [(event.type, event.version) for event in found] == [("changed", 1), ("changed", 2), ("crossed", 2)]
        assert JSON.crossing(found[-1].data) == crossing(row)

    async def test_a_migration_that_fails_leaves_the_old_format_whole(self, at, monkeypatch):
        async with opened(at()) as (writer, _):
            await writer.commit(Batch([baseline("a", 1)]))
        with monkeypatch.context() as patch:
            patch.setattr(sqlite_file, "FORMATS", (*sqlite_file.FORMATS, ("DROP TABLE note", "DROP TABLE neverland")))
            with pytest.raises(Unwritable, match="no such table: neverland"):
                await at().init()
        async with opened(at()) as (_, restored):
            assert len(restored.states) == 1


@pytest.mark.anyio
class TestCrossings:
    async def test_they_stand_behind_the_changes_of_their_commit_in_one_log(self, at):
        rows = [change(baseline(name, 1), 2) for name in "ab"]
        async with opened(at()) as (writer, restored), reading(at()) as reader:
            await writer.commit(Batch(rows, {}, [crossing(rows[1]), crossing(rows[0], "lower")]))
            await writer.commit(Batch([change(rows[0], 3)]))
            found = await read(reader, Cursor(restored.epoch, (1,)), 5)
        assert [event.position for event in found] == [1, 2, 3, 4, 5]
        assert [event.type for event in found] == ["changed", "changed", "crossed", "crossed", "changed"]
        assert [event.key.account for event in found] == ["a", "b", "b", "a", "a"]

    async def test_retention_takes_them_as_it_takes_changes(self, at):
        now = [BEGAN]
        journal = at(retention=10.0, clock=lambda: now[0])
        row = baseline("a", 1)
        async with opened(journal) as (writer, _), reading(journal) as reader:
            await writer.commit(Batch([row], {}, [crossing(row)]))
            await writer.commit(Batch([row := change(row, 2)], {}, [crossing(row)]))
            now[0] += 10_500_000  # the change is not yet as old as that, and what stands behind it neither
            await writer.commit(Batch([], {"n": b""}))
            assert (await reader.bounds()).oldest.positions == (2,)
            now[0] += 10_000_000
            await writer.commit(
                Batch([], {}, [msgspec.structs.replace(crossing(row), observed_at=row.state.observed_at)])
            )
            assert (await reader.bounds()).oldest.positions == (5,)
            with pytest.raises(Expired, match="expired"):
                await collect(reader, Cursor((await reader.bounds()).head.epoch, (3,)), bool)

    async def test_a_mark_beside_the_file_tells_how_far_a_crossing_alone_has_brought_it(self, at, tmp_path):
        row = baseline("a", 1)
        async with opened(at()) as (writer, _):
            await writer.commit(Batch([row]))
            await writer.commit(Batch([], {}, [crossing(row)]))
            assert sqlite_identity.mark_of(tmp_path / "balances.db").endswith(".2")

    @pytest.mark.parametrize("refused", ["state", "note", "event"])
    async def test_what_fails_in_the_midst_of_a_commit_leaves_no_crossing(self, at, tmp_path, refused):
        row = baseline("a", 1)
        async with opened(at()) as (writer, _):
            await writer.commit(Batch([row]))
            row = change(row, 2)
            with contextlib.closing(sqlite3.connect(tmp_path / "balances.db")) as connection:
                when = "NEW.type = 'crossed'" if refused == "event" else "1"
                event = "UPDATE" if refused == "state" else "INSERT"
                connection.execute(
                    f"CREATE TRIGGER no BEFORE {event} ON {refused} WHEN {when} BEGIN SELECT RAISE(ABORT, 'no'); END"
                )
                with pytest.raises(sqlite3.IntegrityError):
                    await writer.commit(Batch([row], {"alert:1": b"1"}, [crossing(row)]))
                counts = (
                    "SELECT (SELECT count(*) FROM event), (SELECT max(version) FROM state), (SELECT count(*) FROM note)"
                )
                assert connection.execute(counts).fetchone() == (0, 0, 0)

    async def test_one_that_cannot_be_read_says_that_the_file_is_damaged(self, at, tmp_path):
        row = baseline("a", 1)
        journal = at(encoding="msgpack")
        async with opened(journal) as (writer, _), reading(at()) as reader:
            start = (await reader.bounds()).head
            await writer.commit(Batch([row], {}, [crossing(row)]))
            with contextlib.closing(sqlite3.connect(tmp_path / "balances.db")) as connection, connection:
                connection.execute("UPDATE event SET data = x'ff' WHERE type = 'crossed'")
            with pytest.raises(Unwritable, match="is damaged: an event in it cannot be read"):
                await read(reader, start, 1)


@pytest.mark.anyio
class TestRetention:
    async def test_events_past_retention_go_in_slices_and_the_newer_ones_stay(self, at):
        now = [BEGAN]
        journal = at(retention=10.0, clock=lambda: now[0])
        rows = [baseline(f"a{number}", 0) for number in range(1000)]
        async with opened(journal) as (writer, _), reading(journal) as reader:
            await writer.commit(Batch(rows))
            for amount in (1, 2, 3):
                rows = [change(row, amount) for row in rows]
                await writer.commit(Batch(rows))
            assert (await reader.bounds()).oldest.positions == (1,)
            now[0] = BEGAN + 12_500_000  # the first two of three waves, told after 1, 2 and 3 s, are older than 10 s
            oldest = []
            for beat in range(3):
                await journal.heartbeat([health("bank", now[0] + beat)])
                oldest += (await reader.bounds()).oldest.positions
            assert oldest == [1001, 2001, 2001]
            found = await read(reader, (await reader.bounds()).oldest, 1000)
            assert {event.version for event in found} == {3}

    @pytest.mark.parametrize(
        ("ahead", "left"),
        [
            (3.0, {11.5: 2, 14.5: 1503}),  # until it would be past retention by its date
            (3600.0, {11.5: 1503}),  # it is known to be wrong
        ],
    )
    async def test_what_a_clock_that_ran_ahead_has_dated_goes_with_what_is_behind_it(self, at, ahead, left):
        """More of it than one look takes."""
        now = [BEGAN]
        journal = at(retention=10.0, clock=lambda: now[0])
        rows = [change(baseline(f"a{number}", 0), 1, after=round((1 + ahead) * 1e6)) for number in range(1500)]
        first, last = (change(baseline(name, 0), 1) for name in ("first", "last"))
        async with opened(journal) as (writer, _), reading(journal) as reader:
            await writer.commit(Batch([first, *rows, last]))
            for seconds, place in {10.5: 1, **left}.items():
                now[0] = BEGAN + round(seconds * 1e6)
                for _ in range(6):
                    await journal.heartbeat([health("bank", now[0])])
                assert (await reader.bounds()).oldest.positions == (place,), seconds

    async def test_what_a_clock_that_ran_behind_has_dated_takes_nothing_along_that_is_younger(self, at):
        now = [BEGAN + 2_000_000]
        journal = at(retention=10.0, clock=lambda: now[0])
        async with opened(journal) as (writer, _), reading(journal) as reader:
            await writer.commit(Batch([change(baseline("right", 0), 1)]))
            await writer.commit(Batch([change(baseline("behind", 0), 1, after=-3_600_000_000)]))
            await journal.heartbeat([health("bank", now[0])])
            assert (await reader.bounds()).oldest.positions == (1,)
            now[0] += 12_000_000
            await journal.heartbeat([health("bank", now[0])])
            assert (await reader.bounds()).oldest.positions == (3,)

    async def test_a_cursor_past_retention_is_expired_and_never_used_again(self, at):
        now = [BEGAN]
        journal = at(retention=10.0, clock=lambda: now[0])
        row = baseline("a", 0)
        async with opened(journal) as (writer, _), reading(journal) as reader:
            await writer.commit(Batch([row]))
            before = (await reader.bounds()).head
            await writer.commit(Batch([row := change(row, 1)]))
            now[0] += 3_600_000_000
            await journal.heartbeat([])
            bounds = await reader.bounds()
            assert bounds.oldest == bounds.head  # everything is gone, and the count goes on
            assert bounds.head.positions == (2,)
            with pytest.raises(Expired) as refusal:
                await read(reader, before, 1)
            assert refusal.value.reason == "expired"
            now[0] = BEGAN
            await writer.commit(Batch([row := change(row, 2)]))
            assert [event.version for event in await read(reader, bounds.oldest, 1)] == [2]

    async def test_nothing_is_missed_before_the_first_position(self, at):
        row = baseline("a", 0)
        async with opened(at()) as (writer, _), reading(at()) as reader:
            await writer.commit(Batch([row]))
            await writer.commit(Batch([change(row, 1)]))
            epoch = (await reader.bounds()).head.epoch
            assert [event.version for event in await read(reader, Cursor(epoch, (0,)), 1)] == [1]

    async def test_a_slow_follower_whose_place_goes_learns_of_it(self, at):
        now = [BEGAN]
        journal = at(retention=10.0, clock=lambda: now[0])
        rows = [baseline(f"a{number}", 0) for number in range(1500)]
        async with opened(journal) as (writer, _), reading(journal) as reader:
            cursor = (await reader.bounds()).head
            await writer.commit(Batch(rows))
            await writer.commit(Batch([change(row, 1) for row in rows]))
            log = reader.follow(cursor)
            assert len((await anext(log)).events) == 1000
            now[0] += 3_600_000_000
            for _ in range(2):
                await journal.heartbeat([])
            with pytest.raises(Expired) as refusal:
                await anext(log)
            assert refusal.value.reason == "expired"


@pytest.mark.anyio
class TestBaselines:
    async def test_a_follower_that_comes_late_gets_all_that_did_not_change_since(self, at):
        rows = [baseline(f"a{number}", 0) for number in range(2500)]
        journal = at()
        async with opened(journal) as (writer, _), reading(at()) as reader:
            cursor, _ = await snapshot(reader, Filter())
            await writer.commit(Batch(rows))
            await writer.commit(Batch([change(row, 1) for row in rows[100:200]]))
            commits = await collect(reader, cursor, lambda found: len(baselines(found)) >= 2400)
        assert len(by_key(baselines(commits))) == 2400
        assert {event.version for event in events(commits)} == {1}


PART = st.text(st.sampled_from("ab:é'%_"), min_size=1, max_size=2)


@given(
    st.lists(st.tuples(PART, PART, PART, PART), unique=True, min_size=1, max_size=12),
    st.fixed_dictionaries({}, optional=dict.fromkeys(Filter.__struct_fields__, st.sets(PART, min_size=1, max_size=3))),
    st.integers(1, 5),
)
@settings(max_examples=25)
def test_sqlite_finds_what_a_filter_wants(keys, wanted, size):
    wanted = Filter(**{name: tuple(values) for name, values in wanted.items()})
    states = [
        msgspec.structs.replace(baseline(account, 0).state, provider=provider, chain=chain, token=token)
        for provider, chain, account, token in keys
    ]
    expected = [state for state in states if wanted.matches(state.key)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "balances.db"
        with contextlib.closing(open_to_write(path)) as file:
            rows = [(str(state.key), state.account, 0, JSON.content_type, JSON.encode(state)) for state in states]
            file.executemany(PUT_STATE, rows)
            assert small_snapshot(file, wanted, 12) == expected
            assert small_snapshot(file, wanted, len(expected)) == expected
            assert not expected or small_snapshot(file, wanted, len(expected) - 1) is None
        assert anyio.run(in_pages, path, wanted, size) == expected


async def in_pages(path, wanted, size):
    view = SqliteView(path, inline, lambda _: None, lambda: True)
    count = await view.count(wanted)
    behind, found = await view.page(wanted, 0, size)
    while len(found) < count:
        behind, page = await view.page(wanted, behind, size)
        assert page
        found += page
    assert await view.page(wanted, behind, size) == (behind, [])
    view.end()
    return found


HOLDS = """
import sqlite3, sys
held = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, isolation_level=None)
held.execute("BEGIN")
held.execute("SELECT count(*) FROM note").fetchone()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.anyio
class TestTheWal:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        monkeypatch.setattr(sqlite_file, "WAL", 256 * 1024)

    async def grow(self, writer, wal):
        for number in range(6):
            await writer.commit(Batch([], {f"note:{number}": bytes(1 << 20)}))
        assert wal.stat().st_size > 6 << 20

    async def shrink(self, writer, wal):
        for number in range(3):  # what changes nothing writes nothing
            await writer.commit(Batch([], {"small": b"%d" % number}))
        assert wal.stat().st_size <= 256 * 1024

    async def test_it_shrinks_once_a_process_that_held_it_is_killed(self, at, tmp_path):
        path, wal = tmp_path / "balances.db", tmp_path / "balances.db-wal"
        async with opened(at()) as (writer, _):
            async with await anyio.open_process([sys.executable, "-S", "-c", HOLDS, str(path)]) as reader:
                assert await reader.stdout.receive()
                await self.grow(writer, wal)
                reader.kill()
            await self.shrink(writer, wal)

    async def test_it_shrinks_once_a_snapshot_is_closed_and_while_it_is_grown_none_begins_beside_another(
        self, at, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(sqlite_reader, "GROWN", 1 << 20)
        wal = tmp_path / "balances.db-wal"
        journal = at(view_limits=ViewLimits(pause=3600.0))
        async with opened(journal) as (writer, _), reading(journal) as reader:
            await writer.commit(Batch([baseline("a", 0)]))
            held, again = await reader.snapshot(Filter()), []

            async def ask():
                again.append(await reader.snapshot(Filter()))

            await self.grow(writer, wal)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await anyio.wait_all_tasks_blocked()
                assert [state.account for state in await held.page(9)] == ["a"]
                assert again == []
                held.close()
                await self.shrink(writer, wal)
            again[0].close()


class Lane:
    """A thread on which statements run, unless it is stuck."""

    def __init__(self):
        self.free = threading.Event()
        self.free.set()
        self.run = worker()

    async def __call__(self, work):
        return await self.run(lambda: (self.free.wait(), work())[1])


@pytest.mark.anyio
async def test_who_is_at_the_head_waits_for_nobody_who_reads_a_snapshot(at):
    lanes = []
    journal = at(runner=lambda: lanes.append(Lane()) or lanes[-1])
    async with opened(journal) as (writer, _), reading(journal) as reader:
        await writer.commit(Batch([row := baseline("a", 0)]))
        head = (await reader.bounds()).head
        async with anyio.create_task_group() as tasks:
            lanes[-1].free.clear()
            try:
                tasks.start_soon(snapshot, reader)
                await anyio.wait_all_tasks_blocked()
                await writer.commit(Batch([change(row, 1)]))
                assert [event.version for event in await read(reader, head, 1)] == [1]
                assert (await reader.bounds()).head.positions == (2,)
            finally:
                lanes[-1].free.set()


@pytest.mark.anyio
class TestTrouble:
    @pytest.mark.parametrize("count", [ROWS - 1, ROWS, ROWS + 1, 2 * ROWS + 3])
    async def test_a_commit_of_any_size_stands_in_its_order(self, at, tmp_path, count):
        first = [baseline(f"account-{number}", number) for number in range(count)]
        second = [change(row, 7) for row in reversed(first)]
        async with opened(at()) as (writer, _):
            await writer.commit(Batch(first))
            await writer.commit(Batch(second))
        with contextlib.closing(sqlite3.connect(tmp_path / "balances.db")) as file:
            told = file.execute("SELECT seq, key, version, data FROM event ORDER BY seq").fetchall()
            held = file.execute("SELECT key, account, version, data FROM state ORDER BY id").fetchall()
        assert told == [(seq, str(row.state.key), 1, JSON.encode(row.event)) for seq, row in enumerate(second, 1)]
        assert held == [(str(row.state.key), row.state.account, 1, JSON.encode(row.state)) for row in reversed(second)]

    async def test_a_full_disk_is_told_and_nothing_is_half_written(self, at, tmp_path):
        rows = [baseline(f"a{number}", 0) for number in range(100)]
        journal = at()
        async with opened(journal) as (writer, _), reading(at()) as reader:
            await writer.commit(Batch(rows))
            (pages,) = writer._connection.execute("PRAGMA page_count").fetchone()
            writer._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
            with pytest.raises(Unwritable, match=r"database or disk is full: make room for .*balances.db"):
                await writer.commit(Batch([change(row, 1) for row in rows] * 20, {"note": b"x" * 10_000}))
            assert (await reader.bounds()).head.positions == (1,)
            _, states = await snapshot(reader, Filter())
            assert by_key(states) == by_key(row.state for row in rows)
            writer._connection.execute("PRAGMA max_page_count = 1000000")
            restored = await writer.open()
            assert restored.notes == {}
            await writer.commit(Batch([change(row, 1) for row in rows]))
        assert violations(tmp_path / "balances.db") == []

    def test_a_file_that_may_grow_no_more_ends_the_process_with_69_and_keeps_the_laws(self, tmp_path):
        path = tmp_path / "balances.db"
        limited = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (600000, 600000)); "
        limited += (
            f"sys.argv = ['victim', {str(path)!r}, '1']; runpy.run_module('tests.journal.victim', run_name='__main__')"
        )
        ended = subprocess.run([sys.executable, "-c", limited], cwd=ROOT, capture_output=True, check=False, timeout=180)
        assert ended.returncode == 69
        complaint = ended.stderr.decode().strip().splitlines()
        assert len(complaint) == 1
        assert "nothing was half-written" in complaint[0]
        assert violations(path) == []
        assert acknowledged(ended.stdout) <= told(path)

    async def test_a_damaged_file_is_told_in_one_line(self, at, tmp_path):
        async with opened(at()) as (writer, _):
            await writer.commit(Batch([baseline(f"a{number}", 0) for number in range(1000)]))
        path = tmp_path / "balances.db"
        with path.open("r+b") as file:
            for page in range(5, path.stat().st_size // 4096):
                file.seek(page * 4096)
                file.write(b"\xff" * 64)
        with pytest.raises(Unwritable, match="is damaged") as refusal:
            await at().writer(0).open()
        assert "\n" not in str(refusal.value)

    async def test_a_balance_that_cannot_be_read_back_is_told(self, at, tmp_path):
        async with opened(at()) as (writer, _):
            await writer.commit(Batch([baseline("a", 0)]))
        with contextlib.closing(sqlite3.connect(tmp_path / "balances.db")) as connection:
            connection.execute("UPDATE state SET data = 'garbage'")
            connection.commit()
        with pytest.raises(Unwritable, match="a balance in it cannot be read"):
            await at().writer(0).open()

    async def test_a_file_that_another_process_holds_is_unavailable_and_then_goes_on(self, at, tmp_path, monkeypatch):
        monkeypatch.setattr(sqlite_file, "BUSY", 0.01)
        async with opened(at()) as (writer, _):
            with contextlib.closing(sqlite3.connect(tmp_path / "balances.db", isolation_level=None)) as thief:
                thief.execute("BEGIN IMMEDIATE")
                for attempt in (writer.commit(Batch([baseline("a", 0)])), writer.open()):
                    with pytest.raises(Unavailable, match="is locked by another process"):
                        await attempt
                thief.execute("ROLLBACK")
            assert (await writer.open()).states == []
            await writer.commit(Batch([baseline("a", 0)]))

    async def test_a_writer_that_lost_the_file_to_a_successor_does_not_take_it_back(self, at):
        async with opened(at()) as (old, _), opened(at()):
            with pytest.raises(Fenced):
                await old.open()

    async def test_a_file_that_was_removed_under_the_writer_is_noticed(self, at, tmp_path):
        async with opened(at()) as (writer, _), reading(at()) as reader:
            await writer.commit(Batch([baseline("a", 0)]))
            for file in tmp_path.iterdir():
                file.unlink()
            await at().init()
            with pytest.raises(Unwritable, match="was moved, removed"):
                await writer.commit(Batch([baseline("b", 0)]))
            assert (await reader.bounds()).head.positions == (1,)

    async def test_a_reader_waits_for_a_file_that_is_gone_and_opens_what_is_put_in_its_place(self, at, tmp_path):
        path, aside = tmp_path / "balances.db", tmp_path / "aside"
        async with opened(at()) as (writer, _), reading(at()) as reader:
            await writer.commit(Batch([one := baseline("a", 0)]))
            await writer.commit(Batch([change(one, 1)]))
            before = (await reader.bounds()).head
            old = reader.follow((await reader.bounds()).oldest)
            assert len((await anext(old)).events) == 1
            aside.mkdir()
            for file in tmp_path.glob("balances.db*"):
                file.rename(aside / file.name)
            for ask in (reader.bounds(), snapshot(reader, Filter()), reader.notes(), anext(reader.follow(before))):
                with pytest.raises(Unavailable, match="was moved, removed or replaced: there is no database"):
                    await ask
            path.write_bytes(b"")
            with pytest.raises(Unavailable, match="is of format 0"):
                await reader.bounds()
            async with opened(at()) as (successor, _):
                await successor.commit(Batch([baseline("b", 7)]))
                cursor, states = await snapshot(reader, Filter())
                assert [(state.account, state.amount) for state in states] == [("b", "7")]
                assert cursor.epoch != before.epoch
                with pytest.raises(Unavailable, match="was replaced"):
                    await anext(old)
                with pytest.raises(Expired, match="epoch_changed"):
                    await anext(reader.follow(before))
                await successor.commit(Batch([change(baseline("b", 7), 8)]))
                assert [event.version for event in await read(reader, cursor, 1)] == [1]

    async def test_a_file_that_goes_while_a_view_waits_to_begin_is_away_and_no_fault(self, at, tmp_path):
        """A relay ends with what is no passing fault, and so would all who are connected to it."""
        path = tmp_path / "balances.db"
        async with opened(at()) as (writer, _):
            await writer.commit(Batch([baseline("a", 0)]))

            async def late(work):
                path.rename(tmp_path / "aside")
                return work()

            reader = SqliteReader(path, inline, late, CommitSignal(), ViewLimits(), closings_kept=lambda: (0, 0))
            try:
                with pytest.raises(Unavailable, match="can be begun: there is no database"):
                    await reader.snapshot(Filter())
            finally:
                await reader.close()

    async def test_a_view_that_stood_too_long_goes_though_commits_follow_one_another_without_a_rest(self, at):
        async with opened(at()) as (writer, _), reading(at(view_limits=ViewLimits(longest=0.0))) as reader:
            await writer.commit(Batch([one := baseline("a", 0)]))
            held = await reader.snapshot(Filter())
            await writer.commit(Batch([change(one, 1)]))
            async with contextlib.aclosing(reader.follow((await reader.bounds()).oldest)) as commits:
                assert (await anext(commits)).events
                assert held.over
            held.close()

    async def test_a_heartbeat_that_an_older_version_left_ends_no_follower(self, at, tmp_path):
        async with opened(journal := at()):
            await journal.heartbeat([health("bank"), health("other")])
        told = msgspec.to_builtins(health("bank"))
        older = {name: told[name] for name in told if name not in ("state", "reason", "since")}
        with contextlib.closing(sqlite3.connect(tmp_path / "balances.db")) as connection, connection:
            for name, data in (("bank", older), ("other", {})):
                found = connection.execute("UPDATE provider SET data = ? WHERE name = ?", (JSON.encode(data), name))
                assert found.rowcount == 1
        async with reading(at()) as reader:
            commits = await collect(reader, (await reader.bounds()).head, lambda commits: bool(commits[-1].health))
        assert [(one.provider, one.state) for one in commits[-1].health] == [("bank", "ok")]

    async def test_heartbeats_fail_silently(self, at):
        await at().heartbeat([health("bank")])


@pytest.mark.anyio
class TestProcesses:
    def test_no_kill_breaks_a_law_or_takes_back_what_was_acknowledged(self, tmp_path):
        path, rng = tmp_path / "balances.db", random.Random(4)
        for seed in range(12):
            with victim(path, seed) as process:
                lines = [process.stdout.readline() for _ in range(rng.randrange(1, 40))]
                process.kill()
                lines += process.stdout.readlines()
            assert lines[0], "the victim died by itself"
            assert violations(path) == []
            assert told(path) >= acknowledged(b"".join(lines))

    def test_of_two_processes_started_on_one_file_exactly_the_newer_stays(self, tmp_path):
        path = tmp_path / "balances.db"
        with victim(path, 1) as first:
            first.stdout.readline()
            with victim(path, 2) as second:
                second.stdout.readline()
                assert first.wait(120) == 75
                for _ in range(20):
                    assert second.stdout.readline()
                assert second.poll() is None
        assert violations(path) == []

    async def test_one_process_reads_while_another_writes(self, at, tmp_path):
        path = tmp_path / "balances.db"
        with victim(path, 3) as process:
            process.stdout.readline()
            async with reading(at()) as reader:
                cursor, states = await snapshot(reader, Filter())
                assert sum(state.version for state in states) == cursor.positions[0] - 1
                amounts = by_key(states)
                commits = await collect(reader, cursor, lambda found: len(events(found)) >= 500)
        for commit in commits:
            amounts.update(by_key(state for state in commit.baselines))
            for event in (JSON.event(event.data) for event in commit.events):
                known = amounts.get(str(event.key))  # a baseline that soon changed may be left out
                assert event.previous_amount == known.amount if known else event.version == 1
                amounts[str(event.key)] = event


@contextlib.contextmanager
def victim(path, seed):
    command = [sys.executable, "-m", "tests.journal.victim", str(path), str(seed)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def acknowledged(output):
    """The greatest number of changes that the victim said were committed."""
    return max((int(line) for line in output.split(b"\n")[:-1]), default=0)


def told(path):
    return len(records(path)[0])


class TestAnyHistory:
    @settings(max_examples=40, deadline=None)
    @given(
        steps=st.lists(
            st.tuples(st.sampled_from(["commit", "reopen", "twin", "age", "fail"]), st.integers(0, 9)), max_size=25
        )
    )
    def test_any_sequence_of_commits_crashes_and_retention_keeps_the_laws(self, steps):
        with tempfile.TemporaryDirectory() as folder:
            anyio.run(self.live, Path(folder) / "balances.db", steps)

    async def live(self, path, steps):
        now = [BEGAN]

        def another(encoding):
            return SqliteJournal(path, encoding=encoding, retention=10.0, clock=lambda: now[0], runner=lambda: inline)

        journal = another("json")
        writer, rows, log = journal.writer(0), {}, []
        await writer.open()
        reader = await journal.reader()
        follower = reader.follow((await reader.bounds()).head)
        for step, number in steps:
            if step == "commit":
                batch = [
                    change(rows[name], len(log) + 1, 500_000) if name in rows else baseline(name, 0)
                    for name in (f"a{digit % 7}" for digit in range(number, number + 3))
                ]
                await writer.commit(Batch(batch))
                rows.update((row.state.account, row) for row in batch)
                log += [row.event for row in batch if row.event]
            elif step == "fail":
                with pytest.raises(sqlite3.IntegrityError):
                    await writer.commit(Batch([change(baseline("never", 0), 1)], {"half": None}))
            elif step == "reopen":
                assert by_key((await writer.open()).states) == by_key(row.state for row in rows.values())
            elif step == "twin":
                old, writer = writer, another(["json", "msgpack"][number % 2]).writer(0)
                await writer.open()
                with pytest.raises(Fenced):
                    await old.commit(Batch([]))
                await old.close()
            else:
                now[0] += number * 1_000_000
            await self.agree(reader, rows, log)
        await follower.aclose()
        await writer.close()
        await reader.close()

    async def agree(self, reader, rows, log):
        bounds = await reader.bounds()
        assert bounds.head.positions == (len(log) + 1,)
        cursor, states = await snapshot(reader, Filter())
        assert cursor == bounds.head
        assert by_key(states) == by_key(row.state for row in rows.values())
        kept = log[bounds.oldest.positions[0] - 1 :]
        if kept:
            found = await read(reader, bounds.oldest, len(kept))
            assert [JSON.event(event.data) for event in found] == kept


# ── Whose file it is ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def open_hearted():
    """A umask that takes no right away."""
    before = os.umask(0)
    yield
    os.umask(before)


def rights(folder):
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.is_file()}


@pytest.mark.anyio
@pytest.mark.usefixtures("open_hearted")
async def test_a_new_database_and_the_files_beside_it_are_their_owners_alone(tmp_path, clock):
    (tmp_path / "link.db").symlink_to(tmp_path / "balances.db")
    journal = SqliteJournal(tmp_path / "link.db", encoding="json", retention=604800.0, clock=clock)
    async with opened(journal) as (writer, _):
        await writer.commit(Batch([baseline("a", 1)]))
        assert rights(tmp_path) == dict.fromkeys(
            ["balances.db", "balances.db-wal", "balances.db-shm", "link.db"], 0o600
        )


@pytest.mark.anyio
@pytest.mark.usefixtures("open_hearted")
async def test_a_database_keeps_the_rights_that_somebody_gave_it(at, tmp_path):
    await at().init()
    (tmp_path / "balances.db").chmod(0o640)
    await at().init()
    assert rights(tmp_path) == {"balances.db": 0o640}


@pytest.mark.usefixtures("open_hearted")
def test_the_folder_that_we_make_is_its_owners_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sqlite_file.open_to_write(Path("var/balances.db")).close()
    assert stat.S_IMODE((tmp_path / "var").stat().st_mode) == 0o700
