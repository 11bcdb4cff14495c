"""A bulk listing by partition: rows of known balances stay columns, whatever the number of partitions."""

import hashlib
from collections.abc import Generator, Sequence
from itertools import compress

from watcher.ingest.partitions import partition_of
from watcher.ledger import Ledger
from watcher.model.bulk_listing import CHANGED_ROWS, BulkListing, PageBuilder, TokenColumn


# goes with partition = provider
class Splitter:
    """Remembers which row of a page belongs to which partition: most listings name their accounts in the same order again."""

    def __init__(self, ledgers: Sequence[Ledger]) -> None:
        """`ledgers[p]` is partition p's."""
        self._ledgers = ledgers
        self._rows_by_partition: dict[tuple[str, str, str, int], tuple[bytes, list[bytes]]] = {}
        """Provider, chain, token and number of a page → the hash of its accounts, and for each partition its rows as
        ones among zeros."""

    def split(self, listing: BulkListing) -> Generator[None, None, list[BulkListing]]:
        """Each partition's rows. Raises what the listing's `check` does."""
        parts: list[list[TokenColumn]] = [[] for _ in self._ledgers]
        for column in listing.columns:
            rows = [PageBuilder() for _ in parts]
            for number in range(len(column.pages)):
                unknown = self._unknown_rows(listing.provider, column, number, rows)
                for done, (account, amount) in enumerate(unknown, 1):
                    home = listing.check(column, account, amount).key.home
                    rows[partition_of(home, len(rows))].add([account], [amount])
                    if done % CHANGED_ROWS == 0:
                        yield
                yield
            for part, pages in zip(parts, rows, strict=True):
                part.append(TokenColumn(column.chain, column.token, column.symbol, pages.whole()))
        return [BulkListing(listing.provider, part, listing.check) for part in parts]

    def _unknown_rows(
        self, provider: str, column: TokenColumn, number: int, rows: Sequence[PageBuilder]
    ) -> Sequence[tuple[str, str]]:
        """Add each row to the partition that knows its account; return the rows that no partition knows.

        The caller checks those before it hashes them, because an account may be spelled in more than one way.
        """
        accounts, amounts = column.pages[number]
        place = (provider, column.chain, column.token, number)
        digest = hashlib.sha256("\n".join(accounts).encode()).digest()
        remembered, rows_by_partition = self._rows_by_partition.get(place, (b"", []))
        complete = remembered == digest
        if not complete:
            known = [ledger.accounts(provider, column.chain, column.token) for ledger in self._ledgers]
            rows_by_partition = [bytes(map(here.__contains__, accounts)) for here in known]
            complete = sum(here.count(1) for here in rows_by_partition) == len(accounts)
            if complete:
                self._rows_by_partition[place] = (digest, rows_by_partition)
        for pages, here in zip(rows, rows_by_partition, strict=True):
            pages.add(compress(accounts, here), compress(amounts, here))
        if complete:
            return ()
        return [
            row
            for row, *found in zip(zip(accounts, amounts, strict=True), *rows_by_partition, strict=True)
            if not any(found)
        ]
