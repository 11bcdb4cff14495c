"""The log: cursors, commits, snapshots, and the reasons why it cannot be read."""

import itertools
from collections.abc import Sequence
from typing import Literal, Protocol, Self

import msgspec

from watcher.model.events import BalanceState, ProviderHealth
from watcher.model.keys import Key

GapReason = Literal["epoch_changed", "ahead", "expired"]
"""Why the log cannot be followed from a cursor without a gap."""


EventType = Literal["changed", "crossed"]
"""A balance has changed (`BalanceChanged`), or an alert was crossed (`Crossing`)."""


class Cursor(msgspec.Struct, frozen=True, gc=False):
    """A place in the log: for each partition the position of the first event that is still to come."""

    epoch: str
    """Names the log (lower-case hex), made once with the journal."""
    positions: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.epoch}.{'-'.join(map(str, self.positions))}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """The inverse of `str`. Raises ValueError for anything that `str` would not have made."""
        epoch, dot, positions = text.partition(".")
        parts = positions.split("-")
        if not dot or not epoch or set(epoch) - set("0123456789abcdef"):
            raise ValueError(f"not a cursor: {text[:80]!r}")
        if not all(part.isascii() and part.isdigit() and len(part) <= 19 for part in parts):
            raise ValueError(f"not a cursor: {text[:80]!r}")
        return cls(epoch, tuple(map(int, parts)))

    def reaches(self, other: "Cursor") -> bool:
        """Whether everything before `other` lies before this cursor too."""
        return self.epoch == other.epoch and all(
            mine >= theirs for mine, theirs in zip(self.positions, other.positions, strict=True)
        )

    def after(self, partition: int, position: int) -> "Cursor":
        """This cursor once the event at `position` of `partition` was sent."""
        positions = list(self.positions)
        positions[partition] = max(positions[partition], position + 1)
        return Cursor(self.epoch, tuple(positions))

    def least(self, other: "Cursor") -> "Cursor":
        """The cursor before which both have everything."""
        return Cursor(self.epoch, tuple(map(min, self.positions, other.positions)))

    def greatest(self, other: "Cursor") -> "Cursor":
        """The cursor before which everything lies that one of them has."""
        return Cursor(self.epoch, tuple(map(max, self.positions, other.positions)))

    def behind(self, head: "Cursor") -> int:
        """About how many events lie between this place and `head`."""
        return sum(max(0, far - near) for near, far in zip(self.positions, head.positions, strict=True))


_made = itertools.count(1)


class JournalError(Exception):
    """The journal could not do something. The text is one line that says what to do."""

    number: int
    """The how many-th of this process: of several that end together, a later one may follow from an earlier one."""

    def __new__(cls, *arguments: object, **_named: object) -> Self:
        made = super().__new__(cls, *arguments)
        made.number = next(_made)
        return made


class Unavailable(JournalError):
    """The journal does not answer, or the outcome of a commit is unknown: open again, restore, go on."""


class Closed(Unavailable):
    """The journal was closed while somebody waited for a commit: the consequence of something, never its cause."""


class Expired(JournalError):
    """A cursor points before the oldest event that is kept, beyond the head, or into another log."""

    def __init__(self, reason: GapReason) -> None:
        super().__init__(f"the log cannot be read from there: {reason}")
        self.reason = reason


class SnapshotRevoked(JournalError):
    """A snapshot was revoked because its reader held the view for too long. Ask again, and read faster."""


class Published(msgspec.Struct, frozen=True, gc=False):
    """One event as it stands in the journal."""

    key: Key
    version: int
    data: bytes
    """JSON, byte for byte as committed (transcoded once where the journal holds MessagePack)."""
    partition: int
    """Index into the positions of a cursor."""
    position: int
    observed_at: int
    """Wall-clock microseconds."""
    type: EventType = "changed"


class Commit(msgspec.Struct, frozen=True):
    """A slice of the log, in order. `cursor` is the place after it."""

    cursor: Cursor
    events: list[Published] = []
    baselines: list[BalanceState] = []
    health: list[ProviderHealth] = []


class Bounds(msgspec.Struct, frozen=True):
    """The oldest cursor that can still be followed, and the head."""

    oldest: Cursor
    head: Cursor

    def widened(self, cursor: Cursor) -> Cursor:
        """A cursor from when the log had no partitions for crossings: no crossing was sent before it. Any other as it is."""
        oldest = self.oldest.positions
        if cursor.epoch != self.head.epoch or 2 * len(cursor.positions) != len(oldest):
            return cursor
        return Cursor(cursor.epoch, cursor.positions + oldest[len(cursor.positions) :])

    def gap(self, cursor: Cursor) -> GapReason | None:
        """Why the log cannot be followed from there without a gap; None when it can."""
        if cursor.epoch != self.head.epoch or len(cursor.positions) != len(self.head.positions):
            return "epoch_changed"
        if not self.head.reaches(cursor):
            return "ahead"
        return None if cursor.reaches(self.oldest) else "expired"


class Snapshot(Protocol):
    """The committed state in one consistent view, read a page at a time and never held as a whole for its reader."""

    @property
    def cursor(self) -> Cursor:
        """The place in the log at which it is true."""

    @property
    def rows(self) -> int:
        """How many balances it has."""

    @property
    def over(self) -> bool:
        """Its view was revoked."""

    async def page(self, size: int) -> Sequence[BalanceState]:
        """The next balances, at most `size`; none at the end. Raises SnapshotRevoked, Unavailable."""

    def close(self) -> None:
        """Give the view back. May be called again."""


class SmallSnapshot(msgspec.Struct):
    """A small snapshot, which is in memory and holds no view."""

    cursor: Cursor
    states: list[BalanceState]
    over: bool = False
    _read: int = 0

    @property
    def rows(self) -> int:
        return len(self.states)

    async def page(self, size: int) -> Sequence[BalanceState]:
        first, self._read = self._read, self._read + size
        return self.states[first : self._read]

    def close(self) -> None:
        pass
