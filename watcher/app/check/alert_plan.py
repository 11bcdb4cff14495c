"""What `check` says of alerts: which watches each speaks of, and what is known of the balances there."""

from collections.abc import Collection, Iterable, Iterator, Mapping

from watcher.app.alert_scopes import AlertScopes
from watcher.app.check.plan import count_words
from watcher.app.findings import Finding
from watcher.model.alert_index import Alert, AlertMatcher
from watcher.model.events import BalanceState
from watcher.model.keys import Scope
from watcher.model.watches import WatchIndex


def watches_by_alert(alerts: Collection[Alert], scopes: Iterable[Scope], watches: WatchIndex) -> Mapping[str, int]:
    """Alert → of how many watches it speaks."""
    counts = dict.fromkeys((alert.name for alert in alerts), 0)
    found = AlertScopes(alerts, watches)
    for scope in scopes:
        for alert in found.of(scope):
            counts[alert.name] += 1
    return counts


def alert_line(counts: Mapping[str, int]) -> str:
    """For people."""
    used = sum(1 for count in counts.values() if count)
    return f"{count_words(len(counts), 'alert', 'alerts')}, {used} of them on what is watched"


def speaking_of_nothing(alerts: Iterable[Alert], counts: Mapping[str, int]) -> Iterator[Finding]:
    for number, alert in enumerate(alerts):
        if not counts[alert.name]:
            what = f"[[alert]] {alert.name!r} speaks of nothing that is watched"
            step = "look at its provider, chain, account, token, label and tag, or watch that"
            yield Finding("warning", f"alert[{number}]", what, step)


class DecimalsCheck:
    """Where thresholds are token units: is there a balance in base units that has another number of decimals than they say?"""

    def __init__(self, alerts: Iterable[Alert], watches: WatchIndex) -> None:
        self._left = [
            (number, alert, AlertMatcher.of(alert, watches))
            for number, alert in enumerate(alerts)
            if alert.decimals is not None
        ]

    def __bool__(self) -> bool:
        """There are alerts of which that is not known."""
        return bool(self._left)

    def look(self, states: Collection[BalanceState]) -> Iterator[Finding]:
        """One finding for each alert, about the first such balance."""
        for one in list(self._left):
            number, alert, matcher = one
            for state in states:
                if state.unit == "base" and state.decimals not in {None, alert.decimals} and matcher.matches(state.key):
                    what = f"[[alert]] {alert.name!r} says decimals = {alert.decimals}, and {state.key} has {state.decimals}"
                    yield Finding(
                        "warning", f"alert[{number}].decimals", what, "write an alert of its own for each token"
                    )
                    self._left.remove(one)
                    break
