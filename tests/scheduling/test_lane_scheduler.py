from collections import Counter

from tests.polling import tokenkit
from watcher.limits.budget import Budget
from watcher.limits.windows import Limit
from watcher.poller.assembly import budget_of, schedules_of
from watcher.scheduling.lane_scheduler import LaneScheduler


def lanes_of(provider, budget=None):
    schedules = schedules_of(provider, seed=1, now=0.0)
    budget = budget or budget_of(provider)
    return LaneScheduler(provider.groups, schedules, budget), budget


def run(lanes, budget, seconds, *, fail=()):
    """Every request is answered at once. Gives the endpoints in the order asked."""
    now, asked = 0.0, []
    while now < seconds:
        job, when = lanes.next_job(now)
        if job is None:
            now = when
            continue
        asked.append(job.lane.endpoint)
        budget.settle(budget.grant(now, job.lane.endpoint), now)
        for target in job.targets:
            job.schedule.failed(target, now) if target in fail else job.schedule.report(target, now, False)
    return asked


def test_lanes_under_one_limit_take_turns_in_proportion_to_what_a_sweep_needs():
    lanes, budget = lanes_of(tokenkit(60, listings=9, limits=((60, 60.0, None),)))
    asked = run(lanes, budget, 240)
    assert Counter(asked) == {"account-balances": 180, "balances": 60}


def test_turns_are_interleaved_evenly():
    lanes, budget = lanes_of(tokenkit(60, listings=9, limits=((60, 60.0, None),)))
    asked = "".join("b" if endpoint == "balances" else "l" for endpoint in run(lanes, budget, 240))
    assert "bb" not in asked
    assert "lllll" not in asked


def test_an_endpoint_without_room_is_passed_over_and_has_saved_up_one_turn_at_most():
    provider = tokenkit(20, listings=20, limits=((60, 60.0, None), (2, 60.0, "balances")))
    lanes, budget = lanes_of(provider)
    asked = run(lanes, budget, 300)
    assert asked.count("balances") in range(9, 12)
    assert asked.count("account-balances") > 280


def test_lanes_of_the_same_targets_share_one_schedule_and_each_its_own_budget():
    provider = tokenkit(60, limits=((6, 60.0, "balances"), (30, 60.0, "balance")))
    lanes, budget = lanes_of(provider)
    asked = run(lanes, budget, 120)
    assert Counter(asked) == {"balances": 12, "balance": 60}
    assert len(schedules_of(provider, seed=1, now=0.0)) == 1


def test_with_nothing_to_ask_it_says_when_to_look_again():
    provider = tokenkit(1, limits=((60, 60.0, None),))
    lanes, _ = lanes_of(provider)
    job, _ = lanes.next_job(0.0)
    assert lanes.next_job(0.0) == (None, float("inf"))  # in flight
    lanes.set_aside(job, 500.0)
    assert lanes.next_job(1.0) == (None, 500.0)
    job, now = lanes.next_job(500.0)
    assert (len(job.targets), now) == (1, 500.0)


def test_one_that_is_to_be_asked_alone_and_was_not_sent_is_asked_alone_again():
    lanes, _ = lanes_of(tokenkit(3, limits=((60, 60.0, None),)))
    job, _ = lanes.next_job(0.0)
    assert len(job.targets) == 3
    lanes.split(job)
    for now in range(6):
        job, _ = lanes.next_job(float(now))
        assert len(job.targets) == 1
        lanes.unsent(job, float(now))


def test_a_paused_endpoint_does_not_block_the_other_lanes():
    provider = tokenkit(2, listings=2, limits=((6, 60.0, "balances"), (6, 60.0, "account-balances")))
    lanes, budget = lanes_of(provider)
    budget.pause(1000.0, "balances")
    assert set(run(lanes, budget, 60)) == {"account-balances"}


def test_a_provider_with_a_budget_of_its_own_endpoints_alone_is_asked_through_each():
    endpoints = ("balances", "account-balances")
    budget = Budget([Limit(1, 10.0, endpoint) for endpoint in endpoints], endpoints=endpoints)
    lanes, _ = lanes_of(tokenkit(2, listings=2), budget)
    assert Counter(run(lanes, budget, 100)) == {"balances": 10, "account-balances": 10}
