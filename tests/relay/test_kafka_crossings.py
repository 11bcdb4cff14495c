"""Crossings over a relay on Kafka: a cursor has places for changes and for crossings, and one of before goes on."""

import anyio
import pytest

from tests.journal.kafka_world import PARTITIONS, balance_in, opened, reading, ready
from tests.relay.stage import Subscriber, connect, relaying
from watcher.journal import Batch
from watcher.testing.journal_samples import crossing

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]


def seen(messages):
    return sorted((each["type"], each["event"]["version"]) for each in messages)


async def events(one, count):
    found = []
    while len(found) < count:
        message = await one.next()
        if message.get("type") in ("update", "crossed"):
            found.append(message)
    return found


async def test_crossings_are_live_and_replayed_from_any_cursor_and_one_of_before_they_were_there_gets_them_all(
    kafka, prefix
):
    balance = balance_in(1)
    async with ready(kafka.address, prefix) as made, opened(made, 1) as writer, relaying(made) as (_, port):

        def subscriber():
            return connect(f"ws://127.0.0.1:{port}/v1/stream", open_timeout=60.0, compression=None)

        async with reading(made) as reader:
            oldest = (await reader.bounds()).oldest
        assert len(oldest.positions) == 2 * PARTITIONS
        async with subscriber() as first, subscriber() as second:
            asking, plain = Subscriber(first), Subscriber(second)
            await asking.subscribe(snapshot=False, crossed=True)
            await plain.subscribe(snapshot=False)
            for amount in (5, 7, 3):
                row = balance.row(amount)
                await writer.commit(Batch([row], crossings=[crossing(row, direction="cleared")]))
            live = await events(asking, 5)
            assert seen(live) == [("crossed", version) for version in (0, 1, 2)] + [("update", 1), ("update", 2)]
            assert seen(await events(plain, 2)) == [("update", 1), ("update", 2)]
        for number, message in enumerate(live):
            async with subscriber() as socket:
                again = Subscriber(socket)
                assert (await again.subscribe(cursor=message["cursor"], crossed=True))["recovered"]
                rest = live[number + 1 :]
                assert sorted(each["event"]["id"] for each in await events(again, len(rest))) == sorted(
                    each["event"]["id"] for each in rest
                )
        of_before = f"{oldest.epoch}.{'-'.join(map(str, oldest.positions[:PARTITIONS]))}"
        for params, count in (({"crossed": True}, 5), ({}, 2)):
            async with subscriber() as socket:
                old = Subscriber(socket)
                assert (await old.subscribe(cursor=of_before, **params))["recovered"]
                assert seen(await events(old, count)) == [each for each in seen(live) if params or each[0] == "update"]
                with anyio.move_on_after(0.2):
                    assert (await old.next())["type"] not in ("update", "crossed")
