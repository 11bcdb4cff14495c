"""How fast a long limit is used up, and whether it ends. Pure: time is given, in monotonic seconds.

A window slides: each call counts for its length and is then given back, one by one. And requests leave no faster than the
tightest limit allows on average. So a window that was filled at today's pace never ends: it becomes full, and gives back
as much as is taken. It does end where it was filled faster than it may be now: the limit was lowered, the share, or the plan.
What others take of the same key, and when the provider's own month begins, no window knows.
"""

from math import inf

import msgspec

from watcher.limits.windows import Limit, SlidingWindow

DAY = 86400.0
"""Seconds: limits as long as that and longer are worth a forecast."""
MARGIN = 0.01
"""Of a limit. What would have to wait for less, waits for a moment that nobody notices."""


class Forecast(msgspec.Struct, frozen=True):
    """Of one limit, in its own unit (requests or credits)."""

    limit: Limit
    used: float
    """0..1 and above, of what is ours of the limit."""
    per_day: float
    """Used a day, at the rate of the last day; since the first call where that is less long ago."""
    ends_in: float | None
    """Seconds until nothing is left, at that rate; 0: now. None: it lasts."""


def forecast(window: SlidingWindow, cost: float, now: float, interval: float) -> Forecast:
    """`cost`: what one call takes of the limit. `interval`: seconds between even grants, so the fastest pace from now on."""
    window.expire(now)
    rate = min(_rate(window, now), 1 / interval)
    taken = window.counted + window.in_flight
    return Forecast(window.limit, taken / window.capacity, rate * cost * DAY, _ends_in(window, rate, now))


def _rate(window: SlidingWindow, now: float) -> float:
    """Calls a second."""
    day_ago, begin, calls = now - DAY, inf, float(window.in_flight)
    before = None
    for first, last, gathered in window.segments:
        # After a restart only the last end of a segment is known.
        start = first if first < last or before is None else max(before, last - window.width)
        before = last
        if last > day_ago:
            inside = 1.0 if start >= day_ago else (last - day_ago) / (last - start)
            begin, calls = min(begin, max(start, day_ago)), calls + gathered * inside
    # The first call of all says nothing of a pace: as if it had taken one even interval.
    return calls / max(now - begin, window.interval) if calls else 0.0


def _ends_in(window: SlidingWindow, rate: float, now: float) -> float | None:
    """When demand at that rate would begin to wait for long: for more than MARGIN of the limit."""
    taken = float(window.counted + window.in_flight)
    limit, unbearable = window.capacity, window.capacity * (1 + MARGIN) + 1
    full_at = 0.0 if taken >= limit else None
    at = 0.0
    for _, last, calls in window.segments:
        expires = max(0.0, last + window.span - now)
        if full_at is None and rate > 0 and taken + rate * (expires - at) >= limit:
            full_at = at + (limit - taken) / rate
        taken += rate * (expires - at)
        if taken >= unbearable:
            return full_at
        taken, at = taken - calls, expires
        if taken < limit:
            full_at = None
    return None
