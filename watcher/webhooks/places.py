"""Where in the log a webhook stands, as it is kept in the journal, and where it goes on. Pure."""

import msgspec

from watcher.model.log import Bounds, Cursor, GapReason


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """The note of one webhook on one partition."""

    name: str
    """For people who look into the journal."""
    epoch: str
    positions: tuple[int, ...]
    """Of this partition: of its changes, and where crossings stand beside them of those."""
    gone: str | None = None
    """What was configured when the receiver answered 410: to that nothing is sent any more."""


_PLACE = msgspec.json.Decoder(Place)


def decode(data: bytes | None) -> Place | None:
    """None for what no version up to this one has written: the webhook then begins at the head."""
    if not data:
        return None
    try:
        return _PLACE.decode(data)
    except msgspec.DecodeError:
        return None


class Owned(msgspec.Struct, frozen=True):
    """One partition of a log of so many."""

    partition: int
    partitions: int

    def has(self, position: int) -> bool:
        """Whether the position of that index is of this partition: those of crossings stand behind those of changes."""
        return position % self.partitions == self.partition

    def positions(self, cursor: Cursor) -> tuple[int, ...]:
        return tuple(position for index, position in enumerate(cursor.positions) if self.has(index))

    def cursor(self, positions: tuple[int, ...], others: Cursor) -> Cursor:
        """Where this partition stands at these, and all others as there. As many as it has."""
        own = iter(positions)
        found = (next(own) if self.has(index) else position for index, position in enumerate(others.positions))
        return Cursor(others.epoch, tuple(found))


class GoingOn(msgspec.Struct, frozen=True):
    """Where a webhook goes on, and why that is not where it stopped."""

    cursor: Cursor
    gap: GapReason | None = None


def going_on(place: Place | None, owned: Owned, bounds: Bounds) -> GoingOn:
    """A new webhook begins at the head. Other partitions are nobody's business here: they stand at the head.

    `expired`: at the oldest event that is kept, since those before are lost. `ahead`: the log was rolled back: at its head.
    `epoch_changed`: a new log was begun upon the old one, or a copy of it, whose events and positions stay: at the same place,
    as far as there is one.
    """
    head, oldest = bounds.head, owned.positions(bounds.oldest)
    newest = owned.positions(head)
    if place is None:
        return GoingOn(head)
    if len(place.positions) != len(newest):
        return GoingOn(owned.cursor(oldest, head), "epoch_changed")
    if place.epoch != head.epoch:
        beyond = any(mine > theirs for mine, theirs in zip(place.positions, newest, strict=True))
        return GoingOn(owned.cursor(oldest if beyond else _at_least(place.positions, oldest), head), "epoch_changed")
    positions = _at_least(place.positions, oldest)
    gap: GapReason | None = None if positions == place.positions else "expired"
    kept = tuple(map(min, positions, newest))
    return GoingOn(owned.cursor(kept, head), gap if kept == positions else "ahead")


def _at_least(positions: tuple[int, ...], oldest: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(max, positions, oldest))
