"""Bodies as they come from clients, proxies and attackers: in any pieces, and as two readers might understand them differently."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.http11 import Request

from watcher.relay.http import body as bodies
from watcher.relay.http import head as heads
from watcher.relay.http.body import CHUNK_LINE, FRAMING, BodyReader, Framing, expects_continue, framing
from watcher.relay.http.head import HttpAnswer

MOST = 1000


def request(*fields, protocol=b"HTTP/1.1"):
    found = heads.parse(b"\r\n".join([b"POST / " + protocol, *fields, b"", b""]))
    assert isinstance(found, Request), found
    return found


def read(pieces, framing=Framing(None), most=MOST):  # noqa: B008 - a value
    """What becomes of a body that comes in these pieces: the body, a status, or None: it is still coming."""
    reader = BodyReader(framing, most)
    for piece in pieces:
        reader.receive(piece)
        assert reader.held <= most
    return reader.end.status if isinstance(reader.end, HttpAnswer) else reader.end


def chunked(*chunks):
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


# ── How the end is found ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ([], 0),
        ([b"Content-Length: 0"], 0),
        ([b"Content-Length: 12"], 12),
        ([b"Content-Length: 0012"], 12),
        ([b"content-length:\t12 "], 12),
        ([b"Content-Length: " + b"9" * 5000], 9999999999999999999),
        ([b"Content-Length: " + b"0" * 5000 + b"7"], 7),
        ([b"Transfer-Encoding: chunked"], None),
        ([b"Transfer-Encoding: Chunked"], None),
    ],
)
def test_a_body_has_a_length_or_comes_in_chunks(fields, length):
    assert framing(request(*fields)) == Framing(length)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([b"Content-Length: 5", b"Transfer-Encoding: chunked"], 400),
        ([b"Transfer-Encoding: chunked", b"Content-Length: 0"], 400),
        ([b"Transfer-Encoding: identity", b"Content-Length: 5"], 400),
        ([b"Transfer-Encoding: xchunked", b"Content-Length: 5"], 400),
        ([b"Content-Length: 5", b"Content-Length: 6"], 400),
        ([b"Content-Length: 5", b"Content-Length: 5"], 400),
        ([b"Content-Length: 5, 5"], 400),
        ([b"Content-Length: 5 5"], 400),
        ([b"Content-Length: +5"], 400),
        ([b"Content-Length: -1"], 400),
        ([b"Content-Length: 0x5"], 400),
        ([b"Content-Length: 5_0"], 400),
        ([b"Content-Length: 5.0"], 400),
        ([b"Content-Length: 1e3"], 400),
        ([b"Content-Length:"], 400),
        ([b"Content-Length: \xb2"], 400),
        ([b"Transfer-Encoding:"], 400),
        ([b"Transfer-Encoding: identity"], 400),
        ([b"Transfer-Encoding: chunked, identity"], 400),
        ([b"Transfer-Encoding: chunked, chunked"], 400),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], 400),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"], 400),
        ([b"Transfer-Encoding: \x0bchunked"], None),
        ([b"Transfer-Encoding: chunked;q=1"], 400),
        ([b"Transfer-Encoding: gzip, chunked"], 501),
    ],
)
def test_what_two_readers_might_understand_differently_is_refused(fields, status):
    """None: as a head already."""
    head = b"\r\n".join([b"POST / HTTP/1.1", *fields, b"", b""])
    found = heads.parse(head)
    if status is None:
        assert isinstance(found, HttpAnswer)
        return
    assert isinstance(found, Request)
    refused = framing(found)
    assert isinstance(refused, HttpAnswer)
    assert refused.status == status


def test_the_older_protocol_knows_no_chunks_and_waits_for_no_word():
    assert framing(request(b"Transfer-Encoding: chunked", protocol=b"HTTP/1.0")).status == 400
    assert not expects_continue(request(b"Expect: 100-continue", protocol=b"HTTP/1.0"))


@pytest.mark.parametrize(
    ("value", "waits"), [(b"100-continue", True), (b" 100-Continue ", True), (b"200-ok", False), (b"", False)]
)
def test_who_waits_for_a_word_says_so(value, waits):
    assert expects_continue(request(b"Expect: " + value)) is waits


# ── What comes ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("wire", "end"),
    [
        (b"0\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"5;name=value\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b'5 ; a="b"\r\nhello\r\n0;last\r\n\r\n', b"hello"),
        (b"0005\r\nhello\r\n000\r\n\r\n", b"hello"),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
        (b"1\r\na\r\n0\r\nTrailer: x\r\nOther:\r\n\r\n", b"a"),
        (b"1\r\na\r\n0\r\n\r\nGET / HTTP/1.1\r\n", b"a"),
        (b"1\r\na\r\n0\r\n", None),
        (b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n", b"x" * 1000),
        (b"3e9\r\n", 413),
        (b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\n", 413),
        (b"ffffffffffffffffffffffffffffffff\r\n", 413),
        (b"5\nhello\n0\n\n", 400),
        (b"5\r\nhello\n0\r\n\r\n", 400),
        (b"5\r\nhello0\r\n\r\n", 400),
        (b"4\r\nhello\r\n0\r\n\r\n", 400),
        (b"6\r\nhello\r\n0\r\n\r\n", 400),
        (b"-1\r\n", 400),
        (b"+5\r\nhello\r\n", 400),
        (b"0x5\r\nhello\r\n", 400),
        (b"5_0\r\n", 400),
        (b" 5\r\nhello\r\n", 400),
        (b"\r\nhello\r\n", 400),
        (b";a\r\n", 400),
        (b"5\r;\r\nhello\r\n", 400),
        (b"5;\0\r\nhello\r\n", 400),
        (b"5;" + b"a" * CHUNK_LINE + b"\r\nhello\r\n", 400),
        (b"5;" + b"a" * CHUNK_LINE, 400),
        (b"1\r\na\r\n0\r\nno colon\r\n\r\n", 400),
        (b"1\r\na\r\n0\r\n folded: x\r\n\r\n", 400),
        (b"1\r\na\r\n0\r\n" + b"A: b\r\n" * 4000, 400),
        (b"1\r\na\r\n" * 5000, 413),
    ],
)
def test_chunks_are_put_together_or_refused(wire, end):
    assert read([wire]) == end
    assert read(wire[at : at + 1] for at in range(len(wire))) == end


def test_chunks_too_small_to_be_worth_it_are_refused_and_a_few_are_not():
    few = chunked(*[b"x"] * 3000)
    assert read([few], most=10**6) == b"x" * 3000
    many = chunked(*[b"xxxxxxxxxx"] * 10_000)
    assert read([many], most=10**6) == 400
    assert read([chunked(*[b"x" * 100] * 5000)], most=10**6) == b"x" * 500_000


def test_a_line_may_be_so_long_and_no_longer():
    for extra, end in ((0, b"a"), (1, 400)):
        line = b"1;".ljust(CHUNK_LINE - 2 + extra, b"x") + b"\r\n"
        assert read([line + b"a\r\n0\r\n\r\n"]) == end
        assert read([line[:-1], line[-1:] + b"a\r\n0\r\n\r\n"]) == end


PARTS = [
    b"0\r\n", b"1\r\n", b"3;x\r\n", b"a", b"abc", b"\r\n", b"\r", b"\n", b"A: b\r\n", b"3e8\r\n", b"x" * 300, b"y" * 1000, b"\0",
    b"f" * 20, b"0\r\n\r\n",
]  # fmt: skip


@st.composite
def cut(draw, wire):
    """Bytes, and the same bytes in pieces."""
    whole = draw(wire)
    cuts = draw(st.lists(st.integers(0, len(whole)), max_size=12))
    places = [0, *sorted(cuts), len(whole)]
    return whole, [whole[start:end] for start, end in itertools.pairwise(places)]


@given(cut(st.lists(st.sampled_from(PARTS), max_size=40).map(b"".join)))
def test_the_same_bytes_in_any_pieces_come_to_the_same(both):
    whole, pieces = both
    assert read(pieces) == read([whole])


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=20), st.data())
def test_a_body_arrives_whatever_its_chunks_and_pieces(chunks, data):
    body = b"".join(chunks)
    for wire, how in ((chunked(*chunks), Framing(None)), (body, Framing(len(body)))):
        whole, pieces = data.draw(cut(st.just(wire + b"GET / HTTP/1.1\r\n\r\n")))
        assert read(pieces, how, most=2000) == read([whole], how, most=2000) == body


@given(cut(st.binary(max_size=200)), st.integers(0, 250))
def test_nothing_that_comes_raises(both, length):
    read(both[1])
    read(both[1], Framing(length), most=100)


def test_a_length_above_the_most_is_refused_before_a_byte_has_come():
    assert read([], Framing(MOST + 1)) == 413
    assert read([], Framing(MOST)) is None
    assert read([b"x" * MOST], Framing(MOST)) == b"x" * MOST


def test_what_is_refused_is_held_no_more():
    reader = BodyReader(Framing(None), MOST)
    reader.receive(b"64\r\n" + b"x" * 100)
    assert reader.held == 100
    reader.receive(b"no end\r\n")
    assert (reader.held, reader.end.status) == (0, 400)
    reader.receive(b"x" * 100)
    assert reader.held == 0


def test_lines_around_chunks_take_no_more_than_a_line_of_memory():
    reader = BodyReader(Framing(None), MOST)
    reader.receive(b"1\r\na\r\n0\r\n")
    for _ in range(FRAMING):
        reader.receive(b"A")
        assert len(reader._chunks._begun) <= CHUNK_LINE
    assert reader.end == bodies.error(400, "bad_request", bodies.WRONG_CHUNKS)
