"""One limit as a window that slides over the calls that were made. Pure: time is given, in monotonic seconds."""

from collections import deque
from collections.abc import Sequence
from math import floor, inf, isfinite
from typing import Annotated

import msgspec

SEGMENTS = 600
"""A window remembers at most so many points in time: a month costs no more than a minute."""
CLOCK_TOLERANCE = 1e-4
"""Relative; two quartz clocks differ by up to that, so a window is taken to be that much longer."""
CATCH_UP = 0.5
"""How much of one interval may be made up for when the full window, and nothing else, delayed a grant."""


class BudgetError(ValueError):
    """Limits under which no call could ever be made. One line that says which."""


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At most `requests`, weighted by the cost of a call, in any `per` seconds."""

    requests: Annotated[int, msgspec.Meta(ge=1)]
    per: Annotated[float, msgspec.Meta(gt=0)]
    """Seconds."""
    endpoint: str | None = None
    """None: all endpoints together."""


class SlidingWindow(msgspec.Struct):
    """One limit, in calls. A call is in flight from its grant to its end, and counted from then on."""

    limit: Limit
    capacity: int
    """How many calls fit."""
    span: float
    """Seconds."""
    width: float
    """Seconds that one segment gathers."""
    interval: float
    """Seconds between even grants."""
    next_even: float = -inf
    """When an even pace allows the next grant."""
    in_flight: int = 0
    counted: int = 0
    """Calls in all segments."""
    segments: deque[tuple[float, float, int]] = msgspec.field(default_factory=deque)
    """(first end, last end, calls): all of a segment's calls leave the window with its last one."""

    def expire(self, now: float) -> None:
        while self.segments and self.segments[0][1] + self.span <= now:
            self.counted -= self.segments.popleft()[2]

    def room_at(self, now: float) -> float:
        """When one more call fits; inf while only calls in flight could make room."""
        self.expire(now)
        excess = self.in_flight + self.counted - self.capacity
        if excess < 0:
            return now
        for _, last, calls in self.segments:
            excess -= calls
            if excess < 0:
                return last + self.span
        return inf

    def grant(self, now: float) -> None:
        self.in_flight += 1
        full = self.in_flight + self.counted >= self.capacity
        late = min(max(0.0, now - self.next_even), CATCH_UP * self.interval) if full else 0.0
        self.next_even = now + self.interval - late

    def count(self, when: float, calls: int = 1) -> None:
        self.counted += calls
        first, last, gathered = self.segments[-1] if self.segments else (-inf, -inf, 0)
        when = max(when, last)
        if when - first < self.width:
            self.segments[-1] = (first, when, gathered + calls)
        else:
            self.segments.append((when, when, calls))
        if len(self.segments) > SEGMENTS:
            self._merge()

    def _merge(self) -> None:
        """Merge the two neighbours that lie closest together, as of the later one."""
        ends = [last for _, last, _ in self.segments]
        i = min(range(len(ends) - 1), key=lambda i: ends[i + 1] - ends[i])
        first, _, calls = self.segments[i]
        _, last, more = self.segments[i + 1]
        self.segments[i + 1] = (first, last, calls + more)
        del self.segments[i]

    def restore(self, counts: Sequence[tuple[float, int]], now: float) -> None:
        """`counts`: (when, calls), oldest first."""
        for when, calls in counts:
            if calls > 0 and when + self.span > now:
                self.count(when, calls)

    def most_unsaved(self, seconds: float) -> int:
        """The most calls that can have been granted in so many seconds."""
        return min(self.capacity, floor(seconds / self.interval + CATCH_UP) + 1)


def window_of(limit: Limit, cost: float, share: float) -> SlidingWindow:
    """`cost`: what one call takes of the limit. `share`: our part of it. Raises BudgetError."""
    if not (limit.requests > 0 and limit.per > 0 and isfinite(limit.requests) and isfinite(limit.per)):
        raise BudgetError(f"{limit.requests:g} requests per {limit.per:g} s is no limit: both must be above 0")
    if not (cost > 0 and isfinite(cost) and 0 < share <= 1):
        raise BudgetError(f"cost {cost:g} must be above 0, and share {share:g} above 0 and at most 1")
    ours = limit.requests * share
    capacity = floor(ours / cost + 1e-9)
    if capacity < 1:
        raise BudgetError(
            f"one call costs {cost:g}, but the limit leaves {ours:g} per {limit.per:g} s "
            f"{endpoint_words(limit.endpoint)}: no call could ever be made"
        )
    span = limit.per * (1 + CLOCK_TOLERANCE)
    width = span / (SEGMENTS - 2)
    # A segment that gathers several calls keeps the first as long as the last, which makes the window longer.
    dense = width if width * capacity > span else 0.0
    return SlidingWindow(limit, capacity, span, width, (span + dense) / capacity)


def endpoint_words(endpoint: str | None) -> str:
    return "over all endpoints" if endpoint is None else f"to endpoint {endpoint}"
