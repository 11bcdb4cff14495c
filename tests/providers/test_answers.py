"""What the five APIs share: bytes that are no answer, failures in one line."""

import json
import re

import pytest

from tests.providers import golden
from tests.providers.tables import LATER, answered, built
from watcher.providers.answers import BOM
from watcher.providers.failures import Failure, Malformed

WATCHES = {
    "jupiter": {"account": golden.ACCOUNT},
    "bloxroute": {"account": golden.ACCOUNT},
    "helius": {"account": golden.TOKEN_ACCOUNT},
    "ondo": {"chain": "ethereum-1"},
    "tokenkit": {"account": golden.STARK_ACCOUNT, "token": golden.STARK_TOKEN},
}


@pytest.mark.parametrize("kind", WATCHES)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!doctype html><title>Just a moment...</title>",
        b"\xff\xfe{",
        b'{"SOL":"\xff"}',
        b"[" * 10_000_000,
        b'{"tokens":' * 100_000,
        b'{"a":' * 1_000_000 + b"1",
        b"null",
        b"[]",
        b"{}x",
        b"NaN",
        b'"text"',
        b"\x00" * 1000,
        b"1" * 100_000,
    ],
    ids=lambda body: repr(body[:16]),
)
def test_bytes_that_are_no_answer_give_no_reading_and_one_line(kind, body):
    with pytest.raises(Malformed) as malformed:
        answered(built(kind, WATCHES[kind]), body)
    assert "\n" not in malformed.value.reason
    assert len(malformed.value.reason) < 400


@pytest.mark.parametrize("kind", WATCHES)
@pytest.mark.parametrize(
    "status", [100, 199, 201, 202, 206, 300, 304, 400, 401, 402, 403, 404, 408, 418, 429, 500, 503, 599, 600, 999]
)
def test_no_status_but_200_gives_a_reading(kind, status):
    good = {
        "jupiter": golden.F1,
        "bloxroute": golden.F5,
        "helius": golden.F11,
        "ondo": golden.F14,
        "tokenkit": golden.F17_BATCH,
    }
    with pytest.raises(Failure):
        answered(built(kind, WATCHES[kind]), good[kind], status)


GOOD = {
    "jupiter": golden.F2,
    "bloxroute": golden.F5,
    "helius": golden.F11,
    "ondo": golden.F14,
    "tokenkit": golden.F17_BATCH,
}
MEMBER = re.compile(rb'"([A-Za-z0-9_.]+)"(\s*):')
PAIRS = [(kind, match.span(1)) for kind, body in GOOD.items() for match in MEMBER.finditer(body)]


@pytest.mark.parametrize("again", [b'"%b":', b'"%b" \t:', b'"\\u%04x%b":'])
@pytest.mark.parametrize(("kind", "span"), PAIRS, ids=str)
def test_a_member_told_twice_in_any_object_gives_no_reading(kind, span, again):
    """Also when it says the same, and when the name is written in another way; also one that nobody reads."""
    body = GOOD[kind]
    name, rest = body[slice(*span)], body[span[1] + 1 :].decode().lstrip(" :")
    value = rest[: json.JSONDecoder().raw_decode(rest)[1]].encode()
    first = again % ((name[0], name[1:]) if b"u" in again else name) + value + b","
    provider = built(kind, WATCHES[kind])
    assert answered(provider, body, wall=LATER).readings
    with pytest.raises(Malformed, match="contradicts"):
        answered(provider, body[: span[0] - 1] + first + body[span[0] - 1 :], wall=LATER)


@pytest.mark.parametrize("kind", WATCHES)
def test_a_member_told_twice_in_a_part_that_nobody_reads_gives_no_reading(kind):
    for more in (
        b'"x":{"y":[1,{"z":1,"z":1}]},',
        b'"x":[{":":1,":":2}],',
        b'"x":1e999,"x":1,',
        b'"x":1,"x":"\\u003a",',
    ):
        body = GOOD[kind]
        where = body.index(b"{", 1) + 1
        with pytest.raises(Malformed, match="contradicts"):
            answered(built(kind, WATCHES[kind]), body[:where] + more + body[where:], wall=LATER)


@pytest.mark.parametrize("kind", WATCHES)
def test_the_same_name_in_another_place_is_no_contradiction(kind):
    body = GOOD[kind]
    for more in (
        b'"x":{"amount":"7","slot":1,"balance":{"balance":1}},',
        b'"x":":\\":",":":":","::":" :",',
        b'"x":"\\u003a\\u0022:","\\u0078y":1,',
        b'"x":1e999,"y":123456789012345678901234567890123456789012345678901234567890,"z":-1.5e-7,',
        '"x":"\u00e9:\u4e16","\u00e9":1,'.encode(),
    ):
        where = body.index(b"{", 1) + 1
        longer = body[:where] + more + body[where:]
        one, other = (answered(built(kind, WATCHES[kind]), each, wall=LATER) for each in (body, longer))
        assert (one.readings, one.partial) == (other.readings, other.partial)


@pytest.mark.parametrize("kind", WATCHES)
def test_an_answer_behind_a_byte_order_mark_is_read(kind):
    one, other = (answered(built(kind, WATCHES[kind]), mark + GOOD[kind], wall=LATER) for mark in (b"", BOM))
    assert one == other
    for wrong in (BOM + BOM, b"\xfe\xff", b"\xef\xbb"):
        with pytest.raises(Malformed):
            answered(built(kind, WATCHES[kind]), wrong + GOOD[kind], wall=LATER)


def test_an_error_that_tells_a_member_twice_is_not_taken_at_its_word():
    body = golden.F12_ABSENT.replace(b'"message"', b'"message":"Internal error","message"')
    with pytest.raises(Malformed, match="contradicts"):
        answered(built("helius", WATCHES["helius"]), body)
