"""What strangers pack into a few bytes is unpacked within bounds, and read as the client reads all else."""

import struct
import tracemalloc

import cramjam
import pytest
from aiokafka import ConsumerRecord
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from watcher.journal.kafka.hint_batches import (
    ANSWER_BYTES,
    BATCH_BYTES,
    CODEC,
    FRAME,
    GZIP,
    HEAD,
    LZ4,
    OLDEST_MS,
    SNAPPY,
    ZSTD,
    bounded,
    fresh,
)
from watcher.model.hints import MOST_BYTES

CODECS = {"none": 0, "gzip": GZIP, "snappy": SNAPPY, "lz4": LZ4, "zstd": ZSTD}
PACKED = [name for name in CODECS if name != "none"]
ATTRIBUTES = FRAME.size + struct.calcsize(">ibI")
APPENDED = 0x08
"""The attribute of batches whose time is the broker's."""


def batch(values, offset=0, codec="none", times=None):
    """As a producer makes it, at the place that the broker gives it."""
    builder = DefaultRecordBatchBuilder(2, CODECS[codec], 0, -1, -1, -1, 1 << 40)
    for number, value in enumerate(values):
        time = 1000 + number if times is None else times[number]
        assert builder.append(number, time, key=None, value=value, headers=[]) is not None
    return struct.pack(">q", offset) + bytes(builder.build())[8:]


def patched(packed, place, form, value):
    found = bytearray(packed)
    struct.pack_into(form, found, place, value)
    return bytes(found)


def read(fetched):
    """(offset, time, value) of each record as the client reads it, and where it goes on."""
    memory, records, after = MemoryRecords(fetched), [], None
    while memory.has_next():
        one = memory.next_batch()
        assert one.validate_crc()
        assert not one.attributes & CODEC
        records += [(record.offset, record.timestamp, record.value) for record in one]
        after = one.next_offset
    return records, after


@given(
    st.lists(
        st.tuples(st.lists(st.binary(max_size=300), min_size=1, max_size=20), st.sampled_from([*CODECS])), max_size=6
    )
)
def test_what_is_within_the_bounds_is_read_as_it_was_written(written):
    fetched, expected = b"", []
    for values, codec in written:
        offset = len(expected)
        fetched += batch(values, offset, codec)
        expected += [(offset + number, 1000 + number, value) for number, value in enumerate(values)]
    records, after = read(bounded(fetched))
    assert records == expected
    assert after == (len(expected) or None)


@pytest.mark.parametrize("codec", PACKED)
def test_a_bomb_is_stepped_over_and_takes_neither_memory_nor_what_stands_beside_it(codec):
    bomb = batch([b"\0" * 50_000_000] * 2, 1, codec)
    fetched = batch([b"before"], 0, codec) + bomb + batch([b"behind"], 3, codec)
    tracemalloc.start()
    try:
        found = bounded(fetched)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    records, after = read(found)
    assert records == [(0, 1000, b"before"), (3, 1000, b"behind")]
    assert after == 4
    assert peak < 4 * BATCH_BYTES + len(fetched)


def test_a_batch_may_unpack_to_so_much_and_no_more():
    empty = len(batch([b""])) - FRAME.size - HEAD.size
    for more, read_whole in ((-20, True), (20, False)):
        records, after = read(bounded(batch([b"x" * (BATCH_BYTES - empty + more)], 0, "zstd")))
        assert bool(records) is read_whole
        assert after == 1


def test_of_more_than_an_answer_may_unpack_to_the_newest_is_read():
    values = [b"x" * 1000] * 400
    batches = [batch(values, number * 400, "lz4") for number in range(8)]
    records, after = read(bounded(b"".join(batches)))
    assert len(records) == ANSWER_BYTES // 400_000 * 400
    assert records[-1][0] + 1 == after == 3200
    assert [offset for offset, _, _ in records] == list(range(records[0][0], 3200))


def test_bombs_cost_no_more_than_an_answer_may(monkeypatch):
    tried = []
    decompress = cramjam.zstd.decompress_into
    monkeypatch.setattr(
        cramjam.zstd, "decompress_into", lambda *given: tried.append(len(given[1])) or decompress(*given)
    )
    bomb = batch([b"\0" * 2_000_000], 0, "zstd")
    assert read(bounded(b"".join(patched(bomb, 0, ">q", number) for number in range(500))))[1] == 500
    assert sum(tried) <= ANSWER_BYTES


@pytest.mark.parametrize("codec", PACKED)
def test_what_cannot_be_unpacked_is_stepped_over(codec):
    good = batch([b"hint"] * 50, 0, codec)
    for spoilt in (
        good[: FRAME.size + HEAD.size] + b"\xff" * (len(good) - FRAME.size - HEAD.size),
        patched(good[:-4], 8, ">i", len(good) - 4 - FRAME.size),
        patched(good, ATTRIBUTES, ">h", 7),
    ):
        assert read(bounded(spoilt + batch([b"next"], 50))) == ([(50, 1000, b"next")], 51)


def test_blocks_of_snappy_without_javas_stream_are_read():
    plain = batch([b"hint"] * 50)
    packed = plain[: FRAME.size + HEAD.size] + bytes(cramjam.snappy.compress_raw(plain[FRAME.size + HEAD.size :]))
    packed = patched(patched(packed, 8, ">i", len(packed) - FRAME.size), ATTRIBUTES, ">h", SNAPPY)
    assert read(bounded(packed)) == read(plain)


def test_the_time_that_a_broker_gave_counts():
    mark = patched(batch([b"hint"], 0, "gzip", times=[5]), ATTRIBUTES, ">h", GZIP | APPENDED)
    stamped = patched(mark, ATTRIBUTES + struct.calcsize(">hiq"), ">q", 1_700_000_000_000)
    assert read(bounded(stamped))[0] == [(0, 1_700_000_000_000, b"hint")]


def test_a_batch_of_a_time_before_kafka_0_11_is_stepped_over():
    builder = LegacyRecordBatchBuilder(1, GZIP, 1 << 20)
    builder.append(0, timestamp=1, key=None, value=b"hint")
    assert read(bounded(bytes(builder.build()) + batch([b"next"], 1))) == ([(1, 1000, b"next")], 2)


def test_a_batch_that_the_broker_cut_off_is_left_for_the_next_answer():
    whole, cut = batch([b"hint"], 0, "zstd"), batch([b"next"], 1)[:-3]
    assert read(bounded(whole + cut)) == ([(0, 1000, b"hint")], 1)
    assert bounded(cut) == bounded(b"") == b""


@given(st.binary(max_size=400), st.sampled_from(PACKED))
def test_any_bytes_are_taken(noise, codec):
    bounded(noise)
    packed = batch([b"hint"], 0, codec)
    bounded(packed[: FRAME.size + 5] + noise)
    found = bounded(patched(packed[: FRAME.size + HEAD.size] + noise, 8, ">i", HEAD.size + len(noise)))
    assert MemoryRecords(found).next_batch().next_offset == 1


def record(value, time):
    return ConsumerRecord("t", 0, 0, time, 1, None, value, None, -1, -1, ())


def test_a_hint_is_small_and_not_older_than_a_minute():
    now = 1_700_000_000_123_456
    at = now // 1000
    records = [
        record(b"new", at),
        record(b"of a broker whose clock is ahead", at + 3_600_000),
        record(b"of a minute ago", at - OLDEST_MS),
        record(b"older", at - OLDEST_MS - 1),
        record(b"x" * MOST_BYTES, at),
        record(b"x" * (MOST_BYTES + 1), at),
        record(None, at),
    ]
    assert fresh(records, now) == [*(records[number].value for number in (0, 1, 2, 4)), b"", b""]
