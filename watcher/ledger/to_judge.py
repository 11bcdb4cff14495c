"""Balances on which an alert is to be judged anew although nothing of them has changed: after an edit, or a start.

Their committed amount would make a crossing. It is made at their next accepted reading, which shows that the amount is still
that one: found by looking at the records of a provider after each of its answers, as long as there are such balances.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from math import inf

from watcher.ledger.record import Arrival, BalanceRecord
from watcher.ledger.store import Store
from watcher.model.keys import Key
from watcher.model.times import format_rfc3339

LOOKS = 1000
"""Balances that one commit looks at, at most."""


class ToJudge:
    """Of one partition."""

    def __init__(self) -> None:
        self._of: defaultdict[str, dict[Key, None]] = defaultdict(dict)
        """By provider, in the order in which they are looked at next."""
        self._looks: Counter[str] = Counter()
        """Provider → how many are still to be looked at after its last answer."""
        self._put_off: set[Key] = set()
        """Not before the next answer: the journal did not take them."""
        self._since = -inf
        """Monotonic seconds: an answer that arrived later counts."""

    def __bool__(self) -> bool:
        return bool(self._of)

    @property
    def looking(self) -> bool:
        """Some may have been read."""
        return bool(self._looks)

    def restart(self, since: float | None = None) -> None:
        """Forget them: they are found anew. `since`: the alerts were edited then."""
        self._of.clear()
        self._looks.clear()
        self._put_off.clear()
        if since is not None:
            self._since = since

    def add(self, key: Key) -> None:
        self._of[key.provider][key] = None
        self._looks[key.provider] = len(self._of[key.provider])

    def answered(self, provider: str) -> None:
        """Some of the provider's may have been read."""
        if provider in self._of:
            self._put_off = {key for key in self._put_off if key.provider != provider}
            self._looks[provider] = len(self._of[provider])

    def take(self, store: Store, but: Collection[str]) -> Iterator[tuple[Key, BalanceRecord, str]]:
        """Those that have been read since and of which no change waits, each with when (RFC 3339). It looks at `LOOKS` of
        them at most, and as far as it is asked for more. Of the providers in `but` at none."""
        pending, looks = store.pending_changes.pending, LOOKS
        for provider in [name for name in self._looks if name not in but]:
            waiting = self._of[provider]
            while looks and self._looks[provider]:
                looks -= 1
                self._looks[provider] -= 1
                key = next(iter(waiting))
                waiting[key] = waiting.pop(key)  # the last one now
                record = store.find(key)
                if record is None or key in pending.of[provider] or key in self._put_off:
                    continue
                seen = record.last_seen
                if isinstance(seen, Arrival) and seen.received > self._since:
                    yield key, record, format_rfc3339(seen.observed_at)
            if not self._looks[provider]:
                del self._looks[provider]

    def judged(self, keys: Iterable[Key]) -> None:
        """These are, by a commit."""
        for key in keys:
            waiting = self._of.get(key.provider)
            if waiting is None or key not in waiting:
                continue
            del waiting[key]
            if not waiting:
                del self._of[key.provider]
                self._looks.pop(key.provider, None)
            elif self._looks[key.provider] > len(waiting):
                self._looks[key.provider] = len(waiting)

    def not_judged(self, keys: Iterable[Key], put_off: Collection[Key]) -> None:
        """What was taken was not committed."""
        self._put_off.update(key for key in put_off if key in self._of.get(key.provider, ()))
        for provider in {key.provider for key in keys}:
            if provider in self._of:
                self._looks[provider] = len(self._of[provider])
