"""The log that foreign consumers read: written once in each encoding by our Kafka journal, and some of its transactions
were aborted because their writer died."""

import asyncio
from collections import defaultdict
from typing import NamedTuple

from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic

from tests.journal.kafka_world import PARTITIONS, Balance, administering, done, opened, ready
from watcher.journal import Batch
from watcher.model.partitions import partition_of

KEYS = 2_100
PROVIDERS = 9
CHANGES = 5
"""Of each balance but every twenty-first: that one has its baseline only."""
BATCH = 500
DYING = (4, 4, 3)
"""Balances in the transaction that was aborted, by partition."""
NOTES = {"limiter": b"no business of anybody's"}
DESKS = ("north", "south", "east")


class WrittenLog(NamedTuple):
    """What was written, and how much of it was committed."""

    address: str
    prefix: str
    encoding: str
    keys: set[str]
    events: int
    states: int
    """Records of balances in the state topic."""
    records: int
    """All that stand in both topics."""
    aborted: int
    """Events in aborted transactions, each with its state."""

    @property
    def changed_topic(self):
        return f"{self.prefix}balances.changed.v1"

    @property
    def state_topic(self):
        return f"{self.prefix}balances.state.v1"

    @property
    def desk_topic(self):
        """A topic of somebody else: key → the desk that the balance belongs to, by the partitioner of Java's clients."""
        return f"{self.prefix}desks"


async def written(address, prefix, encoding):
    balances = [Balance(f"account{number}", f"bank{number % PROVIDERS}") for number in range(KEYS)]
    by_partition = defaultdict(list)
    for balance in balances:
        by_partition[balance.partition].append(balance)
    async with ready(address, prefix, encoding=encoding) as made:
        for partition, mine in sorted(by_partition.items()):
            async with opened(made, partition) as writer:
                await commit(writer, mine, 0)
                changing = [balance for balance in mine if number(balance) % 21]
                for change in range(1, CHANGES + 1):
                    if change == 3:
                        await die_in_a_commit(writer, changing[: DYING[partition]])
                    await commit(writer, changing, change)
    events = sum(balance.state.version for balance in balances)
    keys = {str(balance.key) for balance in balances}
    log = WrittenLog(address, prefix, encoding, keys, events, events + KEYS, 2 * events + KEYS, sum(DYING))
    tell_desks(log)
    return log


async def commit(writer, balances, change):
    for start in range(0, len(balances), BATCH):
        rows = [balance.row(amount(balance, change)) for balance in balances[start:][:BATCH]]
        await writer.commit(Batch(rows, NOTES))


def number(balance):
    return int(balance.key.account.removeprefix("account"))


def amount(balance, change):
    """Beyond what a double or 64 bits hold. An amount comes back: two changes of one balance may tell the same."""
    return 10**24 + number(balance) + (0, 7, 3, 7, 11, 0)[change]


async def die_in_a_commit(writer, balances):
    """All was sent, and the end was not. The next writer fences this one, so that its transaction is aborted; it reads
    the same answer, and tells another amount, with the same versions and ids."""
    before = [balance.state for balance in balances]
    rows = [balance.row(amount(balance, 0) - 1) for balance in balances]
    producer = writer._live_producer()
    await producer.begin_transaction()
    sent = [
        await producer.send(topic, value, key, partition=writer.partition, headers=headers)
        for topic, key, value, headers in writer._encoder.batch(writer._epoch, Batch(rows))
    ]
    await asyncio.gather(*sent)
    await writer._abandon_producer()
    for balance, state in zip(balances, before, strict=True):
        balance.state = state
    await writer.open()


def desk(key):
    return DESKS[sum(key.encode()) % len(DESKS)]


def tell_desks(log):
    """As many partitions as ours have, and keyed alike; yet a plain join would miss most of them."""
    with administering(log.address) as admin:
        done(admin.create_topics([NewTopic(log.desk_topic, PARTITIONS)], operation_timeout=60))
    producer = Producer({"bootstrap.servers": log.address, "partitioner": "murmur2"})
    elsewhere = set()

    def delivered(error, message):
        key = message.key().decode()
        if message.partition() != partition_of(key.split("/")[0], PARTITIONS):
            elsewhere.add(key)

    for key in log.keys:
        producer.produce(log.desk_topic, desk(key), key, on_delivery=delivered)
    assert producer.flush(60) == 0
    assert len(elsewhere) > len(log.keys) / 2
