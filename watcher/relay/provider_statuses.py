"""How the providers are, from the heartbeats in the journal, and which of them are silent. Pure: time is given."""

from collections.abc import Callable, Collection, Iterator

import msgspec

from watcher.model.events import ProviderHealth
from watcher.model.times import parse_rfc3339
from watcher.relay.messages import ProviderStatus

SILENT_AFTER = 45.0
"""Seconds without a heartbeat, of which there should be three: nobody polls it, whatever the last one said."""
SILENT = "no heartbeat: nobody polls it, or nothing of that gets through to here"


def without_senders(status: ProviderStatus) -> ProviderStatus:
    """As whoever does not see everything is told: which other tokens post hints is not theirs to know, and what others call
    their alerts."""
    if status.unread:
        status = msgspec.structs.replace(status, unread=())
    if status.hints is None:
        return status
    sources = tuple(source for source in status.hints.sources if source.type != "http" or source.source == "http")
    if len(sources) == len(status.hints.sources):
        return status
    return msgspec.structs.replace(status, hints=msgspec.structs.replace(status.hints, sources=sources))


class ProviderStatuses:
    """The last heartbeat of each provider, and when it came (monotonic seconds)."""

    def __init__(self, may_be_polled: Callable[[str], bool] = lambda _: True) -> None:
        """`may_be_polled`: by the config as it is now. Who is silent and may not has been removed, and is told no more."""
        self._may_be_polled = may_be_polled
        self._last: dict[str, tuple[ProviderHealth, float | None]] = {}
        """The time is None for the first one, which may have stood in the journal for long."""
        self._published: dict[str, str] = {}
        """States, as of the last look for news."""

    def take(self, health: ProviderHealth, now: float) -> None:
        known = health.provider in self._last
        self._last[health.provider] = (health, now if known else None)

    @property
    def names(self) -> Collection[str]:
        """Of all that ever told how they are."""
        return self._last.keys()

    def all(self, wall: int, now: float) -> Iterator[tuple[str, ProviderStatus]]:
        """By name. `wall`: microseconds."""
        for name, (health, came) in self._last.items():
            status = self._status(health, came, wall, now)
            if status.reason is not SILENT or self._may_be_polled(name):
                yield name, status

    def news(self, wall: int, now: float) -> bool:
        """Whether a provider has come or gone, or is in another state than at the last look."""
        states = {name: status.state for name, status in self.all(wall, now)}
        before, self._published = self._published, states
        return states != before

    def _status(self, health: ProviderHealth, came: float | None, wall: int, now: float) -> ProviderStatus:
        """A clock ahead of the other machine's is no silence, so both clocks have to say so where there are two."""
        state, reason, since, hints, unread = health.state, health.reason, health.since, health.hints, health.unread
        old = wall - parse_rfc3339(health.time) > SILENT_AFTER * 1e6
        if old and (came is None or now - came > SILENT_AFTER):
            state, reason, since, hints, unread = "failing", SILENT, health.time, None, ()
        figures = (health.last_success, health.paused_until, health.budget_used)
        return ProviderStatus(*figures, state, reason, since, hints, unread)
