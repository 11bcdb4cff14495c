"""Which alerts speak of a watch. A watch is a balance or a listing, so it has a scope and no key."""

from collections.abc import Iterable

from watcher.model.alert_index import Alert
from watcher.model.filters import FilterMatcher
from watcher.model.keys import Key, Scope
from watcher.model.watches import WatchIndex

PARTS = ("provider", "chain", "account", "token")


class AlertScopes:
    """Looks at each alert for each scope, and remembers what it found."""

    def __init__(self, alerts: Iterable[Alert], watches: WatchIndex) -> None:
        self.alerts = tuple(alerts)
        self._watches = watches
        self._matchers = [FilterMatcher.of(alert.wanted) for alert in self.alerts]
        self._names: dict[Scope, tuple[set[str | None], set[str]]] = {}
        for watch in watches.named:
            labels, tags = self._names.setdefault(watch.scope, (set(), set()))
            labels.add(watch.label)
            tags.update(watch.tags)
        self._found: dict[Scope, tuple[Alert, ...]] = {}

    def of(self, scope: Scope) -> tuple[Alert, ...]:
        """Those that speak of a balance there, in the order of the config."""
        found = self._found.get(scope)
        if found is None:
            labels, tags = self._named(scope)
            found = self._found[scope] = tuple(
                alert
                for alert, matcher in zip(self.alerts, self._matchers, strict=True)
                if matcher.touches(scope)
                and (matcher.label is None or not matcher.label.isdisjoint(labels))
                and (matcher.tag is None or not matcher.tag.isdisjoint(tags))
            )
        return found

    def _named(self, scope: Scope) -> tuple[set[str | None], set[str]]:
        """Labels and tags: of one balance, those that it has by whatever watch; of a listing those of the listing itself."""
        if scope.chain is not None and scope.account is not None and scope.token is not None:
            info = self._watches.info(Key(scope.provider, scope.chain, scope.account, scope.token))
            return {info.label}, set(info.tags)
        return self._names.get(scope, (set(), set()))
