"""Whose partition it is: two instances, members of one fleet, and an instance beside a fleet. Pure."""

import math

import msgspec
import pytest

from watcher.journal import Fenced, Lost
from watcher.journal.kafka.fencing import OwnerClaim
from watcher.journal.kafka.internal_records import OwnerRecord


def opened(*claims, partition):
    """Each opens the partition in turn; what stands there is the last one's."""
    for claim in claims:
        claim.resolve(partition.get("owner"), opened=False)
        partition["owner"] = claim.record


def test_who_opens_for_the_first_time_takes_over_and_the_other_ends():
    one, other, partition = OwnerClaim("one"), OwnerClaim("other"), {}
    opened(one, other, partition=partition)
    assert partition["owner"] == OwnerRecord(1, "other")
    with pytest.raises(Fenced):
        one.resolve(partition["owner"], opened=True)
    other.resolve(one.record, opened=True)


def test_of_two_instances_that_open_two_partitions_in_another_order_one_ends():
    one, other, first, second = OwnerClaim("one"), OwnerClaim("other"), {}, {}
    opened(one, other, partition=first)
    opened(other, one, partition=second)
    ends = []
    for claim, partition in ((one, first), (other, second)):
        try:
            claim.resolve(partition["owner"], opened=True)
        except Fenced:
            ends.append(claim)
    assert len(ends) == 1


def test_a_member_whose_partition_another_member_has_claimed_loses_that_alone_whoever_is_greater():
    one, other, partition = OwnerClaim("one", "fleet"), OwnerClaim("other", "fleet"), {}
    opened(one, other, partition=partition)
    for found in (partition["owner"], msgspec.structs.replace(partition["owner"], generation=0)):
        with pytest.raises(Lost):
            one.resolve(found, opened=True)
    opened(one, partition=partition)  # it is given the partition again
    with pytest.raises(Lost):
        other.resolve(partition["owner"], opened=True)


@pytest.mark.parametrize(("first", "second"), [("", "fleet"), ("fleet", ""), ("fleet", "another")])
def test_a_claim_of_the_other_kind_since_our_start_ends_us_and_an_older_one_is_taken_over(first, second):
    one, other, partition = OwnerClaim("one", first), OwnerClaim("other", second), {}
    opened(one, other, partition=partition)
    with pytest.raises(Fenced):
        one.resolve(partition["owner"], opened=True)
    idle = OwnerClaim("idle", first)
    with pytest.raises(Fenced):
        idle.resolve(partition["owner"], opened=False, since_start=True)
    idle.resolve(partition["owner"], opened=False, since_start=False)
    assert idle.record > partition["owner"]


@pytest.mark.parametrize("order", [("one", "other"), ("other", "one")])
def test_of_an_instance_and_a_fleet_that_start_together_one_side_goes_on(order):
    """Each has claimed a partition, and comes to that of the other."""
    alone, member = OwnerClaim(order[0]), OwnerClaim(order[1], "fleet")
    first, second = {}, {}
    opened(alone, partition=first)
    opened(member, partition=second)
    ends = []
    for claim, partition in ((alone, second), (member, first)):
        try:
            claim.resolve(partition["owner"], opened=False, since_start=True)
        except Fenced:
            ends.append(claim)
    assert len(ends) == 1


def test_a_claim_of_before_belongs_to_no_fleet_and_was_not_released():
    found = msgspec.json.decode(b'{"generation":7,"instance":"old"}', type=OwnerRecord)
    assert found == OwnerRecord(7, "old", "", False, 0.0, 0, 0)


def test_nothing_is_in_doubt_of_who_released_of_nobody_and_of_the_writer_itself():
    claim, other = OwnerClaim("one"), OwnerClaim("other")
    assert claim.settles(None, opened=False)
    assert claim.settles(other.released(0, 0, in_doubt=0.0), opened=False)
    assert not claim.settles(other.released(0, 0, in_doubt=0.5), opened=False)
    assert (other.released(0, 0, in_doubt=0.5).doubt, other.record.doubt) == (0.5, math.inf)
    assert claim.settles(claim.record, opened=True)
    assert not claim.settles(other.record, opened=False)
    assert not claim.settles(claim.record, opened=False), "a writer of ours whose pollers are gone"
