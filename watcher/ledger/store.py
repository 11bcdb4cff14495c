"""Where the records stand: found by key, or by the scope of a listing without looking at the others."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from watcher.ledger.pending_changes import PendingChange, PendingChanges
from watcher.ledger.record import (
    Arrival,
    BalanceRecord,
    Candidate,
    Denomination,
    StaleStreak,
    TokenGroup,
    first_observed_at,
)
from watcher.ledger.rules import Observation, Outcome, Ruling, still_recent
from watcher.model.bulk_listing import CHANGED_ROWS, PAGE_ROWS
from watcher.model.events import BalanceState
from watcher.model.keys import Key, Kind, Scope
from watcher.model.readings import Reading, Unit
from watcher.redaction.redactor import SECRETS

MOST_DENOMINATIONS = 10_000
"""That are shared; far more than there are tokens."""


class Visit(msgspec.Struct):
    """What one answer has touched so far, group by group, and whether another answer came in between."""

    arrival: Arrival
    undisturbed: bool = True
    groups: set[TokenGroup] = msgspec.field(default_factory=set)
    new: dict[tuple[str, str, str, str], TokenGroup] = msgspec.field(default_factory=dict)
    """Groups that it named and of which no record is kept yet."""

    def enter(self, group: TokenGroup) -> None:
        """Before anything is said of a balance there."""
        if group.last_answer is not self.arrival:
            self.undisturbed = self.undisturbed and group not in self.groups
            self.groups.add(group)
            group.last_answer = self.arrival


class Confirmed(NamedTuple):
    """What `Store.confirm` made of some readings."""

    accepted: int
    """Readings that repeat what is known."""
    order: int | None
    """The greatest of all readings of the answer so far."""
    others: list[tuple[TokenGroup, BalanceRecord | None, Reading]]
    """Those that say something else, in order: to be evaluated."""


class Store:
    """Every record, found by key or by the scope of a listing without looking at the others."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str, str, str], TokenGroup] = {}
        self._accounts: dict[str, dict[str, list[TokenGroup]]] = {}
        """provider → account → where it stands; made for providers whose accounts are listed."""
        self._denominations: dict[tuple[Unit, int | None, str | None], Denomination] = {}
        self._counts: Counter[str] = Counter()
        """Records by provider."""
        self.taken_back = 0
        """Changes that the journal would not take."""
        self.pending_changes = PendingChanges()
        self.open_candidates: defaultdict[str, dict[Key, Candidate]] = defaultdict(dict)
        """By provider, of a few balances: what is not decided yet."""
        self.stale_streaks: defaultdict[str, dict[Key, StaleStreak]] = defaultdict(dict)

    def __bool__(self) -> bool:
        return bool(self._groups)

    def __iter__(self) -> Iterator[tuple[TokenGroup, str, BalanceRecord]]:
        return (
            (group, account, record) for group in self._groups.values() for account, record in group.records.items()
        )

    def keys(self) -> Iterator[Key]:
        """Records may be added meanwhile."""
        for group in list(self._groups.values()):
            large = len(group.records) > PAGE_ROWS
            for accounts in [accounts for accounts, _ in group.pages()] if large else [list(group.records)]:
                yield from map(group.key, accounts)

    def get(self, provider: str, chain: str, token: str, kind: Kind) -> TokenGroup | None:
        return self._groups.get((provider, chain, token, kind))

    def group(self, provider: str, chain: str, token: str, kind: Kind) -> TokenGroup:
        """Where balances of that token stand, or would: it is kept from its first record on, and not for a mere name."""
        return self._groups.get((provider, chain, token, kind)) or TokenGroup(provider, chain, token, kind)

    def groups(self, provider: str) -> list[TokenGroup]:
        return [group for group in self._groups.values() if group.provider == provider]

    def count(self, provider: str) -> int:
        """How many of its balances are known of, in any way."""
        return self._counts[provider]

    def providers(self) -> set[str]:
        return set(self._counts)

    def of(self, key: Key) -> TokenGroup:
        return self.group(key.provider, key.chain, key.token, key.kind)

    def find(self, key: Key) -> BalanceRecord | None:
        found = self.get(key.provider, key.chain, key.token, key.kind)
        return None if found is None else found.records.get(key.account)

    def add(self, group: TokenGroup, account: str, record: BalanceRecord) -> None:
        assert account not in group.records, f"met before: {group.key(account)}"
        if not group.records:
            place = (group.provider, group.chain, group.token, group.kind)
            assert self._groups.setdefault(place, group) is group, f"two groups of one token: {place}"
        group.records[account] = record
        self._counts[group.provider] += 1
        accounts = self._accounts.get(group.provider)
        if accounts is not None:
            accounts.setdefault(account, []).append(group)

    def denomination(self, unit: Unit, decimals: int | None, symbol: str | None) -> Denomination:
        """One object for all balances that are labelled alike. A symbol is somebody's free text: it may repeat a key."""
        found = self._denominations.get((unit, decimals, symbol))
        if found is None:
            if len(self._denominations) >= MOST_DENOMINATIONS:  # somebody calls a balance something else each time
                self._denominations.clear()
            shown = None if symbol is None else SECRETS.redacted(symbol)
            found = self._denominations[unit, decimals, symbol] = Denomination(unit, decimals, shown)
        return found

    def confirm(self, readings: Iterable[Reading], visit: Visit, greatest_order: int | None) -> Confirmed:
        """Nearly every reading repeats what is known: those are seen here, the others are given back.

        `greatest_order`: the greatest order that the answer had before.
        """
        arrival, accepted = visit.arrival, 0
        others: list[tuple[TokenGroup, BalanceRecord | None, Reading]] = []
        token = chain = kind = provider = None
        for reading in readings:
            key, order = reading.key, reading.order
            # A listing names one token after another, mostly in the very same strings.
            if key.token is not token or key.chain is not chain or key.kind is not kind or key.provider is not provider:
                token, chain, kind, provider = key.token, key.chain, key.kind, key.provider
                place = (provider, chain, token, kind)
                # A group is kept from its first record on: until then there must not be two.
                group = (
                    self._groups.get(place) or visit.new.get(place) or visit.new.setdefault(place, TokenGroup(*place))
                )
                visit.enter(group)
                find, streaks = group.records.get, self.stale_streaks[provider]
            record = find(key.account)
            if order is not None and (greatest_order is None or order > greatest_order):
                greatest_order = order
            if (
                record is None
                or record.amount != reading.amount
                or record.amount is None
                or record.candidate is not None
                or record.recent_amounts
                or (order is not None and record.order is not None and order < record.order)
                or (streaks and key in streaks)
            ):
                others.append((group, record, reading))
                continue
            if order is not None:
                record.order = order
            record.last_seen = arrival
            accepted += 1
        return Confirmed(accepted, greatest_order, others)

    def apply(
        self,
        group: TokenGroup,
        key: Key,
        record: BalanceRecord,
        observation: Observation,
        outcome: Outcome,
        *,
        reading: Reading | None,
    ) -> PendingChange | None:
        """What the outcome makes of the record. The change that pends now; None: none, or it was taken back."""
        change = None
        group.changes += 1
        if outcome.ruling is Ruling.CHANGED:
            if reading is not None:
                record.denomination = self.denomination(reading.unit, reading.decimals, reading.symbol)
            change = self.pending_changes.put(key, record, observation.amount, observation.arrival, reading)
            if record.absent_by_listing and not observation.absent:
                record.order = observation.order
            record.amount = observation.amount
            record.absent_without_order = observation.absent and observation.order is None
            record.absent_by_listing = reading is None and observation.order is not None
        record.candidate, record.recent_amounts = outcome.candidate, outcome.recent_amounts
        if outcome.ruling is Ruling.CHANGED or outcome.ruling is Ruling.UNCHANGED:
            record.last_seen = observation.arrival
            if observation.order is not None and (record.order is None or observation.order > record.order):
                record.order = observation.order
        if outcome.ruling is not Ruling.STALE:
            self.stale_streaks[group.provider].pop(key, None)
        if record.candidate is not None:
            self.open_candidates[group.provider][key] = record.candidate
        else:
            self.open_candidates[group.provider].pop(key, None)
        return change

    def stale_for_long(self, key: Key, record: BalanceRecord, now: float) -> bool:
        """One more observation that is older than the greatest order: is that given up? Then it is forgotten here."""
        if not self.stale_streaks[key.provider].setdefault(key, StaleStreak(now)).over(now):
            return False
        record.order = record.candidate = None
        return True

    def forget_order(self, record: BalanceRecord) -> None:
        """The chain began anew."""
        record.order = None

    def forget_undecided(self, provider: str, read: Callable[[Key], bool]) -> None:
        """Nobody reads the others any more, so nothing of them is ever decided: begin anew if somebody does."""
        for key in [key for key in self.open_candidates[provider] if not read(key)]:
            record = self.find(key)
            assert record is not None, f"a candidate without a record: {key}"
            record.candidate = None
            del self.open_candidates[provider][key]
        for key in [key for key in self.stale_streaks[provider] if not read(key)]:
            del self.stale_streaks[provider][key]

    def mark_committed(self, key: Key, state: BalanceState) -> bool:
        """Whether nothing of the key was committed before."""
        record = self.find(key)
        assert record is not None, f"a change without a record: {key}"
        first, record.version = record.version < 0, state.version
        if first:
            record.first_observed_at = first_observed_at(state)
        return first

    def carried(self, state: BalanceState) -> BalanceRecord | None:
        """The record of this key, if the journal's state agrees with it; None: start from the journal's."""
        key = state.key
        record = self.find(key)
        if record is None:
            return None
        if not self.pending_changes.agrees_with(key, record, state):
            self.pending_changes.forget(key)
            return None
        if record.version < 0:  # it was in flight
            record.first_observed_at = first_observed_at(state)
        record.version = state.version
        return record

    def succeed(self, former: "Store") -> None:
        """The journal was read anew: what is not decided goes on where the records still say it."""
        self.pending_changes, self.stale_streaks = former.pending_changes, former.stale_streaks
        self.pending_changes.return_in_flight(self.find)
        for provider, candidates in former.open_candidates.items():
            found = ((key, self.find(key)) for key in candidates)
            self.open_candidates[provider] = {
                key: record.candidate for key, record in found if record is not None and record.candidate
            }

    def still_absent(
        self, group: TokenGroup, account: str, record: BalanceRecord, arrival: Arrival, settle: float
    ) -> None:
        """A listing leaves out once more what is known to be nothing."""
        record.last_seen = arrival
        record.recent_amounts = still_recent(record.recent_amounts, arrival.observed_at, settle)
        if self.stale_streaks[group.provider]:
            self.stale_streaks[group.provider].pop(group.key(account), None)

    def take_back(self, key: Key, change: PendingChange) -> bool:
        """The journal will not take the change: memory goes back to what is committed. Whether nothing is."""
        self.pending_changes.forget(key)
        self.taken_back += 1
        record = self.find(key)
        assert record is not None, f"a change without a record: {key}"
        record.candidate, record.recent_amounts = None, ()
        record.absent_without_order = record.absent_by_listing = False
        record.amount, record.last_seen = change.previous, change.since
        if change.previous is None:
            record.order = record.denomination = None
        self.open_candidates[key.provider].pop(key, None)
        return change.previous is None

    def within(self, scope: Scope) -> list[TokenGroup]:
        """Where balances stand of which a listing of the scope speaks."""
        groups = self._groups.values() if scope.account is None else self._listed(scope.provider).get(scope.account, ())
        return [group for group in groups if group.within(scope)]

    def covered(
        self, scope: Scope, but: Collection[TokenGroup] = ()
    ) -> Iterator[list[tuple[TokenGroup, Sequence[str], Sequence[BalanceRecord]]]]:
        """What a complete listing of the scope covers: accounts of one group and their records, as much at a time as is
        looked at in one go: a page of `PAGE_ROWS`, or `CHANGED_ROWS` small groups.

        Groups in `but` are left out; what comes to a group meanwhile may be.
        """
        together = []
        for group in self.within(scope):
            pages: Iterable[tuple[Sequence[str], Sequence[BalanceRecord]]]
            if scope.account is not None:
                pages = [([scope.account], [group.records[scope.account]])]
            else:
                pages = () if group in but else list(group.pages())
            for accounts, records in pages:
                together.append((group, accounts, records))
                if len(records) == PAGE_ROWS or len(together) == CHANGED_ROWS:
                    yield together
                    together = []
        if together:
            yield together

    def _listed(self, provider: str) -> dict[str, list[TokenGroup]]:
        accounts = self._accounts.get(provider)
        if accounts is None:
            accounts = self._accounts[provider] = {}
            for group in self._groups.values():
                if group.provider == provider:
                    for account in group.records:
                        accounts.setdefault(account, []).append(group)
        return accounts


def fade(records: Iterable[BalanceRecord], arrival: Arrival, settle: float) -> list[BalanceRecord]:
    """Let them forget amounts of too long ago; those that remember some still."""
    left = []
    for record in records:
        record.recent_amounts = still_recent(record.recent_amounts, arrival.observed_at, settle)
        if record.recent_amounts:
            left.append(record)
    return left


def mark_seen(records: Iterable[BalanceRecord], arrival: Arrival) -> None:
    """All of these say what is known: nothing but the time is new."""
    for record in records:
        record.last_seen = arrival
