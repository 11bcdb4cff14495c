"""A history that never was: balances that change at random, a few of them often and most of them seldom. Pure and seeded."""

import hashlib
import random
from collections.abc import Iterable, Sequence

from watcher.model.keys import UNKNOWN_MINT, Key
from watcher.model.targets import Target
from watcher.rehearsal.history import BalanceHistory

EXPONENT = 1.2
"""Of Zipf's law: the rate of the n-th busiest watch is in proportion to n^-1.2. Of 1,000 watches ten then make half of all changes."""
USUAL_RATE = 1.0
"""Changes of a watch in an hour, on average over all."""
EVERYTHING = "any"
"""A part of a key of which a watch names none."""


def zipf_rates(targets: Sequence[Target], per_hour: float, seed: int) -> dict[Target, float]:
    """Changes a second of each. Which is how busy, its name and the seed decide, and not its place in the config."""
    order = sorted(targets, key=lambda target: _digest(target, seed))
    weights = [rank**-EXPONENT for rank in range(1, len(order) + 1)]
    each = per_hour / 3600 * len(order) / sum(weights) if order else 0.0
    return {target: each * weight for target, weight in zip(order, weights, strict=True)}


def made_up(rates: Iterable[tuple[Target, float]], seconds: float, seed: int) -> list[BalanceHistory]:
    """A balance for each target, which changes at its rate (changes a second) and never comes back to an amount."""
    return [_made_up(target, rate, seconds, seed) for target, rate in rates]


def _made_up(target: Target, rate: float, seconds: float, seed: int) -> BalanceHistory:
    dice = random.Random(_digest(target, seed))  # noqa: S311 (a world, not a secret)
    times: list[float] = []
    if rate > 0:
        at = dice.expovariate(rate)
        while at < seconds:
            times.append(at)
            at += dice.expovariate(rate)
    scope = target.scope
    key = Key(scope.provider, scope.chain or EVERYTHING, scope.account or EVERYTHING, scope.token or UNKNOWN_MINT)
    return BalanceHistory(key, times, [str(number + 1) for number in range(len(times) + 1)])


def _digest(target: Target, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}/{target.family}/{target.scope.provider}/{target}".encode(), digest_size=8).digest()
