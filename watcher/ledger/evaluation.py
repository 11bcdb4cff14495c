"""One answer, judged reading by reading, and then by what it does not name."""

from collections import defaultdict
from collections.abc import Generator, Iterable

import msgspec

from watcher.ledger.bulk_comparison import Comparison
from watcher.ledger.listings import COMPLETE, Listing
from watcher.ledger.pending_changes import Drafts
from watcher.ledger.rules import (
    ABSENT,
    Candidate,
    Lag,
    Moment,
    Record,
    Ruling,
    Sight,
    after_same,
    doubted,
    greatest,
    overheard,
    remembered,
    replaced,
    rule,
)
from watcher.ledger.store import Shelf, Shelves
from watcher.model.bulk_listing import NEWS, SLICE, Columns
from watcher.model.keys import Key, Scope
from watcher.model.readings import Answer, Reading

FEW = 4
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

    doubts: defaultdict[str, dict[Key, Candidate]] = msgspec.field(default_factory=lambda: defaultdict(dict))
    lags: defaultdict[str, dict[Key, Lag]] = msgspec.field(default_factory=lambda: defaultdict(dict))

    def keep(self, shelves: Shelves) -> None:
        """What the records there still say. Where they were restored, nothing is doubted yet."""
        for provider, doubts in self.doubts.items():
            found = ((key, shelves.find(key)) for key in doubts)
            self.doubts[provider] = {
                key: record.candidate for key, record in found if record is not None and record.candidate
            }


class Hearing:
    """One answer on its way through the rules."""

    def __init__(
        self, shelves: Shelves, drafts: Drafts, unsettled: Unsettled, answer: Answer, listing: Listing | None
    ) -> None:
        self.verdict = Verdict()
        self._shelves = shelves
        self._drafts = drafts
        self._doubts = unsettled.doubts[answer.provider]
        self._lags = unsettled.lags[answer.provider]
        self._answer = answer
        self._listing = listing
        self._moment = Moment(answer.received, answer.observed_at)
        self._complete = listing is not None and listing.complete >= COMPLETE
        self._doubtful: set[int] = set()
        """Records that the answer names, but not so that their `seen` would show it."""
        self._named: set[Shelf] = set()
        """Where the answer left nothing out."""
        self._met: set[Shelf] = set()
        """What the answer spoke of so far."""
        self._alone = True
        """No other answer spoke of it in between."""
        self._unseen = 0
        """Records in the scope of the listing of which it did not say that they are what they are."""
        self._fading: list[Record] = []
        """Records that had other amounts."""
        self._emptied = self._appeared = 0
        """Balances that the answer told to be nothing any more, and those that were nothing before."""
        self._top: int | None = None

    def whole(self) -> Generator[None, None, None]:
        """All that the answer says and does not say, `NEWS` readings, or `SLICE` that repeat themselves, at a time.

        Raises what columns raise for a row that cannot be understood, before anything is judged.
        """
        readings, scope = self._answer.readings, self._answer.listing
        if isinstance(readings, Columns):
            yield from self._compare(readings)
        else:
            for start in range(0, len(readings), NEWS):
                self.hear(readings[start : start + NEWS])
                if start + NEWS < len(readings):
                    yield
        if scope is not None and not self._answer.partial:
            yield from self.absences(scope)
        elif self._listing is not None:
            self._listing.fingerprint, self._listing.fading = b"", []

    def _compare(self, columns: Columns) -> Generator[None, None, None]:
        comparison = Comparison(self._shelves, columns)
        yield from comparison.compare()
        for page in comparison.pages:
            self._meet(page.shelf)
            self.verdict.accepted += page.mark(self._moment)
            yield
        for page in comparison.pages:
            for readings in page.rest():
                self.hear(readings)
                yield
        self._named = comparison.named()

    def hear(self, readings: Iterable[Reading]) -> None:
        """Nearly every reading says what is known already: the loop is for those, `_weigh` for the others."""
        moment, top, accepted, lags = self._moment, self._top, 0, self._lags
        token = chain = kind = provider = None
        for reading in readings:
            key, order = reading.key, reading.order
            # A listing names one token after another, mostly in the very same strings.
            if key.token is not token or key.chain is not chain or key.kind is not kind or key.provider is not provider:
                token, chain, kind, provider = key.token, key.chain, key.kind, key.provider
                shelf = self._shelves.of(key)
                self._meet(shelf)
                find = shelf.records.get
            record = find(key.account)
            if order is not None and (top is None or order > top):
                top = order
            if (
                record is None
                or record.amount != reading.amount
                or record.amount is None
                or record.candidate is not None
                or record.had
                or (order is not None and record.order is not None and order < record.order)
                or (lags and key in lags)
            ):
                self._weigh(shelf, key, record, reading)
                continue
            if order is not None:
                record.order = order
            record.seen = moment
            accepted += 1
        self._top = top
        self.verdict.accepted += accepted

    def _meet(self, shelf: Shelf) -> None:
        """Before anything is said of a balance there."""
        if shelf.heard is not self._moment:
            self._alone = self._alone and shelf not in self._met
            self._met.add(shelf)
            shelf.heard = self._moment

    def absences(self, scope: Scope) -> Generator[None, None, None]:
        """What the listing covers and does not name."""
        top = self._top
        for shelf in self._shelves.within(scope) if self._answer.fingerprint else ():
            self._meet(shelf)
        gone = yield from self._unnamed(scope)
        lacking = yield from self._collapse(scope, sum(record.amount != ABSENT for _, _, record in gone))
        fresh = not self.verdict.stale and (self.verdict.accepted > 0 or bool(self.verdict.candidates))
        for number, (shelf, account, record) in enumerate(gone, 1):
            if record.seen is not self._moment:
                self._miss(shelf, account, record, fresh=fresh, lacking=lacking)
            self._unseen += record.seen is not self._moment
            if number % NEWS == 0:
                yield
        listing = self._listing
        if listing is not None:
            listing.top = top if self.verdict.went_back else greatest(listing.top, top)
            if not self.verdict.stale or listing.seen is None:
                listing.seen = self._moment
            listing.rows = len(self._answer.readings)
            listing.fingerprint, listing.fading = b"", []
            if self._can_repeat():
                listing.fingerprint, listing.fading = self._answer.fingerprint, self._fading

    def _unnamed(self, scope: Scope) -> Generator[None, None, list[tuple[Shelf, str, Record]]]:
        """Balances that the listing does not name, but for those that are known to be nothing."""
        moment = self._moment
        gone: list[tuple[Shelf, str, Record]] = []
        for looked, (shelf, accounts, records) in enumerate(self._shelves.covered(scope, but=self._named), 1):
            self._meet(shelf)
            for number in [number for number, record in enumerate(records) if record.seen is not moment]:
                record = records[number]
                if id(record) in self._doubtful or record.amount is None:
                    self._unseen += 1
                elif record.amount == ABSENT and record.candidate is None:
                    self._still_absent(shelf, accounts[number], record)
                else:
                    gone.append((shelf, accounts[number], record))
            if len(records) == SLICE or looked % NEWS == 0:
                yield
        return gone

    def _collapse(self, scope: Scope, gone: int) -> Generator[None, None, int]:
        """How many balances were known to be there, where the listing names none, or of four and more fewer than half.

        0: it is no collapse. `gone`: how many of those it does not name.
        """
        if self._answer.lacking is not None or not gone or not len(self._answer.readings):
            return gone if self._answer.lacking is None else self._answer.lacking
        known = self._emptied - self._appeared  # the answer itself changed what is known
        for looked, (_, _, records) in enumerate(self._shelves.covered(scope), 1):
            known += sum(record.amount not in (None, ABSENT) for record in records)
            if known >= 2 * gone:
                return 0
            if len(records) == SLICE or looked % NEWS == 0:
                yield
        return known if known >= FEW else 0

    def _can_repeat(self) -> bool:
        """Whether the same answer once more would say nothing but that all its scope is as it is."""
        verdict = self.verdict
        doubts = verdict.candidates or verdict.stale or verdict.refused or self._unseen
        return self._alone and not doubts and self._top is None

    def _still_absent(self, shelf: Shelf, account: str, record: Record) -> None:
        if not self.verdict.stale:
            record.seen = self._moment
            record.had = remembered(record.had, self._moment.observed_at, self._answer.settle)
            self._fade(record)
            if self._lags:
                self._lags.pop(shelf.key(account), None)
        self._unseen += record.seen is not self._moment

    def _miss(self, shelf: Shelf, account: str, record: Record, *, fresh: bool, lacking: int) -> None:
        if self.verdict.went_back:  # the chain began anew, for this row too
            record.order = None
        # Where slots are those of each row's last change, the newest row may have been the one that vanished.
        order = greatest(self._top, record.order) if self._top is not None and fresh else self._top
        sight = self._sight(ABSENT, order, absent=True)
        sight = msgspec.structs.replace(sight, lacking=lacking, rows=len(self._answer.readings))
        self._decide(shelf, account, record, sight, None)

    def _weigh(self, shelf: Shelf, key: Key, record: Record | None, reading: Reading) -> None:
        if record is None:
            most = self._answer.most
            if most is not None and self._shelves.count(key.provider) >= most:
                self.verdict.refused += 1
                return
            record = self._first_met(reading)
            self._shelves.add(shelf, key.account, record)
        self._doubtful.add(id(record))
        absent = reading.amount is None
        behind = (
            record.amount == ABSENT
            and self._listing is not None
            and self._listing.top is not None
            and reading.order is not None
            and reading.order < self._listing.top
        )
        sight = self._sight(reading.amount or ABSENT, reading.order, absent=absent, behind=behind)
        self._decide(shelf, key.account, record, sight, reading)

    def _first_met(self, reading: Reading) -> Record:
        """A balance that a complete listing did not name before was nothing; of any other nothing is known."""
        if self._complete and self._listing is not None and reading.amount not in (None, ABSENT):
            return Record(amount=ABSENT, seen=self._listing.seen)
        return Record()

    def _sight(self, amount: str, order: int | None, *, absent: bool, behind: bool = False) -> Sight:
        answer = self._answer
        return Sight(
            amount, order, answer.ordering, answer.settle, answer.sent, self._moment, absent=absent, behind=behind
        )

    def _decide(self, shelf: Shelf, account: str, record: Record, sight: Sight, reading: Reading | None) -> None:
        shelf.changes += 1
        key = shelf.key(account)
        ruling = rule(record, sight)
        if ruling is Ruling.STALE and self._lags.setdefault(key, Lag(sight.moment.received)).over(
            sight.moment.received
        ):
            self.verdict.went_back.add(key)
            record.order = record.candidate = None
            ruling = rule(record, sight)
        if ruling is not Ruling.STALE:
            self._lags.pop(key, None)
        if ruling is Ruling.STALE or ruling is Ruling.OVERTAKEN:
            if reading is not None:
                self.verdict.stale.add(key)
        else:
            self._settle(key, record, sight, ruling, reading)
        if record.candidate is not None:
            self.verdict.candidates.add(key)
            self._doubts[key] = record.candidate
        else:
            self._doubts.pop(key, None)
        self._fade(record)

    def _settle(self, key: Key, record: Record, sight: Sight, ruling: Ruling, reading: Reading | None) -> None:
        if ruling is Ruling.DOUBTED:
            record.candidate = doubted(record.candidate, sight)
            record.had = overheard(record, sight)
        elif ruling is Ruling.SAME:
            self._accept(record, sight)
            record.had = remembered(record.had, self._moment.observed_at, sight.settle)
            if record.candidate is not None:
                record.candidate = after_same(record.candidate, sight)
        else:
            self._tell(key, record, sight, reading)

    def _fade(self, record: Record) -> None:
        if record.had:
            self._fading.append(record)

    def _tell(self, key: Key, record: Record, sight: Sight, reading: Reading | None) -> None:
        draft = self._drafts.put(key, record, sight.amount, self._moment, reading)
        if draft is not None and draft.previous is None:
            self.verdict.baselines += 1
        else:
            self.verdict.changed.add(key)
        self._emptied += record.amount not in (None, ABSENT) and sight.amount == ABSENT
        self._appeared += record.amount in (None, ABSENT) and sight.amount != ABSENT
        if record.unnamed and not sight.absent:
            record.order = sight.order
        record.had = replaced(record, sight)
        record.amount = sight.amount
        record.unslotted = sight.absent and sight.order is None
        record.unnamed = reading is None and sight.order is not None
        record.candidate = None
        if reading is not None:
            record.label = self._shelves.label(reading.unit, reading.decimals, reading.symbol)
        self._accept(record, sight)

    def _accept(self, record: Record, sight: Sight) -> None:
        record.seen = self._moment
        record.order = greatest(record.order, sight.order)
        self.verdict.accepted += 1
