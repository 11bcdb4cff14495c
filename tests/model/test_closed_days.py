"""Days, and the note that says which of them are closed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.model.closed_days import MOST_RUNS, NOTE, ClosedDays, days_closed, providers_closed
from watcher.model.days import DAY, day_after, is_midnight, last_day_over, midnight_after

FAR = 60_000 * DAY
TIMES = st.integers(min_value=0, max_value=FAR)


@given(TIMES)
def test_the_last_day_that_is_over_ended_at_the_last_midnight(time):
    end = midnight_after(last_day_over(time))
    assert is_midnight(end)
    assert end <= time < end + DAY
    assert midnight_after(day_after(last_day_over(time))) == end + DAY


def test_the_last_day_of_a_year_ends_with_the_next_one():
    assert last_day_over(midnight_after("2026-12-31")) == "2026-12-31"
    assert last_day_over(midnight_after("2026-12-31") - 1) == "2026-12-30"
    assert day_after("2028-02-28") == "2028-02-29"


@pytest.mark.parametrize("text", ["", "2026-12-32", "20261231", "2026-W01-1", "x" * 10_000])
def test_what_is_no_day_is_refused(text):
    with pytest.raises(ValueError, match=r"no day|month|Invalid|range|day"):
        midnight_after(text)


@given(st.sets(st.integers(min_value=20_000, max_value=20_060), min_size=1))
def test_a_note_knows_the_very_days_that_were_closed(numbers):
    days = [last_day_over((number + 1) * DAY) for number in sorted(numbers)]
    closed = ClosedDays()
    for day in days:
        closed = closed.after(day)
    notes = {NOTE + "bank": closed.encode()}
    assert ClosedDays.of(notes, "bank") == closed
    assert closed.last == days[-1]
    assert days_closed(notes, 0, FAR) == days
    half = days[len(days) // 2]
    assert days_closed(notes, midnight_after(half), FAR) == [day for day in days if day >= half]
    assert days_closed(notes, 0, midnight_after(half)) == [day for day in days if day <= half]
    assert days_closed({NOTE + "bank": closed.until(half).encode()}, 0, FAR) == [day for day in days if day <= half]
    for number in range(20_000, 20_062):
        day = last_day_over(number * DAY)
        assert (day in closed) == (day in days)
        assert providers_closed(notes, day) == ({"bank"} if day in days else set())


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"runs":[["x","y"]]}', b'{"runs":[["2026-01-01"]]}', b"\xff"])
def test_a_note_that_cannot_be_read_says_of_no_day(data):
    assert ClosedDays.of({NOTE + "bank": data}, "bank") == ClosedDays()
    assert ClosedDays.of({}, "bank") == ClosedDays()


def test_a_note_stays_small_however_often_days_are_missed():
    closed = ClosedDays()
    for number in range(MOST_RUNS + 5):
        closed = closed.after(last_day_over((20_000 + 2 * number) * DAY))
    assert len(closed.runs) == MOST_RUNS
    assert closed.last == last_day_over((20_000 + 2 * (MOST_RUNS + 4)) * DAY)
