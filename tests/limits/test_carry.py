"""What was spent under a budget counts under the one that replaces it in the same process, whatever its limits are."""

import heapq
import itertools
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.limits.test_limiter import WALL, Counter
from watcher.limits.budget import Budget, Predecessor
from watcher.limits.windows import BudgetError, Limit

ENDPOINTS = ("balance", "balances")
limit_ = st.builds(
    Limit, st.integers(1, 30), st.sampled_from([0.5, 1.0, 2.0, 10.0, 60.0]), st.sampled_from([None, *ENDPOINTS])
)
limits_ = st.lists(limit_, min_size=1, max_size=3).map(lambda found: [*found, Limit(40, 5.0)])


DELAY = 0.2
"""Seconds of one way, at most."""


def asked(budgets, now, until, dice, arrivals):
    """All of them saturate what they may, side by side; at the end what is out is waited for. Gives when that is."""
    out, tick = [], itertools.count()
    while now < until:
        choices = [(budget.ready_at(now, e), budget, e) for budget in budgets for e in budget.endpoints]
        when, budget, endpoint = min(choices, key=lambda one: (one[0], dice.random()))
        if out and out[0][0] <= max(when, now):
            now, _, slot, owner = heapq.heappop(out)
            owner.settle(slot, now)
        elif when <= now:
            arrived = now + dice.uniform(0, DELAY)
            arrivals.append((arrived, endpoint))
            heapq.heappush(out, (arrived + dice.uniform(0, DELAY), next(tick), budget.grant(now, endpoint), budget))
        else:
            now = min(when, until)
    for when, _, slot, owner in sorted(out):
        now = max(now, when)
        owner.settle(slot, when)
    return now


def made(limits, cost=1.0, share=1.0):
    try:
        return Budget(limits, cost=cost, share=share, endpoints=ENDPOINTS)
    except BudgetError:
        assume(False)


def exceeded(limits, arrivals, since, cost=1.0):
    """Requests from `since` on that find a window full: those of before count in it, whatever they were allowed by."""
    counter = Counter(limits, cost)
    for when, endpoint in sorted(arrivals):
        before = counter.refused
        counter.arrive(when, endpoint)
        if when < since:
            counter.refused = before
    return counter.refused


@given(st.lists(limits_, min_size=2, max_size=4), st.integers(0, 2**16))
def test_each_new_limit_counts_what_was_asked_before_it_came(configs, seed):
    dice, arrivals, now, budget = random.Random(seed), [], 0.0, None
    for limits in configs:
        new = made(limits)
        if budget is not None:
            new.carry([Predecessor(budget)], now)
        since, budget = now, new
        now = asked([budget], now, now + dice.uniform(0.1, 8.0), dice, arrivals)
        assert exceeded(limits, arrivals, since) == 0


def test_windows_that_begin_empty_are_seen():
    arrivals, dice, limits = [], random.Random(1), [Limit(5, 5.0)]
    now = asked([made(limits)], 0.0, 5.0, dice, arrivals)
    asked([made(limits)], now, now + 3.0, dice, arrivals)
    assert exceeded(limits, arrivals, now) > 0


DIVISIONS = ([1.0], [0.75], [0.5, 0.5], [0.25, 0.75], [0.6, 0.4], [0.25, 0.25, 0.5], [0.4, 0.2, 0.4])


@given(
    st.builds(Limit, st.integers(5, 30), st.sampled_from([1.0, 2.0, 10.0, 60.0])),
    st.lists(st.sampled_from(DIVISIONS), min_size=2, max_size=4),
    st.integers(0, 2**16),
)
def test_tables_that_divide_one_credential_anew_exceed_it_at_no_time(limit, divisions, seed):
    """The tables of a division have these shares. One that is in both goes on with what it had spent itself."""
    dice, arrivals, now, tables = random.Random(seed), [], 0.0, {}
    for shares in divisions:
        fresh = {number: made([limit], share=share) for number, share in enumerate(shares)}
        for number, budget in fresh.items():
            spent = [Predecessor(old) for name, old in tables.items() if name == number]
            for name in tables.keys() - {number}:
                beside = made([limit], share=shares[name]) if name in fresh else None
                spent.append(Predecessor(tables[name], beside))
            budget.carry(spent, now)
        tables = fresh
        now = asked(list(tables.values()), now, now + dice.uniform(0.1, 8.0), dice, arrivals)
    assert exceeded([limit], arrivals, 0.0) == 0


def test_a_call_that_became_dearer_counts_as_dear_as_it_is_and_one_that_became_cheaper_as_it_was():
    for before, after, used in ((1.0, 5.0, 4), (5.0, 1.0, 20)):
        old = Budget([Limit(60, 60.0)], cost=before)
        for number in range(4):
            old.settle(old.grant(old.ready_at(number * 6.0)), number * 6.0 + 0.1)
        new = Budget([Limit(60, 60.0)], cost=after)
        new.carry([Predecessor(old)], 24.0)
        assert new.binding().counted == used


def test_pauses_go_on_and_a_larger_limit_lets_the_next_call_leave_at_once():
    old = Budget([Limit(1, 10.0)])
    old.settle(old.grant(0.0), 0.1)
    new = Budget([Limit(10, 1.0)])
    new.carry([Predecessor(old)], 0.5)
    assert new.ready_at(0.5) == 0.5
    old.pause(30.0, remember=False)
    old.pause(20.0)
    new = Budget([Limit(10, 1.0)])
    new.carry([Predecessor(old)], 0.5)
    assert new.ready_at(0.5) == 30.0
    new.resume(0.5)
    assert new.ready_at(0.5) == 20.0


def test_what_was_restored_from_the_journal_counts_under_a_longer_limit_too():
    old = Budget([Limit(10, 10.0)])
    for number in range(5):
        old.settle(old.grant(old.ready_at(float(number))), number + 0.1)
    restored = Budget([Limit(10, 10.0)])
    restored.restore(old.save(6.0, WALL), 6.0, WALL, released=True, begin=6.0)
    new = Budget([Limit(6, 60.0)])
    new.carry([Predecessor(restored)], 6.0)
    assert new.binding().counted == 5
    assert new.binding().room_at(6.0) == pytest.approx(6.0)
