"""One partition's memory of balances: answers in, rows to commit out.

Each reading is evaluated on arrival, in order, against the newest accepted amount of its key, committed or not, by the
rules in `rules.py`. What differs from the committed amount pends until it is taken; what is taken is in flight until
`committed`, or until `restore` says what became of it. Nothing here waits or reads a clock.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence

import msgspec

from watcher.ledger.alert_judge import AlertJudge
from watcher.ledger.evaluation import Evaluation, Verdict
from watcher.ledger.last_seen import seen_note
from watcher.ledger.listings import Listings
from watcher.ledger.pending_changes import commit_row
from watcher.ledger.record import Arrival, BalanceRecord, first_observed_at
from watcher.ledger.rules import ABSENT
from watcher.ledger.store import Store
from watcher.ledger.to_judge import ToJudge
from watcher.model.alert_index import AlertIndex
from watcher.model.alerts import Crossing
from watcher.model.amounts import symbol
from watcher.model.events import BalanceState, CommitRow
from watcher.model.keys import Key, Scope
from watcher.model.last_seen import LastSeen, encode
from watcher.model.readings import Answer

__all__ = ["Ledger", "Taken", "Verdict"]
JUDGED_AT_ONCE = 50
"""Balances between two turns of others."""


class Taken(msgspec.Struct, frozen=True):
    """What is to be committed now, in one transaction."""

    rows: Sequence[CommitRow] = ()
    notes: Mapping[str, bytes] = {}
    """Of listings and of alerts."""
    crossings: Sequence[Crossing] = ()
    judged: Mapping[str, Key] = {}
    """The name of each note of an alert → the balance that it is of, which needs no row."""

    def __bool__(self) -> bool:
        return bool(self.rows or self.notes)

    @property
    def keys(self) -> list[Key]:
        """Of all balances in it, each once."""
        return list(dict.fromkeys([*(row.state.key for row in self.rows), *self.judged.values()]))


class Ledger:
    """One partition. `restore`, then `evaluate` answers as they arrive, `take` rows and say when they are `committed`."""

    def __init__(self) -> None:
        self._store = Store()
        self._listings = Listings()
        self._alerts = AlertJudge()
        self._to_judge = ToJudge()
        self._count = 0
        self._epoch = ""
        """The log's; `restore` sets it."""

    def __len__(self) -> int:
        """Balances committed."""
        return self._count

    @property
    def pending(self) -> int:
        """Rows that wait to be taken."""
        return len(self._store.pending_changes.pending)

    def waiting(self, provider: str) -> int:
        """Those of one provider."""
        return len(self._store.pending_changes.pending.of[provider])

    def backlogs(self) -> set[str]:
        """Providers of which rows wait."""
        return {provider for provider, queue in self._store.pending_changes.pending.of.items() if queue}

    @property
    def shared(self) -> bool:
        """Changes of several providers have come here."""
        return self._store.pending_changes.shared

    @property
    def idle(self) -> bool:
        """There is nothing to take, not even a note."""
        return not self._store.pending_changes.pending and not self._listings.unsaved and not self._to_judge.looking

    @property
    def looking(self) -> bool:
        """Alerts may have to be judged anew on balances that were read: `take` finds out."""
        return self._to_judge.looking

    @property
    def fired(self) -> Mapping[str, int]:
        """Alert → balances on which it has fired, as committed; without those on which none has."""
        return self._alerts.fired

    def candidate_since(self, provider: str) -> float | None:
        """Monotonic seconds: since when the oldest open candidate of a balance of the provider waits; None: there is none."""
        open_candidates = self._store.open_candidates[provider].values()
        return min((candidate.since for candidate in open_candidates), default=None)

    def stale_since(self, provider: str) -> float | None:
        """Monotonic seconds: since when all is older that comes for a balance of the provider; None: for none of them."""
        stale_streaks = self._store.stale_streaks[provider].values()
        return min((streak.since for streak in stale_streaks), default=None)

    def get(self, key: Key) -> BalanceRecord | None:
        """What is known of the key; `version` -1 says that nothing of it is committed. Not to be changed."""
        return self._store.find(key)

    def known_keys(self) -> Iterator[Key]:
        """Of all balances that are known of. Others may become known meanwhile."""
        return self._store.keys()

    def known(self, provider: str) -> int:
        """How many balances of the provider are known of, in any way."""
        return self._store.count(provider)

    def providers(self) -> set[str]:
        """Those of which balances are known of, in any way."""
        return self._store.providers()

    def tokens(self, scope: Scope) -> list[str]:
        """Those of the balances that are known of within it, sorted."""
        return sorted({group.token for group in self._store.within(scope)})

    def seen_note(self, provider: str, at: int) -> Generator[None, None, bytes | None]:
        """When each of its balances was last seen to be what is committed, as a note; None: that cannot be told now.

        at: wall-clock microseconds: all that came before has been evaluated.
        """
        store = self._store
        note = yield from seen_note(store, provider, at)
        return None if note is None or self._store is not store else encode(note)

    def evaluate(self, answer: Answer) -> Verdict:
        """What the answer means, in one go."""
        evaluating = self.evaluating(answer)
        while True:
            try:
                next(evaluating)
            except StopIteration as end:
                verdict: Verdict = end.value
                return verdict

    def evaluating(self, answer: Answer) -> Generator[None, None, Verdict]:
        """The same, `CHANGED_ROWS` readings at a time. Other answers may be evaluated and rows taken between two slices.

        A `restore` in between ends it: the rest of the answer is not evaluated, and so proves nothing.
        """
        store = self._store
        listing = None if answer.listing is None else self._listings.of(answer.listing)
        evaluation = Evaluation(store, answer, listing)
        for _ in evaluation.run():
            yield
            if self._store is not store:
                return evaluation.verdict
        if answer.listing is not None and evaluation.verdict.refused:
            self._listings.restart(answer.listing)
        elif answer.listing is not None and not answer.partial:
            self._listings.count(answer.listing, behind=self._store.pending_changes.number)
        self._to_judge.answered(answer.provider)
        return evaluation.verdict

    def repeats(self, answer: Answer) -> Verdict | None:
        """The verdict on a listing that repeats the last one, by its fingerprint. None: it must be evaluated as a whole.

        That is so whenever its scope has an open candidate, or another answer named one of its balances meanwhile. It costs
        nothing for each balance: all that one answer saw shares one arrival.
        """
        if answer.listing is None:
            return None
        listing = self._listings.of(answer.listing)
        if not listing.is_repeated_by(answer):
            return None
        if any(group.last_answer is not listing.last_seen for group in self._store.within(answer.listing)):
            return None
        listing.repeat(Arrival(answer.times.received, answer.times.observed_at), answer.settle)
        self._to_judge.answered(answer.provider)
        return Verdict(accepted=listing.rows)

    def take(self, limit: int = 1000, but: Collection[str] = ()) -> Taken:
        """Rows to commit now, of each provider the oldest, and the notes of listings whose baselines are all in them or before;
        with what both mean for the alerts. Of the providers in `but` nothing of that.
        """
        pending_changes = self._store.pending_changes
        assert not pending_changes.in_flight, "the rows taken before are still in flight"
        if self._to_judge.looking:
            limit -= self._judge_anew(max(1, limit // 2), but)
        for key, change in pending_changes.take(limit, but):
            pending_changes.in_flight[key] = (change, commit_row(self._epoch, key, change, self._known(key)))
        rows, notes = (
            [row for _, row in pending_changes.in_flight.values()],
            self._listings.take(pending_changes.first()),
        )
        alerts = self._alerts
        if not alerts.active:
            return Taken(rows, notes)
        for key, row in zip(pending_changes.in_flight, rows, strict=True):
            alerts.judge(self._epoch, key, row.state, row.event)
        if not alerts.in_flight:
            return Taken(rows, notes)
        return Taken(rows, notes | alerts.notes(), alerts.crossings(), alerts.judged())

    def _judge_anew(self, limit: int, but: Collection[str]) -> int:
        """Balances of which no change waits, at their committed amount. How many of them made something, `limit` at most."""
        alerts = self._alerts
        for key, record, seen in self._to_judge.take(self._store, but):
            alerts.judge_anew(self._epoch, key, record, seen)
            if key not in alerts.in_flight:
                self._to_judge.judged([key])
            elif len(alerts.in_flight) == limit:
                break
        return len(alerts.in_flight)

    def committed(self) -> None:
        """What was taken is in the journal."""
        pending = self._store.pending_changes
        for key, (_, row) in pending.in_flight.items():
            self._count += self._store.mark_committed(key, row.state)
        if self._to_judge:
            self._to_judge.judged([*pending.in_flight, *self._alerts.in_flight])
        pending.in_flight = {}
        self._listings.committed()
        if self._alerts.in_flight:
            self._alerts.committed()

    def rejected(self, keys: Collection[Key]) -> None:
        """What was taken is not in the journal, and of these keys it will not be: memory goes back to what is committed.
        The rest pends again. One that was to be a baseline is unknown again, and with it what its listings leave out.

        One that was judged anew, without a row, is so again after the next answer.
        """
        in_flight = self._store.pending_changes.in_flight
        for key in keys:
            if key not in in_flight:
                continue
            self._listings.forget_answers_on(key)
            if self._store.take_back(key, in_flight[key][0]):
                self._listings.restart_covering(key)
        self._to_judge.not_judged(self._alerts.in_flight, put_off=keys)
        self._alerts.not_committed()
        self._store.pending_changes.return_in_flight(self._store.find)
        self._listings.not_committed()

    def use_alerts(self, index: AlertIndex, now: float) -> None:
        """Judge by these from now on (monotonic seconds). The edit itself makes no crossing: `find_to_judge` finds where the
        next accepted reading does."""
        self._alerts.use(index)
        self._to_judge.restart(now)

    def find_to_judge(self) -> Generator[None, None, None]:
        """Look through all balances for those whose committed amount would make a crossing; after `restore` and `use_alerts`.

        Another one of those ends it: it is then to be begun anew. Answers and commits may come between two steps.
        """
        store, index, pending = self._store, self._alerts.index, self._store.pending_changes
        for number, key in enumerate(store.keys() if index else ()):
            if number % JUDGED_AT_ONCE == 0:
                yield
                if self._store is not store or self._alerts.index is not index:
                    return
            record = store.find(key)
            if record is None or record.version < 0 or record.denomination is None:
                continue
            amount = pending.committed_amount(key, record)
            if amount is not None and self._alerts.would_cross(key, record.denomination.unit, amount):
                self._to_judge.add(key)

    def forget_undecided(self, provider: str, read: Callable[[Key], bool]) -> None:
        """The provider's watches are others now. `read`: whether one of them reads the key."""
        self._store.forget_undecided(provider, read)

    def restore(self, restored_states: Iterable[BalanceState], notes: Mapping[str, bytes], epoch: str) -> None:
        """Start from what the journal, the log `epoch`, holds; or, after a commit of unknown outcome, find out what became of it.

        What was in flight is settled if the journal has it, and pends again if not. Of orders memory knows the greatest.
        """
        former, self._store, self._count = self._store, Store(), 0
        self._epoch = epoch
        seen = LastSeen(notes)
        for state in restored_states:
            group = self._store.group(state.provider, state.chain, state.token, state.kind)
            record = former.carried(state) if former else None
            self._store.add(group, state.account, record or self._restored(state, seen))
            self._count += 1
        for group, account, record in former:
            here = self._store.group(group.provider, group.chain, group.token, group.kind)
            if record.version < 0 and account not in here.records:
                self._store.add(here, account, record)
        self._store.succeed(former)
        self._listings.restore(notes)
        self._alerts.restore(notes)
        self._to_judge.restart()

    def _restored(self, state: BalanceState, seen: LastSeen) -> BalanceRecord:
        denomination = self._store.denomination(state.unit, state.decimals, symbol(state.symbol))
        absent_by_listing = state.amount == ABSENT and not (state.slot or state.as_of) and state.order is not None
        last_seen = seen.text(state)
        return BalanceRecord(
            state.amount,
            state.version,
            state.order,
            last_seen,
            state.recent_amounts,
            denomination,
            state.absent_without_order,
            absent_by_listing,
            first_observed_at=first_observed_at(state),
        )

    def _known(self, key: Key) -> BalanceRecord:
        record = self._store.find(key)
        assert record is not None, f"a change without a record: {key}"
        return record
