"""A large listing by partition: rows that are known stay columns, whatever the number of partitions."""

from collections.abc import Generator, Mapping, Sequence
from itertools import compress

from watcher.columns import NEWS, Column, Columns, Page, Pages
from watcher.events import partition_of
from watcher.ledger import Ledger
from watcher.ledger.rules import Record


def split(columns: Columns, ledgers: Sequence[Ledger]) -> Generator[None, None, list[Columns]]:
    """Each partition's rows. Raises what the columns' `check` does.

    An account that a partition knows lives there; to ask all of them costs less than to hash it. Any other row is
    checked first, because its account may be spelled in more than one way.
    """
    parts: list[list[Column]] = [[] for _ in ledgers]
    for column in columns.columns:
        rows = [Pages() for _ in ledgers]
        for page in column.pages:
            known = [ledger.accounts(columns.provider, column.chain, column.token) for ledger in ledgers]
            for number, (account, amount) in enumerate(_strangers(page, known, rows), 1):
                home = columns.check(column, account, amount).key.home
                rows[partition_of(home, len(ledgers))].add([account], [amount])
                if number % NEWS == 0:
                    yield
            yield
        for part, pages in zip(parts, rows, strict=True):
            part.append(Column(column.chain, column.token, column.symbol, pages.whole()))
    return [Columns(columns.provider, part, columns.check) for part in parts]


def _strangers(page: Page, known: Sequence[Mapping[str, Record]], rows: Sequence[Pages]) -> list[tuple[str, str]]:
    """Add each row of the page to the partition that knows its account; the rows that none does."""
    accounts, amounts = page
    left = len(accounts)
    for here, pages in zip(known, rows, strict=True):
        selected = list(map(here.__contains__, accounts))
        mine = list(compress(accounts, selected))
        pages.add(mine, compress(amounts, selected))
        left -= len(mine)
    if not left:
        return []
    return [row for row in zip(accounts, amounts, strict=True) if not any(row[0] in here for here in known)]
