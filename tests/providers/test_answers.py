"""What the five APIs share: bytes that are no answer, failures in one line."""

import pytest

from tests.providers import golden
from tests.providers.tables import answered, built
from watcher.providers.answers import one_line
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


@pytest.mark.parametrize(
    ("kind", "good", "old", "new"),
    [
        ("jupiter", golden.F1, b'"amount":"0"', b'"amount":"9","slot":1,"amount":"0"'),
        ("bloxroute", golden.F5, b'"settledAmount"', b'"settledAmount":7,"settledAmount"'),
        ("helius", golden.F11, b'"amount"', b'"amount":"7","amount"'),
        ("helius", golden.F11, b'"slot"', b'"slot":7,"slot"'),
        ("tokenkit", golden.F17_BATCH, b'"balance"', b'"balance":"7","balance"'),
    ],
)
def test_a_member_told_twice_in_one_object_gives_no_reading(kind, good, old, new):
    assert old in good
    with pytest.raises(Malformed, match="contradicts"):
        answered(built(kind, WATCHES[kind]), good.replace(old, new))


def test_the_same_name_in_another_place_is_no_contradiction():
    body = golden.F11.replace(b'"result":{', b'"result":{"note":{"amount":"7","slot":1},')
    assert answered(built("helius", WATCHES["helius"]), body) == answered(
        built("helius", WATCHES["helius"]), golden.F11
    )


def test_text_from_outside_is_made_one_short_printable_line():
    assert one_line("a\r\n\tb\x1b[31m\x00c") == "a b [31m c"
    assert len(one_line("x" * 10_000)) == 160
