"""A large listing against what is known, in columns: rows that repeat it pass through C and become no readings.

First everything is compared and every row that says something else is checked; only then is anything evaluated, because
an answer that cannot be understood, or contradicts itself, must not have said a word.
"""

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence

from watcher.ledger.record import Arrival, BalanceRecord, TokenGroup
from watcher.ledger.store import Store, mark_seen
from watcher.model.bulk_listing import CHANGED_ROWS, BulkListing, Contradiction, TokenColumn, collect_young
from watcher.model.keys import Key
from watcher.model.readings import Reading


class PageComparison:
    """One page of one column."""

    def __init__(self, columns: BulkListing, column: TokenColumn, number: int, group: TokenGroup) -> None:
        self.group = group
        self.accounts, self._amounts = column.pages[number]
        self._check = columns.check
        self._column = column
        self.ordered = False
        """The rows are those of the group, in its order: no two are of one key."""
        self.records = self._found(number)
        self._changes = group.changes
        self.others = self._others()
        """Numbers of the rows that do not simply repeat what is known."""
        self.checked: dict[int, Reading] = {}
        """Those, once they are checked."""

    def _found(self, number: int) -> Sequence[BalanceRecord | None]:
        accounts, pages = self.accounts, self.group.pages()
        known, rows = pages[number] if number < len(pages) else ((), ())
        self.ordered = accounts == known[: len(accounts)]
        if self.ordered:
            return rows[: len(accounts)]
        found = tuple(map(self.group.records.get, accounts))
        collect_young()
        return found

    def check_others(self) -> Generator[None, None, None]:
        """Fill `checked`. Raises what `check` raises."""
        for number in self.others:
            self.checked[number] = self._reading(number)
            if len(self.checked) % CHANGED_ROWS == 0:
                yield

    def _others(self) -> list[int]:
        return [
            number
            for number, (record, amount) in enumerate(zip(self.records, self._amounts, strict=True))
            if record is None or record.amount != amount or record.candidate is not None or record.recent_amounts
        ]

    def _reading(self, number: int) -> Reading:
        return self._check(self._column, self.accounts[number], self._amounts[number])

    def repeat(self, named: Mapping[int, Key]) -> Iterator[tuple[Key, Reading]]:
        """The rows that repeat what is known, where another row of the listing names the same record (`named`: id of the record → key)."""
        rows = list(map(id, self.records))
        if sum(map(named.__contains__, rows)) > sum(rows[number] in named for number in self.checked):
            for number, row in enumerate(rows):
                if row in named and number not in self.checked:
                    yield named[row], self._reading(number)

    def mark(self, arrival: Arrival) -> int:
        """Mark the rows that repeat what is known as seen; how many. Others may have been evaluated since the comparison."""
        if self._changes != self.group.changes:
            self.others = self._others()
        others = set(self.others)
        known = [r for n, r in enumerate(self.records) if n not in others] if others else self.records
        mark_seen(known, arrival)  # type: ignore[arg-type]  # one that is not known is among the others
        return len(self.records) - len(others)

    def to_evaluate(self) -> Iterator[list[Reading]]:
        """What `mark` left to evaluate. None of it can fail here: a row that was not checked repeated what was known."""
        for start in range(0, len(self.others), CHANGED_ROWS):
            yield [
                self.checked.get(number) or self._reading(number)
                for number in self.others[start : start + CHANGED_ROWS]
            ]


class BulkComparison:
    """One listing. `compare`, then mark and evaluate the pages."""

    def __init__(self, store: Store, columns: BulkListing) -> None:
        self.pages: list[PageComparison] = []
        self._store = store
        self._columns = columns

    def compare(self) -> Generator[None, None, None]:
        """Raises Contradiction, and what the columns' `check` raises."""
        for column in self._columns.columns:
            for number in range(len(column.pages)):
                group = self._store.group(self._columns.provider, column.chain, column.token, "total")
                page = PageComparison(self._columns, column, number, group)
                self.pages.append(page)
                yield from page.check_others()
                yield
        yield from self._contradictions()

    def complete_groups(self) -> set[TokenGroup]:
        """The groups of which the listing names every balance, in order, so that none can be missing."""
        rows: Counter[TokenGroup] = Counter()
        for page in self.pages:
            rows[page.group] += len(page.records) if page.ordered else 0
        return {group for group, count in rows.items() if count == len(group.records)}

    def _contradictions(self) -> Generator[None, None, None]:
        """Two rows of one key that say the same are one. Where two differ, at least one of them was checked."""
        disordered = {page.group for page in self.pages if not page.ordered}
        pages = [page for page in self.pages if page.group in disordered]
        checked: dict[Key, Reading] = {}
        known: dict[int, Key] = {}
        for page in pages:
            for reading in page.checked.values():
                if checked.setdefault(reading.key, reading) != reading:
                    raise Contradiction(reading.key)
                known[id(self._store.find(reading.key))] = reading.key
            yield
        known.pop(id(None), None)
        for page in pages:
            for key, reading in page.repeat(known):
                if reading != checked[key]:
                    raise Contradiction(key)
            yield
