"""One partition's memory of balances: answers in, rows to commit out.

Each reading is judged on arrival, in order, against the newest accepted amount of its key, committed or not, by the
rules in `rules.py`. What differs from the committed amount pends until it is taken; what is taken is in flight until
`committed`, or until `restore` says what became of it. Nothing here waits or reads a clock.
"""

from collections.abc import Collection, Generator, Iterable, Mapping

from watcher.ledger.bulk_comparison import Comparison
from watcher.ledger.evaluation import FEW, Hearing, Unsettled, Verdict
from watcher.ledger.listings import Listings
from watcher.ledger.pending_changes import Drafts, row_of
from watcher.ledger.rules import ABSENT, Moment, Record
from watcher.ledger.store import Shelves
from watcher.model.amounts import symbol
from watcher.model.bulk_listing import Columns
from watcher.model.events import BalanceState, Row
from watcher.model.keys import Key, Scope
from watcher.model.readings import Answer

__all__ = ["FEW", "Ledger", "Verdict"]


class Ledger:
    """One partition. `restore`, then `judge` answers as they arrive, `take` rows and say when they are `committed`."""

    def __init__(self) -> None:
        self._shelves = Shelves()
        self._listings = Listings()
        self._drafts = Drafts()
        self._unsettled = Unsettled()
        self._count = 0
        self._epoch = ""
        """The log's; `restore` tells it."""

    def __len__(self) -> int:
        """Balances committed."""
        return self._count

    @property
    def pending(self) -> int:
        """Rows that wait to be taken."""
        return len(self._drafts.pending)

    def waiting(self, provider: str) -> int:
        """Those of one provider."""
        return len(self._drafts.pending.of[provider])

    def backlogs(self) -> set[str]:
        """Providers of which rows wait."""
        return {provider for provider, queue in self._drafts.pending.of.items() if queue}

    @property
    def shared(self) -> bool:
        """Several providers have told something."""
        return self._drafts.shared

    @property
    def idle(self) -> bool:
        """There is nothing to take, not even a note."""
        return not self._drafts.pending and not self._listings.unsaved

    def doubted_since(self, provider: str) -> float | None:
        """Monotonic seconds: since when the oldest open doubt about a balance of the provider lasts; None: no doubt."""
        doubts = self._unsettled.doubts[provider].values()
        return min((candidate.since for candidate in doubts), default=None)

    def behind_since(self, provider: str) -> float | None:
        """Monotonic seconds: since when all is older that comes for a balance of the provider; None: for none of them."""
        lags = self._unsettled.lags[provider].values()
        return min((lag.since for lag in lags), default=None)

    def get(self, key: Key) -> Record | None:
        """What is known of the key; `version` -1 says that nothing of it is committed. Not to be changed."""
        return self._shelves.find(key)

    def known(self, provider: str) -> int:
        """How many balances of the provider are known of, in any way."""
        return self._shelves.count(provider)

    def standing(self, scope: Scope) -> Generator[None, None, int]:
        """How many balances in the scope are known to be above zero."""
        count = 0
        for _, _, records in self._shelves.covered(scope):
            count += sum(record.amount not in (None, ABSENT) for record in records)
            yield
        return count

    def accounts(self, provider: str, chain: str, token: str) -> Mapping[str, Record]:
        """What is known of one token, by account. Not to be changed."""
        shelf = self._shelves.get(provider, chain, token, "total")
        return {} if shelf is None else shelf.records

    def compare(self, columns: Columns) -> Generator[None, None, None]:
        """Only try whether a listing can be understood: raises what `slices` would, and no word of it was said.

        One that was compared does not fail when it is judged, whatever becomes known in between.
        """
        return Comparison(self._shelves, columns).compare()

    def judge(self, answer: Answer) -> Verdict:
        """What the answer means, in one go."""
        slices = self.slices(answer)
        while True:
            try:
                next(slices)
            except StopIteration as end:
                verdict: Verdict = end.value
                return verdict

    def slices(self, answer: Answer) -> Generator[None, None, Verdict]:
        """The same, `SLICE` readings at a time. Other answers may be judged and rows taken between two slices.

        A `restore` in between ends it: the rest of the answer is not heard, and so proves nothing.
        """
        shelves = self._shelves
        listing = None if answer.listing is None else self._listings.of(answer.listing)
        hearing = Hearing(shelves, self._drafts, self._unsettled, answer, listing)
        for _ in hearing.whole():
            yield
            if self._shelves is not shelves:
                return hearing.verdict
        if answer.listing is not None and hearing.verdict.refused:
            self._listings.restart(answer.listing)
        elif answer.listing is not None and not answer.partial:
            self._listings.count(answer.listing, behind=self._drafts.number)
        return hearing.verdict

    def repeats(self, answer: Answer) -> Verdict | None:
        """What a listing means that repeats, by its fingerprint, the one heard last. None: it must be heard whole.

        That is so whenever anything in its scope is doubted, or was spoken of by another answer meanwhile. Costs
        nothing for each balance: what one answer saw shares one moment.
        """
        if answer.listing is None:
            return None
        listing = self._listings.of(answer.listing)
        if not listing.repeated_by(answer):
            return None
        if any(shelf.heard is not listing.seen for shelf in self._shelves.within(answer.listing)):
            return None
        listing.again(Moment(answer.received, answer.observed_at), answer.settle)
        return Verdict(accepted=listing.rows)

    def take(self, limit: int = 1000, but: Collection[str] = ()) -> tuple[list[Row], dict[str, bytes]]:
        """Rows to commit now, of each provider the oldest, and the notes of listings whose baselines are all in them or before.

        Of the providers in `but` no rows.
        """
        drafts = self._drafts
        assert not drafts.flight, "the rows taken before are still in flight"
        for key, draft in drafts.take(limit, but):
            drafts.flight[key] = (draft, row_of(self._epoch, key, draft, self._known(key)))
        return [row for _, row in drafts.flight.values()], self._listings.take(drafts.first())

    def committed(self) -> None:
        """What was taken is in the journal."""
        for key, (_, row) in self._drafts.flight.items():
            record = self._known(key)
            self._count += record.version < 0
            record.version = row.state.version
        self._drafts.flight = {}
        self._listings.committed()

    def rejected(self, keys: Collection[Key]) -> None:
        """What was taken is not in the journal, and of these keys it will not be: memory goes back to what is committed.
        The rest pends again. One that was to be a baseline is unknown again, and with it what its listings leave out.
        """
        for key in keys:
            draft = self._drafts.flight[key][0]
            self._drafts.forget(key)
            record = self._known(key)
            record.candidate, record.had = None, ()
            if draft.previous is None:
                record.amount, record.seen, record.order, record.label = None, None, None, None
                self._listings.restart_covering(key)
            else:
                record.amount, record.seen = draft.previous, draft.since
            record.unslotted = record.unnamed = False
            self._unsettled.doubts[key.provider].pop(key, None)
        self._drafts.reopen(self._shelves)
        self._listings.returned()

    def restore(self, restored_states: Iterable[BalanceState], notes: Mapping[str, bytes], epoch: str) -> None:
        """Start from what the journal, the log `epoch`, holds; or, after a commit of unknown outcome, find out what became of it.

        What was in flight is settled if the journal has it, and pends again if not. Of orders memory knows the greatest.
        """
        former, self._shelves, self._count = self._shelves, Shelves(), 0
        self._epoch = epoch
        for state in restored_states:
            shelf = self._shelves.shelf(state.provider, state.chain, state.token, state.kind)
            record = self._carried(former, state) if former else None
            self._shelves.add(shelf, state.account, record or self._restored(state))
            self._count += 1
        for shelf, account, record in former:
            here = self._shelves.shelf(shelf.provider, shelf.chain, shelf.token, shelf.kind)
            if record.version < 0 and account not in here.records:
                self._shelves.add(here, account, record)
        self._drafts.reopen(self._shelves)
        self._unsettled.keep(self._shelves)
        self._listings.restore(notes)

    def _restored(self, state: BalanceState) -> Record:
        label = self._shelves.label(state.unit, state.decimals, symbol(state.symbol))
        unnamed = state.amount == ABSENT and not (state.slot or state.as_of) and state.order is not None
        seen = state.observed_at
        return Record(state.amount, state.version, state.order, seen, state.had, label, state.unslotted, unnamed)

    def _carried(self, former: Shelves, state: BalanceState) -> Record | None:
        """The record in memory, if the journal agrees with it; None: start from the journal's."""
        key = state.key
        record = former.find(key)
        if record is None:
            return None
        if not self._drafts.agrees(key, record, state):
            self._drafts.forget(key)
            return None
        record.version = state.version
        return record

    def _known(self, key: Key) -> Record:
        record = self._shelves.find(key)
        assert record is not None, f"a draft without a record: {key}"
        return record
