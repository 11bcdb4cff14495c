"""What `check` says of limits that last for a day and longer: planned, and by what was spent."""

import pytest

from tests.app.test_check import ACCOUNT, OTHER, provider
from tests.polling import START, virtually
from watcher.app.check.plan import limit_lines, plan
from watcher.app.credit_forecast import credit_forecast, spent_credits
from watcher.limits.windows import Limit
from watcher.poller.assembly import budget_of

DAY = 86400.0
MONTH = [{"requests": 1_000_000, "per": 2_592_000.0}]


def planned(kind="helius", watches=({"account": ACCOUNT},), **more):
    found = provider(kind, list(watches), **more)
    return list(credit_forecast(found, plan(found).interval))


def test_the_month_of_helius_lasts_thirty_days_and_not_a_calendar_month():
    lasts, warning = planned()
    assert lasts == "  1,000,000 per 30 d: this pace takes 33,333 a day, 100% of it, and it lasts"
    assert "a month of 31 days takes 1,033,333" in warning
    assert "write { requests = 1000000, per = 2678400.0 }" in warning
    assert planned(limits=[{"requests": 1_000_000, "per": 2_678_400.0}, {"requests": 10, "per": 1.0}]) == [
        "  1,000,000 per 31 d: this pace takes 32,258 a day, 100% of it, and it lasts"
    ]


def test_who_asks_seldom_takes_a_part_of_it():
    (line,) = planned(min_interval=60.0)
    assert line == "  1,000,000 per 30 d: this pace takes 1,440 a day, 4% of it, and it lasts"
    (line,) = planned(watches=[{"account": ACCOUNT}, {"account": OTHER}], min_interval=60.0, share=0.5)
    assert "2,880 a day, 17% of it" in line


def test_a_limit_of_less_than_a_day_has_no_forecast():
    assert planned("jupiter", [{"account": ACCOUNT}]) == []


def test_check_shows_it_with_the_limits():
    one = provider("helius", [{"account": ACCOUNT}])
    assert any("33,333 a day" in line for line in limit_lines(one, plan(one)))


def spent(before, now, *, calls, days):
    """The lines, where `calls` were made evenly over the last `days` under the limits `before`."""

    async def main():
        former = budget_of(provider("helius", [{"account": ACCOUNT}], limits=before))
        for number in range(calls):
            time = days * DAY * (number + 1) / calls
            former.settle(former.grant(time), time)
        stamps = former.save(days * DAY, START)
        return list(spent_credits(provider("helius", [{"account": ACCOUNT}], limits=now), stamps, START))

    return virtually(main)


def test_by_the_stamps_it_is_what_was_spent():
    (line,) = spent(MONTH, MONTH, calls=4000, days=4)
    assert line == "  1,000,000 per 30 d: 0.4% used in the last 30 d, 1,000 a day; at that rate it lasts"


def test_a_plan_that_was_made_smaller_ends_on_a_day_that_is_named():
    smaller = [{"requests": 10_000, "per": 2_592_000.0}]
    (line,) = spent(MONTH, smaller, calls=9_000, days=2)
    assert "90.0% used" in line
    assert "at that rate nothing is left from 2026-09-24 " in line  # 1,000 are left, and 333 a day leave


def test_foreign_stamps_are_refused():
    async def main():
        list(spent_credits(provider("helius", [{"account": ACCOUNT}], limits=MONTH), b"x", START))

    with pytest.raises(ValueError):
        virtually(main)


def test_a_day_is_long_enough():
    day = [{"requests": 1000, "per": DAY}]
    assert (
        Limit(1000, DAY) in provider("ondo", [{"account": "0x" + "1" * 40, "chain": "ethereum-1"}], limits=day).limits
    )
    (line,) = planned("ondo", [{"account": "0x" + "1" * 40, "chain": "ethereum-1"}], limits=day)
    assert line.startswith("  1,000 per 24 h: this pace takes 1,000 a day, 100% of it")
