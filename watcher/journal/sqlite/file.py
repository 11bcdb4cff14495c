"""The SQLite file: its format and migrations, how it is opened, how statements are run, and what its errors mean.

Statements run where the caller says, as time does: `worker()` gives a thread of its own in production; worlds in
virtual time run them `inline`, since no virtual clock can see a thread.
"""

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import structlog

from watcher.journal import NotMade, OlderFormat, Unwritable, WrongJournal
from watcher.journal.sqlite.identity import (
    FileIdentity,
    LogMetadata,
    epoch_of,
    identify,
    keeps_marks,
    leave_mark,
    mark_of,
)
from watcher.model.log import JournalError, Unavailable

T = TypeVar("T")

log = structlog.get_logger()

APPLICATION = 0x62616C77
"""`balw`, in the file's header: tells our files from those of other programs."""
WAL = 16 * 1024 * 1024
"""Bytes that the WAL is cut to when it begins anew, after whoever kept it from that has gone."""
BUSY = 1.0
"""Seconds that a statement waits for another process's lock. Short, so that stopping never waits for it for long."""

FORMATS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
        # AUTOINCREMENT: a position is never given to a second event, whatever retention deletes.
        """CREATE TABLE event (seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, version INTEGER NOT NULL,
            observed_at INTEGER NOT NULL, content TEXT NOT NULL, data BLOB NOT NULL)""",
        # Rows are never deleted, so `id` is the order in which balances were first committed.
        """CREATE TABLE state (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, account TEXT NOT NULL,
            version INTEGER NOT NULL, content TEXT NOT NULL, data BLOB NOT NULL)""",
        "CREATE INDEX state_account ON state (account)",
        "CREATE TABLE note (key TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE provider (name TEXT PRIMARY KEY, beat INTEGER NOT NULL, data BLOB NOT NULL) WITHOUT ROWID",
        "INSERT INTO meta VALUES ('log', lower(hex(randomblob(8)))), ('fence', 0), ('owner', '')",
    ),
    (
        "INSERT INTO meta VALUES ('file', ''), ('former', '')",
        # A file of before knows nothing of itself: it may be the log, or a copy of what has long gone on as another file.
        "UPDATE meta SET value = lower(hex(randomblob(8))) WHERE name = 'log'",
    ),
    (
        # Whether the last writer has released it. One of before could not: only a file without any is in no doubt.
        "INSERT INTO meta SELECT 'released', value = 0 FROM meta WHERE name = 'fence'",
    ),
    (
        # Crossings stand among the changes, so that a cursor has one position for both.
        "ALTER TABLE event ADD COLUMN type TEXT NOT NULL DEFAULT 'changed'",
        # Times come nearly in order, so this grows at its end.
        "CREATE INDEX event_observed_at ON event (observed_at)",
        # From which time on every event is there. What a version before has deleted was older than what it kept.
        """INSERT INTO meta SELECT 'kept_from', CASE
            WHEN (SELECT count(*) FROM event) = ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0) THEN 0
            ELSE ifnull((SELECT observed_at FROM event ORDER BY seq LIMIT 1), 1000000 * strftime('%s', 'now')) END""",
        "CREATE TABLE closing (day TEXT NOT NULL, key TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (day, key)) WITHOUT ROWID",
    ),
)
"""What leads from format N to N + 1, in order. Format N is `PRAGMA user_version`; a new file is of format 0."""


class Run(Protocol):
    """How statements are run: on a thread of their own, or inline."""

    async def __call__(self, work: Callable[[], T], /) -> T: ...


async def inline(work: Callable[[], T], /) -> T:
    """Run it here and now: for virtual time."""
    await anyio.lowlevel.checkpoint()
    return work()


def worker() -> Run:
    """A runner of one thread at a time. Cancellation waits for the statement: its outcome is always known."""
    limiter = anyio.CapacityLimiter(1)

    async def run(work: Callable[[], T], /) -> T:
        # An idle thread keeps what it returned last alive, and that may be a whole restored state: so it returns None.
        result: list[T] = []
        await anyio.to_thread.run_sync(lambda: result.append(work()), limiter=limiter)
        return result.pop()

    return run


def connect(path: Path, *, mode: str) -> sqlite3.Connection:
    """`mode` is SQLite's: `rwc` makes a missing file, `rw` does not, `ro` only reads. Raises JournalError."""
    if path.is_dir():
        raise Unwritable(f"{path} is a folder: name a file in `journal`")
    if not path.parent.is_dir():
        raise Unwritable(f"there is no folder {path.parent}: make it, or name another file in `journal`")
    with explained(path):
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY,
            isolation_level=None,
            check_same_thread=False,
        )


def open_to_write(path: Path, *, new_log: bool = False) -> sqlite3.Connection:
    """The file, made where it is missing and brought to the newest format. Raises JournalError.

    A new log is begun in one that is a copy or was restored, and where it is asked for: state, events and versions
    stay, and whoever writes it now is fenced.
    """
    if path.parent == Path("var"):
        with contextlib.suppress(OSError):  # what is wrong with it, `connect` says
            path.parent.mkdir(mode=0o700, exist_ok=True)
    _make_private(path)
    connection = connect(path, mode="rwc")
    try:
        with explained(path):
            format_of(path, connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA journal_size_limit = {WAL}")
            connection.execute("PRAGMA synchronous = FULL")  # NORMAL may take back what subscribers have seen
            with transaction(connection):
                _upgrade(path, connection)
                epoch, head = _own_log(path, connection, new_log=new_log)
            leave_mark(path, epoch, head)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_private(path: Path) -> None:
    """A missing database is its owner's alone from its first instant on, whatever the umask; SQLite gives the files
    beside it the same rights. One that exists keeps those that somebody gave it.
    """
    with contextlib.suppress(OSError):  # it is there, or `connect` says what is wrong
        descriptor = os.open(os.path.realpath(path), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)


def open_to_read(path: Path) -> sqlite3.Connection:
    """The file as it stands, never changed. Raises WrongJournal when it is missing or of another format."""
    if not path.exists():
        raise NotMade(f"there is no database at {path}: `watcher init` and `watcher run` make it")
    connection = connect(path, mode="ro")
    try:
        with explained(path):
            found = format_of(path, connection)
    except BaseException:
        connection.close()
        raise
    if found < len(FORMATS):
        connection.close()
        raise OlderFormat(f"{path} is of format {found}, not {len(FORMATS)}: `watcher init` brings it there")
    return connection


def log_to_read(path: Path, connection: sqlite3.Connection) -> tuple[str, str]:
    """The epoch as it stands in the file, and that of its log: another one in a copy that no writer has opened yet."""
    file, mark = _file(path), mark_of(path)  # before the contents: a writer goes on meanwhile
    with explained(path):
        contents = contents_of(connection)
    return contents.log, epoch_of(contents, file, mark)


def format_of(path: Path, connection: sqlite3.Connection) -> int:
    """The file's format, 0 for an empty one. Raises WrongJournal for another program's file and for a newer one."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION and (application or found or tables):
        raise WrongJournal(f"{path} is another program's database: name another file in `journal`")
    if found > len(FORMATS):
        raise WrongJournal(f"{path} is of format {found} and this version knows up to {len(FORMATS)}: upgrade watcher")
    return int(found)


def _upgrade(path: Path, connection: sqlite3.Connection) -> None:
    # Asked again under the lock: two instances may start on a missing file at once.
    for statements in FORMATS[format_of(path, connection) :]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {len(FORMATS)}")


def contents_of(connection: sqlite3.Connection) -> LogMetadata:
    """What a file of the newest format says of its log."""
    row = connection.execute(
        "SELECT (SELECT value FROM meta WHERE name = 'log'), (SELECT value FROM meta WHERE name = 'file'),"
        " (SELECT value FROM meta WHERE name = 'former'),"
        " ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0) + 1"
    ).fetchone()
    return LogMetadata(*row)


def _own_log(path: Path, connection: sqlite3.Connection, *, new_log: bool) -> tuple[str, int]:
    """Make the log that of this very file, under the writers' lock; its epoch and head."""
    contents, file, mark = contents_of(connection), _file(path), mark_of(path)
    epoch = epoch_of(contents, file, mark)
    if new_log or (epoch != contents.log and not mark and (file.made is None or not keeps_marks(path))):
        epoch = secrets.token_hex(8)  # the same copy may have been put back into the same file before
    if epoch != contents.log:
        former = mark.partition(".")[0] or contents.log
        connection.execute("UPDATE meta SET value = ? WHERE name = 'log'", (epoch,))
        connection.execute("UPDATE meta SET value = ? WHERE name = 'former'", (former,))
        connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'fence'")
        log.warning(
            "journal.new_log",
            path=str(path),
            epoch=epoch,
            reason="it was asked for"
            if new_log
            else "the file is a copy or was restored: older cursors get a snapshot",
        )
    if new_log:
        connection.execute("UPDATE meta SET value = '' WHERE name = 'owner'")  # so that who opens it again ends, too
    if not contents.file or not FileIdentity.parse(contents.file).is_same(file):
        connection.execute("UPDATE meta SET value = ? WHERE name = 'file'", (str(file),))
    return epoch, contents.head


def _file(path: Path) -> FileIdentity:
    try:
        return identify(path)
    except OSError as error:
        raise Unavailable(f"{path} went while it was opened ({error})") from error


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """All or nothing. `IMMEDIATE` takes the writers' lock at once; `DEFERRED` is one consistent view."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # the first error is the one to tell
                connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """SQLite's errors as ours. Errors of the programmer's (constraints, misuse) stay what they are."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except sqlite3.Error as error:
        raise _explanation(path, error) from error


def _explanation(path: Path, error: sqlite3.Error) -> JournalError:
    match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
            return Unavailable(f"{path} is locked by another process")
        case sqlite3.SQLITE_FULL:
            return _full(path)
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return Unwritable(
                f"{path} is damaged ({error}): restore a copy, with no -wal and no -shm of before "
                "beside it, or move it away to begin a new log"
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_AUTH:
            return Unwritable(f"{path} cannot be written ({error}): look at the rights of the file and its folder")
        case sqlite3.SQLITE_IOERR if _is_full(path):
            return _full(path)
        case sqlite3.SQLITE_IOERR:
            name = getattr(error, "sqlite_errorname", "SQLITE_IOERR")
            return Unwritable(
                f"the disk refuses {path} ({name}): look at the disk, at quotas and at limits of file sizes (ulimit -f), and "
                "start again; nothing was half-written"
            )
        case _:
            return Unwritable(f"{path} cannot be used: {error}")


def _full(path: Path) -> Unwritable:
    return Unwritable(f"database or disk is full: make room for {path} and start again; nothing was half-written")


def _is_full(path: Path) -> bool:
    """SQLite asks for memory that it shares, and the disk that is full then is only an I/O error to it."""
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return False
    return found.f_blocks > 0 and found.f_bavail == 0


def identity(path: Path) -> tuple[int, int] | None:
    """Which file stands at that path, None for none: a running process must notice that it was replaced."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
