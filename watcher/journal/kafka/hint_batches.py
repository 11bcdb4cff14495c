# mypy: disallow-untyped-calls=False
"""What a broker gives of the hints, before the client looks at it: a few compressed bytes may stand for gigabytes.

The client unpacks a batch whole, whatever its size. So batches are unpacked here first, within bounds, and it is given
plain ones; one that exceeds them, or that nobody can read, is given without its records, and the client steps over it. Pure.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import cramjam
from aiokafka.record.util import calc_crc32c

from watcher.journal.kafka.records import ConsumedRecord
from watcher.model.hints import MOST_BYTES

BATCH_BYTES = 512 * 1024
"""That one batch may unpack to."""
ANSWER_BYTES = 4 * BATCH_BYTES
"""That is unpacked of one answer: its newest."""
OLDEST_MS = 60_000
"""Milliseconds after which a hint says nothing any more."""
FRAME = struct.Struct(">qi")
"""How every batch begins: its offset, and the length of what follows."""
HEAD = struct.Struct(">ibIhiqqqhii")
CHECKED = struct.calcsize(">ibI")
"""Bytes of the head before what its checksum covers."""
MAGIC = 2
"""Of today's format. What is older comes from clients of a time before Kafka 0.11."""
CODEC = 0x07
GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
XERIAL = b"\x82SNAPPY\x00"
XERIAL_HEAD = 16
"""Bytes before the blocks of Java's stream of snappy."""
UNREADABLE = (cramjam.DecompressionError, zlib.error, struct.error, ValueError)


class _Head(NamedTuple):
    epoch: int
    magic: int
    checksum: int
    attributes: int
    last: int
    """Of its records, counted from its offset."""
    first_time: int
    last_time: int
    producer: int
    producer_epoch: int
    sequence: int
    records: int


NO_RECORDS = _Head(-1, MAGIC, 0, 0, 0, -1, -1, -1, -1, -1, 0)


def fresh(records: Iterable[ConsumedRecord], now: int) -> list[bytes]:
    """Those that are new enough. A tombstone, and what is too long, is given as nothing: it counts as no hint. `now`: wall-clock
    microseconds."""
    oldest = now // 1000 - OLDEST_MS
    return [
        record.value if record.value is not None and len(record.value) <= MOST_BYTES else b""
        for record in records
        if record.timestamp >= oldest
    ]


def bounded(fetched: bytes) -> bytes:
    """The batches of an answer, none of them compressed."""
    left, buffer = ANSWER_BYTES, memoryview(bytearray(BATCH_BYTES))
    plain: list[bytes] = []
    for offset, body in reversed(list(_batches(memoryview(fetched)))):
        head = _Head._make(HEAD.unpack_from(body))
        codec = head.attributes & CODEC
        if head.magic != MAGIC:
            plain.append(_packed(offset, NO_RECORDS, b""))
        elif not codec:
            plain.append(FRAME.pack(offset, len(body)) + body)
        else:
            head = head._replace(attributes=head.attributes & ~CODEC)
            records = _unpacked(codec, body[HEAD.size :], buffer[:left])
            left -= BATCH_BYTES if records is None else len(records)
            left = max(0, left)
            plain.append(
                _packed(offset, head._replace(records=0), b"") if records is None else _packed(offset, head, records)
            )
    return b"".join(reversed(plain))


def _batches(rest: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Offset and body of each. The last one may be cut off: it comes again."""
    while len(rest) >= FRAME.size + HEAD.size:
        offset, length = FRAME.unpack_from(rest)
        end = FRAME.size + length
        if length < HEAD.size or len(rest) < end:
            return
        yield offset, rest[FRAME.size : end]
        rest = rest[end:]


def _packed(offset: int, head: _Head, records: bytes | memoryview) -> bytes:
    body = bytearray(HEAD.pack(*head) + records)
    struct.pack_into(">I", body, CHECKED - 4, calc_crc32c(body[CHECKED:]))
    return FRAME.pack(offset, len(body)) + body


def _unpacked(codec: int, packed: memoryview, buffer: memoryview) -> bytes | None:
    """What it unpacks to; None: more than the buffer holds, or nothing that can be read."""
    try:
        return bytes(buffer[: _unpack(codec, packed, buffer)])
    except UNREADABLE:
        return None


def _unpack(codec: int, packed: memoryview, buffer: memoryview) -> int:
    """Into the buffer; how many bytes. Raises one of UNREADABLE."""
    if codec == GZIP:
        stream = zlib.decompressobj(wbits=31)
        found = stream.decompress(packed, len(buffer) + 1)  # 0 would mean: without a bound
        buffer[: len(found)] = found
        if not stream.eof:
            raise zlib.error("cut off")
        return len(found)
    if codec == SNAPPY:
        return _unpack_snappy(packed, buffer)
    unpack = {LZ4: cramjam.lz4.decompress_into, ZSTD: cramjam.zstd.decompress_into}.get(codec)
    if unpack is None:
        raise ValueError("no codec")
    return int(unpack(packed, buffer))


def _unpack_snappy(packed: memoryview, buffer: memoryview) -> int:
    """A block, or Java's stream of blocks with the length of each before it."""
    if bytes(packed[: len(XERIAL)]) != XERIAL:
        return int(cramjam.snappy.decompress_raw_into(packed, buffer))
    packed, size = packed[XERIAL_HEAD:], 0
    while packed:
        (length,) = struct.unpack_from(">I", packed)
        size += cramjam.snappy.decompress_raw_into(packed[4 : 4 + length], buffer[size:])
        packed = packed[4 + length :]
    return size
