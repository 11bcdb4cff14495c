"""Rights that a broker refuses for a moment, and then grants."""

import contextlib

import anyio
import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from tests.journal.kafka_world import administering, balance_in, done, opened, reading, ready
from watcher.journal import Batch
from watcher.model.log import Unavailable

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@contextlib.contextmanager
def denied(address, topic):
    where = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL)
    with administering(address) as admin:
        done(
            admin.create_acls(
                [
                    AclBinding(*where, "User:ANONYMOUS", "*", operation, AclPermissionType.DENY)
                    for operation in (AclOperation.READ, AclOperation.DESCRIBE)
                ]
            )
        )
        try:
            yield
        finally:
            done(admin.delete_acls([AclBindingFilter(*where, None, None, AclOperation.ANY, AclPermissionType.ANY)]))


async def test_a_right_that_is_missing_for_a_moment_ends_no_reader(own_broker, prefix):
    balance = balance_in(0)
    async with ready(own_broker.address, prefix) as made, opened(made, 0) as writer, reading(made) as reader:
        for amount in range(2):
            await writer.commit(Batch([balance.row(amount)]))
        before = (await reader.bounds()).head
        with (
            denied(own_broker.address, f"{prefix}balances.changed.v1"),
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
