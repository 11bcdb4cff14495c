"""What is known of one balance, and the records of all balances of one token. The store alone changes a record."""

from itertools import islice

import msgspec

from watcher.model.bulk_listing import PAGE_ROWS, collect_young
from watcher.model.events import BalanceState, RecentAmount
from watcher.model.keys import Key, Kind, Scope
from watcher.model.readings import Unit
from watcher.model.times import shared_micros, shared_text

ORDER_RESET_AFTER = (10, 900.0)
"""Answers, and seconds, after which an order that everything is older than is given up: it was never right, or the
chain began anew."""


class Arrival(msgspec.Struct, gc=False):
    """When an answer arrived. All records that it confirmed share this object: when the answer is repeated, it moves for all of them."""

    received: float
    """Monotonic seconds."""
    observed_at: int
    """Wall-clock microseconds."""


class Denomination(msgspec.Struct, frozen=True, gc=False):
    """What a provider says of a balance beside its amount. Few differ, so they are shared."""

    unit: Unit
    decimals: int | None
    symbol: str | None


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """An amount that was seen and is not believed yet, and for how long nothing but differences has been seen."""

    amount: str
    order: int | None
    """Of an absence: the greatest in the listing."""
    received: float
    """Monotonic seconds: a request sent before confirms nothing."""
    absent: bool
    collapsed_from: int
    """As its first observation had it."""
    since: float
    """Monotonic seconds: when the first of the answers arrived that all differ from what is known."""
    differing: int = 0
    """Answers after the first one of those, to requests sent after it."""
    repeated: int = 0
    """Answers that repeated `amount`, to requests sent after it was received."""
    denied: int = 0
    """Answers since then that said what is known, but no newer than this."""


class StaleStreak(msgspec.Struct, gc=False):
    """All that came for a key since the last accepted reading was older than its greatest order."""

    since: float
    """Monotonic seconds."""
    answers: int = 0

    def over(self, now: float) -> bool:
        """One more such answer: is the greatest order to be given up?"""
        self.answers += 1
        answers, seconds = ORDER_RESET_AFTER
        return self.answers >= answers and now - self.since >= seconds


class BalanceRecord(msgspec.Struct, gc=False):
    """What is known of one key: the newest accepted amount, committed or not. There may be a million of these."""

    amount: str | None = None
    """None: nothing was ever accepted."""
    version: int = -1
    """The committed one; -1: none is."""
    order: int | None = None
    """The greatest ordering field that was accepted."""
    last_seen: Arrival | str | None = None
    """The last accepted observation of `amount`; text (RFC 3339): committed by an earlier run, not seen again since."""
    recent_amounts: tuple[RecentAmount, ...] = ()
    """Amounts replaced within the last `settle` seconds, oldest first."""
    denomination: Denomination | None = None
    absent_without_order: bool = False
    """`amount` is an absence, from an answer without an ordering field."""
    absent_by_listing: bool = False
    """`amount` is an absence, from a listing, and `order` is that listing's: the row itself had another, which may
    be that of its last write. A row that comes back with it is older by its order, and may be true all the same."""
    candidate: Candidate | None = None
    first_observed_at: int | None = None
    """Wall-clock microseconds: when the balance was first known. None: nothing is committed, or the journal does not say it,
    as of versions before."""


class TokenGroup:
    """All balances of one token (and kind) on one chain, by account."""

    __slots__ = ("_paged", "_pages", "chain", "changes", "kind", "last_answer", "provider", "records", "token")

    def __init__(self, provider: str, chain: str, token: str, kind: Kind) -> None:
        self.provider = provider
        self.chain = chain
        self.token = token
        self.kind: Kind = kind
        self.records: dict[str, BalanceRecord] = {}
        self.changes = 0
        """Grows with whatever is decided on a balance here, beyond that it was seen."""
        self.last_answer: Arrival | None = None
        """The last answer that named a balance here, by its arrival."""
        self._pages: list[tuple[tuple[str, ...], tuple[BalanceRecord, ...]]] = []
        self._paged = 0
        """How many records are in there."""

    def pages(self) -> list[tuple[tuple[str, ...], tuple[BalanceRecord, ...]]]:
        """Accounts and their records, `PAGE_ROWS` at a time, in the order in which they came; not to be changed.

        Kept, because to look a hundred thousand records up, or merely to copy a list of them, misses every cache; in
        tuples, because the collector looks through a list of them each time and through such a tuple only once.
        """
        if self._paged < len(self.records):
            del self._pages[self._paged // PAGE_ROWS :]
            accounts = islice(self.records, len(self._pages) * PAGE_ROWS, None)
            rows = islice(self.records.values(), len(self._pages) * PAGE_ROWS, None)
            while page := tuple(islice(accounts, PAGE_ROWS)):
                self._pages.append((page, tuple(islice(rows, PAGE_ROWS))))
                collect_young()
            self._paged = len(self.records)
        return self._pages

    def key(self, account: str) -> Key:
        return Key(self.provider, self.chain, account, self.token, self.kind)

    def within(self, scope: Scope) -> bool:
        return (
            self.provider == scope.provider
            and (scope.chain is None or self.chain == scope.chain)
            and (scope.token is None or self.token == scope.token)
        )


def first_observed_at(state: BalanceState) -> int | None:
    """When the balance of a committed state was first known, in wall-clock microseconds; as far as it says."""
    return None if (text := state.known_since) is None else shared_micros(text)


def text_of(last_seen: Arrival | str | None) -> str | None:
    """RFC 3339."""
    return shared_text(last_seen.observed_at) if isinstance(last_seen, Arrival) else last_seen
