"""What a journal has of each provider's past: its changes, as long as they are kept, and the balances that had none."""

import contextlib
from collections.abc import Callable, Mapping

import anyio.lowlevel
import msgspec

from watcher.journal import Reader
from watcher.limits.budget import Budget
from watcher.limits.lease import STAMPS
from watcher.model.events import BalanceState
from watcher.model.keys import Filter, Key
from watcher.model.log import Published
from watcher.model.times import parse_rfc3339
from watcher.rehearsal.history import History, Observed, history_of

PAGE = 1000
"""Balances read at a time."""
FAR = 2**62
"""Wall-clock microseconds: no event is observed later."""


class _Change(msgspec.Struct):
    """Of a BalanceChanged, what a history needs."""

    previous_amount: str
    amount: str
    previous_observed_at: str


_CHANGE = msgspec.json.Decoder(_Change)


class Recorded:
    """While it is read."""

    def __init__(self) -> None:
        self.changes: dict[str, list[Observed]] = {}
        self.opening: dict[str, list[tuple[Key, str]]] = {}
        self.first: dict[str, int] = {}
        """Wall-clock microseconds: the earliest time at which something of the provider was observed."""
        self.last: dict[str, int] = {}
        self.stamps: dict[str, bytes] = {}
        """What each limiter has saved."""

    def add_state(self, state: BalanceState) -> None:
        key = state.key
        self.opening.setdefault(key.provider, []).append((key, state.amount))
        self._widen(key.provider, parse_rfc3339(state.observed_at))

    def add_event(self, event: Published) -> None:
        if event.type != "changed":
            return
        change, key = _CHANGE.decode(event.data), event.key
        earliest = parse_rfc3339(change.previous_observed_at)
        found = Observed(key, change.previous_amount, change.amount, earliest, event.observed_at)
        self.changes.setdefault(key.provider, []).append(found)
        self._widen(key.provider, earliest)
        self._widen(key.provider, event.observed_at)

    def add_notes(self, notes: Mapping[str, bytes]) -> None:
        """A poller saves its stamps while it asks: until then nothing else happened."""
        for name in self.opening:
            stamps = notes.get(STAMPS + name)
            with contextlib.suppress(ValueError):  # not one of ours: the daemon will say so
                if stamps is not None:
                    self._widen(name, Budget.saved_at(stamps))
                    self.stamps[name] = stamps

    def _widen(self, provider: str, time: int) -> None:
        self.first[provider] = min(time, self.first.get(provider, time))
        self.last[provider] = max(time, self.last.get(provider, time))

    def histories(self, most: float, kept: float, seed: int, caches: Mapping[str, float]) -> dict[str, History]:
        """Of each provider the last `most` seconds at most. kept: seconds for which the journal keeps events: of what lies
        before, it has states and not how they came about. caches: provider → seconds for which it keeps an answer."""
        return {name: self._history(name, min(most, kept), seed, caches.get(name, 0.0)) for name in self.opening}

    def _history(self, name: str, most: float, seed: int, cache: float) -> History:
        last = self.last[name]
        first = max(self.first[name], last - int(most * 1e6))
        lately = [change for change in self.changes.get(name, ()) if change.observed_at > first]
        return history_of(lately, self.opening[name], first, last, seed=seed, cache=cache)


async def read(reader: Reader, tell: Callable[[int], None]) -> Recorded:
    """All that a journal keeps up to now. `tell` is given how many events were read, every now and then. Raises JournalError:
    of a past that cannot be read to its end nothing is rehearsed."""
    found = Recorded()
    snapshot = await reader.snapshot(Filter())
    try:
        while page := await snapshot.page(PAGE):
            for state in page:
                found.add_state(state)
        until = snapshot.cursor
    finally:
        snapshot.close()
    found.add_notes(await reader.notes())
    count = 0
    async for part in reader.between(Filter(), 0, FAR, until):
        for number, event in enumerate(part.events, 1):
            found.add_event(event)
            if number % PAGE == 0:
                await anyio.lowlevel.checkpoint()
        tell(count := count + len(part.events))
    return found
