"""Closings in the topics of a real broker; what is visible is judged by confluent-kafka, which is not our code."""

import itertools

import msgspec
import pytest
from confluent_kafka.admin import ConfigResource

from tests.journal.conformed import OnKafka
from tests.journal.kafka_world import (
    PARTITIONS,
    administering,
    done,
    journal,
    opened,
    provider_in,
    reading,
    ready,
    seen,
)
from watcher.journal import Batch
from watcher.model.days import DAY, last_day_over, midnight_after
from watcher.model.keys import Filter
from watcher.model.partitions import partition_of
from watcher.model.past import Closing
from watcher.testing.closing_conformance import DAYS, ClosingConformance, closing, kept, keyed, note
from watcher.testing.journal_samples import baseline

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]


@pytest.fixture
def anyio_backend():
    return "asyncio"


class TestClosings(OnKafka, ClosingConformance):
    pass


def at(day, account, provider, amount=1):
    made = closing(baseline(account, amount), day)
    return Closing(day=day, balance=msgspec.structs.replace(made.balance, provider=provider))


class TestRecords:
    @pytest.mark.parametrize("encoding", ["json", "msgpack"])
    async def test_a_closing_stands_at_its_midnight_under_its_balance_in_the_partition_of_its_provider(
        self, kafka, prefix, encoding
    ):
        one = at(DAYS[0], "account1", provider_in(1))
        async with ready(kafka.address, prefix, encoding=encoding) as made, opened(made, 1) as writer:
            await writer.commit(Batch([], note(DAYS[0], provider=provider_in(1)), (), [one]))
            async with reading(made) as reader:
                assert await kept(reader, DAYS[0]) == keyed(one)
        (message,) = seen(kafka.address, f"{prefix}balances.closing.v1")
        assert message.partition() == 1
        assert message.key() == str(one.balance.key).encode()
        assert message.headers() == [("content-type", f"application/{encoding}".encode()), ("day", DAYS[0].encode())]
        assert message.timestamp()[1] == midnight_after(DAYS[0]) // 1000
        decode = msgspec.json.decode if encoding == "json" else msgspec.msgpack.decode
        assert decode(message.value(), type=Closing) == one

    async def test_a_day_that_was_closed_late_is_found_behind_later_days(self, kafka, prefix):
        """Another provider of the partition was away for days."""
        on_time, late = provider_in(2), next(names())
        async with ready(kafka.address, prefix) as made, opened(made, 2) as writer, reading(made) as reader:
            for day in DAYS:
                await writer.commit(Batch([], note(*DAYS, provider=on_time), (), [at(day, "account1", on_time)]))
            for day in DAYS:
                await writer.commit(Batch([], note(*DAYS, provider=late), (), [at(day, "account2", late)]))
            for day in DAYS:
                both = keyed(at(day, "account1", on_time), at(day, "account2", late))
                assert await kept(reader, day) == both
                assert await kept(reader, day, Filter(provider=(late,))) == keyed(at(day, "account2", late))

    async def test_each_of_many_days_is_found_by_its_time(self, kafka, prefix):
        provider, first = provider_in(0), "2026-01-01"
        days = [last_day_over(midnight_after(first) + number * DAY) for number in range(60)]
        async with ready(kafka.address, prefix) as made, opened(made, 0) as writer, reading(made) as reader:
            for number, day in enumerate(days):
                notes = note(day, provider=provider)
                await writer.commit(Batch([], notes, (), [at(day, f"account{n}", provider, number) for n in range(3)]))
            for number in (0, 1, 30, 59):
                expected = keyed(*(at(days[number], f"account{n}", provider, number) for n in range(3)))
                assert await kept(reader, days[number], Filter(provider=(provider,))) == expected


class TestTopic:
    async def test_init_sets_how_long_the_topic_keeps_and_may_set_it_anew(self, kafka, prefix):
        for checkpoints, expected in ((float("inf"), "-1"), (400 * 86400.0, "34560000000")):
            made = journal(kafka.address, prefix, checkpoints=checkpoints)
            try:
                text = await made.init()
                await made.check()
            finally:
                await made.close()
            assert retention_of(kafka, f"{prefix}balances.closing.v1") == expected
        assert "balances.closing.v1 retention.ms=34560000000" in text

    async def test_days_that_checkpoints_does_not_keep_any_more_are_not_told_while_the_topic_has_them(
        self, kafka, prefix
    ):
        now = midnight_after(DAYS[2])
        one = at(DAYS[0], "account1", provider_in(0))
        async with ready(kafka.address, prefix) as made, opened(made, 0) as writer:
            await writer.commit(Batch([], note(*DAYS), (), [one]))
        async with (
            ready(kafka.address, prefix, checkpoints=2 * 86400.0, clock=lambda: now) as made,
            reading(made) as reader,
        ):
            assert await reader.closing_days() == [*DAYS]
            assert await kept(reader, DAYS[0]) == keyed(one)
            now += 1
            assert await reader.closing_days() == [*DAYS[1:]]
            assert await kept(reader, DAYS[0]) == {}


def names():
    """Providers that live where `provider_in(2)` does."""
    return (f"late{n}" for n in itertools.count() if partition_of(f"late{n}", PARTITIONS) == 2)


def retention_of(kafka, topic):
    with administering(kafka.address) as admin:
        (found,) = done(admin.describe_configs([ConfigResource("topic", topic)]))
    return found["retention.ms"].value
