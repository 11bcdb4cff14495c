"""A large listing as columns: rows that say nothing new are compared as they stand and never made into readings."""

import gc
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TypeVar, cast, overload

import anyio.lowlevel
import msgspec

from watcher.events import Key, Reading

T = TypeVar("T")

SLICE = 5_000
"""Rows between two breaths, where hardly one says something new: a few milliseconds."""
NEWS = 1_000
"""Rows between two breaths that each become a reading: some ten milliseconds."""

Page = tuple[tuple[str, ...], tuple[str, ...]]
"""Accounts, and amounts as the provider wrote them; equally many."""


class Contradiction(ValueError):
    """One answer tells one key twice and differently: it proves nothing."""

    def __init__(self, key: Key) -> None:
        super().__init__(f"the answer contradicts itself on {key}")


class Column(msgspec.Struct, frozen=True):
    """The holders of one token. The accounts have the one spelling that an address can have, if they are addresses."""

    chain: str
    token: str
    """Canonical."""
    symbol: str | None
    pages: list[Page]
    """`SLICE` rows each, but for the last."""

    def __len__(self) -> int:
        return SLICE * (len(self.pages) - 1) + len(self.pages[-1][0]) if self.pages else 0


class Pages:
    """Rows as they come, cut into the pages of a column."""

    def __init__(self) -> None:
        self._pages: list[Page] = []
        self._accounts: list[str] = []
        self._amounts: list[str] = []

    def add(self, accounts: Iterable[str], amounts: Iterable[str]) -> None:
        self._accounts += accounts
        self._amounts += amounts
        while len(self._accounts) >= SLICE:
            self._cut()

    def whole(self) -> list[Page]:
        """All of them, the last one too."""
        if self._accounts:
            self._cut()
        return self._pages

    def _cut(self) -> None:
        self._pages.append((tuple(self._accounts[:SLICE]), tuple(self._amounts[:SLICE])))
        del self._accounts[:SLICE], self._amounts[:SLICE]
        look_through()


class Columns(Sequence[Reading]):
    """The readings of a listing without any order. `check` makes one of a row, or raises what the provider raises.

    Only a row that spells what is known already may go unchecked: its account and amount were checked before.
    """

    def __init__(self, provider: str, columns: Sequence[Column], check: Callable[[Column, str, str], Reading]) -> None:
        """`check` is given a column, and the account and the amount of one of its rows."""
        self.provider = provider
        self.columns = columns
        self.check = check

    def __len__(self) -> int:
        return sum(map(len, self.columns))

    def __iter__(self) -> Iterator[Reading]:
        return (
            self.check(column, account, amount)
            for column in self.columns
            for page in column.pages
            for account, amount in zip(*page, strict=True)
        )

    @overload
    def __getitem__(self, where: int) -> Reading: ...
    @overload
    def __getitem__(self, where: slice) -> list[Reading]: ...
    def __getitem__(self, where: int | slice) -> Reading | list[Reading]:
        return list(self)[where]

    def clear(self) -> Generator[None, None, None]:
        """Let go of all rows, a page at a time: to free half a million of them at once takes long."""
        for column in self.columns:
            while column.pages:
                column.pages.pop()
                yield


async def in_slices(work: Generator[None, None, T]) -> T:
    """Run to the end; everybody else runs in between."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return cast("T", end.value)
        await anyio.lowlevel.checkpoint()


def look_through() -> None:
    """Let the collector see the long tuples that were made since it last came.

    It goes through a tuple of strings once, and then never again. But it comes only after hundreds of tuples, and would
    go through all that a large listing is made of in one go, long after that has left the cache.
    """
    gc.collect(0)
