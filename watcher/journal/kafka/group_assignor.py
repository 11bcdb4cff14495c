# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""Our part in Kafka's group protocol: what stands in the user data of its messages.

The members subscribe to a topic and are given none of its partitions: what a member owns, state partitions of the journal,
stands in the user data. So nothing is fetched, and the number of that topic's partitions bounds nothing.
"""

from collections.abc import Callable, Iterable, Mapping

import structlog
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from watcher.fleet.assignment import assign
from watcher.fleet.claims import VERSION, ClaimError, MemberClaim, decode_claim, encode

log = structlog.get_logger()

ASSIGNOR = "balance-watcher"
"""Fixed for ever: members that name different ones cannot be in one group, so a rolling upgrade would be none. The version
stands in the user data."""
WIRE_VERSION = 0
"""Of the group protocol's own messages, around the user data."""


class FleetAssignor(AbstractPartitionAssignor):
    """One member's. aiokafka asks it for our claim before each join, has the leader's assign, and gives it what came.

    `claim` gives what to tell; `take` is handed the user data that we are given. `partitions`: of the journal.
    """

    name = ASSIGNOR

    def __init__(self, claim: Callable[[], MemberClaim], take: Callable[[bytes], None], partitions: int) -> None:
        self._claim = claim
        self._take = take
        self._partitions = partitions

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:  # type: ignore[override]
        return ConsumerProtocolMemberMetadata(WIRE_VERSION, sorted(topics), encode(self._claim()))

    def assign(  # type: ignore[override]
        self, _cluster: object, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        claims = {member: _claim_of(member, metadata.user_data) for member, metadata in members.items()}
        return {
            member: ConsumerProtocolMemberAssignment(WIRE_VERSION, [], encode(assignment))
            for member, assignment in assign(claims, self._partitions).items()
        }

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:  # type: ignore[override]
        self._take(assignment.user_data or b"")


def _claim_of(member: str, data: bytes | None) -> MemberClaim:
    """Of a member that we do not understand: it knows nothing and is given nothing, and the others go on."""
    try:
        return decode_claim(data or b"")
    except ClaimError as error:
        log.warning("fleet.claim_not_understood", member=member, reason=str(error))
        return MemberClaim(VERSION, member, {}, "", [], 0)
