"""A budget that refills, and its debts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.relay.token_bucket import TokenBucket


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 50)), max_size=40))
def test_nobody_takes_more_than_is_there_at_once_and_what_has_come_since(steps):
    bucket, now, taken = TokenBucket(20, 5), 0.0, 0.0
    for later, amount in steps:
        now += later
        if bucket.left(now) >= 0:
            assert taken <= 20 + 5 * now + 1e-6
            bucket.take(amount, now)
            taken += amount


def test_a_debt_is_told_in_seconds_and_a_clock_that_stands_or_steps_back_repays_nothing():
    bucket = TokenBucket(10, 2)
    assert bucket.take(10, 100.0) == 0
    assert bucket.take(4, 100.0) == 2.0
    assert bucket.left(99.0) == -4
    assert bucket.take(0, 101.0) == 1.0
    assert bucket.left(102.0) == pytest.approx(0)
    assert bucket.left(1000.0) == 10
