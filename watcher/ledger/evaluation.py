"""One answer: evaluated reading by reading, and then by what it does not name."""

from collections.abc import Generator, Iterable

import msgspec

from watcher.ledger.bulk_comparison import BulkComparison
from watcher.ledger.listings import COMPLETE, Listing
from watcher.ledger.record import Arrival, BalanceRecord, TokenGroup
from watcher.ledger.rules import ABSENT, Observation, Ruling, greatest, outcome_of
from watcher.ledger.store import Store, Visit
from watcher.model.bulk_listing import CHANGED_ROWS, BulkListing
from watcher.model.keys import Key, Scope
from watcher.model.readings import Answer, Reading

COLLAPSE_FROM = 4
"""Balances known to be there from which on it is a collapse when most of them are missing."""


class Verdict(msgspec.Struct):
    """What one answer meant, for the poller and the schedule."""

    changed: set[Key] = msgspec.field(default_factory=set)
    """Keys whose pending change was made, replaced or taken back."""
    candidates: set[Key] = msgspec.field(default_factory=set)
    """Keys that this answer speaks of and that have an open candidate now: ask again next."""
    stale: set[Key] = msgspec.field(default_factory=set)
    """Keys whose reading was dropped because it is older than what is known."""
    went_back: set[Key] = msgspec.field(default_factory=set)
    """Keys whose order was given up, because for long all answers have been older."""
    accepted: int = 0
    """Readings believed, unchanged ones too."""
    baselines: int = 0
    refused: int = 0
    """Readings of balances that were not taken in, since there are as many as there may be."""


class Evaluation:
    """One answer on its way through the rules. Reads the records; the store alone changes them."""

    def __init__(self, store: Store, answer: Answer, listing: Listing | None) -> None:
        self.verdict = Verdict()
        self._store = store
        self._answer = answer
        self._listing = listing
        self._arrival = Arrival(answer.times.received, answer.times.observed_at)
        self._visit = Visit(self._arrival)
        self._has_baseline = listing is not None and listing.complete >= COMPLETE
        self._named: set[int] = set()
        """Records that the answer names, but not so that their `last_seen` would show it."""
        self._named_whole: set[TokenGroup] = set()
        """Where the answer left nothing out."""
        self._unconfirmed = 0
        """Records in the scope of the listing of which it did not say that they are what they are."""
        self._with_recent: list[BalanceRecord] = []
        """Records that had other amounts."""
        self._emptied = self._appeared = 0
        """Balances that the answer shows to be zero now, and those that were zero before."""
        self._order: int | None = None
        """The greatest in the answer."""

    def run(self) -> Generator[None, None, None]:
        """All that the answer says and does not say, `CHANGED_ROWS` readings, or `PAGE_ROWS` that repeat themselves, at a time.

        Raises what columns raise for a row that cannot be understood, before anything is evaluated.
        """
        readings, scope = self._answer.readings, self._answer.listing
        if isinstance(readings, BulkListing):
            yield from self._compare(readings)
        else:
            for start in range(0, len(readings), CHANGED_ROWS):
                self._evaluate_slice(readings[start : start + CHANGED_ROWS])
                if start + CHANGED_ROWS < len(readings):
                    yield
        if scope is not None and not self._answer.partial:
            yield from self._absences(scope)
        elif self._listing is not None:
            self._listing.fingerprint, self._listing.with_recent_amounts = b"", []

    def _compare(self, columns: BulkListing) -> Generator[None, None, None]:
        comparison = BulkComparison(self._store, columns)
        yield from comparison.compare()
        for page in comparison.pages:
            self._visit.enter(page.group)
            self.verdict.accepted += page.mark(self._arrival)
            yield
        for page in comparison.pages:
            for readings in page.to_evaluate():
                self._evaluate_slice(readings)
                yield
        self._named_whole = comparison.complete_groups()

    def _evaluate_slice(self, readings: Iterable[Reading]) -> None:
        confirmed = self._store.confirm(readings, self._visit, self._order)
        self.verdict.accepted += confirmed.accepted
        self._order = confirmed.order
        for group, record, reading in confirmed.others:
            self._observe(group, record, reading)

    def _absences(self, scope: Scope) -> Generator[None, None, None]:
        """What the listing covers and does not name."""
        greatest_order = self._order
        for group in self._store.within(scope) if self._answer.fingerprint else ():
            self._visit.enter(group)
        left_out = yield from self._left_out(scope)
        collapsed_from = yield from self._collapsed_from(
            scope, sum(record.amount != ABSENT for _, _, record in left_out)
        )
        fresh = not self.verdict.stale and (self.verdict.accepted > 0 or bool(self.verdict.candidates))
        for number, (group, account, record) in enumerate(left_out, 1):
            if record.last_seen is not self._arrival:
                self._observe_absence(group, account, record, fresh=fresh, collapsed_from=collapsed_from)
            self._unconfirmed += record.last_seen is not self._arrival
            if number % CHANGED_ROWS == 0:
                yield
        listing = self._listing
        if listing is not None:
            listing.greatest_order = (
                greatest_order if self.verdict.went_back else greatest(listing.greatest_order, greatest_order)
            )
            if not self.verdict.stale or listing.last_seen is None:
                listing.last_seen = self._arrival
            listing.rows = len(self._answer.readings)
            listing.fingerprint, listing.with_recent_amounts = b"", []
            if self._can_repeat():
                listing.fingerprint, listing.with_recent_amounts = self._answer.fingerprint, self._with_recent

    def _left_out(self, scope: Scope) -> Generator[None, None, list[tuple[TokenGroup, str, BalanceRecord]]]:
        """Balances that the listing does not name, but for those that are known to be nothing."""
        arrival = self._arrival
        left_out: list[tuple[TokenGroup, str, BalanceRecord]] = []
        for together in self._store.covered(scope, but=self._named_whole):
            for group, accounts, records in together:
                self._visit.enter(group)
                for number in [number for number, record in enumerate(records) if record.last_seen is not arrival]:
                    record = records[number]
                    if id(record) in self._named or record.amount is None:
                        self._unconfirmed += 1
                    elif record.amount == ABSENT and record.candidate is None:
                        self._confirm_absence(group, accounts[number], record)
                    else:
                        left_out.append((group, accounts[number], record))
            yield
        return left_out

    def _collapsed_from(self, scope: Scope, left_out: int) -> Generator[None, None, int]:
        """How many balances were known to be there, where the listing names none, or of four and more fewer than half.

        0: it is no collapse. `left_out`: how many of those it does not name.
        """
        if not left_out or not len(self._answer.readings):
            return left_out
        known = self._emptied - self._appeared  # the answer itself changed what is known
        for together in self._store.covered(scope):
            known += sum(record.amount not in (None, ABSENT) for _, _, records in together for record in records)
            if known >= 2 * left_out:
                return 0
            yield
        return known if known >= COLLAPSE_FROM else 0

    def _can_repeat(self) -> bool:
        """Whether the same answer once more would say nothing but that all its scope is as it is."""
        verdict = self.verdict
        open_candidates = verdict.candidates or verdict.stale or verdict.refused or self._unconfirmed
        return self._visit.undisturbed and not open_candidates and self._order is None

    def _confirm_absence(self, group: TokenGroup, account: str, record: BalanceRecord) -> None:
        if not self.verdict.stale:
            self._store.still_absent(group, account, record, self._arrival, self._answer.settle)
            if record.recent_amounts:
                self._with_recent.append(record)
        self._unconfirmed += record.last_seen is not self._arrival

    def _observe_absence(
        self, group: TokenGroup, account: str, record: BalanceRecord, *, fresh: bool, collapsed_from: int
    ) -> None:
        if self.verdict.went_back:  # the chain began anew, for this row too
            self._store.forget_order(record)
        # Where slots are those of each row's last change, the newest row may have been the one that vanished.
        order = greatest(self._order, record.order) if self._order is not None and fresh else self._order
        observation = self._observation(ABSENT, order, absent=True)
        observation = msgspec.structs.replace(
            observation, collapsed_from=collapsed_from, rows=len(self._answer.readings)
        )
        self._settle(group, account, record, observation, None)

    def _observe(self, group: TokenGroup, record: BalanceRecord | None, reading: Reading) -> None:
        account = reading.key.account
        record = record or group.records.get(account)  # the same key may have been named twice
        if record is None:
            max_known = self._answer.max_known
            if max_known is not None and self._store.count(group.provider) >= max_known:
                self.verdict.refused += 1
                return
            record = self._first_record(reading)
            self._store.add(group, account, record)
        self._named.add(id(record))
        listing, order = self._listing, reading.order
        behind = record.amount == ABSENT and listing is not None and listing.greatest_order is not None
        behind = behind and order is not None and order < listing.greatest_order  # type: ignore[union-attr, operator]
        observation = self._observation(reading.amount or ABSENT, order, absent=reading.amount is None, behind=behind)
        self._settle(group, account, record, observation, reading)

    def _first_record(self, reading: Reading) -> BalanceRecord:
        """A balance that a complete listing did not name before was nothing; of any other nothing is known."""
        if self._has_baseline and self._listing is not None and reading.amount not in (None, ABSENT):
            return BalanceRecord(amount=ABSENT, last_seen=self._listing.last_seen)
        return BalanceRecord()

    def _observation(self, amount: str, order: int | None, *, absent: bool, behind: bool = False) -> Observation:
        answer = self._answer
        return Observation(
            amount,
            order,
            answer.ordering,
            answer.settle,
            answer.times.sent,
            self._arrival,
            absent=absent,
            behind=behind,
        )

    def _settle(
        self, group: TokenGroup, account: str, record: BalanceRecord, observation: Observation, reading: Reading | None
    ) -> None:
        """One observation: what it means, what that makes of the record, and what the verdict says of it."""
        key = group.key(account) if reading is None else reading.key
        outcome, before, verdict = outcome_of(record, observation), record.amount, self.verdict
        if outcome.ruling is Ruling.STALE and self._store.stale_for_long(key, record, self._arrival.received):
            verdict.went_back.add(key)
            outcome = outcome_of(record, observation)
        ruling, change = outcome.ruling, self._store.apply(group, key, record, observation, outcome, reading=reading)
        if ruling is Ruling.CHANGED or ruling is Ruling.UNCHANGED:
            verdict.accepted += 1
        elif ruling is not Ruling.CANDIDATE and reading is not None:
            verdict.stale.add(key)
        if ruling is Ruling.CHANGED:
            if change is not None and change.previous is None:
                verdict.baselines += 1
            else:
                verdict.changed.add(key)
            self._emptied += before not in (None, ABSENT) and observation.amount == ABSENT
            self._appeared += before in (None, ABSENT) and observation.amount != ABSENT
        if record.candidate is not None:
            verdict.candidates.add(key)
        if record.recent_amounts:
            self._with_recent.append(record)
