"""What heartbeats bring of the providers that is news to somebody in a terminal. Pure."""

from collections.abc import Collection, Iterator, Mapping
from math import inf

import msgspec

from watcher.model.events import HintsHealth, UnreadAlert
from watcher.relay.messages import ProviderStatus

FIGURES_EVERY = 60.0
"""Seconds from one telling of a provider's figures to the next."""
TROUBLE = ("paused", "refused", "failing")
"""States that mean that silence is not "unchanged"."""


class ProviderNews(msgspec.Struct):
    """Trouble of one provider, or its end: once each, however many heartbeats say the same."""

    provider: str
    state: str
    reason: str | None
    since: str | None

    @property
    def is_trouble(self) -> bool:
        return self.state in TROUBLE


class ProviderWatch:
    """Of those providers; None: of all."""

    def __init__(self, providers: Collection[str] | None) -> None:
        self._providers = providers
        self._states: dict[str, str] = {}

    def news(self, statuses: Mapping[str, ProviderStatus]) -> Iterator[ProviderNews]:
        for name, status in statuses.items():
            before = self._states.get(name, "ok")
            if self._providers is not None and name not in self._providers:
                continue
            if status.state == before or (status.state == "waiting" and before in TROUBLE):
                continue  # a trouble ends with a good answer
            self._states[name] = status.state
            if status.state in TROUBLE or before in TROUBLE:
                yield ProviderNews(name, status.state, status.reason, status.since)


class UnreadNews(msgspec.Struct):
    """Balances of one provider that an alert speaks of are not read any more, or are again."""

    provider: str
    alert: str
    balances: int
    since: str
    over: bool


class UnreadWatch:
    """Of those providers; None: of all."""

    def __init__(self, providers: Collection[str] | None) -> None:
        self._providers = providers
        self._unread: dict[tuple[str, str], UnreadAlert] = {}
        """By provider and alert."""

    def news(self, statuses: Mapping[str, ProviderStatus]) -> Iterator[UnreadNews]:
        """Each alert when it begins and when it ends."""
        before, self._unread = self._unread, {}
        for name, status in statuses.items():
            if self._providers is None or name in self._providers:
                self._unread |= {(name, one.alert): one for one in status.unread or ()}
        for (name, alert), one in self._unread.items():
            if (name, alert) not in before:
                yield UnreadNews(name, alert, one.balances, one.since, over=False)
        for (name, alert), one in before.items():
            if (name, alert) not in self._unread and name in statuses:
                yield UnreadNews(name, alert, one.balances, one.since, over=True)


class SourceNews(msgspec.Struct):
    """A source of hints that came or went, as far as one provider is concerned."""

    provider: str
    source: str
    connected: bool
    since: str | None


class HintWatch:
    """What hints do for those providers; None: for all."""

    def __init__(self, providers: Collection[str] | None) -> None:
        self._providers = providers
        self._connected: dict[tuple[str, str], bool] = {}
        """By provider and source."""
        self._figures_at: dict[str, float] = {}
        """When each provider's figures were told last."""

    def news(self, statuses: Mapping[str, ProviderStatus]) -> Iterator[SourceNews]:
        """Each source that is seen for the first time, or has come or gone since."""
        before, self._connected = self._connected, {}
        for name, hints in self._hinted(statuses):
            for source in hints.sources:
                place = (name, source.source)
                self._connected[place] = source.connected
                if before.get(place) is not source.connected:
                    yield SourceNews(name, source.source, source.connected, source.since)

    def figures(self, statuses: Mapping[str, ProviderStatus], now: float) -> Iterator[tuple[str, HintsHealth]]:
        """Provider and figures, as often as they are to be told. `now`: monotonic seconds."""
        for name, hints in self._hinted(statuses):
            if now - self._figures_at.get(name, -inf) >= FIGURES_EVERY:
                self._figures_at[name] = now
                yield name, hints

    def _hinted(self, statuses: Mapping[str, ProviderStatus]) -> Iterator[tuple[str, HintsHealth]]:
        for name, status in statuses.items():
            if status.hints is not None and (self._providers is None or name in self._providers):
                yield name, status.hints
