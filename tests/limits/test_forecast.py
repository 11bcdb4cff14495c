"""What the forecast says comes true: the budget is driven on, and stands still then or not at all."""

import random

import pytest

from tests.limits.test_limiter import WALL, Counter, drive
from watcher.limits.budget import Budget
from watcher.limits.forecast import DAY, MARGIN, _ends_in
from watcher.limits.windows import Limit, window_of

HOUR = 3600.0


def delay(seed=1):
    chance = random.Random(seed)
    return lambda: chance.uniform(0.01, 0.2)


def driven(budget, until, *, start=0.0):
    drive(budget, Counter([]), delay(), until, start=start)
    return budget


def lowered(budget, now, *limits, **more):
    """The same calls under other limits, as after a restart with an edited config."""
    later = Budget(limits, **more)
    assert later.restore(budget.save(now, WALL), now, WALL, released=True, begin=now)
    return later


def only(found):
    (one,) = found
    return one


def stands_still_at(budget, start, until, least):
    """When, at full demand, the first grant is `least` seconds later than the pace allows."""
    now = start
    while now < until:
        ready = budget.ready_at(now)
        if ready - now > least + budget.interval():
            return now
        now = max(now, ready)
        budget.settle(budget.grant(now), now)
    return None


def test_a_window_at_its_own_even_pace_becomes_full_and_never_ends():
    budget = Budget([Limit(2000, DAY)])
    now = 0.0
    for hours in (1, 12, 23, 24, 25, 30, 48, 71):
        driven(budget, hours * HOUR, start=now)
        now = hours * HOUR
        found = only(budget.forecasts(now))
        assert found.ends_in is None, hours
        assert found.used == pytest.approx(min(1.0, hours / 24), abs=0.01)
        assert found.per_day == pytest.approx(2000, rel=0.01)
    assert stands_still_at(budget, now, now + 2 * DAY, MARGIN * DAY) is None


@pytest.mark.parametrize(("worked", "left"), [(12, 1400), (6, 1000), (18, 1600), (23, 1900)])
def test_a_limit_that_was_lowered_ends_when_it_is_said_to(worked, left):
    now = worked * HOUR
    budget = lowered(driven(Budget([Limit(2000, DAY)]), now), now, Limit(left, DAY))
    found = only(budget.forecasts(now))
    stands_still = stands_still_at(budget, now, now + 2 * DAY, MARGIN * DAY)
    assert stands_still is not None
    assert now + found.ends_in == pytest.approx(stands_still, abs=2 * MARGIN * DAY)


def test_a_limit_lowered_below_what_was_taken_has_ended():
    now = 20 * HOUR
    budget = lowered(driven(Budget([Limit(2000, DAY)]), now), now, Limit(1000, DAY))
    found = only(budget.forecasts(now))
    assert found.ends_in == 0.0
    assert found.used > 1.5
    gone = now + DAY  # and all of it is given back by then
    assert only(budget.forecasts(gone + HOUR)).ends_in is None


def test_the_rate_is_that_of_the_last_day_and_of_what_others_are_held_to():
    budget = Budget([Limit(1_000_000, 30 * DAY), Limit(10, 1.0)], cost=5.0)
    found = only(budget.forecasts(0.0))  # that of a second is none of a day
    assert (found.limit.requests, found.used, found.per_day, found.ends_in) == (1_000_000, 0.0, 0.0, None)
    driven(budget, 2 * DAY)
    found = only(budget.forecasts(2 * DAY))
    assert found.per_day == pytest.approx(1_000_000 / 30, rel=0.01)
    assert found.used == pytest.approx(2 / 30, rel=0.01)
    assert only(budget.forecasts(2.5 * DAY)).per_day == pytest.approx(1_000_000 / 60, rel=0.1)
    assert only(budget.forecasts(4 * DAY)).per_day == 0.0


def test_one_call_is_no_pace():
    budget = Budget([Limit(1_000_000, 30 * DAY)])
    budget.grant(100.0)
    assert only(budget.forecasts(100.0)).per_day == pytest.approx(1_000_000 / 30, rel=0.01)


def test_endpoints_that_share_a_limit_burn_it_together():
    limits = [Limit(30, 60.0, "a"), Limit(10, 60.0, "b"), Limit(100_000, DAY)]
    budget = Budget(limits, endpoints=("a", "b"))
    now = 0.0
    while now < 6 * HOUR:
        now = min(budget.ready_at(now, "a"), budget.ready_at(now, "b"))
        for endpoint in ("a", "b"):
            if budget.ready_at(now, endpoint) <= now:
                budget.settle(budget.grant(now, endpoint), now)
    found = only(budget.forecasts(now))
    assert found.per_day == pytest.approx(40 * 60 * 24, rel=0.02)
    assert found.ends_in is None


def test_a_moment_without_room_is_no_end():
    window = window_of(Limit(1000, DAY), 1.0, 1.0)
    for hours_left, calls in ((1, 10), (12, 970)):
        window.count((hours_left - 24) * HOUR, calls)
    # It is full after 0.9 hours, has room again after one, and is full for long after 1.36.
    assert _ends_in(window, 22 / HOUR, 0.0) == pytest.approx(1.36 * HOUR, abs=60)
    assert _ends_in(window, 21 / HOUR, 0.0) == pytest.approx(1.43 * HOUR, abs=60)
    assert _ends_in(window, 1 / HOUR, 0.0) is None
