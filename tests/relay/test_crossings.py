"""Crossings over real sockets from a real journal: who gets them, in which order, after a cut too; and who sees nothing of them."""

import hashlib
import json

import pytest

from tests.relay.stage import SOLANA, calm, staged, until, wall
from tests.relay.test_log_change import Successions
from tests.relay.test_slow import BIG, slow
from watcher.model.events import JSON
from watcher.model.keys import Scope
from watcher.model.watches import Watched, WatchIndex

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage(tmp_path):
    async with staged(tmp_path) as stage:
        yield stage


def seen(messages):
    return [(each["type"], each["event"]["account"], each["event"]["version"]) for each in messages]


async def events(one, count):
    """So many updates and crossings; nothing else may come between."""
    found = [await one.next() for _ in range(count)]
    assert {each["type"] for each in found} <= {"update", "crossed"}
    return found


async def test_a_crossing_comes_behind_the_change_of_its_commit_with_the_journals_own_bytes(stage):
    await stage.teller.tell("A", "B")
    async with stage.subscriber() as one:
        await one.next()
        result = await one.subscribe(snapshot=False, crossed=True)
        assert result["crossed"] is True
        assert (await one.ask("list_subscriptions"))["result"]["subscriptions"][0]["crossed"] is True
        await stage.teller.tell("A", "B", crossed=["A"])
        texts = [await one.socket.recv() for _ in range(3)]
        found = [json.loads(text) for text in texts]
        assert seen(found) == [("update", "A", 1), ("update", "B", 1), ("crossed", "A", 1)]
        assert list(found[2]) == ["type", "cursor", "event"]
        assert texts[2].encode().endswith(b'"event":%b}' % JSON.encode(stage.teller.crossed[0]))
        assert [each["cursor"].partition(".")[2] for each in found] == ["2", "3", "4"]


async def test_who_does_not_ask_for_them_is_sent_the_very_bytes_that_it_was_sent_without_them(tmp_path):
    lives, now = [], wall()
    for life, crossed in (("plain", ()), ("alerted", ("A", "B"))):
        (tmp_path / life).mkdir()
        async with staged(tmp_path / life) as stage, stage.subscriber() as one:
            told = {"observed_at": now}
            await stage.teller.tell("A", "B", **told, crossed=crossed)
            await one.next()
            texts = []
            for number, params in enumerate(({"snapshot": True}, {"snapshot": False, "delivery": "conflate"})):
                await one.socket.send(json.dumps({"id": number, "method": "subscribe", "params": params}))
                texts += [await one.socket.recv() for _ in range(2 if params["snapshot"] else 1)]
            for _ in range(3):
                await stage.teller.tell("A", "B", **told, crossed=crossed)
            texts += [await one.socket.recv() for _ in range(6)]
            await one.socket.send('{"id":9,"method":"list_subscriptions"}')
            lives.append(without_places([*texts, await one.socket.recv()]))
    assert lives[0] == lives[1]
    assert not [text for text in lives[0] if "cross" in text]


def without_places(texts):
    """A place in the log is a number of its own: everything else stands."""
    found = []
    for text in texts:
        message = json.loads(text)
        cursor = message.get("cursor") or message["result"].get("cursor", "no cursor")
        found.append(text.replace(cursor, "CURSOR"))
    return found


async def test_a_cursor_between_a_change_and_its_crossing_is_resumed_with_the_crossing(stage):
    await stage.teller.tell("A")
    async with stage.subscriber() as one:
        await one.next()
        await one.subscribe(snapshot=False, crossed=True)
        await stage.teller.tell("A", crossed=["A"])
        update, crossed = await events(one, 2)
    await stage.teller.tell("A")
    async with stage.subscriber() as two:
        await two.next()
        result = await two.subscribe(cursor=update["cursor"], crossed=True)
        assert result["recovered"]
        first, second = await events(two, 2)
        assert first == crossed
        assert seen([second]) == [("update", "A", 2)]
    async with stage.subscriber() as three:
        await three.next()
        await three.subscribe(cursor=crossed["cursor"], crossed=True)
        assert await events(three, 1) == [second], "a crossing that was sent is not sent again"


async def test_a_replay_has_them_where_they_stood_and_a_snapshot_has_none(stage):
    await stage.teller.tell("A")
    for _ in range(3):
        await stage.teller.tell("A", crossed=["A"])
    async with stage.subscriber() as one:
        oldest = (await one.next())["oldest_cursor"]
        await one.subscribe(cursor=oldest, crossed=True)
        order = [(kind, "A", version) for version in (1, 2, 3) for kind in ("update", "crossed")]
        assert seen(await events(one, 6)) == order
    async with stage.subscriber() as two:
        await two.next()
        await two.subscribe(crossed=True)
        assert (await two.next())["type"] == "snapshot"
        await stage.teller.tell("A")
        assert seen(await events(two, 1)) == [("update", "A", 4)]


async def test_one_connection_may_ask_for_those_of_one_filter_and_for_changes_of_another(stage):
    await stage.teller.tell("A", "B", "C")
    async with stage.subscriber() as one:
        await one.next()
        asking = await one.subscribe(snapshot=False, crossed=True, filter={"account": ["A", "B"]})
        await one.subscribe(snapshot=False, filter={"account": ["B", "C"]})
        await stage.teller.tell("A", "B", "C", crossed=["A", "B", "C"])
        changes = [("update", account, 1) for account in "ABC"]
        assert seen(await events(one, 5)) == [*changes, ("crossed", "A", 1), ("crossed", "B", 1)]
        await one.ask("unsubscribe", subscription_id=asking["subscription_id"])
        await stage.teller.tell("A", "B", "C", crossed=["A", "B", "C"])
        await stage.teller.tell("C")
        assert seen(await events(one, 3)) == [("update", "B", 2), ("update", "C", 2), ("update", "C", 3)]


async def test_a_second_subscription_that_replays_gives_the_first_no_crossing_that_it_did_not_ask_for(stage):
    await stage.teller.tell("A", "B")
    async with stage.subscriber() as one:
        start = (await one.next())["head"]
        await one.subscribe(snapshot=False, filter={"account": ["B"]})
        await stage.teller.tell("A", "B", crossed=["A", "B"])
        assert seen(await events(one, 1)) == [("update", "B", 1)]
        await one.subscribe(cursor=start, crossed=True, filter={"account": ["A"]})
        assert seen(await events(one, 2)) == [("update", "A", 1), ("crossed", "A", 1)]
        await stage.teller.tell("B", crossed=["B"])
        await stage.teller.tell("A")
        assert seen(await events(one, 2)) == [("update", "B", 2), ("update", "A", 2)]


async def test_a_bound_token_gets_crossings_of_what_it_is_bound_to_and_no_others(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text(f'[[token]]\nsha256 = "{hashlib.sha256(b"desk").hexdigest()}"\naccount = ["A"]\n')
    async with staged(tmp_path, tokens_file=str(path)) as stage:
        await stage.teller.tell("A", "B")
        async with stage.subscriber(additional_headers={"Authorization": "Bearer desk"}) as one:
            oldest = (await one.next())["oldest_cursor"]
            await one.subscribe(snapshot=False, crossed=True)
            await stage.teller.tell("A", "B", crossed=["B", "A"])
            await stage.teller.tell("A")
            live = await events(one, 3)
            assert seen(live) == [("update", "A", 1), ("crossed", "A", 1), ("update", "A", 2)]
        async with stage.subscriber(additional_headers={"Authorization": "Bearer desk"}) as two:
            await two.next()
            await two.subscribe(cursor=oldest, crossed=True)
            assert await events(two, 3) == live


async def test_the_label_of_the_balance_stands_beside_its_crossing_and_is_a_filter_of_it(tmp_path):
    names = [Watched(Scope("jupiter")), Watched(Scope("jupiter", SOLANA, "A"), "Hot")]
    async with staged(tmp_path, watches=[WatchIndex(names)]) as stage:
        await stage.teller.tell("A", "B")
        async with stage.subscriber() as one:
            oldest = (await one.next())["oldest_cursor"]
            await one.subscribe(snapshot=False, crossed=True, filter={"label": ["Hot"]})
            await stage.teller.tell("A", "B", crossed=["A", "B"])
            live = await events(one, 2)
            assert (seen(live), live[1]["label"]) == ([("update", "A", 1), ("crossed", "A", 1)], "Hot")
            assert list(live[1]) == ["type", "cursor", "label", "event"]
        async with stage.subscriber() as two:
            await two.next()
            await two.subscribe(cursor=oldest, crossed=True)
            replayed = await events(two, 4)
            assert [each.get("label") for each in replayed if each["type"] == "crossed"] == ["Hot", None]


async def test_conflation_holds_no_crossing_back_and_its_cursor_is_below_what_is(stage):
    await stage.teller.tell("A")
    async with stage.subscriber() as one:
        await one.next()
        await one.subscribe(snapshot=False, delivery="conflate", interval_ms=60_000, crossed=True)
        await stage.teller.tell("A")
        (update,) = await events(one, 1)
        found = []
        for _ in range(3):
            await stage.teller.tell("A", crossed=["A"])
            found += await events(one, 1)
        assert seen(found) == [("crossed", "A", version) for version in (2, 3, 4)]
        assert found[0]["cursor"] == update["cursor"], "below the change that is held back"
        cursor = found[-1]["cursor"]
    async with stage.subscriber() as two:
        await two.next()
        await two.subscribe(cursor=cursor, delivery="all", crossed=True)
        last = await events(two, 2)
        assert seen(last) == [("update", "A", 4), ("crossed", "A", 4)]


@pytest.mark.parametrize("delivery", ["all", "conflate"])
async def test_a_slow_reader_misses_no_crossing_and_gets_none_twice(tmp_path, delivery):
    async with staged(tmp_path, calm(outbox_bytes=20_000, replay_bytes=8_000)) as stage:
        await stage.teller.tell("A")
        async with slow(stage) as one:
            await one.push("welcome")
            await one.subscribe(snapshot=False, delivery=delivery, crossed=True)
            for _ in range(200):
                await stage.teller.tell("A", symbol=BIG, crossed=["A"])
            if delivery == "all":
                await until(lambda: stage.relay.stats.lagging)
            crossed, changes = [], []
            while len(crossed) < 200 or changes[-1:] != [200]:
                message = await one.next()
                if message["type"] in ("update", "crossed"):
                    (crossed if message["type"] == "crossed" else changes).append(message["event"]["version"])
            assert crossed == list(range(1, 201))
            assert changes == list(range(1, 201)) if delivery == "all" else changes == sorted(set(changes))
            await until(lambda: stage.relay.stats.sent == len(crossed) + len(changes))


async def test_after_another_log_crossings_of_that_one_follow_its_snapshot(stage):
    await stage.teller.tell("A")
    async with Successions(stage) as logs, stage.subscriber() as one:
        await one.next()
        await one.subscribe(snapshot=False, crossed=True)
        await stage.teller.tell("A", crossed=["A"])
        await events(one, 2)
        await logs.prepare("A")
        await logs.turn()
        page = await one.push("snapshot")
        assert (page["reason"], page["last"]) == ("epoch_changed", True)
        await logs.teller.tell("A", crossed=["A"])
        assert seen(await events(one, 2)) == [("update", "A", 1), ("crossed", "A", 1)]
