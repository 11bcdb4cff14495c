from math import inf

from hypothesis import given
from hypothesis import strategies as st

from watcher.runtime.histogram import Histogram

BOUNDS = (0.5, 1.0, 2.0)


@given(st.lists(st.floats(0, 10)))
def test_each_bound_has_the_count_of_what_lies_at_or_below_it(values):
    found = Histogram(BOUNDS)
    for value in values:
        found.count(value)
    assert list(found.cumulative()) == [(bound, sum(value <= bound for value in values)) for bound in (*BOUNDS, inf)]
    assert found.total == len(values)
    assert abs(found.sum - sum(values)) < 1e-9 * max(1.0, sum(values))


def test_a_value_on_a_bound_is_within_it():
    found = Histogram(BOUNDS)
    found.count(1.0)
    assert dict(found.cumulative()) == {0.5: 0, 1.0: 1, 2.0: 1, inf: 1}
