"""What a member does with an assignment. Each law is seen to catch the bug that it guards against."""

from math import inf

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.fleet.fleets import fleets, next_claims, owners_of
from watcher.fleet import handover
from watcher.fleet.assignment import assign
from watcher.fleet.claims import WEIGHTIEST, Assignment, MemberClaim, decode_claim, encode
from watcher.fleet.handover import IN_FLIGHT_WAIT, RELEASE_WAIT, HandOver, Ownership

PARTITIONS = st.integers(0, 7)
OWNED = st.sets(PARTITIONS)
GIVEN = st.dictionaries(PARTITIONS, st.booleans())


def after(owned, epoch, partitions, number, config="c"):
    return handover.hand_over(owned, epoch, Assignment(1, number, config, partitions, []))


def every_partition_is_dealt_with_once(owned, partitions, missed):
    steps = after(owned, 3, partitions, 4 + missed)
    assert steps.keep | steps.let_go == owned
    assert not steps.keep & steps.let_go
    assert sorted([*steps.keep, *steps.await_release, *steps.fence]) == sorted(partitions)


def what_is_ours_and_was_is_kept(owned, partitions):
    assert after(owned, 3, partitions, 4).keep == owned & partitions.keys()


def after_a_missed_assignment_nothing_is_kept(owned, partitions, missed):
    steps = after(owned, 3, partitions, 4 + missed)
    assert not steps.keep
    assert steps.let_go == owned


def whoever_lives_is_waited_for(owned, partitions, missed):
    steps = after(owned, 3, partitions, 4 + missed)
    opened = partitions.keys() - steps.keep
    assert steps.await_release == {partition for partition in opened if partitions[partition]}
    assert steps.fence == {partition for partition in opened if not partitions[partition]}


def who_lets_go_and_who_opens_agree(fleet, dies):
    """A member has come, and perhaps another one has died. Of what moves between the living, one lets go and the other waits."""
    claims, partitions = fleet
    claims = next_claims(claims, assign(claims, partitions))
    held = {partition: name for name, claim in claims.items() for partition in claim.owned}
    first = min(claims)
    claims["new"] = msgspec.structs.replace(claims[first], owned=[], epoch=0)
    if dies:
        del claims[first]
    given = assign(claims, partitions)
    steps = {name: handover.hand_over(claims[name].owned, claims[name].epoch, given[name]) for name in claims}
    for partition, name in owners_of(given).items():
        former = held.get(partition)
        if former == name:
            assert partition in steps[name].keep
        elif former in steps:
            assert partition in steps[name].await_release
            assert partition in steps[former].let_go
        else:
            assert partition in steps[name].fence


LAWS = {
    every_partition_is_dealt_with_once: (OWNED, GIVEN, st.integers(0, 2)),
    what_is_ours_and_was_is_kept: (OWNED, GIVEN),
    after_a_missed_assignment_nothing_is_kept: (OWNED, GIVEN, st.integers(1, 5)),
    whoever_lives_is_waited_for: (OWNED, GIVEN, st.integers(0, 2)),
    who_lets_go_and_who_opens_agree: (fleets(one_config=True), st.booleans()),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_laws_of_handing_over(law):
    given(*LAWS[law])(law)()


right = handover.hand_over


def opened_anew_each_time(owned, epoch, assignment):
    steps = right((), epoch, assignment)
    return HandOver(frozenset(), frozenset(owned), steps.await_release, steps.fence)


def kept_whatever_was_missed(owned, epoch, assignment):
    return right(owned, assignment.epoch - 1, assignment)


def nobody_is_waited_for(owned, epoch, assignment):
    steps = right(owned, epoch, assignment)
    return HandOver(steps.keep, steps.let_go, frozenset(), steps.fence | steps.await_release)


def kept_for_ever(owned, epoch, assignment):
    steps = right(owned, epoch, assignment)
    return HandOver(steps.keep | steps.let_go, frozenset(), steps.await_release, steps.fence)


@pytest.mark.parametrize(
    ("law", "bug"),
    [
        (every_partition_is_dealt_with_once, kept_for_ever),
        (what_is_ours_and_was_is_kept, opened_anew_each_time),
        (after_a_missed_assignment_nothing_is_kept, kept_whatever_was_missed),
        (whoever_lives_is_waited_for, nobody_is_waited_for),
        (who_lets_go_and_who_opens_agree, nobody_is_waited_for),
        (who_lets_go_and_who_opens_agree, kept_for_ever),
    ],
)
def test_each_law_sees_a_planted_bug(law, bug, monkeypatch):
    monkeypatch.setattr(handover, "hand_over", bug)
    with pytest.raises(AssertionError):
        settings(max_examples=1000, phases=[Phase.generate])(given(*LAWS[law])(law))()


def member(config="c"):
    return Ownership("here", {"x": 1.0}, config)


def test_a_member_claims_what_it_was_given_last():
    ownership = member()
    assert ownership.claim() == MemberClaim(1, "here", {"x": 1.0}, "c", [], 0)
    ownership.assigned(Assignment(1, 7, "c", {5: False, 2: True}, []), 0.0)
    claim = ownership.claim()
    assert (claim.owned, claim.epoch, claim.instance, claim.providers) == ([2, 5], 7, "here", {"x": 1.0})


def test_a_fresh_process_opens_all_that_it_is_given():
    steps = member().assigned(Assignment(1, 7, "c", {5: False, 2: True}, []), 0.0)
    assert steps == HandOver(frozenset(), frozenset(), frozenset({2}), frozenset({5}))


def test_an_assignment_from_another_config_is_worked_on_and_another_one_is_asked_for():
    ownership = member("new")
    steps = ownership.assigned(Assignment(1, 7, "old", {5: False}, []), 10.0)
    assert steps.fence == {5}
    assert ownership.rejoin_at == 10.0
    ownership.assigned(Assignment(1, 8, "new", {5: False}, []), 11.0)
    assert ownership.rejoin_at == inf


def test_a_lost_partition_is_claimed_no_more_and_explained_or_asked_about():
    ownership = member()
    ownership.assigned(Assignment(1, 7, "c", {5: False, 2: False}, []), 10.0)
    ownership.lost(5, 20.0)
    ownership.lost(2, 21.0)
    assert ownership.claim().owned == []
    assert ownership.rejoin_at == 23.0
    steps = ownership.assigned(Assignment(1, 8, "c", {5: True}, []), 22.0)
    assert ownership.rejoin_at == inf
    assert steps.await_release == {5}, "what was lost is opened anew"


def test_what_is_taken_while_it_is_let_go_needs_no_other_assignment():
    ownership = member()
    ownership.assigned(Assignment(1, 7, "c", {5: False}, []), 10.0)
    ownership.assigned(Assignment(1, 8, "c", {}, []), 20.0)
    ownership.lost(5, 21.0)
    assert ownership.rejoin_at == inf


@pytest.mark.parametrize("weight", [1e10, inf])
def test_limits_that_allow_anything_make_a_claim_that_others_understand(weight):
    ownership = Ownership("one", {"free": weight, "slow": 0.1}, "c")
    assert decode_claim(encode(ownership.claim())).providers == {"free": WEIGHTIEST, "slow": 0.1}


def test_letting_go_is_done_before_the_next_owner_tires_of_waiting():
    assert IN_FLIGHT_WAIT + 1.0 < RELEASE_WAIT


def test_another_config_is_claimed_at_the_next_join_which_is_wanted_now_and_the_same_one_is_not():
    member = Ownership("one", {"p": 1.0}, "before")
    member.assigned(Assignment(1, 1, "before", {3: False}, []), 0.0)
    member.reconfigured({"p": 1.0}, "before", 5.0)
    assert member.rejoin_at == inf
    member.reconfigured({"p": 1.0, "q": 2.0}, "after", 6.0)
    assert (member.rejoin_at, member.claim().providers, member.claim().owned) == (6.0, {"p": 1.0, "q": 2.0}, [3])
    member.assigned(Assignment(1, 2, "before", {3: False}, []), 7.0)  # made of the claim of before
    assert member.rejoin_at == 7.0
    member.assigned(Assignment(1, 3, "after", {3: False}, []), 8.0)
    assert member.rejoin_at == inf
