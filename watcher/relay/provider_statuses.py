"""How the providers are, from the heartbeats in the journal, and which of them are silent. Pure: time is given."""

from collections.abc import Callable, Collection, Iterator

import msgspec
from msgspec import UNSET

from watcher.model.events import ProviderHealth
from watcher.model.keys import Filter
from watcher.model.times import parse_rfc3339
from watcher.relay.messages import ProviderStatus

SILENT_AFTER = 45.0
"""Seconds without a heartbeat, of which there should be three: nobody polls it, whatever the last one said."""
SILENT = "no heartbeat: nobody polls it, or nothing of that gets through to here"


def as_bound(status: ProviderStatus, rights: Filter) -> ProviderStatus:
    """As whoever does not see everything is told: which other tokens post hints is not theirs to know, and alerts may be on any
    balance of the provider.
    """
    status = without_senders(status)
    if status.unread is UNSET or rights == Filter(provider=rights.provider):
        return status
    return msgspec.structs.replace(status, unread=UNSET)


def without_senders(status: ProviderStatus) -> ProviderStatus:
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
        self._published: dict[str, tuple[str, ...]] = {}
        """States, and names of alerts, as of the last look for news."""

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
        """Whether a provider has come or gone, is in another state, or has other balances unread, than at the last look."""
        states = {name: (status.state, *_alerts(status)) for name, status in self.all(wall, now)}
        before, self._published = self._published, states
        return states != before

    def _status(self, health: ProviderHealth, came: float | None, wall: int, now: float) -> ProviderStatus:
        """A clock ahead of the other machine's is no silence, so both clocks have to say so where there are two."""
        state, reason, since, hints = health.state, health.reason, health.since, health.hints
        old = wall - parse_rfc3339(health.time) > SILENT_AFTER * 1e6
        if old and (came is None or now - came > SILENT_AFTER):
            state, reason, since, hints = "failing", SILENT, health.time, None
        return ProviderStatus(
            health.last_success,
            health.paused_until,
            health.budget_used,
            state,
            reason,
            since,
            hints,
            health.unread or UNSET,  # of one that is silent too: what nobody read is not read now
        )


def _alerts(status: ProviderStatus) -> Iterator[str]:
    if status.unread is not UNSET:
        for unread in status.unread:
            yield unread.alert
