"""The past as the Kafka journal tells it, on a real broker."""

import anyio
import msgspec
import pytest
from confluent_kafka import TopicPartition

from tests.journal.conformed import OnKafka
from tests.journal.kafka_world import administering, balance_in, done, opened, reading, ready
from watcher.app.daemon import wall
from watcher.journal import Batch
from watcher.journal.kafka import past_reading
from watcher.model.events import BalanceState, CommitRow, changed
from watcher.model.keys import Filter
from watcher.model.times import format_rfc3339
from watcher.testing.journal_samples import snapshot
from watcher.testing.past_conformance import PastConformance

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]


@pytest.fixture
def anyio_backend():
    return "asyncio"


class TestConformance(OnKafka, PastConformance):
    pass


def observed(balance, amount, at):
    """The next row of the balance, observed at wall-clock microseconds `at`."""
    before = balance.state
    row = balance.row(amount)
    state = BalanceState(
        **{name: getattr(row.state, name) for name in row.state.__struct_fields__} | {"observed_at": format_rfc3339(at)}
    )
    balance.state = state
    return CommitRow(state, None if row.event is None else changed("e0", state, before.amount, before.observed_at))


async def everything(reader, first=0):
    found = [part async for part in reader.between(Filter(), first, wall(), (await reader.bounds()).head)]
    return [event.version for part in found for event in part.events], found


async def commit_now(writer, balance, amount):
    """A change that is observed and committed now, when the clock shows another millisecond than before."""
    await anyio.sleep(0.05)
    at = wall()
    await writer.commit(Batch([observed(balance, amount, at)]))
    return at


class TestTimes:
    async def test_a_scan_begins_where_the_index_of_times_says(self, kafka, prefix, monkeypatch):
        monkeypatch.setattr(past_reading, "SET_BACK", 0)
        balance = balance_in(1)
        async with ready(kafka.address, prefix) as made, opened(made, 1) as writer, reading(made) as reader:
            times = [await commit_now(writer, balance, number) for number in range(20)]
            versions, found = await everything(reader, times[15])
            assert versions == [15, 16, 17, 18, 19]
            assert found[-1].done == found[-1].of
            assert 5 <= found[-1].of <= 12  # with the ends of transactions
            versions, found = await everything(reader, times[19] + 1_000_000)
            assert (versions, found) == ([], [])

    async def test_what_is_kept_begins_behind_what_was_deleted(self, kafka, prefix):
        balance, other = balance_in(1), balance_in(2)
        async with (
            ready(kafka.address, prefix) as made,
            opened(made, 1) as writer,
            opened(made, 2) as another,
            reading(made) as reader,
        ):
            await commit_now(another, other, 0)
            await commit_now(another, other, 1)
            times = [await commit_now(writer, balance, number) for number in range(6)]
            assert await reader.kept_from() == 0
            (third,) = [
                event
                async for part in reader.between(Filter(), times[3], times[3], (await reader.bounds()).head)
                for event in part.events
            ]
            topic = f"{prefix}balances.changed.v1"
            with administering(kafka.address) as admin:
                done(admin.delete_records([TopicPartition(topic, 1, third.position)]))
                assert times[2] < await reader.kept_from() <= times[4]
                assert sorted((await everything(reader))[0]) == [1, 3, 4, 5]  # of two partitions, in any order
                done(admin.delete_records([TopicPartition(topic, 1, -1)]))
            assert await reader.kept_from() == times[5] + 1
            assert (await everything(reader))[0] == [1]

    async def test_no_more_scans_at_once_than_there_may_be_and_none_leaves_a_consumer_open(
        self, kafka, prefix, connections
    ):
        balance = balance_in(0)
        async with ready(kafka.address, prefix) as made, opened(made, 0) as writer, reading(made) as reader:
            for number in range(4):
                await commit_now(writer, balance, number)
            await reader.kept_from()
            before = sum(connection.connected() for connection in connections)
            head = (await reader.bounds()).head
            scans = [reader.between(Filter(), 0, wall(), head) for _ in range(past_reading.MAX_SCANS)]
            parts = [await anext(scan) for scan in scans]
            assert all(part.of >= 3 for part in parts)
            waiting = reader.between(Filter(), 0, wall(), head)
            with anyio.move_on_after(0.5) as scope:
                await anext(waiting)
            assert scope.cancelled_caught
            for scan in scans:
                await scan.aclose()
            assert (await everything(reader))[0] == [1, 2, 3]
            assert sum(connection.connected() for connection in connections) == before


async def test_a_reader_that_is_opened_anew_knows_since_when_each_balance_is_known(kafka, prefix):
    """One that was there all the while and one that finds the state alone, whatever of the events is left."""
    old, appeared, young = balance_in(1, "old"), balance_in(1, "appeared"), balance_in(1, "young")
    async with ready(kafka.address, prefix) as made, opened(made, 1) as writer:
        async with reading(made) as there:
            await there.bounds()
            first = old.row(1)
            await writer.commit(Batch([first, young.row(1)]))
            since = {"old": first.state.observed_at, "appeared": format_rfc3339(wall() - 5_000_000)}
            appeared.row(0)
            for amount in (2, 3):
                rows = [old.row(amount), appeared.row(amount)]
                states = [
                    msgspec.structs.replace(row.state, first_observed_at=since[name])
                    for row, name in zip(rows, since, strict=True)
                ]
                await writer.commit(
                    Batch([CommitRow(state, row.event) for state, row in zip(states, rows, strict=True)])
                )
            expected = {
                (balance.key.account, since.get(name)) for balance, name in ((old, "old"), (appeared, "appeared"))
            }
            expected.add((young.key.account, young.state.observed_at))

            async def known(reader):
                _, states = await snapshot(reader, Filter())
                return {(state.account, state.known_since) for state in states}

            assert await known(there) == expected
        topic = f"{prefix}balances.changed.v1"
        with administering(kafka.address) as admin:
            done(admin.delete_records([TopicPartition(topic, 1, -1)]))
        async with reading(made) as anew:
            assert await known(anew) == expected
