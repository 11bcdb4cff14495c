# ruff: noqa: SLF001 (aiokafka has no public way to let go of a producer: its parts are pinned with its version)
# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""Clients of the cluster, each with a deadline on its start and on its end.

aiokafka retries in silence and for ever: `start()` and `stop()` hang while a broker is down. So nothing here waits
without a deadline, and a producer can be abandoned: it stops at once, whatever it was about to send.
"""

import asyncio
import contextlib
import math
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any

import anyio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.producer.sender import Sender
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest

from watcher.journal import Unavailable, WrongJournal

START = 8.0
"""Seconds that a client may take to start."""
STOP = 2.0
REQUEST = 5.0
"""Seconds after which an unanswered request is sent anew; below the deadline of a commit."""
TRANSACTION = 10.0
BATCH_BYTES = 512 * 1024
"""aiokafka has one batch a partition in flight: the default of 16 KiB would make a commit wait for many in turn."""

Broken = (KafkaError, AssertionError, OSError, asyncio.TimeoutError)
"""What a client raises when it cannot go on: its own errors, its state machine's asserts, the network's."""

Unknown = (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
"""How a broker refuses our credentials."""


@contextlib.contextmanager
def ours_only() -> Iterator[None]:
    """A client that cancels its own tasks lets their CancelledError out, as if we had been cancelled: a task group
    that sees it ends without a word, and the whole daemon with it. Here it becomes the client's error."""
    try:
        yield
    except asyncio.CancelledError as error:
        if _asked_for(error):
            raise
        raise KafkaConnectionError("the client cancelled its own work") from error


def _asked_for(error: BaseException | None) -> bool:
    """Whether this is the cancellation of a scope around us, or else of our task by whoever made it.

    A scope that is cancelled ends nothing but what carries its own word: a foreign CancelledError that comes out at
    that very moment goes through it. It says so again at the next wait, so nothing is lost by turning that into an error.
    """
    while isinstance(error, asyncio.CancelledError):
        if error.args and str(error.args[0]).startswith("Cancelled via cancel scope "):
            return True
        error = error.__context__
    task = asyncio.current_task()
    return task is None or (task.cancelling() > 0 and anyio.current_effective_deadline() > -math.inf)


@contextlib.contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Whatever goes wrong inside, or takes longer, is Unavailable, and says while doing what."""
    try:
        with anyio.fail_after(seconds), ours_only():
            yield
    except TimeoutError:
        raise Unavailable(f"Kafka did not answer within {seconds:g} s ({what}): is the broker up?") from None
    except Broken as error:
        raise Unavailable(f"Kafka failed ({what}): {error!r}") from error


class _Sender(Sender):
    """Keeps its requests' tasks, so that they can be cancelled: the original leaves them behind."""

    requests: set[asyncio.Task[Any]]

    async def _send_produce_req(self, node_id: int, batches: dict[TopicPartition, Any]) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.requests.add(task)
        task.add_done_callback(self.requests.discard)
        await super()._send_produce_req(node_id, batches)

    def _maybe_do_transactional_request(self) -> asyncio.Task[Any] | None:
        task: asyncio.Task[Any] | None = super()._maybe_do_transactional_request()
        if task is not None:
            self.requests.add(task)
            task.add_done_callback(self.requests.discard)
        return task


class Producer(AIOKafkaProducer):
    """A transactional producer that remembers an unanswered request, and that can be let go of at once."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.doubtful = False
        """A request of a transaction got no answer. It may still arrive, and a delayed EndTxn would commit half of
        the next transaction (KIP-890): make a new producer before the next begin."""
        self._abandoned = False
        self._ask = self.client.send
        self.client.send = self._witness  # type: ignore[method-assign, assignment]
        self._sender = self._requests = _Sender(
            self.client,
            acks=-1,
            txn_manager=self._txn_manager,
            retry_backoff_ms=100,
            message_accumulator=self._message_accumulator,
            request_timeout_ms=self._request_timeout_ms,
        )
        self._requests.requests = set()

    async def _witness(self, node: int, request: Any, **where: Any) -> Any:
        if self._abandoned:
            raise KafkaConnectionError("this producer was let go of")
        try:
            return await self._ask(node, request, **where)
        except KafkaError:
            if isinstance(request, ProduceRequest | AddPartitionsToTxnRequest | EndTxnRequest):
                self.doubtful = True
            raise

    def take_part(self, partition: TopicPartition) -> None:
        """Make the open transaction end in this partition too, without a record: only its control record will show."""
        self._txn_manager.maybe_add_partition_to_txn(partition)

    async def abandon(self) -> None:
        """Stop sending, now, and close. Takes at most a second; what was in flight may or may not have happened."""
        self._abandoned = self._closed = True
        tasks = {self._sender.sender_task, self.client._sync_task, *self._requests.requests} - {None}
        for task in tasks:
            task.cancel()
        with anyio.CancelScope(shield=True):
            if tasks:
                await asyncio.wait(tasks, timeout=1.0)
            self._silence(tasks)
            for connection in self.client._conns.values():
                connection.close()

    def _silence(self, tasks: Iterable[asyncio.Future[Any]]) -> None:
        batches = [batch for queue in self._message_accumulator._batches.values() for batch in queue]
        for waiter in (self._txn_manager._transaction_waiter, *(batch._drain_waiter for batch in batches), *tasks):
            _retrieve(waiter)

    async def leave(self) -> None:
        """Stop in good order, or else abandon. Never hangs."""
        with anyio.move_on_after(STOP, shield=True) as scope:
            try:
                with ours_only():
                    await self.stop()
            except Broken:
                scope.cancel()
        if scope.cancelled_caught or scope.cancel_called:
            await self.abandon()


def _retrieve(future: asyncio.Future[Any] | None) -> None:
    """Nobody will ask for this outcome any more: keep the loop from complaining about that."""
    if future is None:
        return
    if not future.done():
        future.add_done_callback(_retrieve)
    elif not future.cancelled():
        future.exception()


def refuse_for_good(host: str, port: int, error: BaseException) -> None:
    """Raises WrongJournal for what no waiting heals: who we say we are, or whom we trust."""
    if isinstance(error, Unknown):
        raise WrongJournal(
            f"Kafka at {host}:{port} refuses our credentials ({type(error).__name__}): "
            "[kafka] sasl_mechanism, sasl_username or the password (sasl_password_env, sasl_password_file) is wrong"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        raise WrongJournal(
            f"Kafka at {host}:{port} shows a certificate that we do not trust ({error.verify_message}): "
            "name its authority in [kafka] ssl_cafile"
        )


class Connection:
    """How to reach the cluster. Holds the secrets and shows them nowhere."""

    def __init__(self, servers: Sequence[str], security: dict[str, Any]) -> None:
        self.servers = list(servers)
        self._common = {
            "bootstrap_servers": self.servers,
            "client_id": "balance-watcher",
            "request_timeout_ms": int(REQUEST * 1000),
            **security,
        }

    async def refusal(self) -> str:
        """Why no server takes a connection of ours, in the client's words. Raises WrongJournal when it never will."""
        said = []
        for host, port, _ in collect_hosts(self.servers, randomize=False):
            arguments = {name: value for name, value in self._common.items() if name != "bootstrap_servers"}
            try:
                with anyio.fail_after(REQUEST):
                    connection = await create_conn(host, port, **arguments)
            except (*Broken, TimeoutError) as error:
                refuse_for_good(host, port, error)
                said.append(f"{type(error).__name__} {error}".strip())
            else:
                connection.close()
                said.append("it has only just come up")
        return said[0]

    async def producer(self, transactional_id: str) -> Producer:
        """A started transactional producer: from here on every older one of this id is fenced. Raises Unavailable."""
        producer = Producer(
            transactional_id=transactional_id,
            transaction_timeout_ms=int(TRANSACTION * 1000),
            max_batch_size=BATCH_BYTES,
            **self._common,
        )
        try:
            with within(START, "starting a producer"):
                await producer.start()
        except BaseException:
            await producer.abandon()
            raise
        return producer

    async def plain_producer(self) -> AIOKafkaProducer:
        """A started producer without transactions. Raises Unavailable."""
        producer = AIOKafkaProducer(acks=1, **self._common)
        try:
            with within(START, "starting a producer"):
                await producer.start()
        except BaseException:
            await stop(producer)
            raise
        return producer

    async def consumer(self, topics: Sequence[str], *, isolation: str = "read_committed") -> AIOKafkaConsumer:
        """A started consumer without a group that knows of `topics`. Raises Unavailable."""
        consumer = AIOKafkaConsumer(
            isolation_level=isolation,
            auto_offset_reset="none",
            enable_auto_commit=False,
            group_id=None,
            max_partition_fetch_bytes=4 * 1024 * 1024,
            **self._common,
        )
        try:
            with within(START, "starting a consumer"):
                await consumer.start()
                await consumer._client.set_topics(topics)
        except BaseException:
            await stop(consumer)
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
            await stop(consumer)

    @contextlib.asynccontextmanager
    async def administering(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(**self._common)
        try:
            with within(START, "connecting"):
                await admin.start()
            yield admin
        finally:
            await stop(admin)


async def stop(client: AIOKafkaProducer | AIOKafkaConsumer | AIOKafkaAdminClient) -> None:
    """End a client that has nothing to lose. Never hangs, never raises."""
    with anyio.move_on_after(STOP, shield=True):
        with contextlib.suppress(*Broken), ours_only():
            await (client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())
        if isinstance(client, AIOKafkaConsumer):  # a consumer whose fetch waits to be tried again stops half-way
            for task in client._fetcher._pending_tasks if client._fetcher else ():
                task.cancel()
            with contextlib.suppress(*Broken), ours_only():
                await client._client.close()
    client._closed = True
