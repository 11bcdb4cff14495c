"""A fixed part of the fuzzing, and Hypothesis on top, which shrinks what it finds."""

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.providers import fuzz
from tests.providers.tables import LATER
from watcher.providers.protocol import Response

CASES = fuzz.cases()
FIXED = settings(derandomize=True, max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.integers(min_value=0).map(str),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def test_six_thousand_mutated_answers_give_found_or_failure_and_no_false_reading():
    totals = fuzz.run(6_000, seed=5)
    assert set(totals) == {"jupiter", "bloxroute", "helius", "ondo", "tokenkit"}
    assert all(
        outcomes["Found"] + outcomes["Found in part"] > 50 < outcomes["Malformed"] for outcomes in totals.values()
    )


def replaced(value, path, new):
    """`value` with what stands at `path` (indices into containers, wrapped around) replaced."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    names = list(value) if isinstance(value, dict) else range(len(value))
    name = names[path[0] % len(value)]
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[name] = replaced(value[name], path[1:], new)
    return copy


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case[0]}-{case[1].groups[-1].lanes[-1].endpoint}-{len(case[2].path)}"
)
@FIXED
@given(path=st.lists(st.integers(0, 12), max_size=6), new=values, status=st.sampled_from(fuzz.STATUSES))
def test_any_value_in_any_place_of_a_good_answer_gives_found_or_failure(case, path, new, status):
    _, provider, request, seeds = case
    body = json.dumps(replaced(json.loads(seeds[0]), path, new)).encode()
    fuzz.judge(provider, request, Response(status, body, LATER), body)


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case[0]}-{case[1].groups[-1].lanes[-1].endpoint}-{len(case[2].path)}"
)
@FIXED
@given(seed=st.integers(0, 2**32), more=st.binary(max_size=40))
def test_any_bytes_in_an_answer_give_found_or_failure(case, seed, more):
    _, provider, request, seeds = case
    body = fuzz.mutated(seeds, random.Random(seed)) + more
    fuzz.judge(provider, request, Response(200, body, LATER), body)
