"""Hints on a real broker: whoever writes them, however, and however many, they come to all who receive, and nothing else does."""

import contextlib
import gc
import tracemalloc
from itertools import count

import anyio
import pytest
from aiokafka import TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from structlog.testing import capture_logs

from tests.journal.hint_world import HINT, PROBE, producing, receiving, sent_until_received, topic
from tests.journal.kafka_world import administering, balance_in, delete, denied, done, hurried, journal, opened, ready
from watcher.app.daemon import wall
from watcher.journal import Batch, Forbidden, WrongJournal
from watcher.journal.kafka.hint_exchange import MOST, MOST_A_SECOND
from watcher.model.hints import MOST_BYTES, Hint, decode, encode
from watcher.model.log import Unavailable

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_a_hint_of_anybodys_producer_reaches_every_member(kafka, prefix, compression):
    async with (
        ready(kafka.address, prefix) as one,
        ready(kafka.address, prefix) as two,
        receiving(one, two) as receivers,
    ):
        with producing(kafka.address, **{"compression.type": compression}) as producer:
            for number in range(20):
                value = encode(Hint(provider="bank", account=f"account{number}"))
                producer.produce(topic(prefix), value, key=f"any{number}", headers={"whatever": "x"})
        for receiver in receivers:
            await receiver.until(value)
            assert [decode(hint).account for hint in receiver.hints] == [f"account{number}" for number in range(20)]


async def test_what_is_no_hint_by_its_size_is_stepped_over(kafka, prefix):
    async with ready(kafka.address, prefix) as made, receiving(made) as (receiver,):
        for compression in ("none", "gzip", "snappy", "lz4", "zstd"):
            with producing(kafka.address, **{"compression.type": compression}) as producer:
                producer.produce(topic(prefix), b"x" * (MOST_BYTES + 1))
                producer.produce(topic(prefix), None, key="tombstone")
                producer.produce(topic(prefix), b"", key="empty")
                producer.produce(topic(prefix), b"\0" * 999_000)
        with producing(kafka.address) as producer:
            producer.produce(topic(prefix), HINT)
        await receiver.until(HINT)
        assert set(receiver.hints) == {b"", HINT}  # each counts as rejected


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
async def test_a_bomb_that_a_broker_takes_costs_a_receiver_no_memory(kafka, prefix, compression):
    """Snappy leaves a twentieth; a broker takes a megabyte."""
    size = 15_000_000
    bomb, large = b"\0" * size, {"message.max.bytes": 2 * size, "compression.type": compression}
    place = TopicPartition(topic(prefix), 0)
    async with ready(kafka.address, prefix) as made, receiving(made) as (receiver,):
        before = await made._offsets.high_watermarks([place])
        gc.collect()
        tracemalloc.start()
        try:
            with producing(kafka.address, **large) as producer:
                producer.produce(topic(prefix), bomb)
            assert (await made._offsets.high_watermarks([place]))[place] == before[place] + 1
            with producing(kafka.address) as producer:
                producer.produce(topic(prefix), HINT)
            await receiver.until(HINT)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < size / 2, peak


async def test_a_transaction_of_a_stranger_holds_nothing_back(kafka, prefix):
    """Whoever may write could leave one open for ever."""
    async with ready(kafka.address, prefix) as made, receiving(made) as (receiver,):
        with producing(kafka.address, **{"transactional.id": f"{prefix}stranger"}) as producer:
            producer.init_transactions(60)
            producer.begin_transaction()
            producer.produce(topic(prefix), b"open")
            producer.flush(60)
            with producing(kafka.address) as another:
                another.produce(topic(prefix), HINT)
            await receiver.until(HINT)
            producer.abort_transaction(60)


async def test_of_a_flood_the_newest_come_a_bounded_number_at_a_time_and_in_bounded_memory(kafka, prefix):
    numbers = count()

    def flood(seconds):
        """As many as the machine makes."""
        with producing(kafka.address, **{"linger.ms": 5, "queue.buffering.max.messages": 1_000_000}) as producer:
            for _ in range(seconds * 40_000):
                producer.produce(topic(prefix), encode(Hint(provider="bank", account=f"{next(numbers)}")))
                producer.poll(0)

    async with ready(kafka.address, prefix) as made, receiving(made) as (receiver,):
        gc.collect()
        tracemalloc.start()
        try:
            flooded_at = anyio.current_time()
            await anyio.to_thread.run_sync(flood, 5)
            with producing(kafka.address) as producer:
                producer.produce(topic(prefix), HINT)
            began = anyio.current_time()
            await receiver.until(HINT)
            took = anyio.current_time() - began
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        sent, found = next(numbers), len(receiver.hints)
        assert sent == 200_000
        assert MOST <= found <= (anyio.current_time() - flooded_at) * MOST_A_SECOND + 2 * MOST
        assert max(map(len, receiver.turns)) <= MOST
        assert took < sent / MOST_A_SECOND / 2  # what is not skipped takes longer to read
        assert peak < 24 * 1024 * 1024, peak


async def test_what_is_older_than_a_minute_is_not_given(kafka, prefix):
    """The broker says when it came; the clock here tells how long ago that is."""
    ahead, place = 0, TopicPartition(topic(prefix), 0)
    async with ready(kafka.address, prefix, clock=lambda: wall() + ahead) as made, receiving(made) as (receiver,):
        ahead = 62_000_000
        with producing(kafka.address) as producer:
            producer.produce(topic(prefix), b"old")
        await receiver.until_looked_at(place, (await made._offsets.high_watermarks([place]))[place])
        ahead = 0
        with producing(kafka.address) as producer:
            producer.produce(topic(prefix), HINT, timestamp=1)  # by its own clock: of 1970
        await receiver.until(HINT)
        assert receiver.hints == [HINT]


async def test_a_topic_that_was_made_anew_under_a_receiver_is_read_from_its_end(kafka, prefix):
    async with ready(kafka.address, prefix) as made, receiving(made) as (receiver,):
        with administering(kafka.address) as admin:
            await delete(admin, topic(prefix))
            await made.init()
        exchange = made.hint_exchange()
        await sent_until_received(exchange, receiver)
        await exchange.close()


async def test_a_receiver_that_ends_leaves_nothing_open(kafka, prefix, connections):
    async with ready(kafka.address, prefix) as made:
        exchange, before = made.hint_exchange(), len(connections)
        turns = exchange.receive()
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anext, turns)
                while not any(one.connected() for one in connections[before:]):  # noqa: ASYNC110 (no event tells it)
                    await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()
        assert not any(one.connected() for one in connections[before:])
        await exchange.close()


async def until_forbidden(exchange):
    """A broker learns an entry of its list a moment after the controller has it."""
    while True:
        try:
            await exchange.send([PROBE])
        except Unavailable as error:
            if "forbids" in str(error):
                return
        await anyio.sleep(0.1)


async def test_a_log_of_before_lacks_the_topic_and_init_adds_it(kafka, prefix):
    balance = balance_in(0)
    async with ready(kafka.address, prefix) as made:
        async with opened(made, 0) as writer:
            await writer.commit(Batch([balance.row(1)]))
        with administering(kafka.address) as admin:
            await delete(admin, topic(prefix))
        with pytest.raises(WrongJournal, match=f"topic {topic(prefix)} is missing: run `watcher init`"):
            await made.check()
        assert await made.init() == (
            f"created {topic(prefix)}: the log stands in "
            + ", ".join(
                f"{prefix}balances.{name}.v1"
                for name in ("changed", "crossed", "closing", "state", "internal", "heartbeat", "hints")
            )
            + " (3 partitions)"
        )
        await made.check()
        async with opened(made, 0) as writer:
            restored = await writer.open()
        assert [state.amount for state in restored.states] == ["1"]


async def create(admin, new):
    """And wait until the broker knows of it: it learns it from the controller."""
    done(admin.create_topics([new], operation_timeout=60))
    with anyio.fail_after(60):
        while new.topic not in admin.list_topics().topics:  # noqa: ASYNC110 (no event tells it)
            await anyio.sleep(0.02)


@pytest.mark.parametrize(
    ("name", "value"),
    [("message.timestamp.type", "CreateTime"), ("retention.bytes", "-1"), ("max.message.bytes", "50000000")],
)
async def test_a_topic_that_strangers_could_fill_is_refused_until_init_has_set_it(kafka, prefix, name, value):
    async with ready(kafka.address, prefix) as made:
        with administering(kafka.address) as admin:
            await delete(admin, topic(prefix))
            right = {
                "cleanup.policy": "delete",
                "retention.ms": "300000",
                "retention.bytes": "67108864",
                "segment.bytes": "16777216",
                "message.timestamp.type": "LogAppendTime",
                "max.message.bytes": "1048588",
            }
            await create(admin, NewTopic(topic(prefix), 1, 1, config=right | {name: value}))
        with pytest.raises(
            WrongJournal, match=f"{name}={value}, the config asks for {right[name]}: run `watcher init`"
        ):
            await made.check()
        assert f"set {topic(prefix)} {name}={right[name]}" in await made.init()
        await made.check()


async def test_a_topic_with_more_partitions_than_one_is_refused(kafka, prefix):
    """A reader of the one partition would miss what a stranger's partitioner puts into the others."""
    async with ready(kafka.address, prefix) as made:
        with administering(kafka.address) as admin:
            await delete(admin, topic(prefix))
            await create(admin, NewTopic(topic(prefix), 3, 1, config={"cleanup.policy": "delete"}))
        with pytest.raises(WrongJournal, match=f"topic {topic(prefix)} has 3 partitions, it must have one: delete it"):
            await made.check()


# Rights.


@pytest.mark.parametrize(("operation", "what"), [("READ", "receive"), ("WRITE", "send"), ("DESCRIBE", "receive")])
async def test_a_missing_right_is_named_once_it_is_believed(own_broker, prefix, operation, what):
    hints = topic(prefix)
    async with ready(
        own_broker.address, prefix, deadlines=hurried(hints=2.0, start=4.0, request=2.0, denied=3.0)
    ) as made:
        exchange = made.hint_exchange()

        async def receive():
            async for _ in exchange.receive():
                pass

        async def send():
            while True:
                with contextlib.suppress(Unavailable):
                    await exchange.send([HINT])
                await anyio.sleep(0.1)

        with denied(own_broker.address, ResourceType.TOPIC, hints, AclOperation[operation]), anyio.fail_after(40):
            everything = ("User:ANONYMOUS", "*", AclOperation.ALL, AclPermissionType.ALLOW)
            with administering(own_broker.address) as admin:
                done(
                    admin.create_acls([AclBinding(ResourceType.TOPIC, hints, ResourcePatternType.LITERAL, *everything)])
                )
            with pytest.raises(Forbidden, match=f"{operation} on topic {hints}"):
                await {"receive": receive, "send": send}[what]()
        await exchange.close()


async def test_a_right_that_is_missing_for_a_moment_ends_no_receiver(own_broker, prefix):
    hints = topic(prefix)
    async with ready(own_broker.address, prefix) as made, receiving(made) as (receiver,):
        exchange = made.hint_exchange()
        with denied(own_broker.address, ResourceType.TOPIC, hints, AclOperation.READ, AclOperation.WRITE):
            with anyio.fail_after(60):
                await until_forbidden(exchange)
            await anyio.sleep(1.0)
        await sent_until_received(exchange, receiver)
        await exchange.close()


# Outages.


async def test_what_cannot_be_sent_is_refused_in_time_and_then_at_once(prefix):
    made = journal("127.0.0.1:9", prefix, deadlines=hurried(hints=0.5))
    exchange = made.hint_exchange()
    began = anyio.current_time()
    with capture_logs() as logs:
        with pytest.raises(Unavailable):
            await exchange.send([HINT])
        assert anyio.current_time() - began < 5
        with pytest.raises(Unavailable, match="a moment ago"):
            await exchange.send([HINT])
    assert [(line["event"], line["hints"]) for line in logs] == [("hint.not_sent", 1)]
    await exchange.close()
    await made.close()
