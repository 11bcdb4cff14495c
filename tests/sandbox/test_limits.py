"""The sandbox's limits: strict sliding windows, counted at arrival."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.sandbox import limits, registry
from watcher.sandbox.limits import Quota, QuotaGate


def parse(text):
    return limits.parse(text, registry.quotas())


@given(
    gaps=st.lists(st.floats(0.0, 0.5), max_size=120),
    requests=st.integers(1, 10),
    per=st.floats(0.1, 3.0),
)
def test_no_window_wherever_it_starts_holds_more_than_its_requests(gaps, requests, per):
    gate, now, granted = QuotaGate([Quota(requests, per)]), 0.0, []
    for gap in gaps:
        now += gap
        if gate.arrive(now, "any").granted:
            granted.append(now)
    for first in granted:
        assert sum(first <= time < first + per for time in granted) <= requests


def test_a_refused_call_takes_no_place():
    gate = QuotaGate([Quota(1, 1.0)])
    assert gate.arrive(0.0, "a").granted
    assert not any(gate.arrive(time / 10, "a").granted for time in range(1, 10))
    assert gate.arrive(1.0, "a").granted


def test_a_call_takes_a_place_in_every_window_or_in_none():
    gate = QuotaGate([Quota(2, 1.0), Quota(3, 100.0)])
    assert [gate.arrive(now, "a").granted for now in (0.0, 0.1, 0.2, 1.5, 3.0)] == [True, True, False, True, False]


def test_a_cost_takes_so_many_places():
    gate = QuotaGate([Quota(60, 60.0)])
    assert [gate.arrive(float(now), "a", 5).granted for now in range(13)] == [True] * 12 + [False]


def test_an_endpoints_window_leaves_the_others_alone():
    gate = QuotaGate([Quota(1, 10.0, "balances")])
    assert gate.arrive(0.0, "balances").granted
    assert not gate.arrive(1.0, "balances").granted
    assert gate.arrive(1.0, "balance").granted


def test_the_ruling_says_when_the_oldest_call_leaves():
    gate = QuotaGate([Quota(1, 10.0)])
    gate.arrive(2.0, "a")
    ruling = gate.arrive(5.0, "a")
    assert (ruling.granted, ruling.current, ruling.remaining, ruling.free_in) == (False, 2, -1, 7.0)


def test_limits_are_read_from_left_to_right():
    assert parse("") == registry.quotas()
    assert parse("none")["helius"] == ()
    assert parse("none,helius=50/1+9/60")["helius"] == (Quota(50, 1.0), Quota(9, 60.0))
    assert parse("none,helius=50/1")["ondo"] == ()
    assert parse("x10")["tokenkit"] == (Quota(10, 10.0),)
    assert parse("tokenkit.balances=10/60")["tokenkit"] == (Quota(1, 10.0), Quota(10, 60.0, "balances"))


@pytest.mark.parametrize("text", ["helius", "nobody=1/1", "helius=1", "helius=0/1", "helius=1/0", "x", "helius=1/1+"])
def test_limits_that_make_no_sense_are_refused_with_one_line(text):
    with pytest.raises(ValueError, match="--limits") as refused:
        parse(text)
    assert "\n" not in str(refused.value)
