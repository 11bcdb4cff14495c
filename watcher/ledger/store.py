"""Where the records stand: found by key, or by the scope of a listing without looking at the others."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import islice

from watcher.ledger.rules import Label, Moment, Record
from watcher.model.bulk_listing import SLICE, look_through
from watcher.model.keys import Key, Kind, Scope
from watcher.model.readings import Unit
from watcher.redaction.redactor import HIDDEN

LABELS = 10_000
"""That are shared; far more than there are tokens."""


class Shelf:
    """All balances of one token (and kind) on one chain, by account."""

    __slots__ = ("_paged", "_pages", "chain", "changes", "heard", "kind", "provider", "records", "token")

    def __init__(self, provider: str, chain: str, token: str, kind: Kind) -> None:
        self.provider = provider
        self.chain = chain
        self.token = token
        self.kind: Kind = kind
        self.records: dict[str, Record] = {}
        self.changes = 0
        """Grows with whatever is decided on a balance here, beyond that it was seen."""
        self.heard: Moment | None = None
        """The last answer that said anything of a balance here, by its moment."""
        self._pages: list[tuple[tuple[str, ...], tuple[Record, ...]]] = []
        self._paged = 0
        """How many records are in there."""

    def pages(self) -> list[tuple[tuple[str, ...], tuple[Record, ...]]]:
        """Accounts and their records, `SLICE` at a time, in the order in which they came; not to be changed.

        Kept, because to look a hundred thousand records up, or merely to copy a list of them, misses every cache; in
        tuples, because the collector looks through a list of them each time and through such a tuple only once.
        """
        if self._paged < len(self.records):
            del self._pages[self._paged // SLICE :]
            accounts = islice(self.records, len(self._pages) * SLICE, None)
            rows = islice(self.records.values(), len(self._pages) * SLICE, None)
            while page := tuple(islice(accounts, SLICE)):
                self._pages.append((page, tuple(islice(rows, SLICE))))
                look_through()
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


class Shelves:
    """Every record, found by key or by the scope of a listing without looking at the others."""

    def __init__(self) -> None:
        self._shelves: dict[tuple[str, str, str, str], Shelf] = {}
        self._accounts: dict[str, dict[str, list[Shelf]]] = {}
        """provider → account → where it stands; made for providers whose accounts are listed."""
        self._labels: dict[tuple[Unit, int | None, str | None], Label] = {}
        self._counts: Counter[str] = Counter()
        """Records by provider."""

    def __bool__(self) -> bool:
        return bool(self._shelves)

    def __iter__(self) -> Iterator[tuple[Shelf, str, Record]]:
        return (
            (shelf, account, record) for shelf in self._shelves.values() for account, record in shelf.records.items()
        )

    def get(self, provider: str, chain: str, token: str, kind: Kind) -> Shelf | None:
        return self._shelves.get((provider, chain, token, kind))

    def shelf(self, provider: str, chain: str, token: str, kind: Kind) -> Shelf:
        """Where balances of that token stand, or would: it is kept from its first record on, and not for a mere name."""
        return self._shelves.get((provider, chain, token, kind)) or Shelf(provider, chain, token, kind)

    def count(self, provider: str) -> int:
        """How many of its balances are known of, in any way."""
        return self._counts[provider]

    def of(self, key: Key) -> Shelf:
        return self.shelf(key.provider, key.chain, key.token, key.kind)

    def find(self, key: Key) -> Record | None:
        found = self.get(key.provider, key.chain, key.token, key.kind)
        return None if found is None else found.records.get(key.account)

    def add(self, shelf: Shelf, account: str, record: Record) -> None:
        assert account not in shelf.records, f"met before: {shelf.key(account)}"
        if not shelf.records:
            place = (shelf.provider, shelf.chain, shelf.token, shelf.kind)
            assert self._shelves.setdefault(place, shelf) is shelf, f"two shelves of one token: {place}"
        shelf.records[account] = record
        self._counts[shelf.provider] += 1
        accounts = self._accounts.get(shelf.provider)
        if accounts is not None:
            accounts.setdefault(account, []).append(shelf)

    def label(self, unit: Unit, decimals: int | None, symbol: str | None) -> Label:
        """One object for all balances that are labelled alike. A symbol is somebody's free text: it may repeat a key."""
        found = self._labels.get((unit, decimals, symbol))
        if found is None:
            if len(self._labels) >= LABELS:  # somebody calls a balance something else each time
                self._labels.clear()
            shown = None if symbol is None else HIDDEN.shown(symbol)
            found = self._labels[unit, decimals, symbol] = Label(unit, decimals, shown)
        return found

    def within(self, scope: Scope) -> list[Shelf]:
        """Where balances stand of which a listing of the scope speaks."""
        shelves = (
            self._shelves.values() if scope.account is None else self._listed(scope.provider).get(scope.account, ())
        )
        return [shelf for shelf in shelves if shelf.within(scope)]

    def covered(
        self, scope: Scope, but: Collection[Shelf] = ()
    ) -> Iterator[tuple[Shelf, Sequence[str], Sequence[Record]]]:
        """What a complete listing of the scope speaks for: accounts of one shelf and their records, `SLICE` at a time.

        Shelves in `but` are left out; what comes to a shelf meanwhile may be.
        """
        if scope.account is not None:
            for shelf in self.within(scope):
                yield shelf, [scope.account], [shelf.records[scope.account]]
            return
        for shelf in self.within(scope):
            for accounts, records in () if shelf in but else list(shelf.pages()):
                yield shelf, accounts, records

    def _listed(self, provider: str) -> dict[str, list[Shelf]]:
        accounts = self._accounts.get(provider)
        if accounts is None:
            accounts = self._accounts[provider] = {}
            for shelf in self._shelves.values():
                if shelf.provider == provider:
                    for account in shelf.records:
                        accounts.setdefault(account, []).append(shelf)
        return accounts
