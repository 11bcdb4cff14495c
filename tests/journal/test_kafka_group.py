"""What a member decides of its place in the group, and what it sends, without any broker."""

import asyncio
from io import BytesIO

import anyio
import pytest
from aiokafka.protocol.group import HeartbeatRequest_v1
from structlog.testing import capture_logs

from tests.journal.kafka_world import hurried
from watcher.app.daemon import wall
from watcher.fleet.claims import Assignment, MemberClaim, decode_assignment, encode
from watcher.journal.kafka import KafkaJournal, KafkaSettings
from watcher.journal.kafka import membership as membership_module
from watcher.journal.kafka.group_assignor import ASSIGNOR, FleetAssignor
from watcher.journal.kafka.group_coordinator import GroupTiming, _StaticHeartbeat
from watcher.journal.kafka.group_session import GroupSession, RejoinPacing
from watcher.journal.kafka.membership import ReceivedAssignment

CLAIM = MemberClaim(1, "a-1", {"jupiter": 1.0, "helius": 10.0}, "0" * 16, [], 0)


class TestSession:
    def test_it_lasts_from_when_an_answered_heartbeat_was_sent(self):
        session = GroupSession(10.0, 0.0)
        session.heartbeat_answered(5.0)
        assert not session.expired(14.9)
        assert session.expired(15.0)
        assert session.confirmed_at == 5.0

    def test_an_answer_that_comes_late_takes_nothing_back(self):
        session = GroupSession(10.0, 0.0)
        session.heartbeat_answered(5.0)
        session.heartbeat_answered(4.0)
        assert session.confirmed_at == 5.0

    def test_a_member_whose_join_waits_is_in_the_group_however_long_that_is(self):
        session = GroupSession(10.0, 0.0)
        session.join_sent()
        assert not session.expired(1000.0)
        session.join_ended(1000.0, confirmed=True)
        assert not session.expired(1009.0)
        assert session.expired(1010.0)

    def test_a_join_that_nobody_answered_has_confirmed_nothing(self):
        session = GroupSession(10.0, 0.0)
        session.join_sent()
        session.join_ended(22.0, confirmed=False)
        assert session.expired(22.0)
        assert session.confirmed_at == 0.0

    def test_the_join_is_given_up_later_than_the_slowest_one_ends(self):
        timing = GroupTiming(10.0)
        assert timing.join_answer > timing.session + timing.rebalance
        assert timing.heartbeat < 1.0


class TestPacing:
    def test_the_first_join_is_free_and_the_next_one_a_session_away(self):
        pacing = RejoinPacing(10.0)
        assert not pacing.take(0.0)
        pacing.want()
        assert pacing.take(1.0)
        assert not pacing.take(1.0)
        pacing.want()
        assert not pacing.take(10.9)
        assert pacing.take(11.0)

    def test_a_hash_that_never_fits_makes_a_join_a_session_and_no_storm(self):
        pacing, joins = RejoinPacing(10.0), 0
        for tenth in range(600):
            pacing.want()
            joins += pacing.take(tenth / 10)
        assert joins == 6


class TestUserData:
    def assignor(self, claim=CLAIM, taken=None):
        return FleetAssignor(lambda: claim, [].append if taken is None else taken.append, 16)

    def test_a_member_subscribes_and_is_given_none_of_the_topic(self):
        told = self.assignor().metadata({"heartbeat"})
        assert told.subscription == ["heartbeat"]
        given = self.assignor().assign(None, {"a": told})["a"]
        assert given.partitions() == []
        assert set(decode_assignment(given.user_data).partitions.values()) == {False}

    def test_what_the_leader_sends_is_what_the_member_takes(self):
        taken = []
        one = self.assignor(taken=taken)
        given = one.assign(None, {"a": one.metadata({"heartbeat"})})["a"]
        one.on_assignment(type(given).decode(BytesIO(given.encode())))
        assert decode_assignment(taken[0]).config == CLAIM.config

    @pytest.mark.parametrize("data", [b"", None, b"\x93\x02", b"{}"])
    def test_a_member_that_tells_nothing_sensible_is_given_nothing_and_holds_nobody_up(self, data):
        one = self.assignor()
        members = {"a": one.metadata({"t"}), "b": one.metadata({"t"})}
        members["b"].user_data = data
        given = one.assign(None, members)
        assert decode_assignment(given["b"].user_data).partitions == {}
        assert len(decode_assignment(given["a"].user_data).partitions) == 2

    def test_the_assignor_s_name_is_fixed(self):
        assert FleetAssignor.name == ASSIGNOR == "balance-watcher"


def test_a_heartbeat_names_the_static_member_where_the_broker_can_read_it():
    heartbeat = _StaticHeartbeat("g", 3, "m-1", "watcher-0")
    newest = heartbeat.prepare({12: (0, 4)})
    assert (newest.API_VERSION, newest.group_instance_id) == (3, "watcher-0")
    older = heartbeat.prepare({12: (0, 2)})
    assert older.encode() == HeartbeatRequest_v1("g", 3, "m-1").encode()


@pytest.mark.anyio
class TestNotices:
    @pytest.fixture
    def anyio_backend(self):
        return "asyncio"

    @pytest.fixture
    async def membership(self):
        journal = KafkaJournal(["127.0.0.1:9"], KafkaSettings(group="g"), environ={}, clock=wall)
        return journal.membership(lambda: CLAIM, anyio.current_time)

    async def test_none_is_left_out_by_one_who_comes_late(self, membership):
        given = [Assignment(1, epoch, CLAIM.config, {3: False}, []) for epoch in (1, 2, 3)]
        for one in given:
            membership._take(encode(one))
        seen = []
        async for notice in membership.notices():
            assert isinstance(notice, ReceivedAssignment)
            seen.append(notice.assignment)
            if len(seen) == 3:
                break
        assert seen == given

    async def test_a_group_that_cannot_be_reached_is_told_once_and_not_at_each_try(self, monkeypatch):
        monkeypatch.setattr(membership_module, "AGAIN", 0.01)
        tries = []

        async def hang_up(_reader, writer):
            tries.append(writer)
            writer.close()

        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            journal = KafkaJournal(
                [f"127.0.0.1:{port}"], KafkaSettings(group="g"), environ={}, clock=wall, deadlines=hurried(start=0.05)
            )
            membership = journal.membership(lambda: CLAIM, anyio.current_time)
            with capture_logs() as logs:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(membership.run)
                    with anyio.fail_after(30):
                        while len(tries) < 30:  # noqa: ASYNC110 (several tries, no one event)
                            await anyio.sleep(0.01)
                    await membership.leave()
            await journal.close()
        assert [record["event"] for record in logs] == ["fleet.group_unavailable"]
