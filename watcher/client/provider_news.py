"""What heartbeats bring of the providers that is news to somebody in a terminal. Pure."""

from collections.abc import Collection, Iterator, Mapping

import msgspec

from watcher.relay.messages import ProviderStatus

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
