"""One limit as a window that slides over what was granted. Pure: time is given, in monotonic seconds."""

from collections import deque
from collections.abc import Sequence
from math import floor, inf, isfinite

import msgspec

SLICES = 600
"""A window remembers at most so many points in time: a month costs no more than a minute."""
SLACK = 1e-4
"""Relative; two quartz clocks disagree by up to that, and a window that ends on the dot is not ours to argue about."""
SLIP = 0.5
"""How much of one interval may be made up for when it was the full window, and nothing else, that delayed a grant."""


class BudgetError(ValueError):
    """Limits under which no call could ever be made. One line that says which."""


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At most `requests`, weighted by the cost of a call, in any `per` seconds."""

    requests: float
    per: float
    endpoint: str | None = None
    """None: all endpoints together."""


class SlidingWindow(msgspec.Struct):
    """One limit, in calls."""

    limit: Limit
    calls: int
    """How many fit."""
    span: float
    """Seconds."""
    width: float
    """Seconds that one slice gathers."""
    interval: float
    """Seconds between even grants."""
    due: float = -inf
    """When the pace allows the next one."""
    held: int = 0
    stamped: int = 0
    slices: deque[tuple[float, float, int]] = msgspec.field(default_factory=deque)
    """(first stamp, last stamp, calls): each counts as of its last stamp."""

    def expire(self, now: float) -> None:
        while self.slices and self.slices[0][1] + self.span <= now:
            self.stamped -= self.slices.popleft()[2]

    def room_at(self, now: float) -> float:
        """When one more call fits; inf while only held slots could make room."""
        self.expire(now)
        excess = self.held + self.stamped - self.calls
        if excess < 0:
            return now
        for _, last, calls in self.slices:
            excess -= calls
            if excess < 0:
                return last + self.span
        return inf

    def grant(self, now: float) -> None:
        self.held += 1
        full = self.held + self.stamped >= self.calls
        late = min(max(0.0, now - self.due), SLIP * self.interval) if full else 0.0
        self.due = now + self.interval - late

    def stamp(self, when: float, calls: int = 1) -> None:
        self.stamped += calls
        first, last, gathered = self.slices[-1] if self.slices else (-inf, -inf, 0)
        when = max(when, last)
        if when - first < self.width:
            self.slices[-1] = (first, when, gathered + calls)
        else:
            self.slices.append((when, when, calls))
        if len(self.slices) > SLICES:
            self._merge()

    def _merge(self) -> None:
        """Make one of the two neighbours that lie closest together, as of the later one."""
        ends = [last for _, last, _ in self.slices]
        i = min(range(len(ends) - 1), key=lambda i: ends[i + 1] - ends[i])
        first, _, calls = self.slices[i]
        _, last, more = self.slices[i + 1]
        self.slices[i + 1] = (first, last, calls + more)
        del self.slices[i]

    def restore(self, stamps: Sequence[tuple[float, int]], now: float) -> None:
        """(when, calls), oldest first."""
        for when, calls in stamps:
            if calls > 0 and when + self.span > now:
                self.stamp(when, calls)

    def unsaved(self, seconds: float) -> int:
        """The most that can have been granted in so many seconds."""
        return min(self.calls, floor(seconds / self.interval + SLIP) + 1)


def window_of(limit: Limit, cost: float, share: float) -> SlidingWindow:
    if not (limit.requests > 0 and limit.per > 0 and isfinite(limit.requests) and isfinite(limit.per)):
        raise BudgetError(f"{limit.requests:g} requests per {limit.per:g} s is no limit: both must be above 0")
    if not (cost > 0 and isfinite(cost) and 0 < share <= 1):
        raise BudgetError(f"cost {cost:g} must be above 0, and share {share:g} above 0 and at most 1")
    capacity = limit.requests * share
    calls = floor(capacity / cost + 1e-9)
    if calls < 1:
        raise BudgetError(
            f"one call costs {cost:g}, but the limit leaves {capacity:g} per {limit.per:g} s "
            f"{named(limit.endpoint)}: no call could ever be made"
        )
    span = limit.per * (1 + SLACK)
    width = span / (SLICES - 2)
    # A slice that gathers several calls keeps the first as long as the last, which makes the window longer.
    dense = width if width * calls > span else 0.0
    return SlidingWindow(limit, calls, span, width, (span + dense) / calls)


def named(endpoint: str | None) -> str:
    return "over all endpoints" if endpoint is None else f"to endpoint {endpoint}"
