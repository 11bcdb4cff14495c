"""What a schedule keeps over a restart: one record, with a column of numbers for each thing learned of the targets."""

import hashlib
import sys
from array import array
from collections.abc import Iterable

import msgspec

from watcher.scheduling.change_rates import SHAPES


class SavedSchedule(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    pace: float  # seconds per target
    changes: float
    seconds: float
    scores: list[float]
    changes_seen: float = msgspec.field(name="told")  # as it was called first
    delay: float
    names: bytes  # 8 bytes of digest each
    columns: list[bytes]  # a, b, af, bf, odds: little-endian float32
    ages: bytes  # seconds since the last reading

    def __post_init__(self) -> None:
        sizes = {len(column) * 2 for column in (*self.columns, self.ages)}
        if sizes != {len(self.names)} or len(self.columns) != 5 or len(self.scores) != len(SHAPES):
            raise ValueError("not a saved schedule: its columns do not match")
        if not (self.seconds > 0 and self.changes >= 0 and self.pace >= 0):
            raise ValueError("not a saved schedule: its rates are impossible")


def name_digest(name: str) -> int:
    """Eight bytes of its hash, the same on any machine in memory and saved."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), sys.byteorder)


def pack(values: Iterable[float]) -> bytes:
    return _little(array("f", values)).tobytes()


def unpack(data: bytes, size: int) -> "array[float]":
    values = array("f", data)
    if len(values) != size:
        raise ValueError("not a saved schedule: a name stands in it twice")
    return _little(values)


def _little(values: "array[float]") -> "array[float]":
    if sys.byteorder == "big":
        values.byteswap()
    return values
