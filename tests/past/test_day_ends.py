"""When the end of a day is closed, and which day is next."""

from watcher.model.closed_days import ClosedDays
from watcher.model.days import DAY, midnight_after
from watcher.past.day_ends import JUMP, PATIENCE, SteadyClock, latest_close, next_day

END = midnight_after("2026-12-31")
SECOND = 1_000_000


def test_the_next_day_is_the_first_that_is_over_and_not_closed():
    closed = ClosedDays().after("2026-12-29")
    assert next_day(closed, 0, END - DAY - 1) is None
    assert next_day(closed, 0, END - DAY) == "2026-12-30"
    assert next_day(closed, 0, END + 5 * DAY) == "2026-12-30"
    assert next_day(closed.after("2026-12-30"), 0, END) == "2026-12-31"


def test_days_that_ended_too_early_are_left_out():
    assert next_day(ClosedDays(), END, END) == "2026-12-31"
    assert next_day(ClosedDays(), END + 1, END) is None
    assert next_day(ClosedDays(), END + 1, END + DAY) == "2027-01-01"
    assert next_day(ClosedDays().after("2026-12-01"), END - DAY, END) == "2026-12-30"


def test_readings_are_waited_for_an_hour_from_the_end_or_from_the_start():
    patience = int(PATIENCE * SECOND)
    assert latest_close("2026-12-31", END - DAY, 604800.0) == END + patience
    assert latest_close("2026-12-31", END + 7 * SECOND, 604800.0) == END + 7 * SECOND + patience


def test_no_day_waits_until_its_events_are_gone():
    week = 604800 * SECOND
    assert latest_close("2026-12-31", END + week - SECOND, 604800.0) == END + week - int(PATIENCE * SECOND)
    assert latest_close("2026-12-31", END - DAY, 60.0) == END + 30 * SECOND


def test_a_clock_that_is_set_ahead_is_believed_after_an_hour_and_one_that_drifts_at_once():
    clock = SteadyClock()
    wall, boot = END, 100.0
    assert clock.look(wall, boot)
    for _ in range(100):  # a drift of an hour and more
        wall, boot = wall + 100 * SECOND, boot + 100.0 - JUMP + 1.0
        assert clock.look(wall, boot)
    wall += int((JUMP + 1.0) * SECOND)
    assert not clock.look(wall, boot)
    assert not clock.look(wall + int((PATIENCE - 1.0) * SECOND), boot + PATIENCE - 1.0)
    assert clock.look(wall + int(PATIENCE * SECOND), boot + PATIENCE)


def test_a_clock_that_is_set_back_is_believed():
    clock = SteadyClock()
    assert clock.look(END, 100.0)
    assert clock.look(END - DAY, 101.0)
