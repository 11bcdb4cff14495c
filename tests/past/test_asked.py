"""What people write of a time and of balances, and the row that they get."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.past.past_log import SOLANA, key_of
from watcher.model.filters import FilterError
from watcher.model.keys import Scope
from watcher.model.past import PastBalance
from watcher.model.times import format_rfc3339, parse_rfc3339
from watcher.model.watches import Watched, WatchIndex
from watcher.past import asked
from watcher.past.state_at import PastError

NEW_YEAR = parse_rfc3339("2027-01-01T00:00:00Z")
WATCHES = WatchIndex([Watched(Scope("jupiter")), Watched(Scope("jupiter", SOLANA, "A"), "Hot", ("ops",))])


@pytest.mark.parametrize(
    "text",
    [
        "2027-01-01T00:00:00Z",
        "2027-01-01t00:00:00z",
        "2027-01-01 00:00:00Z",
        "2027-01-01T00:00:00.000000999Z",
        "2027-01-01T00:00:00+00:00",
        "2027-01-01T01:30:00+01:30",
        "2026-12-31T19:00:00-05:00",
    ],
)
def test_a_time_of_rfc_3339_is_one_instant_however_it_is_written(text):
    assert asked.time_of(text, "at") == NEW_YEAR


@given(st.integers(0, 4_000_000_000_000_000))
def test_a_time_as_we_write_it_is_read_to_the_microsecond(micros):
    assert asked.time_of(format_rfc3339(micros), "at") == micros


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2027-01-01T00:00:00",
        "2027-01-01T00:00Z",
        "20270101T000000Z",
        "2027-W01-1T00:00:00Z",
        "2027-001T00:00:00Z",
        "2027-01-01T00:00:00+0100",
        "2027-01-01T00:00:00,5Z",
        "2027-01-01T24:00:00Z",
        "2027-02-29T00:00:00Z",
        "2027-13-01T00:00:00Z",
        "2027-01-01T00:61:00Z",
        "2027-01-01T00:00:00+25:00",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+09:00",
        "9999-12-31T23:59:59-09:00",
        "٢٠٢٧-01-01T00:00:00Z",
        "1798761600",
        "2027-01-01T00:00:00Z\n",
        "x" * 9000,
    ],
)
def test_what_is_no_time_is_refused_in_one_short_line_that_names_it(text):
    with pytest.raises(PastError, match=r"^--from = ") as mistake:
        asked.time_of(text, "--from")
    assert len(str(mistake.value)) < 200
    assert "\n" not in str(mistake.value)


def test_a_bare_day_is_refused_with_the_time_that_may_be_meant():
    with pytest.raises(PastError, match="write 2026-12-31T00:00:00Z for its first"):
        asked.time_of("2026-12-31", "at")


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({}, {("A", "total"), ("A", "settled"), ("B", "total")}),
        ({"kind": ["total"]}, {("A", "total"), ("B", "total")}),
        ({"label": ["Hot"]}, {("A", "total"), ("A", "settled")}),
        ({"tag": ["ops"], "kind": ["settled", "unsettled"]}, {("A", "settled")}),
        ({"chain": ["solana-900"], "account": ["B"]}, {("B", "total")}),
        ({"label": ["Cold"]}, set()),
    ],
)
def test_a_filter_takes_parts_of_the_key_kinds_and_names(fields, found):
    matcher = asked.wanted(fields).matcher(WATCHES)
    keys = [key_of("A"), key_of("A", kind="settled"), key_of("B")]
    assert {(key.account, key.kind) for key in keys if matcher.matches(key)} == found
    assert all(matcher.of_journal.matches(key) for key in keys if matcher.matches(key)), "the journal leaves none out"


@pytest.mark.parametrize("fields", [{"kind": ["all"]}, {"wallet": ["A"]}, {"account": []}])
def test_what_is_no_filter_is_refused(fields):
    with pytest.raises(FilterError):
        asked.wanted(fields)


def balance(account, **more):
    key = key_of(account)
    names = {name: getattr(key, name) for name in ("provider", "chain", "account", "token", "kind")}
    given = {"symbol": None, "unit": "base", "decimals": None, "status": "certain", "amount": "7"}
    return PastBalance(**names | given | more)


def test_a_row_is_what_was_known_and_the_names_of_now():
    times = ("2027-01-01T00:00:00.000000Z", "2027-01-01T00:00:09.000000Z")
    found = [
        balance("A", status="changing", previous_amount="5", between=times),
        balance("B", status="unseen", last_seen=times[0]),
        balance("C"),
    ]
    rows = asked.rows(found, asked.wanted({"account": ["A", "B"]}).matcher(WATCHES), WATCHES)
    key = {"provider": "jupiter", "chain": SOLANA, "token": "native", "kind": "total"}
    both = {**key, "symbol": None, "unit": "base", "decimals": None, "amount": "7"}
    assert json.loads(msgspec.json.encode(rows)) == [
        {
            **both,
            "account": "A",
            "status": "changing",
            "previous_amount": "5",
            "between": list(times),
            "label": "Hot",
            "tags": ["ops"],
            "watched": True,
        },
        {**both, "account": "B", "status": "unseen", "last_seen": times[0], "label": None, "tags": [], "watched": True},
    ]


def test_a_row_has_every_field_that_is_known_of_a_past_balance():
    names = {name: getattr(key_of("A"), name) for name in ("provider", "chain", "account", "token", "kind")}
    full = PastBalance(
        **names,
        symbol="USDC",
        unit="base",
        decimals=6,
        status="changing",
        amount="7",
        previous_amount="5",
        between=("a", "b"),
        last_seen="c",
    )
    (row,) = asked.rows([full], asked.wanted({}).matcher(WATCHES), WATCHES)
    assert msgspec.structs.asdict(full).items() <= msgspec.structs.asdict(row).items()


@pytest.mark.parametrize(
    ("amount", "unit", "decimals", "tokens"),
    [
        ("1234567", "base", 6, "1.234567"),
        ("1000000", "base", 6, "1"),
        (
            str(2**256 - 1),
            "base",
            18,
            "115792089237316195423570985008687907853269984665640564039457.584007913129639935",
        ),
        ("0", "base", 18, "0"),
        ("7", "base", 0, "7"),
        ("0.5", "decimal", None, "0.5"),
        ("7", "base", None, None),
        ("7", "base", 255, None),
    ],
)
def test_tokens_are_exact_or_not_told(amount, unit, decimals, tokens):
    assert asked.in_tokens(amount, unit, decimals) == tokens
