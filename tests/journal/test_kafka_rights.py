"""Rights that a broker refuses for a moment, and then grants."""

import contextlib

import anyio
import pytest
from confluent_kafka.admin import AclOperation, ResourceType

from tests.journal.kafka_world import balance_in, denied, opened, reading, ready
from watcher.journal import Batch
from watcher.model.log import Unavailable

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def test_a_right_that_is_missing_for_a_moment_ends_no_reader(own_broker, prefix):
    balance, changed = balance_in(0), f"{prefix}balances.changed.v1"
    async with ready(own_broker.address, prefix) as made, opened(made, 0) as writer, reading(made) as reader:
        for amount in range(2):
            await writer.commit(Batch([balance.row(amount)]))
        before = (await reader.bounds()).head
        with (
            denied(own_broker.address, ResourceType.TOPIC, changed, AclOperation.READ, AclOperation.DESCRIBE),
            anyio.fail_after(60),
            pytest.raises(Unavailable, match="forbids"),
        ):
            await looked_at_for_ever(reader)
        with anyio.fail_after(60):
            while True:
                with contextlib.suppress(Unavailable):
                    assert (await reader.bounds()).head == before
                    break
                await anyio.sleep(0.1)


async def looked_at_for_ever(reader):
    while True:
        await reader.bounds()
