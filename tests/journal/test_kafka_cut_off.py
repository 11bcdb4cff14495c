"""A member that no longer hears Kafka, and one that Kafka refuses: brokers that stand still, and rights that are taken."""

import anyio
import pytest
from confluent_kafka.admin import AclOperation, ResourceType

from tests.journal.group_world import GROUP, SESSION, fleet
from tests.journal.kafka_world import denied, frozen, hurried, ready
from watcher.journal import Forbidden

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def members(own_broker, prefix):
    async with ready(own_broker.address, prefix, partitions=1), fleet(own_broker.address, prefix) as members:
        yield members


async def test_a_member_that_hears_nothing_knows_after_its_session_and_is_assigned_anew_when_it_hears_again(
    own_broker, members
):
    one, two = (
        members.start("one", deadlines=hurried(request=2.0)),
        members.start("two", deadlines=hurried(request=2.0)),
    )
    await members.shared(one, two)
    with frozen(own_broker):
        began = anyio.current_time()
        await one.until(lambda member: member.cuts)
        assert SESSION / 2 < anyio.current_time() - began < SESSION + 2.0
        (notice,) = one.cuts
        assert notice.confirmed_at == one.membership.confirmed_at <= began + 1.0
        await two.until(lambda member: member.cuts)
    before = len(one.assignments), len(two.assignments)
    await one.until(lambda member: len(member.assignments) > before[0])
    await two.until(lambda member: len(member.assignments) > before[1])
    await members.shared(one, two)
    assert len(one.cuts) == 1
    assert one.membership.confirmed_at > notice.confirmed_at


async def test_a_member_whose_broker_stands_still_for_less_than_a_session_keeps_what_it_has(own_broker, members):
    one = members.start("one", session=20.0, deadlines=hurried(request=2.0))
    await members.shared(one)
    with frozen(own_broker):
        await anyio.sleep(3.0)
    before = one.membership.confirmed_at
    await one.until(lambda member: member.membership.confirmed_at > before)
    assert len(one.notices) == 1


@pytest.mark.parametrize("static", [False, True])
async def test_a_broker_that_is_killed_and_comes_back_leaves_everything_owned_once(own_broker, members, static):
    one, two = members.start("one", static=static), members.start("two", static=static)
    await members.shared(one, two)
    before = one.membership.confirmed_at
    own_broker.kill()
    await anyio.to_thread.run_sync(own_broker.start)
    for member in (one, two):
        await member.until(lambda member: member.membership.confirmed_at > before + SESSION)
    await members.shared(one, two)
    assert one.error is two.error is None


async def test_a_member_that_leaves_while_nothing_answers_is_gone_soon(own_broker, members):
    one = members.start("one", deadlines=hurried(request=2.0))
    await members.shared(one)
    with frozen(own_broker), anyio.fail_after(8.0):
        await one.membership.leave()
    assert one.error is None


async def test_a_group_that_our_user_may_not_join_ends_it(own_broker, prefix, members):
    with denied(own_broker.address, ResourceType.GROUP, f"{prefix}{GROUP}", AclOperation.READ):
        one = members.start("one", deadlines=hurried(denied=1.0))
        await one.until(lambda member: member.error)
    assert isinstance(one.error, Forbidden)
    assert GROUP in str(one.error)
