"""TokenKit's webhooks: whose they are, which came before, and what in them is looked at."""

import hashlib
import hmac
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.hints.figures import SourceFigures
from watcher.hints.tokenkit_webhook import (
    MOST_HINTS,
    MOST_REMEMBERED,
    REMEMBERED,
    TokenkitWebhooks,
    hints_of,
)
from watcher.model.addresses import FELT_BOUND
from watcher.redaction.secret import Secret

SECRETS = {"desk": "whsec-canary-of-the-desk", "fund": "whsec-canary-of-the-fund"}
ACCOUNT, TOKEN = 0x49D36570D4E46F48E99674BD3FCC84644DDD6B96F7C741B1562B82F9E004DC7, 0x53C91253BC9682C04929CA02ED00B3E
BODY = json.dumps({"event": "balance.changed", "account": f"0x{ACCOUNT:x}", "token": f"0x{TOKEN:064x}"}).encode()


def padded(number):
    return f"0x{number:064x}"


def signed(body, secret="desk", delivery="1"):
    digest = hmac.new(SECRETS.get(secret, secret).encode(), body, hashlib.sha256).hexdigest()
    return {"x-tokenkit-signature": f"sha256={digest}", "x-tokenkit-delivery": delivery}


@pytest.fixture
def figures():
    return {name: SourceFigures(name=name, type="tokenkit") for name in SECRETS}


@pytest.fixture
def webhooks(figures):
    return TokenkitWebhooks({name: Secret(value) for name, value in SECRETS.items()}, figures)


def accounts(delivery):
    return [hint.account for hint in delivery.hints]


def test_a_signed_body_hints_at_every_felt_in_it(webhooks):
    delivery = webhooks.received(BODY, signed(BODY), 0.0)
    assert (delivery.status, delivery.source) == (200, "desk")
    assert accounts(delivery) == [padded(ACCOUNT), padded(TOKEN)]
    assert all(hint.provider is hint.chain is hint.token is None for hint in delivery.hints)


def test_each_source_is_known_by_its_secret(webhooks):
    for number, name in enumerate(SECRETS):
        assert webhooks.received(BODY, signed(BODY, name, str(number)), 0.0).source == name


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "",
        "sha256=",
        "sha256=" + "0" * 64,
        "sha1=" + hashlib.sha1(BODY).hexdigest(),
        "sha256=" + hashlib.sha256(BODY).hexdigest(),
        "sha256=" + hmac.new(b"", BODY, hashlib.sha256).hexdigest(),
        hmac.new(SECRETS["desk"].encode(), BODY, hashlib.sha256).hexdigest(),
        "sha256=" + hmac.new(SECRETS["desk"].encode(), BODY, hashlib.sha256).hexdigest()[:-2],
        "sha256=" + hmac.new(SECRETS["desk"].encode(), BODY, hashlib.sha256).hexdigest() + "00",
        "sha256=" + hmac.new(SECRETS["desk"].encode(), BODY + b" ", hashlib.sha256).hexdigest(),
        "sha256=" + "é" * 64,
        "sha256=" + "٣" * 64,
        "sha256=" + "f" * 8000,
    ],
)
def test_a_forged_one_is_refused_counted_and_hints_at_nothing(webhooks, figures, signature):
    headers = {} if signature is None else {"x-tokenkit-signature": signature}
    assert webhooks.received(BODY, headers, 0.0) == (401, None, ())
    assert [each.by_result["rejected"] for each in figures.values()] == [1, 1]


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_no_byte_of_a_signed_body_can_be_another_one(place, change):
    webhooks = TokenkitWebhooks(
        {"desk": Secret(SECRETS["desk"])}, {"desk": SourceFigures(name="desk", type="tokenkit")}
    )
    spoilt = bytearray(BODY)
    spoilt[place] ^= change
    assert webhooks.received(bytes(spoilt), signed(BODY), 0.0).status == 401


def test_the_digest_may_be_written_in_either_case(webhooks):
    headers = signed(BODY)
    kind, _, digest = headers["x-tokenkit-signature"].partition("=")
    assert webhooks.received(BODY, {"x-tokenkit-signature": f"{kind}={digest.upper()}"}, 0.0).status == 200


def test_a_repeat_is_answered_as_the_first_was_and_hints_at_nothing(webhooks, figures):
    assert webhooks.received(BODY, signed(BODY), 0.0).hints
    assert webhooks.received(BODY, signed(BODY), REMEMBERED - 1) == (200, "desk", ())
    assert figures["desk"].by_result["repeated"] == 1
    assert webhooks.received(BODY, signed(BODY, delivery="2"), 1.0).hints


def test_a_delivery_is_forgotten_after_a_while(webhooks):
    webhooks.received(BODY, signed(BODY), 0.0)
    assert webhooks.received(BODY, signed(BODY), REMEMBERED).hints


def test_one_id_of_two_sources_is_two_deliveries(webhooks):
    assert all(webhooks.received(BODY, signed(BODY, name, "same"), 0.0).hints for name in SECRETS)


def test_without_an_id_nothing_is_a_repeat(webhooks):
    headers = signed(BODY)
    del headers["x-tokenkit-delivery"]
    assert all(webhooks.received(BODY, headers, now).hints for now in (0.0, 1.0))


def test_a_stranger_cannot_spoil_an_id(webhooks):
    """Or its true delivery would be taken for a repeat."""
    webhooks.received(BODY, signed(BODY, "not ours"), 0.0)
    assert webhooks.received(BODY, signed(BODY), 0.0).hints


def test_as_many_deliveries_are_remembered_as_there_is_room_for(webhooks):
    for number in range(MOST_REMEMBERED + 100):
        webhooks.received(b"", signed(b"", delivery=f"{number}{'x' * 5000}"), 0.0)
    assert len(webhooks._seen) == MOST_REMEMBERED
    assert webhooks.received(BODY, signed(BODY, delivery=f"{MOST_REMEMBERED}{'x' * 5000}"), 0.0).hints == ()
    assert webhooks.received(BODY, signed(BODY, delivery=f"0{'x' * 5000}"), 0.0).hints


def test_without_a_source_there_is_no_door(webhooks, figures):
    webhooks.use({}, {})
    assert webhooks.received(BODY, signed(BODY), 0.0).status == 404
    webhooks.use({"fund": Secret(SECRETS["fund"])}, figures)
    assert webhooks.received(BODY, signed(BODY), 0.0).status == 401
    assert webhooks.received(BODY, signed(BODY, "fund"), 0.0).status == 200


def test_repeats_are_known_after_a_reload_too(webhooks, figures):
    webhooks.received(BODY, signed(BODY), 0.0)
    webhooks.use({"desk": Secret(SECRETS["desk"])}, figures)
    assert not webhooks.received(BODY, signed(BODY), 1.0).hints


# ── What a body may hold ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "body",
    [
        f'"0x{ACCOUNT:x}"',
        f'{{"0x{ACCOUNT:X}":0}}',
        f'{{"a":[{{"b":"starknet:SN_MAIN:0x{ACCOUNT:063x}"}}]}}',
        f'{{"account":"0X{ACCOUNT:X}"}}',
        f'{{"account":"{ACCOUNT}"}}',
        f'{{"account":{ACCOUNT}}}',
        f"account=0x{ACCOUNT:x}&x=1",
        f'{{"account":"0x{ACCOUNT:x}"',
        f'{"[" * 20_000}"0x{ACCOUNT:x}"',
        f'\ufeff"0x{ACCOUNT:x}"é',
        f'{{"amount":{"9" * 30_000},"account":"0x{ACCOUNT:x}"}}',
        f'"0x{ACCOUNT:x}","0x0{ACCOUNT:x}","{ACCOUNT}"',
    ],
)
def test_a_felt_is_found_however_it_is_wrapped_and_once(body):
    assert [hint.account for hint in hints_of(body.encode())] == [padded(ACCOUNT)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b"\xff\xfe\x00",
        b"[" * 65536,
        b"9" * 65536,
        b'"0x"',
        b'"0x0"',
        b'"0x' + b"f" * 64 + b'"',
        b'"0x' + b"1" * 65 + b'"',
        f'"0x{FELT_BOUND:x}"'.encode(),
        str(FELT_BOUND).encode(),
        b"1000000000000000000",
        b'"xx0x1234"',
        b'"0x1234g"',
        "٣".encode() * 76,
    ],
)
def test_what_holds_no_felt_is_no_hint(body):
    assert hints_of(body) == ()


def test_a_body_of_nothing_but_felts_makes_so_many_hints_and_no_more():
    found = hints_of(",".join(f"0x{number:x}" for number in range(1, 9000)).encode())
    assert [hint.account for hint in found] == [padded(number) for number in range(1, MOST_HINTS + 1)]


@pytest.mark.parametrize(
    "piece", [b"0x", b"0x1,", b"9", b"1" * 59 + b",", b"1" * 76 + b",", b"0x" + b"f" * 64 + b",", b"[", b"\xff"]
)
def test_no_body_holds_the_loop_up(piece):
    """64 KiB of whatever would make a pattern go back and forth."""
    body = piece * (65536 // len(piece))
    begun = time.process_time()
    hints_of(body)
    assert time.process_time() - begun < 1.0  # some milliseconds; going back and forth would take minutes


@given(st.binary(max_size=300))
def test_nothing_raises(body):
    hints_of(body)
