"""Brokers that are killed and frozen under a writer, under a reader, and under everything that stands before them."""

import contextlib
import gc
import json
import tracemalloc

import anyio
import pytest
from aiokafka import TopicPartition
from structlog.testing import capture_logs

from tests.journal.hint_world import HINT, Receiver, receiving, sent_until_received
from tests.journal.kafka_world import (
    PARTITIONS,
    START,
    balance_in,
    ended,
    frozen,
    hurried,
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
from watcher.ingest import committer as committer_module
from watcher.ingest.committer import Committer
from watcher.journal import Batch
from watcher.journal.kafka.offsets import assign_at, poll
from watcher.ledger import Ledger
from watcher.model.keys import Filter
from watcher.model.log import Unavailable
from watcher.model.readings import Answer, Reading, Times
from watcher.testing.journal_samples import snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]


@pytest.fixture
def anyio_backend():
    return "asyncio"


class TestHurtBrokers:
    async def test_a_killed_broker_loses_nothing_and_tells_nothing_twice(self, own_broker, prefix):
        """A commit that was acknowledged an instant before may be undone: the broker was killed before it wrote the ends,
        so that nobody has seen it, and forgot them when it came back (see dangling_transactions.py). It says so, and is told anew.
        """
        balance = balance_in(0)
        confirmed = 0
        async with ready(own_broker.address, prefix) as made, reading(made) as reader:
            writer = made.writer(0)
            await writer.open()
            await writer.commit(Batch([balance.row(0)]))
            oldest = (await reader.bounds()).oldest

            async def hurt():
                await anyio.sleep(0.3)
                own_broker.kill()
                await anyio.to_thread.run_sync(own_broker.start)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hurt)
                with anyio.fail_after(240), hurrying(made, commit=3.0):
                    failures = 0
                    while not failures or confirmed < balance.state.version:
                        before = balance.state
                        try:
                            await writer.commit(Batch([balance.row(balance.state.version + 1)]))
                            confirmed = balance.state.version
                        except Unavailable:
                            failures += 1
                            with capture_logs() as logs:
                                balance.state = await restored(writer, max(0, before.version - 1))
                            if balance.state.version < before.version:
                                assert "aborted" in [told.get("ended") for told in logs]
                                confirmed = balance.state.version - 1  # so it goes on
            bounds = await reader.bounds()
            got = [e.version for commit in await until_head(reader, oldest) for e in commit.events]
            await writer.close()
        assert bounds.head.reaches(oldest)
        assert got == list(range(1, confirmed + 1))
        assert versions(seen(own_broker.address, f"{prefix}balances.changed.v1")) == {str(balance.key): got}

    async def test_a_frozen_broker_holds_nobody_beyond_the_deadlines(self, own_broker, prefix):
        balance = balance_in(0)
        impatient = journal(own_broker.address, prefix, deadlines=hurried(reach=1.0))
        async with contextlib.AsyncExitStack() as stack:
            made = await stack.enter_async_context(ready(own_broker.address, prefix))
            writer = await stack.enter_async_context(opened(made, 0))
            await stack.enter_async_context(opened(made, 1))
            await stack.enter_async_context(reading(made))
            waiting = await stack.enter_async_context(made._cluster.reading(made._topics))
            await writer.commit(Batch([balance.row(0)]))
            assign_at(waiting, {TopicPartition(f"{prefix}balances.changed.v1", 0): 0})
            await poll(waiting, made._cluster)  # its fetch gets no answer any more
            with hurrying(impatient, start=1.0), hurrying(made, commit=1.0, start=1.0), frozen(own_broker):
                with anyio.fail_after(60):
                    with pytest.raises(Unavailable, match="committing to partition 0"):
                        await writer.commit(Batch([balance.row(1)]))
                    with pytest.raises(Unavailable, match="starting a consumer"):
                        await writer.open()
                    with pytest.raises(Unavailable, match="no Kafka broker reached"):
                        await impatient.check()
                    await made.heartbeat([])
                    await stack.aclose()
        async with ready(own_broker.address, prefix) as again, opened(again, 0) as writer:
            assert (await restored(writer, 0)).version in (0, 1)


class TestHints:
    async def test_whoever_sends_and_receives_hints_goes_on_when_the_broker_is_back(self, own_broker, prefix):
        """Here a sender has its answer in time, a hint or none, and at once while failures follow one another."""
        impatient = hurried(hints=1.0, start=2.0, request=2.0)
        async with ready(own_broker.address, prefix, deadlines=impatient) as made, receiving(made) as (receiver,):
            exchange = made.hint_exchange()
            own_broker.kill()
            refusals = []
            with anyio.fail_after(60):
                while not any("a moment ago" in refusal for refusal in refusals):
                    with pytest.raises(Unavailable) as refused:
                        await exchange.send([HINT])
                    refusals.append(str(refused.value))
            await anyio.sleep(1.0)
            await anyio.to_thread.run_sync(own_broker.start)
            receiver.turns.clear()
            await sent_until_received(exchange, receiver)
            await exchange.close()

    async def test_a_frozen_broker_holds_no_sender_beyond_the_deadline_and_no_end(self, own_broker, prefix):
        async with ready(own_broker.address, prefix, deadlines=hurried(hints=1.0)) as made:
            exchange, receiver = made.hint_exchange(), Receiver()
            with contextlib.ExitStack() as stack, anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(receiver.run, exchange)
                    while not receiver.turns:
                        await sent(exchange, HINT)
                    stack.enter_context(frozen(own_broker))
                    with pytest.raises(Unavailable, match="did not answer within 1 s"):
                        await sent_for_ever(exchange, HINT)
                    tasks.cancel_scope.cancel()
                await exchange.close()


async def sent(exchange, hint):
    with anyio.fail_after(60):
        while True:
            with contextlib.suppress(Unavailable):
                await exchange.send([hint])
                return
            await anyio.sleep(0.1)


async def sent_for_ever(exchange, hint):
    """A thread of a broker that is being frozen may finish yet what it has begun."""
    while True:
        await exchange.send([hint])


class TestForgottenTransactions:
    @pytest.mark.parametrize(
        ("hanging", "versions_told"),
        [
            (("changed", "state", "internal"), []),
            (("changed", "state"), [1]),
            (("changed",), [1]),
            (("state",), [1]),
            (("internal",), [1]),
            (("state", "internal"), [1]),
        ],
        ids=lambda case: " and ".join(case) if isinstance(case, tuple) else f"told {len(case)}",
    )
    async def test_a_transaction_whose_end_was_never_written_ends_everywhere_alike(
        self, own_broker, prefix, hanging, versions_told
    ):
        """As a broker leaves it that is killed and comes back before it knows its partitions. Where it hangs everywhere nobody has
        seen anything."""
        balance, soon = balance_in(0), hurried(forgotten=0.5)
        async with ready(own_broker.address, prefix, deadlines=soon) as made, opened(made, 0) as writer:
            await writer.commit(Batch([balance.row(1)]))
            before = balance.state
            await forget(writer, [TopicPartition(f"{prefix}balances.{name}.v1", 0) for name in hanging])
            await writer.commit(Batch([balance.row(2)], {"n": b"1"}))
            restored = await writer.open()
            assert restored.states == [balance.state if versions_told else before]
            assert restored.notes == ({"n": b"1"} if versions_told else {})
            balance.state = restored.states[0]
            await writer.commit(Batch([balance.row(3)]))
        told = versions(seen(own_broker.address, f"{prefix}balances.changed.v1"))
        assert told == {str(balance.key): [*versions_told, len(versions_told) + 1]}

    @pytest.mark.parametrize("hanging", ["changed", "state"])
    async def test_a_reader_that_starts_beside_one_sees_each_row_where_its_cursor_stands(
        self, own_broker, prefix, hanging
    ):
        balance, other, soon = balance_in(0), balance_in(1), hurried(forgotten=0.5)
        async with (
            ready(own_broker.address, prefix, deadlines=soon) as made,
            opened(made, 0) as writer,
            opened(made, 1) as beside,
        ):
            await writer.commit(Batch([balance.row(1)]))
            await writer.commit(Batch([balance.row(2)]))
            await beside.commit(Batch([other.row(1)]))
            await forget(writer, [TopicPartition(f"{prefix}balances.{hanging}.v1", 0)])
            await writer.commit(Batch([balance.row(3)]))
            whole = "state" if hanging == "changed" else "changed"
            await ended(writer, TopicPartition(f"{prefix}balances.{whole}.v1", 0))
            await ended(beside)
            async with contextlib.AsyncExitStack() as stack:
                with hurrying(made, load=0.5, fresh=0.5):
                    reader = await stack.enter_async_context(reading(made))
                    cursor, rows = await snapshot(reader, Filter())
                held = {row.key: (row.version, row.amount) for row in rows}
                told = (1, "2") if hanging == "changed" else (2, "3")
                assert held == {balance.key: told, other.key: (0, "1")}
                await writer.open()
                await writer.commit(Batch([balance.row(4)]))
                commits = await until_head(reader, cursor)
                assert [event.version for commit in commits for event in commit.events] == [2, 3][told[0] - 1 :]
                _, rows = await snapshot(reader, Filter())
                assert {row.amount for row in rows} == {"4", "1"}

    async def test_a_baseline_that_hangs_alone_is_aborted(self, own_broker, prefix):
        async with (
            ready(own_broker.address, prefix, deadlines=hurried(forgotten=0.5)) as made,
            opened(made, 0) as writer,
        ):
            await forget(writer, [TopicPartition(f"{prefix}balances.state.v1", 0)])
            await writer.commit(Batch([balance_in(0).row(1)]))
            assert (await writer.open()).states == []


async def forget(writer, partitions):
    """The client takes those partitions for a part of its next transaction, and the coordinator knows nothing of it."""
    await ended(writer)  # the end of the one before would end this one
    transactions = writer._producer._txn_manager
    begin = transactions.begin_transaction

    def begin_and_forget():
        begin()
        transactions._txn_partitions.update(partitions)

    transactions.begin_transaction = begin_and_forget


BOUND = 10
KEYS = [[balance_in(partition, f"pressed{number}x").key for number in range(20)] for partition in range(PARTITIONS)]
"""By partition."""


class Feed:
    """A poller that never rests: every answer names every balance of a partition, and each has changed."""

    def __init__(self, committer, keys):
        self.committer = committer
        self.keys = keys
        self.told = 0
        self.resting = False

    async def run(self):
        while not self.resting:
            await self.committer.accept(self.answer())
            self.told += 1
            await anyio.sleep(0.005)

    def answer(self):
        now, number = anyio.current_time(), self.told + 1
        readings = [Reading(key, str(number), "base", order=number) for key in self.keys]
        return Answer(self.keys[0].provider, readings, "strict", 0.0, Times(now, now, START + number))


class TestBackPressure:
    async def test_a_broker_that_stops_makes_pollers_wait_and_everything_goes_on_after_it(
        self, own_broker, prefix, monkeypatch
    ):
        monkeypatch.setattr(committer_module, "DEADLINE", 1.0)
        async with ready(own_broker.address, prefix) as made, contextlib.AsyncExitStack() as stack:
            stack.enter_context(hurrying(made, start=2.0, request=2.0))
            committers = [Committer(made.writer(p), Ledger(), gather=0.01, bound=BOUND) for p in range(PARTITIONS)]
            feeds = [Feed(committer, keys) for committer, keys in zip(committers, KEYS, strict=True)]
            async with anyio.create_task_group() as tasks:
                for committer in committers:
                    await tasks.start(committer.run)
                with anyio.fail_after(240):
                    async with anyio.create_task_group() as pollers:
                        for feed in feeds:
                            pollers.start_soon(feed.run)
                        await further(feeds, 10)
                        with frozen(own_broker):
                            await held_back(feeds, committers)
                        await further(feeds, 10)
                        own_broker.kill()
                        await held_back(feeds, committers)
                        await anyio.to_thread.run_sync(own_broker.start)
                        await further(feeds, 10)
                        for feed in feeds:
                            feed.resting = True
                    for committer in committers:
                        await committer.flush()
                tasks.cancel_scope.cancel()
        events = seen(own_broker.address, f"{prefix}balances.changed.v1")
        assert {key: told == list(range(1, len(told) + 1)) for key, told in versions(events).items()} == {
            str(key): True for keys in KEYS for key in keys
        }
        last = {event.key().decode(): json.loads(event.value())["amount"] for event in events}
        assert last == {str(key): str(feed.told) for feed in feeds for key in feed.keys}


async def further(feeds, answers):
    """Until each feed has got rid of that many more."""
    goals = [feed.told + answers for feed in feeds]
    while any(feed.told < goal for feed, goal in zip(feeds, goals, strict=True)):  # noqa: ASYNC110 (an outside eye)
        await anyio.sleep(0.01)


async def held_back(feeds, committers):
    """Until every partition has failed twice more; meanwhile the feeds stand still, and so does memory."""
    failures = [committer.failures + 2 for committer in committers]
    while not all(committer.failures for committer in committers) or any(committer._open for committer in committers):  # noqa: ASYNC110
        await anyio.sleep(0.01)
    told = [feed.told for feed in feeds]
    gc.collect()
    tracemalloc.start()
    try:
        while any(committer.failures < goal for committer, goal in zip(committers, failures, strict=True)):  # noqa: ASYNC110
            await anyio.sleep(0.01)
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(feed.told <= before + 1 for feed, before in zip(feeds, told, strict=True))
    assert all(
        committer.ledger.pending <= BOUND + len(feed.keys) for committer, feed in zip(committers, feeds, strict=True)
    )
    # Answers that are not held back come to 2 MB a second, three clients that are about to connect to 2 MB at most.
    assert grown < 4_000_000
