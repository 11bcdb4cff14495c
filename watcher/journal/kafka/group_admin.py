# ruff: noqa: SLF001 (aiokafka's admin client sends what it has no method for)
# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""The group from outside: who is in it, and one member taken out of it."""

from collections.abc import Sequence
from typing import Any

import anyio
import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import NoError, UnknownMemberIdError, for_code
from aiokafka.protocol.group import LeaveGroupRequest

from watcher.fleet.claims import Assignment, ClaimError, MemberClaim, decode_assignment, decode_claim
from watcher.journal.kafka.cluster import Cluster

STABLE = "Stable"
SETTLED = (STABLE, "Empty", "Dead")
"""States of a group between joins. In all others the broker shows neither claims nor assignments."""
SETTLE = 3.0
"""Seconds that a look waits for a join to end: one without a dead member takes a heartbeat."""


class GroupMember(msgspec.Struct, frozen=True):
    """One member, as the group's coordinator knows it."""

    member_id: str
    host: str
    claim: MemberClaim | None
    """None: the group is in the midst of a join, or this is no member of a fleet."""
    assignment: Assignment | None

    @property
    def instance(self) -> str:
        return self.member_id if self.claim is None else self.claim.instance


class GroupDescription(msgspec.Struct, frozen=True):
    """The group at one moment."""

    state: str
    """In Kafka's words: Stable; Empty or Dead without members; PreparingRebalance and CompletingRebalance during a join."""
    protocol_type: str
    """"consumer" of ours."""
    protocol: str
    """The assignor's name; "" during a join."""
    members: Sequence[GroupMember]


async def describe_group(cluster: Cluster, group: str, *, settle: float = SETTLE) -> GroupDescription:
    """Waits `settle` seconds for a join to end. Raises Unavailable, Forbidden."""
    until = anyio.current_time() + settle
    async with cluster.admin() as admin:
        while True:
            found = await _describe(cluster, admin, group)
            if found.state in SETTLED or anyio.current_time() >= until:
                return found
            await anyio.sleep(0.1)


async def _describe(cluster: Cluster, admin: AIOKafkaAdminClient, group: str) -> GroupDescription:
    with cluster.within(cluster.deadlines.admin, f"looking at group {group}"):
        answer: Any
        (answer,) = await admin.describe_consumer_groups([group])
        ((code, _, state, protocol_type, protocol, members, *_),) = answer.groups
        if (error := for_code(code)) is not NoError:
            raise error(group)
    return GroupDescription(state, protocol_type, protocol, [_member(*member) for member in members])


def _member(member_id: str, _client: str, host: str, metadata: bytes, assignment: bytes) -> GroupMember:
    return GroupMember(member_id, host.removeprefix("/"), _claim(metadata), _assignment(assignment))


def _claim(metadata: bytes) -> MemberClaim | None:
    try:
        return decode_claim(ConsumerProtocolMemberMetadata.decode(metadata).user_data or b"")
    except (ClaimError, ValueError):
        return None


def _assignment(assignment: bytes) -> Assignment | None:
    try:
        return decode_assignment(ConsumerProtocolMemberAssignment.decode(assignment).user_data or b"")
    except (ClaimError, ValueError):
        return None


async def remove_member(cluster: Cluster, group: str, name: str) -> bool:
    """Take a member out of the group, so that the others have its partitions without waiting for its session: a static one
    that will not come back. `name`: its instance or its member id. False: there is none. Raises Unavailable, Forbidden.

    A member that still lives joins again.
    """
    found = await describe_group(cluster, group)
    ids = [member.member_id for member in found.members if name in (member.instance, member.member_id)]
    async with cluster.admin() as admin:
        removed = [await _remove(cluster, admin, group, member_id) for member_id in ids]
    return any(removed)


async def _remove(cluster: Cluster, admin: AIOKafkaAdminClient, group: str, member_id: str) -> bool:
    with cluster.within(cluster.deadlines.admin, f"taking a member out of group {group}"):
        node = await admin.find_coordinator(group)
        answer: Any = await admin._send_request(LeaveGroupRequest(group, member_id), node)
        error = for_code(answer.error_code)
        if error not in (NoError, UnknownMemberIdError):
            raise error(group)
    return error is NoError
