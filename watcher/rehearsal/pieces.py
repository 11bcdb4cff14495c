"""Which part of a long rehearsal is gone through where all of it would take too long. Pure.

Where the limits allow more requests than a rehearsal may take, it goes through one piece of each day, at a time of the day that
moves on from one to the next, so that quiet hours and busy ones have their share. The pieces are put behind one another: to the
schedule it is one short month.
"""

from collections.abc import Sequence
from math import ceil, expm1, floor

import msgspec

from watcher.limits.forecast import DAY
from watcher.poller.assembly import budget_of
from watcher.providers.protocol import Provider
from watcher.scheduling.change_rates import EXPONENT

STEPS = 5_000_000
"""Of one rehearsal: less than a minute on a machine with two cores. A step is a request, a target that is read, or a part of a
judgement: each takes a processor some 20 microseconds."""
MOST_ALONE = 0.5
"""Of them one provider does so many at most: it has one processor."""
JUDGED = 2.5
"""Steps of an answer that shows a change, for the ledger judges it."""
JUDGED_BALANCE = 0.3
"""Steps of each balance in it."""
SHORTEST = 3600.0
"""Seconds of a piece: more than what the schedule remembers as a burst."""
GOLDEN = 0.6180339887498949
"""Multiples of it are spread over a day as evenly as any, however many there are."""


class Piece(msgspec.Struct, frozen=True):
    """A part of the time that is rehearsed. In seconds since its begin, and since the begin of the rehearsal."""

    start: float
    end: float
    begins: float
    """On the clock of the rehearsal."""


def pieces_of(seconds: float, share: float) -> list[Piece]:
    """So large a part of so many seconds; 1: all in one piece."""
    if share >= 1:
        return [Piece(0.0, seconds, 0.0)]
    whole = max(share * seconds, min(seconds, SHORTEST))
    count = max(1, min(ceil(seconds / DAY), int(whole / SHORTEST)))
    length, room = whole / count, seconds / count
    return [
        Piece(start := number * room + (room - length) * (number * GOLDEN % 1), start + length, number * length)
        for number in range(count)
    ]


def shares(steps: Sequence[float], most: float) -> list[float]:
    """How large a part of each of these works is done, so that all of them together are not more than `most`, and none is more
    than `MOST_ALONE` of it: small ones whole, the others as many steps each."""
    left, found = most, [1.0] * len(steps)
    order = sorted(range(len(steps)), key=lambda i: steps[i])
    for done, i in enumerate(order):
        part = min(left / (len(order) - done), most * MOST_ALONE)
        found[i] = min(1.0, part / steps[i]) if steps[i] > 0 else 1.0
        left -= steps[i] * found[i]
    return found


def answer_age(provider: Provider) -> float:
    """Seconds that an answer may be old when it comes: what the provider caches, or how old TokenKit is asked for; of several
    groups, in the largest."""
    if not hasattr(provider.settings, "max_age") or getattr(provider.settings, "force_refresh", False):
        return provider.cache
    most: float | None = getattr(provider.settings, "max_age", None)
    if most is not None:
        return float(floor(most))
    sizes = [len(group.targets) for group in provider.groups]
    largest = sizes.index(max(sizes))
    return float(floor(sizes[largest] / _rates_by_group(provider)[largest][1]))


def steps_of(provider: Provider, seconds: float, changes: Sequence[float], balances: float) -> float:
    """Steps of so many seconds, about. changes: of each balance, in a second. balances: of a target, on average."""
    requests, targets = _rates(provider)
    judged = _judged([rate for rate in changes if rate > 0], targets)
    return (requests + targets + judged * (JUDGED + JUDGED_BALANCE * balances)) * seconds


def _judged(changes: Sequence[float], targets: float) -> float:
    """Answers a second that show a change, of those of `targets` targets a second: each is read as often as the schedule does."""
    whole: float = sum(rate**EXPONENT for rate in changes)
    reads: list[float] = [targets * rate**EXPONENT / whole for rate in changes]
    return sum(often * -expm1(-rate / often) for rate, often in zip(changes, reads, strict=True))


def _rates(provider: Provider) -> tuple[float, float]:
    """Requests and targets a second, at most."""
    groups = _rates_by_group(provider)
    return sum(requests for requests, _ in groups), sum(targets for _, targets in groups)


def _rates_by_group(provider: Provider) -> list[tuple[float, float]]:
    """Of each group. What all of them share they take in proportion to their sweeps, as they take turns."""
    budget, sweeps = budget_of(provider), sum(group.sweep for group in provider.groups)
    everywhere = min(
        (window.per / window.requests for window in provider.limits if window.endpoint is None), default=0.0
    )
    found = []
    for group in provider.groups:
        rates = {lane.endpoint: (1 / budget.interval(lane.endpoint), lane.batch) for lane in group.lanes}
        requests = sum(rate for rate, _ in rates.values())
        if everywhere:
            turns = group.sweep / sweeps
            requests = min(requests, turns * provider.settings.share / (everywhere * provider.cost))
        batch = min(max(batch for _, batch in rates.values()), len(group.targets))
        if provider.min_interval:
            requests = min(requests, len(group.targets) / batch / provider.min_interval)
        found.append((requests, requests * batch))
    return found
