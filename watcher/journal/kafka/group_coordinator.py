# ruff: noqa: SLF001 (aiokafka has no public way to join a group without reading: its parts are pinned with its version)
# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""One member's conversation with the group's coordinator, on top of aiokafka's.

There is no consumer: nothing is fetched, so nothing has to be polled. What is ours here: a deadline on every request, static
members that learn that another process has their name, errors that end the conversation instead of coming again for ever,
and an end that does not hang. It is never used again after an error: whoever owns it abandons it and makes another.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import anyio
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import KafkaError, NoError, RebalanceInProgressError, RequestTimedOutError, for_code
from aiokafka.protocol.api import Request, RequestStruct
from aiokafka.protocol.group import (
    HeartbeatRequest,
    HeartbeatRequest_v1,
    HeartbeatResponse_v1,
    JoinGroupRequest,
    LeaveGroupRequest,
    SyncGroupRequest,
)
from aiokafka.protocol.types import Int32, Schema, String

from watcher.fleet.claims import ClaimError
from watcher.journal.kafka.broker_errors import FencedInstanceId
from watcher.journal.kafka.cluster import close_client
from watcher.journal.kafka.deadlines import CLIENT_ERRORS, STOP, ours_only
from watcher.journal.kafka.group_assignor import FleetAssignor
from watcher.journal.kafka.group_session import GroupSession

HEARTBEATS = 12
"""In a session. A member learns from the answer to one that others join, and the join waits for it: at a third, as is usual,
each join would last a third of the session."""
HEARTBEAT_ANSWER = 1 / 3
"""Of a session: a heartbeat that is not answered for so long is sent on another connection."""
JOIN_MARGIN = 2.0
"""Seconds that the answer to a join may take longer than the join."""


class GroupTiming(NamedTuple):
    """What follows from the session. Seconds."""

    session: float

    @property
    def heartbeat(self) -> float:
        return self.session / HEARTBEATS

    @property
    def rebalance(self) -> float:
        """So long a join waits for members that do not come."""
        return self.session

    @property
    def join_answer(self) -> float:
        """A join waits for members that do not come, and the assignment for a leader that dies: given up sooner and asked
        anew, it would begin anew for all."""
        return self.session + self.rebalance + JOIN_MARGIN


class _HeartbeatStruct(RequestStruct):
    """Heartbeat v3, which names the static member; aiokafka has v0 and v1."""

    API_KEY = HeartbeatRequest_v1.API_KEY
    API_VERSION = 3
    RESPONSE_TYPE = HeartbeatResponse_v1
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
    )


class _StaticHeartbeat(Request[HeartbeatRequest_v1 | _HeartbeatStruct]):
    """Without the name a broker answers "unknown member" both when our session has passed and when another process has our
    name: a member that joins again then takes the name from the other one, in turn, for ever."""

    API_KEY = HeartbeatRequest_v1.API_KEY

    def __init__(self, group: str, generation: int, member: str, instance: str) -> None:
        self._fields = (group, generation, member, instance)

    def build(self, request_struct_class: type[HeartbeatRequest_v1 | _HeartbeatStruct]) -> Any:
        return request_struct_class(*self._fields[: len(request_struct_class.SCHEMA.fields)])


class FleetCoordinator(GroupCoordinator):
    """Joins the group at once, in tasks of its own, and stays in it until `abandon`, whatever becomes of its owner.

    Nothing is done when an assignment is revoked, which every join does to every member: a member goes on under its leases
    until the next assignment says what it has lost.
    """

    def __init__(
        self,
        client: AIOKafkaClient,
        topic: str,
        assignor: FleetAssignor,
        *,
        group: str,
        instance: str | None,
        timing: GroupTiming,
        session: GroupSession,
        clock: Callable[[], float],
    ) -> None:
        subscription = SubscriptionState()
        subscription.register_fetch_waiters([])
        subscription._fetch_count = (
            1  # never idle: the event loop that sends the heartbeats is the one that polls providers
        )
        subscription.subscribe({topic})
        super().__init__(
            client,
            subscription,
            group_id=group,
            group_instance_id=instance,
            session_timeout_ms=int(timing.session * 1000),
            rebalance_timeout_ms=int(timing.rebalance * 1000),
            heartbeat_interval_ms=int(timing.heartbeat * 1000),
            enable_auto_commit=False,
            assignors=(assignor,),
        )
        self._timing = timing
        self._session = session
        self._clock = clock
        self._failure: asyncio.Future[KafkaError | ClaimError] = asyncio.get_running_loop().create_future()
        self._coordination_task.add_done_callback(self._on_end)

    async def failure(self) -> KafkaError | ClaimError:
        """Waits for the error that has ended this conversation."""
        return await asyncio.shield(self._failure)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and isinstance(error := task.exception(), KafkaError):
            self.fail(error)

    def fail(self, error: KafkaError | ClaimError) -> None:
        """The conversation is over; the first error counts."""
        if not self._failure.done():
            self._failure.set_result(error)

    async def _push_error_to_user(self, exc: KafkaError) -> None:
        """Where aiokafka would wait until its user has seen the error, and then repeat what has failed."""
        self.fail(exc)
        await asyncio.wait([self._closing])

    def _on_metadata_change(self) -> None:
        """The leader would have all join anew whenever a broker that has just come up does not know the topic yet."""

    async def _perform_assignment(self, response: Any) -> dict[str, Any]:
        """Without waiting for the topic's metadata, which a broker that is down can hold up."""
        (assignor,) = self._assignors
        return assignor.assign(  # type: ignore[no-any-return]
            self._cluster, {member[0]: ConsumerProtocol.METADATA.decode(member[-1]) for member in response.members}
        )

    async def _send_req(self, request: Any) -> Any:
        if isinstance(request, HeartbeatRequest):
            return await self._heartbeat(request)
        if isinstance(request, JoinGroupRequest | SyncGroupRequest):
            return await self._join(request)
        return await super()._send_req(request)

    async def _heartbeat(self, request: Any) -> Any:
        sent_at = self._clock()
        if self._group_instance_id is not None:
            request = _StaticHeartbeat(self.group_id, self.generation, self.member_id, self._group_instance_id)
        response = await self._answer(request, self._timing.session * HEARTBEAT_ANSWER)
        if for_code(response.error_code) in (NoError, RebalanceInProgressError):
            self._session.heartbeat_answered(sent_at)
        return response

    async def _join(self, request: JoinGroupRequest | SyncGroupRequest) -> Any:
        confirmed = False
        self._session.join_sent()
        try:
            response = await self._answer(request, self._timing.join_answer)
            confirmed = for_code(response.error_code) in (NoError, RebalanceInProgressError)
            return response
        finally:
            self._session.join_ended(self._clock(), confirmed=confirmed)

    async def _answer(self, request: Any, seconds: float) -> Any:
        """The client's own deadline is that of its connection, the same for a join and a heartbeat."""
        connection = await self._connection()
        if connection is not None:
            connection._request_timeout = self._timing.join_answer
        try:
            async with asyncio.timeout(seconds):
                response = await super()._send_req(request)
        except TimeoutError:
            if connection is not None:
                connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
            self.coordinator_dead()
            raise RequestTimedOutError from None
        if for_code(response.error_code) is FencedInstanceId:
            self.fail(FencedInstanceId())
        return response

    async def _connection(self) -> AIOKafkaConnection | None:
        """To the coordinator, open by now unless it is not to be had."""
        if self.coordinator_id is None:
            return None
        connection: AIOKafkaConnection | None = await self._client._get_conn(
            self.coordinator_id, group=ConnectionGroup.COORDINATION
        )
        return connection

    async def abandon(self, *, leave: bool) -> None:
        """End, now, and close. `leave` takes a dynamic member out of the group first, so that nobody waits for its session."""
        node, member = self.coordinator_id, self.member_id
        tasks: list[asyncio.Task[None]] = [
            task
            for task in (self._coordination_task, self._heartbeat_task, self._commit_refresh_task)
            if task is not None
        ]
        for task in tasks:
            task.cancel()
            task.add_done_callback(_retrieve)
        with anyio.CancelScope(shield=True):
            await asyncio.wait(tasks, timeout=1.0)
            if leave and self._group_instance_id is None and node is not None and member:
                await self._leave(node, member)
            await close_client(self._client)

    async def _leave(self, node: int, member: str) -> None:
        """On another connection: a join that waits holds up what comes behind it on its own."""
        with anyio.move_on_after(STOP), contextlib.suppress(*CLIENT_ERRORS), ours_only():
            await self._client.send(node, LeaveGroupRequest(self.group_id, member))


def _retrieve(task: asyncio.Task[None]) -> None:
    """Nobody will ask for this outcome any more: keep the loop from complaining about that."""
    if not task.cancelled():
        task.exception()
