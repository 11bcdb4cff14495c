"""What a connection subscribes to, and which subscriptions a key concerns."""

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

import msgspec

from watcher.model.filters import FIELDS, PARTS, FilterMatcher
from watcher.model.keys import Filter, Key
from watcher.model.log import Cursor, Published
from watcher.model.watches import WatchIndex
from watcher.relay.messages import Delivery

REMEMBERED = 1_000_000
"""Subscribers remembered over all keys before the index forgets which key they were for."""
T = TypeVar("T", bound=Hashable)
R = TypeVar("R")


class Subscription:
    """One of a connection's subscriptions."""

    __slots__ = (
        "conflate",
        "crossed",
        "filter_values",
        "id",
        "interval_seconds",
        "matcher",
        "opened",
        "start",
        "wanted",
        "without_gaps",
    )

    def __init__(
        self,
        id_: str,
        wanted: Filter,
        filter_values: int,
        watches: WatchIndex = WatchIndex(),  # noqa: B008 - never changed
        *,
        conflate: bool,
        interval_seconds: float,
        without_gaps: bool = False,
        crossed: bool = False,
    ) -> None:
        self.id = id_
        self.wanted = wanted
        """What it may see of what it asked for."""
        self.matcher = FilterMatcher.of(wanted, watches)
        self.filter_values = filter_values
        """How many it takes of those that a connection may have."""
        self.conflate = conflate
        self.interval_seconds = interval_seconds
        """0 conflates only when the reader is slow."""
        self.without_gaps = without_gaps
        """A log that cannot be read on is an error and not a snapshot."""
        self.crossed = crossed
        """It wants crossings too."""
        self.opened = False
        self.start: Cursor | None = None
        """Off the live path: nothing before is owed to it, since it began here or was given all that came before."""

    @property
    def delivery(self) -> Delivery:
        return "conflate" if self.conflate else "all"

    def open(self) -> None:
        """It stands: its reply goes out."""
        self.opened = True

    def begin(self, start: Cursor) -> None:
        """Nothing before is owed to it."""
        self.start = start

    def narrow(self, wanted: Filter) -> None:
        self.wanted = wanted
        self.matcher = FilterMatcher.of(wanted, self.matcher.watches)

    def resolve(self, watches: WatchIndex) -> None:
        """Its labels and tags stand for what these watches say."""
        self.matcher = msgspec.structs.replace(self.matcher, watches=watches)

    def matches(self, event: Published) -> bool:
        """It wants such events, of that balance."""
        return (self.crossed or event.type != "crossed") and self.matcher.matches(event.key)

    def wants(self, event: Published) -> bool:
        """It has begun there, and the event matches."""
        start = self.start
        begun = start is None or event.position >= start.positions[event.partition]
        return begun and self.matches(event)


def interval_of(wanting: Iterable[Subscription]) -> float | None:
    """Seconds. Of several that want one event the most demanding decides: every one (None), else the shortest interval."""
    intervals = [each.interval_seconds if each.conflate else None for each in wanting]
    found = [interval for interval in intervals if interval is not None]
    return min(found) if len(found) == len(intervals) else None


def wanted_by_any(subscriptions: Iterable[Subscription], event: Published) -> bool:
    return any(each.matches(event) for each in subscriptions)


class SubscriptionIndex(Generic[T, R]):
    """Finds what matches a key without asking everybody: each entry stands under its most telling field.

    What `resolve` makes of the entries found is remembered for the key until the next entry comes or goes.
    """

    def __init__(self, resolve: Callable[[list[T]], R], watches: Callable[[], WatchIndex] = WatchIndex) -> None:
        """`watches`: what labels and tags stand for; who is under one has to be added anew when that changes."""
        self._resolve = resolve
        self._watches = watches
        self._matchers: dict[T, FilterMatcher] = {}
        self._any: dict[T, None] = {}
        self._under: dict[str, dict[str, dict[T, FilterMatcher | None]]] = {name: {} for name in FIELDS}
        """By field and value: those to be asked about the other fields, and None for those that name no other."""
        self._known: dict[Key, R] = {}
        self._weight = 0

    def add(self, entry: T, matcher: FilterMatcher) -> None:
        self._forget()
        self._matchers[entry] = matcher
        name, values = _anchor(matcher)
        if name is None:
            self._any[entry] = None
        rest = None if _fields_named(matcher) == 1 else matcher
        for value in values:
            self._under[name or ""].setdefault(value, {})[entry] = rest

    def remove(self, entry: T) -> None:
        """Nothing happens for one that is not there."""
        matcher = self._matchers.pop(entry, None)
        if matcher is None:
            return
        self._forget()
        name, values = _anchor(matcher)
        self._any.pop(entry, None)
        for value in values:
            group = self._under[name or ""][value]
            del group[entry]
            if not group:
                del self._under[name or ""][value]

    def find(self, key: Key) -> R:
        known = self._known.get(key)
        if known is None:
            found = self._look(key)
            self._weight += len(found) + 1
            if self._weight > REMEMBERED:
                self._forget()
            known = self._known[key] = self._resolve(found)
        return known

    def _look(self, key: Key) -> list[T]:
        found = list(self._any)
        for name in PARTS:
            group = self._under[name].get(getattr(key, name))
            if group:
                found.extend(entry for entry, rest in group.items() if rest is None or rest.matches(key))
        if self._under["label"] or self._under["tag"]:
            found.extend(self._look_by_names(key))
        return found

    def _look_by_names(self, key: Key) -> Iterable[T]:
        """Each once, however many of the key's tags it wants."""
        info, found = self._watches().info(key), dict[T, None]()
        labelled = None if info.label is None else self._under["label"].get(info.label)
        for group in (labelled, *map(self._under["tag"].get, info.tags)):
            if group:
                found.update((entry, None) for entry, rest in group.items() if rest is None or rest.matches(key))
        return found

    def _forget(self) -> None:
        self._known.clear()
        self._weight = 0


def _fields_named(matcher: FilterMatcher) -> int:
    return sum(getattr(matcher, name) is not None for name in FIELDS)


def _anchor(matcher: FilterMatcher) -> tuple[str | None, frozenset[str]]:
    for name in ("account", "token", "label", "tag", "chain", "provider"):
        values = getattr(matcher, name)
        if values is not None:
            return name, values
    return None, frozenset()
