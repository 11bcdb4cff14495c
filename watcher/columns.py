"""A large listing as columns: rows that say nothing new are compared as they stand and never made into readings."""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import overload

import msgspec

from watcher.events import Key, Reading

SLICE = 5_000
"""Rows between two breaths: a few milliseconds, tens where nearly all of them are news."""


class Contradiction(ValueError):
    """One answer tells one key twice and differently: it proves nothing."""

    def __init__(self, key: Key) -> None:
        super().__init__(f"the answer contradicts itself on {key}")


class Column(msgspec.Struct, frozen=True):
    """The holders of one token. `accounts` have the one spelling that an address can have, if they are addresses."""

    chain: str
    token: str
    """Canonical."""
    symbol: str | None
    accounts: tuple[str, ...]
    amounts: tuple[str, ...]
    """As the provider wrote them."""


class Columns(Sequence[Reading]):
    """The readings of a listing without any order. `check` makes one of a row, or raises what the provider raises.

    Only a row that spells what is known already may go unchecked: its account and amount were checked before.
    """

    def __init__(self, provider: str, columns: Sequence[Column], check: Callable[[Column, int], Reading]) -> None:
        self.provider = provider
        self.columns = columns
        self.check = check

    def __len__(self) -> int:
        return sum(len(column.accounts) for column in self.columns)

    def __iter__(self) -> Iterator[Reading]:
        return (self.check(column, row) for column in self.columns for row in range(len(column.accounts)))

    @overload
    def __getitem__(self, where: int) -> Reading: ...
    @overload
    def __getitem__(self, where: slice) -> list[Reading]: ...
    def __getitem__(self, where: int | slice) -> Reading | list[Reading]:
        return list(self)[where]

    def checked(self) -> Generator[None, None, list[Reading]]:
        """All of them, one for each key, `SLICE` at a time. Raises Contradiction, and what `check` does."""
        found: dict[Key, Reading] = {}
        for row, reading in enumerate(self, 1):
            if found.setdefault(reading.key, reading) != reading:
                raise Contradiction(reading.key)
            if row % SLICE == 0:
                yield
        return list(found.values())
