# ruff: noqa: SLF001 (aiokafka has no public way to let go of a producer: its parts are pinned with its version)
# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""A transactional producer that can be abandoned: it stops at once, whatever it was about to send."""

import asyncio
from collections.abc import Iterable
from typing import Any

import anyio
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.producer.sender import Sender
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest

from watcher.journal.kafka.deadlines import CLIENT_ERRORS, STOP, ours_only


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


class TransactionalProducer(AIOKafkaProducer):
    """A transactional producer that remembers an unanswered request, and that can be let go of at once."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.in_doubt = False
        """A request of a transaction got no answer. It may still arrive, and a delayed EndTxn would commit half of
        the next transaction (KIP-890): make a new producer before the next begin."""
        self._abandoned = False
        self._send_unobserved = self.client.send
        self.client.send = self._send_observed  # type: ignore[method-assign, assignment]
        self._sender = self._tracked_sender = _Sender(
            self.client,
            acks=-1,
            txn_manager=self._txn_manager,
            retry_backoff_ms=100,
            message_accumulator=self._message_accumulator,
            request_timeout_ms=self._request_timeout_ms,
        )
        self._tracked_sender.requests = set()

    async def _send_observed(self, node: int, request: Any, **where: Any) -> Any:
        if self._abandoned:
            raise KafkaConnectionError("this producer was let go of")
        try:
            return await self._send_unobserved(node, request, **where)
        except KafkaError:
            if isinstance(request, ProduceRequest | AddPartitionsToTxnRequest | EndTxnRequest):
                self.in_doubt = True
            raise

    def join_transaction(self, partition: TopicPartition) -> None:
        """Make the open transaction end in this partition too, without a record: only its control record will show."""
        self._txn_manager.maybe_add_partition_to_txn(partition)

    async def abandon(self) -> None:
        """Stop sending, now, and close. Takes at most a second; what was in flight may or may not have happened."""
        self._abandoned = self._closed = True
        tasks = {self._sender.sender_task, self.client._sync_task, *self._tracked_sender.requests} - {None}
        for task in tasks:
            task.cancel()
        with anyio.CancelScope(shield=True):
            if tasks:
                await asyncio.wait(tasks, timeout=1.0)
            self._silence_futures(tasks)
            close_sockets(self.client)

    def _silence_futures(self, tasks: Iterable[asyncio.Future[Any]]) -> None:
        silence_batches(self)
        for waiter in (self._txn_manager._transaction_waiter, *tasks):
            _retrieve(waiter)

    async def close(self) -> None:
        """Stop in good order, or else abandon. Never hangs."""
        with anyio.move_on_after(STOP, shield=True) as scope:
            try:
                with ours_only():
                    await self.stop()
            except CLIENT_ERRORS:
                scope.cancel()
        if scope.cancelled_caught or scope.cancel_called:
            await self.abandon()


def silence_batches(producer: AIOKafkaProducer) -> None:
    """Of what waits to be sent nobody asks whether it was drained, and the client keeps a failure of that for whoever does."""
    for queue in producer._message_accumulator._batches.values():
        for batch in queue:
            _retrieve(batch._drain_waiter)


def _retrieve(future: asyncio.Future[Any] | None) -> None:
    """Nobody will ask for this outcome any more: keep the loop from complaining about that."""
    if future is None:
        return
    if not future.done():
        future.add_done_callback(_retrieve)
    elif not future.cancelled():
        future.exception()


def close_sockets(client: AIOKafkaClient) -> None:
    """Close its sockets, now, and open no more."""
    if client._sync_task is not None:
        client._sync_task.cancel()
    for connection in client._conns.values():
        connection.close()
