"""A bulk listing as columns: rows that repeat what is known are compared as they are, and never become readings."""

import gc
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import compress
from typing import overload

import msgspec

from watcher.model.keys import Key
from watcher.model.readings import Reading

PAGE_ROWS = 5_000
"""Rows in one step of work, where nearly all repeat what is known: a few milliseconds."""
CHANGED_ROWS = 100
"""Rows in one step of work that become readings, or may: a few milliseconds."""
ColumnPage = tuple[tuple[str, ...], tuple[str, ...]]
"""Accounts, and amounts as the provider wrote them; equally many."""


class Contradiction(ValueError):
    """One answer names one key twice with different amounts: it proves nothing."""

    def __init__(self, key: Key) -> None:
        super().__init__(f"the answer contradicts itself on {key}")


class UnreadableRow(ValueError):
    """One row of a listing cannot be understood. `account`: its account, canonical, if that can be read."""

    def __init__(self, reason: object, account: str | None) -> None:
        """`reason`: becomes one line when the text is asked for."""
        super().__init__(reason)
        self.account = account


class TokenColumn(msgspec.Struct, frozen=True):
    """The holders of one token. The accounts have the one spelling that an address can have, if they are addresses."""

    chain: str
    token: str
    """Canonical."""
    symbol: str | None
    pages: list[ColumnPage]
    """`PAGE_ROWS` rows each, but for the last."""

    def __len__(self) -> int:
        return PAGE_ROWS * (len(self.pages) - 1) + len(self.pages[-1][0]) if self.pages else 0

    def rows(self) -> Iterator[tuple[str, str]]:
        """Account and amount of each."""
        return ((account, amount) for page in self.pages for account, amount in zip(*page, strict=True))


class PageBuilder:
    """Rows as they come, cut into the pages of a column."""

    def __init__(self) -> None:
        self._pages: list[ColumnPage] = []
        self._accounts: list[str] = []
        self._amounts: list[str] = []

    def add(self, accounts: Iterable[str], amounts: Iterable[str]) -> None:
        self._accounts += accounts
        self._amounts += amounts
        while len(self._accounts) >= PAGE_ROWS:
            self._cut()

    def whole(self) -> list[ColumnPage]:
        """All of them, the last one too."""
        if self._accounts:
            self._cut()
        return self._pages

    def _cut(self) -> None:
        self._pages.append((tuple(self._accounts[:PAGE_ROWS]), tuple(self._amounts[:PAGE_ROWS])))
        del self._accounts[:PAGE_ROWS], self._amounts[:PAGE_ROWS]
        collect_young()


class BulkListing(Sequence[Reading]):
    """The readings of a listing without any order. `check` makes a reading of a row, or raises UnreadableRow.

    Only a row that repeats what is known may go unchecked: its account and amount were checked before.
    """

    def __init__(
        self, provider: str, columns: Sequence[TokenColumn], check: Callable[[TokenColumn, str, str], Reading]
    ) -> None:
        """`check` is given a column, and the account and the amount of one of its rows."""
        self.provider = provider
        self.columns = columns
        self.check = check

    def __len__(self) -> int:
        return sum(map(len, self.columns))

    def __iter__(self) -> Iterator[Reading]:
        return (self.check(column, account, amount) for column in self.columns for account, amount in column.rows())

    @overload
    def __getitem__(self, where: int) -> Reading: ...
    @overload
    def __getitem__(self, where: slice) -> list[Reading]: ...
    def __getitem__(self, where: int | slice) -> Reading | list[Reading]:
        return list(self)[where]

    def readable_rows(self) -> Generator[None, None, tuple["BulkListing", str]]:
        """The readable rows, without balances that also have an unreadable one; and in one line, what is wrong.

        Every row is checked: this is for a listing of which one row raised UnreadableRow.
        """
        columns: list[TokenColumn] = []
        first: UnreadableRow | None = None
        done = wrong = 0
        for column in self.columns:
            accounts, amounts, unclear = list[str](), list[str](), set[str | None]()
            for row in column.rows():
                done += 1
                try:
                    reading = self.check(column, *row)
                except UnreadableRow as error:
                    first, wrong = first or error, wrong + 1
                    unclear.add(error.account)
                else:
                    accounts.append(reading.key.account)
                    amounts.append(str(reading.amount))
                if done % CHANGED_ROWS == 0:
                    yield
            pages = PageBuilder()
            for start in range(0, len(accounts), PAGE_ROWS):
                some = slice(start, start + PAGE_ROWS)
                clear = [account not in unclear for account in accounts[some]]
                pages.add(compress(accounts[some], clear), compress(amounts[some], clear))
                yield
            columns.append(msgspec.structs.replace(column, pages=pages.whole()))
        more = f" (and {wrong - 1} more)" if wrong > 1 else ""
        return BulkListing(self.provider, columns, self.check), f"not all can be understood: {first}{more}"

    def clear(self) -> Generator[None, None, None]:
        """Free all rows, a page at a time: to free half a million at once takes long."""
        for column in self.columns:
            while column.pages:
                column.pages.pop()
                yield


def collect_young() -> None:
    """Let the collector see the long tuples that were made since its last run.

    It looks through a tuple of strings once, and then never again. But by itself it runs only after hundreds of tuples, and would
    look through a whole bulk listing at once, long after that has left the cache.
    """
    gc.collect(0)
