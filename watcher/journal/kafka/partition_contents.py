"""What one partition of the log holds, read back: its balances, and what stands beside them. Pure."""

from math import inf

import msgspec

from watcher.journal import Restored
from watcher.journal.kafka.internal_records import (
    CONTROL_KEYS,
    MARKER,
    OWNER,
    LogMarker,
    NoteAssembler,
    OwnerRecord,
    decode_marker,
)
from watcher.journal.kafka.records import ConsumedRecord, NotABalance, TopicNames, decode_balance, foreign_records
from watcher.model.events import BalanceState

RecordHeaders = tuple[tuple[str, bytes], ...]


class InternalContents:
    """The internal topic's part: the last marker and owner, and the notes."""

    def __init__(self) -> None:
        self._controls: dict[bytes, bytes] = {}
        self._controls_at: dict[bytes, int] = {}
        self._notes = NoteAssembler()

    def take(self, record: ConsumedRecord) -> None:
        key, value = record.key, record.value
        if value is None:
            return
        if key in CONTROL_KEYS:
            self._controls[key], self._controls_at[key] = value, record.offset
        else:
            self._notes.add(key, value, record.headers)

    @property
    def owner(self) -> OwnerRecord | None:
        found = self._controls.get(OWNER)
        return msgspec.json.decode(found, type=OwnerRecord) if found else None

    @property
    def owner_at(self) -> int:
        """The offset of the last owner's record."""
        return self._controls_at.get(OWNER, 0)

    @property
    def marker(self) -> LogMarker | None:
        found = self._controls.get(MARKER)
        return decode_marker(found) if found else None

    @property
    def events_from(self) -> int:
        """Where the events of this log begin."""
        return 0 if self.marker is None else self.marker.events_from

    @property
    def state_end(self) -> int:
        """Where the states ended when the last owner of this log opened them."""
        return self._owner_of_this_log.state_end

    @property
    def crossed_end(self) -> int:
        """The same of the crossings."""
        return self._owner_of_this_log.crossed_end

    @property
    def _owner_of_this_log(self) -> OwnerRecord:
        """The last one, if the log is not newer; else one that knows of nothing."""
        owner = self.owner
        return owner if owner is not None and self.owner_at > self._controls_at.get(MARKER, 0) else OwnerRecord(0, "")

    @property
    def notes(self) -> dict[str, bytes]:
        return dict(self._notes.complete)


class PartitionContents:
    """Both: of each balance the last record, decoded once, at the end."""

    def __init__(self, topics: TopicNames, partition: int) -> None:
        self.internal = InternalContents()
        self._topics = topics
        self._partition = partition
        self._balances: dict[bytes, tuple[bytes, RecordHeaders]] = {}

    def take(self, record: ConsumedRecord) -> None:
        if record.topic != self._topics.state:
            self.internal.take(record)
        elif record.value is None:
            self._balances.pop(record.key, None)
        else:
            self._balances[record.key] = (record.value, record.headers)

    def restored(self, epoch: str, fenced_at: float, *, released: bool) -> Restored:
        """Raises WrongJournal when the state topic holds what is not a balance."""
        owner = self.internal.owner
        doubt = inf if owner is None else owner.doubt
        return Restored(self._states(), self.internal.notes, epoch, fenced_at, released, doubt)

    def _states(self) -> list[BalanceState]:
        states: list[BalanceState] = []
        for key, (value, headers) in self._balances.items():
            try:
                states.append(decode_balance(key, value, headers))
            except NotABalance as error:
                raise foreign_records(self._topics, self._partition, key) from error
        return states
