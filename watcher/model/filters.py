"""Filters: from what a client wrote to what it may see, and the index that finds the subscribers of an event.

A filter is kept as it is shown. What it matches is wider in one case: `0x` and 40 digits may be an EVM address or a
short felt, and a filter names no chain (`addresses.filter_forms`).
"""

from collections.abc import Iterable, Mapping

import msgspec

from watcher.model.addresses import filter_forms
from watcher.model.keys import Filter, Key, Scope

FIELDS = Filter.__struct_fields__
ADDRESSES = ("account", "token")


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


class FilterMatcher(msgspec.Struct, frozen=True):
    """A filter made ready for many keys."""

    provider: frozenset[str] | None
    chain: frozenset[str] | None
    account: frozenset[str] | None
    token: frozenset[str] | None

    @classmethod
    def of(cls, wanted: Filter) -> "FilterMatcher":
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
