"""What was told and is not committed yet."""

from collections import defaultdict
from collections.abc import Collection, Iterator, MutableMapping
from itertools import chain, islice

import msgspec

from watcher.ledger.rules import Moment, Record, text_of
from watcher.ledger.store import Shelves
from watcher.model.events import BalanceState, Row, changed
from watcher.model.keys import Key
from watcher.model.readings import Reading
from watcher.model.times import rfc3339

SHARED = 100
"""Rows of one commit where several providers tell changes: a few milliseconds."""


class Draft(msgspec.Struct, frozen=True):
    """A change or a baseline that is not committed. Its amount is that of the record."""

    number: int
    """Drafts are taken in this order."""
    previous: str | None
    """The committed amount, or the one in flight; None: this is a baseline."""
    since: str | None
    """The last accepted sight of `previous` (RFC 3339)."""
    observed_at: int
    """Wall-clock microseconds."""
    slot: int | None
    as_of: str | None


class Queues(MutableMapping[Key, Draft]):
    """Drafts that wait, by key; in a queue for each provider, so that whoever tells little does not wait behind one that
    tells much."""

    def __init__(self) -> None:
        self.of: defaultdict[str, dict[Key, Draft]] = defaultdict(dict)
        """By provider, the oldest first."""

    def __getitem__(self, key: Key) -> Draft:
        return self.of[key.provider][key]

    def __setitem__(self, key: Key, draft: Draft) -> None:
        self.of[key.provider][key] = draft

    def __delitem__(self, key: Key) -> None:
        del self.of[key.provider][key]

    def __iter__(self) -> Iterator[Key]:
        return chain.from_iterable(self.of.values())

    def __len__(self) -> int:
        return sum(map(len, self.of.values()))


class Drafts:
    """What differs from the journal: waiting, or in flight to it."""

    def __init__(self) -> None:
        self.pending = Queues()
        self.flight: dict[Key, tuple[Draft, Row]] = {}
        self.number = 0

    def put(self, key: Key, record: Record, amount: str, moment: Moment, reading: Reading | None) -> Draft | None:
        """`amount` is about to replace what the record holds. None: that takes the pending change back."""
        slot, as_of = (None, None) if reading is None else (reading.slot, reading.as_of)
        pending, now = self.pending.of[key.provider], moment.observed_at
        former = pending.get(key)
        if former is None:
            self.number += 1
            draft = Draft(self.number, record.amount, text_of(record.seen), now, slot, as_of)
        elif former.previous == amount:
            del pending[key]
            return None
        else:
            draft = Draft(former.number, former.previous, former.since, now, slot, as_of)
        pending[key] = draft
        return draft

    @property
    def shared(self) -> bool:
        """Several providers have told something."""
        return len(self.pending.of) > 1

    def first(self) -> int:
        """The number of the first draft that waits."""
        first = (next(iter(pending.values())).number for pending in self.pending.of.values() if pending)
        return min(first, default=self.number + 1)

    def take(self, limit: int, but: Collection[str] = ()) -> list[tuple[Key, Draft]]:
        """So many at most, the oldest of each provider, and of each as many as of any other that has as many.
        Of the providers in `but` none.

        Where there are several providers each gets a part of a commit only: what the others tell next waits for its end.
        """
        limit = min(limit, SHARED) if self.shared else limit
        queues = sorted((queue for name, queue in self.pending.of.items() if queue and name not in but), key=len)
        taken: list[tuple[Key, Draft]] = []
        for number, pending in enumerate(queues):
            share = -(-(limit - len(taken)) // (len(queues) - number))
            taken += [(key, pending.pop(key)) for key in list(islice(pending, share))]
        return taken

    def agrees(self, key: Key, record: Record, state: BalanceState) -> bool:
        """Whether the journal's state is what memory takes for committed, or what was in flight; that is settled."""
        flown, row = self.flight.get(key, (None, None))
        if row is not None and (row.state.version, row.state.amount) == (state.version, state.amount):
            del self.flight[key]
            return True
        draft = flown or self.pending.get(key)
        return (record.version, record.amount if draft is None else draft.previous) == (state.version, state.amount)

    def forget(self, key: Key) -> None:
        self.flight.pop(key, None)
        self.pending.pop(key, None)

    def reopen(self, shelves: Shelves) -> None:
        """What is still in flight was not committed: it pends again, or what replaced it does."""
        for key, (flown, _) in self.flight.items():
            pending = self.pending.of[key.provider]
            newer = pending.pop(key, None)
            record = shelves.find(key)
            if newer is None:
                pending[key] = flown
            elif record is not None and record.amount != flown.previous:
                pending[key] = msgspec.structs.replace(
                    newer, number=flown.number, previous=flown.previous, since=flown.since
                )
        self.flight = {}
        for provider, pending in self.pending.of.items():
            known = [(key, draft) for key, draft in pending.items() if shelves.find(key) is not None]
            self.pending.of[provider] = dict(sorted(known, key=lambda each: each[1].number))


def row_of(epoch: str, key: Key, draft: Draft, record: Record) -> Row:
    """The draft as it is committed to the log `epoch`. Nothing is in flight, so the record's version is the committed one."""
    assert record.amount is not None
    assert record.label is not None
    observed_at = rfc3339(draft.observed_at)
    state = BalanceState(
        provider=key.provider,
        chain=key.chain,
        account=key.account,
        token=key.token,
        kind=key.kind,
        symbol=record.label.symbol,
        version=0 if draft.previous is None else max(record.version, 0) + 1,
        amount=record.amount,
        unit=record.label.unit,
        decimals=record.label.decimals,
        slot=draft.slot,
        as_of=draft.as_of,
        observed_at=observed_at,
        order=record.order,
        had=record.had,
        unslotted=record.unslotted,
    )
    if draft.previous is None:
        return Row(state)
    # A wall clock that was set back must not make a change end before it began.
    since = min(draft.since or observed_at, observed_at)
    return Row(state, changed(epoch, state, draft.previous, since))
