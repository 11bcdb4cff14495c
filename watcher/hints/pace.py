"""How fast something may go on: so many a second, and so many at once after a rest. Pure."""

SLOWEST = 1.0
"""A second, however often the other side found it too fast."""
RECOVERY = 0.1
"""More a second, each second after that."""

ROUNDING = 1e-9
"""Of one: who waits as long as was said may go then."""


class Pace:
    """Counts what goes; whoever lets it go asks how long to wait first."""

    def __init__(self, most: float, at_once: int) -> None:
        """`most`: a second."""
        self._most = most
        self._rate = most
        self._at_once = at_once
        self._left = float(at_once)
        self._last = 0.0
        """Monotonic seconds."""

    def wait(self, now: float) -> float:
        """Seconds until one may go; 0: it may go now."""
        passed, self._last = max(0.0, now - self._last), max(now, self._last)
        self._left = min(self._left + passed * self._rate, self._at_once)
        self._rate = min(self._rate + passed * RECOVERY, self._most)
        lacking = 1.0 - self._left
        return lacking / self._rate if lacking > ROUNDING else 0.0

    def take(self, cost: float = 1.0) -> None:
        """One goes, or what costs as much as so many."""
        self._left -= cost

    def slow_down(self) -> None:
        """It was too fast for the other side: half of it from now on, and nothing at once."""
        self._rate = max(SLOWEST, self._rate / 2)
        self._left = min(self._left, 0.0)
