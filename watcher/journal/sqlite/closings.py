"""Closings in the SQLite file: what was held at the end of each day, written, trimmed and read back.

They are JSON whatever the log's encoding is, as the health of providers is: nobody reads them beside us.
"""

import sqlite3
from collections.abc import Callable, Sequence

import msgspec

from watcher.journal import Unwritable
from watcher.journal.record_limits import MAX_RECORD_BYTES, UNENCODABLE, UNPARSABLE, refuse_unfit, too_large
from watcher.model.days import last_day_over
from watcher.model.keys import Filter, Key
from watcher.model.past import Closing

TRIM = 1000
"""Closings that one transaction deletes at most: a slice, so that no commit waits long behind it."""
ROWS_PER_READ = 1000
PUT_CLOSING = "INSERT OR REPLACE INTO closing VALUES (?, ?, ?)"
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Closing)

ClosingRecord = tuple[str, str, bytes]
"""Day, key, data."""


def closing_records(closings: Sequence[Closing]) -> list[ClosingRecord]:
    """Rows of the table. Raises Rejected."""
    records: list[ClosingRecord] = []
    unfit: dict[str, str] = {}
    for closing in closings:
        key = str(closing.balance.key)
        try:
            data = _ENCODER.encode(closing)
        except UNENCODABLE as error:
            unfit[key] = f"not to be encoded: {error}"
            continue
        if len(data) > MAX_RECORD_BYTES:
            unfit[key] = too_large(len(data))
        elif not Key.parsable(key):
            unfit[key] = UNPARSABLE
        records.append((closing.day, key, data))
    refuse_unfit(unfit)
    return records


class ClosingRetention:
    """Which closings may go: of days that ended before `kept_from` gives (wall-clock microseconds; 0: none)."""

    def __init__(self, kept_from: Callable[[], int]) -> None:
        self._kept_from = kept_from
        self._trimmed = ""
        """Up to this day none is left."""

    def trim(self, connection: sqlite3.Connection) -> None:
        """Delete a slice of the oldest that are past it."""
        day = last_day_gone(self._kept_from())
        if day <= self._trimmed:
            return
        connection.execute(
            "DELETE FROM closing WHERE (day, key) IN (SELECT day, key FROM closing WHERE day <= ? ORDER BY day, key LIMIT ?)",
            (day, TRIM),
        )
        if connection.execute("SELECT 1 FROM closing WHERE day <= ? LIMIT 1", (day,)).fetchone() is None:
            self._trimmed = day


def last_day_gone(kept_from: int) -> str:
    """The last day that ended before that time; empty where all are kept."""
    return last_day_over(kept_from - 1) if kept_from > 0 else ""


def page(connection: sqlite3.Connection, day: str, behind: str, wanted: Filter) -> tuple[str | None, list[Closing]]:
    """What is wanted of the next rows of that day behind a key, and the last key of these; None: there are no more."""
    rows = connection.execute(
        "SELECT key, data FROM closing WHERE day = ? AND key > ? ORDER BY key LIMIT ?", (day, behind, ROWS_PER_READ)
    ).fetchall()
    try:
        found = [_DECODER.decode(data) for key, data in rows if wanted.matches(Key.parse(key))]
    except (msgspec.DecodeError, ValueError) as error:
        raise Unwritable(f"the file is damaged: what was held on {day} cannot be read ({error})") from error
    return rows[-1][0] if rows else None, found
