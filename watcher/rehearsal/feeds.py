"""What a provider would answer in a rehearsal: of each target its balances, and when the next of them changes."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from heapq import merge
from math import inf

from watcher.model.keys import Key, Scope
from watcher.model.targets import Target
from watcher.rehearsal.history import BalanceHistory


class RehearsedBalance:
    """One balance: when it truly changes, and up to which change that was seen."""

    __slots__ = ("amounts", "key", "known", "label", "seen", "times")

    def __init__(self, history: BalanceHistory, label: str | None) -> None:
        self.key = history.key
        self.label = label
        self.times = history.times
        self.amounts = history.amounts
        self.known = False
        """It was read: what it had then is no change."""
        self.seen = 0
        """Changes that nobody waits for any more: those that became an event, and those that none will come of."""

    def at(self, time: float) -> int:
        """How many changes there were up to then."""
        return bisect_right(self.times, time)

    def last_return(self, there: int) -> int:
        """The last place before `there` at which it had the amount again that was seen last: the way there and back is no event."""
        known = self.amounts[self.seen]
        return next((n for n in range(there - 1, self.seen, -1) if self.amounts[n] == known), self.seen)


class RehearsedTarget:
    """What the answers of one target tell. The hot loop of a rehearsal reads `next_change` and `doubted`, and no more."""

    __slots__ = ("balances", "doubted", "last", "longest", "next_change", "reads", "refreshed", "times")

    def __init__(self, balances: Sequence[RehearsedBalance]) -> None:
        self.balances = balances
        self.times: list[float] = list(merge(*(one.times for one in balances)))
        self.next_change = -inf
        """When the first change lies that no answer has shown yet; -inf: there was no answer."""
        self.doubted = True
        """The next answer must be judged, whatever it shows: a baseline is not complete, or a candidate waits."""
        self.last = 0.0
        """When the last answer came; at first the begin."""
        self.longest = 0.0
        """Seconds between two answers, at most."""
        self.reads = 0
        self.refreshed = -inf
        """When the provider made what it answers out of its cache."""

    def show(self, time: float) -> None:
        """An answer shows what was so at `time`."""
        place = bisect_right(self.times, time)
        self.next_change = self.times[place] if place < len(self.times) else inf


def targets_of(targets: Iterable[Target], keys: Iterable[Key]) -> dict[Target, list[Key]]:
    """The balances that each target reads, of those. A balance may have several targets; a target may have none."""
    by_scope = {target.scope: target for target in targets}
    found: dict[Target, list[Key]] = {target: [] for target in by_scope.values()}
    for key in keys:
        for scope in _scopes(key):
            target = by_scope.get(scope)
            if target is not None:
                found[target].append(key)
    return found


def _scopes(key: Key) -> Iterable[Scope]:
    """All that cover it."""
    for chain in (key.chain, None):
        for account in (key.account, None):
            for token in (key.token, None):
                yield Scope(key.provider, chain, account, token)
