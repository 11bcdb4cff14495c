"""Where the records stand: found by key, or by the scope of a listing without looking at the others."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import islice

from watcher.ledger.rules import Arrival, BalanceRecord, Denomination
from watcher.model.bulk_listing import PAGE_ROWS, collect_young
from watcher.model.keys import Key, Kind, Scope
from watcher.model.readings import Unit
from watcher.redaction.redactor import SECRETS

MOST_DENOMINATIONS = 10_000
"""That are shared; far more than there are tokens."""


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
        """The last answer that said anything of a balance here, by its moment."""
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


class Store:
    """Every record, found by key or by the scope of a listing without looking at the others."""

    def __init__(self) -> None:
        self._store: dict[tuple[str, str, str, str], TokenGroup] = {}
        self._accounts: dict[str, dict[str, list[TokenGroup]]] = {}
        """provider → account → where it stands; made for providers whose accounts are listed."""
        self._labels: dict[tuple[Unit, int | None, str | None], Denomination] = {}
        self._counts: Counter[str] = Counter()
        """Records by provider."""

    def __bool__(self) -> bool:
        return bool(self._store)

    def __iter__(self) -> Iterator[tuple[TokenGroup, str, BalanceRecord]]:
        return ((group, account, record) for group in self._store.values() for account, record in group.records.items())

    def get(self, provider: str, chain: str, token: str, kind: Kind) -> TokenGroup | None:
        return self._store.get((provider, chain, token, kind))

    def group(self, provider: str, chain: str, token: str, kind: Kind) -> TokenGroup:
        """Where balances of that token stand, or would: it is kept from its first record on, and not for a mere name."""
        return self._store.get((provider, chain, token, kind)) or TokenGroup(provider, chain, token, kind)

    def count(self, provider: str) -> int:
        """How many of its balances are known of, in any way."""
        return self._counts[provider]

    def of(self, key: Key) -> TokenGroup:
        return self.group(key.provider, key.chain, key.token, key.kind)

    def find(self, key: Key) -> BalanceRecord | None:
        found = self.get(key.provider, key.chain, key.token, key.kind)
        return None if found is None else found.records.get(key.account)

    def add(self, group: TokenGroup, account: str, record: BalanceRecord) -> None:
        assert account not in group.records, f"met before: {group.key(account)}"
        if not group.records:
            place = (group.provider, group.chain, group.token, group.kind)
            assert self._store.setdefault(place, group) is group, f"two shelves of one token: {place}"
        group.records[account] = record
        self._counts[group.provider] += 1
        accounts = self._accounts.get(group.provider)
        if accounts is not None:
            accounts.setdefault(account, []).append(group)

    def denomination(self, unit: Unit, decimals: int | None, symbol: str | None) -> Denomination:
        """One object for all balances that are labelled alike. A symbol is somebody's free text: it may repeat a key."""
        found = self._labels.get((unit, decimals, symbol))
        if found is None:
            if len(self._labels) >= MOST_DENOMINATIONS:  # somebody calls a balance something else each time
                self._labels.clear()
            shown = None if symbol is None else SECRETS.shown(symbol)
            found = self._labels[unit, decimals, symbol] = Denomination(unit, decimals, shown)
        return found

    def within(self, scope: Scope) -> list[TokenGroup]:
        """Where balances stand of which a listing of the scope speaks."""
        store = self._store.values() if scope.account is None else self._listed(scope.provider).get(scope.account, ())
        return [group for group in store if group.within(scope)]

    def covered(
        self, scope: Scope, but: Collection[TokenGroup] = ()
    ) -> Iterator[tuple[TokenGroup, Sequence[str], Sequence[BalanceRecord]]]:
        """What a complete listing of the scope speaks for: accounts of one shelf and their records, `PAGE_ROWS` at a time.

        Shelves in `but` are left out; what comes to a shelf meanwhile may be.
        """
        if scope.account is not None:
            for group in self.within(scope):
                yield group, [scope.account], [group.records[scope.account]]
            return
        for group in self.within(scope):
            for accounts, records in () if group in but else list(group.pages()):
                yield group, accounts, records

    def _listed(self, provider: str) -> dict[str, list[TokenGroup]]:
        accounts = self._accounts.get(provider)
        if accounts is None:
            accounts = self._accounts[provider] = {}
            for group in self._store.values():
                if group.provider == provider:
                    for account in group.records:
                        accounts.setdefault(account, []).append(group)
        return accounts
