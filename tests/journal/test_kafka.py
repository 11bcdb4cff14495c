"""The Kafka journal against a real broker; what is visible is judged by confluent-kafka, which is not our code."""

import asyncio
import contextlib
import itertools
import json
import random
import types
from collections import Counter

import anyio
import pytest

from tests.journal.conformed import OnKafka
from tests.journal.kafka_world import (
    EPOCH,
    Balance,
    balance_in,
    ended,
    hurrying,
    journal,
    opened,
    reading,
    ready,
    restored,
    seen,
    until_head,
    versions,
)
from watcher.journal import Batch, Fenced, Lost
from watcher.journal.views import ViewLimits
from watcher.model.events import MSGPACK, CommitRow, changed, event_id
from watcher.model.keys import Filter
from watcher.model.log import Unavailable
from watcher.testing.journal_conformance import JournalConformance
from watcher.testing.journal_samples import snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]


@pytest.fixture
def anyio_backend():
    return "asyncio"


class TestConformance(OnKafka, JournalConformance):
    @pytest.fixture
    async def hasty(self, kafka, prefix):
        async with ready(kafka.address, prefix, view_limits=ViewLimits(longest=0.0)) as made:
            yield made


class TestRecords:
    async def test_an_event_is_a_cloud_event_byte_for_byte(self, kafka, prefix):
        balance = balance_in(1)
        async with ready(kafka.address, prefix) as made, opened(made, 1) as writer:
            await writer.commit(Batch([balance.row(5)]))
            row = balance.row("7")
            await writer.commit(Batch([row]))
            async with reading(made) as reader:
                epoch = (await reader.bounds()).head.epoch
        (message,) = seen(kafka.address, f"{prefix}balances.changed.v1")
        assert message.partition() == 1
        assert message.key() == str(balance.key).encode()
        assert message.headers() == [
            ("ce_specversion", b"1.0"),
            ("ce_type", b"balance.changed.v1"),
            ("ce_source", f"/balance-watcher/{epoch}/{balance.key.provider}".encode()),
            ("ce_id", event_id(EPOCH, balance.key, 1).encode()),
            ("ce_time", b"2023-11-14T22:13:20.000001Z"),
            ("ce_subject", str(balance.key).encode()),
            ("ce_balanceversion", b"1"),
            ("content-type", b"application/json"),
        ]
        assert json.loads(message.value())["delta"] == "2"
        states = seen(kafka.address, f"{prefix}balances.state.v1")
        assert [json.loads(m.value())["version"] for m in states] == [0, 1]
        assert {tuple(m.headers()) for m in states} == {(("content-type", b"application/json"),)}
        assert not {"id", "delta", "previous_amount"} & json.loads(states[1].value()).keys()

    async def test_msgpack_is_transcoded_once_for_readers_and_restored_as_it_was(self, kafka, prefix):
        balance = balance_in(0)
        async with ready(kafka.address, prefix, encoding="msgpack") as made:
            async with opened(made, 0) as writer:
                await writer.commit(Batch([balance.row(1)]))
                row = balance.row(2)
                await writer.commit(Batch([row]))
                assert (await writer.open()).states == [row.state]
            async with reading(made) as reader:
                oldest = (await reader.bounds()).oldest
                (event,) = [e for commit in await until_head(reader, oldest) for e in commit.events]
                assert (await snapshot(reader, Filter()))[1] == [row.state]
        assert json.loads(event.data)["id"] == row.event.id
        (message,) = seen(kafka.address, f"{prefix}balances.changed.v1")
        assert dict(message.headers())["content-type"] == b"application/msgpack"
        assert MSGPACK.event(message.value()) == row.event


class TestWriters:
    async def test_what_is_committed_is_restored_and_marks_are_not_notes(self, kafka, prefix):
        one, two = balance_in(0), balance_in(0, "b")
        async with ready(kafka.address, prefix) as made, opened(made, 0) as writer:
            await writer.commit(Batch([one.row(1), two.row(1)], {"listing:jupiter:00": b"\x00raw", "limiter:x": b"{}"}))
            await writer.commit(Batch([one.row(2)], {"limiter:x": b"2"}))
            restored = await writer.open()
        assert sorted(state.version for state in restored.states) == [0, 1]
        assert restored.notes == {"listing:jupiter:00": b"\x00raw", "limiter:x": b"2"}

    async def test_an_empty_batch_begins_no_transaction(self, kafka, prefix):
        async with ready(kafka.address, prefix) as made, opened(made, 0) as writer:
            await writer.commit(Batch([]))
            assert not writer._producer._txn_manager.is_in_transaction()

    async def test_a_writer_that_is_not_open_says_so(self, kafka, prefix):
        async with ready(kafka.address, prefix) as made:
            with pytest.raises(Unavailable, match="is not open"):
                await made.writer(0).commit(Batch([balance_in(0).row(1)]))

    async def test_a_thousand_rows_are_one_commit(self, kafka, prefix):
        balances = [balance_in(0, f"-{n}-") for n in range(1000)]
        async with ready(kafka.address, prefix) as made, opened(made, 0) as writer:
            await writer.commit(Batch([balance.row(1) for balance in balances]))
            await writer.commit(Batch([balance.row(2) for balance in balances]))
            assert len((await writer.open()).states) == 1000
        assert set(map(tuple, versions(seen(kafka.address, f"{prefix}balances.changed.v1")).values())) == {(1,)}

    async def test_the_older_of_two_writers_is_fenced_and_leaves_nothing(self, kafka, prefix):
        balance = balance_in(0)
        async with ready(kafka.address, prefix) as made:
            twin = journal(kafka.address, prefix)
            async with opened(made, 0) as old:
                await old.commit(Batch([balance.row(1)]))
                async with opened(twin, 0) as new:
                    await ended(new)  # its claim
                    with pytest.raises(Fenced, match="another instance"):
                        await old.commit(Batch([Balance(balance.key.account).row(9)], {"late": b"1"}))
                    await new.commit(Batch([balance.row(2)]))
                    assert "late" not in (await new.open()).notes
            await twin.close()
        assert versions(seen(kafka.address, f"{prefix}balances.changed.v1")) == {str(balance.key): [1]}

    async def test_a_zombie_in_the_middle_of_a_transaction_leaves_nothing(self, kafka, prefix):
        balance = balance_in(0)
        async with ready(kafka.address, prefix) as made:
            twin = journal(kafka.address, prefix)
            async with opened(made, 0) as old:
                await old.commit(Batch([balance.row(1)]))
                frozen, thawed = anyio.Event(), anyio.Event()

                async def freeze_before_the_commit(sent):
                    await asyncio.gather(*sent)
                    frozen.set()
                    await thawed.wait()

                old._require_delivery = freeze_before_the_commit
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(expect_fenced, old, Batch([balance.row(2)]))
                    await frozen.wait()
                    async with opened(twin, 0) as new:
                        await ended(new)  # its claim
                        thawed.set()
                        (state,) = (await new.open()).states
                        assert state.version == 0
            await twin.close()
        assert seen(kafka.address, f"{prefix}balances.changed.v1") == []

    @pytest.mark.parametrize("seed", range(4))
    async def test_of_two_instances_exactly_one_stays(self, kafka, prefix, seed):
        chance = random.Random(seed)
        async with ready(kafka.address, prefix) as first:
            journals = [first, journal(kafka.address, prefix)]
            fenced, commits = [], Counter()
            async with anyio.create_task_group() as tasks:
                for made in journals:
                    tasks.start_soon(instance, made, chance, fenced, commits)
                with anyio.fail_after(120):
                    while not fenced:  # noqa: ASYNC110 (two processes in one)
                        await anyio.sleep(0.01)
                    commits.clear()
                    while len(commits) < made.partitions or min(commits.values()) < 3:  # noqa: ASYNC110
                        await anyio.sleep(0.01)  # the other one has every partition, and keeps it
                tasks.cancel_scope.cancel()
            await journals[1].close()
        assert len(fenced) == 1

    async def test_a_transaction_timed_out_by_the_coordinator_only_opens_again(self, kafka, prefix):
        balance = balance_in(0)
        async with ready(kafka.address, prefix) as made, opened(made, 0) as writer:
            await writer.commit(Batch([balance.row(1)]))
            with hurrying(made, transaction=1.0):
                await restored(writer, 0)

            async def dawdle(sent):
                await asyncio.gather(*sent)
                await ended(writer)

            writer._require_delivery = dawdle
            with pytest.raises(Unavailable):
                await writer.commit(Batch([balance.row(2)]))
            del writer._require_delivery
            (state,) = (await writer.open()).states
            assert state.version == 0
            await writer.commit(
                Batch([CommitRow(balance.state, changed(EPOCH, balance.state, "1", state.observed_at))])
            )
        assert versions(seen(kafka.address, f"{prefix}balances.changed.v1")) == {str(balance.key): [1]}

    async def test_a_lost_answer_costs_the_producer_before_the_next_transaction(self, kafka, prefix):
        balance = balance_in(0)
        async with ready(kafka.address, prefix) as made, opened(made, 0) as writer:
            await writer.commit(Batch([balance.row(1)]))
            lose_one_answer(writer._producer, "EndTxnRequest")
            await writer.commit(Batch([balance.row(2)]))
            with pytest.raises(Unavailable, match="a new producer is needed"):
                await writer.commit(Batch([balance.row(3)]))
            (state,) = (await writer.open()).states
            assert state.version == 1

    async def test_a_commit_cancelled_at_any_wait_is_all_or_nothing(self, kafka, prefix):
        """At the n-th wait, for all n until it gets through; then at some moments between two waits."""
        async with ready(kafka.address, prefix) as made, opened(made, 0) as writer:
            trial = Trial(writer)
            steps = itertools.takewhile(lambda step: not step or trial.cancelled, itertools.count())
            for step in steps:
                await trial.commit(lambda work, scope, step=step: interrupted(work, step + 1, scope))
            assert step >= 3
            for delay in (0.001, 0.002, 0.003, 0.004, 0.006, 0.009, 60.0):  # the last one gets through
                await trial.commit(lambda work, scope, delay=delay: expiring(work, delay, scope))
        (told,) = versions(seen(kafka.address, f"{prefix}balances.changed.v1")).values()
        assert told == list(range(1, len(told) + 1))


class Trial:
    """Commits that are interrupted, each followed by a look at what became of it."""

    def __init__(self, writer):
        self.writer = writer
        self.balance = balance_in(0)
        self.number = 0
        self.cancelled = False

    async def commit(self, run):
        self.number += 1
        number, before = b"%d" % self.number, self.balance.state
        work = self.writer.commit(Batch([self.balance.row(self.number)], {"number": number}))
        with anyio.CancelScope() as scope:
            await run(work, scope)
        self.cancelled = scope.cancelled_caught
        restored = await self.writer.open()
        self.balance.state = next(iter(restored.states), None)
        happened = self.balance.state != before
        assert (restored.notes.get("number") == number) == happened
        assert happened or self.cancelled


async def expiring(work, delay, scope):
    scope.deadline = anyio.current_time() + delay
    await work


@types.coroutine
def interrupted(work, at, scope):
    """Drive a coroutine as its task does, and cancel the scope when it waits for the `at`-th time."""
    thrown = None
    for wait in itertools.count(1):
        try:
            waiting = work.throw(thrown) if thrown else work.send(None)
        except StopIteration:
            return
        if wait == at:
            scope.cancel()
        try:
            thrown = None
            yield waiting
        except BaseException as error:  # noqa: BLE001 (it is the work's to handle)
            thrown = error


async def expect_fenced(writer, batch):
    with pytest.raises(Fenced):
        await writer.commit(batch)


async def instance(made, chance, fenced, commits):
    """All partitions of one instance, committing for ever; the first that is fenced ends it, as the daemon would."""
    try:
        async with anyio.create_task_group() as tasks:
            for partition in range(made.partitions):
                tasks.start_soon(serve, made.writer(partition), chance, commits)
    except* Fenced:
        fenced.append(made)


async def serve(writer, chance, commits):
    try:
        while True:
            await anyio.sleep(chance.random() * 0.05)
            with contextlib.suppress(Unavailable):
                await writer.open()
                while True:
                    await writer.commit(Batch([], {"alive": b"1"}))
                    commits[writer.partition] += 1
                    await anyio.sleep(chance.random() * 0.05)
    finally:
        with anyio.CancelScope(shield=True):
            await writer.close()


def lose_one_answer(producer, request_name):
    """The request arrives and is carried out; its answer never comes back, and the client sends it again."""
    from aiokafka.errors import RequestTimedOutError

    ask, lost = producer._send_unobserved, []

    async def ask_and_lose(node, request, **where):
        answer = await ask(node, request, **where)
        if type(request).__name__ == request_name and not lost:
            lost.append(request)
            raise RequestTimedOutError
        return answer

    producer._send_unobserved = ask_and_lose


class TestFleets:
    async def test_who_is_fenced_by_a_member_of_its_fleet_has_lost_the_partition_and_fences_nobody_in_turn(
        self, kafka, prefix
    ):
        async with (
            ready(kafka.address, prefix, group="fleet") as one,
            ready(kafka.address, prefix, group="fleet") as other,
            opened(one, 0) as old,
            opened(other, 0) as new,
        ):
            with pytest.raises(Lost):
                await old.commit(Batch([], {"limiter:bank": b"of the old one"}))
            with pytest.raises(Lost):
                await old.open()
            await new.commit(Batch([], {"limiter:bank": b"of the new one"}))
            async with opened(one, 0) as again:  # it is given the partition once more
                await again.release()
                with pytest.raises(Lost):
                    await new.commit(Batch([], {"limiter:bank": b"of the new one"}))
            writer = other.writer(0)
            restored = await writer.open()
            assert restored.released
            assert restored.notes == {"limiter:bank": b"of the new one"}
            await writer.close()

    async def test_who_is_fenced_while_it_opens_what_it_was_given_opens_again(self, kafka, prefix):
        async with (
            ready(kafka.address, prefix, group="fleet") as one,
            ready(kafka.address, prefix, group="fleet") as other,
            opened(one, 0) as healed,
        ):
            new = other.writer(0)
            claim, transact = new._claim, new._transact

            async def fenced_meanwhile(records):
                new._transact = transact
                await healed.open()  # it has been cut off, and has not looked yet
                await transact(records)

            new._transact = fenced_meanwhile
            with pytest.raises(Unavailable):
                await new.open()
            await new.open()
            assert claim.record.generation > one._claim.record.generation
            with pytest.raises(Lost):
                await healed.commit(Batch([], {"limiter:bank": b"stamps"}))
            await new.close()

    @pytest.mark.parametrize(("first", "second"), [("", "fleet"), ("fleet", "")])
    async def test_of_a_fleet_and_an_instance_of_its_own_the_later_goes_on(self, kafka, prefix, first, second):
        async with ready(kafka.address, prefix, group=first) as one, ready(kafka.address, prefix, group=first) as idle:
            for made in (one, idle):
                await made.check()
            async with opened(one, 0) as old, ready(kafka.address, prefix, group=second) as other:
                await other.check()
                async with opened(other, 0) as new:
                    with pytest.raises(Fenced):
                        await old.commit(Batch([], {"limiter:bank": b"stamps"}))
                    with pytest.raises(
                        Fenced
                    ):  # it had not opened the partition, and began before the other claimed it
                        await idle.writer(0).open()
                    await new.commit(Batch([], {"limiter:bank": b"stamps"}))
