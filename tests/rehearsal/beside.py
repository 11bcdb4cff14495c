"""A sandbox as it was polled, and the same beforehand: the delays of each beside one another.

Both are judged by the same truth: when each balance moved as its API shows it, and when an event then told the amount.
"""

import math
from bisect import bisect_right

from watcher.model.keys import Key
from watcher.model.watches import WatchIndex
from watcher.rehearsal.history import BalanceHistory, History
from watcher.rehearsal.task import Task, Wishes
from watcher.sandbox import helius, jupiter
from watcher.sandbox.truth import SLOT_SECONDS

BEHIND = {"jupiter": jupiter.BEHIND, "helius": helius.BEHIND["confirmed"]}
"""Slots after which the API shows what happened in one; the others show it at once."""


def shown_at(provider, time, begin):
    """Seconds at which the API shows what happened at `time`. begin: of some slot."""
    if provider not in BEHIND:
        return time
    return begin + (math.floor((time - begin) / SLOT_SECONDS) + BEHIND[provider]) * SLOT_SECONDS


def delays(moves, events, baselines, travel=0.0):
    """moves: key → (times at which the API shows each, amounts, one more); events: key → times at which an event was made;
    baselines: key → time of its first reading. travel: seconds of an answer on its way.

    Seconds that each move waited for its event. Who comes back to the amount that is known has none.
    """
    found = []
    for key, (times, amounts) in moves.items():
        own, seen = sorted(events.get(key, ())), bisect_right(times, baselines.get(key, 0.0) - travel)
        for event in own:
            there = bisect_right(times, event - travel)
            back = max((n for n in range(seen, there) if amounts[n] == amounts[seen]), default=seen)
            found += [event - time for time in times[back:there]]
            seen = max(seen, there)
    return found


def mean(values):
    return sum(values) / len(values)


def rehearsed(settings, balances, seconds, *, latency, seed=1, since=0.0):
    """The outcome of a provider whose balances move so: key → (times, amounts), one amount more than times."""
    histories = [BalanceHistory(key, list(times), list(amounts)) for key, (times, amounts) in balances.items()]
    task = Task(
        next(iter(balances)).provider,
        settings,
        keyed=True,
        wishes=Wishes(seconds, seed=seed, latency=latency, since=since),
        history=History(seconds, histories),
        watches=WatchIndex(),
    )
    return task.run(lambda _: None)


def key_of(balance):
    return Key(*balance.key)
