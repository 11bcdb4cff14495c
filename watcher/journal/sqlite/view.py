"""A snapshot of the SQLite journal: a read transaction on a connection of its own, and its rows page by page.

What a filter wants is found by SQLite itself: it lets the interpreter go meanwhile, and no row is decoded for nothing.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from watcher.journal.sqlite.file import Run, explained, open_to_read
from watcher.journal.views import ViewLease, ViewPool
from watcher.model.events import JSON, MSGPACK, BalanceState
from watcher.model.keys import Filter
from watcher.model.log import Cursor, SnapshotRevoked

T = TypeVar("T")

STATE = {codec.content_type: codec.state for codec in (JSON, MSGPACK)}
CACHE = 512
"""KiB of pages that the connection of a view keeps."""

# A key is `provider/chain/account/token/kind`, and no part holds a slash.
_FIRST = "instr(key, '/')"
_SECOND = f"instr(substr(key, {_FIRST} + 1), '/')"
_TAIL = f"substr(key, {_FIRST} + {_SECOND} + length(account) + 2)"
PARTS = {
    "provider": f"substr(key, 1, {_FIRST} - 1)",
    "chain": f"substr(key, {_FIRST} + 1, {_SECOND} - 1)",
    "account": "account",
    "token": f"substr({_TAIL}, 1, instr({_TAIL}, '/') - 1)",
}


def condition(wanted: Filter, *, indexed: bool) -> tuple[str, tuple[str, ...]]:
    """What holds for the rows of `state` that are wanted, in SQL, and its values.

    `indexed`: by the index of accounts, for what is few; without it in the order of `id`, for what is read in pages.
    """
    named = [(name, values) for name in PARTS if (values := getattr(wanted, name)) is not None]
    plus = "" if indexed else "+"
    terms = [f"{plus}{PARTS[name]} IN (SELECT value FROM json_each(?))" for name, _ in named]  # noqa: S608
    return " AND ".join(terms) or "1", tuple(msgspec.json.encode(values).decode() for _, values in named)


def few(connection: sqlite3.Connection, wanted: Filter, most: int) -> list[BalanceState] | None:
    """All that is wanted in the order of `id`; None when that is more than `most`."""
    holds, values = condition(wanted, indexed=True)
    found = connection.execute(f"SELECT id FROM state WHERE {holds} LIMIT ?", (*values, most + 1)).fetchall()  # noqa: S608
    if len(found) > most:
        return None
    ids = msgspec.json.encode([id_ for (id_,) in found]).decode()
    rows = connection.execute(
        "SELECT content, data FROM state WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id", (ids,)
    ).fetchall()
    return [STATE[content](data) for content, data in rows]


class SqliteView:
    """The state as of one cursor. Made, and read, where statements run; ended anywhere."""

    def __init__(self, path: Path, cursor: Callable[[sqlite3.Connection], Cursor], newest: Callable[[], bool]) -> None:
        """`cursor`: that of what the connection sees. Raises JournalError."""
        self.path = path
        self.newest = newest
        self.connection = open_to_read(path)
        try:
            with explained(path):
                self.connection.execute(f"PRAGMA cache_size = -{CACHE}")
                self.connection.execute("BEGIN")
                self.cursor = cursor(self.connection)
        except BaseException:
            self.connection.close()
            raise

    def count(self, wanted: Filter) -> int:
        holds, values = condition(wanted, indexed=True)
        with explained(self.path):
            (rows,) = self.connection.execute(f"SELECT count(*) FROM state WHERE {holds}", values).fetchone()  # noqa: S608
        return int(rows)

    def page(self, wanted: Filter, behind: int, size: int) -> tuple[int, list[BalanceState]]:
        """At most `size` rows whose `id` is greater than `behind`, and the greatest of theirs."""
        holds, values = condition(wanted, indexed=False)
        with explained(self.path):
            rows = self.connection.execute(
                f"SELECT id, content, data FROM state WHERE id > ? AND {holds} ORDER BY id LIMIT ?",  # noqa: S608
                (behind, *values, size),
            ).fetchall()
        return rows[-1][0] if rows else behind, [STATE[content](data) for _, content, data in rows]

    def end(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()


class SqliteSnapshot:
    """One reader of a view, to be closed."""

    def __init__(self, views: ViewPool[SqliteView], standing: ViewLease[SqliteView], run: Run, wanted: Filter) -> None:
        self.cursor = standing.view.cursor
        self.rows = 0
        self._views = views
        self._standing = standing
        self._run = run
        self._wanted = wanted
        self._behind = 0
        self._closed = False

    @property
    def over(self) -> bool:
        return self._standing.over

    async def count(self) -> None:
        self.rows = await self._read(lambda: self._standing.view.count(self._wanted))

    async def page(self, size: int) -> Sequence[BalanceState]:
        self._behind, states = await self._read(lambda: self._standing.view.page(self._wanted, self._behind, size))
        return states

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._views.give_back(self._standing)

    async def _read(self, work: Callable[[], T]) -> T:
        if self._closed or self._standing.over:
            raise SnapshotRevoked("the snapshot was taken away: its reader was too slow, and others wait")
        self._standing.busy += 1
        try:
            return await self._run(work)
        finally:
            self._standing.busy -= 1
            self._views.settle(self._standing)
