"""Transactions with crossings or closings whose ends were never written where they hang, as in test_kafka_outages.py."""

import pytest
from aiokafka import TopicPartition

from tests.journal.kafka_world import balance_in, ended, hurried, opened, reading, ready, seen, until_head
from tests.journal.test_kafka_outages import forget
from watcher.journal import Batch
from watcher.model.keys import Filter
from watcher.testing.closing_conformance import DAYS, closing
from watcher.testing.journal_samples import crossing, snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]


@pytest.fixture
def anyio_backend():
    return "asyncio"


class TestForgottenTransactions:
    EVERYWHERE = ("changed", "state", "internal", "crossed")

    @pytest.mark.parametrize(
        "hanging",
        [EVERYWHERE, ("crossed",), ("changed", "state"), ("crossed", "internal"), ("changed", "state", "internal")],
        ids=" and ".join,
    )
    async def test_one_with_a_change_and_its_crossing_ends_everywhere_alike(self, own_broker, prefix, hanging):
        balance, soon = balance_in(0), hurried(forgotten=0.5)
        async with ready(own_broker.address, prefix, deadlines=soon) as made, opened(made, 0) as writer:
            await writer.commit(Batch([balance.row(1)]))
            before = balance.state
            await forget(writer, [TopicPartition(f"{prefix}balances.{name}.v1", 0) for name in hanging])
            row = balance.row(2)
            await writer.commit(Batch([row], {"alert:1": b"1"}, [crossing(row)]))
            restored = await writer.open()
            whole = hanging != self.EVERYWHERE
            assert restored.states == [row.state if whole else before]
            assert restored.notes == ({"alert:1": b"1"} if whole else {})
        told = [seen(own_broker.address, f"{prefix}balances.{topic}.v1") for topic in ("changed", "crossed")]
        assert [len(messages) for messages in told] == [int(whole)] * 2

    @pytest.mark.parametrize("hanging", [("internal", "crossed"), ("crossed",), ("internal",)], ids=" and ".join)
    async def test_one_with_a_crossing_alone_is_not_taken_for_the_change_of_before(self, own_broker, prefix, hanging):
        balance, soon = balance_in(0), hurried(forgotten=0.5)
        async with ready(own_broker.address, prefix, deadlines=soon) as made, opened(made, 0) as writer:
            await writer.commit(Batch([balance.row(1)]))
            row = balance.row(2)
            await writer.commit(Batch([row]))
            await forget(writer, [TopicPartition(f"{prefix}balances.{name}.v1", 0) for name in hanging])
            await writer.commit(Batch([], {"alert:1": b"1"}, [crossing(row)]))
            restored = await writer.open()
            whole = len(hanging) == 1
            assert restored.notes == ({"alert:1": b"1"} if whole else {})
        assert len(seen(own_broker.address, f"{prefix}balances.crossed.v1")) == int(whole)

    @pytest.mark.parametrize("again", [False, True], ids=["once", "closed anew"])
    @pytest.mark.parametrize("hanging", [("closing", "internal"), ("closing",), ("internal",)], ids=" and ".join)
    async def test_one_with_closings_and_their_note_ends_everywhere_alike(self, own_broker, prefix, hanging, again):
        """By the note, which names one of them; a day may have been begun before."""
        balance, soon = balance_in(0), hurried(forgotten=0.5)
        async with ready(own_broker.address, prefix, deadlines=soon) as made, opened(made, 0) as writer:
            await writer.commit(Batch([row := balance.row(1)]))
            name, before = f"closed:{row.state.provider}", {}
            if again:
                before = {name: b"begun"}
                await writer.commit(Batch([], before, closings=[closing(row, DAYS[0])]))
            await forget(writer, [TopicPartition(f"{prefix}balances.{topic}.v1", 0) for topic in hanging])
            await writer.commit(Batch([], {name: b"closed"}, closings=[closing(row, DAYS[0])]))
            restored = await writer.open()
            whole = len(hanging) == 1
            assert restored.notes == ({name: b"closed"} if whole else before)
        assert len(seen(own_broker.address, f"{prefix}balances.closing.v1")) == int(whole) + again

    async def test_a_reader_that_starts_beside_one_sees_it_when_it_has_ended(self, own_broker, prefix):
        balance, soon = balance_in(0), hurried(forgotten=0.5)
        async with ready(own_broker.address, prefix, deadlines=soon) as made, opened(made, 0) as writer:
            await writer.commit(Batch([balance.row(1)]))
            row = balance.row(2)
            await forget(writer, [TopicPartition(f"{prefix}balances.crossed.v1", 0)])
            await writer.commit(Batch([row], {"alert:1": b"1"}, [crossing(row)]))
            await ended(writer, TopicPartition(f"{prefix}balances.changed.v1", 0))
            made._cluster.deadlines = hurried(load=0.5, fresh=0.5, forgotten=0.5)
            async with reading(made) as reader:
                cursor, states = await snapshot(reader, Filter())
                assert [state.version for state in states] == [1]
                await writer.open()
                made._cluster.deadlines = hurried()
                found = [event for commit in await until_head(reader, cursor) for event in commit.events]
                assert [(event.type, event.version) for event in found] == [("crossed", 1)]
