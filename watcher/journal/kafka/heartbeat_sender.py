# mypy: disallow-untyped-calls=False
"""Sends the health of providers. Telemetry: what goes wrong is no error, but for a right that we have not."""

from collections.abc import Sequence

import anyio
from aiokafka import AIOKafkaProducer

from watcher.journal.kafka.broker_errors import DenialTimer, forbidden
from watcher.journal.kafka.cluster import Cluster, stop_client
from watcher.journal.kafka.deadlines import CLIENT_ERRORS
from watcher.journal.kafka.encoder import Encoder
from watcher.model.events import ProviderHealth
from watcher.model.log import JournalError


class HeartbeatSender:
    """A producer without transactions, made when it is needed."""

    def __init__(self, cluster: Cluster, topic: str, encoder: Encoder) -> None:
        self._cluster = cluster
        self._topic = topic
        self._encoder = encoder
        self._producer: AIOKafkaProducer | None = None
        self._denied = DenialTimer(60.0, cluster.deadlines.denied)

    async def send(self, health: Sequence[ProviderHealth]) -> None:
        """What nobody takes in time is dropped. Raises Forbidden once the right to it has been missing for a while."""
        denied_before = self._cluster.denied.count
        with anyio.move_on_after(self._cluster.deadlines.heartbeat) as scope:
            try:
                await self._send(health)
            except (*CLIENT_ERRORS, JournalError):
                scope.cancel()
        if not scope.cancel_called:
            self._denied.clear()
            return
        await self.close()
        denied = self._cluster.denied.since(denied_before)
        if self._topic in denied and self._denied.persists(anyio.current_time()):
            raise forbidden(denied, "sending heartbeats")

    async def _send(self, health: Sequence[ProviderHealth]) -> None:
        if self._producer is None:
            self._producer = await self._cluster.plain_producer()
        for one in health:
            topic, key, value, headers = self._encoder.health(one)
            await self._producer.send_and_wait(topic, value, key, partition=0, headers=headers)

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await stop_client(producer)
