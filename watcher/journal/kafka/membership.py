# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""A member of the fleet: stays in the group, tells what it claims, gives on what it is assigned.

What to claim, and what to do with an assignment or when it is cut off, fleet/handover.py decides. What follows from an error is
decided here: it ends this process, or the conversation is abandoned and another begun, under the same member id.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable

import anyio
import msgspec
import structlog
from aiokafka.errors import InconsistentGroupProtocolError, InvalidSessionTimeoutError, KafkaError

from watcher.fleet.claims import Assignment, ClaimError, MemberClaim, decode_assignment
from watcher.journal import Fenced, WrongJournal
from watcher.journal.kafka.broker_errors import DenialTimer, FencedInstanceId, journal_error
from watcher.journal.kafka.cluster import Cluster
from watcher.journal.kafka.group_admin import describe_group
from watcher.journal.kafka.group_assignor import ASSIGNOR, FleetAssignor
from watcher.journal.kafka.group_coordinator import FleetCoordinator, GroupTiming
from watcher.journal.kafka.group_session import GroupSession, RejoinPacing
from watcher.model.log import JournalError, Unavailable

log = structlog.get_logger()

AGAIN = 0.5
"""Seconds between two conversations with the coordinator."""


class ReceivedAssignment(msgspec.Struct, frozen=True):
    """What this member polls from now on, instead of everything before."""

    assignment: Assignment
    received_at: float
    """By the clock of the membership."""


class CutOff(msgspec.Struct, frozen=True):
    """A session has passed without an answer: the group may have given our partitions to others. An assignment follows as
    soon as the coordinator answers."""

    confirmed_at: float
    """Until then we were in the group for certain; by the clock of the membership."""


class Membership:
    """One member, for one life. `run` keeps it in the group; `notices` says what comes of that."""

    def __init__(
        self,
        cluster: Cluster,
        topic: str,
        partitions: int,
        claim: Callable[[], MemberClaim],
        *,
        group: str,
        member: str | None,
        session: float,
        clock: Callable[[], float],
    ) -> None:
        """`claim`: gives what to tell at a join. `member`: the lasting name of a static one. `session`: seconds.
        `clock`: seconds that run on while the machine is suspended. `topic`: what the group subscribes to."""
        self._cluster = cluster
        self._topic = topic
        self._group = group
        self._member = member
        self._clock = clock
        self._timing = GroupTiming(session)
        self._session = GroupSession(session, clock())
        self._pacing = RejoinPacing(session)
        self._assignor = FleetAssignor(claim, self._take, partitions)
        self._denied = DenialTimer(60.0, cluster.deadlines.denied)
        self._coordinator: FleetCoordinator | None = None
        self._member_id = ""
        """As the coordinator has named us: the next conversation goes on under it, so that nobody takes us for another one."""
        self._cut_off = True
        """Whether the group may have given away what we hold, and we have said so; at first we hold nothing."""
        self._logged_reason = ""
        """Why there is no conversation, as the log has it: an outage is told once, and not at each try."""
        self._leaving = False
        self._staying = anyio.CancelScope()
        self._ended = anyio.Event()
        self._notices: deque[ReceivedAssignment | CutOff] = deque()
        self._noticed = anyio.Event()

    @property
    def confirmed_at(self) -> float:
        """When the coordinator last counted us in, as far as we know."""
        return self._session.confirmed_at

    async def notices(self) -> AsyncIterator[ReceivedAssignment | CutOff]:
        """All of them, in order, for ever. None is left out: each says what a member held between two joins."""
        while True:
            while self._notices:
                yield self._notices.popleft()
            self._noticed = anyio.Event()
            await self._noticed.wait()

    def _notice(self, notice: ReceivedAssignment | CutOff) -> None:
        self._notices.append(notice)
        self._noticed.set()

    def rejoin(self) -> None:
        """Ask for another assignment; at most once a session, whatever asks for it."""
        self._pacing.want()

    def _take(self, data: bytes) -> None:
        """What the leader has assigned to us."""
        try:
            assignment = _assignment_in(data)
        except ClaimError as error:
            if self._coordinator is not None:
                self._coordinator.fail(error)
            return
        self._denied.clear()
        self._logged_reason = ""
        self._cut_off = False
        self._notice(ReceivedAssignment(assignment, self._clock()))

    async def run(self) -> None:
        """Stays a member until `leave`. Raises Fenced, Forbidden, WrongJournal."""
        failure: JournalError | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch)
                try:
                    with self._staying:
                        await self._stay()
                except JournalError as error:
                    failure = error
                tasks.cancel_scope.cancel()
        finally:
            self._ended.set()
        if failure is not None:
            raise failure

    async def leave(self) -> None:
        """Ends `run`. A dynamic member leaves the group, and the others have its partitions at once. A static one stays until
        its session has passed, so that its restart moves nothing. Takes milliseconds, or 5 s when Kafka does not answer."""
        self._leaving = True
        self._staying.cancel()
        await self._ended.wait()

    async def _watch(self) -> None:
        while True:
            await anyio.sleep(self._timing.heartbeat)
            now = self._clock()
            if not self._cut_off and self._session.expired(now):
                self._cut_off = True
                self._notice(CutOff(self.confirmed_at))
                self._request_join()  # a broker that was away has kept us, perhaps, and would assign nothing anew
            if self._pacing.take(now):
                self._request_join()

    def _request_join(self) -> None:
        """Between two conversations there is nobody to ask: each begins with a join."""
        if self._coordinator is not None:
            self._coordinator.request_rejoin()

    async def _stay(self) -> None:
        while True:
            try:
                with self._denied.tolerated():
                    await self._converse()
            except Unavailable as error:
                if str(error) != self._logged_reason:
                    log.warning("fleet.group_unavailable", group=self._group, reason=str(error))
                self._logged_reason = str(error)
                await anyio.sleep(AGAIN)

    async def _converse(self) -> None:
        """Until nothing more can come of it. Raises what it has ended with."""
        client = await self._cluster.bare_client()
        coordinator = FleetCoordinator(
            client,
            self._topic,
            self._assignor,
            group=self._group,
            instance=self._member,
            timing=self._timing,
            session=self._session,
            clock=self._clock,
        )
        coordinator.member_id = self._member_id
        self._coordinator = coordinator
        try:
            error = await coordinator.failure()
        finally:
            self._coordinator = None
            self._member_id = coordinator.member_id
            await coordinator.abandon(leave=self._leaving)
        raise await self._meaning(error)

    async def _meaning(self, error: KafkaError | ClaimError) -> JournalError:
        if isinstance(error, FencedInstanceId):
            return Fenced(
                f"another process is member {self._member!r} of group {self._group} now; this one ends: give each process a "
                "name of its own ([kafka] member, member_env)"
            )
        if isinstance(error, InvalidSessionTimeoutError):
            return WrongJournal(
                f"[kafka] session_timeout = {self._timing.session:g}: the broker allows no such session; see its "
                "group.min.session.timeout.ms and group.max.session.timeout.ms"
            )
        if isinstance(error, ClaimError | InconsistentGroupProtocolError):
            return WrongJournal(
                f"group {self._group} is no fleet ({await self._other_use(error)}): take another [kafka] group"
            )
        return journal_error(error, f"being a member of group {self._group}", self._cluster.denied.last)

    async def _other_use(self, error: KafkaError | ClaimError) -> str:
        """What else the group is used for."""
        if isinstance(error, ClaimError):
            return str(error)
        try:
            found = await describe_group(self._cluster, self._group, settle=0.0)
        except JournalError as reason:
            return str(reason)
        return (
            f"its members use protocol {found.protocol_type!r} with assignor {found.protocol!r}; ours is {ASSIGNOR!r}"
        )


def _assignment_in(data: bytes) -> Assignment:
    """Raises ClaimError. A broker that mixes both of Kafka's protocols in one group assigns by itself, and knows no user data."""
    if not data:
        raise ClaimError("the broker itself assigns in it, since it has members of the newer consumer protocol")
    return decode_assignment(data)
