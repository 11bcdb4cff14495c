"""A fixed part of the fuzzing, and Hypothesis on top, which shrinks what it finds."""

import json
import random

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.providers import cases
from tests.providers.tables import LATER
from watcher.providers.protocol import Response
from watcher.testing import fuzz
from watcher.testing.mutations import mutated

CASES = cases.cases()
FIXED = settings(derandomize=True, max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.integers(min_value=0).map(str),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def case_name(case):
    return f"{case.name}-{case.provider.groups[-1].lanes[-1].endpoint}-{len(case.request.path)}"


def test_six_thousand_mutated_answers_give_readings_or_a_failure_and_no_false_reading():
    totals = fuzz.run(CASES, 6_000, seed=5)
    assert set(totals) == {"jupiter", "bloxroute", "helius", "ondo", "tokenkit"}
    assert all(outcomes["read"] + outcomes["read in part"] > 50 < outcomes["Malformed"] for outcomes in totals.values())


def replaced(value, path, new):
    """`value` with what stands at `path` (indices into containers, wrapped around) replaced."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    names = list(value) if isinstance(value, dict) else range(len(value))
    name = names[path[0] % len(value)]
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[name] = replaced(value[name], path[1:], new)
    return copy


@pytest.mark.parametrize("case", CASES, ids=case_name)
@FIXED
@given(path=st.lists(st.integers(0, 12), max_size=6), new=values, status=st.sampled_from(fuzz.STATUSES))
def test_any_value_in_any_place_of_a_good_answer_gives_readings_or_a_failure(case, path, new, status):
    body = json.dumps(replaced(json.loads(case.answers[0]), path, new)).encode()
    fuzz.judge(case, Response(status, body, LATER))


@pytest.mark.parametrize("case", CASES, ids=case_name)
@FIXED
@given(seed=st.integers(0, 2**32), more=st.binary(max_size=40))
def test_any_bytes_in_an_answer_give_readings_or_a_failure(case, seed, more):
    body = mutated(case.answers, random.Random(seed)) + more
    fuzz.judge(case, Response(200, body, LATER))


def rounded(read):
    """A reader whose amounts pass through a float."""

    def wrong(request, response):
        found = read(request, response)
        replaced = [
            msgspec.structs.replace(one, amount=one.amount and str(int(float(one.amount)))) for one in found.readings
        ]
        return msgspec.structs.replace(found, readings=replaced)

    return wrong


def careless(read):
    """A reader that takes every listing for whole."""
    return lambda request, response: msgspec.structs.replace(read(request, response), partial=False)


def slashed(read):
    """A reader that makes keys which no journal could read again."""

    def wrong(request, response):
        found = read(request, response)
        readings = [
            msgspec.structs.replace(one, key=msgspec.structs.replace(one.key, token="a/b")) for one in found.readings
        ]
        return msgspec.structs.replace(found, readings=readings[:1])

    return wrong


BUGS = [(rounded, "and not"), (careless, "proves absences|taken for absent"), (slashed, "cannot be read again")]


@pytest.mark.parametrize(("bug", "says"), BUGS)
def test_a_bug_in_a_reader_is_found_with_its_seed_and_number(bug, says):
    (case,) = (case for case in cases.cases() if case.name == "jupiter" and "/balances/" in case.request.path)
    case.provider.read = bug(case.provider.read)
    with pytest.raises(AssertionError, match=rf"^jupiter, seed 5, answer \d+: HTTP 200 .*({says})"):
        fuzz.run([case], 6_000, seed=5)
