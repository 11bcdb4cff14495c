"""Retention: which events of a SQLite file may go, a slice at a time, inside the writer's own transactions."""

import sqlite3
from collections.abc import Callable

from watcher.journal.sqlite.closings import ClosingRetention

TRIM = 1000
"""Events that retention deletes in one transaction at most: a slice, so that no commit waits long behind it."""


class Retention:
    """`kept` gives two times (wall-clock microseconds): events of before the first may go; now. `closings`: which of those may."""

    def __init__(self, kept: Callable[[], tuple[int, int]], closings: ClosingRetention) -> None:
        self._kept = kept
        self._closings = closings
        self._expired = 0
        """Up to this `seq` events are past retention."""
        self._ahead = 0
        """Up to this `seq` all were dated ahead when they were looked at."""

    def trim(self, connection: sqlite3.Connection) -> None:
        """Delete the oldest events that are past retention: always a prefix of the log, at most a slice of it.

        The log stands in the order of real time, whatever clocks said. An event dated ahead of now came from a clock
        that ran ahead, and when it really was nobody knows; but it is older than those behind it, so it goes with the
        first of them that is past retention. One dated in the past by a clock that ran behind does not take those
        before it along: what is dated between the horizon and now stays, and all that is behind it. So no event whose
        date is right goes before its time, but one behind which a clock ran ahead and then behind; and none stays
        longer than twice `retention`, since a date that is ahead by less is past retention that much later.
        """
        self._closings.trim(connection)
        if not self._expired:
            self._find_expired(connection)
        if self._expired:
            self._note_kept(connection)
            connection.execute(
                "DELETE FROM event WHERE seq IN (SELECT seq FROM event WHERE seq <= ? ORDER BY seq LIMIT ?)",
                (self._expired, TRIM),
            )
            if connection.execute("SELECT 1 FROM event WHERE seq <= ? LIMIT 1", (self._expired,)).fetchone() is None:
                self._expired = 0

    def _note_kept(self, connection: sqlite3.Connection) -> None:
        """The past can be told behind the latest of what goes now. What is dated ahead happened before now, at the latest."""
        _, now = self._kept()
        connection.execute(
            "UPDATE meta SET value = max(value, 1 + (SELECT max(min(observed_at, ?)) FROM"
            " (SELECT observed_at FROM event WHERE seq <= ? ORDER BY seq LIMIT ?))) WHERE name = 'kept_from'",
            (now, self._expired, TRIM),
        )

    def _find_expired(self, connection: sqlite3.Connection) -> None:
        """In the first slice; if all of it is dated ahead, in one further on, and in the next one next time."""
        last = self._scan(connection, 0)
        if last:
            last = self._scan(connection, max(last, self._ahead))
        self._ahead = last

    def _scan(self, connection: sqlite3.Connection, place: int) -> int:
        """The slice behind `place`. Its last `seq` if all of it is dated ahead and there may be more; else 0."""
        horizon, now = self._kept()
        rows = connection.execute(
            "SELECT seq, observed_at FROM event WHERE seq > ? ORDER BY seq LIMIT ?", (place, TRIM)
        )
        ahead = last = 0
        for seq, observed_at in rows:
            if horizon <= observed_at <= now:
                break
            if observed_at < horizon:
                self._expired = seq
            else:
                ahead, last = ahead + 1, seq
        return last if ahead == TRIM else 0
