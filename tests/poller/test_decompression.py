"""How a body is unpacked: whole, whatever pieces it comes in, and never much further than it may become."""

import gzip
import itertools
import random
import tracemalloc
import zlib

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.poller.decompression import STEP, Decompressor
from watcher.providers.failures import Malformed

TEXT = b'{"SOL":{"amount":"5","slot":10}}' * 40


def raw(data):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def members(data):
    return gzip.compress(data[:100]) + gzip.compress(b"") + gzip.compress(data[100:])


def unpacked(encoding, pieces):
    decompressor = Decompressor(encoding)
    parts = [part for piece in pieces for part in decompressor.parts(piece)]
    decompressor.end()
    return b"".join(parts)


WAYS = [
    ("", bytes),
    ("identity", bytes),
    ("gzip", gzip.compress),
    ("GZIP", gzip.compress),
    ("x-gzip", gzip.compress),
    ("identity, gzip", gzip.compress),
    ("gzip", members),
    ("deflate", zlib.compress),
    ("deflate", lambda data: zlib.compress(data, level=0)),
    ("deflate", raw),
]


@pytest.mark.parametrize(("encoding", "pack"), WAYS)
@given(
    cuts=st.lists(st.integers(0, 1500), max_size=8), data=st.sampled_from([TEXT, b"", b"x"]) | st.binary(max_size=99)
)
def test_a_body_is_whole_whatever_pieces_it_comes_in(encoding, pack, cuts, data):
    packed = pack(data)
    places = [0, *sorted(min(cut, len(packed)) for cut in cuts), len(packed)]
    assert unpacked(encoding, [packed[a:b] for a, b in itertools.pairwise(places)]) == data
    assert unpacked(encoding, [bytes([byte]) for byte in packed]) == data


@pytest.mark.parametrize(("encoding", "pack"), WAYS[2:])
def test_a_body_that_is_cut_short_or_goes_on_is_no_answer(encoding, pack):
    packed = pack(TEXT)
    for end in set(range(1, len(packed))) - whole_ends(packed):
        with pytest.raises(httpx.DecodingError):
            unpacked(encoding, [packed[:end]])
    for more in (b"\x00", b"}", b"garbage", packed[:10]):
        with pytest.raises(httpx.DecodingError):
            unpacked(encoding, [packed, more])
        with pytest.raises(httpx.DecodingError):
            unpacked(encoding, [packed + more])


def whole_ends(packed):
    """Where a member of gzip ends and the next one begins."""
    return {place for place in range(1, len(packed)) if packed.startswith(b"\x1f\x8b\x08", place)}


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_nothing_at_all_is_an_empty_body_and_nonsense_is_none(encoding):
    assert unpacked(encoding, []) == unpacked(encoding, [b"", b""]) == b""
    with pytest.raises(httpx.DecodingError):
        unpacked(encoding, [TEXT])
    with pytest.raises(httpx.DecodingError):
        unpacked(encoding, [gzip.compress(TEXT) if encoding == "deflate" else zlib.compress(TEXT)])


def test_a_flipped_bit_is_seen():
    for pack in (gzip.compress, members):
        packed = bytearray(pack(TEXT))
        packed[-6] ^= 1
        with pytest.raises(httpx.DecodingError):
            unpacked("gzip", [bytes(packed)])


@pytest.mark.parametrize(
    "encoding", ["gzip, gzip", "deflate, gzip", "gzip,identity,gzip", "br", "zstd", "gzip;q=1", "x"]
)
def test_what_we_did_not_ask_for_is_refused_before_a_byte_is_unpacked(encoding):
    with pytest.raises(Malformed, match="did not ask"):
        Decompressor(encoding)


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: gzip.compress(data) * 3])
def test_a_bomb_opens_one_step_at_a_time(pack):
    size = 100 * STEP
    bomb = pack(bytes(size))
    assert len(bomb) < size / 200
    tracemalloc.start()
    try:
        parts = [len(part) for part in Decompressor("gzip").parts(bomb)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert max(parts) <= STEP
    assert sum(parts) % size == 0
    assert peak < 4 * STEP


def test_what_is_hard_to_pack_is_whole_too():
    data = random.Random(1).randbytes(3 * STEP + 7)
    for encoding, pack in (("gzip", gzip.compress), ("deflate", raw)):
        packed = pack(data)
        assert unpacked(encoding, [packed[n : n + 65536] for n in range(0, len(packed), 65536)]) == data
