# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""A consumer of what strangers write: what it fetches is bounded in bytes a second, and unpacked within bounds."""

from typing import Any

import anyio
from aiokafka import AIOKafkaConsumer
from aiokafka.protocol.fetch import FetchRequest

from watcher.journal.kafka.hint_batches import bounded

BYTES_A_SECOND = 512 * 1024


class BoundedFetches:
    """Stands between a consumer and its connections."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._client = consumer._client  # noqa: SLF001 (the only place where an answer can be seen before it is unpacked)
        self._send = self._client.send
        self._client.send = self.send  # type: ignore[method-assign, assignment]
        self._rests_until = 0.0

    async def send(self, node: int, request: Any, **where: Any) -> Any:
        if request.API_KEY != FetchRequest.API_KEY:
            return await self._send(node, request, **where)
        await anyio.sleep_until(
            self._rests_until
        )  # the consumer fetches again as soon as it has stepped over what it got
        response: Any = await self._send(node, request, **where)
        fetched = sum(len(partition[-1] or b"") for _, partitions in response.topics for partition in partitions)
        self._rests_until = anyio.current_time() + fetched / BYTES_A_SECOND
        response.topics = [
            (topic, [(*partition[:-1], bounded(partition[-1] or b"")) for partition in partitions])
            for topic, partitions in response.topics
        ]
        return response
