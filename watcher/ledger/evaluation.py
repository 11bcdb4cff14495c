"""One answer, judged reading by reading, and then by what it does not name."""

from collections import defaultdict
from collections.abc import Generator, Iterable

import msgspec

from watcher.ledger.bulk_comparison import BulkComparison
from watcher.ledger.listings import COMPLETE, Listing
from watcher.ledger.pending_changes import PendingChanges
from watcher.ledger.rules import (
    ABSENT,
    Arrival,
    BalanceRecord,
    Candidate,
    Observation,
    Ruling,
    StaleStreak,
    after_unchanged,
    greatest,
    next_candidate,
    recent_after_candidate,
    recent_after_change,
    rule,
    still_recent,
)
from watcher.ledger.store import Store, TokenGroup
from watcher.model.bulk_listing import CHANGED_ROWS, PAGE_ROWS, BulkListing
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


class Unsettled(msgspec.Struct):
    """By provider, of a few balances: what is not decided yet, for whoever asks how long that has been so."""

    open_candidates: defaultdict[str, dict[Key, Candidate]] = msgspec.field(default_factory=lambda: defaultdict(dict))
    stale_streaks: defaultdict[str, dict[Key, StaleStreak]] = msgspec.field(default_factory=lambda: defaultdict(dict))

    def keep(self, store: Store) -> None:
        """What the records there still say. Where they were restored, nothing is doubted yet."""
        for provider, open_candidates in self.open_candidates.items():
            found = ((key, store.find(key)) for key in open_candidates)
            self.open_candidates[provider] = {
                key: record.candidate for key, record in found if record is not None and record.candidate
            }


class Evaluation:
    """One answer on its way through the rules."""

    def __init__(
        self,
        store: Store,
        pending_changes: PendingChanges,
        unsettled: Unsettled,
        answer: Answer,
        listing: Listing | None,
    ) -> None:
        self.verdict = Verdict()
        self._store = store
        self._pending = pending_changes
        self._doubts = unsettled.open_candidates[answer.provider]
        self._lags = unsettled.stale_streaks[answer.provider]
        self._answer = answer
        self._listing = listing
        self._moment = Arrival(answer.received, answer.observed_at)
        self._complete = listing is not None and listing.complete >= COMPLETE
        self._doubtful: set[int] = set()
        """Records that the answer names, but not so that their `last_seen` would show it."""
        self._named: set[TokenGroup] = set()
        """Where the answer left nothing out."""
        self._met: set[TokenGroup] = set()
        """What the answer spoke of so far."""
        self._alone = True
        """No other answer spoke of it in between."""
        self._unseen = 0
        """Records in the scope of the listing of which it did not say that they are what they are."""
        self._fading: list[BalanceRecord] = []
        """Records that had other amounts."""
        self._emptied = self._appeared = 0
        """Balances that the answer told to be nothing any more, and those that were nothing before."""
        self._top: int | None = None

    def whole(self) -> Generator[None, None, None]:
        """All that the answer says and does not say, `CHANGED_ROWS` readings, or `PAGE_ROWS` that repeat themselves, at a time.

        Raises what columns raise for a row that cannot be understood, before anything is judged.
        """
        readings, scope = self._answer.readings, self._answer.listing
        if isinstance(readings, BulkListing):
            yield from self._compare(readings)
        else:
            for start in range(0, len(readings), CHANGED_ROWS):
                self.hear(readings[start : start + CHANGED_ROWS])
                if start + CHANGED_ROWS < len(readings):
                    yield
        if scope is not None and not self._answer.partial:
            yield from self.absences(scope)
        elif self._listing is not None:
            self._listing.fingerprint, self._listing.fading = b"", []

    def _compare(self, columns: BulkListing) -> Generator[None, None, None]:
        comparison = BulkComparison(self._store, columns)
        yield from comparison.compare()
        for page in comparison.pages:
            self._meet(page.group)
            self.verdict.accepted += page.mark(self._moment)
            yield
        for page in comparison.pages:
            for readings in page.rest():
                self.hear(readings)
                yield
        self._named = comparison.named()

    def hear(self, readings: Iterable[Reading]) -> None:
        """Nearly every reading says what is known already: the loop is for those, `_weigh` for the others."""
        arrival, top, accepted, stale_streaks = self._moment, self._top, 0, self._lags
        token = chain = kind = provider = None
        for reading in readings:
            key, order = reading.key, reading.order
            # A listing names one token after another, mostly in the very same strings.
            if key.token is not token or key.chain is not chain or key.kind is not kind or key.provider is not provider:
                token, chain, kind, provider = key.token, key.chain, key.kind, key.provider
                group = self._store.of(key)
                self._meet(group)
                find = group.records.get
            record = find(key.account)
            if order is not None and (top is None or order > top):
                top = order
            if (
                record is None
                or record.amount != reading.amount
                or record.amount is None
                or record.candidate is not None
                or record.recent_amounts
                or (order is not None and record.order is not None and order < record.order)
                or (stale_streaks and key in stale_streaks)
            ):
                self._weigh(group, key, record, reading)
                continue
            if order is not None:
                record.order = order
            record.last_seen = arrival
            accepted += 1
        self._top = top
        self.verdict.accepted += accepted

    def _meet(self, group: TokenGroup) -> None:
        """Before anything is said of a balance there."""
        if group.last_answer is not self._moment:
            self._alone = self._alone and group not in self._met
            self._met.add(group)
            group.last_answer = self._moment

    def absences(self, scope: Scope) -> Generator[None, None, None]:
        """What the listing covers and does not name."""
        top = self._top
        for group in self._store.within(scope) if self._answer.fingerprint else ():
            self._meet(group)
        gone = yield from self._unnamed(scope)
        collapsed_from = yield from self._collapse(scope, sum(record.amount != ABSENT for _, _, record in gone))
        fresh = not self.verdict.stale and (self.verdict.accepted > 0 or bool(self.verdict.candidates))
        for number, (group, account, record) in enumerate(gone, 1):
            if record.last_seen is not self._moment:
                self._miss(group, account, record, fresh=fresh, collapsed_from=collapsed_from)
            self._unseen += record.last_seen is not self._moment
            if number % CHANGED_ROWS == 0:
                yield
        listing = self._listing
        if listing is not None:
            listing.top = top if self.verdict.went_back else greatest(listing.top, top)
            if not self.verdict.stale or listing.last_seen is None:
                listing.last_seen = self._moment
            listing.rows = len(self._answer.readings)
            listing.fingerprint, listing.fading = b"", []
            if self._can_repeat():
                listing.fingerprint, listing.fading = self._answer.fingerprint, self._fading

    def _unnamed(self, scope: Scope) -> Generator[None, None, list[tuple[TokenGroup, str, BalanceRecord]]]:
        """Balances that the listing does not name, but for those that are known to be nothing."""
        arrival = self._moment
        gone: list[tuple[TokenGroup, str, BalanceRecord]] = []
        for looked, (group, accounts, records) in enumerate(self._store.covered(scope, but=self._named), 1):
            self._meet(group)
            for number in [number for number, record in enumerate(records) if record.last_seen is not arrival]:
                record = records[number]
                if id(record) in self._doubtful or record.amount is None:
                    self._unseen += 1
                elif record.amount == ABSENT and record.candidate is None:
                    self._still_absent(group, accounts[number], record)
                else:
                    gone.append((group, accounts[number], record))
            if len(records) == PAGE_ROWS or looked % CHANGED_ROWS == 0:
                yield
        return gone

    def _collapse(self, scope: Scope, gone: int) -> Generator[None, None, int]:
        """How many balances were known to be there, where the listing names none, or of four and more fewer than half.

        0: it is no collapse. `gone`: how many of those it does not name.
        """
        if self._answer.collapsed_from is not None or not gone or not len(self._answer.readings):
            return gone if self._answer.collapsed_from is None else self._answer.collapsed_from
        known = self._emptied - self._appeared  # the answer itself changed what is known
        for looked, (_, _, records) in enumerate(self._store.covered(scope), 1):
            known += sum(record.amount not in (None, ABSENT) for record in records)
            if known >= 2 * gone:
                return 0
            if len(records) == PAGE_ROWS or looked % CHANGED_ROWS == 0:
                yield
        return known if known >= COLLAPSE_FROM else 0

    def _can_repeat(self) -> bool:
        """Whether the same answer once more would say nothing but that all its scope is as it is."""
        verdict = self.verdict
        open_candidates = verdict.candidates or verdict.stale or verdict.refused or self._unseen
        return self._alone and not open_candidates and self._top is None

    def _still_absent(self, group: TokenGroup, account: str, record: BalanceRecord) -> None:
        if not self.verdict.stale:
            record.last_seen = self._moment
            record.recent_amounts = still_recent(record.recent_amounts, self._moment.observed_at, self._answer.settle)
            self._fade(record)
            if self._lags:
                self._lags.pop(group.key(account), None)
        self._unseen += record.last_seen is not self._moment

    def _miss(
        self, group: TokenGroup, account: str, record: BalanceRecord, *, fresh: bool, collapsed_from: int
    ) -> None:
        if self.verdict.went_back:  # the chain began anew, for this row too
            record.order = None
        # Where slots are those of each row's last change, the newest row may have been the one that vanished.
        order = greatest(self._top, record.order) if self._top is not None and fresh else self._top
        observation = self._sight(ABSENT, order, absent=True)
        observation = msgspec.structs.replace(
            observation, collapsed_from=collapsed_from, rows=len(self._answer.readings)
        )
        self._decide(group, account, record, observation, None)

    def _weigh(self, group: TokenGroup, key: Key, record: BalanceRecord | None, reading: Reading) -> None:
        if record is None:
            max_known = self._answer.max_known
            if max_known is not None and self._store.count(key.provider) >= max_known:
                self.verdict.refused += 1
                return
            record = self._first_met(reading)
            self._store.add(group, key.account, record)
        self._doubtful.add(id(record))
        absent = reading.amount is None
        behind = (
            record.amount == ABSENT
            and self._listing is not None
            and self._listing.top is not None
            and reading.order is not None
            and reading.order < self._listing.top
        )
        observation = self._sight(reading.amount or ABSENT, reading.order, absent=absent, behind=behind)
        self._decide(group, key.account, record, observation, reading)

    def _first_met(self, reading: Reading) -> BalanceRecord:
        """A balance that a complete listing did not name before was nothing; of any other nothing is known."""
        if self._complete and self._listing is not None and reading.amount not in (None, ABSENT):
            return BalanceRecord(amount=ABSENT, last_seen=self._listing.last_seen)
        return BalanceRecord()

    def _sight(self, amount: str, order: int | None, *, absent: bool, behind: bool = False) -> Observation:
        answer = self._answer
        return Observation(
            amount, order, answer.ordering, answer.settle, answer.sent, self._moment, absent=absent, behind=behind
        )

    def _decide(
        self, group: TokenGroup, account: str, record: BalanceRecord, observation: Observation, reading: Reading | None
    ) -> None:
        group.changes += 1
        key = group.key(account)
        ruling = rule(record, observation)
        if ruling is Ruling.STALE and self._lags.setdefault(key, StaleStreak(observation.arrival.received)).over(
            observation.arrival.received
        ):
            self.verdict.went_back.add(key)
            record.order = record.candidate = None
            ruling = rule(record, observation)
        if ruling is not Ruling.STALE:
            self._lags.pop(key, None)
        if ruling is Ruling.STALE or ruling is Ruling.OVERTAKEN:
            if reading is not None:
                self.verdict.stale.add(key)
        else:
            self._settle(key, record, observation, ruling, reading)
        if record.candidate is not None:
            self.verdict.candidates.add(key)
            self._doubts[key] = record.candidate
        else:
            self._doubts.pop(key, None)
        self._fade(record)

    def _settle(
        self, key: Key, record: BalanceRecord, observation: Observation, ruling: Ruling, reading: Reading | None
    ) -> None:
        if ruling is Ruling.CANDIDATE:
            record.candidate = next_candidate(record.candidate, observation)
            record.recent_amounts = recent_after_candidate(record, observation)
        elif ruling is Ruling.UNCHANGED:
            self._accept(record, observation)
            record.recent_amounts = still_recent(record.recent_amounts, self._moment.observed_at, observation.settle)
            if record.candidate is not None:
                record.candidate = after_unchanged(record.candidate, observation)
        else:
            self._tell(key, record, observation, reading)

    def _fade(self, record: BalanceRecord) -> None:
        if record.recent_amounts:
            self._fading.append(record)

    def _tell(self, key: Key, record: BalanceRecord, observation: Observation, reading: Reading | None) -> None:
        change = self._pending.put(key, record, observation.amount, self._moment, reading)
        if change is not None and change.previous is None:
            self.verdict.baselines += 1
        else:
            self.verdict.changed.add(key)
        self._emptied += record.amount not in (None, ABSENT) and observation.amount == ABSENT
        self._appeared += record.amount in (None, ABSENT) and observation.amount != ABSENT
        if record.absent_by_listing and not observation.absent:
            record.order = observation.order
        record.recent_amounts = recent_after_change(record, observation)
        record.amount = observation.amount
        record.absent_without_order = observation.absent and observation.order is None
        record.absent_by_listing = reading is None and observation.order is not None
        record.candidate = None
        if reading is not None:
            record.denomination = self._store.denomination(reading.unit, reading.decimals, reading.symbol)
        self._accept(record, observation)

    def _accept(self, record: BalanceRecord, observation: Observation) -> None:
        record.last_seen = self._moment
        record.order = greatest(record.order, observation.order)
        self.verdict.accepted += 1
