"""The checker sees each planted violation, and nothing in a log that keeps the laws."""

import pytest

from tests.chaos.checker import Checker

KEY = {"provider": "bank", "chain": "eip155:1", "account": "0x1", "token": "0x2", "kind": "total"}
NAME = "bank/eip155:1/0x1/0x2/total"


def event(version, previous, amount, **other):
    return {**KEY, "id": f"id-{version}", "version": version, "previous_amount": previous, "amount": amount, **other}


def state(version, amount):
    return {**KEY, "version": version, "amount": amount}


def good():
    """What a healthy log of one key holds, in order."""
    return [
        state(0, "5"),
        event(1, "5", "7"),
        state(1, "7"),
        event(2, "7", "6"),
        state(2, "6"),
    ]


TRUTH = {NAME: ["5", "7", "6"]}


def judged(log, truth=TRUTH, earlier=None):
    checker = Checker()
    for place, record in enumerate(log):
        (checker.event if "id" in record else checker.state)(place, record)
    checker.finish()
    checker.judge_truth(truth)
    if earlier is not None:
        checker.judge_memory(earlier)
    return set(checker.violations)


def test_a_log_that_keeps_the_laws_is_left_alone():
    earlier = Checker()
    for place, record in enumerate(good()[:3]):
        (earlier.event if "id" in record else earlier.state)(place, record)
    assert judged(good(), earlier=earlier) == set()


def replaced(index, *records):
    log = good()
    log[index : index + 1] = records
    return log


@pytest.mark.parametrize(
    ("log", "law"),
    [
        (replaced(3), "a state without its event"),
        (replaced(1), "version not contiguous"),
        (replaced(3, event(3, "7", "6")), "version not contiguous"),
        (replaced(3, event(2, "7", "6"), event(2, "7", "6")), "id told twice"),
        (replaced(3, event(2, "7", "6", id="id-1")), "id told twice"),
        (replaced(3, event(2, "8", "6")), "previous_amount is not the amount before"),
        (replaced(3, event(2, "7", "7")), "no change"),
        (replaced(0, state(0, "4")), "previous_amount is not the baseline"),
        (replaced(4, state(2, "7")), "state and event differ"),
        (replaced(4), "the last event is not the state"),
        (replaced(4, state(2, "6"), state(1, "7")), "the state went back"),
        (replaced(4, state(2, "6"), state(2, "9")), "two states of one version"),
    ],
)
def test_a_broken_law_is_seen(log, law):
    assert law in judged(log)


@pytest.mark.parametrize(
    ("truth", "law"),
    [
        ({NAME: ["5", "6"]}, "an amount that never was"),
        ({NAME: ["5", "7", "6", "9"]}, "the final amount is not the truth"),
        ({**TRUTH, "bank/eip155:1/0x9/0x2/total": ["3"]}, "the final amount is not the truth"),
        ({}, "a balance that never was"),
    ],
)
def test_a_log_that_does_not_say_what_happened_is_seen(truth, law):
    assert law in judged(good(), truth)


def test_a_balance_that_was_never_anything_needs_no_record():
    assert judged(good(), {**TRUTH, "bank/eip155:1/0x9/0x2/total": ["0"]}) == set()


def test_what_was_seen_and_then_taken_back_is_seen():
    earlier = Checker()
    earlier.event(1, event(1, "5", "8"))
    assert "taken back after it was seen" in judged(good(), earlier=earlier)


@pytest.mark.parametrize("end", [3, 5, 2, 4])
def test_a_view_in_which_only_the_event_or_only_the_state_stands_is_seen(end):
    checker = Checker()
    for place, record in enumerate(good()[:end]):
        (checker.event if "id" in record else checker.state)(place, record)
    checker.view()
    assert set(checker.violations) == ({"events and state apart"} if end in (2, 4) else set())
    for place, record in enumerate(good()[end:], end):
        (checker.event if "id" in record else checker.state)(place, record)
    checker.view()
    assert len(checker.violations) == (end in (2, 4))
