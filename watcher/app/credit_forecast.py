"""What becomes of the limits of a day and longer: the lines of `watcher check` about them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import anyio

from watcher.app.limit_words import duration_words, limit_words
from watcher.limits.forecast import DAY
from watcher.limits.windows import Limit
from watcher.poller.assembly import budget_of
from watcher.providers.protocol import Provider

SHORTEST_MONTH, LONGEST_MONTH = 28 * DAY, 31 * DAY
"""Seconds."""


def credit_forecast(provider: Provider, interval: float) -> Iterator[str]:
    """What the pace takes that the limits allow, which reads each watch every `interval` seconds."""
    for limit in _long(provider):
        sweep = sum(group.sweep for group in provider.groups if limit.endpoint in (None, group.widest.endpoint))
        per_day = sweep * provider.cost * DAY / interval
        ours = limit.requests * provider.settings.share
        used = per_day * limit.per / DAY / ours
        yield f"  {limit_words(limit)}: this pace takes {per_day:,.0f} a day, {min(used, 1):.0%} of it, and it lasts"
        if SHORTEST_MONTH <= limit.per < LONGEST_MONTH and used * LONGEST_MONTH / limit.per > 1:
            yield (
                f"  warning: a month of 31 days takes {per_day * LONGEST_MONTH / DAY:,.0f} at this pace: where the plan counts by "
                f"calendar months, write {{ requests = {limit.requests}, per = {LONGEST_MONTH:.1f} }}, or its last day is without any"
            )


def spent_credits(provider: Provider, stamps: bytes, wall: int) -> Iterator[str]:
    """What is used of them, by the limiter's saved stamps; `wall`: microseconds. Raises ValueError for foreign bytes."""
    budget, now = budget_of(provider), anyio.current_time()
    budget.restore(stamps, now, wall, released=True, begin=now)
    for found in budget.forecasts(now):
        ends = "it lasts" if found.ends_in is None else f"nothing is left from {_minute(wall, found.ends_in)} on"
        yield (
            f"  {limit_words(found.limit)}: {found.used:.1%} used in the last {duration_words(found.limit.per)}, "
            f"{found.per_day:,.0f} a day; at that rate {ends}"
        )


def _long(provider: Provider) -> list[Limit]:
    return [limit for limit in provider.limits if limit.per >= DAY]


def _minute(wall: int, seconds: float) -> str:
    return (datetime.fromtimestamp(wall / 1e6, UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M UTC")
