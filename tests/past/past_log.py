"""A log in memory, of events that a test knows: what a journal's reader gives of the past, with nothing of its own code."""

import msgspec

from watcher.model.alerts import Crossing, crossing_id
from watcher.model.events import JSON, BalanceState, changed
from watcher.model.keys import Key
from watcher.model.log import Bounds, Cursor, Published
from watcher.model.past import HistorySlice
from watcher.model.times import format_rfc3339

EPOCH = "e0"
SOLANA = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"


def key_of(account, provider="jupiter", kind="total"):
    return Key(provider, SOLANA, account, "native", kind)


def change(key, version, observed_at, **more):
    """A change to `version`, from the number before it."""
    names = {name: getattr(key, name) for name in ("provider", "chain", "account", "token", "kind")}
    state = BalanceState(
        **names,
        **{"symbol": None, "unit": "base", "decimals": None, "slot": None, "as_of": None, "order": None, **more},
        version=version,
        amount=str(version),
        observed_at=format_rfc3339(observed_at),
    )
    return changed(EPOCH, state, str(version - 1), format_rfc3339(observed_at - 1))


def crossing(key, version, observed_at, alert="low", direction="below"):
    names = {name: getattr(key, name) for name in ("provider", "chain", "account", "token", "kind")}
    return Crossing(
        **names,
        id=crossing_id(EPOCH, alert, key, version, direction),
        alert=alert,
        direction=direction,
        threshold="100",
        amount=str(version),
        previous_amount=str(version - 1),
        version=version,
        observed_at=format_rfc3339(observed_at),
    )


class KnownLog:
    """`events`: in the order in which they are read, whatever their partitions."""

    def __init__(self, partitions=1, slice_of=3, kept_from=0):
        self.events = []
        self.kept = kept_from
        self.ended = 0
        """Readings that were given back."""
        self._heads = [0] * partitions
        self._slice = slice_of

    def add(self, event, observed_at, partition=0):
        data = JSON.encode(event) if not isinstance(event, Crossing) else msgspec.json.encode(event)
        kind = "crossed" if isinstance(event, Crossing) else "changed"
        position = self._heads[partition]
        self._heads[partition] += 1
        self.events.append(Published(event.key, event.version, data, partition, position, observed_at, kind))
        return self.events[-1]

    async def kept_from(self):
        return self.kept

    async def bounds(self):
        return Bounds(Cursor(EPOCH, (0,) * len(self._heads)), Cursor(EPOCH, tuple(self._heads)))

    async def between(self, wanted, first, last, until, behind=None):
        try:
            found = [
                event
                for event in self.events
                if first <= event.observed_at <= last
                and wanted.matches(event.key)
                and event.position < until.positions[event.partition]
                and (behind is None or event.position >= behind.positions[event.partition])
            ]
            for begin in range(0, len(found) + 1, self._slice):
                yield HistorySlice(found[begin : begin + self._slice], begin, len(found))
        finally:
            self.ended += 1
