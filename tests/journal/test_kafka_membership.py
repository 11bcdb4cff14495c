"""The fleet's group on a real broker: who is given what, when members come, go, come back, and are not what they seem."""

import anyio
import msgspec
import pytest
from confluent_kafka import Consumer

from tests.journal.group_world import CONFIG, GROUP, PROVIDERS, SESSION, fleet, in_use
from tests.journal.kafka_world import ready
from watcher.journal import Fenced, WrongJournal
from watcher.journal.kafka.group_assignor import ASSIGNOR

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]
UNHURRIED = 15.0
"""A session beside which a stall of the machine is short: what takes a heartbeat is told from what takes a session."""
OTHER = "f" * 16
"""The hash of another config."""


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def members(kafka, prefix):
    async with ready(kafka.address, prefix, partitions=1), fleet(kafka.address, prefix) as members:
        yield members


async def test_one_member_is_given_all_that_is_in_use_and_nobody_held_it(members):
    one = members.start("one")
    await members.shared(one)
    assert one.assignments[-1].partitions == dict.fromkeys(in_use(), False)


async def test_a_member_that_joins_is_given_a_part_that_another_one_holds(members):
    one = members.start("one", session=UNHURRIED)
    await members.shared(one)
    two = members.start("two", session=UNHURRIED)
    began = anyio.current_time()
    await members.shared(one, two)
    assert anyio.current_time() - began < UNHURRIED / 2  # a heartbeat, not a session
    assert one.owned
    assert two.owned
    assert one.assignments[-1].partitions == dict.fromkeys(sorted(one.owned), False)
    assert two.assignments[-1].partitions == dict.fromkeys(sorted(two.owned), True)


async def test_twelve_members_that_join_in_one_go_share_everything(members):
    crowd = [members.start(f"member{number}") for number in range(12)]
    await members.shared(*crowd)
    assert max(len(member.owned) for member in crowd) == 1


async def test_a_dynamic_member_that_leaves_is_not_waited_for(members):
    one, two = members.start("one", session=UNHURRIED), members.start("two", session=UNHURRIED)
    await members.shared(one, two)
    began = anyio.current_time()
    await two.membership.leave()
    await members.shared(one)
    assert anyio.current_time() - began < UNHURRIED / 2
    assert two.error is None


async def test_a_member_that_dies_is_missed_after_its_session(members):
    one, two = members.start("one"), members.start("two")
    await members.shared(one, two)
    theirs = two.owned
    began = anyio.current_time()
    members.kill(two)
    await members.shared(one)
    assert SESSION / 2 < anyio.current_time() - began < SESSION + 4.0
    assert not any(one.assignments[-1].partitions[partition] for partition in theirs)  # nobody will release it


@pytest.mark.parametrize("leader", [False, True])
@pytest.mark.parametrize("ends", ["leaves", "dies"])
async def test_a_static_member_that_comes_back_within_its_session_moves_nothing(members, ends, leader):
    one = members.start("one", static=True)
    await members.shared(one)
    two = members.start("two", static=True)
    await members.shared(one, two)
    gone, stays = (one, two) if leader else (two, one)
    before, epoch = gone.owned, stays.assignments[-1].epoch
    if ends == "leaves":
        await gone.membership.leave()
    else:
        members.kill(gone)
    again = members.start("one" if leader else "two", static=True)
    await again.until(lambda member: member.assignments)
    await anyio.sleep(SESSION)
    assert again.owned == before
    assert stays.assignments[-1].epoch == epoch


async def test_a_static_member_that_comes_back_with_another_config_is_seen_by_the_others(members):
    one, two = members.start("one", static=True), members.start("two", static=True)
    await members.shared(one, two)
    members.kill(two)
    again = members.start("two", static=True, providers={**PROVIDERS, "bank99": 500.0}, config=OTHER)
    await again.until(lambda member: member.assignments and member.assignments[-1].config == OTHER)
    first = again.assignments[0]
    assert first.config == CONFIG  # it was given what the one before had
    assert first.epoch < again.assignments[-1].epoch
    assert len(again.assignments) <= 3


async def test_a_config_that_changes_in_a_running_member_is_assigned_anew(members):
    one, two = members.start("one"), members.start("two")
    await members.shared(one, two)
    providers = {**PROVIDERS, "bank99": 500.0}
    two.ownership._providers, two.ownership._config = providers, OTHER
    two.membership.rejoin()
    await two.until(lambda member: member.assignments[-1].config == OTHER)
    await members.shared(one, two, providers=providers)


async def test_of_two_processes_with_one_name_the_later_one_stays_and_the_other_one_ends(members):
    one, two = members.start("one", static=True), members.start("two", static=True)
    await members.shared(one, two)
    twin = members.start("two", static=True)
    await two.until(lambda member: member.error)
    assert isinstance(two.error, Fenced)
    assert "'two'" in str(two.error)
    assert "[kafka] member" in str(two.error)
    await twin.until(lambda member: member.assignments)
    await anyio.sleep(SESSION)
    assert twin.error is one.error is None


async def test_what_is_lost_is_claimed_no_more(members):
    one, two = members.start("one"), members.start("two")
    await members.shared(one, two)
    lost, epoch = min(two.owned), two.assignments[-1].epoch
    two.ownership.lost(lost, 0.0)
    two.membership.rejoin()
    await two.until(lambda member: member.assignments[-1].epoch > epoch)
    await members.shared(one, two)
    owner = one if lost in one.owned else two
    assert owner.assignments[-1].partitions[lost] is False


async def test_a_group_of_another_application_is_refused(kafka, prefix, members):
    other = Consumer({"bootstrap.servers": kafka.address, "group.id": f"{prefix}{GROUP}", "session.timeout.ms": 6000})
    other.subscribe([f"{prefix}balances.heartbeat.v1"])
    try:
        with anyio.fail_after(30):
            while not other.assignment():
                await anyio.to_thread.run_sync(other.poll, 0.1)
        one = members.start("one")
        await one.until(lambda member: member.error)
    finally:
        other.close()
    assert isinstance(one.error, WrongJournal)
    assert "assignor 'range'" in str(one.error)
    assert f"'{ASSIGNOR}'" in str(one.error)


async def test_a_group_of_the_broker_s_own_protocol_is_refused(kafka, prefix, members):
    other = Consumer({"bootstrap.servers": kafka.address, "group.id": f"{prefix}{GROUP}", "group.protocol": "consumer"})
    other.subscribe([f"{prefix}balances.heartbeat.v1"])
    try:
        with anyio.fail_after(30):
            while not other.assignment():
                await anyio.to_thread.run_sync(other.poll, 0.1)
        one = members.start("one")
        await one.until(lambda member: member.error)
    finally:
        other.close()
    assert isinstance(one.error, WrongJournal)
    assert "the broker itself assigns in it" in str(one.error)
    assert "take another [kafka] group" in str(one.error)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_no_other_application_takes_a_group_from_a_fleet(kafka, prefix, members, protocol):
    one = members.start("one")
    await members.shared(one)
    other = Consumer({"bootstrap.servers": kafka.address, "group.id": f"{prefix}{GROUP}", "group.protocol": protocol})
    other.subscribe([f"{prefix}balances.heartbeat.v1"])
    try:
        with anyio.move_on_after(SESSION / 2):
            while True:
                await anyio.to_thread.run_sync(other.poll, 0.1)
        assert other.assignment() == []
    finally:
        other.close()
    assert one.error is None
    assert len(one.notices) == 1


async def test_a_session_that_the_broker_does_not_allow_is_refused(members):
    one = members.start("one", session=1.5)
    await one.until(lambda member: member.error)
    assert isinstance(one.error, WrongJournal)
    assert "session_timeout = 1.5" in str(one.error)


async def test_the_group_is_seen_from_outside(members):
    one, two = members.start("one"), members.start("two", static=True)
    await members.shared(one, two)
    found = await one.journal.fleet()
    assert (found.state, found.protocol_type, found.protocol) == ("Stable", "consumer", ASSIGNOR)
    by_instance = {member.instance: member for member in found.members}
    assert by_instance.keys() == {"one", "two"}
    for member in (one, two):
        seen = by_instance[member.ownership.claim().instance]
        assert seen.assignment == member.assignments[-1]
        assert seen.claim.providers == PROVIDERS
        assert seen.host == "127.0.0.1"


async def test_a_group_without_members_is_seen_too(kafka, prefix, members):
    one = members.start("one")
    await members.shared(one)
    await one.membership.leave()
    found = await one.journal.fleet()
    assert found.members == []
    assert not await one.journal.remove_member("one")


async def test_a_static_member_that_will_not_come_back_is_taken_out(members):
    one, two = (
        members.start("one", static=True, session=UNHURRIED),
        members.start("two", static=True, session=UNHURRIED),
    )
    await members.shared(one, two)
    await two.membership.leave()
    began = anyio.current_time()
    assert await one.journal.remove_member("two")
    await members.shared(one)
    assert anyio.current_time() - began < UNHURRIED / 2
    assert not await one.journal.remove_member("two")


async def test_a_static_member_that_is_taken_out_and_lives_joins_again(members):
    one, two = members.start("one", static=True), members.start("two", static=True)
    await members.shared(one, two)
    before = len(two.assignments)
    assert await one.journal.remove_member("two")
    await two.until(lambda member: len(member.assignments) > before)
    await members.shared(one, two)
    assert two.error is None


async def test_a_conversation_that_breaks_is_begun_anew_under_the_same_name(members):
    one, two = members.start("one"), members.start("two")
    await members.shared(one, two)
    broken, began = two.membership._coordinator, anyio.current_time()
    name = broken.member_id
    broken._coordination_task.cancel()  # no end that aiokafka tells of
    broken.fail(AssertionError("planted"))
    before, assignments = two.owned, len(two.assignments)
    await two.until(lambda member: member.membership._coordinator not in (None, broken))
    await two.until(lambda member: member.membership.confirmed_at > began + SESSION / 2)
    assert two.membership._coordinator.member_id == name
    assert two.error is None
    assert two.owned == before
    assert len(two.assignments) <= assignments + 1


async def test_a_member_that_was_suspended_knows_it_at_once_and_is_assigned_anew(members):
    one, two = members.start("one", session=UNHURRIED), members.start("two", session=UNHURRIED)
    await members.shared(one, two)
    before = len(two.assignments)
    two.suspended = 100.0
    await two.until(lambda member: member.cuts, seconds=UNHURRIED / 2)
    await two.until(lambda member: len(member.assignments) > before)
    await members.shared(one, two)
    assert one.cuts == []


async def test_a_leader_that_does_not_understand_a_claim_goes_on_with_the_others(members):
    one, two = members.start("one"), members.start("two")
    await members.shared(one, two)
    claim = two.ownership.claim
    two.membership._assignor._claim = lambda: msgspec.structs.replace(claim(), version=99)
    two.membership.rejoin()
    await members.shared(one)
    await two.until(lambda member: not member.owned)  # it may hear of it after the other one
    assert two.error is None
