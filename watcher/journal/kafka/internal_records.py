"""The records of the internal topic, as bytes: the markers of a log, the claims of owners, notes. Pure.

They are nobody's business but ours, and so stand in a topic of their own: a table over the state finds balances alone.
"""

import hashlib
from collections.abc import Iterable, Iterator
from math import inf

import msgspec

from watcher.journal.kafka.records import CONTENT_TYPE, OutgoingRecord
from watcher.model.events import JSON, BalanceState

MARKER = b"marker"
PARTITION_BY = "provider"
"""The rule of this version; see model/partitions.py."""
OWNER = b"owner"
CONTROL_KEYS = (OWNER, MARKER)
"""Keys of the records that are no notes."""
BINARY: tuple[str, bytes] = (CONTENT_TYPE, b"application/octet-stream")
PART_HEADER = "part"
"""Header of a note in several records, `<digest of the whole>.<index>.<count>`; only they have it."""
BESIDE_HEADER = "beside"
"""Header of a note, `<version>/<key>` of a balance in the same transaction; without balances it has none. It says how a
transaction ended that the cluster has forgotten in another topic: see dangling_transactions.py."""
CROSSED_HEADER = "crossed"
"""Header of a note, the id of a crossing in the same transaction, for the same."""
PART_BYTES = 250_000
"""Bytes of a note in one record. A broker takes 1 MiB by default; two parts fill one of our batches."""


class LogMarker(msgspec.Struct, frozen=True):
    """Key `marker` of each partition: the identity of the log. Written by `init`, to all of them at once."""

    epoch: str
    """Lower-case hex: the epoch of every cursor into this log."""
    partition_by: str = "account"
    """What decides a key's partition. Markers of before name no rule: theirs was provider, chain and account."""
    events_from: int = 0
    """Where the events of this partition ended when the log began: those before belong to another one."""


class OwnerRecord(msgspec.Struct, frozen=True, order=True):
    """Key `owner` of each partition: who writes it. The greater one stays; fields in order of weight."""

    generation: int
    instance: str
    group: str = ""
    """The fleet that the instance belongs to; empty: none, it writes all partitions alone."""
    released: bool = False
    """It has let go in order: nobody need wait for it."""
    in_doubt: float = 0.0
    """Seconds: it let go, having asked nothing, when the owner before it could ask for so long yet."""
    state_end: int = 0
    """Where the states of this partition ended when it opened them. They end before that only if they were lost."""
    crossed_end: int = 0
    """The same of its crossings."""

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


def note_records(
    topic: str, name: str, note: bytes, *, beside: BalanceState | None, crossed: str | None = None
) -> Iterator[OutgoingRecord]:
    """A note under its name; one beyond PART_BYTES in parts, keyed `name`, `name#1`, … in this order.
    `beside`: a state of the same transaction, `crossed`: the id of a crossing in it, if there is one.

    Parts that a shorter successor leaves behind stay in the topic. Nothing joins them: see NoteAssembler.
    """
    headers = [BINARY]
    if beside is not None:
        headers.append((BESIDE_HEADER, f"{beside.version}/{beside.key}".encode()))
    if crossed is not None:
        headers.append((CROSSED_HEADER, crossed.encode()))
    if len(note) <= PART_BYTES:
        yield OutgoingRecord(topic, name.encode(), note, headers)
        return
    digest = hashlib.blake2b(note, digest_size=8).hexdigest()
    parts = [note[start : start + PART_BYTES] for start in range(0, len(note), PART_BYTES)]
    for index, part in enumerate(parts):
        key = f"{name}#{index}" if index else name
        yield OutgoingRecord(
            topic, key.encode(), part, [*headers, (PART_HEADER, f"{digest}.{index}.{len(parts)}".encode())]
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


def beside_of(headers: Iterable[tuple[str, bytes]]) -> tuple[bytes, int] | None:
    """Key and version of the balance that was committed beside a note, if one was."""
    found = dict(headers).get(BESIDE_HEADER)
    if found is None:
        return None
    version, _, key = found.partition(b"/")
    return key, int(version)


def crossed_of(headers: Iterable[tuple[str, bytes]]) -> bytes | None:
    """The id of a crossing that was committed beside a note, if one was."""
    return dict(headers).get(CROSSED_HEADER)
