"""Large listings over several partitions: split as columns they mean what they mean as readings."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.providers.golden import AAPL
from tests.providers.test_large import FIXED, HELD, body, drained, found_in_slices, listings, memory, told, whole
from watcher.ingest.intake import merge_verdicts
from watcher.ingest.partitions import partition_of, spread
from watcher.ingest.splitting import Splitter
from watcher.ledger import Ledger
from watcher.model.bulk_listing import BulkListing, Contradiction, TokenColumn, UnreadableRow


def ledgers(count=3):
    made = [Ledger() for _ in range(count)]
    for ledger in made:
        ledger.restore([], {}, "e0")
    return made


def parts_of(text, splitter):
    """Each partition's columns, compared; the way of the intake."""
    columns = found_in_slices(text, 400)[0].readings
    if not isinstance(columns, BulkListing):
        assert columns == []
        return [[] for _ in splitter._ledgers]
    parts = drained(splitter.split(columns))
    for ledger, part in zip(splitter._ledgers, parts, strict=True):
        drained(ledger.compare(part))
    return parts


def unordered(ledger):
    """All that it knows and would commit, in whatever order."""
    rows, notes, known = memory(ledger)
    return sorted(rows, key=lambda row: row.state.key), notes, known


@settings(FIXED, max_examples=50)
@given(
    st.lists(listings, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([5.0, 70.0])), min_size=1, max_size=8),
)
def test_split_columns_leave_the_memory_and_rows_of_split_readings(bodies, turns):
    fast, slow, now = ledgers(), ledgers(), 100.0
    splitter = Splitter(fast)
    for number, pause in turns:
        now += pause
        text = body(bodies[number % len(bodies)])
        columns, readings = parts_of(text, splitter), spread(whole(text), len(slow))
        verdicts = [ledger.evaluate(told(part, now)) for ledger, part in zip(fast, columns, strict=True)]
        assert merge_verdicts(verdicts) == merge_verdicts(
            [ledger.evaluate(told(readings.get(p, []), now)) for p, ledger in enumerate(slow)]
        )
        assert list(map(unordered, fast)) == list(map(unordered, slow))


def test_a_row_goes_to_the_partition_of_its_account_however_that_is_spelled():
    known, account = ledgers(), "0x" + "ab" * 20
    splitter = Splitter(known)
    check = found_in_slices(body([(AAPL, HELD)]), 400)[0].readings.check
    home = partition_of(f"p/eip155:1/{account}", len(known))
    for now, spelled in enumerate(["0x" + "aB" * 20, account, "0x" + "AB" * 20], 100):
        columns = BulkListing("p", [TokenColumn("eip155:1", AAPL, "A", [((spelled,), ("5",))])], check)
        parts = drained(splitter.split(columns))
        assert [len(part) for part in parts] == [partition == home for partition in range(len(known))]
        for ledger, part in zip(known, parts, strict=True):
            ledger.evaluate(told(part, float(now)))
    assert [list(ledger.accounts("p", "eip155:1", AAPL)) for ledger in known][home] == [account]


@pytest.mark.parametrize(
    ("row", "error"),
    [((HELD[3][0], "99"), Contradiction), (("0x12", "1"), UnreadableRow), ((HELD[3][0], "-1"), UnreadableRow)],
)
def test_one_bad_row_fails_the_comparison_before_any_partition_has_heard_a_word(row, error):
    known = ledgers()
    splitter = Splitter(known)
    for now in (100.0, 200.0):
        for ledger, part in zip(known, parts_of(body([(AAPL, HELD)]), splitter), strict=True):
            ledger.evaluate(told(part, now))
            memory(ledger)
    before = list(map(memory, known))
    with pytest.raises(error):
        parts_of(body([(AAPL, [*HELD, row])]), splitter)
    assert list(map(memory, known)) == before
