"""A hundred random cuts in the default suite; `python -m tests.relay.cuts --cuts 1000` is the long run."""

import pytest

from tests.relay.cuts import judge, trial

pytestmark = pytest.mark.anyio


async def test_a_hundred_cuts_leave_no_gap_and_no_duplicate(tmp_path):
    told, stayer, crowd = await trial(100, 7, tmp_path, followers=6)
    assert len(told) > 100
    for follower in [stayer, *crowd]:
        assert judge(told, follower) == {"gaps": 0, "repeated": 0, "disorder": 0, "faults": []}


async def test_the_judge_sees_a_planted_gap_and_a_planted_duplicate(tmp_path):
    told, stayer, _ = await trial(3, 8, tmp_path, followers=1)
    accounts = [account for account, *_ in stayer.events]
    lost = stayer.events.pop(next(n for n, account in enumerate(accounts) if account in accounts[n + 1 :]))
    assert judge(told, stayer)["gaps"] == 1
    assert judge(told, stayer)["disorder"]
    stayer.events += [lost, lost]
    assert judge(told, stayer)["repeated"] == 1
