"""A snapshot of the SQLite journal: a read transaction on a connection of its own, and its rows page by page.

What a filter wants is found by SQLite itself: it lets the interpreter go meanwhile, and no row is decoded for nothing.
"""

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec

from watcher.journal.sqlite.file import Run, explained, open_to_read
from watcher.model.events import JSON, MSGPACK, BalanceState
from watcher.model.keys import Filter
from watcher.model.log import Cursor

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


def where_clause(wanted: Filter, *, indexed: bool) -> tuple[str, tuple[str, ...]]:
    """What holds for the rows of `state` that are wanted, in SQL, and its values.

    `indexed`: by the index of accounts, for what is few; without it in the order of `id`, for what is read in pages.
    """
    named = [(name, values) for name in PARTS if (values := getattr(wanted, name)) is not None]
    plus = "" if indexed else "+"
    terms = [f"{plus}{PARTS[name]} IN (SELECT value FROM json_each(?))" for name, _ in named]  # noqa: S608
    return " AND ".join(terms) or "1", tuple(msgspec.json.encode(values).decode() for _, values in named)


def small_snapshot(connection: sqlite3.Connection, wanted: Filter, most: int) -> list[BalanceState] | None:
    """All that is wanted in the order of `id`; None when that is more than `most`."""
    holds, values = where_clause(wanted, indexed=True)
    found = connection.execute(f"SELECT id FROM state WHERE {holds} LIMIT ?", (*values, most + 1)).fetchall()  # noqa: S608
    if len(found) > most:
        return None
    ids = msgspec.json.encode([id_ for (id_,) in found]).decode()
    rows = connection.execute(
        "SELECT content, data FROM state WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id", (ids,)
    ).fetchall()
    return [STATE[content](data) for content, data in rows]


class SqliteView:
    """The state as of one cursor: the `SharedView` of a file."""

    def __init__(
        self, path: Path, run: Run, cursor: Callable[[sqlite3.Connection], Cursor], newest: Callable[[], bool]
    ) -> None:
        """To be made where statements run; `run` takes the others there. `cursor`: that of what the connection sees.
        Raises JournalError."""
        self.path = path
        self.newest = newest
        self._run = run
        self.connection = open_to_read(path)
        try:
            with explained(path):
                self.connection.execute(f"PRAGMA cache_size = -{CACHE}")
                self.connection.execute("BEGIN")
                self.cursor = cursor(self.connection)
        except BaseException:
            self.connection.close()
            raise

    async def count(self, wanted: Filter) -> int:
        return await self._run(lambda: self._count(wanted))

    def _count(self, wanted: Filter) -> int:
        holds, values = where_clause(wanted, indexed=True)
        with explained(self.path):
            (rows,) = self.connection.execute(f"SELECT count(*) FROM state WHERE {holds}", values).fetchone()  # noqa: S608
        return int(rows)

    async def page(self, wanted: Filter, behind: int, size: int) -> tuple[int, list[BalanceState]]:
        """At most `size` rows whose `id` is greater than `behind`, and the greatest of theirs."""
        return await self._run(lambda: self._page(wanted, behind, size))

    def _page(self, wanted: Filter, behind: int, size: int) -> tuple[int, list[BalanceState]]:
        holds, values = where_clause(wanted, indexed=False)
        with explained(self.path):
            rows = self.connection.execute(
                f"SELECT id, content, data FROM state WHERE id > ? AND {holds} ORDER BY id LIMIT ?",  # noqa: S608
                (behind, *values, size),
            ).fetchall()
        return rows[-1][0] if rows else behind, [STATE[content](data) for _, content, data in rows]

    def end(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()
