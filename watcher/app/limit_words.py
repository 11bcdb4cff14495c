"""Limits and durations as people say them."""

from watcher.limits.windows import Limit


def limit_words(limit: Limit) -> str:
    """`10 per 1 s`, `1,000,000 per 30 d (balances)`."""
    where = f" ({limit.endpoint})" if limit.endpoint else ""
    return f"{limit.requests:,} per {duration_words(limit.per)}{where}"


def duration_words(value: float) -> str:
    """A duration as people say it: `0.39 s`, `60 s`, `2.5 min`, `30 d`."""
    for size, unit in ((86400.0, "d"), (3600.0, "h")):
        if value >= 2 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 60:.3g} min" if value >= 600 else f"{value:.3g} s"
