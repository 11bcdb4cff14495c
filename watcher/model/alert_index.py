"""The alerts of a config, and which of them speak of a balance."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Literal

import msgspec

from watcher.model.alerts import Direction
from watcher.model.amounts import EXACT, canonical
from watcher.model.filters import FilterMatcher
from watcher.model.keys import Filter, Key
from watcher.model.readings import Unit
from watcher.model.watches import WatchIndex

Side = Literal["below", "above"]
"""Of its threshold an alert fires on."""
TELLING = ("account", "token", "label", "tag", "provider", "chain")
"""Parts of a filter, the most telling first: by the first one that it has an alert is found."""


class Alert(msgspec.Struct, frozen=True):
    """One `[[alert]]` of the config, checked."""

    name: str
    side: Side | None
    """None: it asks whether a balance is read at all."""
    threshold: str = "0"
    """Canonical, as the config has it."""
    clear: str = "0"
    """Where it may fire anew. Canonical."""
    decimals: int | None = None
    """Both are token units, of so many decimals; None: they are in the unit of whatever balance it is."""
    unread_for: float | None = None
    """Seconds, where there is no `side`."""
    wanted: Filter = Filter()
    kind: tuple[str, ...] | None = None
    """Kinds of balances; None: any."""

    def rule(self, unit: Unit) -> "Rule":
        """What holds for balances of that unit. Raises AmountError where it has more than 100 digits there."""
        assert self.side is not None, "it has no threshold"
        scale = (self.decimals or 0) if unit == "base" else 0
        threshold, clear = (_scaled(text, scale) for text in (self.threshold, self.clear))
        return Rule(self.name, self.side, threshold, Decimal(threshold), Decimal(clear))


class Rule(msgspec.Struct, frozen=True, gc=False):
    """An alert in the unit of the balances that it judges."""

    name: str
    side: Side
    threshold: str
    limit: Decimal
    """The threshold."""
    clear: Decimal

    def crossing(self, fired: Side | None, amount: Decimal) -> Direction | None:
        """What becomes of an alert that has fired so, or not, once the amount is that one; None: nothing."""
        if fired == self.side:
            return "cleared" if self._is_back(amount) else None
        if amount < self.limit if self.side == "below" else amount > self.limit:
            return self.side
        return None if fired is None else "cleared"

    def _is_back(self, amount: Decimal) -> bool:
        return amount >= self.clear if self.side == "below" else amount <= self.clear


class AlertIndex:
    """Every alert with a threshold. `rules` looks at those alone that name the account, the token and so on of a balance."""

    def __init__(self, alerts: Iterable[Alert] = (), watches: WatchIndex = WatchIndex()) -> None:  # noqa: B008 - never changed
        """`watches`: what labels and tags stand for."""
        self.alerts = tuple(alert for alert in alerts if alert.side is not None)
        self._watches = watches
        self._by: dict[str, defaultdict[str, list[_Ruled]]] = {name: defaultdict(list) for name in TELLING}
        self._anywhere: list[_Ruled] = []
        """Those that name nothing but kinds, or nothing at all."""
        for number, alert in enumerate(self.alerts):
            ruled = _Ruled(
                number, AlertMatcher.of(alert, watches), {"base": alert.rule("base"), "decimal": alert.rule("decimal")}
            )
            self._place(ruled)
        self._named = bool(self._by["label"] or self._by["tag"])

    def __len__(self) -> int:
        return len(self.alerts)

    def rules(self, key: Key, unit: Unit) -> list[Rule]:
        """Of the alerts that speak of the balance, in the order of the config."""
        found = [ruled for ruled in self._candidates(key) if ruled.matcher.matches(key)]
        if len(found) > 1:
            # One that names two tags of one balance is found twice.
            found = [ruled for _, ruled in sorted({ruled.number: ruled for ruled in found}.items())]
        return [ruled.rules[unit] for ruled in found]

    def _candidates(self, key: Key) -> Iterator["_Ruled"]:
        by = self._by
        yield from by["account"].get(key.account, ())
        yield from by["token"].get(key.token, ())
        if self._named:
            info = self._watches.info(key)
            if info.label is not None:
                yield from by["label"].get(info.label, ())
            for tag in info.tags:
                yield from by["tag"].get(tag, ())
        yield from by["provider"].get(key.provider, ())
        yield from by["chain"].get(key.chain, ())
        yield from self._anywhere

    def _place(self, ruled: "_Ruled") -> None:
        for name in TELLING:
            values = getattr(ruled.matcher.parts, name)
            if values is not None:
                for value in values:
                    self._by[name][value].append(ruled)
                return
        self._anywhere.append(ruled)


class AlertMatcher(msgspec.Struct, frozen=True):
    """Which balances an alert speaks of."""

    parts: FilterMatcher
    kinds: frozenset[str] | None

    @classmethod
    def of(cls, alert: Alert, watches: WatchIndex) -> "AlertMatcher":
        kinds = None if alert.kind is None else frozenset(alert.kind)
        return cls(FilterMatcher.of(alert.wanted, watches), kinds)

    def matches(self, key: Key) -> bool:
        return (self.kinds is None or key.kind in self.kinds) and self.parts.matches(key)


class _Ruled(msgspec.Struct, frozen=True):
    """An alert made ready."""

    number: int
    """Its place in the config."""
    matcher: AlertMatcher
    rules: Mapping[Unit, Rule]


def _scaled(text: str, decimals: int) -> str:
    return canonical(EXACT.scaleb(Decimal(text), decimals)) if decimals else text


NO_ALERTS = AlertIndex()
