"""Filters: from what a client wrote to what it may see.

A filter is kept as it is shown. What it matches is wider in one case: `0x` and 40 digits may be an EVM address or a
short felt, and a filter names no chain (`addresses.filter_forms`). Labels and tags are names that the config gives to
what it watches: what they match is known only together with a `WatchIndex`.
"""

from collections.abc import Iterable, Mapping

import msgspec

from watcher.model import addresses
from watcher.model.addresses import AddressError, filter_forms
from watcher.model.keys import Filter, Key, Scope
from watcher.model.watches import Watched, WatchIndex

FIELDS = Filter.__struct_fields__
PARTS = ("provider", "chain", "account", "token")
"""Of a key: what rights are bound to, and what a journal is asked for."""
ADDRESSES = ("account", "token")
NOTHING = Filter(provider=("",))
"""Matches no balance: every provider has a name."""


class FilterError(ValueError):
    """Not a filter. One line for whoever wrote it."""


def parse(raw: object) -> Filter:
    """A filter as a client wrote it: canonical, sorted, each value once. Raises FilterError."""
    if not isinstance(raw, Mapping):
        raise FilterError(f"filter is an object with any of {', '.join(FIELDS)}")
    for name in raw:
        if name not in FIELDS:
            raise FilterError(f"filter has no field {str(name)[:40]!r}: the fields are {', '.join(FIELDS)}")
    return Filter(**{name: _values(name, values) for name, values in raw.items()})


def _values(name: str, values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise FilterError(f"filter.{name} is a list of at least one string; leave it out to match anything")
    return tuple(sorted({_forms(name, value)[0] for value in values}))


def _forms(name: str, value: str) -> tuple[str, ...]:
    if name == "chain":
        return (_chain(value),)
    return filter_forms(value) if name in ADDRESSES else (value,)


def _chain(value: str) -> str:
    """As the config takes it; what is no chain is taken as it stands, and matches nothing."""
    try:
        return addresses.chain(value)
    except AddressError:
        return value


def require_chains(values: Iterable[str]) -> None:
    """That each can be one. Raises FilterError: a client may look for what there is not, but a config that names it means another."""
    for value in values:
        try:
            addresses.chain(value)
        except AddressError as error:
            raise FilterError(f"chain = {error}") from None


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


def asked_of_journal(wanted: Filter, watches: WatchIndex) -> Filter:
    """By parts of the key alone: all that is wanted, and more where labels or tags are. Expanded."""
    found: Filter | None = Filter(**{name: getattr(wanted, name) for name in PARTS})
    for name in ("label", "tag"):
        values = getattr(wanted, name)
        if found is not None and values is not None:
            around = _around(watch.scope for watch in watches.named if _has(watch, name, values))
            found = None if around is None else intersect(found, around)
    return NOTHING if found is None else expand(found)


def _around(scopes: Iterable[Scope]) -> Filter | None:
    """What matches all that these cover; None without one."""
    held = list(scopes)
    if not held:
        return None
    found: dict[str, tuple[str, ...] | None] = {}
    for name in PARTS:
        values = {getattr(scope, name) for scope in held}
        found[name] = None if None in values else tuple(sorted(values))
    return Filter(**found)


def may_match(wanted: Filter, watches: WatchIndex) -> bool:
    """False: no watch covers a balance that is wanted. True may be wrong where no account is wanted."""
    full = expand(wanted)
    matcher = FilterMatcher.of(full)
    named = [(name, values) for name in ("label", "tag") if (values := getattr(wanted, name)) is not None]
    if named:  # by the watch that has the name: that of another one is nobody's business who may not see what it covers
        return all(
            any(_has(watch, name, values) and matcher.touches(watch.scope) for watch in watches.named)
            for name, values in named
        )
    providers = watches.providers if full.provider is None else set(full.provider).intersection(watches.providers)
    if full.account is None:
        return any(_has_values(full, watches, provider) for provider in providers)
    return any(
        matcher.touches(watch.scope)
        for provider in providers
        for account in full.account
        for watch in watches.of_account(provider, account)
    )


def _has_values(full: Filter, watches: WatchIndex, provider: str) -> bool:
    for name in ("chain", "token"):
        known, asked = watches.values(provider, name), getattr(full, name)
        if asked is not None and None not in known and known.isdisjoint(asked):
            return False
    return True


def _has(watch: Watched, name: str, values: tuple[str, ...]) -> bool:
    """Whether this watch is so named. A balance may have another label, of a watch that says more of it."""
    return watch.label in values if name == "label" else not set(values).isdisjoint(watch.tags)


class FilterMatcher(msgspec.Struct, frozen=True):
    """A filter made ready for many keys."""

    provider: frozenset[str] | None
    chain: frozenset[str] | None
    account: frozenset[str] | None
    token: frozenset[str] | None
    label: frozenset[str] | None
    tag: frozenset[str] | None
    watches: WatchIndex

    @classmethod
    def of(cls, wanted: Filter, watches: WatchIndex = WatchIndex()) -> "FilterMatcher":  # noqa: B008 - never changed
        """`watches`: what its labels and tags stand for."""
        full = expand(wanted)
        sets = {name: None if (v := getattr(full, name)) is None else frozenset(v) for name in FIELDS}
        return cls(**sets, watches=watches)

    def matches(self, key: Key) -> bool:
        return (
            (self.account is None or key.account in self.account)
            and (self.token is None or key.token in self.token)
            and (self.chain is None or key.chain in self.chain)
            and (self.provider is None or key.provider in self.provider)
            and ((self.label is None and self.tag is None) or self._matches_names(key))
        )

    def _matches_names(self, key: Key) -> bool:
        info = self.watches.info(key)
        return (self.label is None or info.label in self.label) and (
            self.tag is None or not self.tag.isdisjoint(info.tags)
        )

    def touches(self, scope: Scope) -> bool:
        """Whether some balance of that listing may match, by the parts of its key."""
        parts = (
            (self.provider, scope.provider),
            (self.chain, scope.chain),
            (self.account, scope.account),
            (self.token, scope.token),
        )
        return all(allowed is None or part is None or part in allowed for allowed, part in parts)
