"""The first change of each balance after a time, found by SQLite itself in a table in memory: of a million events only those are
read and decoded that are wanted, and the interpreter is let go meanwhile."""

import contextlib
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator

from watcher.journal.sqlite.file import Run, explained
from watcher.journal.sqlite.past_reading import COLUMNS, wanted_keys
from watcher.journal.sqlite.reading import OpenFile
from watcher.model.keys import Filter, Key
from watcher.model.log import EventType, Published
from watcher.model.past import HistorySlice

ROWS_PER_SLICE = 10_000
"""Rows looked at in one transaction."""
FOUND_PER_SLICE = 2_000
"""Changes read in one."""
CACHE = 512
"""KiB of pages that the connection keeps, beside its table."""
# In the order of the log: whatever was observed no later than the time takes back what stands before it. A row without `seq` is a
# balance that has no change yet behind such a one.
TAKE = """INSERT INTO temp.first SELECT key, CASE WHEN observed_at > ? THEN seq END FROM event
    WHERE seq >= ? AND seq < ? AND type = 'changed'{holds} ORDER BY seq
    ON CONFLICT (key) DO UPDATE SET seq = excluded.seq WHERE (first.seq IS NULL) <> (excluded.seq IS NULL)"""
FOUND = f"""SELECT {", ".join(f"event.{name}" for name in COLUMNS.split(", "))} FROM temp.first
    CROSS JOIN event ON event.seq = first.seq WHERE first.key > ? ORDER BY first.key LIMIT ?"""  # noqa: S608

Json = Callable[[EventType, str, bytes], bytes]


class _Search:
    """On a connection of its own, whose table goes with it. To be made where statements run. Raises JournalError."""

    def __init__(self, file: OpenFile, wanted: Filter, time: int, until: int) -> None:
        self._file = file
        self._time = time
        self._until = until
        holds, self._values = wanted_keys(wanted)
        self._take = TAKE.format(holds=holds)
        self._key = ""
        """Up to this one all that was found has been read."""
        self.connection = file.another()
        try:
            with explained(file.path):
                self.connection.execute(f"PRAGMA cache_size = -{CACHE}")
                self.connection.execute("PRAGMA temp_store = MEMORY")
                self.connection.execute("CREATE TEMP TABLE first (key TEXT PRIMARY KEY, seq INTEGER) WITHOUT ROWID")
            self.begin = self._begin()
        except BaseException:
            self.connection.close()
            raise

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._file.reading(self.connection) as connection:
            self._file.bounds(connection)  # raises where it is no longer this log
            yield connection

    def _begin(self) -> int:
        """The first event after the time, by the index of times; where there is none, `until`."""
        with self._reading() as connection:
            (least,) = connection.execute(
                "SELECT min(seq) FROM event WHERE observed_at > ? AND seq < ?", (self._time, self._until)
            ).fetchone()
        return self._until if least is None else int(least)

    def take(self, least: int) -> int:
        """The next slice of events, from that place on. Where it ends."""
        end = min(least + ROWS_PER_SLICE, self._until)
        with self._reading() as connection:
            connection.execute(self._take, (self._time, least, end, *self._values))
        return end

    def found(self, json: Json) -> list[Published]:
        """Some of what was found; empty once that was all."""
        with self._reading() as connection:
            rows = connection.execute(FOUND, (self._key, FOUND_PER_SLICE)).fetchall()
        if rows:
            self._key = rows[-1][1]
        return [
            Published(Key(*key.split("/")), version, json(type_, content, data), 0, seq, observed_at, type_)
            for seq, key, version, observed_at, content, data, type_ in rows
        ]


async def first_changes(
    file: OpenFile, run: Run, wanted: Filter, time: int, *, until: int, json: Json
) -> AsyncGenerator[HistorySlice, None]:
    """See `Reader.first_changes`. `run`: where statements run that may take long. `until`: a position. `json`: type, content type
    and bytes of an event as JSON."""
    search = await run(lambda: _Search(file, wanted, time, until))
    try:
        place, of = search.begin, until - search.begin
        while place < until:
            place = await run(lambda: search.take(place))  # noqa: B023 - it is awaited here
            yield HistorySlice([], place - search.begin, of)
        while events := await run(lambda: search.found(json)):
            yield HistorySlice(events, of, of)
    finally:
        search.connection.close()
