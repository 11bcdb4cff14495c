"""Alerts on balances that nobody reads: `unread_for` of the config, looked at with each heartbeat.

No event tells of one, since nothing of a balance is committed then: the heartbeat of its provider does, a line in the log, and a metric.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from itertools import islice

import anyio
import structlog

from watcher.app.alert_scopes import AlertScopes
from watcher.model.alert_index import Alert
from watcher.model.events import UnreadAlert
from watcher.model.times import format_rfc3339
from watcher.model.watches import WatchIndex
from watcher.poller.poller import Poller
from watcher.runtime.slicing import run_in_slices

STEP = 200
"""Watches that are looked at between two turns of the loop."""
MOST_TOLD = 20
"""Alerts that one heartbeat names."""
log = structlog.get_logger()


class UnreadAlerts:
    """Of the pollers of one instance. `wall`: microseconds of the wall clock."""

    def __init__(self, alerts: Iterable[Alert], watches: WatchIndex, wall: Callable[[], int]) -> None:
        self._wall = wall
        self._found: dict[str, dict[str, UnreadAlert]] = {}
        """Provider → alert → what is unread, where anything is."""
        self.use(alerts, watches)

    def use(self, alerts: Iterable[Alert], watches: WatchIndex) -> None:
        """Look at these from now on."""
        self._scopes = AlertScopes((alert for alert in alerts if alert.unread_for is not None), watches)

    def of(self, provider: str) -> tuple[UnreadAlert, ...]:
        """For its heartbeat: as found by the last look, in the order of the config."""
        return tuple(islice(self._found.get(provider, {}).values(), MOST_TOLD))

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Alert → provider → balances and listings."""
        counts: dict[str, dict[str, int]] = {}
        for provider, found in self._found.items():
            for one in found.values():
                counts.setdefault(one.alert, {})[provider] = one.balances
        return counts

    async def look(self, pollers: Collection[Poller]) -> None:
        """At all that these read. Logs what begins, and what has ended."""
        names = {alert.name for alert in self._scopes.alerts}
        found: dict[str, dict[str, UnreadAlert]] = {}
        for poller in pollers if names else ():
            now = await run_in_slices(self._unread(poller, self._scopes))
            self._tell(poller.name, self._found.get(poller.name, {}), now, names)
            if now:
                found[poller.name] = now
        self._found = found

    def _unread(self, poller: Poller, scopes: AlertScopes) -> Generator[None, None, dict[str, UnreadAlert]]:
        now = anyio.current_time()
        shortest = min(alert.unread_for or 0.0 for alert in scopes.alerts)
        oldest: dict[Alert, float] = {}
        """Alert → since when its first balance is overdue."""
        counts: dict[Alert, int] = {}
        for schedule in poller.schedules:
            for number, (target, last) in enumerate(schedule.unread(now - shortest)):
                for alert in scopes.of(target.scope):
                    since = last + (alert.unread_for or 0.0)
                    if since < now:
                        oldest[alert] = min(oldest.get(alert, since), since)
                        counts[alert] = counts.get(alert, 0) + 1
                if number % STEP == 0:
                    yield
        wall = self._wall()
        return {
            alert.name: UnreadAlert(alert.name, format_rfc3339(wall - int((now - oldest[alert]) * 1e6)), counts[alert])
            for alert in scopes.alerts
            if alert in counts
        }

    @staticmethod
    def _tell(
        provider: str, before: Mapping[str, UnreadAlert], now: Mapping[str, UnreadAlert], names: Collection[str]
    ) -> None:
        for name, one in now.items():
            if name not in before:
                log.warning("alert.unread", alert=name, provider=provider, balances=one.balances, since=one.since)
        for name, one in before.items():
            if name not in now and name in names:
                log.info("alert.read_again", alert=name, provider=provider, since=one.since)
