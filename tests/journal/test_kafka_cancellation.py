"""aiokafka cancels tasks of its own and lets their CancelledError out; a task group would take it for ours, and end."""

import asyncio
import contextlib
import itertools
import struct

import anyio
import anyio.lowlevel
import pytest

from tests.journal.kafka_world import PATIENT, journal, ready
from watcher.journal.kafka.cluster import Cluster, stop_client
from watcher.journal.kafka.deadlines import Deadlines, within
from watcher.journal.kafka.rights import DeniedRights
from watcher.model.log import Unavailable

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def test_a_client_that_cancels_its_own_work_is_unavailable():
    foreign = asyncio.get_running_loop().create_future()
    foreign.cancel()
    with pytest.raises(Unavailable, match="cancelled its own work"), within(60, "asking", DeniedRights()):
        await foreign


async def deaf():
    """A client that lets no cancellation through, and then waits for something of its own that was cancelled."""
    with contextlib.suppress(asyncio.CancelledError):
        await anyio.sleep_forever()
    foreign = asyncio.get_running_loop().create_future()
    foreign.cancel()
    await foreign


async def test_a_client_that_cancels_its_own_work_just_when_its_time_is_up_is_unavailable():
    with pytest.raises(Unavailable, match="cancelled its own work"), within(0.001, "asking", DeniedRights()):
        await deaf()


async def test_a_client_that_cancels_its_own_work_just_when_we_are_cancelled_hides_nothing():
    async with anyio.create_task_group() as tasks:
        tasks.cancel_scope.cancel()
        with pytest.raises(Unavailable), within(60, "asking", DeniedRights()):
            await deaf()
        with pytest.raises(asyncio.CancelledError):
            await anyio.lowlevel.checkpoint()


async def test_a_task_that_is_cancelled_by_its_maker_is_cancelled():
    async def wait():
        with within(60, "waiting", DeniedRights()):
            await anyio.sleep_forever()

    task = asyncio.ensure_future(wait())
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def test_our_own_cancellation_goes_through():
    async with anyio.create_task_group() as tasks:

        async def wait():
            with within(60, "waiting", DeniedRights()):
                await anyio.sleep_forever()

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


class Mute:
    """A door before a broker that lets that many answers of each connection through, gives the last one itself, and
    then no more."""

    def __init__(self, address, answers, last=lambda _: b""):
        self._broker = address.rsplit(":", 1)
        self._answers = answers
        self._last = last
        self._server = None
        self.asked = anyio.Event()
        """A request waits that will get no answer."""

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._link, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await self._server.wait_closed()

    async def _link(self, client_reader, client_writer):
        broker_reader, broker_writer = await asyncio.open_connection(*self._broker)
        with contextlib.closing(client_writer), contextlib.closing(broker_writer):
            for number in itertools.count():
                try:
                    request = await framed(client_reader)
                except (asyncio.IncompleteReadError, ConnectionError):
                    return
                if number == self._answers:
                    client_writer.write(self._last(request))
                    self.asked.set()
                elif number < self._answers:
                    broker_writer.write(request)
                    client_writer.write(await framed(broker_reader))


async def framed(reader):
    size = await reader.readexactly(4)
    return size + await reader.readexactly(int.from_bytes(size, "big"))


@pytest.mark.kafka
@pytest.mark.parametrize("answers", [0, 1], ids=["its versions", "its metadata"])
async def test_a_start_that_is_cancelled_while_the_broker_owes_an_answer_leaves_no_socket_open(
    kafka, answers, connections
):
    async with Mute(kafka.address, answers) as mute:
        reach = Cluster([mute.address], {}, PATIENT)
        for start in (
            reach.consumer([]),
            reach.transactional_producer("mute"),
            reach.plain_producer(),
            entered(reach.admin()),
        ):
            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(awaited, start)
                    await mute.asked.wait()
                    mute.asked = anyio.Event()
                    assert connections[-1].connected()
                    tasks.cancel_scope.cancel()
            assert not connections[-1].connected()


def no_brokers(request):
    """What a broker answers that its controller has given up: metadata with nobody in it."""
    key, version, number = struct.unpack(">4xhhi", request[:12])
    assert (key, version >= 3) == (3, True)
    answer = struct.pack(">iiihii", number, 0, 0, -1, -1, 0)  # throttled, brokers, cluster, controller, topics
    return struct.pack(">i", len(answer)) + answer


@pytest.mark.kafka
async def test_a_cluster_that_knows_no_broker_is_not_reached(kafka, prefix):
    async with Mute(kafka.address, 1, no_brokers) as mute:
        with pytest.raises(Unavailable, match="knows a broker that is up"):
            await entered(Cluster([mute.address], {}, Deadlines()).admin())
        with pytest.raises(Unavailable, match=r"no Kafka broker reached at .* \(it has only just come up\)"):
            await journal(mute.address, prefix, deadlines=Deadlines(reach=0.1)).init()
        await entered(Cluster([mute.address, kafka.address], {}, Deadlines()).admin())


async def awaited(work):
    await work


async def entered(context):
    async with context:
        pass


@pytest.mark.kafka
async def test_a_consumer_whose_fetch_waits_to_be_tried_again_ends_and_cancels_nobody(kafka, prefix):
    async with ready(kafka.address, prefix) as journal, anyio.create_task_group() as tasks:
        consumer = await journal._cluster.consumer(journal._topics)
        retries = [asyncio.ensure_future(asyncio.sleep(600)) for _ in range(2)]
        consumer._fetcher._pending_tasks.update(retries)
        await anyio.wait_all_tasks_blocked()
        await stop_client(consumer)
        await asyncio.wait(retries, timeout=60)
        assert all(retry.cancelled() for retry in retries)
        assert consumer._client._sync_task is None
        assert not tasks.cancel_scope.cancel_called
