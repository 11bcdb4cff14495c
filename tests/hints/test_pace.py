"""How fast a source sends and reads, in virtual time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.hints.pace import RECOVERY, SLOWEST, Pace


def going(pace, until, start=0.0):
    """When each goes, of somebody who always wants to."""
    now, times = start, []
    while now < until:
        wait = pace.wait(now)
        if wait:
            now += wait
        else:
            pace.take()
            times.append(now)
    return times


def test_five_thousand_are_spread_over_the_time_that_their_rate_gives():
    times = going(Pace(50.0, 50), 99.0)
    assert times[:50] == [0.0] * 50
    assert len(times) == pytest.approx(50 + 99 * 50, abs=1)


@given(st.integers(1, 100), st.floats(1, 1000), st.lists(st.floats(0, 5), max_size=50))
def test_in_no_stretch_of_time_do_more_go_than_the_rate_and_one_burst(at_once, most, rests):
    pace, now, times = Pace(most, at_once), 1000.0, []
    for rest in rests:
        now += rest
        for _ in range(2 * at_once):
            if not pace.wait(now):
                pace.take()
                times.append(now)
    for first, begun in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= at_once + (times[last] - begun) * most + 1e-6


def test_what_costs_as_much_as_many_is_paid_off_first():
    pace = Pace(10.0, 5)
    pace.wait(0.0)
    pace.take(25.0)
    assert pace.wait(0.0) == pytest.approx(2.1)
    assert pace.wait(1.0) == pytest.approx(1.1)


def test_each_refusal_halves_it_and_it_recovers_slowly():
    pace = Pace(64.0, 10)
    pace.wait(0.0)
    for _ in range(4):
        pace.slow_down()
    assert len(going(pace, 10.0)) == pytest.approx(4 * 10 + RECOVERY * 10**2 / 2, abs=2)
    for _ in range(100):
        pace.slow_down()
    pace.wait(10.0)
    first = going(pace, 20.0, 10.0)[0]
    assert first == pytest.approx(10.0 + 1 / SLOWEST, abs=0.2)


def test_a_clock_that_stands_or_goes_back_gives_nothing():
    pace = Pace(10.0, 1)
    assert not pace.wait(5.0)
    pace.take()
    assert pace.wait(5.0) == pytest.approx(0.1)
    assert pace.wait(4.0) == pytest.approx(0.1)
    assert not pace.wait(5.1001)
