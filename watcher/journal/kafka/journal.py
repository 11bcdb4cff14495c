# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""The Kafka journal as a whole: what the composition root is given."""

import contextlib
import math
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import anyio
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from watcher.fleet.claims import MemberClaim
from watcher.journal import WrongJournal
from watcher.journal.kafka.broker_errors import DenialTimer
from watcher.journal.kafka.closing_log import ClosingLog
from watcher.journal.kafka.cluster import Cluster
from watcher.journal.kafka.deadlines import Deadlines
from watcher.journal.kafka.encoder import Encoder
from watcher.journal.kafka.fencing import LogIdentity, OwnerClaim, missing_marker, unmarked_state
from watcher.journal.kafka.group_admin import GroupDescription, describe_group, remove_member
from watcher.journal.kafka.heartbeat_sender import HeartbeatSender
from watcher.journal.kafka.hint_exchange import KafkaHintExchange
from watcher.journal.kafka.log_marker import LogMarkers
from watcher.journal.kafka.membership import Membership
from watcher.journal.kafka.offsets import OffsetProbe
from watcher.journal.kafka.owner_look import OwnerLook
from watcher.journal.kafka.reader import KafkaReader
from watcher.journal.kafka.records import TopicNames, hints_topic
from watcher.journal.kafka.settings import KafkaSettings, group_id, member_name, security
from watcher.journal.kafka.topic_admin import TopicAdmin
from watcher.journal.kafka.topic_specs import require_configs, require_topics, topic_specs
from watcher.journal.kafka.writer import KafkaWriter
from watcher.journal.views import ViewLimits
from watcher.model.events import JSON, MSGPACK, Encoding, ProviderHealth
from watcher.model.log import Unavailable

AGAIN = 0.5
"""Seconds between two tries."""

GATHER = 0.01
"""Seconds after a commit before the next one: back to back the coordinator makes it wait 20 ms."""

T = TypeVar("T")


def _require_asserts() -> None:
    if not __debug__:
        # aiokafka guards its transactions with asserts: without them a lost one is reported as committed.
        raise WrongJournal("the Kafka journal cannot run under python -O or PYTHONOPTIMIZE: start it without")


class KafkaJournal:
    """The `Journal` on Kafka."""

    gather = GATHER
    path = None

    def __init__(
        self,
        servers: Sequence[str],
        settings: KafkaSettings,
        *,
        environ: Mapping[str, str],
        encoding: Encoding = "json",
        retention: float = 604800.0,
        clock: Callable[[], int],
        boottime: Callable[[], float] = anyio.current_time,
        group: str = "",
        deadlines: Deadlines = Deadlines(),  # noqa: B008 (frozen)
        view_limits: ViewLimits = ViewLimits(),  # noqa: B008 (frozen)
        checkpoints: float = math.inf,
    ) -> None:
        """`servers` as `host:port`. `clock` gives wall-clock microseconds, `boottime` the seconds of leases. `group`: the fleet, or none. Raises SettingsError."""
        _require_asserts()
        self.partitions = settings.partitions
        self._settings, self._environ, self._view_limits = settings, environ, view_limits
        self._topics = TopicNames.under(settings.topic_prefix)
        self._specs = topic_specs(settings.topic_prefix, settings.partitions, retention, checkpoints)
        self._cluster = Cluster(servers, security(settings, environ), deadlines, settings.compression_type)
        self._offsets = OffsetProbe(self._cluster, self._topics)
        self._markers = LogMarkers(self._cluster, self._offsets, self._topics, self.partitions)
        self._encoder = Encoder(self._topics, JSON if encoding == "json" else MSGPACK, settings.source)
        self._clock, self._boottime, self.group = clock, boottime, group
        self._closings = self._closing_log(checkpoints)
        self._look = OwnerLook(self._cluster, self._offsets, self._topics)
        self._claim = OwnerClaim(secrets.token_hex(6), group)
        self._began_at: dict[int, int] = {}
        """Partition → where its internal records ended when `check` looked first."""
        self._identity = LogIdentity(self._topics)
        self._heartbeats = HeartbeatSender(self._cluster, self._topics.heartbeat, self._encoder)
        self._denied_administration = DenialTimer(10.0, self._cluster.deadlines.denied)

    def _closing_log(self, checkpoints: float) -> ClosingLog:
        closing, clock = self._topics.closing, self._clock
        return ClosingLog(self._cluster, self._offsets, closing, self.partitions, checkpoints=checkpoints, clock=clock)

    def _transactional_id(self, name: int | str) -> str:
        return f"{self._settings.topic_prefix}balance-watcher.{name}"

    def writer(self, partition: int) -> KafkaWriter:
        return KafkaWriter(
            partition,
            self._transactional_id(partition),
            self._topics,
            cluster=self._cluster,
            offsets=self._offsets,
            encoder=self._encoder,
            claim=self._claim,
            identity=self._identity,
            boottime=self._boottime,
            began_at=self._began_at.get(partition, math.inf),
        )

    async def reader(self) -> KafkaReader:
        """Raises WrongJournal without a marker, Unavailable while the log does not answer."""
        await self._require_log()
        reader = KafkaReader(
            self._identity,
            self._topics,
            self.partitions,
            self._cluster,
            self._offsets,
            view_limits=self._view_limits,
            closings=self._closings,
        )
        await reader.start()
        return reader

    async def heartbeat(self, health: Sequence[ProviderHealth]) -> None:
        """Raises Forbidden once the right to it has been missing for a while."""
        await self._heartbeats.send(health)

    async def released(self) -> bool:
        """Each partition has a word of its own on that, and another process writes while one looks."""
        return False

    async def swap_note(self, _key: str, _before: bytes | None, _after: bytes) -> bool:
        """Whoever writes here fences."""
        return False

    def hint_exchange(self) -> KafkaHintExchange:
        return KafkaHintExchange(self._cluster, hints_topic(self._settings.topic_prefix), self._clock)

    def member(self) -> str | None:
        """The lasting name of this process in the fleet; None: it has none. Raises SettingsError."""
        return member_name(self._settings, self._environ)

    def membership(self, claim: Callable[[], MemberClaim], clock: Callable[[], float]) -> Membership:
        """In the configured group. `claim`: gives what to tell at a join; `clock`: seconds that run on while the machine is suspended. Raises SettingsError."""
        return Membership(
            self._cluster,
            self._topics.heartbeat,
            self.partitions,
            claim,
            group=group_id(self._settings),
            member=self.member(),
            session=self._settings.session_timeout,
            clock=clock,
        )

    async def await_release(self, partition: int) -> None:
        """Return once the last owner of the partition has released it. Raises Unavailable."""
        await self._look.await_release(partition)

    async def require_fleet(self, partition: int) -> None:
        """For a member that owns nothing, and so meets nobody. Raises Fenced when an instance without our group has claimed
        the partition since `check`, Unavailable."""
        await self._look.require_fleet(partition, self._claim, self._began_at.get(partition, math.inf))

    async def heartbeats(self) -> list[ProviderHealth]:
        """In the order in which they were sent; of each provider the last one at least. Raises Unavailable."""
        return await self._look.heartbeats()

    async def fleet(self) -> GroupDescription:
        """The configured group as it is. Raises Unavailable, Forbidden."""
        return await describe_group(self._cluster, group_id(self._settings))

    async def remove_member(self, name: str) -> bool:
        """Take this member, by instance or member id, out of the configured group; whether it was in it. Raises Unavailable,
        Forbidden."""
        return await remove_member(self._cluster, group_id(self._settings), name)

    async def prepare(self) -> None:
        """Topics are made by `init`, when somebody asks for it."""

    async def init(self, *, new_log: bool = False) -> str:
        """Create topics and marker where they are missing. Raises WrongJournal or Unavailable."""
        created: list[str] = []
        aligned: list[str] = []
        marked = await self._with_broker(lambda admin: self._make(admin, created, aligned, new_log=new_log))
        if new_log:
            await self._fence_writers()
        done = [f"created {', '.join(created) or 'the marker'}"] if created or marked else []
        done = ["began a new log"] if new_log and not created else done
        done += [f"set {', '.join(aligned)}"] if aligned else []
        names = ", ".join(spec.name for spec in self._specs)
        return f"{'; '.join(done) or 'nothing to do'}: the log stands in {names} ({self.partitions} partitions)"

    async def _make(self, admin: TopicAdmin, created: list[str], aligned: list[str], *, new_log: bool) -> bool:
        """May be repeated; what each try does is added to the two lists. Whether the marker was written."""
        created += await admin.create()
        await admin.await_topics()
        aligned += await admin.align()
        return await self._markers.write(self._transactional_id("init"), new_log=new_log)

    async def _fence_writers(self) -> None:
        """Whoever still writes has to open its partitions again, and finds there that the log is another one."""
        for partition in range(self.partitions):
            await (await self._cluster.transactional_producer(self._transactional_id(partition))).close()

    async def check(self) -> None:
        await self._with_broker(self._require_specs)

    async def _require_specs(self, admin: TopicAdmin) -> None:
        found = await admin.ready()
        state = found.get(self._topics.state)
        if self._topics.internal not in found and state is not None and state.partitions == self.partitions:
            raise await self._unmarked()
        require_topics(self._specs, found)
        await self._require_log()  # a re-created topic has lost its configs too: say what matters more
        require_configs(self._specs, found)
        if not self._began_at:
            ends = await self._offsets.last_stable(
                [TopicPartition(self._topics.internal, p) for p in range(self.partitions)]
            )
            self._began_at = {place.partition: end for place, end in ends.items()}

    async def _require_log(self) -> None:
        """Raises WrongJournal when there is no log. Which one it is, whoever opens a partition sees there."""
        if not await self._markers.has_log():
            raise await self._unmarked()

    async def _unmarked(self) -> WrongJournal:
        """What to say of a log without a marker."""
        return unmarked_state(self._topics) if await self._markers.is_unmarked() else missing_marker(self._topics, 0)

    async def _with_broker(self, work: Callable[[TopicAdmin], Awaitable[T]]) -> T:
        """What `work` gives, once a broker is reached. A cluster that has just come back may go once more in the midst
        of it, so it is done anew from its beginning while there is time. Raises Unavailable `reach` seconds after the
        call, or when the `work` begun before that fails; WrongJournal when the cluster knows us not."""
        deadline = anyio.current_time() + self._cluster.deadlines.reach
        while True:
            try:
                async with self._admin_by(deadline) as client:
                    with self._denied_administration.tolerated():
                        return await work(TopicAdmin(client, self._specs, self._cluster))
            except Unavailable:
                if anyio.current_time() + AGAIN >= deadline:
                    raise
            await anyio.sleep(AGAIN)

    @contextlib.asynccontextmanager
    async def _admin_by(self, deadline: float) -> AsyncIterator[AIOKafkaAdminClient]:
        servers, reason = ", ".join(self._cluster.servers), "no answer"
        async with contextlib.AsyncExitStack() as stack:
            admin = None
            with anyio.CancelScope(deadline=deadline):
                while (admin := await self._try_admin(stack)) is None:
                    reason = await self._cluster.unreachable_reason()
                    await anyio.sleep(AGAIN)
            if admin is None:
                raise Unavailable(
                    f"no Kafka broker reached at {servers} within {self._cluster.deadlines.reach:g} s ({reason}): "
                    "is it up, are address and security_protocol right?"
                )
            yield admin

    async def _try_admin(self, stack: contextlib.AsyncExitStack) -> AIOKafkaAdminClient | None:
        with contextlib.suppress(Unavailable):
            return await stack.enter_async_context(self._cluster.admin())
        return None

    async def close(self) -> None:
        await self._heartbeats.close()
        await self._offsets.close()
