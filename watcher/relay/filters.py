"""Filters: from what a client wrote to what it may see, and the index that finds the subscribers of an event.

A filter is kept as it is shown. What it matches is wider in one case: `0x` and 40 digits may be an EVM address or a
short felt, and a filter names no chain (`addresses.filter_forms`).
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Generic, TypeVar

import msgspec

from watcher.addresses import filter_forms
from watcher.events import Filter, Key, Scope

FIELDS = Filter.__struct_fields__
ADDRESSES = ("account", "token")
REMEMBERED = 1_000_000
"""Subscribers remembered over all keys before the index forgets which key they were for."""


class FilterError(ValueError):
    """Not a filter. One line for whoever wrote it."""


def parse(raw: object) -> Filter:
    """A filter as a client wrote it: canonical, sorted, each value once. Raises FilterError."""
    if not isinstance(raw, Mapping):
        raise FilterError("filter is an object with any of provider, chain, account, token")
    for name in raw:
        if name not in FIELDS:
            raise FilterError(f"filter has no field {str(name)[:40]!r}: the fields are {', '.join(FIELDS)}")
    return Filter(**{name: _values(name, values) for name, values in raw.items()})


def _values(name: str, values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise FilterError(f"filter.{name} is a list of at least one string; leave it out to match anything")
    return tuple(sorted({_forms(name, value)[0] for value in values}))


def _forms(name: str, value: str) -> tuple[str, ...]:
    return filter_forms(value) if name in ADDRESSES else (value,)


def size(wanted: Filter) -> int:
    """How many values it holds."""
    return sum(len(values) for name in FIELDS if (values := getattr(wanted, name)) is not None)


def expand(wanted: Filter) -> Filter:
    """What it matches: every spelling that its values stand for."""
    return Filter(
        **{
            name: tuple(sorted({form for value in values for form in _forms(name, value)}))
            for name in FIELDS
            if (values := getattr(wanted, name)) is not None
        }
    )


def intersect(wanted: Filter, rights: Filter) -> Filter | None:
    """What both allow; None when that is nothing."""
    both: dict[str, tuple[str, ...] | None] = {}
    for name in FIELDS:
        asked, allowed = getattr(wanted, name), getattr(rights, name)
        if asked is None or allowed is None:
            both[name] = asked if allowed is None else allowed
            continue
        spellings = {form for value in allowed for form in _forms(name, value)}
        common = {part for value in asked for part in _common(_forms(name, value), spellings)}
        if not common:
            return None
        both[name] = tuple(sorted(common))
    return Filter(**both)


def _common(forms: tuple[str, ...], allowed: set[str]) -> Iterable[str]:
    """The shown spelling when all that it stands for is allowed, else the single ones that are."""
    return forms[:1] if allowed.issuperset(forms) else allowed.intersection(forms)


class Matcher(msgspec.Struct, frozen=True):
    """A filter made ready for many keys."""

    provider: frozenset[str] | None
    chain: frozenset[str] | None
    account: frozenset[str] | None
    token: frozenset[str] | None

    @classmethod
    def of(cls, wanted: Filter) -> "Matcher":
        full = expand(wanted)
        return cls(*(None if (v := getattr(full, name)) is None else frozenset(v) for name in FIELDS))

    def matches(self, key: Key) -> bool:
        return (
            (self.account is None or key.account in self.account)
            and (self.token is None or key.token in self.token)
            and (self.chain is None or key.chain in self.chain)
            and (self.provider is None or key.provider in self.provider)
        )

    def touches(self, scope: Scope) -> bool:
        """Whether some balance of that listing may match."""
        parts = (
            (self.provider, scope.provider),
            (self.chain, scope.chain),
            (self.account, scope.account),
            (self.token, scope.token),
        )
        return all(allowed is None or part is None or part in allowed for allowed, part in parts)


T = TypeVar("T", bound=Hashable)
R = TypeVar("R")


class Index(Generic[T, R]):
    """Finds what matches a key without asking everybody: each entry stands under its most telling field.

    What `resolve` makes of the entries found is remembered for the key until the next entry comes or goes.
    """

    def __init__(self, resolve: Callable[[list[T]], R]) -> None:
        self._resolve = resolve
        self._matchers: dict[T, Matcher] = {}
        self._any: dict[T, None] = {}
        self._under: dict[str, dict[str, dict[T, Matcher | None]]] = {name: {} for name in FIELDS}
        """By field and value: those to be asked about the other fields, and None for those that name no other."""
        self._known: dict[Key, R] = {}
        self._weight = 0

    def add(self, entry: T, matcher: Matcher) -> None:
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
        for name, groups in self._under.items():
            group = groups.get(getattr(key, name))
            if group:
                found.extend(entry for entry, rest in group.items() if rest is None or rest.matches(key))
        return found

    def _forget(self) -> None:
        self._known.clear()
        self._weight = 0


def _fields_named(matcher: Matcher) -> int:
    return sum(getattr(matcher, name) is not None for name in FIELDS)


def _anchor(matcher: Matcher) -> tuple[str | None, frozenset[str]]:
    for name in ("account", "token", "chain", "provider"):
        values = getattr(matcher, name)
        if values is not None:
            return name, values
    return None, frozenset()
