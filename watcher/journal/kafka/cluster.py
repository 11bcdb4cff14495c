# ruff: noqa: SLF001 (aiokafka has no public way to let go of a client: its parts are pinned with its version)
# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""Clients of the cluster, each with a deadline on its start and on its end."""

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import anyio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, collect_hosts
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.protocol.metadata import MetadataRequest

from watcher.journal import WrongJournal
from watcher.journal.kafka.broker_errors import CREDENTIAL_ERRORS, refused_credentials
from watcher.journal.kafka.deadlines import CLIENT_ERRORS, STOP, Deadlines, ours_only, within
from watcher.journal.kafka.oauth_tokens import TokenConnection
from watcher.journal.kafka.producer import TransactionalProducer, close_sockets
from watcher.journal.kafka.rights import DeniedRights

BATCH_BYTES = 512 * 1024
"""aiokafka has one batch a partition in flight: the default of 16 KiB would make a commit wait for many in turn."""


def raise_if_permanent(host: str, port: int, error: BaseException) -> None:
    """Raises Forbidden or WrongJournal for what no waiting heals: who we say we are, or whom we trust."""
    if isinstance(error, CREDENTIAL_ERRORS):
        raise refused_credentials(f"at {host}:{port}", error)
    if isinstance(error, ssl.SSLCertVerificationError):
        raise WrongJournal(
            f"Kafka at {host}:{port} shows a certificate that we do not trust ({error.verify_message}): "
            "name its authority in [kafka] ssl_cafile"
        )


class Cluster:
    """How to reach the cluster. Holds the secrets and shows them nowhere."""

    def __init__(
        self, servers: Sequence[str], security: dict[str, Any], deadlines: Deadlines, compression: str = "none"
    ) -> None:
        """`compression`: of what is sent."""
        self._compression = None if compression == "none" else compression
        self.servers = list(servers)
        self.deadlines = deadlines
        self.denied = DeniedRights()
        self._common = {
            "bootstrap_servers": self.servers,
            "client_id": "balance-watcher",
            "request_timeout_ms": int(deadlines.request * 1000),
            **security,
        }

    def within(self, seconds: float, what: str, *, sending: bool = False) -> contextlib.AbstractContextManager[None]:
        """`within` for what this cluster is asked."""
        return within(seconds, what, self.denied, sending=sending)

    async def _connect(self, host: str, port: int) -> AIOKafkaConnection:
        arguments = {name: value for name, value in self._common.items() if name != "bootstrap_servers"}
        connection = TokenConnection(host, port, **arguments)
        await connection.connect()
        return connection

    def _take_over_bootstrap(self, client: AIOKafkaClient) -> None:
        client.bootstrap = functools.partial(self._bootstrap, client)  # type: ignore[method-assign]
        client._get_conn = functools.partial(self._watched, client._get_conn)  # type: ignore[method-assign]

    async def _watched(self, get: Callable[..., Awaitable[AIOKafkaConnection | None]], *which: Any, **how: Any) -> Any:
        """A connection of which all answers are seen."""
        connection = await get(*which, **how)
        if connection is not None and not isinstance(connection.send, functools.partial):
            connection.send = functools.partial(self._ask, connection, connection.send)  # type: ignore[method-assign]
        return connection

    def _ask(
        self,
        connection: AIOKafkaConnection,
        send: Callable[..., Any],
        request: Any,
        expect_response: bool = True,  # noqa: FBT001, FBT002 (as the client calls it)
    ) -> Any:
        answer = send(request, expect_response)  # written by now: the order of the calls is that of the wire
        return self._see(connection, request, answer) if expect_response else answer

    async def _see(self, connection: AIOKafkaConnection, request: Any, answer: Awaitable[Any]) -> Any:
        response = await answer
        self.denied.see(request, connection._versions, response)
        return response

    async def missing_topics(self, client: AIOKafkaClient, names: Sequence[str]) -> list[str]:
        """Those that the cluster does not know. Never makes one by asking. Raises KafkaError for those that it does not show us."""
        answer = await self.describe_topics(client, names)
        return [topic["topic"] for topic in answer if topic["error_code"] == UnknownTopicOrPartitionError.errno]

    async def describe_topics(self, client: AIOKafkaClient, names: Sequence[str]) -> list[dict[str, Any]]:
        """As they are; an error code for those that cannot be told of. Raises KafkaError for those that it does not show us."""
        request = MetadataRequest(list(names), allow_auto_topic_creation=False)
        topics: list[dict[str, Any]] = (await client.send(client.get_random_node(), request)).to_object()["topics"]
        for topic in topics:
            if topic["error_code"] == TopicAuthorizationFailedError.errno:
                raise TopicAuthorizationFailedError(topic["topic"])
        return topics

    async def _bootstrap(self, client: AIOKafkaClient) -> None:
        """The client's first step, in the place of its own, which drops an open socket when it is cancelled while it
        waits for the metadata, and is content with a cluster that has no broker yet: one that has just come up, or was
        away for so long that its controller has given it up."""
        refusal: KafkaError | None = None
        for host, port, _ in client.hosts:
            try:
                with contextlib.closing(await self._connect(host, port)) as connection:
                    client.cluster.update_metadata(await connection.send(MetadataRequest([])))
            except CREDENTIAL_ERRORS as error:
                refusal = error
            except CLIENT_ERRORS:
                continue
            if client.cluster.brokers() and refusal is None:
                client._sync_task = asyncio.create_task(client._md_synchronizer())
                return
        if refusal is not None:
            raise refusal
        raise KafkaConnectionError(f"none of {', '.join(self.servers)} knows a broker that is up")

    async def unreachable_reason(self) -> str:
        """Why no server takes a connection of ours, in the client's words. Raises WrongJournal when it never will."""
        reasons = []
        for host, port, _ in collect_hosts(self.servers, randomize=False):
            try:
                with anyio.fail_after(self.deadlines.request):
                    connection = await self._connect(host, port)
            except (*CLIENT_ERRORS, TimeoutError) as error:
                raise_if_permanent(host, port, error)
                reasons.append(f"{type(error).__name__} {error}".strip())
            else:
                connection.close()
                reasons.append("it has only just come up")
        return reasons[0]

    async def transactional_producer(self, transactional_id: str) -> TransactionalProducer:
        """A started transactional producer: from here on every older one of this id is fenced. Raises Unavailable."""
        producer = TransactionalProducer(
            transactional_id=transactional_id,
            transaction_timeout_ms=int(self.deadlines.transaction * 1000),
            max_batch_size=BATCH_BYTES,
            compression_type=self._compression,
            **self._common,
        )
        self._take_over_bootstrap(producer.client)
        try:
            with self.within(self.deadlines.start, "starting a producer"):
                await producer.start()
        except BaseException:
            await producer.abandon()
            raise
        return producer

    async def plain_producer(self) -> AIOKafkaProducer:
        """A started producer without transactions. Raises Unavailable."""
        producer = AIOKafkaProducer(
            acks=1, max_batch_size=BATCH_BYTES, compression_type=self._compression, **self._common
        )
        self._take_over_bootstrap(producer.client)
        try:
            with self.within(self.deadlines.start, "starting a producer"):
                await producer.start()
        except BaseException:
            await stop_client(producer)
            raise
        return producer

    async def consumer(
        self,
        topics: Sequence[str],
        *,
        isolation: str = "read_committed",
        wait: float = 0.5,
        ahead: int = 4 * 1024 * 1024,
    ) -> AIOKafkaConsumer:
        """A started consumer without a group that knows of `topics`. Raises Unavailable.

        `wait`: seconds that the broker waits for records where there are none; a seek waits for that, too. `ahead`: bytes that
        it fetches at once of a partition; one batch may be larger.
        """
        consumer = AIOKafkaConsumer(
            isolation_level=isolation,
            auto_offset_reset="none",
            enable_auto_commit=False,
            group_id=None,
            max_partition_fetch_bytes=ahead,
            fetch_max_wait_ms=int(wait * 1000),
            **self._common,
        )
        self._take_over_bootstrap(consumer._client)
        try:
            with self.within(self.deadlines.start, "starting a consumer"):
                await consumer.start()
                await consumer._client.set_topics(topics)
        except BaseException:
            await stop_client(consumer)
            raise
        return consumer

    @contextlib.asynccontextmanager
    async def reading(
        self, topics: Sequence[str], *, isolation: str = "read_committed"
    ) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = await self.consumer(topics, isolation=isolation)
        try:
            yield consumer
        finally:
            await stop_client(consumer)

    async def bare_client(self) -> AIOKafkaClient:
        """A connected client that neither reads nor writes. Raises Unavailable."""
        client = AIOKafkaClient(**self._common)
        self._take_over_bootstrap(client)
        try:
            with self.within(self.deadlines.start, "connecting"):
                await client.bootstrap()
        except BaseException:
            await close_client(client)
            raise
        return client

    @contextlib.asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(**self._common)
        self._take_over_bootstrap(admin._client)
        try:
            with self.within(self.deadlines.start, "connecting"):
                await admin.start()
            yield admin
        finally:
            await stop_client(admin)


async def stop_client(client: AIOKafkaProducer | AIOKafkaConsumer | AIOKafkaAdminClient) -> None:
    """End a client that has nothing to lose. Never hangs, never raises, and leaves no socket open."""
    inner: AIOKafkaClient = client.client if isinstance(client, AIOKafkaProducer) else client._client
    if not isinstance(client, AIOKafkaAdminClient):  # which has nothing but the inner one
        with anyio.move_on_after(STOP, shield=True), contextlib.suppress(*CLIENT_ERRORS), ours_only():
            await client.stop()
    if isinstance(client, AIOKafkaConsumer) and client._fetcher:
        for task in client._fetcher._pending_tasks:  # a consumer whose fetch waits to be tried again stops half-way
            task.cancel()
    await close_client(inner)
    client._closed = True


async def close_client(client: AIOKafkaClient) -> None:
    """Never hangs, never raises, and leaves no socket open."""
    with anyio.move_on_after(STOP, shield=True), contextlib.suppress(*CLIENT_ERRORS), ours_only():
        await client.close()
    close_sockets(client)
