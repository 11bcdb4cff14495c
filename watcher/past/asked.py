"""What is asked of the past: a time as people write it, which balances, and the row that each one gets."""

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import msgspec

from watcher.model import filters
from watcher.model.amounts import EXACT, canonical
from watcher.model.filters import FilterError, FilterMatcher
from watcher.model.keys import KINDS, Filter, Key
from watcher.model.past import PastBalance
from watcher.model.times import format_rfc3339, parse_rfc3339
from watcher.model.watches import WatchIndex
from watcher.past.state_at import PastError

TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]([01]\d|2[0-3]):\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
SHOWN = 60
"""Characters of what somebody wrote that an error repeats."""


class PastRow(PastBalance, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One balance at a past time, with the names that the config gives it now."""

    label: str | None
    """What the config calls it; None: nothing."""
    tags: tuple[str, ...]
    watched: bool
    """False: by the config nobody reads it any more."""


def time_of(text: str, what: str) -> int:
    """Wall-clock microseconds of a time in RFC 3339; digits beyond them are cut. `what`: its name in the error. Raises PastError."""
    if DATE.fullmatch(text):
        raise PastError(f"{what} = {text}: a day names no instant: write {text}T00:00:00Z for its first, in UTC")
    if not TIME.fullmatch(text):
        raise PastError(f"{what} = {text[:SHOWN]!r} is no time of RFC 3339: write it as 2026-12-31T00:00:00Z")
    try:
        time = parse_rfc3339(text.upper())
        format_rfc3339(time)  # its offset may lead beyond the first or the last year
    except (ValueError, OverflowError):
        raise PastError(f"{what} = {text!r}: there is no such day or hour") from None
    return time


class Wanted(msgspec.Struct, frozen=True):
    """Which balances: a filter as people know it, and kinds."""

    filter: Filter = Filter()
    kinds: frozenset[str] | None = None
    """None: any."""

    def matcher(self, watches: WatchIndex) -> "WantedMatcher":
        """`watches`: what labels and tags stand for."""
        names = FilterMatcher.of(self.filter, watches)
        return WantedMatcher(filters.asked_of_journal(self.filter, watches), names, self.kinds)


class WantedMatcher(msgspec.Struct, frozen=True):
    """The same, made ready for many keys."""

    of_journal: Filter
    """By parts of the key alone: all that is wanted, and more where labels, tags or kinds are."""
    names: FilterMatcher
    kinds: frozenset[str] | None

    def matches(self, key: Key) -> bool:
        """Whether the balance of that key is wanted."""
        return (self.kinds is None or key.kind in self.kinds) and self.names.matches(key)


def wanted(fields: Mapping[str, list[str]]) -> Wanted:
    """From fields of a filter, and `kind`, each with at least one value. Raises FilterError."""
    rest = {name: values for name, values in fields.items() if name != "kind"}
    kinds = fields.get("kind")
    if kinds is not None and (unknown := set(kinds) - KINDS):
        raise FilterError(f"no kind {min(unknown)[:SHOWN]!r}: the kinds are {', '.join(sorted(KINDS))}")
    return Wanted(filters.parse(rest), None if kinds is None else frozenset(kinds))


def rows(balances: Iterable[PastBalance], matcher: WantedMatcher, watches: WatchIndex) -> list[PastRow]:
    """Those that are wanted, in their order."""
    return [_row(balance, watches) for balance in balances if matcher.matches(balance.key)]


def _row(balance: PastBalance, watches: WatchIndex) -> PastRow:
    info = watches.info(balance.key)
    return PastRow(
        provider=balance.provider,
        chain=balance.chain,
        account=balance.account,
        token=balance.token,
        kind=balance.kind,
        symbol=balance.symbol,
        unit=balance.unit,
        decimals=balance.decimals,
        status=balance.status,
        amount=balance.amount,
        previous_amount=balance.previous_amount,
        between=balance.between,
        last_seen=balance.last_seen,
        label=info.label,
        tags=info.tags,
        watched=info.watched,
    )


def in_tokens(amount: str, unit: str, decimals: int | None) -> str | None:
    """An amount in tokens, exact; None where the provider did not say how many base units one has."""
    if unit == "decimal":
        return amount
    if decimals is None:
        return None
    try:
        return canonical(EXACT.scaleb(Decimal(amount), -decimals))
    except (ArithmeticError, ValueError):
        return None


def pages(found: Sequence[PastBalance], size: int) -> Iterable[Sequence[PastBalance]]:
    """Some at a time."""
    return (found[first : first + size] for first in range(0, len(found), size))
