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
ROWS_AT_FIRST = 500
"""The same of the first slice, which is all that a page of history may need. Each further one is twice the one before."""


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


FEW = 20
"""Values of a filter."""
COLUMNS = "seq, key, version, observed_at, content, data, type"
IN_TIME = "seq >= ? AND seq < ? AND +observed_at BETWEEN ? AND ?"


class Interval(msgspec.Struct, frozen=True):
    """Which events are wanted. Times are wall-clock microseconds, both included."""

    wanted: Filter
    first: int
    last: int
    until: int
    """Their positions are less."""
    behind: int
    """None is less than that."""

    def range(self, connection: sqlite3.Connection) -> tuple[int, int]:
        """The least and the greatest position in the interval, whatever the filter wants; (1, 0) for none.

        By the index alone. A change that waited out an outage stands far behind others of its time, so both ends are asked for.
        """
        least, greatest = connection.execute(
            "SELECT min(seq), max(seq) FROM event WHERE observed_at BETWEEN ? AND ? AND seq < ?",
            (self.first, self.last, self.until),
        ).fetchone()
        return (1, 0) if least is None else (max(least, self.behind), greatest)

    def rows(
        self, connection: sqlite3.Connection, least: int, end: int
    ) -> list[tuple[int, str, int, int, str, bytes, EventType]]:
        """Those from position `least` to before `end`, in order."""
        holds, wanted = wanted_keys(self.wanted)
        return connection.execute(
            f"SELECT {COLUMNS} FROM event WHERE {IN_TIME}{holds} ORDER BY seq",  # noqa: S608
            (least, end, self.first, self.last, *wanted),
        ).fetchall()


def wanted_keys(wanted: Filter) -> tuple[str, list[str]]:
    """What holds for the keys that are wanted, in SQL, and its values. To look for a few values anywhere in the key takes a
    tenth of the time that it takes to find its parts, so that comes first."""
    terms: list[str] = []
    values: list[str] = []
    named = {name: found for name in PARTS if (found := getattr(wanted, name)) is not None}
    for found in named.values():
        if len(found) <= FEW:
            terms.append(f"({' OR '.join(['instr(key, ?)'] * len(found)) or '0'})")
            values += found
    for name, found in named.items():
        terms.append(f"{PARTS[name]} IN (SELECT value FROM json_each(?))")  # noqa: S608
        values.append(msgspec.json.encode(found).decode())
    return "".join(f" AND {term}" for term in terms), values


async def events_between(
    file: OpenFile, run: Run, interval: Interval, json: Callable[[EventType, str, bytes], bytes]
) -> AsyncGenerator[HistorySlice, None]:
    """`run`: where statements run that may take long. `json`: type, content type and bytes of an event as JSON."""

    keys: dict[str, Key] = {}  # one object for each, since whoever takes the events looks them up by it

    def look(least: int, end: int) -> list[Published]:
        with file.reading(file.bulk) as connection:
            file.bounds(connection)  # raises where it is no longer this log
            rows = interval.rows(connection, least, end)
        for text in {row[1] for row in rows} - keys.keys():
            keys[text] = Key(*text.split("/"))  # type: ignore[arg-type]
        return [
            Published(keys[key], version, json(type_, content, data), 0, seq, observed_at, type_)
            for seq, key, version, observed_at, content, data, type_ in rows
        ]

    def begin() -> tuple[int, int]:
        with file.reading(file.bulk) as connection:
            return interval.range(connection)

    first, last = await run(begin)
    least, size = first, ROWS_AT_FIRST
    while least <= last:
        end = min(least + size, last + 1)
        events = await run(lambda: look(least, end))  # noqa: B023 - it is awaited here
        yield HistorySlice(events, end - first, last + 1 - first)
        least, size = end, min(2 * size, ROWS_PER_SLICE)


def kept_from(connection: sqlite3.Connection) -> int:
    """Wall-clock microseconds; 0 where nothing was ever deleted."""
    (kept,) = connection.execute("SELECT value FROM meta WHERE name = 'kept_from'").fetchone()
    return int(kept)


def require_log(head: Cursor, until: Cursor) -> None:
    """Raises Expired for a place in another log, or beyond the head."""
    reason = Bounds(head, head).gap(until)
    if reason in ("epoch_changed", "ahead"):
        raise Expired(reason)
