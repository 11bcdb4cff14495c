"""What a reader holds in memory: the state of every key as of one place in the log, and copies of it for snapshots."""

import functools
from collections.abc import Callable

import anyio.lowlevel
import msgspec

from watcher.journal.kafka.internal_records import NoteAssembler
from watcher.journal.kafka.records import ConsumedRecord, NotABalance, decode_balance, state_after, state_before
from watcher.model.events import BalanceState, ProviderHealth
from watcher.model.keys import Filter, Key
from watcher.model.log import Cursor, Published

ROWS_PER_STEP = 2_000
"""Rows filtered between two turns of the loop."""


class StateTable:
    """The state of every key as of one place in the log of events. Pure."""

    def __init__(self) -> None:
        self.rows: dict[Key, BalanceState] = {}
        self.health: dict[str, ProviderHealth] = {}
        self.notes = NoteAssembler()
        self.foreign: set[tuple[int, bytes]] = set()
        """Partition and key of what stands in the state and is not a balance: one key may stand in several."""

    def restore(self, record: ConsumedRecord) -> None:
        """The next record of the state, of a key's several the last one stays."""
        if record.value is None:
            self.foreign.discard((record.partition, record.key))
            if Key.parsable(name := record.key.decode(errors="replace")):
                self.rows.pop(Key.parse(name), None)
            return
        try:
            state = decode_balance(record.key, record.value, record.headers)
        except NotABalance:
            self.foreign.add((record.partition, record.key))
        else:
            self.foreign.discard((record.partition, record.key))
            self.rows[state.key] = state

    def add_baseline(self, state: BalanceState) -> bool:
        """Add a baseline just committed. False for a known key, and for the state of a change: its event says the same, but
        for when the balance was first known."""
        row = self.rows.get(state.key)
        if row is not None:
            if row.version and (since := state.known_since) is not None and since != row.first_observed_at:
                self.rows[state.key] = msgspec.structs.replace(row, first_observed_at=since)
            return False
        if state.version:
            return False
        self.rows[state.key] = state
        return True

    def apply(self, event: Published) -> None:
        row = self.rows.get(event.key)
        if row is None or event.version > row.version:
            self.rows[event.key] = state_after(event, row)

    def roll_back(self, event: Published) -> None:
        """Take back an event that nobody may see yet: a row at its version goes back to the one before."""
        row = self.rows.get(event.key)
        if row is not None and row.version == event.version:
            self.rows[event.key] = state_before(event, row)


class TableCopy:
    """The rows as of one cursor, the `SharedView` of a table: pointers to what does not change."""

    def __init__(self, cursor: Cursor, rows: list[BalanceState], newest: Callable[[], bool]) -> None:
        self.cursor = cursor
        self.newest = newest
        self._rows = rows

    def end(self) -> None:
        self._rows = []

    async def count(self, wanted: Filter) -> int:
        rows, matches = self._rows, matcher(wanted)
        if matches is None:
            return len(rows)
        count = 0
        for start in range(0, len(rows), ROWS_PER_STEP):
            count += sum(map(matches, rows[start : start + ROWS_PER_STEP]))
            await anyio.lowlevel.checkpoint()
        return count

    async def page(self, wanted: Filter, behind: int, size: int) -> tuple[int, list[BalanceState]]:
        rows, matches = self._rows, matcher(wanted)
        if matches is None:
            return behind + size, rows[behind : behind + size]
        found: list[BalanceState] = []
        while len(found) < size and behind < len(rows):
            last = min(behind + ROWS_PER_STEP, len(rows))
            while behind < last and len(found) < size:
                row = rows[behind]
                behind += 1
                if matches(row):
                    found.append(row)
            await anyio.lowlevel.checkpoint()
        return behind, found


@functools.lru_cache(64)  # every page asks anew
def matcher(wanted: Filter) -> Callable[[BalanceState], bool] | None:
    """Whether a filter wants a row; None when it wants all. A filter may name a thousand accounts."""
    if wanted == Filter():
        return None
    provider, chain, account, token = (
        None if values is None else frozenset(values)
        for values in (wanted.provider, wanted.chain, wanted.account, wanted.token)
    )
    return lambda row: (
        (account is None or row.account in account)
        and (token is None or row.token in token)
        and (chain is None or row.chain in chain)
        and (provider is None or row.provider in provider)
    )
