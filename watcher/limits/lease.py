"""Whether a request may leave now, beside an owner that may have come after us (docs/limits.md, "The lease").

Whoever opens a partition anew cannot ask the owner before it whether it still polls: that one may be frozen, cut off or
dead. So each owner binds itself: its requests leave only for LATE seconds from the START of its last successful commit.
A commit that succeeds was begun before the fence of a successor, so nothing of ours leaves later than LATE seconds after
that fence, and there the successor begins. Counted from a commit's end, a slow commit would reach beyond it. That no
grant is unsaved for longer bounds nothing: a process that is frozen just after a save may be woken at any later time.
"""

from collections.abc import Callable
from math import inf

LATE = 2.0
"""Seconds that a lease lasts, and for which grants may go unsaved: the second between two saves, and another for the
journal to take one. A journal whose commits take as long stops polling."""


STAMPS = "limiter:"
"""How the key of the note with a limiter's stamps begins; the provider's name follows."""


class Unsent(Exception):
    """The lease was over when a request would have left: it did not, or not whole. Nobody failed."""


class Lease:
    """Of one partition. `clock` gives seconds that run on while the machine is suspended: what slept wakes without it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._begins = self._first = inf
        self._renewed = -inf
        self._ended = False

    def begin(self, at: float) -> None:
        """The partition is open: no request leaves before `at`. Opened again after a doubt, it begins no earlier than before:
        the owner whose lease we wait for is the same."""
        if not self._ended:
            self._begins = self._first = at if self._begins == inf else max(self._begins, at)

    def renew(self, commit_started: float) -> None:
        """A commit of the partition that began then, before its first byte left, has succeeded."""
        self._renewed = max(self._renewed, commit_started)

    def end(self) -> None:
        """The partition is given back or lost: no request leaves any more, whatever is committed or opened yet."""
        self._begins, self._ended = inf, True

    def doubt(self) -> float:
        """Seconds for which whoever had the partition before may ask yet; it runs on when this one has ended."""
        return max(0.0, self._first - self.clock())

    def age(self) -> float:
        """Seconds since the last successful commit was begun; inf without one. It grows while nobody is asked."""
        return self.clock() - self._renewed

    def valid(self) -> bool:
        """Whether a request may leave now."""
        return self.lasts(0.0)

    def lasts(self, seconds: float) -> bool:
        """Whether one may leave now, and would for so many seconds more without another commit."""
        now = self.clock()
        return self._begins <= now < self._renewed + LATE - seconds

    def begins_in(self) -> float:
        """Seconds until the first request may leave; below 0 from then on, inf while the partition is not ours."""
        return self._begins - self.clock()
