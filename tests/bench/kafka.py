"""Kafka commits against the least that aiokafka allows, in one run: `python -m tests.bench.kafka [rounds]`.

- commits: our writer, encoding included, against a bare transactional producer that sends ready-made records, awaits
  their futures and commits; 100 changes a transaction (each an event and a state record), in turns, one partition each;
- latency: commits of one change, begun 10 ms after the one before and back to back. Back to back the coordinator is
  still writing markers and aiokafka waits 20 ms: that is why the committer gathers for 10 ms.
"""

import asyncio
import statistics
import sys
import time
from uuid import uuid4

import anyio
from aiokafka import AIOKafkaProducer

from tests.kafka_broker import NoBroker, ladder
from watcher.app.daemon import wall
from watcher.journal import Batch
from watcher.journal.kafka import KafkaJournal, KafkaSettings
from watcher.journal.kafka.cluster import BATCH_BYTES
from watcher.journal.kafka.encoder import Encoder
from watcher.journal.kafka.records import TopicNames
from watcher.model.events import JSON
from watcher.testing.journal_samples import baseline, change

GROUP = 100
GATHER = 0.010
GOAL = 0.8


def batches(partition, count):
    """Baselines of 100 balances of one partition, then rounds of a change to each."""
    rows = [baseline(f"{partition}x{number}", 10**9) for number in range(GROUP)]
    yield Batch(rows)
    for number in range(count):
        rows = [change(row, 10**9 + number + 1) for row in rows]
        yield Batch(rows)


async def bare(producer, records, partition):
    await producer.begin_transaction()
    sent = [
        await producer.send(topic, value, key, partition=partition, headers=headers)
        for topic, key, value, headers in records
    ]
    await asyncio.gather(*sent)
    await producer.commit_transaction()


async def timed(what):
    began = time.perf_counter()
    await what
    return time.perf_counter() - began


async def commits(made, address, prefix, rounds):
    """Seconds of each commit: ours, bare."""
    encoder = Encoder(TopicNames.under(prefix), JSON, "/bench")
    ready = [list(encoder.batch("e0", batch)) for batch in batches(1, rounds)]
    writer = made.writer(0)
    await writer.open()
    raw = AIOKafkaProducer(bootstrap_servers=address, transactional_id=f"{prefix}bare", max_batch_size=BATCH_BYTES)
    await raw.start()
    ours, floor = [], []
    for batch, records in zip(batches(0, rounds), ready, strict=True):
        ours.append(await timed(writer.commit(batch)))
        await anyio.sleep(GATHER)
        floor.append(await timed(bare(raw, records, 1)))
        await anyio.sleep(GATHER)
    await raw.stop()
    await writer.close()
    return ours[rounds // 10 :], floor[rounds // 10 :]


async def latencies(made, rounds, pause):
    writer = made.writer(0)
    await writer.open()
    row, spent = baseline("last", 0), []
    for number in range(rounds):
        spent.append(await timed(writer.commit(Batch([row]))))
        row = change(row, number + 1)
        await anyio.sleep(pause)
    await writer.close()
    return spent[rounds // 10 :]


async def run(address, rounds):
    prefix = f"bench-{uuid4().hex[:8]}."
    made = KafkaJournal([address], KafkaSettings(topic_prefix=prefix, partitions=2), environ={}, clock=wall)
    await made.init()
    ours, floor = await commits(made, address, prefix, rounds)
    ratio = statistics.median(floor) / statistics.median(ours)
    each = GROUP / statistics.median(ours)
    print(f"commits of {GROUP}: ours {statistics.median(ours) * 1000:.1f} ms ({each:,.0f} events/s while committing),")
    print(f"  bare {statistics.median(floor) * 1000:.1f} ms, ratio {ratio:.2f} (goal >= {GOAL})")
    gathered = await latencies(made, rounds, GATHER)
    at_once = await latencies(made, rounds, 0)
    for name, spent in (("10 ms after the last", gathered), ("back to back", at_once)):
        quantiles = statistics.quantiles(spent, n=100)
        print(f"commit of 1, {name}: p50 {quantiles[49] * 1000:.1f} ms, p99 {quantiles[98] * 1000:.1f} ms")
    gain = statistics.median(at_once) / statistics.median(gathered)
    print(f"  back to back / gathered: ratio {gain:.1f}")
    await made.close()
    return ratio >= GOAL


def main(arguments):
    rounds = int(arguments[0]) if arguments else 300
    try:
        with ladder() as broker:
            print(f"broker: {broker.rung}")
            return 0 if anyio.run(run, broker.address, rounds) else 1
    except NoBroker as reason:
        print(f"no Kafka broker: {reason}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
