"""Amounts, times, keys, cursors and encodings: what goes in comes out, and nothing else does."""

import gc
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.model.amounts import AmountError, canonical, subtract
from watcher.model.events import (
    JSON,
    MSGPACK,
    BalanceChanged,
    BalanceState,
    CommitRow,
    HintsHealth,
    HintSourceHealth,
    ProviderHealth,
    RecentAmount,
    changed,
    codec_of,
    event_id,
)
from watcher.model.keys import Filter, Key, Scope
from watcher.model.log import Cursor
from watcher.model.times import format_rfc3339, parse_rfc3339

BASE = st.integers(0, 2**256 - 1)
DECIMALS = st.builds(lambda digits, places: Decimal(digits).scaleb(-places), st.integers(0, 10**38), st.integers(0, 18))
AMOUNTS = st.one_of(BASE.map(str), DECIMALS.map(canonical))
NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/", exclude_categories=("Cs",)), min_size=1, max_size=20
)
KINDS = st.sampled_from(["total", "settled", "unsettled", "open_orders"])
EPOCHS = st.text("0123456789abcdef", min_size=1, max_size=3)
KEYS = st.builds(Key, NAMES, NAMES, NAMES, NAMES, KINDS)
MICROS = st.integers(-(10**15), 10**16)
CURSORS = st.builds(
    Cursor,
    st.text("0123456789abcdef", min_size=1, max_size=32),
    st.lists(st.integers(0, 10**19 - 1), min_size=1, max_size=8).map(tuple),
)
STATES = st.builds(
    BalanceState,
    provider=NAMES,
    chain=NAMES,
    account=NAMES,
    token=NAMES,
    kind=KINDS,
    symbol=st.none() | NAMES,
    version=st.integers(0, 2**63 - 1),
    amount=AMOUNTS,
    unit=st.sampled_from(["base", "decimal"]),
    decimals=st.none() | st.integers(0, 30),
    slot=st.none() | st.integers(0, 2**63 - 1),
    as_of=st.none() | MICROS.map(format_rfc3339),
    observed_at=MICROS.map(format_rfc3339),
    order=st.none() | st.integers(0, 2**63 - 1),
    recent_amounts=st.lists(st.builds(RecentAmount, AMOUNTS, MICROS), max_size=3).map(tuple),
    absent_without_order=st.booleans(),
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("5E-7", "0.0000005"),
        ("0.50", "0.5"),
        ("-0", "0"),
        ("-0.000", "0"),
        ("007", "7"),
        ("1e3", "1000"),
        ("100", "100"),
        (0, "0"),
        (10**77, "1" + "0" * 77),
        (Decimal("1.10"), "1.1"),
        ("0.467583800117038432", "0.467583800117038432"),
    ],
)
def test_an_amount_has_one_spelling(value, expected):
    assert canonical(value) == expected


@pytest.mark.parametrize(
    "value",
    ["NaN", "sNaN", "Infinity", "-inf", "-1", "-1e-30", "", "1,5", "0x10", "ten", "1e101", "1e999999999", "1" * 101],
)
def test_what_is_no_balance_is_no_amount(value):
    with pytest.raises(AmountError):
        canonical(value)


@given(DECIMALS | BASE)
def test_an_amount_keeps_its_value_and_its_spelling_is_settled(value):
    text = canonical(value)
    assert Fraction(text) == Fraction(value)
    assert canonical(text) == text
    assert "e" not in text.lower()
    assert not text.startswith("-")
    assert "." not in text or text[-1] not in "0."


@given(DECIMALS, DECIMALS, st.integers(0, 6))
def test_amounts_are_equal_exactly_when_their_spellings_are(one, other, zeros):
    assert (canonical(one) == canonical(other)) == (one == other)
    padded = f"{one:f}" + ("" if "." in f"{one:f}" else ".") + "0" * zeros if zeros else f"{one:f}"
    assert canonical(padded) == canonical(one)


@given(AMOUNTS, AMOUNTS)
def test_a_delta_is_exact_and_leads_from_one_amount_to_the_other(amount, previous):
    delta = subtract(amount, previous)
    assert Fraction(previous) + Fraction(delta) == Fraction(amount)
    assert canonical(delta.removeprefix("-")) == delta.removeprefix("-")
    assert (delta == "0") == (amount == previous)


def test_the_delta_of_the_largest_amounts_is_not_rounded():
    assert subtract(str(2**256 - 1), "0.000000000000000001")[-19:] == ".999999999999999999"


@given(MICROS)
def test_a_time_survives_its_wire_form(micros):
    assert parse_rfc3339(format_rfc3339(micros)) == micros


@given(st.lists(st.integers(0, 10**16), min_size=2, max_size=5))
def test_wire_times_sort_like_times(times):
    assert sorted(map(format_rfc3339, times)) == list(map(format_rfc3339, sorted(times)))


def test_the_same_instant_is_read_from_any_offset():
    assert parse_rfc3339("2026-01-25T14:43:57Z") == parse_rfc3339("2026-01-25T15:43:57.000000+01:00")


@pytest.mark.parametrize("text", ["2026-01-25T14:43:57", "yesterday", ""])
def test_a_time_that_names_no_instant_is_refused(text):
    with pytest.raises(ValueError):
        parse_rfc3339(text)


@given(KEYS)
def test_a_key_survives_its_wire_form(key):
    assert Key.parse(str(key)) == key


@pytest.mark.parametrize("text", ["", "a/b/c/d", "a/b/c/d/total/e", "a/b/c/d/gross"])
def test_what_is_no_key_is_refused(text):
    with pytest.raises(ValueError):
        Key.parse(text)


@given(CURSORS)
def test_a_cursor_survives_its_wire_form(cursor):
    assert Cursor.parse(str(cursor)) == cursor
    assert cursor.reaches(cursor)


@given(st.text(max_size=30))
def test_a_cursor_is_only_what_we_would_have_written(text):
    try:
        cursor = Cursor.parse(text)
    except ValueError:
        return
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize("text", ["", "ab", "ab.", ".1", "AB.1", "ab.-1", "ab.1-", "ab.1.2", "ab.٣", "ab." + "9" * 20])
def test_what_is_no_cursor_is_refused(text):
    with pytest.raises(ValueError):
        Cursor.parse(text)


def test_a_cursor_moves_forward_only():
    cursor = Cursor("ab", (5, 5))
    assert cursor.after(1, 7) == Cursor("ab", (5, 8))
    assert cursor.after(1, 2) == cursor
    assert cursor.after(0, 5).reaches(cursor)
    assert not cursor.reaches(cursor.after(0, 5))
    assert not cursor.reaches(Cursor("cd", (0, 0)))


@given(STATES, AMOUNTS, MICROS)
def test_events_and_states_survive_both_encodings(state, previous, micros):
    event = changed("e0", state, previous, format_rfc3339(micros))
    for codec in (JSON, MSGPACK):
        assert codec.state(codec.encode(state)) == state
        assert codec.event(codec.encode(event)) == event
        assert codec.encode_all([state, state]) == [codec.encode(state)] * 2
        assert codec.encode_all([event]) == [codec.encode(event)]
        assert codec.encode_all([]) == []
        assert codec_of(codec.content_type) is codec


@given(STATES, AMOUNTS, MICROS)
def test_an_event_says_what_its_state_says(state, previous, micros):
    event = changed("e0", state, previous, format_rfc3339(micros))
    for field in set(BalanceChanged.__struct_fields__) & set(BalanceState.__struct_fields__):
        assert getattr(event, field) == getattr(state, field)
    assert event.key == state.key
    assert event.id == event_id("e0", state.key, state.version)
    assert Fraction(event.previous_amount) + Fraction(event.delta) == Fraction(event.amount)


@given(STATES, AMOUNTS, MICROS)
def test_what_is_held_a_million_times_is_nothing_to_the_garbage_collector(state, previous, micros):
    event = changed("e0", state, previous, format_rfc3339(micros))
    for record in (state, event, CommitRow(state, event), JSON.state(JSON.encode(state)), state.key):
        assert not gc.is_tracked(record)


@pytest.mark.parametrize("codec", [JSON, MSGPACK])
@pytest.mark.parametrize("data", [b"", b"{}", b"<html>", b"\xff\xfe", b"[]", b"\x80"])
def test_what_is_no_record_of_ours_is_refused(codec, data):
    with pytest.raises(msgspec.DecodeError):
        codec.event(data)
    with pytest.raises(msgspec.DecodeError):
        codec.state(data)


def test_a_foreign_content_type_is_refused():
    with pytest.raises(ValueError, match="text/html"):
        codec_of("text/html")


def test_health_is_written_in_the_fields_of_the_contract():
    health = ProviderHealth(
        provider="p",
        time=format_rfc3339(0),
        instance="i",
        watches=1,
        last_success=None,
        stalest_seconds=None,
        paused_until=None,
        budget_used=0.5,
        state="waiting",
        reason="no answer yet since the start",
        since=None,
    )
    assert list(msgspec.json.decode(JSON.encode(health))) == list(ProviderHealth.__struct_fields__)


@pytest.mark.parametrize("codec", [JSON, MSGPACK])
def test_a_heartbeat_of_before_is_read_and_what_is_none_says_nothing(codec):
    told = {"provider": "p", "time": format_rfc3339(0), "instance": "i", "watches": 1, "last_success": None}
    told |= {"stalest_seconds": None, "paused_until": None, "budget_used": 0.5}
    encode = {"json": msgspec.json.encode, "msgpack": msgspec.msgpack.encode}[codec.encoding]
    assert codec.health(encode(told)) == ProviderHealth(**told, state="ok", reason=None, since=None, hints=None)
    for strange in (b"", b"\xff", encode({}), encode(told | {"state": "a word of tomorrow"}), b"[" * 100_000):
        assert codec.health(strange) is None


@pytest.mark.parametrize("codec", [JSON, MSGPACK])
def test_what_hints_do_is_read_as_it_was_written_and_a_heartbeat_of_before_them_has_none(codec):
    source = HintSourceHealth(source="s", type="solana", connected=False, since=None, per_second=0.5, precision=None)
    told = ProviderHealth(
        provider="p",
        time=format_rfc3339(0),
        instance="i",
        watches=1,
        last_success=None,
        stalest_seconds=None,
        paused_until=None,
        budget_used=0.5,
        state="ok",
        reason=None,
        since=None,
        hints=HintsHealth(sources=(source,), hinted_delay=0.75, unhinted_delay=None),
    )
    assert codec.health(codec.encode(told)) == told
    before = {name: value for name, value in msgspec.to_builtins(told).items() if name != "hints"}
    encode = {"json": msgspec.json.encode, "msgpack": msgspec.msgpack.encode}[codec.encoding]
    assert codec.health(encode(before)) == msgspec.structs.replace(told, hints=None)


@given(st.tuples(EPOCHS, KEYS, st.integers(0, 5)), st.tuples(EPOCHS, KEYS, st.integers(0, 5)))
def test_an_id_belongs_to_one_version_of_one_key_in_one_log(one, other):
    assert (event_id(*one) == event_id(*other)) == (one == other)
    assert len(event_id(*one)) == 32


@given(KEYS, st.tuples(*[st.booleans()] * 3), KEYS)
def test_a_scope_covers_what_agrees_with_every_part_it_names(key, named, other):
    chain, account, token = (part if on else None for part, on in zip(key_parts(key), named, strict=True))
    scope = Scope(key.provider, chain, account, token)
    assert scope.covers(key)
    agrees = other.provider == key.provider and all(
        mine == theirs for mine, theirs, on in zip(key_parts(key), key_parts(other), named, strict=True) if on
    )
    assert scope.covers(other) == agrees


def key_parts(key):
    return key.chain, key.account, key.token


def test_the_record_of_a_listing_is_never_a_balance_and_tells_scopes_apart():
    scopes = [Scope("p"), Scope("p", "a"), Scope("p", None, "a"), Scope("p", None, None, "a"), Scope("p", "a", "a")]
    records = {scope.note_key for scope in scopes}
    assert len(records) == len(scopes)
    assert not any("/" in record for record in records)


def test_a_filter_is_and_over_fields_and_or_within_one():
    key = Key("p", "c", "a", "t")
    assert Filter().matches(key)
    assert Filter(provider=("q", "p"), token=("t",)).matches(key)
    assert not Filter(provider=("p",), token=("u",)).matches(key)
    assert not Filter(account=()).matches(key)
