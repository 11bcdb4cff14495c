"""Notes that wait for a commit: small records beside the balances, such as the stamps of a limiter.

Usually the next commit takes them all, with rows. After a commit of unknown outcome they go alone: one in each commit, the
smallest first, and rows in between. A large note that did not fit even so is deferred, and nobody waits for it meanwhile.
"""

from collections import ChainMap
from collections.abc import Collection, Mapping
from typing import NamedTuple

LARGE_NOTE = 64 * 1024
"""Bytes: a note that is larger, and did not fit into a commit of its own, is deferred."""
DEFERRED = 60.0
"""Seconds until it is tried again."""


class _Note(NamedTuple):
    """A note that is not committed yet."""

    number: int
    """Of the first call of `add` that it stands for."""
    data: bytes


class NoteQueue:
    """Pure: the time is given, in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self.added = 0
        """Calls of `add`: the number of the last one."""
        self.alone = False
        """Notes go without rows, one by one."""
        self._rows_next = False
        """The last commit was a note of its own."""
        self._latest: dict[str, bytes] = {}
        self._waiting: dict[str, _Note] = {}
        self._in_flight: dict[str, _Note] = {}
        self._deferred: dict[str, float] = {}
        """The key of a note → when it may be tried again."""

    def ready(self, now: float) -> bool:
        """Whether some wait that are not deferred."""
        return any(self._deferred.get(key, now) <= now for key in self._waiting)

    def add(self, key: str, data: bytes) -> None:
        """For the next commit. It replaces what waits under that key."""
        self.added += 1
        self._latest[key] = data
        former = self._waiting.get(key)
        self._waiting[key] = _Note(self.added if former is None else former.number, data)

    def over(self, restored: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """These, and in their place what was added under the same keys, from now on too."""
        return ChainMap(self._latest, dict(restored))

    def committed_up_to(self, number: int) -> bool:
        """Whether everything is committed that the first `number` calls of `add` brought, but for what is deferred."""
        waiting = (note for key, note in self._waiting.items() if key not in self._deferred)
        return all(note.number > number for note in (*waiting, *self._in_flight.values()))

    def take(self, now: float, *, rows_wait: bool) -> Mapping[str, bytes]:
        """The notes that the next commit takes: all that are not deferred, or the smallest, or none while it is the turn
        of rows. They are in flight until `committed`, `take_back` or `in_doubt`.
        """
        ready = {key: note for key, note in self._waiting.items() if self._deferred.get(key, now) <= now}
        if self.alone and ready:
            if self._rows_next and rows_wait:
                return {}
            key = min(ready, key=lambda key: len(ready[key].data))
            ready = {key: ready[key]}
        for key in ready:
            del self._waiting[key]
        self._in_flight = ready
        return {key: note.data for key, note in ready.items()}

    def committed(self, rows: int, *, reduced: bool) -> None:
        """The notes in flight are in the journal, with so many rows. `reduced`: groups of rows are still small."""
        for key in self._in_flight:
            self._deferred.pop(key, None)
        self._in_flight = {}
        self.alone = self.alone and (reduced or bool(self._deferred))
        self._rows_next = not rows

    def take_back(self, rejected: Collection[str] = ()) -> None:
        """The notes in flight wait again, but for the rejected ones. What was added meanwhile stands for both."""
        for key, note in self._in_flight.items():
            if key not in rejected:
                later = self._waiting.get(key)
                self._waiting[key] = note if later is None else _Note(note.number, later.data)
        self._in_flight = {}

    def in_doubt(self, rows: int, now: float, *, out_of_time: bool) -> None:
        """Nobody knows whether the notes in flight and so many rows were committed: they wait again, and go alone."""
        if not rows and self.alone and out_of_time:
            large = (key for key, note in self._in_flight.items() if len(note.data) > LARGE_NOTE)
            self._deferred |= dict.fromkeys(large, now + DEFERRED)
        self.take_back()
        self.alone = True
        self._rows_next = not rows
