"""The records of the topics, as bytes: events, state, notes, the markers of a log, the claims of owners. Pure."""

import hashlib
from collections.abc import Iterable, Iterator
from math import inf
from typing import NamedTuple

import msgspec

from watcher.journal import Batch, Restored
from watcher.journal.record_limits import MAX_RECORD_BYTES, UNENCODABLE, UNPARSABLE, refuse_unfit, too_large
from watcher.model.events import JSON, BalanceState, Codec, CommitRow, ProviderHealth, codec_of
from watcher.model.keys import Key
from watcher.model.log import Published
from watcher.model.times import parse_rfc3339

Headers = list[tuple[str, bytes]]

MARKER = b"marker"
PARTITION_BY = "provider"
"""The rule of this version; see model/partitions.py."""
OWNER = b"owner"
CONTROL_KEYS = (OWNER, MARKER)
"""Keys of the records of the state topic that are neither balances nor notes."""
CONTENT_TYPE = "content-type"
BINARY: tuple[str, bytes] = (CONTENT_TYPE, b"application/octet-stream")
PART_HEADER = "part"
"""Header of a note in several records, `<digest of the whole>.<index>.<count>`; only they have it."""
PART_BYTES = 250_000
"""Bytes of a note in one record. A broker takes 1 MiB by default; two parts fill one of our batches."""


class TopicNames(NamedTuple):
    """The names of the three topics, under the configured prefix."""

    changed: str
    state: str
    heartbeat: str

    @classmethod
    def under(cls, prefix: str) -> "TopicNames":
        return cls(*(f"{prefix}balances.{name}.v1" for name in ("changed", "state", "heartbeat")))


class OutgoingRecord(NamedTuple):
    """One record to be sent to a partition of ours."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers


class LogMarker(msgspec.Struct, frozen=True):
    """Key `marker` of each state partition: the identity of the log. Written by `init`, to all of them at once."""

    epoch: str
    """Lower-case hex: the epoch of every cursor into this log."""
    partition_by: str = "account"
    """What decides a key's partition. Markers of before name no rule: theirs was provider, chain and account."""


class OwnerRecord(msgspec.Struct, frozen=True, order=True):
    """Key `owner` of each state partition: who writes it. The greater one stays; fields in order of weight."""

    generation: int
    instance: str
    group: str = ""
    """The fleet that the instance belongs to; empty: none, it writes all partitions alone."""
    released: bool = False
    """It has let go in order: nobody need wait for it."""
    in_doubt: float = 0.0
    """Seconds: it let go, having asked nothing, when the owner before it could ask for so long yet."""

    @property
    def doubt(self) -> float:
        """Seconds for which somebody may ask yet; inf unless it has let go."""
        return self.in_doubt if self.released else inf


def decode_marker(value: bytes) -> LogMarker:
    return msgspec.json.decode(value, type=LogMarker)


def encode_control(mark: LogMarker | OwnerRecord) -> bytes:
    return msgspec.json.encode(mark)


def control_record(topic: str, key: bytes, value: LogMarker | OwnerRecord) -> OutgoingRecord:
    return OutgoingRecord(topic, key, encode_control(value), [(CONTENT_TYPE, JSON.content_type.encode())])


class Encoder:
    """Batches as records, in one encoding. `source` is the beginning of every event's `ce_source`."""

    def __init__(self, topics: TopicNames, codec: Codec, source: str) -> None:
        self._topics = topics
        self._codec = codec
        self._source = source
        self._content_type = (CONTENT_TYPE, codec.content_type.encode())

    def batch(self, epoch: str, batch: Batch) -> list[OutgoingRecord]:
        """Every event of the log `epoch` beside the state it leads to, then the notes. Raises Rejected."""
        records: list[OutgoingRecord] = []
        unfit: dict[str, str] = {}
        for row in batch.rows:
            try:
                row_records = list(self._row(epoch, row))
            except UNENCODABLE as error:
                unfit[str(row.state.key)] = f"not to be encoded: {error}"
                continue
            if (size := max(map(_size, row_records))) > MAX_RECORD_BYTES:
                unfit[str(row.state.key)] = too_large(size)
            elif not Key.parsable(str(row.state.key)):
                unfit[str(row.state.key)] = UNPARSABLE
            records += row_records
        refuse_unfit(unfit)
        for name, note in batch.notes.items():
            records += note_records(self._topics.state, name, note)
        return records

    def _row(self, epoch: str, row: CommitRow) -> Iterator[OutgoingRecord]:
        key = str(row.state.key).encode()
        if row.event is not None:
            headers = [
                ("ce_specversion", b"1.0"),
                ("ce_type", b"balance.changed.v1"),
                ("ce_source", f"{self._source}/{epoch}/{row.event.provider}".encode()),
                ("ce_id", row.event.id.encode()),
                ("ce_time", row.event.observed_at.encode()),
                ("ce_subject", key),
                ("ce_balanceversion", b"%d" % row.event.version),
                self._content_type,
            ]
            yield OutgoingRecord(self._topics.changed, key, self._codec.encode(row.event), headers)
        yield OutgoingRecord(self._topics.state, key, self._codec.encode(row.state), [self._content_type])

    def health(self, health: ProviderHealth) -> OutgoingRecord:
        return OutgoingRecord(
            self._topics.heartbeat, health.provider.encode(), self._codec.encode(health), [self._content_type]
        )


def _size(record: OutgoingRecord) -> int:
    return len(record.key) + len(record.value) + sum(len(name) + len(value) for name, value in record.headers)


def note_records(topic: str, name: str, note: bytes) -> Iterator[OutgoingRecord]:
    """A note under its name; one beyond PART_BYTES in parts, keyed `name`, `name#1`, … in this order.

    Parts that a shorter successor leaves behind stay in the topic. Nothing joins them: see NoteAssembler.
    """
    if len(note) <= PART_BYTES:
        yield OutgoingRecord(topic, name.encode(), note, [BINARY])
        return
    digest = hashlib.blake2b(note, digest_size=8).hexdigest()
    parts = [note[start : start + PART_BYTES] for start in range(0, len(note), PART_BYTES)]
    for index, part in enumerate(parts):
        key = f"{name}#{index}" if index else name
        yield OutgoingRecord(
            topic, key.encode(), part, [BINARY, (PART_HEADER, f"{digest}.{index}.{len(parts)}".encode())]
        )


def decode_event(
    partition: int, offset: int, key: bytes, value: bytes, headers: Iterable[tuple[str, bytes]]
) -> Published:
    """An event as it stands in the log. Raises ValueError or KeyError for a record that is not ours."""
    found = dict(headers)
    codec = codec_of(found[CONTENT_TYPE].decode())
    return Published(
        key=Key.parse(key.decode()),
        version=int(found["ce_balanceversion"]),
        data=value if codec is JSON else JSON.encode(codec.event(value)),
        partition=partition,
        position=offset,
        observed_at=parse_rfc3339(found["ce_time"].decode()),
    )


def decode_health(value: bytes, headers: Iterable[tuple[str, bytes]]) -> ProviderHealth:
    codec = codec_of(dict(headers)[CONTENT_TYPE].decode())
    decode = msgspec.json.decode if codec is JSON else msgspec.msgpack.decode
    return decode(value, type=ProviderHealth)


def decode_state(value: bytes, headers: Iterable[tuple[str, bytes]]) -> BalanceState:
    return codec_of(dict(headers)[CONTENT_TYPE].decode()).state(value)


def state_after(event: Published) -> BalanceState:
    """What an event says of the state. Without what only a writer needs: the order and the amounts it had."""
    return msgspec.convert(msgspec.json.decode(event.data), BalanceState)


def state_before(event: Published) -> BalanceState:
    """The state that an event came from, as far as it says."""
    change, after = JSON.event(event.data), state_after(event)
    return msgspec.structs.replace(
        after,
        version=change.version - 1,
        amount=change.previous_amount,
        observed_at=change.previous_observed_at,
        slot=None,
        as_of=None,
    )


class NoteAssembler:
    """The small records, joined again from their parts.

    The parts of one writing stand in order in one transaction, and cleaning keeps that order. So what is not the next
    part of the writing that began last is the rest of one that was replaced.
    """

    def __init__(self) -> None:
        self.complete: dict[str, bytes] = {}
        self._begun: dict[str, tuple[str, list[bytes]]] = {}

    def add(self, key: bytes, value: bytes, headers: Iterable[tuple[str, bytes]]) -> None:
        name, found = key.decode(), dict(headers)
        if PART_HEADER in found:
            digest, index, count = found[PART_HEADER].decode().split(".")
            self._part(name.removesuffix(f"#{index}"), digest, int(index), int(count), value)
        else:
            self._begun.pop(name, None)
            self.complete[name] = value

    def _part(self, name: str, digest: str, index: int, count: int, value: bytes) -> None:
        if index == 0:
            self._begun[name] = (digest, [])
        begun, parts = self._begun.get(name, ("", []))
        if begun == digest and len(parts) == index:
            parts.append(value)
        if begun == digest and len(parts) == count:
            self.complete[name] = b"".join(parts)
            del self._begun[name]


class PartitionContents:
    """What one state partition holds: of each balance, marker and owner the last record, decoded once, at the end; the notes."""

    def __init__(self) -> None:
        self._last: dict[bytes, tuple[bytes, tuple[tuple[str, bytes], ...]]] = {}
        self._notes = NoteAssembler()
        self.owner_at = 0
        """The offset of the last owner's record."""

    def add(self, key: bytes, value: bytes, headers: tuple[tuple[str, bytes], ...], offset: int = 0) -> None:
        """Keys of balances contain `/`; what else has no control key is a note."""
        if b"/" in key or key in CONTROL_KEYS:
            self._last[key] = (value, headers)
            if key == OWNER:
                self.owner_at = offset
        else:
            self._notes.add(key, value, headers)

    @property
    def owner(self) -> OwnerRecord | None:
        found = self._last.get(OWNER)
        return msgspec.json.decode(found[0], type=OwnerRecord) if found else None

    @property
    def marker(self) -> LogMarker | None:
        found = self._last.get(MARKER)
        return decode_marker(found[0]) if found else None

    def restored(self, epoch: str, fenced_at: float, *, released: bool) -> Restored:
        states = [decode_state(*record) for key, record in self._last.items() if b"/" in key]
        doubt = inf if self.owner is None else self.owner.doubt
        return Restored(states, dict(self._notes.complete), epoch, fenced_at, released, doubt)
