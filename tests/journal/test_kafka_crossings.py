"""Crossings on a real broker: their topic is a part of the log, of its transactions and of its cursors."""

import asyncio
import contextlib
import json

import anyio
import msgspec
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewTopic

from tests.journal.kafka_world import (
    PARTITIONS,
    administering,
    balance_in,
    delete,
    done,
    journal,
    opened,
    reading,
    ready,
    seen,
    until_head,
)
from tests.journal.test_kafka_topics import init_until_it_works, tried
from watcher.journal import Batch, WrongJournal
from watcher.journal.kafka import commit_window
from watcher.journal.kafka.records import TopicNames
from watcher.model.events import JSON, MSGPACK
from watcher.model.log import Expired, Unavailable
from watcher.testing.journal_samples import crossing

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

CHANGED = [("changed", version) for version in range(1, 9)]


@pytest.fixture
def anyio_backend():
    return "asyncio"


def followed(commits):
    return [event for commit in commits for event in commit.events]


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=lambda codec: codec.encoding)
async def test_a_crossing_is_a_cloud_event_with_key_and_partition_of_its_change(kafka, prefix, codec):
    balance = balance_in(1)
    async with ready(kafka.address, prefix, encoding=codec.encoding) as made, opened(made, 1) as writer:
        first, row = balance.row(5), balance.row("7")
        await writer.commit(Batch([first], {"alert:1": b"0"}, [crossing(first)]))
        await writer.commit(Batch([row], {"alert:1": b"1"}, [crossing(row, "high", "above")]))
        async with reading(made) as reader:
            bounds = await reader.bounds()
            found = [event for event in followed(await until_head(reader, bounds.oldest)) if event.type == "crossed"]
    baseline, message = seen(kafka.address, f"{prefix}balances.crossed.v1")
    assert (message.partition(), message.key()) == (1, str(balance.key).encode())
    crossed = crossing(row, "high", "above")
    assert message.headers() == [
        ("ce_specversion", b"1.0"),
        ("ce_type", b"balance.crossed.v1"),
        ("ce_source", f"/balance-watcher/{bounds.head.epoch}/{balance.key.provider}".encode()),
        ("ce_id", crossed.id.encode()),
        ("ce_time", row.state.observed_at.encode()),
        ("ce_subject", str(balance.key).encode()),
        ("ce_balanceversion", b"1"),
        ("content-type", codec.content_type.encode()),
    ]
    assert codec.crossing(message.value()) == crossed
    assert dict(baseline.headers())["ce_balanceversion"] == b"0"
    assert [json.loads(event.data)["previous_amount"] for event in found] == [None, "5"]
    assert {event.partition for event in found} == {PARTITIONS + 1}
    assert len(bounds.head.positions) == len(bounds.oldest.positions) == 2 * PARTITIONS


async def test_a_cursor_resumes_in_every_partition_of_both_topics_however_far_behind(kafka, prefix, monkeypatch):
    """The window holds next to nothing, so that whoever is behind reads the topics themselves."""
    monkeypatch.setattr(commit_window, "WINDOW_ROWS", 3)
    balances = [balance_in(partition) for partition in range(PARTITIONS)]
    async with contextlib.AsyncExitStack() as stack:
        made = await stack.enter_async_context(ready(kafka.address, prefix))
        reader = await stack.enter_async_context(reading(made))
        for partition, balance in enumerate(balances):
            writer = await stack.enter_async_context(opened(made, partition))
            await writer.commit(Batch([balance.row(0)]))
            for amount in range(1, 9):
                row = balance.row(amount)
                crossings = [crossing(row, alert) for alert in ("low", "lower")[: amount % 3]]
                await writer.commit(Batch([row], {"alert:1": b"1"}, crossings))
        oldest = (await reader.bounds()).oldest
        everything = followed(await until_head(reader, oldest))
        assert len(everything) == len({(event.partition, event.position) for event in everything})
        for balance in balances:
            mine = [(event.type, event.version) for event in everything if event.key == balance.key]
            assert [one for one in mine if one[0] == "changed"] == CHANGED
            assert [one[1] for one in mine if one[0] == "crossed"] == [1, 2, 2, 4, 5, 5, 7, 8, 8]
        cursor = oldest
        for place, event in enumerate(everything[:-1], 1):
            cursor = cursor.after(event.partition, event.position)
            if place % 10 == 0:
                rest = followed(await until_head(reader, cursor))
                assert sorted((e.partition, e.position) for e in rest) == sorted(
                    (e.partition, e.position) for e in everything[place:]
                )
        assert cursor.behind((await reader.bounds()).head) < 3 * (8 + 9)


async def test_a_cursor_of_the_changes_alone_is_none_of_this_log(kafka, prefix):
    async with ready(kafka.address, prefix) as made, reading(made) as reader:
        head = (await reader.bounds()).head
        with pytest.raises(Expired) as refused:
            await anext(reader.follow(msgspec.structs.replace(head, positions=head.positions[:PARTITIONS])))
        assert refused.value.reason == "epoch_changed"


async def test_crossings_that_are_no_longer_kept_expire_a_cursor_as_changes_do(kafka, prefix):
    balance = balance_in(0)
    async with ready(kafka.address, prefix) as made, opened(made, 0) as writer, reading(made) as reader:
        row = balance.row(0)
        for alert in "abcd":
            await writer.commit(Batch([], {"alert:1": b"1"}, [crossing(row, alert)]))
        oldest = (await reader.bounds()).oldest
        with administering(kafka.address) as admin:
            done(admin.delete_records([TopicPartition(f"{prefix}balances.crossed.v1", 0, 4)]))
        async with reading(made) as late:
            with pytest.raises(Expired) as refused:
                await anext(late.follow(oldest))
            assert refused.value.reason == "expired"
            kept = followed(await until_head(late, (await late.bounds()).oldest))
            assert [JSON.crossing(event.data).alert for event in kept] == ["c", "d"]


async def test_nobody_sees_a_crossing_of_a_transaction_that_was_aborted(kafka, prefix):
    balance = balance_in(0)
    async with ready(kafka.address, prefix) as made, opened(made, 0) as writer, reading(made) as reader:
        await writer.commit(Batch([balance.row(0)]))
        before = balance.state

        async def die(sent):
            await asyncio.gather(*sent)
            raise OSError("the process died here")

        writer._require_delivery = die
        row = balance.row(2)
        with pytest.raises(Unavailable):
            await writer.commit(Batch([row], {"alert:1": b"1"}, [crossing(row)]))
        del writer._require_delivery
        restored = await writer.open()
        assert (restored.states, restored.notes) == ([before], {})
        balance.state = before
        row = balance.row(3)
        await writer.commit(Batch([row], {"alert:1": b"2"}, [crossing(row)]))
        bounds = await reader.bounds()
        found = followed(await until_head(reader, bounds.oldest))
    assert [JSON.crossing(event.data) for event in found if event.type == "crossed"] == [crossing(row)]
    assert [json.loads(m.value())["amount"] for m in seen(kafka.address, f"{prefix}balances.crossed.v1")] == ["3"]


class TestTopics:
    async def test_a_log_of_before_is_refused_until_init_adds_what_it_lacks_and_goes_on(self, kafka, prefix):
        """In a partition where the markers of today leave no trace among the crossings either."""
        names, balance = TopicNames.under(prefix), balance_in(1)
        async with ready(kafka.address, prefix) as made:
            async with opened(made, 1) as writer:
                await writer.commit(Batch([balance.row(1)]))
            with administering(kafka.address) as admin:
                await delete(admin, names.crossed, names.closing)
            other = journal(kafka.address, prefix)
            with pytest.raises(WrongJournal, match=f"topic {names.crossed} is missing: run `watcher init`"):
                await other.check()
            assert (await other.init()).startswith(f"created {names.crossed}, {names.closing}: the log stands in")
            await other.check()
            row = balance.row(2)
            async with opened(other, 1) as writer, reading(other) as reader:
                await writer.commit(Batch([row], {"alert:1": b"1"}, [crossing(row)]))
                found = followed(await until_head(reader, (await reader.bounds()).oldest))
            assert sorted((event.type, event.version) for event in found) == [("changed", 1), ("crossed", 1)]
            await other.close()

    @pytest.mark.parametrize("released", [False, True])
    async def test_crossings_that_were_re_created_are_refused_and_gone_on_without_as_a_new_log(
        self, kafka, prefix, released
    ):
        names, balance = TopicNames.under(prefix), balance_in(0)
        async with ready(kafka.address, prefix) as made:
            async with opened(made, 0) as writer:
                row = balance.row(1)
                await writer.commit(Batch([row], {"alert:1": b"1"}, [crossing(row)]))
            async with opened(made, 0) as writer:
                if released:
                    await writer.release()
            with administering(kafka.address) as admin:
                await delete(admin, names.crossed)
            other = journal(kafka.address, prefix)
            await init_until_it_works(other)
            await other.check()
            writer = other.writer(0)
            with pytest.raises(WrongJournal, match=f"partition 0 of topic {names.crossed} lost its records"):
                await writer.open()
            await writer.close()
            await other.init(new_log=True)
            await other.close()
            again = journal(kafka.address, prefix)
            async with opened(again, 0) as writer:
                await writer.commit(Batch([], {"alert:1": b"2"}, [crossing(row)]))
            await again.close()
        assert len(seen(kafka.address, names.crossed)) == 1

    async def test_a_writer_under_which_the_crossings_are_made_anew_says_so(self, kafka, prefix):
        """Its producer lives on, and the broker takes what it sends."""
        names, balance = TopicNames.under(prefix), balance_in(0)
        async with ready(kafka.address, prefix) as made, opened(made, 0) as writer:
            row = balance.row(1)
            for amount in range(3):
                await writer.commit(Batch([], {"alert:1": b"%d" % amount}, [crossing(row, f"low{amount}")]))
            with administering(kafka.address) as admin:
                await delete(admin, names.crossed)
                done(admin.create_topics([NewTopic(names.crossed, PARTITIONS, 1)]))
            with anyio.fail_after(120), pytest.raises(WrongJournal, match="cursors would miss crossings"):
                await tried(writer, Batch([], {"alert:1": b"9"}, [crossing(row, "low9")]))

    async def test_crossings_without_the_log_that_they_belong_to_are_refused_by_init(self, kafka, prefix):
        names, balance = TopicNames.under(prefix), balance_in(1)
        async with ready(kafka.address, prefix) as made:
            async with opened(made, 1) as writer:
                row = balance.row(1)
                await writer.commit(Batch([row], {"alert:1": b"1"}, [crossing(row)]))
            with administering(kafka.address) as admin:
                await delete(admin, names.changed, names.state, names.internal)
                with pytest.raises(WrongJournal, match=f"delete {names.crossed} too, its events with it"):
                    await init_until_it_works(made)
                await delete(admin, names.crossed)
            await init_until_it_works(made)
            await made.check()
