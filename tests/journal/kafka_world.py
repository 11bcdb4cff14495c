"""A small world for the tests of the Kafka journal: balances, journals under a prefix of their own, and an outside eye."""

import contextlib
import itertools
import json
from uuid import uuid4

import anyio
import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
)

from watcher.app.daemon import wall
from watcher.journal.kafka import KafkaJournal, KafkaSettings
from watcher.journal.kafka.deadlines import Deadlines
from watcher.model.events import BalanceState, CommitRow, changed
from watcher.model.keys import Key
from watcher.model.log import Unavailable
from watcher.model.partitions import partition_of
from watcher.model.times import format_rfc3339

PARTITIONS = 3
EPOCH = "e0"
"""Of the events that these tests make up; the log's own is none of their business."""
START = 1_700_000_000_000_000
PATIENT = Deadlines(
    reach=60.0,
    start=60.0,
    request=30.0,
    transaction=120.0,
    commit=60.0,
    forgotten=30.0,
    quiet=60.0,
    stalled=60.0,
    fresh=30.0,
    load=30.0,
    admin=60.0,
    begun=30.0,
    heartbeat=60.0,
)
"""Deadlines that no stall of the machine outlasts. A test that is about one of them sets its own."""


def hurried(**seconds):
    """Patient but for those."""
    return msgspec.structs.replace(PATIENT, **seconds)


@contextlib.contextmanager
def hurrying(made, **seconds):
    """For a while the cluster of that journal may take no longer than that."""
    before = made._cluster.deadlines
    made._cluster.deadlines = msgspec.structs.replace(before, **seconds)
    try:
        yield
    finally:
        made._cluster.deadlines = before


def journal(address, prefix, **arguments):
    partitions = arguments.pop("partitions", PARTITIONS)
    settings = KafkaSettings(topic_prefix=prefix, partitions=partitions)
    return KafkaJournal([address], settings, environ={}, **{"clock": wall, "deadlines": PATIENT, **arguments})


@contextlib.asynccontextmanager
async def ready(address, prefix, **arguments):
    """A journal whose topics stand."""
    made = journal(address, prefix, **arguments)
    try:
        await made.init()
        yield made
    finally:
        await made.close()


@contextlib.asynccontextmanager
async def opened(made, partition, kind=None):
    writer = made.writer(partition)
    try:
        await writer.open()
        yield writer
    finally:
        await writer.close()


@contextlib.asynccontextmanager
async def reading(made):
    reader = await made.reader()
    try:
        yield reader
    finally:
        await reader.close()


class Balance:
    """One key and its successive rows."""

    def __init__(self, account, provider="jupiter"):
        self.key = Key(provider, "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", account, "native")
        self.state = None

    @property
    def partition(self):
        return partition_of(self.key.provider, PARTITIONS)

    def row(self, amount):
        """The baseline at first, then changes."""
        version = 0 if self.state is None else self.state.version + 1
        before, self.state = (
            self.state,
            BalanceState(
                provider=self.key.provider,
                chain=self.key.chain,
                account=self.key.account,
                token=self.key.token,
                kind=self.key.kind,
                symbol="SOL",
                version=version,
                amount=str(amount),
                unit="base",
                decimals=9,
                slot=100 + version,
                as_of=None,
                observed_at=format_rfc3339(START + version),
                order=100 + version,
            ),
        )
        return CommitRow(self.state, changed(EPOCH, self.state, before.amount, before.observed_at) if before else None)


def provider_in(partition, partitions=PARTITIONS):
    """The name of a provider that lives in this partition."""
    names = (f"bank{number}" for number in itertools.count())
    return next(name for name in names if partition_of(name, partitions) == partition)


def balance_in(partition, salt=""):
    """A balance that lives in this partition."""
    return Balance(f"account{salt}", provider_in(partition))


def seen(address, topic, partitions=PARTITIONS):
    """Everything that a `read_committed` consumer outside our code sees, in order of partition and offset."""
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": uuid4().hex,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(partitions)])
    found, ended = [], set()
    try:
        while len(ended) < partitions:
            message = consumer.poll(60)
            assert message is not None, "no answer from the broker in 60 s"
            if message.error():
                assert message.error().code() == -191, message.error()  # the end of one partition
                ended.add(message.partition())
            else:
                ended.discard(message.partition())
                found.append(message)
    finally:
        consumer.close()
    return sorted(found, key=lambda message: (message.partition(), message.offset()))


def versions(messages):
    """Key → versions of its events, in the order of the log."""
    found = {}
    for message in messages:
        found.setdefault(message.key().decode(), []).append(json.loads(message.value())["version"])
    return found


@contextlib.contextmanager
def administering(address):
    yield AdminClient({"bootstrap.servers": address})


def done(futures):
    return [future.result() for future in futures.values()]


@contextlib.contextmanager
def denied(address, resource, name, *operations):
    """These operations on that topic or group are nobody's right for a while."""
    where = (resource, name, ResourcePatternType.LITERAL)
    with administering(address) as admin:
        done(
            admin.create_acls(
                [
                    AclBinding(*where, "User:ANONYMOUS", "*", operation, AclPermissionType.DENY)
                    for operation in operations
                ]
            )
        )
        try:
            yield
        finally:
            done(admin.delete_acls([AclBindingFilter(*where, None, None, AclOperation.ANY, AclPermissionType.ANY)]))


async def delete(admin, *names):
    """And wait until the broker knows nothing of those topics any more: it learns it from the controller."""
    done(admin.delete_topics(list(names), operation_timeout=60))
    with anyio.fail_after(60):
        while not admin.list_topics().topics.keys().isdisjoint(names):  # noqa: ASYNC110 (no event tells it)
            await anyio.sleep(0.02)


async def ended(writer, *partitions):
    """Until the transactions in those partitions, or else in the writer's own, stand with their ends: a commit is
    told before the cluster has written its end everywhere."""
    offsets, partitions = writer._offsets, partitions or writer._transacted
    with anyio.fail_after(60):
        while await offsets.last_stable(partitions) != await offsets.high_watermarks(partitions):  # noqa: ASYNC110 (no event tells it)
            await anyio.sleep(0.02)


async def until_head(reader, cursor):
    """Everything from `cursor` to the head of now."""
    head = (await reader.bounds()).head
    commits = []
    with anyio.fail_after(60):
        async with contextlib.aclosing(reader.follow(cursor)) as following:
            if cursor.reaches(head):
                return commits
            async for commit in following:
                commits.append(commit)
                if commit.cursor.reaches(head):
                    return commits
    raise AssertionError("following ended")


async def restored(writer, at_least):
    """Open until it succeeds; the one state of the partition."""
    while True:
        with contextlib.suppress(Unavailable):
            (state,) = (await writer.open()).states
            assert state.version >= at_least
            return state
        await anyio.sleep(0.1)


@contextlib.contextmanager
def frozen(broker):
    broker.freeze()
    try:
        yield
    finally:
        broker.thaw()
