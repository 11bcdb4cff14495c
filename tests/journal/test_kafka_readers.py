"""Snapshots, cursors and followers of the Kafka journal, on a real broker."""

import asyncio
import contextlib
import itertools
import json

import anyio
import pytest
from confluent_kafka import Producer, TopicPartition

from tests.journal.kafka_world import (
    PARTITIONS,
    START,
    administering,
    balance_in,
    done,
    hurrying,
    opened,
    reading,
    ready,
    seen,
    until_head,
)
from watcher.journal import Batch
from watcher.journal.kafka import commit_window, consumer_pool
from watcher.model.events import ProviderHealth
from watcher.model.keys import Filter
from watcher.model.log import Cursor, Expired, Unavailable
from watcher.model.times import format_rfc3339
from watcher.testing.journal_samples import snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]


@pytest.fixture
def anyio_backend():
    return "asyncio"


class TestReaders:
    async def test_a_follower_gets_what_was_and_what_comes(self, kafka, prefix):
        balance = balance_in(2)
        async with ready(kafka.address, prefix) as made, opened(made, 2) as writer, reading(made) as reader:
            await writer.commit(Batch([balance.row(0)]))
            await writer.commit(Batch([balance.row(1)]))
            got = []
            async with anyio.create_task_group() as tasks:
                oldest = (await reader.bounds()).oldest

                async def follow():
                    async with contextlib.aclosing(reader.follow(oldest)) as commits:
                        async for commit in commits:
                            got.extend(event.version for event in commit.events)
                            if len(got) == 3:
                                return

                tasks.start_soon(follow)
                await writer.commit(Batch([balance.row(2)]))
                await writer.commit(Batch([balance.row(3)]))
        assert got == [1, 2, 3]

    async def test_snapshot_and_cursor_are_one_view_while_writers_write(self, kafka, prefix):
        balances = [balance_in(partition, f"s{n}") for n in range(4) for partition in range(PARTITIONS)]
        async with ready(kafka.address, prefix) as made, contextlib.AsyncExitStack() as stack:
            writers = [await stack.enter_async_context(opened(made, p)) for p in range(PARTITIONS)]
            reader = await stack.enter_async_context(reading(made))
            async with anyio.create_task_group() as tasks:
                for writer in writers:
                    mine = [b for b in balances if b.partition == writer.partition]
                    tasks.start_soon(keep_changing, writer, mine)
                for turn in range(8):
                    if turn % 4 == 3:
                        reader = await stack.enter_async_context(reading(made))
                    cursor, rows = await snapshot(reader, Filter())
                    held = {row.key: row.version for row in rows}
                    for commit in await until_head(reader, cursor):
                        for event in commit.events:
                            assert event.version == held.get(event.key, 0) + 1
                            held[event.key] = event.version
                tasks.cancel_scope.cancel()

    async def test_followers_from_different_places_each_get_exactly_the_rest(self, kafka, prefix, monkeypatch):
        monkeypatch.setattr(commit_window, "WINDOW_ROWS", 10)
        balance = balance_in(0)
        async with ready(kafka.address, prefix) as made, opened(made, 0) as writer, reading(made) as reader:
            await writer.commit(Batch([balance.row(0)]))
            for amount in range(1, 31):
                await writer.commit(Batch([balance.row(amount)]))
            bounds = await reader.bounds()
            everything = [e for commit in await until_head(reader, bounds.oldest) for e in commit.events]
            assert [event.version for event in everything] == list(range(1, 31))
            results = {}

            async def resume(event):
                commits = await until_head(reader, bounds.oldest.after(0, event.position))
                results[event.version] = [e.version for commit in commits for e in commit.events]

            async with anyio.create_task_group() as tasks:
                for event in everything[::7]:
                    tasks.start_soon(resume, event)
            assert results == {version: list(range(version + 1, 31)) for version in results}

    async def test_however_many_are_behind_a_few_consumers_read_for_them_and_none_when_all_are_there(
        self, kafka, prefix, monkeypatch
    ):
        monkeypatch.setattr(commit_window, "WINDOW_ROWS", 10)
        balance = balance_in(0)
        async with ready(kafka.address, prefix) as made, opened(made, 0) as writer, reading(made) as reader:
            await writer.commit(Batch([balance.row(0)]))
            for amount in range(1, 31):
                await writer.commit(Batch([balance.row(amount)]))
            oldest, made_for, consumer = (await reader.bounds()).oldest, [], made._cluster.consumer

            async def counted(topics, **more):
                made_for.append(topics)
                return await consumer(topics, **more)

            monkeypatch.setattr(made._cluster, "consumer", counted)
            async with contextlib.AsyncExitStack() as opened_:
                slow = [
                    await opened_.enter_async_context(contextlib.aclosing(reader.follow(oldest))) for _ in range(12)
                ]
                for log in slow:  # none goes further than its first slice, as one whose client does not read
                    while not (events := (await anext(log)).events):
                        pass
                    assert events[0].version == 1
                assert len(made_for) <= consumer_pool.MAX_CONSUMERS
                assert await until_head(reader, oldest)
            assert len(reader._consumers._idle) == 0

    async def test_a_transaction_left_open_by_a_dead_writer_keeps_no_reader_from_starting(self, kafka, prefix):
        balance = balance_in(0)
        async with contextlib.AsyncExitStack() as stack:
            made = await stack.enter_async_context(ready(kafka.address, prefix))
            writer = await stack.enter_async_context(opened(made, 0))
            await writer.commit(Batch([balance.row(0)]))
            await writer.commit(Batch([balance.row(1)]))
            before = balance.state

            async def die(sent):
                await asyncio.gather(*sent)
                raise OSError("the process died here")

            writer._require_delivery = die
            with pytest.raises(Unavailable):
                await writer.commit(Batch([balance.row(2)]))
            del writer._require_delivery
            with hurrying(made, load=0.5, fresh=0.5):
                reader = await stack.enter_async_context(reading(made))
                assert not await writer._transactions_closed(0.1)
                cursor, rows = await snapshot(reader, Filter())
                assert [(row.version, row.amount) for row in rows] == [(before.version, before.amount)]
            balance.state = (await writer.open()).states[0]
            await writer.commit(Batch([balance.row(3)]))
            assert [e.version for commit in await until_head(reader, cursor) for e in commit.events] == [2]

    async def test_a_cursor_reaches_the_head_behind_an_aborted_transaction(self, kafka, prefix):
        balance = balance_in(0)
        async with ready(kafka.address, prefix) as made, opened(made, 0) as writer, reading(made) as reader:
            await writer.commit(Batch([balance.row(0)]))
            await writer.commit(Batch([balance.row(1)]))

            async def die(sent):
                await asyncio.gather(*sent)
                raise OSError("the process died here")

            writer._require_delivery = die
            with pytest.raises(Unavailable):
                await writer.commit(Batch([balance.row(2)]))
            del writer._require_delivery
            await writer.open()
            bounds = await reader.bounds()
            commits = await until_head(reader, bounds.oldest)
            assert [e.version for commit in commits for e in commit.events] == [1]
            assert commits[-1].cursor.reaches(bounds.head)

    async def test_a_baseline_comes_as_a_baseline_and_its_change_as_an_event(self, kafka, prefix):
        balance = balance_in(0)
        async with ready(kafka.address, prefix) as made, opened(made, 0) as writer, reading(made) as reader:
            head = (await reader.bounds()).head
            baselines, events = [], []
            async with contextlib.aclosing(reader.follow(head)) as following:
                for amount, wanted in ((7, baselines), (8, events)):
                    await writer.commit(Batch([balance.row(amount)]))
                    with anyio.fail_after(60):
                        while not wanted:
                            commit = await anext(following)
                            baselines += commit.baselines
                            events += commit.events
            assert [(b.amount, b.version) for b in baselines] == [("7", 0)]
            assert [e.version for e in events] == [1]

    async def test_a_filter_narrows_the_snapshot(self, kafka, prefix):
        one, two = balance_in(0, "one"), balance_in(1, "two")
        async with ready(kafka.address, prefix) as made, reading(made) as reader:
            for balance in (one, two):
                async with opened(made, balance.partition) as writer:
                    await writer.commit(Batch([balance.row(1)]))
            _, rows = await snapshot(reader, Filter(account=(two.key.account,)))
            assert [row.key for row in rows] == [two.key]

    async def test_a_cursor_that_nothing_can_be_followed_from_says_why(self, kafka, prefix):
        balance = balance_in(0)
        async with ready(kafka.address, prefix) as made, opened(made, 0) as writer:
            await writer.commit(Batch([balance.row(0)]))
            for amount in range(1, 5):
                await writer.commit(Batch([balance.row(amount)]))
            async with reading(made) as reader:
                oldest, head = (bounds := await reader.bounds()).oldest, bounds.head
                keep = TopicPartition(f"{prefix}balances.changed.v1", 0, 4)
                with administering(kafka.address) as admin:
                    done(admin.delete_records([keep]))
                for cursor, reason in (
                    (oldest, "expired"),
                    (head.after(0, head.positions[0]), "ahead"),
                    (Cursor("abc", head.positions), "epoch_changed"),
                    (Cursor(head.epoch, (*head.positions, 0)), "epoch_changed"),
                ):
                    with pytest.raises(Expired) as caught:
                        await anext(reader.follow(cursor))
                    assert caught.value.reason == reason
                oldest = (await reader.bounds()).oldest
                assert [e.version for c in await until_head(reader, oldest) for e in c.events] == [3, 4]

    async def test_health_reaches_followers_and_those_who_come_later(self, kafka, prefix):
        health = ProviderHealth(
            provider="jupiter",
            time=format_rfc3339(START),
            instance="a",
            watches=3,
            last_success=None,
            stalest_seconds=None,
            paused_until=None,
            budget_used=0.5,
            state="waiting",
            reason="no answer yet since the start",
            since=None,
        )
        async with ready(kafka.address, prefix) as made, reading(made) as reader:
            await made.heartbeat([health])
            head = (await reader.bounds()).head
            for _ in range(2):
                with anyio.fail_after(60):
                    async with contextlib.aclosing(reader.follow(head)) as following:
                        async for commit in following:
                            if commit.health:
                                assert commit.health == [health]
                                break
        (message,) = seen(kafka.address, f"{prefix}balances.heartbeat.v1", partitions=1)
        assert message.key() == b"jupiter"
        assert json.loads(message.value())["watches"] == 3


class TestCut:
    async def test_events_that_are_deleted_before_they_were_read_cost_their_followers_a_snapshot_and_no_process(
        self, kafka, prefix
    ):
        one, other = balance_in(0), balance_in(1)
        async with (
            ready(kafka.address, prefix) as made,
            opened(made, 0) as writer,
            opened(made, 1) as second,
            reading(made) as reader,
        ):
            for amount in range(3):
                await writer.commit(Batch([one.row(amount)]))
            await second.commit(Batch([other.row(0)]))
            start = (await reader.bounds()).head
            async with contextlib.aclosing(reader.follow(start)) as commits, anyio.create_task_group() as tasks:
                ends = []

                async def follow():
                    try:
                        async for _ in commits:
                            pass
                    except Expired as expired:
                        ends.append(expired.reason)
                        tasks.cancel_scope.cancel()

                tasks.start_soon(follow)
                await anyio.sleep(0.2)
                cut_unread(kafka.address, f"{prefix}balances.changed.v1")
                with anyio.fail_after(60):
                    await anyio.sleep_forever()
            assert ends == ["expired"]
            with anyio.fail_after(60):
                while True:
                    with contextlib.suppress(Unavailable):
                        cursor, rows = await snapshot(reader, Filter())
                        break
                    await anyio.sleep(0.1)
            assert {row.key: row.amount for row in rows} == {one.key: "2", other.key: "0"}
            await writer.commit(Batch([one.row(7)]))
            found = [event for commit in await until_head(reader, cursor) for event in commit.events]
            assert [event.version for event in found] == [3]


def cut_unread(address, topic):
    """Events come and are deleted while nobody here can read them, since this holds the loop."""
    producer = Producer({"bootstrap.servers": address})
    told = seen(address, topic)[-1]
    for _ in range(5):
        producer.produce(topic, told.value(), told.key(), partition=told.partition(), headers=told.headers())
        assert producer.flush(60) == 0
    with administering(address) as admin:
        done(admin.delete_records([TopicPartition(topic, told.partition(), -1)]))


async def keep_changing(writer, balances):
    with contextlib.suppress(Unavailable):
        for amount in itertools.count():
            await writer.commit(Batch([balance.row(amount) for balance in balances]))
