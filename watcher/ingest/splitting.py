"""A large listing by partition: rows that are known stay columns, whatever the number of partitions."""

import hashlib
from collections.abc import Generator, Sequence
from itertools import compress

from watcher.ingest.partitions import partition_of
from watcher.ledger import Ledger
from watcher.model.bulk_listing import CHANGED_ROWS, BulkListing, PageBuilder, TokenColumn


class Splitter:
    """Remembers which row of a page belongs where: most listings name their accounts in the order of last time."""

    def __init__(self, ledgers: Sequence[Ledger]) -> None:
        """`ledgers[p]` is partition p's."""
        self._ledgers = ledgers
        self._chosen: dict[tuple[str, str, str, int], tuple[bytes, list[bytes]]] = {}
        """Provider, chain, token and number of a page → the hash of its accounts, and for each partition its rows as
        ones among zeros."""

    def split(self, columns: BulkListing) -> Generator[None, None, list[BulkListing]]:
        """Each partition's rows. Raises what the columns' `check` does."""
        parts: list[list[TokenColumn]] = [[] for _ in self._ledgers]
        for column in columns.columns:
            rows = [PageBuilder() for _ in parts]
            for number in range(len(column.pages)):
                strangers = self._strangers(columns.provider, column, number, rows)
                for done, (account, amount) in enumerate(strangers, 1):
                    home = columns.check(column, account, amount).key.home
                    rows[partition_of(home, len(rows))].add([account], [amount])
                    if done % CHANGED_ROWS == 0:
                        yield
                yield
            for part, pages in zip(parts, rows, strict=True):
                part.append(TokenColumn(column.chain, column.token, column.symbol, pages.whole()))
        return [BulkListing(columns.provider, part, columns.check) for part in parts]

    def _strangers(
        self, provider: str, column: TokenColumn, number: int, rows: Sequence[PageBuilder]
    ) -> Sequence[tuple[str, str]]:
        """Add each row to the partition that knows its account; the rows that none does.

        Those are checked before they are hashed, because an account may be spelled in more than one way.
        """
        accounts, amounts = column.pages[number]
        place = (provider, column.chain, column.token, number)
        mark = hashlib.sha256("\n".join(accounts).encode()).digest()
        remembered, chosen = self._chosen.get(place, (b"", []))
        complete = remembered == mark
        if not complete:
            known = [ledger.accounts(provider, column.chain, column.token) for ledger in self._ledgers]
            chosen = [bytes(map(here.__contains__, accounts)) for here in known]
            complete = sum(here.count(1) for here in chosen) == len(accounts)
            if complete:
                self._chosen[place] = (mark, chosen)
        for pages, here in zip(rows, chosen, strict=True):
            pages.add(compress(accounts, here), compress(amounts, here))
        if complete:
            return ()
        return [row for row, *found in zip(zip(accounts, amounts, strict=True), *chosen, strict=True) if not any(found)]
