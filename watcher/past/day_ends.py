"""When the end of a day may be closed, and which day is next. Pure: times are given.

A day is closed once all that is watched has been read after its end, since what was read before and after alone is certain; at
the latest an hour after the end, or after the start of whoever closes it. No day waits until the events are gone that it is
made from.
"""

from math import inf

from watcher.model.closed_days import ClosedDays
from watcher.model.days import day_after, last_day_over, midnight_after

PATIENCE = 3600.0
"""Seconds that readings are waited for."""
JUMP = 60.0
"""Seconds by which a wall clock is set at least, and does not merely drift."""


def next_day(closed: ClosedDays, earliest: int, now: int) -> str | None:
    """The first day that is over by `now` (wall-clock microseconds) and not closed; None: there is none.

    earliest: days that ended before that are not closed any more.
    """
    last, first = closed.last, day_after(last_day_over(earliest - 1))
    day = first if last is None else max(first, day_after(last))
    return day if midnight_after(day) <= now else None


def latest_close(day: str, opened: int, retention: float) -> int:
    """When it is closed whatever was read (wall-clock microseconds). `opened`: since when we could read; `retention`: seconds."""
    end, kept = midnight_after(day), max(retention / 2, retention - PATIENCE)
    return min(max(end, opened) + int(PATIENCE * 1e6), end + int(kept * 1e6))


class SteadyClock:
    """Whether a wall clock is to be believed: one that was set ahead only after a while, since it may be set back."""

    def __init__(self) -> None:
        self._ahead: float | None = None
        """Seconds: the wall clock less the one that nobody sets."""
        self._from = -inf

    def look(self, wall: int, boottime: float) -> bool:
        """`wall`: microseconds; `boottime`: seconds of a clock that nobody sets."""
        ahead = wall / 1e6 - boottime
        if self._ahead is not None and ahead > self._ahead + JUMP:
            self._from = boottime + PATIENCE
        self._ahead = ahead
        return boottime >= self._from
