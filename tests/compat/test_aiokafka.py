"""aiokafka: the parts of its clients that `watcher/journal/kafka/` takes hold of."""

import asyncio
import inspect
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import CoordinatorGroupRebalance, GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.producer.sender import Sender
from aiokafka.protocol import fetch
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest
from aiokafka.record.util import calc_crc32c

from watcher.journal.kafka.broker_errors import FencedInstanceId

pytestmark = pytest.mark.anyio
NOWHERE = "127.0.0.1:9"


@pytest.fixture
def anyio_backend():
    return "asyncio"


def parameters(function):
    return list(inspect.signature(function).parameters)


def test_the_steps_of_the_sender_that_we_override_are_called_as_we_call_them():
    assert inspect.iscoroutinefunction(Sender._send_produce_req)
    assert parameters(Sender._send_produce_req) == ["self", "node_id", "batches"]
    assert parameters(Sender._maybe_do_transactional_request) == ["self"]
    ours = {"acks", "txn_manager", "retry_backoff_ms", "message_accumulator", "request_timeout_ms"}
    assert ours <= set(parameters(Sender.__init__))
    assert parameters(AIOKafkaClient.send)[:3] == ["self", "node_id", "request"]


async def test_clients_keep_their_parts_where_we_look_for_them():
    producer = AIOKafkaProducer(bootstrap_servers=NOWHERE, transactional_id="x")
    assert isinstance(producer._sender, Sender)
    assert producer._sender.sender_task is None
    assert producer._request_timeout_ms
    assert producer._message_accumulator._batches == {}
    assert producer._txn_manager._transaction_waiter is None
    assert callable(producer._txn_manager.maybe_add_partition_to_txn)
    consumer, admin = AIOKafkaConsumer(bootstrap_servers=NOWHERE), AIOKafkaAdminClient(bootstrap_servers=NOWHERE)
    assert consumer._fetcher is None
    for client in (producer.client, consumer._client, admin._client):
        assert isinstance(client, AIOKafkaClient)
        assert client._sync_task is None
        assert client._conns == {}
        assert callable(client._md_synchronizer)
        assert inspect.iscoroutinefunction(client.bootstrap)
        assert list(client.hosts)
    producer._closed = consumer._closed = admin._closed = True  # nothing was started


def test_the_steps_of_the_coordinator_that_we_override_are_called_as_we_call_them():
    for name, arguments in (
        ("_send_req", ["request"]),
        ("_push_error_to_user", ["exc"]),
        ("_perform_assignment", ["response"]),
        ("_on_metadata_change", []),
        ("coordinator_dead", []),
        ("request_rejoin", []),
    ):
        assert parameters(getattr(GroupCoordinator, name)) == ["self", *arguments]
    ours = {
        "group_id",
        "group_instance_id",
        "session_timeout_ms",
        "rebalance_timeout_ms",
        "heartbeat_interval_ms",
        "assignors",
    }
    assert ours <= set(parameters(GroupCoordinator.__init__))
    assert parameters(AIOKafkaClient._get_conn)[:3] == ["self", "node_id", "group"]
    sources = {
        name: inspect.getsource(getattr(GroupCoordinator, name)) for name in ("_do_heartbeat", "_heartbeat_routine")
    }
    assert "self._send_req(" in sources["_do_heartbeat"]
    assert "fetcher_idle_time" in sources["_heartbeat_routine"]  # never more than 0: a fetch context stays open
    assert inspect.getsource(CoordinatorGroupRebalance).count("self._coordinator._send_req(") == 2  # join and sync


async def test_a_coordinator_keeps_its_parts_where_we_look_for_them():
    client, subscription = AIOKafkaClient(bootstrap_servers=NOWHERE), SubscriptionState()
    subscription._fetch_count = 1
    assert subscription.fetcher_idle_time == 0
    coordinator = GroupCoordinator(client, subscription, group_id="g", enable_auto_commit=False)
    try:
        assert isinstance(coordinator._coordination_task, asyncio.Task)
        assert (coordinator._heartbeat_task, coordinator._commit_refresh_task) == (None, None)
        assert (coordinator.member_id, coordinator.coordinator_id) == ("", None)
        assert isinstance(coordinator._closing, asyncio.Future)
    finally:
        await coordinator.close()


def test_the_errors_of_a_group_have_the_numbers_that_brokers_give():
    assert errors.for_code(82) is FencedInstanceId


def test_a_fetch_is_told_by_its_number_and_the_batches_of_a_partition_come_last_in_every_version():
    versions = [each for name, each in vars(fetch).items() if name.startswith("FetchResponse_v")]
    assert versions
    for each in versions:
        topics = dict(zip(each.SCHEMA.names, each.SCHEMA.fields, strict=True))["topics"]
        assert topics.array_of.fields[1].array_of.names[-1] == "message_set"
        assert each.API_KEY == fetch.FetchRequest.API_KEY == 1
    assert "response.topics" in inspect.getsource(Fetcher._proc_fetch_request)
    assert "self._client.send(" in inspect.getsource(Fetcher._proc_fetch_request)


def test_a_batch_is_summed_as_brokers_sum_it():
    assert calc_crc32c(b"123456789") == 0xE3069283


async def test_a_producer_takes_a_batch_that_was_filled_before():
    producer = AIOKafkaProducer(bootstrap_servers=NOWHERE, max_batch_size=1000)
    batch = producer.create_batch()
    while batch.append(key=None, value=b"hint" * 20, timestamp=None) is not None:
        pass
    assert 0 < batch.record_count() < 20
    assert parameters(AIOKafkaProducer.send_batch) == ["self", "batch", "topic", "partition"]
    producer._closed = True  # nothing was started


@pytest.mark.kafka
async def test_a_transaction_s_requests_all_go_through_the_sender_s_steps_and_the_client_s_send(kafka):
    steps, sent = [], []

    class Watched(Sender):
        async def _send_produce_req(self, node_id, batches):
            steps.append("produce")
            await super()._send_produce_req(node_id, batches)

        def _maybe_do_transactional_request(self):
            task = super()._maybe_do_transactional_request()
            if task is not None:
                assert isinstance(task, asyncio.Task)
                steps.append("transactional")
            return task

    topic = f"compat-{uuid4().hex}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1)])
    finally:
        await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=kafka.address, transactional_id=topic)
    ask = producer.client.send

    async def send(node, request, **where):
        sent.append(type(request))
        return await ask(node, request, **where)

    producer.client.send = send
    producer._sender = Watched(
        producer.client,
        acks=-1,
        txn_manager=producer._txn_manager,
        retry_backoff_ms=100,
        message_accumulator=producer._message_accumulator,
        request_timeout_ms=producer._request_timeout_ms,
    )
    await producer.start()
    try:
        assert producer._sender.sender_task is not None
        assert producer.client._sync_task is not None
        async with producer.transaction():
            await producer.send_and_wait(topic, b"x", partition=0)
        async with producer.transaction():
            producer._txn_manager.maybe_add_partition_to_txn(TopicPartition(topic, 0))
        assert producer.client._conns
    finally:
        await producer.stop()
    assert "produce" in steps
    assert steps.count("transactional") >= 3
    for request in (ProduceRequest, AddPartitionsToTxnRequest, EndTxnRequest):
        assert any(issubclass(kind, request) for kind in sent), sent
