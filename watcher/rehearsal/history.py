"""What happened to the balances of one provider, as far as a rehearsal needs it: when each had which amount."""

import random
from collections.abc import Iterable, Sequence

import msgspec

from watcher.model.keys import Key
from watcher.rehearsal.pieces import Piece

SHORTEST_GAP = 1000
"""Microseconds between two reads of a balance."""


class BalanceHistory(msgspec.Struct):
    """Of one balance. Times are seconds since the history began, in order; `amounts` has one more than `times`: the opening one
    is the first."""

    key: Key
    times: list[float]
    amounts: list[str]


class History(msgspec.Struct):
    """Of one provider. It lasts `seconds`, and is repeated where a rehearsal takes longer."""

    seconds: float
    balances: list[BalanceHistory]


class Observed(msgspec.Struct, frozen=True, gc=False):
    """One change as it stands in a journal: it happened after `previous_observed_at`, and not later than `observed_at`
    (wall-clock microseconds)."""

    key: Key
    previous_amount: str
    amount: str
    previous_observed_at: int
    observed_at: int


def history_of(
    changes: Iterable[Observed],
    opening: Iterable[tuple[Key, str]],
    first: int,
    last: int,
    *,
    seed: int,
    cache: float = 0.0,
) -> History:
    """What a journal says of one provider between two wall-clock times, in microseconds.

    changes: in the order of the log. opening: every balance that is known, with an amount for those that did not change.
    The true time of a change lies anywhere in its interval: a seeded draw puts it there. cache: seconds for which the provider gives
    one answer again and again; so long before an answer it may have happened, though the answer before it did not show it.
    """
    changes = list(changes)
    gaps: dict[Key, list[int]] = {}
    for change in changes:
        gaps.setdefault(change.key, []).append(change.observed_at - change.previous_observed_at)
    latest: dict[Key, int] = {}
    found = {key: BalanceHistory(key, [], [amount]) for key, amount in opening}
    dice = random.Random(f"{seed}/placed")  # noqa: S311 (puts changes into their intervals, hides nothing)
    for change in changes:
        one = found.get(change.key)
        if one is None:
            one = found[change.key] = BalanceHistory(change.key, [], [change.previous_amount])
        if not one.times:
            one.amounts = [change.previous_amount]
        earliest = max(_shown_last(change, cache, gaps[change.key], dice), first, latest.get(change.key, first))
        latest[change.key] = change.observed_at
        at = (earliest + (change.observed_at - earliest) * (1.0 - dice.random()) - first) / 1e6
        one.times.append(max(at, one.times[-1] if one.times else 0.0))
        one.amounts.append(change.amount)
    return History(max(1.0, (last - first) / 1e6), list(found.values()))


def _shown_last(change: Observed, cache: float, gaps: Sequence[int], dice: random.Random) -> int:
    """When the amount before was true for certain, in microseconds.

    Without a cache that is when it was read last. An answer out of one was made for the first who asked, and the change was shown
    by a new one: the one before it was made more than `cache` seconds earlier, for a read in which it was new, and that of
    `previous_observed_at` was not older than the cache allows. Between two reads of the balance lie such `gaps`, in microseconds.
    """
    gap, kept = change.observed_at - change.previous_observed_at, cache * 1e6
    if not cache or gap <= 0:
        return change.previous_observed_at
    made, found = gap, []
    while made - gap < kept:
        if made >= kept:
            found.append(made)
        made += max(dice.choice(gaps), SHORTEST_GAP)
    return change.observed_at - (dice.choice(found) if found else made)


def rehearsed(balance: BalanceHistory, seconds: float, pieces: Sequence[Piece]) -> BalanceHistory:
    """The part of a history of so many seconds that the pieces show, on the clock of the rehearsal. Repeated where it is shorter.

    A change to the amount that the balance has there already (a seam is before it) is none.
    """
    times: list[float] = []
    amounts = balance.amounts[:1]
    for piece in pieces:
        for at, amount in _between(balance, seconds, piece.start, piece.end):
            if amount != amounts[-1]:
                times.append(piece.begins + at - piece.start)
                amounts.append(amount)
    return BalanceHistory(balance.key, times, amounts)


def _between(balance: BalanceHistory, seconds: float, start: float, end: float) -> Iterable[tuple[float, str]]:
    """What happens from `start` to `end`, in seconds of a history that begins anew after `seconds`."""
    if not balance.times:
        return
    around = int(start // seconds)
    while around * seconds < end:
        for at, amount in zip(balance.times, balance.amounts[1:], strict=True):
            if start <= (when := around * seconds + at) < end:
                yield when, amount
        around += 1
