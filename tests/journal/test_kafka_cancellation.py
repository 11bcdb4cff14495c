"""aiokafka cancels tasks of its own and lets their CancelledError out; a task group would take it for ours, and end."""

import asyncio
import contextlib

import anyio
import anyio.lowlevel
import pytest

from tests.journal.kafka_world import ready
from watcher.journal import Unavailable
from watcher.journal.kafka.connection import stop, within

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def test_a_client_that_cancels_its_own_work_is_unavailable():
    foreign = asyncio.get_running_loop().create_future()
    foreign.cancel()
    with pytest.raises(Unavailable, match="cancelled its own work"), within(5, "asking"):
        await foreign


async def deaf():
    """A client that lets no cancellation through, and then waits for something of its own that was cancelled."""
    with contextlib.suppress(asyncio.CancelledError):
        await anyio.sleep_forever()
    foreign = asyncio.get_running_loop().create_future()
    foreign.cancel()
    await foreign


async def test_a_client_that_cancels_its_own_work_just_when_its_time_is_up_is_unavailable():
    with pytest.raises(Unavailable, match="cancelled its own work"), within(0.001, "asking"):
        await deaf()


async def test_a_client_that_cancels_its_own_work_just_when_we_are_cancelled_hides_nothing():
    async with anyio.create_task_group() as tasks:
        tasks.cancel_scope.cancel()
        with pytest.raises(Unavailable), within(60, "asking"):
            await deaf()
        with pytest.raises(asyncio.CancelledError):
            await anyio.lowlevel.checkpoint()


async def test_a_task_that_is_cancelled_by_its_maker_is_cancelled():
    async def wait():
        with within(60, "waiting"):
            await anyio.sleep_forever()

    task = asyncio.ensure_future(wait())
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def test_our_own_cancellation_goes_through():
    async with anyio.create_task_group() as tasks:

        async def wait():
            with within(60, "waiting"):
                await anyio.sleep_forever()

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


@pytest.mark.kafka
async def test_a_consumer_whose_fetch_waits_to_be_tried_again_ends_and_cancels_nobody(kafka, prefix):
    async with ready(kafka.address, prefix) as journal, anyio.create_task_group() as tasks:
        consumer = await journal._connection.consumer(journal._topics)
        retries = [asyncio.ensure_future(asyncio.sleep(600)) for _ in range(2)]
        consumer._fetcher._pending_tasks.update(retries)
        await anyio.wait_all_tasks_blocked()
        await stop(consumer)
        await asyncio.wait(retries, timeout=10)
        assert all(retry.cancelled() for retry in retries)
        assert consumer._client._sync_task is None
        assert not tasks.cancel_scope.cancel_called
