"""One SQLite file, open to read: its connections, what it knows of its log, and who is woken by commits."""

import contextlib
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import anyio

from watcher.journal.sqlite.file import explained, identity, log_to_read, open_to_read, transaction
from watcher.model.log import Cursor, Unavailable

REMEMBERED = 64
"""Snapshots of which the reader knows where their baselines end."""


class CommitSignal:
    """Tells the followers of this process that its own writer committed."""

    def __init__(self) -> None:
        self.local = False
        """Our own process writes, so nobody else does."""
        self._changed = anyio.Event()

    def wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def changed(self) -> anyio.Event:
        """Set by the next commit after this call."""
        return self._changed


class OpenFile:
    """One file, open to read. To be made where statements run. Raises JournalError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity = identity(path)  # before it is opened: of what is put there meanwhile nothing is believed
        with contextlib.ExitStack() as opened, explained(path):
            self.connection = opened.enter_context(contextlib.closing(open_to_read(path)))
            # For whoever must not hold up the others, on a thread of their own.
            self.bulk = opened.enter_context(contextlib.closing(open_to_read(path)))
            self._bulk_lock = threading.Lock()
            # Asks for `data_version` on the caller's thread, 250 times a second: it takes microseconds and never waits.
            self.watch = opened.enter_context(contextlib.closing(open_to_read(path)))
            self.watch.execute("PRAGMA busy_timeout = 0")
            self.stored, self.log = log_to_read(path, self.connection)
            self._over = False
            # Where each snapshot's baselines end. A cursor cannot say it, and one made between a snapshot and `follow`
            # must not be missed by whoever keeps the state. The lower place wins: twice is harmless, never is not.
            self.baselines: OrderedDict[int, int] = OrderedDict()
            self._opened = opened.pop_all()

    def another(self) -> sqlite3.Connection:
        """One more connection, which whoever asks for it closes. What it finds is of this file as long as that `stands`. Raises
        JournalError."""
        return open_to_read(self.path)

    def close(self) -> None:
        with self._bulk_lock:
            self._over = True
            self._opened.close()

    @contextlib.contextmanager
    def reading(self, connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        """One view of the file on one of its connections. Raises JournalError."""
        with contextlib.ExitStack() as entered:
            if connection is self.bulk:
                entered.enter_context(self._bulk_lock)
            if self._over:
                raise Unavailable(f"{self.path} was replaced")
            entered.enter_context(explained(self.path))
            entered.enter_context(transaction(connection, "DEFERRED"))
            yield connection

    def bounds(self, connection: sqlite3.Connection) -> tuple[int, int]:
        """The first position that is kept, and the head. Raises Unavailable when it is no longer this log."""
        if not self.stands:
            raise Unavailable(f"{self.path} was moved, removed or replaced")
        oldest, last, stored = connection.execute(
            "SELECT (SELECT min(seq) FROM event), (SELECT seq FROM sqlite_sequence WHERE name = 'event'),"
            " (SELECT value FROM meta WHERE name = 'log')"
        ).fetchone()
        self.require_log(stored)
        head = (last or 0) + 1
        return (head if oldest is None else oldest), head

    def snapshot_head(self, connection: sqlite3.Connection) -> int:
        """The head of a snapshot on that connection, whose baselines are remembered."""
        _, head = self.bounds(connection)
        (baseline,) = connection.execute("SELECT ifnull(max(id), 0) FROM state").fetchone()
        known = self.baselines
        known[head] = min(baseline, known.get(head, baseline))
        known.move_to_end(head)
        if len(known) > REMEMBERED:
            known.popitem(last=False)
        return head

    @property
    def version(self) -> int:
        """What differs as soon as anyone has committed; -1 when it is not known, which differs from everything."""
        if not self.stands:
            return -1
        try:
            (version,) = self.watch.execute("PRAGMA data_version").fetchone()
        except (sqlite3.OperationalError, sqlite3.ProgrammingError):  # locked; closed
            return -1
        return int(version)

    @property
    def stands(self) -> bool:
        """The path names this file, and it holds the log that was found in it."""
        return not self._over and identity(self.path) == self._identity

    def require_log(self, stored: str) -> None:
        """That is the epoch in it now. Raises Unavailable when a new log was begun in it."""
        if stored not in (self.stored, self.log):  # a writer may make the name that we found its own
            self._over = True
            raise Unavailable(f"a new log was begun in {self.path}")

    def cursor(self, position: int) -> Cursor:
        return Cursor(self.log, (position,))
