"""A SQLite file knows itself: what is one log with the file before, what is another, and what each witness sees."""

import contextlib
import ctypes
import os
import platform
import shutil
import sqlite3

import anyio
import pytest

from watcher.journal import Batch, Fenced, Unwritable
from watcher.journal.sqlite import file as sqlite_file
from watcher.journal.sqlite import identity
from watcher.journal.sqlite.identity import (
    MARK,
    STATX,
    FileIdentity,
    LogMetadata,
    epoch_of,
    identify,
    leave_mark,
    mark_of,
)
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.model.keys import Filter
from watcher.model.log import Expired, Unavailable
from watcher.testing.journal_samples import BEGAN, baseline, by_key, change, opened, read, reading, snapshot

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "balances.db"


@pytest.fixture
def at(path):
    """The journal as another process would open it, at the usual place or at another."""
    return lambda place=path: SqliteJournal(
        place, encoding="json", retention=604800.0, clock=lambda: BEGAN + 3_600_000_000
    )


@pytest.fixture
def marks(tmp_path):
    """Skips where the file system keeps no marks: contents put back into the same file are not seen there."""
    try:
        os.setxattr(tmp_path, MARK, b"ab.1")
    except OSError as reason:
        pytest.skip(f"no extended attributes here: {reason}")


async def written(journal, row, *amounts):
    """One balance with so many changes, committed one by one; its last row, the log's epoch and head."""
    async with opened(journal) as (writer, restored):
        for amount in amounts:
            row = baseline("a", amount) if row is None else change(row, amount)
            await writer.commit(Batch([row]))
    async with reading(journal) as reader:
        head = (await reader.bounds()).head
    assert head.epoch == restored.epoch
    return row, head


def moved(path):
    path.rename(path.with_name("other.db"))
    return path.with_name("other.db")


def linked(path):
    path.with_name("link.db").symlink_to(path.name)
    return path.with_name("link.db")


def hard_linked(path):
    path.with_name("hard.db").hardlink_to(path)
    return path.with_name("hard.db")


def vacuumed(path):
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("VACUUM")
    return path


def moved_there_and_back(path):
    return moved(path).rename(path)


@pytest.mark.parametrize("treated", [moved, linked, hard_linked, vacuumed, moved_there_and_back])
async def test_a_file_stays_the_same_log_whatever_it_is_called(at, path, treated):
    row, before = await written(at(), None, 1, 2)
    place = treated(path)
    async with reading(at(place)) as reader:
        assert (await reader.bounds()).head == before
    _, after = await written(at(place), row, 3)
    assert after.epoch == before.epoch
    async with reading(at(place)) as reader:
        assert [event.version for event in await read(reader, before, 1)] == [2]


async def test_a_file_whose_writer_has_left_is_whole_without_what_lies_beside_it(at, path):
    async with reading_after(at()) as reader, opened(at()) as (writer, _):
        await writer.commit(Batch([row := baseline("a", 1)]))
        await writer.commit(Batch([change(row, 2)]))
        await writer.close()
        assert path.with_name("balances.db-wal").stat().st_size == 0
        shutil.copyfile(path, path.with_name("copy.db"))
        assert (await reader.bounds()).head.positions == (2,)
    async with reading(at(path.with_name("copy.db"))) as reader:
        assert (await reader.bounds()).head.positions == (2,)


@contextlib.asynccontextmanager
async def reading_after(journal):
    """A reader that stays behind the writer, as the relay does in a daemon that ends."""
    await journal.init()
    async with reading(journal) as reader:
        yield reader


def copied(path, backup):
    shutil.copyfile(backup, path.with_name("copy.db"))
    return path.with_name("copy.db")


def copied_with_all(path, backup):
    shutil.copy2(backup, path.with_name("copy.db"))
    return path.with_name("copy.db")


def put_in_its_place(path, backup):
    shutil.copyfile(backup, path.with_name("new"))
    return path.with_name("new").rename(path)


def removed_and_put_back(path, backup):
    """File systems give the number of an inode away again at once."""
    path.unlink()
    shutil.copyfile(backup, path)
    return path


@pytest.mark.parametrize("restore", [copied, copied_with_all, put_in_its_place, removed_and_put_back])
async def test_a_copy_and_a_file_put_back_are_a_new_log_with_the_same_state_and_versions(at, path, restore):
    row, backed_up = await written(at(), None, 1, 2)
    shutil.copyfile(path, path.with_name("backup"))
    _, last = await written(at(), row, 3, 4)
    await judge_a_restore(at(restore(path, path.with_name("backup"))), row, backed_up, last)


def copied_over(path, backup):
    shutil.copyfile(backup, path)


def restored_by_sqlite(path, backup):
    with contextlib.closing(sqlite3.connect(backup)) as source, contextlib.closing(sqlite3.connect(path)) as target:
        source.backup(target)


@pytest.mark.usefixtures("marks")
@pytest.mark.parametrize("restore", [copied_over, restored_by_sqlite])
async def test_older_contents_in_the_very_same_file_are_a_new_log_each_time(at, path, restore):
    row, backed_up = await written(at(), None, 1, 2)
    shutil.copyfile(path, path.with_name("backup"))
    _, last = await written(at(), row, 3, 4)
    before = identify(path)
    restore(path, path.with_name("backup"))
    _, after = await judge_a_restore(at(), row, backed_up, last)
    restore(path, path.with_name("backup"))
    _, again = await judge_a_restore(at(), row, backed_up, after)
    assert identify(path) == before
    assert len({last.epoch, after.epoch, again.epoch}) == 3


async def judge_a_restore(journal, row, backed_up, last):
    """What stands in a file that was put back: `row`, at the place `backed_up` of a log that had come to `last`."""
    async with reading(journal) as early:  # before any writer
        head = (await early.bounds()).head
        assert head.epoch not in (backed_up.epoch, last.epoch)
        assert head.positions == backed_up.positions
        for cursor in (backed_up, last):
            with pytest.raises(Expired) as refusal:
                await read(early, cursor, 1)
            assert refusal.value.reason == "epoch_changed"
        row, after = await written(journal, row, 7, 8)
        assert after.epoch == head.epoch  # who looked before the writer came goes on
        assert [event.version for event in await read(early, head, 2)] == [2, 3]
        _, states = await snapshot(early, Filter())
        assert by_key(states) == {str(row.state.key): row.state}
    return await written(journal, row, 9)


async def test_a_new_log_by_hand_fences_and_keeps_what_stands(at, path):
    row, before = await written(at(), None, 1, 2)
    async with opened(at()) as (writer, _), reading(at()) as reader:
        told = await at().init(new_log=True)
        assert told == f"began a new log in the database {path}: 1 balances and 1 events stay"
        with pytest.raises(Unavailable, match="a new log was begun"):
            await reader.bounds()
        for attempt in (writer.commit(Batch([])), writer.open()):
            with pytest.raises(Fenced):
                await attempt
    _, after = await written(at(), row, 3)
    assert after.epoch != before.epoch
    assert after.positions == (before.positions[0] + 1,)


async def test_a_log_of_before_takes_the_first_file_that_it_is_opened_in_for_its_own(at, path, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr(sqlite_file, "FORMATS", sqlite_file.FORMATS[:1])
        with contextlib.closing(sqlite_file.connect(path, mode="rwc")) as file, sqlite_file.transaction(file):
            sqlite_file._upgrade(path, file)
            (epoch,) = file.execute("SELECT value FROM meta WHERE name = 'log'").fetchone()
    _, head = await written(at(), None, 1, 2)
    assert head.epoch != epoch  # it may be a copy of what was opened before
    shutil.copyfile(path, path.with_name("copy.db"))
    _, other = await written(at(path.with_name("copy.db")), None)
    assert other.epoch not in (epoch, head.epoch)


async def test_where_the_time_of_making_is_not_told_the_inode_alone_decides(at, path, monkeypatch):
    monkeypatch.setattr(identity, "STATX_BTIME", 0)  # what the file system then answers for
    row, before = await written(at(), None, 1, 2)
    assert identify(path).made is None
    _, after = await written(at(), row, 3)
    assert after.epoch == before.epoch
    epochs = set()
    for _ in range(2):  # an inode alone may be that of a copy before
        shutil.copyfile(path, path.with_name("new"))
        path.with_name("new").rename(path)
        epochs.add((await written(at(), None))[1].epoch)
    assert len(epochs - {before.epoch}) == 2


async def test_of_several_that_open_a_copy_at_once_one_begins_the_new_log(at, path, monkeypatch):
    monkeypatch.setattr(identity, "STATX_BTIME", 0)  # so that each would call it otherwise
    _, before = await written(at(), None, 1, 2)
    shutil.copyfile(path, path.with_name("copy.db"))
    epochs = []

    async def open_one():
        while True:
            with contextlib.suppress(Unavailable):
                async with opened(at(path.with_name("copy.db"))) as (_, restored):
                    epochs.append(restored.epoch)
                    return

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(open_one)
    assert len(epochs) == 6
    assert len({*epochs, before.epoch}) == 2


def test_the_kernel_is_asked_alike_by_name_and_by_number(path, monkeypatch):
    path.touch()
    by_name = identify(path)
    assert by_name.inode == path.stat().st_ino
    if platform.machine() not in STATX:
        pytest.skip("no number is known for this machine")
    library = ctypes.CDLL(None)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Without(library))
    assert identify(path) == by_name


class Without:
    """A C library of before statx."""

    def __init__(self, library):
        self.syscall = library.syscall


def refuses(name):
    raise OSError("no libraries here")


@pytest.mark.parametrize("library", [refuses, lambda _: object()], ids=["none", "another"])
def test_a_machine_that_cannot_be_asked_gives_the_inode(path, monkeypatch, library):
    path.touch()
    monkeypatch.setattr(ctypes, "CDLL", library)
    assert identify(path) == FileIdentity(path.stat().st_ino)


def test_a_file_that_is_not_there_is_an_error(path):
    with pytest.raises(OSError, match="No such file"):
        identify(path)


@pytest.mark.usefixtures("marks")
@pytest.mark.parametrize("text", [b"", b"ab", b"xy.1", b"ab.-1", b"\xff"])
def test_what_is_no_mark_of_ours_says_nothing(path, text):
    path.touch()
    leave_mark(path, "ab", 3)
    assert mark_of(path) == "ab.3"
    os.setxattr(path, MARK, text)
    assert mark_of(path) == ""


def test_a_folder_without_the_file_takes_no_mark(path):
    leave_mark(path, "ab", 3)
    assert mark_of(path) == ""


HERE, THERE, REUSED = FileIdentity(7, 100), FileIdentity(8, 100), FileIdentity(7, 200)


@pytest.mark.parametrize(
    ("file", "mark", "ours"),
    [
        (HERE, "", True),
        (HERE, "aa.5", True),
        (HERE, "aa.4", True),  # killed between a commit and its mark
        (HERE, "bb.9", True),  # killed between the new log and its mark
        (HERE, "aa.6", False),
        (HERE, "cc.1", False),
        (THERE, "aa.5", False),
        (REUSED, "", False),
        (FileIdentity(7), "", True),
        (FileIdentity(8), "", False),
    ],
)
def test_each_witness_alone_can_say_no(file, mark, ours):
    contents = LogMetadata("aa", str(HERE), "bb", 5)
    found = epoch_of(contents, file, mark)
    assert (found == "aa") == ours
    assert found == epoch_of(contents, file, mark)
    assert epoch_of(LogMetadata("aa", "", "", 5), file, mark) == "aa"
    assert FileIdentity.parse(str(file)) == file


@pytest.mark.parametrize("restore", [restored_by_sqlite])
async def test_a_writer_ends_when_older_contents_are_put_back_under_it(at, path, restore):
    async with opened(at()) as (writer, _):
        await writer.commit(Batch([row := baseline("a", 1)]))
        with (
            contextlib.closing(sqlite3.connect(path)) as source,
            contextlib.closing(sqlite3.connect(path.with_name("backup"))) as target,
        ):
            source.backup(target)
        await writer.commit(Batch([row := change(row, 2)]))
        restore(path, path.with_name("backup"))
        for attempt in (writer.heartbeat([]), writer.commit(Batch([change(row, 3)]))):
            with pytest.raises(Unwritable, match="was put back"):
                await attempt
