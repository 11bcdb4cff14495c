"""The past in a SQLite file: the events of an interval, found by the index of their times and read in the order of the log."""

import sqlite3
from collections.abc import AsyncGenerator, Callable

import msgspec

from watcher.journal.sqlite.file import Run
from watcher.journal.sqlite.reading import OpenFile
from watcher.model.keys import Filter, Key
from watcher.model.log import Bounds, Cursor, EventType, Expired, Published
from watcher.model.past import HistorySlice

ROWS_PER_SLICE = 5_000
"""Rows looked at in one transaction."""


def _behind(text: str) -> str:
    """What stands behind the first slash of an SQL expression."""
    return f"substr({text}, instr({text}, '/') + 1)"


def _part(text: str) -> str:
    """What stands before it."""
    return f"substr({text}, 1, instr({text}, '/') - 1)"


# A key is `provider/chain/account/token/kind`, and no part holds a slash.
PARTS = {
    "provider": _part("key"),
    "chain": _part(_behind("key")),
    "account": _part(_behind(_behind("key"))),
    "token": _part(_behind(_behind(_behind("key")))),
}


COLUMNS = "seq, key, version, observed_at, content, data, type"
IN_TIME = "seq >= ? AND seq < ? AND +observed_at BETWEEN ? AND ?"


class Interval(msgspec.Struct, frozen=True):
    """Which events are wanted. Times are wall-clock microseconds, both included."""

    wanted: Filter
    first: int
    last: int
    until: int
    """Their positions are less."""

    def range(self, connection: sqlite3.Connection) -> tuple[int, int]:
        """The least and the greatest position in the interval, whatever the filter wants; (1, 0) for none.

        By the index alone. A change that waited out an outage stands far behind others of its time, so both ends are asked for.
        """
        least, greatest = connection.execute(
            "SELECT min(seq), max(seq) FROM event WHERE observed_at BETWEEN ? AND ? AND seq < ?",
            (self.first, self.last, self.until),
        ).fetchone()
        return (1, 0) if least is None else (least, greatest)

    def rows(
        self, connection: sqlite3.Connection, least: int, end: int
    ) -> list[tuple[int, str, int, int, str, bytes, EventType]]:
        """Those from position `least` to before `end`, in order."""
        named = [name for name in PARTS if getattr(self.wanted, name) is not None]
        wanted = [msgspec.json.encode(getattr(self.wanted, name)).decode() for name in named]
        holds = " AND ".join([IN_TIME, *(f"{PARTS[name]} IN (SELECT value FROM json_each(?))" for name in named)])  # noqa: S608
        return connection.execute(
            f"SELECT {COLUMNS} FROM event WHERE {holds} ORDER BY seq",  # noqa: S608
            (least, end, self.first, self.last, *wanted),
        ).fetchall()


async def events_between(
    file: OpenFile, run: Run, interval: Interval, json: Callable[[EventType, str, bytes], bytes]
) -> AsyncGenerator[HistorySlice, None]:
    """`run`: where statements run that may take long. `json`: type, content type and bytes of an event as JSON."""

    def look(least: int, end: int) -> list[Published]:
        with file.reading(file.bulk) as connection:
            file.bounds(connection)  # raises where it is no longer this log
            rows = interval.rows(connection, least, end)
        return [
            Published(Key(*key.split("/")), version, json(type_, content, data), 0, seq, observed_at, type_)  # type: ignore[arg-type]
            for seq, key, version, observed_at, content, data, type_ in rows
        ]

    def begin() -> tuple[int, int]:
        with file.reading(file.bulk) as connection:
            return interval.range(connection)

    first, last = await run(begin)
    for least in range(first, last + 1, ROWS_PER_SLICE):
        end = min(least + ROWS_PER_SLICE, last + 1)
        events = await run(lambda: look(least, end))  # noqa: B023 - it is awaited here
        yield HistorySlice(events, end - first, last + 1 - first)


def kept_from(connection: sqlite3.Connection) -> int:
    """Wall-clock microseconds; 0 where nothing was ever deleted."""
    (kept,) = connection.execute("SELECT value FROM meta WHERE name = 'kept_from'").fetchone()
    return int(kept)


def require_log(head: Cursor, until: Cursor) -> None:
    """Raises Expired for a place in another log, or beyond the head."""
    reason = Bounds(head, head).gap(until)
    if reason in ("epoch_changed", "ahead"):
        raise Expired(reason)
