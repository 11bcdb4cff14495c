"""How many rows one commit takes: half as many after each commit of unknown outcome, twice as many after each quick one."""

import math

DEADLINE = 8.0
"""Seconds that one commit may take; below Kafka's transaction time-out of 10."""
GROUP_ROWS = 1000
"""Rows in one commit at most."""
QUICK = DEADLINE / 4
"""Seconds: the commit after one that took less may be twice as large, and still takes half of its time."""


class GroupSize:
    """Pure: the time is given, in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self.rows = GROUP_ROWS
        """Rows that the next commit may take."""
        self._most = GROUP_ROWS
        """`rows` grows up to this."""
        self._widen_at = math.inf
        """When `_most` is GROUP_ROWS again."""

    @property
    def reduced(self) -> bool:
        return self.rows < self._most

    def shrink(self, rows: int) -> None:
        """The outcome of a commit of so many rows is unknown."""
        if rows:
            self.rows = max(1, rows // 2)

    def hold(self, until: float) -> None:
        """Do not grow before this time."""
        self._most, self._widen_at = self.rows, until

    def release(self) -> None:
        """From now on it may grow again."""
        self._most = GROUP_ROWS

    def grow(self, rows: int, seconds: float, now: float) -> None:
        """A commit of so many rows took so long."""
        if now >= self._widen_at:
            self._most, self._widen_at = GROUP_ROWS, math.inf
        if rows and seconds < QUICK:
            self.rows = min(2 * self.rows, self._most)
