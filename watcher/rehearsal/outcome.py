"""What came of a rehearsal, in figures. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import ceil

import msgspec

from watcher.limits.forecast import DAY


class Delays(msgspec.Struct, frozen=True):
    """From a true change to the answer that made an event of it, in seconds. None: there was no change."""

    changes: int
    """That became part of an event."""
    missed: int
    """Of which there is no event of their own: another change, or the way back, came before the next answer."""
    mean: float | None
    p50: float | None
    p99: float | None
    most: float | None


class LimitUse(msgspec.Struct, frozen=True):
    """What a config takes of one limit, in the limit's own unit (requests or credits)."""

    requests: int
    per: float
    """Seconds."""
    endpoint: str | None
    allowed: float
    """Our share of the limit."""
    used: float
    """In so many seconds as the limit has, at the pace of the rehearsal."""
    share: float
    """0..1: `used` of `allowed`."""
    spent_on_day: int | None
    """The day, counted from 1, on which nothing was left of it though its time was not over. None: it lasted."""


class ProviderOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Of one provider."""

    provider: str
    type: str
    watches: int
    made_up: int
    """Watches of which the history knows nothing: they change at a rate that was put in its place."""
    rehearsed: float
    """Seconds that were gone through."""
    of: float
    """Seconds that they stand for."""
    delays: Delays
    labels: dict[str, Delays]
    """By the label of a watch, of those that have one."""
    requests_by_day: list[float]
    credits_by_day: list[float]
    limits: list[LimitUse]
    share: float
    """0..1: of the limit that is used the most."""
    unread: int
    """Watches that were never read."""
    max_interval: float | None
    """Seconds, as wished."""
    too_seldom: int
    """Watches that were once left unread for longer than that."""
    longest: float
    """Seconds that a watch was left unread, at most."""
    confirming: int
    """Requests that were to confirm a candidate."""


class DelayTally:
    """Delays while they come in, by label."""

    def __init__(self) -> None:
        self._delays: dict[str | None, list[float]] = defaultdict(list)
        self._missed: dict[str | None, int] = defaultdict(int)

    def seen(self, label: str | None, delays: Sequence[float]) -> None:
        """Changes that one event tells; all but the last have none of their own."""
        self._delays[label] += delays
        self._missed[label] += len(delays) - 1

    def unseen(self, label: str | None, changes: int) -> None:
        """Changes that came and went."""
        self._missed[label] += changes

    def whole(self) -> Delays:
        every = [delay for delays in self._delays.values() for delay in delays]
        return _delays(every, sum(self._missed.values()))

    def by_label(self, labels: Iterable[str]) -> dict[str, Delays]:
        """Of each of these, in their order."""
        return {label: _delays(self._delays.get(label, ()), self._missed.get(label, 0)) for label in labels}


def _delays(values: Sequence[float], missed: int) -> Delays:
    if not values:
        return Delays(0, missed, None, None, None, None)
    ordered = sorted(values)
    mean = sum(ordered) / len(ordered)
    return Delays(len(ordered), missed, mean, quantile(ordered, 0.5), quantile(ordered, 0.99), ordered[-1])


def quantile(ordered: Sequence[float], part: float) -> float:
    """The least value that at least so large a part of these reaches; they are sorted."""
    return ordered[max(0, ceil(part * len(ordered)) - 1)]


def days_of(seconds: float) -> int:
    """Days that so many seconds touch."""
    return max(1, ceil(seconds / DAY - 1e-9))
