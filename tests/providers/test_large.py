"""Large Ondo listings: whatever way an answer is cut and compared, it means what it means in one piece."""

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.providers.golden import AAPL, TSLA
from tests.providers.tables import NOW, asked, built
from watcher.ledger.bulk_comparison import BulkComparison
from watcher.ledger.ledger import Ledger, Taken
from watcher.ledger.store import Store
from watcher.model.bulk_listing import BulkListing, Contradiction, UnreadableRow
from watcher.model.keys import Key, Scope
from watcher.model.readings import Answer, Reading, Times
from watcher.model.times import format_rfc3339
from watcher.poller.bulk import clear_rows_only
from watcher.providers.answers import BOM
from watcher.providers.failures import Failure
from watcher.providers.protocol import Response
from watcher.testing.mutations import mutated

FIXED = settings(derandomize=True, max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
ONDO = built("ondo", {"chain": "ethereum-1"})
REQUEST = asked(ONDO)
SCOPE = Scope("p", "eip155:1")

accounts = st.integers(1, 9).map(lambda n: f"0x{n:040x}") | st.sampled_from(
    ["0x" + "Ab" * 20, "0x" + "ab" * 20, "0X" + "ab" * 20, "0x" + "ab" * 19, "0x" + "aK" * 20, 'a"},{"', "]", "a\nb"]
)
good = st.sampled_from(["0", "1", "2", "0.5", "10", "100", "0.50", "5e-7", "007"])
amounts = good | st.sampled_from(["-1", "NaN", "", "1.", ".5", "0.5]", '1"},{"holderAddress"', "9" * 80])
plain = st.tuples(st.integers(1, 30).map(lambda n: f"0x{n:040x}"), good)
rows = st.lists(st.tuples(accounts, amounts), max_size=12) | st.lists(plain, max_size=30)
tokens = st.lists(st.tuples(st.sampled_from([AAPL, TSLA, AAPL.upper(), "0x12"]), rows), max_size=3)
listings = st.lists(
    st.tuples(st.sampled_from([AAPL, TSLA]), st.lists(plain, max_size=30, unique_by=lambda row: row[0])),
    max_size=2,
    unique_by=lambda token: token[0],
)


def body(listed, separators=(",", ":"), indent=None, extra=None):
    return json.dumps(
        {
            "tokens": [
                {
                    "tokenAddress": token,
                    "tokenSymbol": "Ton",
                    "balances": [
                        {"holderAddress": {"account": account}, "balance": amount, **(extra or {})}
                        for account, amount in held
                    ],
                }
                for token, held in listed
            ]
        },
        separators=separators,
        indent=indent,
    ).encode()


def whole(text):
    """The readings in order, or the kind of failure."""
    told = said(text)
    return told if isinstance(told, type) else told[0]


def said(text):
    """The readings in order and whether that is not all, or the kind of failure."""
    try:
        found = ONDO.read(REQUEST, Response(200, text, NOW))
        return list(found.readings), found.partial
    except Failure as failure:
        return type(failure)


def found_in_slices(text, size):
    slices = ONDO.read_in_slices(REQUEST, Response(200, text, NOW), size)
    count = 0
    while True:
        try:
            next(slices)
            count += 1
        except StopIteration as end:
            return end.value, count


def in_slices(text, size):
    """The same, by the way of the poller."""
    try:
        found, _ = found_in_slices(text, size)
        if isinstance(found.readings, BulkListing):
            found = compared(found)
        return list({reading.key: reading for reading in found.readings}.values()), found.partial
    except Contradiction:
        return said(b"")
    except Failure as failure:
        return type(failure)


def compared(found):
    """Columns in which nothing is left that cannot be understood."""
    try:
        drained(BulkComparison(Store(), found.readings).compare())
    except UnreadableRow:
        found = drained(clear_rows_only(found))
        drained(BulkComparison(Store(), found.readings).compare())
    return found


def drained(work):
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


@FIXED
@given(tokens, st.integers(20, 400), st.sampled_from([(",", ":"), (", ", ": ")]), st.sampled_from([None, {"x": "y"}]))
def test_a_listing_read_in_slices_says_what_it_says_in_one_piece(listed, size, separators, extra):
    text = body(listed, separators, extra=extra)
    assert in_slices(text, size) == said(text)


@FIXED
@given(st.integers(0, 2**32), st.integers(16, 300))
def test_a_mutated_answer_means_the_same_in_slices_and_in_one_piece(seed, size):
    chance = random.Random(seed)
    rows = [(f"0x{n:040x}", f"{n}.5") for n in range(1, 12)]
    text = mutated((body([(AAPL, rows), (TSLA, rows[:3])]),), chance)
    assert in_slices(text, size) == said(text)


ROW = b'{"holderAddress":{"account":"0x%040x"},"balance":"7"}' % 5
SPOILT = [
    ROW.replace(b'"7"', b"7"),
    ROW.replace(b'"7"', b"null"),
    ROW.replace(b'"7"', b'"-7"'),
    ROW.replace(b'"7"', b'"7","balance":"7"'),
    ROW.replace(b'"7"', b'"7","bal\\u0061nce":"8"'),
    ROW.replace(b'"7"', b'"7","x":{"y":1,"y":1}'),
    ROW.replace(b'"7"', b'"7","x":{"y":1,"z":1}'),
    ROW.replace(b'"account"', b'"account":"0x00","account"'),
    ROW.replace(b"0x00", b"0x"),
    ROW.replace(b'"holderAddress"', b'"holder"'),
    b'{"holderAddress":7,"balance":"7"}',
    b'{"holderAddress":{"account":null},"balance":"7"}',
    b'{"balance":"7"}',
    b"{}",
    b"null",
    b'"..."',
    b"[]",
]
HEADS = [
    (b'"tokenSymbol":"Ton"', b'"tokenSymbol":null'),
    (b'"tokenSymbol":"Ton"', b'"tokenSymbol":"Ton","tokenSymbol":"Ton"'),
    (b'"tokenSymbol":"Ton",', b""),
    (AAPL.encode(), b"0x12"),
    (b'"%b"' % AAPL.encode(), b"null"),
    (b'{"tokens":[', b'{"tokens":[],"tokens":['),
    (b'{"tokens":[', BOM + b'{"tokens":['),
]


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("spoilt", SPOILT, ids=lambda row: row.decode()[-30:])
def test_a_spoilt_row_means_the_same_in_slices_and_in_one_piece(spoilt, again):
    """Wherever it stands, also beside a good row of the same balance."""
    for place in (0, 3, 11):
        rows = [ROW.replace(b"5", b"%x" % n) for n in (1, 2, 3, 4, *([5] if again else []), 6, 7, 8, 9, 10, 11)]
        rows.insert(place, spoilt)
        text = b'{"tokens":[{"tokenAddress":"%b","tokenSymbol":"A","balances":[%b]}]}' % (
            AAPL.encode(),
            b",".join(rows),
        )
        for size in (90, 250, 5000):
            assert in_slices(text, size) == said(text)


@pytest.mark.parametrize(("old", "new"), HEADS)
def test_a_spoilt_head_means_the_same_in_slices_and_in_one_piece(old, new):
    rows = [(f"0x{n:040x}", f"{n}.5") for n in range(1, 12)]
    for others in ([], [(TSLA, rows[:3])], [(AAPL, rows[:3]), (TSLA, rows)]):
        text = body([(AAPL, rows), *others])
        assert old in text
        for size in (90, 250, 5000):
            assert in_slices(text.replace(old, new, 1), size) == said(text.replace(old, new, 1))


@pytest.mark.parametrize("size", [60, 100, 250, 1000])
def test_a_documented_answer_is_cut_and_not_left_to_the_decoder(size):
    text = body([(AAPL, [(f"0x{n:040x}", "1") for n in range(50)]), (TSLA, [])])
    found, count = found_in_slices(text, size + 120)
    assert isinstance(found.readings, BulkListing)
    assert count >= len(text) // (size + 120) - 1


@pytest.mark.parametrize(
    "text",
    [
        b'{"tokens":[{"tokenAddress":"%b","tokenSymbol":"A","balances":[,{"holderAddress":{"account":"%b"},"balance":"1"}]}]}',
        b'{"tokens":[{"tokenAddress":"%b","tokenSymbol":"A","balances":[{"holderAddress":{"account":"%b"},"balance":"1"},]}]}',
        b'{"tokens":[{"tokenAddress":"%b","tokenSymbol":"A","balances":[{"holderAddress":{"account":"%b"},"balance":"1"}]}]}}',
        b'\x0b{"tokens":[{"tokenAddress":"%b","tokenSymbol":"A","balances":[{"holderAddress":{"account":"%b"},"balance":"1"}]}]}',
        b'{"tokens":[{"tokenAddress":"%b","tokenSymbol":"A","balances":[{"holderAddress":{"account":"%b"},"balance":"1"}]},]}',
    ],
)
def test_what_is_no_json_is_refused_however_it_is_cut(text):
    text %= (AAPL.encode(), AAPL.encode())
    assert said(text) is said(b"")
    for size in range(1, 200, 3):
        assert in_slices(text, size) is said(b"")


def memory(ledger):
    """All that the ledger knows and would commit."""
    taken = ledger.take(100_000)
    known = {
        str(group.key(account)): (record.amount, record.version, record.recent_amounts, record.candidate, seen(record))
        for group, account, record in ledger._store
    }
    ledger.committed()
    return taken, known


def seen(record):
    last = record.last_seen
    return last if isinstance(last, str | None) else (last.received, last.observed_at)


def told(readings, now, fingerprint=b""):
    return Answer("p", readings, "none", 60.0, Times(now - 1, now, int(now * 1e6)), SCOPE, fingerprint)


def taken(ledger, text, now, size):
    """The way of the poller; the verdict."""
    empty = told([], now, text)
    verdict = ledger.repeats(empty)
    if verdict is None:
        found, _ = found_in_slices(text, size)
        verdict = ledger.evaluate(told(found.readings, now, empty.fingerprint))
    return verdict


@FIXED
@given(
    st.lists(listings, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.5, 5.0, 70.0])), min_size=1, max_size=12),
    st.integers(60, 400),
    st.booleans(),
)
def test_columns_and_repeats_leave_the_memory_and_rows_of_plain_readings(bodies, turns, size, often):
    fast, slow = Ledger(), Ledger()
    for ledger in (fast, slow):
        ledger.restore([], {}, "e0")
    now = 100.0
    for number, pause in turns:
        now += pause
        text = body(bodies[number % len(bodies)])
        assert taken(fast, text, now, size) == slow.evaluate(told(whole(text), now))
        if often:
            assert memory(fast) == memory(slow)
    assert memory(fast) == memory(slow)


def settled(text):
    """A ledger whose baseline is complete and committed."""
    ledger = Ledger()
    ledger.restore([], {}, "e0")
    for now in (100.0, 200.0):
        taken(ledger, text, now, 200)
        memory(ledger)
    return ledger


HELD = [(f"0x{n:040x}", f"{n}.5") for n in range(1, 9)]


def test_an_unchanged_body_is_not_read_again_and_counts_as_seen():
    ledger = settled(body([(AAPL, HELD)]))
    verdict = ledger.repeats(told([], 300.0, body([(AAPL, HELD)])))
    assert (verdict.accepted, verdict.changed, verdict.candidates) == (len(HELD), set(), set())
    taken(ledger, body([(AAPL, [(HELD[0][0], "7"), *HELD[1:]])]), 400.0, 200)
    committed, _ = memory(ledger)
    (row,) = committed.rows
    assert row.event.previous_observed_at == format_rfc3339(300_000_000)


def test_a_repeated_body_with_an_open_candidate_is_heard_whole_and_tells_it():
    ledger = settled(body([(AAPL, HELD)]))
    without = body([(AAPL, HELD[1:])])
    assert len(taken(ledger, without, 300.0, 200).candidates) == 1
    assert ledger.repeats(told([], 360.0, without)) is None
    assert len(taken(ledger, without, 361.0, 200).changed) == 1


def test_a_body_after_a_restart_is_heard_whole():
    ledger, text = settled(body([(AAPL, HELD)])), body([(AAPL, HELD)])
    assert ledger.repeats(told([], 300.0, text)) is not None
    ledger.restore([], {}, "e0")
    assert ledger.repeats(told([], 400.0, text)) is None


def test_the_body_before_the_last_is_no_repetition():
    one, other = body([(AAPL, HELD)]), body([(AAPL, [(HELD[0][0], "7"), *HELD[1:]])])
    ledger = settled(one)
    taken(ledger, other, 300.0, 200)
    assert ledger.repeats(told([], 400.0, one)) is None


def answer_of(now, amount):
    """Another answer, of the first of HELD alone."""
    reading = Reading(Key("p", "eip155:1", HELD[0][0], AAPL), amount, "decimal")
    return Answer("p", [reading], "none", 60.0, Times(now - 1, now, int(now * 1e6)))


@pytest.mark.parametrize("amount", [HELD[0][1], "7"])
@pytest.mark.parametrize("step", range(7))
def test_a_repetition_counts_whatever_another_answer_says_between_two_slices(step, amount):
    text = body([(AAPL, HELD), (TSLA, HELD[:2])])
    fast, slow = settled(text), settled(text)
    for ledger in (fast, slow):
        found, _ = found_in_slices(text, 400)
        slices = ledger.evaluating(told(found.readings, 300.0, b"1"))
        for _ in zip(range(step), slices, strict=False):
            pass
        ledger.evaluate(answer_of(299.5, amount))
        drained(slices)
    unread, again = told([], 400.0, b"1"), told(whole(text), 400.0, b"1")
    assert (fast.repeats(unread) or fast.evaluate(again)) == slow.evaluate(again)
    assert memory(fast) == memory(slow)


def test_a_body_is_heard_whole_once_another_answer_spoke_of_one_of_its_balances():
    text = body([(AAPL, HELD), (TSLA, HELD[:2])])
    ledger = settled(text)
    ledger.evaluate(answer_of(250.0, HELD[0][1]))
    assert ledger.repeats(told([], 300.0, text)) is None
    taken(ledger, text, 300.0, 400)
    assert ledger.repeats(told([], 400.0, text)) is not None


def test_a_change_that_waits_for_its_commit_keeps_its_time_while_the_body_repeats():
    ledger = settled(body([(AAPL, HELD)]))
    text = body([(AAPL, [(HELD[0][0], "7"), *HELD[1:]])])
    for now in (300.0, 400.0, 500.0):
        taken(ledger, text, now, 400)
    committed, _ = memory(ledger)
    (row,) = committed.rows
    assert (row.event.previous_observed_at, row.event.observed_at) == (
        format_rfc3339(200_000_000),
        format_rfc3339(300_000_000),
    )


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_listing_of_several_pages_means_the_same_as_its_readings(shuffled):
    rows = [(f"0x{n:040x}", f"{n}.5") for n in range(10_500)]
    after = [*rows[:4_990], ("0x" + "ee" * 20, "1"), *rows[4_995:-1], (rows[-1][0], "7")]
    if shuffled:
        random.Random(1).shuffle(after)
    fast, slow = settled(body([(AAPL, rows)])), settled(body([(AAPL, rows)]))
    for now in (300.0, 400.0):
        assert taken(fast, body([(AAPL, after)]), now, 2**18) == slow.evaluate(told(whole(body([(AAPL, after)])), now))
    assert memory(fast) == memory(slow)


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([*HELD, (HELD[3][0], "99")], Contradiction),
        ([(HELD[3][0], "99"), *HELD], Contradiction),
        ([("0x" + "cd" * 20, "1"), *HELD, ("0x" + "Cd" * 20, "2")], Contradiction),
        ([*HELD, ("0x" + "cd" * 20, "-1")], UnreadableRow),
        ([*HELD, ("nobody", "1")], UnreadableRow),
    ],
)
def test_an_answer_that_fails_in_one_row_has_not_said_a_word(rows, error):
    ledger = settled(body([(AAPL, HELD)]))
    _, before = memory(ledger)
    text = (
        body([(AAPL, [(account, "1234") for account, _ in HELD[:1]] + rows[1:])])
        if error is UnreadableRow
        else body([(AAPL, rows)])
    )
    with pytest.raises(error):
        taken(ledger, text, 300.0, 200)
    assert memory(ledger) == (Taken(rows=[]), before)
