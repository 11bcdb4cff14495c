"""What the leader makes of all claims. Each law is seen to catch the bug that it guards against."""

import itertools

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.fleet.fleets import PROVIDERS, fleets, knowledge, next_claims, owners_of
from watcher.fleet import assignment
from watcher.fleet.assignment import assign
from watcher.fleet.claims import MemberClaim
from watcher.model.partitions import partition_of

ALIKE = st.tuples(st.integers(1, 6), st.integers(1, 12), st.sampled_from([3, 16, 64]))
"""Members, providers, partitions."""


def alike(members, providers, partitions):
    """Claims of a fresh fleet of one config, with one provider a partition, each as heavy as the others."""
    homes = {partition_of(provider, partitions): provider for provider in PROVIDERS[:providers]}
    return {name: MemberClaim(1, name, dict.fromkeys(homes.values(), 1.0), "", [], 0) for name in "abcdef"[:members]}


def who_owns_knows_most(fleet):
    claims, partitions = fleet
    owners, known = owners_of(assign(*fleet)), knowledge(claims, partitions)
    assert owners.keys() == known.keys()
    for partition, member in owners.items():
        assert known[partition][member] == max(known[partition].values())


def what_its_owner_does_not_know_is_unowned(fleet):
    claims, partitions = fleet
    given = assign(*fleet)
    owners = owners_of(given)
    for member, claim in claims.items():
        polled = {name for name in claim.providers if name in claims[owners[partition_of(name, partitions)]].providers}
        assert given[member].unowned == sorted(claim.providers.keys() - polled)


def loads_are_within_one_partition_of_even(fleet):
    claims, partitions = fleet
    owners, known = owners_of(assign(*fleet)), knowledge(claims, partitions)
    loads = {
        member: sum(known[partition][member] for partition, owner in owners.items() if owner == member)
        for member in claims
    }
    for partition, owner in owners.items():
        weight = known[partition][owner]
        for other in (member for member in claims if known[partition][member] == weight):
            assert loads[owner] - loads[other] <= weight


def the_heaviest_go_first_to_the_least_loaded(fleet):
    """On a fresh fleet of one config, where nothing else has a say."""
    claims, partitions = fleet
    known = knowledge(claims, partitions)
    loads, expected = dict.fromkeys(sorted(claims), 0), {}
    for partition in sorted(known, key=lambda partition: (-max(known[partition].values()), partition)):
        expected[partition] = min(loads, key=loads.get)
        loads[expected[partition]] += known[partition][expected[partition]]
    assert owners_of(assign(*fleet)) == expected


def what_is_even_stays(fleet):
    """However it came to be: here each member has what another one would have been given."""
    claims, partitions = fleet
    given = assign(*fleet)
    exchanged = dict(zip(sorted(given), [given[member] for member in sorted(given, reverse=True)], strict=True))
    again = assign(next_claims(claims, exchanged), partitions)
    assert owners_of(again) == owners_of(exchanged)
    assert not any(waits for one in again.values() for waits in one.partitions.values())


def what_was_made_even_stays(fleet):
    claims, partitions = fleet
    given = assign(*fleet)
    assert owners_of(assign(next_claims(claims, given), partitions)) == owners_of(given)


def a_join_moves_only_what_the_new_member_gets(shape):
    claims, partitions = alike(*shape), shape[2]
    before = assign(claims, partitions)
    joined = next_claims(claims, before) | {"new": msgspec.structs.replace(claims["a"], instance="new")}
    after = assign(joined, partitions)
    moved = owners_of(after).items() - owners_of(before).items()
    assert {member for _, member in moved} <= {"new"}
    assert after["new"].partitions == dict.fromkeys((partition for partition, _ in moved), True)
    assert len(moved) == len(owners_of(before)) // len(joined)


def a_leave_moves_only_what_the_member_had(shape):
    claims, partitions = alike(shape[0] + 1, *shape[1:]), shape[2]
    before = assign(claims, partitions)
    left = next_claims(claims, before)
    del left["a"]
    after = assign(left, partitions)
    moved = owners_of(after).items() - owners_of(before).items()
    assert {partition for partition, _ in moved} == before["a"].partitions.keys()
    assert not any(after[member].partitions[partition] for partition, member in moved), "nobody lives who would release"


def a_woken_member_does_not_win(shape, stale):
    claims, partitions = alike(*shape), shape[2]
    before = assign(claims, partitions)
    now = {member: msgspec.structs.replace(claim, epoch=9) for member, claim in next_claims(claims, before).items()}
    woken = MemberClaim(1, "woken", claims["a"].providers, "", stale, 8)
    honest = msgspec.structs.replace(woken, owned=[])
    assert assign(now | {"woken": woken}, partitions) == assign(now | {"woken": honest}, partitions)


def the_last_live_holder_is_waited_for(fleet):
    claims, _ = fleet
    given = assign(*fleet)
    for member, one in given.items():
        for partition, waits in one.partitions.items():
            holders = [(claim.epoch, name) for name, claim in claims.items() if partition in claim.owned]
            assert waits == (bool(holders) and max(holders)[1] != member)


def each_assignment_is_counted_and_says_what_it_was_made_from(fleet):
    claims, _ = fleet
    given = assign(*fleet)
    assert given.keys() == claims.keys()
    for member, one in given.items():
        assert one.epoch == max(claim.epoch for claim in claims.values()) + 1
        assert one.config == claims[member].config


def the_order_of_members_decides_nothing(fleet):
    claims, partitions = fleet
    results = [
        assign(dict(order), partitions) for order in itertools.islice(itertools.permutations(claims.items()), 24)
    ]
    assert all(result == results[0] for result in results)


LAWS = {
    who_owns_knows_most: (fleets(),),
    what_its_owner_does_not_know_is_unowned: (fleets(),),
    loads_are_within_one_partition_of_even: (fleets(),),
    the_heaviest_go_first_to_the_least_loaded: (fleets(one_config=True, fresh=True),),
    what_is_even_stays: (fleets(one_config=True, fresh=True),),
    what_was_made_even_stays: (fleets(),),
    a_join_moves_only_what_the_new_member_gets: (ALIKE,),
    a_leave_moves_only_what_the_member_had: (ALIKE,),
    a_woken_member_does_not_win: (ALIKE, st.lists(st.integers(0, 2), unique=True)),
    the_last_live_holder_is_waited_for: (fleets(),),
    each_assignment_is_counted_and_says_what_it_was_made_from: (fleets(),),
    the_order_of_members_decides_nothing: (fleets(),),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_laws_of_assignment(law):
    given(*LAWS[law])(law)()


spread_init, real_assign, real_holders = assignment._Spread.__init__, assignment.assign, assignment._holders


def any_knowledge_will_do(self, known):
    spread_init(self, known)
    self.candidates = {partition: list(members) for partition, members in known.items()}


def nothing_is_unowned(claims, partitions):
    return {member: msgspec.structs.replace(one, unowned=[]) for member, one in real_assign(claims, partitions).items()}


def no_partition_moves(self):
    return None


def one_move_too_many(self):
    """One move at each join, needed or not."""
    if hasattr(self, "moved") or not self.owners:
        return None
    self.moved = partition = min(self.owners)
    others = [member for member in self.candidates[partition] if member != self.owners[partition]]
    return (partition, min(others)) if others else None


def lightest_first(partitions, weights):
    return sorted(partitions, key=lambda partition: (weights[partition], partition))


def nobody_holds_anything(claims):
    return {}


def the_older_epoch_wins(claims):
    return real_holders({m: msgspec.structs.replace(c, epoch=-c.epoch) for m, c in claims.items()})


def dead_members_are_waited_for(claims, partitions):
    return {
        member: msgspec.structs.replace(one, partitions=dict.fromkeys(one.partitions, True))
        for member, one in real_assign(claims, partitions).items()
    }


def epochs_stand_still(claims, partitions):
    return {m: msgspec.structs.replace(one, epoch=1) for m, one in real_assign(claims, partitions).items()}


def the_first_of_equals(self, members):
    return min(members, key=lambda member: self._loads[member])


@pytest.mark.parametrize(
    ("law", "where", "name", "bug"),
    [
        (who_owns_knows_most, assignment._Spread, "__init__", any_knowledge_will_do),
        (what_its_owner_does_not_know_is_unowned, assignment, "assign", nothing_is_unowned),
        (loads_are_within_one_partition_of_even, assignment._Spread, "best_move", no_partition_moves),
        (the_heaviest_go_first_to_the_least_loaded, assignment, "_heaviest_first", lightest_first),
        (what_is_even_stays, assignment, "_holders", nobody_holds_anything),
        (what_was_made_even_stays, assignment._Spread, "best_move", one_move_too_many),
        (a_join_moves_only_what_the_new_member_gets, assignment, "_holders", nobody_holds_anything),
        (a_leave_moves_only_what_the_member_had, assignment, "_holders", nobody_holds_anything),
        (a_woken_member_does_not_win, assignment, "_holders", the_older_epoch_wins),
        (the_last_live_holder_is_waited_for, assignment, "_holders", the_older_epoch_wins),
        (a_leave_moves_only_what_the_member_had, assignment, "assign", dead_members_are_waited_for),
        (each_assignment_is_counted_and_says_what_it_was_made_from, assignment, "assign", epochs_stand_still),
        (the_order_of_members_decides_nothing, assignment._Spread, "least_loaded", the_first_of_equals),
    ],
)
def test_each_law_sees_a_planted_bug(law, where, name, bug, monkeypatch):
    monkeypatch.setattr(where, name, bug)
    if name == "assign":
        monkeypatch.setitem(globals(), "assign", bug)
    with pytest.raises(AssertionError):
        settings(max_examples=1000, phases=[Phase.generate])(given(*LAWS[law])(law))()


def test_twelve_members_that_join_at_once_share_what_there_is():
    claims = {f"m{number}": MemberClaim(1, "", dict.fromkeys(PROVIDERS, 2.0), "", [], 0) for number in range(12)}
    loads = sorted(len(one.partitions) for one in assign(claims, 4096).values())
    assert loads == [1] * 12


def test_a_config_that_rolls_leaves_no_provider_idle_that_somebody_knows():
    """Three members; one after the other learns of a new provider, in a partition with an old one, and forgets another."""
    old, new = {"bloxroute": 1.0, "helius": 10.0}, {"bloxroute": 1.0, "tokenkit": 0.2}
    assert partition_of("bloxroute", 16) == partition_of("tokenkit", 16)
    claims = {name: MemberClaim(1, name, old, "old", [], 0) for name in "abc"}
    for changed in "abc":
        claims = next_claims(claims, assign(claims, 16))
        claims[changed] = msgspec.structs.replace(claims[changed], providers=new, config="new")
        given = assign(claims, 16)
        owners = owners_of(given)
        assert claims[owners[partition_of("tokenkit", 16)]].config == "new"
        assert not any(one.unowned for one in given.values())
    assert owners.keys() == {partition_of("bloxroute", 16)}
    assert all(one.config == "new" for one in given.values())


def test_a_provider_that_the_owner_of_its_partition_does_not_know_is_said_to_be_unowned():
    claims = {
        "a": MemberClaim(1, "a", {"bloxroute": 1.0}, "", [], 0),
        "b": MemberClaim(1, "b", {"tokenkit": 0.2}, "", [], 0),
    }
    given = assign(claims, 16)
    assert (given["a"].partitions, given["a"].unowned) == ({partition_of("bloxroute", 16): False}, [])
    assert (given["b"].partitions, given["b"].unowned) == ({}, ["tokenkit"])


def test_a_fleet_without_members_is_given_nothing():
    assert assign({}, 16) == {}
