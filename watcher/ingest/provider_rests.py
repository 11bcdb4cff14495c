"""Fairness between providers that share a partition.

One that brings more changes than a commit takes rests after each commit, for twice as long as that took. Meanwhile the
changes of the others find the journal free.
"""

from collections.abc import Collection

from watcher.runtime.slicing import REST


class ProviderRests:
    """Providers with a backlog, and until when no rows of theirs are taken. Times in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._factor = REST

    def __bool__(self) -> bool:
        return bool(self._until)

    def resting(self, now: float) -> set[str]:
        """Who rests. Those that have rested are forgotten."""
        self._until = {provider: until for provider, until in self._until.items() if until > now}
        return set(self._until)

    def left(self, now: float) -> float:
        """Seconds until the next one has rested; 0: nobody rests."""
        return max(0.0, min(self._until.values(), default=now) - now)

    def begin(self, providers: Collection[str], now: float, seconds: float) -> None:
        """After a commit that took so long."""
        self._until |= dict.fromkeys(providers, now + self._factor * seconds)

    def end(self) -> None:
        """From now on nobody rests."""
        self._until, self._factor = {}, 0.0
