"""Kafka, from an accepted answer to a follower who has the change: `python -m tests.bench.kafka_latency [changes]`.

Everything in one process and one run, over 8 partitions: answers → intake → committers → broker → reader → follower,
which is where the relay begins. What a commit costs is measured by the committers at the same time, so each figure is
judged by its own run:

- quiet: 20 changes a second, p50 at most a commit + 5 ms;
- saturated: answers as fast as they are taken, p50 at most 2 x (10 ms of gathering + a commit).
"""

import random
import statistics
import sys
import time
from uuid import uuid4

import anyio
import anyio.lowlevel
from aiokafka import TopicPartition

from tests.journal.kafka_world import provider_in
from tests.kafka_broker import NoBroker, ladder
from watcher.app.daemon import wall
from watcher.ingest.committer import Committer
from watcher.journal.kafka import KafkaJournal, KafkaSettings
from watcher.ledger import Ledger
from watcher.model.keys import Key
from watcher.model.readings import Answer, Reading, Times
from watcher.model.times import parse_rfc3339

PARTITIONS = 8
GATHER = 0.010
RATE = 20
LISTED = 50
"""Balances in one answer of the saturated run."""
SECONDS = 8.0


def keys(partition):
    """Balances of one account of a provider that lives there, as one listing names them."""
    return [Key(provider_in(partition, PARTITIONS), "eip155:1", "owner", f"token{number}") for number in range(LISTED)]


def answer(named, amount):
    now = anyio.current_time()
    readings = [Reading(key, str(amount), "base", order=amount) for key in named]
    return Answer(named[0].provider, readings, "strict", 0.0, Times(now, now, time.time_ns() // 1000))


class Timed:
    """A writer that notes what each commit takes, in milliseconds."""

    def __init__(self, writer, spent):
        self.open, self.close = writer.open, writer.close
        self._writer, self._spent = writer, spent

    async def commit(self, batch):
        began = time.perf_counter()
        await self._writer.commit(batch)
        self._spent.append((time.perf_counter() - began) * 1000)


class Bench:
    """The path, with a follower at its end that notes each change's age in milliseconds."""

    def __init__(self, made):
        self.made = made
        self.spent = []
        self.committers = [
            Committer(Timed(made.writer(number), self.spent), Ledger(), gather=GATHER, partition=number)
            for number in range(PARTITIONS)
        ]
        self.ages, self.floor = [], []

    async def follow(self, *, task_status):
        reader = await self.made.reader()
        head = (await reader.bounds()).head
        task_status.started()
        async for commit in reader.follow(head):
            now = time.time_ns() // 1000
            self.ages += [(now - event.observed_at) / 1000 for event in commit.events]

    async def consume(self, *, task_status):
        """The floor: a consumer of the events alone that does nothing with them."""
        partitions = [TopicPartition(self.made._topics.changed, number) for number in range(PARTITIONS)]
        async with self.made._cluster.reading([self.made._topics.changed]) as consumer:
            consumer.assign(partitions)
            await consumer.seek_to_end(*partitions)
            for partition in partitions:
                await consumer.position(partition)
            task_status.started()
            while True:
                found = await consumer.getmany(timeout_ms=1000)
                now = time.time_ns() // 1000
                times = (
                    parse_rfc3339(dict(one.headers)["ce_time"].decode()) for each in found.values() for one in each
                )
                self.floor += [(now - time) / 1000 for time in times]

    async def measured(self, feed):
        """(ages of the changes, median commit, median age at the bare consumer) in milliseconds of that feed."""
        await self.flush()
        await anyio.sleep(0.3)
        self.ages, self.floor = [], []
        self.spent.clear()
        await feed
        await self.flush()
        await anyio.sleep(0.3)
        return sorted(self.ages), statistics.median(self.spent), statistics.median(self.floor)

    async def flush(self):
        for committer in self.committers:
            await committer.flush()

    async def quiet(self, changes, named):
        for amount in range(1, changes + 1):
            partition = amount % PARTITIONS
            await self.committers[partition].accept(answer([random.choice(named[partition])], amount))
            await anyio.sleep(1 / RATE * (0.5 + amount % 11 / 10))

    async def saturated(self, named):
        until, amount = anyio.current_time() + SECONDS, 1_000_000
        while anyio.current_time() < until:
            amount += 1
            for committer, listed in zip(self.committers, named, strict=True):
                await committer.accept(answer(listed, amount))
                await anyio.lowlevel.checkpoint()


def tell(name, ages, commit, floor, goal):
    p50, p99 = statistics.median(ages), ages[len(ages) * 99 // 100]
    verdict = "met" if p50 <= goal else "MISSED"
    print(f"{name}: {len(ages):,} changes, p50 {p50:.1f} ms, p99 {p99:.1f} ms; a commit took {commit:.1f} ms")
    print(f"  a bare consumer beside it had them at p50 {floor:.1f} ms (ratio {p50 / floor:.2f})")
    print(f"  goal p50 <= {goal:.1f} ms: {verdict} (ratio {p50 / goal:.2f})")
    return p50 <= goal


async def run(address, changes):
    settings = KafkaSettings(topic_prefix=f"bench-{uuid4().hex[:8]}.", partitions=PARTITIONS)
    made = KafkaJournal([address], settings, environ={}, clock=wall)
    await made.init()
    bench, named = Bench(made), [keys(partition) for partition in range(PARTITIONS)]
    async with anyio.create_task_group() as tasks:
        for committer in bench.committers:
            await tasks.start(committer.run)
        for committer, listed in zip(bench.committers, named, strict=True):
            await committer.accept(answer(listed, 0))
        await bench.flush()
        await tasks.start(bench.follow)
        await tasks.start(bench.consume)
        ages, commit, floor = await bench.measured(bench.quiet(changes, named))
        good = tell(f"quiet, {RATE}/s", ages, commit, floor, commit + 5)
        ages, commit, floor = await bench.measured(bench.saturated(named))
        good &= tell(f"saturated, {len(ages) / SECONDS:,.0f}/s", ages, commit, floor, 2 * (GATHER * 1000 + commit))
        tasks.cancel_scope.cancel()
    await made.close()
    return good


def main(arguments):
    changes = int(arguments[0]) if arguments else 300
    try:
        with ladder() as broker:
            print(f"broker: {broker.rung}")
            return 0 if anyio.run(run, broker.address, changes) else 1
    except NoBroker as reason:
        print(f"no Kafka broker: {reason}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
