# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""The Kafka journal as a whole: what the composition root is given."""

import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import anyio
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from watcher.journal import WrongJournal
from watcher.journal.kafka import topic_admin as cluster
from watcher.journal.kafka.cluster import Cluster, stop
from watcher.journal.kafka.deadlines import Broken
from watcher.journal.kafka.fencing import LogIdentity, OwnerClaim, unmarked
from watcher.journal.kafka.offsets import OffsetProbe
from watcher.journal.kafka.reader import KafkaReader
from watcher.journal.kafka.records import Encoder, TopicNames
from watcher.journal.kafka.settings import KafkaSettings, security
from watcher.journal.kafka.topic_specs import compare, refuse, topic_specs
from watcher.journal.kafka.writer import KafkaWriter
from watcher.journal.views import ViewLimits
from watcher.model.events import JSON, MSGPACK, Encoding, ProviderHealth
from watcher.model.log import JournalError, Unavailable

REACH = 30.0
"""Seconds in which a broker must have been reached."""
AGAIN = 0.5
"""Seconds between two tries."""
HEARTBEAT = 5.0
"""Seconds after which a heartbeat that nobody takes is dropped."""

GATHER = 0.01
"""Seconds after a commit before the next one: back to back the coordinator makes it wait 20 ms."""

T = TypeVar("T")


class KafkaJournal:
    """The `Journal` on Kafka."""

    gather = GATHER

    def __init__(
        self,
        servers: Sequence[str],
        settings: KafkaSettings,
        *,
        environ: Mapping[str, str],
        encoding: Encoding = "json",
        retention: float = 604800.0,
        reach: float = REACH,
        view_limits: ViewLimits = ViewLimits(),  # noqa: B008 (frozen)
    ) -> None:
        """`servers` as `host:port`. Raises SettingsError for settings that cannot be."""
        if not __debug__:
            # aiokafka guards its transactions with asserts: without them a lost one is reported as committed.
            raise WrongJournal("the Kafka journal cannot run under python -O or PYTHONOPTIMIZE: start it without")
        self.partitions = settings.partitions
        self._settings = settings
        self._reach = reach
        self._view_limits = view_limits
        self._topics = TopicNames.under(settings.topic_prefix)
        self._plans = topic_specs(self._topics, settings.partitions, retention)
        self._connection = Cluster(servers, security(settings, environ))
        self._gauge = OffsetProbe(self._connection, self._topics)
        self._encoder = Encoder(self._topics, JSON if encoding == "json" else MSGPACK, settings.source)
        self._claim = OwnerClaim(secrets.token_hex(6))
        self._identity = LogIdentity(self._topics)
        self._pulse: AIOKafkaProducer | None = None

    def transactional_id(self, name: int | str) -> str:
        return f"{self._settings.topic_prefix}balance-watcher.{name}"

    def writer(self, partition: int) -> KafkaWriter:
        return KafkaWriter(
            partition,
            self.transactional_id(partition),
            self._topics,
            connection=self._connection,
            gauge=self._gauge,
            encoder=self._encoder,
            claim=self._claim,
            identity=self._identity,
        )

    async def reader(self) -> KafkaReader:
        """Raises WrongJournal without a marker, Unavailable while the log does not answer."""
        await self._marked()
        reader = KafkaReader(
            self._identity, self._topics, self.partitions, self._connection, self._gauge, view_limits=self._view_limits
        )
        await reader.start()
        return reader

    async def heartbeat(self, health: Sequence[ProviderHealth]) -> None:
        with anyio.move_on_after(HEARTBEAT) as scope:
            try:
                await self._beat(health)
            except (*Broken, JournalError):
                scope.cancel()
        if scope.cancel_called and self._pulse is not None:
            pulse, self._pulse = self._pulse, None
            await stop(pulse)

    async def _beat(self, health: Sequence[ProviderHealth]) -> None:
        if self._pulse is None:
            self._pulse = await self._connection.plain_producer()
        for one in health:
            topic, key, value, headers = self._encoder.health(one)
            await self._pulse.send_and_wait(topic, value, key, partition=0, headers=headers)

    async def prepare(self) -> None:
        """Topics are made by `init`, when somebody asks for it."""

    async def init(self, *, new_log: bool = False) -> str:
        """Create topics and marker where they are missing. Raises WrongJournal or Unavailable."""
        created: list[str] = []
        aligned: list[str] = []
        marked = await self._reached(lambda admin: self._make(admin, created, aligned, new_log=new_log))
        if new_log:
            await self._fence()
        said = [f"created {', '.join(created) or 'the marker'}"] if created or marked else []
        said = ["began a new log"] if new_log and not created else said
        said += [f"set {', '.join(aligned)}"] if aligned else []
        names = ", ".join(self._topics)
        return f"{'; '.join(said) or 'nothing to do'}: the log stands in {names} ({self.partitions} partitions)"

    async def _make(self, admin: AIOKafkaAdminClient, created: list[str], aligned: list[str], *, new_log: bool) -> bool:
        """May be repeated; what each try does is added to the two lists. Whether the marker was written."""
        created += await cluster.create(admin, self._plans)
        await cluster.appear(admin, self._plans)
        aligned += await cluster.align(admin, self._plans)
        return await cluster.write_marker(
            self._connection, self._gauge, self._topics, self.partitions, self.transactional_id("init"), new_log=new_log
        )

    async def _fence(self) -> None:
        """Whoever still writes has to open its partitions again, and finds there that the log is another one."""
        for partition in range(self.partitions):
            await (await self._connection.producer(self.transactional_id(partition))).leave()

    async def check(self) -> None:
        await self._reached(self._compare)

    async def _compare(self, admin: AIOKafkaAdminClient) -> None:
        found = await cluster.ready(admin, self._plans)
        refuse(self._plans, found)
        await self._marked()  # a re-created topic has lost its configs too: say what matters more
        compare(self._plans, found)

    async def _marked(self) -> None:
        """Raises WrongJournal when there is no log. Which one it is, whoever opens a partition sees there."""
        if not await cluster.holds_log(self._connection, self._gauge, self._topics):
            raise unmarked(self._topics, 0)

    async def _reached(self, work: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
        """What `work` gives, once a broker is reached. A cluster that has just come back may go once more in the midst
        of it, so it is done anew from its beginning while there is time. Raises Unavailable `reach` seconds after the
        call, or when the `work` begun before that fails; WrongJournal when the cluster knows us not."""
        deadline = anyio.current_time() + self._reach
        while True:
            try:
                async with self._connected(deadline) as admin:
                    return await work(admin)
            except Unavailable:
                if anyio.current_time() + AGAIN >= deadline:
                    raise
            await anyio.sleep(AGAIN)

    @contextlib.asynccontextmanager
    async def _connected(self, deadline: float) -> AsyncIterator[AIOKafkaAdminClient]:
        servers, reason = ", ".join(self._connection.servers), "no answer"
        async with contextlib.AsyncExitStack() as stack:
            admin = None
            with anyio.CancelScope(deadline=deadline):
                while (admin := await self._entered(stack)) is None:
                    reason = await self._connection.refusal()
                    await anyio.sleep(AGAIN)
            if admin is None:
                raise Unavailable(
                    f"no Kafka broker reached at {servers} within {self._reach:g} s ({reason}): "
                    "is it up, are address and security_protocol right?"
                )
            yield admin

    async def _entered(self, stack: contextlib.AsyncExitStack) -> AIOKafkaAdminClient | None:
        with contextlib.suppress(Unavailable):
            return await stack.enter_async_context(self._connection.administering())
        return None

    async def close(self) -> None:
        if self._pulse is not None:
            await stop(self._pulse)
        await self._gauge.close()
