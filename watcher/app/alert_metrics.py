"""Alerts as metrics: each by its name, the first of the config where there are very many."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
from prometheus_client.core import Metric

from watcher.app.metrics import Figure, Value, counter, families, gauge
from watcher.ingest.committer import Committer
from watcher.model.alert_index import Alert
from watcher.model.alerts import Direction

MOST = 1000
"""Alerts that have samples: each has three or more."""


class AlertView(msgspec.Struct, frozen=True):
    """One alert at the moment of the scrape."""

    alert: Alert
    committers: Sequence[Committer]
    unread: Mapping[str, int]
    """Provider → balances and listings that have been unread for so long."""

    @property
    def crossings(self) -> Value:
        if self.alert.side is None:
            return None
        directions: tuple[Direction, ...] = (self.alert.side, "cleared")
        return {
            direction: sum(each.figures.crossings[self.alert.name, direction] for each in self.committers)
            for direction in directions
        }

    @property
    def fired(self) -> Value:
        if self.alert.side is None:
            return None
        return sum(each.ledger.fired.get(self.alert.name, 0) for each in self.committers)


ALERTS: tuple[Figure[AlertView], ...] = (
    counter("crossings", "Crossings committed, by direction.", lambda a: a.crossings, by="direction"),
    gauge("alerts_fired", "Balances that are beyond the alert's threshold, and are polled here.", lambda a: a.fired),
    gauge(
        "alert_unread",
        "Balances and listings that the alert speaks of, unread for as long as it allows and longer.",
        lambda a: a.unread,
        by="provider",
    ),
)


class AlertMetrics:
    """`alerts`: those of the config as it is now; `unread`: alert → provider → how many are unread."""

    def __init__(
        self,
        alerts: Callable[[], Sequence[Alert]],
        committers: Callable[[], Sequence[Committer]],
        unread: Callable[[], Mapping[str, Mapping[str, int]]],
    ) -> None:
        self._alerts = alerts
        self._committers = committers
        self._unread = unread

    def families(self) -> Iterator[Metric]:
        committers, unread = self._committers(), self._unread()
        views: dict[tuple[str, ...], AlertView] = {
            (alert.name,): AlertView(alert, committers, unread.get(alert.name, {})) for alert in self._alerts()[:MOST]
        }
        yield from families(ALERTS, ("alert",), views)
