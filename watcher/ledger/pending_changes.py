"""Changes that are accepted and not committed yet."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, MutableMapping
from itertools import chain, islice

import msgspec

from watcher.ledger.record import Arrival, BalanceRecord, text_of
from watcher.model.events import BalanceState, CommitRow, changed
from watcher.model.keys import Key
from watcher.model.readings import Reading
from watcher.model.times import shared_text

SHARED_ROWS = 100
"""Rows of one commit where several providers have changes: a few milliseconds."""


class PendingChange(msgspec.Struct, frozen=True):
    """A change or a baseline that is not committed. Its amount is that of the record."""

    number: int
    """Changes are taken in this order."""
    previous: str | None
    """The committed amount, or the one in flight; None: this is a baseline."""
    since: str | None
    """The last accepted observation of `previous` (RFC 3339)."""
    observed_at: int
    """Wall-clock microseconds."""
    slot: int | None
    as_of: str | None


class ProviderQueues(MutableMapping[Key, PendingChange]):
    """Changes that wait, by key; in a queue for each provider, so that a provider with few does not wait behind one with
    many."""

    def __init__(self) -> None:
        self.of: defaultdict[str, dict[Key, PendingChange]] = defaultdict(dict)
        """By provider, the oldest first."""

    def __getitem__(self, key: Key) -> PendingChange:
        return self.of[key.provider][key]

    def __setitem__(self, key: Key, change: PendingChange) -> None:
        self.of[key.provider][key] = change

    def __delitem__(self, key: Key) -> None:
        del self.of[key.provider][key]

    def __iter__(self) -> Iterator[Key]:
        return chain.from_iterable(self.of.values())

    def __len__(self) -> int:
        return sum(map(len, self.of.values()))


class PendingChanges:
    """What differs from the journal: waiting, or in flight to it."""

    def __init__(self) -> None:
        self.pending = ProviderQueues()
        self.in_flight: dict[Key, tuple[PendingChange, CommitRow]] = {}
        self.number = 0

    def put(
        self, key: Key, record: BalanceRecord, amount: str, arrival: Arrival, reading: Reading | None
    ) -> PendingChange | None:
        """`amount` is about to replace what the record holds. None: that takes the pending change back."""
        slot, as_of = (None, None) if reading is None else (reading.slot, reading.as_of)
        pending, now = self.pending.of[key.provider], arrival.observed_at
        former = pending.get(key)
        if former is None:
            self.number += 1
            change = PendingChange(self.number, record.amount, text_of(record.last_seen), now, slot, as_of)
        elif former.previous == amount:
            del pending[key]
            return None
        else:
            change = PendingChange(former.number, former.previous, former.since, now, slot, as_of)
        pending[key] = change
        return change

    @property
    def shared(self) -> bool:
        """Changes of several providers have come here."""
        return len(self.pending.of) > 1

    def first(self) -> int:
        """The number of the first change that waits."""
        first = (next(iter(pending.values())).number for pending in self.pending.of.values() if pending)
        return min(first, default=self.number + 1)

    def take(self, limit: int, but: Collection[str] = ()) -> list[tuple[Key, PendingChange]]:
        """So many at most, the oldest of each provider, and of each as many as of any other that has as many.
        Of the providers in `but` none.

        Where there are several providers each gets only a part of a commit, because the next changes of the others wait for its end.
        """
        limit = min(limit, SHARED_ROWS) if self.shared else limit
        queues = sorted((queue for name, queue in self.pending.of.items() if queue and name not in but), key=len)
        taken: list[tuple[Key, PendingChange]] = []
        for number, pending in enumerate(queues):
            share = -(-(limit - len(taken)) // (len(queues) - number))
            taken += [(key, pending.pop(key)) for key in list(islice(pending, share))]
        return taken

    def agrees_with(self, key: Key, record: BalanceRecord, state: BalanceState) -> bool:
        """Whether the journal's state is what memory takes for committed, or what was in flight; that is settled."""
        committing, row = self.in_flight.get(key, (None, None))
        if row is not None and (row.state.version, row.state.amount) == (state.version, state.amount):
            del self.in_flight[key]
            return True
        change = committing or self.pending.get(key)
        return (record.version, record.amount if change is None else change.previous) == (state.version, state.amount)

    def committed_amount(self, key: Key, record: BalanceRecord) -> str | None:
        """None: nothing of the key is committed."""
        change = self.in_flight[key][0] if key in self.in_flight else self.pending.of[key.provider].get(key)
        return record.amount if change is None else change.previous

    def since(self, provider: str) -> Iterator[tuple[Key, str]]:
        """Of each balance of which another amount is committed than the record's: when that one was last seen (RFC 3339). A
        later one of a key counts."""
        for key, change in self.pending.of[provider].items():
            if change.since is not None:
                yield key, change.since
        for key, (change, _) in self.in_flight.items():
            if key.provider == provider and change.since is not None:
                yield key, change.since

    def forget(self, key: Key) -> None:
        self.in_flight.pop(key, None)
        self.pending.pop(key, None)

    def return_in_flight(self, find: Callable[[Key], BalanceRecord | None]) -> None:
        """What is still in flight was not committed: it pends again, or what replaced it does."""
        for key, (committing, _) in self.in_flight.items():
            pending = self.pending.of[key.provider]
            newer = pending.pop(key, None)
            record = find(key)
            if newer is None:
                pending[key] = committing
            elif record is not None and record.amount != committing.previous:
                pending[key] = msgspec.structs.replace(
                    newer, number=committing.number, previous=committing.previous, since=committing.since
                )
        self.in_flight = {}
        for provider, pending in self.pending.of.items():
            known = [(key, change) for key, change in pending.items() if find(key) is not None]
            self.pending.of[provider] = dict(sorted(known, key=lambda each: each[1].number))


def commit_row(epoch: str, key: Key, change: PendingChange, record: BalanceRecord) -> CommitRow:
    """The change as it is committed to the log `epoch`. Nothing is in flight, so the record's version is the committed one."""
    assert record.amount is not None
    assert record.denomination is not None
    observed_at = shared_text(change.observed_at)
    # A wall clock that was set back must not make a change end before it began.
    since = min(change.since or observed_at, observed_at)
    state = BalanceState(
        provider=key.provider,
        chain=key.chain,
        account=key.account,
        token=key.token,
        kind=key.kind,
        symbol=record.denomination.symbol,
        version=0 if change.previous is None else max(record.version, 0) + 1,
        amount=record.amount,
        unit=record.denomination.unit,
        decimals=record.denomination.decimals,
        slot=change.slot,
        as_of=change.as_of,
        observed_at=observed_at,
        order=record.order,
        recent_amounts=record.recent_amounts,
        absent_without_order=record.absent_without_order,
        first_observed_at=None if change.previous is None else _first_observed_at(record, since),
    )
    if change.previous is None:
        return CommitRow(state)
    return CommitRow(state, changed(epoch, state, change.previous, since))


def _first_observed_at(record: BalanceRecord, since: str) -> str | None:
    """RFC 3339. `since`: the last time that the amount before was seen."""
    if record.first_observed_at is not None:
        return shared_text(record.first_observed_at)
    return since if record.version < 0 else None  # the first that is committed of it is a change from nothing
