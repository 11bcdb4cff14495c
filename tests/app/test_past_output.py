"""What the commands of the past write: a table, CSV that a spreadsheet can open, lines of JSON."""

import csv
import io
import json

import pytest

from tests.past.past_log import KnownLog, change, crossing, key_of
from watcher.app.past_output import AT, HISTORY, AtWriter, HistoryWriter, csv_line
from watcher.model.keys import Scope
from watcher.model.past import PastBalance
from watcher.model.times import format_rfc3339
from watcher.model.watches import Watched, WatchIndex
from watcher.past import asked
from watcher.redaction import safe_text

TIME = "2027-01-01T00:00:00.000000Z"
EARLIER, LATER = "2026-12-31T23:59:58.000000Z", "2027-01-01T00:00:03.000000Z"
WATCHES = WatchIndex([Watched(Scope("jupiter")), Watched(Scope("jupiter", None, "A"), "Hot", ("eu", "ops"))])
PIPE = str


def row(account, **more):
    key = key_of(account)
    names = {name: getattr(key, name) for name in ("provider", "chain", "account", "token", "kind")}
    given = {"symbol": "USDC", "unit": "base", "decimals": 6, "status": "certain", "amount": "1500000"}
    (found,) = asked.rows([PastBalance(**names | given | more)], asked.wanted({}).matcher(WATCHES), WATCHES)
    return found


CHANGING = {"status": "changing", "previous_amount": "7", "between": (EARLIER, LATER)}


def records(lines):
    """As a reader of CSV that is not ours has them."""
    return list(csv.DictReader(io.StringIO("".join(f"{line}\n" for line in lines), newline="")))


def at(form, *rows, shown=PIPE):
    writer = AtWriter(form, TIME)
    return [*writer.head(), *writer.lines(rows, shown)]


def test_csv_has_a_column_for_everything_that_is_known():
    found = records(at("csv", row("A", **CHANGING), row("B", status="unseen", last_seen=EARLIER, decimals=None)))
    key = {"at": TIME, "provider": "jupiter", "chain": key_of("A").chain, "token": "native", "kind": "total"}
    both = {**key, "symbol": "USDC", "watched": "true", "amount": "1500000", "unit": "base"}
    assert found == [
        {
            **both,
            "account": "A",
            "label": "Hot",
            "tags": "eu ops",
            "status": "changing",
            "decimals": "6",
            "tokens": "1.5",
            "previous_amount": "7",
            "between_from": EARLIER,
            "between_to": LATER,
            "last_seen": "",
        },
        {
            **both,
            "account": "B",
            "label": "",
            "tags": "",
            "status": "unseen",
            "decimals": "",
            "tokens": "",
            "previous_amount": "",
            "between_from": "",
            "between_to": "",
            "last_seen": EARLIER,
        },
    ]


def test_every_record_of_csv_ends_as_the_standard_has_it():
    assert all(line.endswith("\r") and "\r" not in line[:-1] for line in at("csv", row("A"), row("B")))
    assert at("csv") == [",".join(AT) + "\r"], "the names stand there without a row, too"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1", "=cmd|' /C calc'!A0"])
def test_words_of_others_are_never_a_formula(text):
    (found,) = records(at("csv", row("A", symbol=text)))
    assert found["symbol"].startswith("'")
    (named,) = records([csv_line(("alert",), ("alert",)), csv_line(("alert",), (text,))])
    assert named["alert"].startswith("'")


def test_a_negative_number_of_ours_stays_a_number():
    assert csv_line(("delta", "symbol"), ("-5", "-5")) == "-5,'-5"


def test_one_balance_is_one_line_whatever_its_symbol_says():
    nasty = 'a"b,c\nd\x1b[2Je\u202ef'
    for form in ("csv", "table", "json"):
        lines = at(form, row("A", symbol=nasty), shown=safe_text.json)
        assert len(lines) == (1 if form == "json" else 2)
        assert not any(letter in "".join(lines) for letter in "\n\x1b\u202e")
    (found,) = records(at("csv", row("A", symbol=nasty)))
    assert found["symbol"] == 'a"b,c\\nd\\x1b[2Je\\u202ef'
    assert json.loads(at("json", row("A", symbol=nasty))[0])["symbol"] == nasty


def test_json_is_a_row_a_line_as_over_http():
    lines = at("json", row("A", **CHANGING), row("B"))
    assert [json.loads(line)["account"] for line in lines] == ["A", "B"]
    assert json.loads(lines[0])["between"] == [EARLIER, LATER]
    assert json.loads(lines[0])["tags"] == ["eu", "ops"]


def test_a_table_says_how_sure_each_amount_is():
    head, one, two, three = at(
        "table",
        row("A"),
        row("B", **CHANGING),
        row("C", status="unseen", last_seen=EARLIER, decimals=None, symbol=None, kind="settled"),
    )
    assert head.split() == ["PROVIDER", "ACCOUNT", "TOKEN", "AMOUNT", "STATUS"]
    assert one.split() == ["jupiter", "Hot", "A", "USDC", "1.5", "certain"]
    assert two.endswith(f"1.5  changing from 0.000007 between {EARLIER} and {LATER}")
    assert three.endswith(f"native settled  1500000 base  unseen since {EARLIER}")
    ends = [line.index(amount) + len(amount) for line, amount in ((one, "1.5"), (two, "1.5"), (three, "1500000 base"))]
    assert len(set(ends)) == 1, "amounts are aligned"


def events(*made):
    log = KnownLog()
    return [log.add(event, number) for number, event in enumerate(made)]


def told(form, *made):
    writer = HistoryWriter(form, WATCHES)
    return [*writer.head(), *writer.lines(events(*made), PIPE)]


SECOND = 1_000_000
BOTH = (change(key_of("A"), 3, SECOND, symbol="USDC", decimals=0), crossing(key_of("B"), 9, 2 * SECOND, alert="=low"))


def test_history_as_csv_has_changes_and_crossings_in_one_table():
    first, second = records(told("csv", *BOTH))
    assert list(first) == list(HISTORY)
    known = {"type": "changed", "account": "A", "label": "Hot", "previous_amount": "2", "amount": "3", "delta": "1"}
    assert {**known, "alert": "", "symbol": "USDC", "decimals": "0"}.items() <= first.items()
    assert first["observed_at"] == format_rfc3339(SECOND)
    crossed = {"type": "crossed", "account": "B", "alert": "'=low", "direction": "below", "threshold": "100"}
    assert {**crossed, "delta": "", "amount": "9", "version": "9", "label": ""}.items() <= second.items()


def test_history_as_json_has_the_events_as_they_stand():
    lines = told("json", *BOTH)
    assert [json.loads(line)["type"] for line in lines] == ["changed", "crossed"]
    assert json.loads(lines[0])["label"] == "Hot"
    assert "label" not in json.loads(lines[1])
    for line, event in zip(lines, events(*BOTH), strict=True):
        assert line.endswith(f'"event":{event.data.decode()}}}')


def test_history_as_a_table_has_a_line_an_event():
    head, one, two = told("table", *BOTH)
    assert head.split()[0] == "OBSERVED"
    assert one.split() == ["1970-01-01", "00:00:01.000000", "jupiter", "Hot", "A", "USDC", "2", "3", "+1"]
    assert two.endswith("alert =low: below 100")


def test_a_column_grows_with_what_comes_and_the_head_comes_once():
    writer = HistoryWriter("table", WATCHES)
    first = list(writer.lines(events(BOTH[0]), PIPE))
    second = list(writer.lines(events(change(key_of("A"), 10**12, SECOND, decimals=0)), PIPE))
    assert (len(first), len(second)) == (2, 1)
    assert list(writer.lines([], PIPE)) == []
