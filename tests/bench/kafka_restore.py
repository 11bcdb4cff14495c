"""Restoring from Kafka against a raw read, in one run: `python -m tests.bench.kafka_restore [keys]`.

- restore: all partitions opened at once, each fenced, measured and read, against one plain consumer that reads the
  same partitions and decodes every record; in turns, the best of three each;
- memory of a key in the ledger, and in a reader's view.
"""

import contextlib
import gc
import sys
import time
import tracemalloc
from uuid import uuid4

import anyio
import msgspec
from confluent_kafka import Producer

from tests.kafka_broker import NoBroker, ladder
from watcher.app.daemon import wall
from watcher.journal import Batch
from watcher.journal.kafka import KafkaJournal, KafkaSettings
from watcher.journal.kafka.encoder import Encoder
from watcher.journal.kafka.records import TopicNames
from watcher.ledger import Ledger
from watcher.model.events import JSON
from watcher.model.log import Unavailable
from watcher.testing.journal_samples import baseline

PARTITIONS = 8
GOAL, MEMORY = 1.5, 400
TURNS = 3


def fill(address, topics, keys):
    """That many baselines, sent by a client that is not ours."""
    encoder, row = Encoder(topics, JSON, "/bench"), baseline("x", 10**9)
    producer = Producer({"bootstrap.servers": address, "linger.ms": 50, "queue.buffering.max.messages": 1_000_000})
    for number in range(keys):
        state = msgspec.structs.replace(row.state, account=f"0x{number:040x}", amount=str(10**9 + number))
        ((topic, key, value, headers),) = encoder.batch("e0", Batch([msgspec.structs.replace(row, state=state)]))
        producer.produce(topic, value, key, partition=number % PARTITIONS, headers=headers)
        if number % 10_000 == 0:
            producer.poll(0)
    producer.flush()


async def raw(made, topics):
    """Every record fetched and decoded, by a consumer with the settings of ours."""
    from aiokafka import TopicPartition

    partitions = [TopicPartition(topics.state, number) for number in range(PARTITIONS)]
    ends = await made._offsets.last_stable(partitions)
    found = []
    async with made._cluster.reading(topics) as consumer:
        consumer.assign(partitions)
        for partition in partitions:
            consumer.seek(partition, 0)
        while [p for p in partitions if await consumer.position(p) < ends[p]]:
            for records in (await consumer.getmany(timeout_ms=50)).values():
                found += [JSON.state(record.value) for record in records if b"/" in record.key]
    return len(found)


async def restored(made):
    """(writers, what each restored) of all partitions at once, as the daemon opens them."""
    writers, found = [made.writer(number) for number in range(PARTITIONS)], {}

    async def open_one(number):
        while number not in found:  # as the committer does: under tracemalloc the loop is too slow for some time-outs
            with contextlib.suppress(Unavailable):
                found[number] = await writers[number].open()

    async with anyio.create_task_group() as tasks:
        for number in range(PARTITIONS):
            tasks.start_soon(open_one, number)
    return writers, found


async def closed(writers):
    async with anyio.create_task_group() as tasks:
        for writer in writers:
            tasks.start_soon(writer.close)


async def restore(made, topics, keys):
    floor, ours = [], []
    for _ in range(TURNS):
        gc.collect()
        began = time.perf_counter()
        assert await raw(made, topics) == keys
        floor.append(time.perf_counter() - began)
        gc.collect()
        began = time.perf_counter()
        writers, found = await restored(made)
        ours.append(time.perf_counter() - began)
        assert sum(len(one.states) for one in found.values()) == keys
        del found
        await closed(writers)
    ratio = min(ours) / min(floor)
    print(
        f"restore of {keys:,} keys: {min(ours):.2f} s, raw read {min(floor):.2f} s: ratio {ratio:.2f} (goal <= {GOAL})"
    )
    return ratio <= GOAL


async def memory(made, keys):
    """Exact bytes of the objects that stay."""
    tracemalloc.start()
    writers, found = await restored(made)
    ledgers = []
    for number in range(PARTITIONS):
        one = found.pop(number)
        ledgers.append(Ledger())
        ledgers[-1].restore(one.states, one.notes, one.epoch)
        del one
    await closed(writers)
    gc.collect()
    each = tracemalloc.get_traced_memory()[0] / keys
    tracemalloc.stop()
    del ledgers
    gc.collect()
    tracemalloc.start()
    reader = await made.reader()
    gc.collect()
    seen = tracemalloc.get_traced_memory()[0] / keys
    tracemalloc.stop()
    await reader.close()
    print(f"memory of a key: {each:.0f} B in the ledgers (goal <= {MEMORY}); {seen:.0f} B in a reader's view")
    return each <= MEMORY


async def run(address, keys):
    prefix = f"bench-{uuid4().hex[:8]}."
    topics = TopicNames.under(prefix)
    made = KafkaJournal([address], KafkaSettings(topic_prefix=prefix, partitions=PARTITIONS), environ={}, clock=wall)
    await made.init()
    await anyio.to_thread.run_sync(fill, address, topics, keys)
    good = await restore(made, topics, keys)
    good &= await memory(made, keys)
    await made.close()
    return good


def main(arguments):
    keys = int(arguments[0]) if arguments else 100_000
    try:
        with ladder() as broker:
            print(f"broker: {broker.rung}")
            return 0 if anyio.run(run, broker.address, keys) else 1
    except NoBroker as reason:
        print(f"no Kafka broker: {reason}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
