"""A hundred random cuts in the default suite; `python -m tests.relay.cuts --cuts 1000` is the long run."""

import pytest

from tests.relay.cuts import judge, trial

pytestmark = pytest.mark.anyio


async def test_a_hundred_cuts_leave_no_gap_and_no_duplicate(tmp_path):
    told, stayer, crowd = await trial(100, 7, tmp_path, followers=6)
    assert len(told) > 100
    for follower in [stayer, *crowd]:
        assert judge(told, follower) == {"gaps": 0, "unasked": 0, "repeated": 0, "disorder": 0, "faults": []}
    for crossed in (True, False):
        assert any(each.crossed is crossed and each.events for each in crowd)
    assert any(event[3] for event in told)


async def test_the_judge_sees_a_planted_gap_and_a_planted_duplicate(tmp_path):
    told, stayer, _ = await trial(3, 8, tmp_path, followers=1)
    lost = stayer.events.pop(first_that_has_later_ones(stayer.events, crossed=False))
    assert judge(told, stayer)["gaps"] == 1
    assert judge(told, stayer)["disorder"]
    stayer.events += [lost, lost]
    assert judge(told, stayer)["repeated"] == 1


async def test_the_judge_sees_a_crossing_that_is_missing_out_of_order_or_came_unasked(tmp_path):
    told, stayer, _ = await trial(3, 9, tmp_path, followers=1)
    lost = stayer.events.pop(first_that_has_later_ones(stayer.events, crossed=True))
    assert (judge(told, stayer)["gaps"], judge(told, stayer)["disorder"]) == (1, 0)
    stayer.events.insert(0, lost)
    assert judge(told, stayer)["disorder"]
    stayer.crossed = False
    assert judge(told, stayer)["unasked"]


def first_that_has_later_ones(events, *, crossed):
    """The place of the first event of its kind whose account has events behind it."""
    accounts = [account for account, *_ in events]
    return next(
        place
        for place, (account, _, _, alert) in enumerate(events)
        if bool(alert) is crossed and account in accounts[place + 1 :]
    )
