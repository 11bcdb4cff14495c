"""The rules of docs/relay.md that a client builds on: which cursor to keep, in which order answers come, what comes twice."""

import contextlib
import json

import anyio
import pytest

from tests.relay.stage import PATIENCE, SOLANA, calm, relaying, staged, until, wall
from tests.relay.test_snapshots import Counting

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage(tmp_path):
    async with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
async def beating(tmp_path):
    """With heartbeats, which may come between any two messages."""
    async with staged(tmp_path, calm(heartbeat=0.05, sweep=0.01)) as stage:
        yield stage


@contextlib.asynccontextmanager
async def taking_its_time(folder, pace=None, **settings):
    """A relay on a journal that answers a snapshot once `stage.log.may` is set."""
    async with staged(folder) as stage:
        stage.log = Counting(stage.teller.journal)
        async with relaying(stage.log, pace, **settings) as (stage.relay, stage.port):
            yield stage


def versions(updates):
    return [(each["event"]["account"], each["event"]["version"]) for each in updates]


class Keeper:
    """The plainest client: it keeps the last cursor of any push, and resumes from it."""

    def __init__(self):
        self.cursor = None
        self.seen = {}

    def take(self, message):
        if "cursor" in message and "type" in message:
            self.cursor = message["cursor"]
        for row in message.get("data", ()):
            self.seen[row["account"]] = row["version"]
        if message.get("type") == "update":
            event = message["event"]
            if event["version"] > self.seen.get(event["account"], -1):
                assert event["version"] == self.seen.get(event["account"], event["version"] - 1) + 1, "a gap"
                self.seen[event["account"]] = event["version"]

    async def take_until(self, one, condition):
        with anyio.fail_after(PATIENCE):
            while not condition():
                self.take(await one.next())


async def test_whatever_cursor_a_client_keeps_it_misses_nothing_though_it_was_cut_before_it_subscribed(beating):
    stage, keeper = beating, Keeper()
    await stage.teller.tell("A")
    async with stage.subscriber() as one:
        await one.subscribe()
        await stage.teller.tell("A")
        await keeper.take_until(one, lambda: keeper.seen.get("A") == 1)
    for version in range(2, 6):  # connected, and cut before it has subscribed: the log goes on meanwhile
        async with stage.subscriber() as one:
            for _ in range(3):
                keeper.take(await one.next())
            await stage.teller.tell("A")
            await until(lambda want=version: str(stage.relay.flusher.fan_out.cursor).endswith(f".{want + 1}"))
            for _ in range(3):
                keeper.take(await one.next())
    async with stage.subscriber() as one:
        result = await one.subscribe(cursor=keeper.cursor)
        assert result["recovered"]
        await keeper.take_until(one, lambda: keeper.seen["A"] == 5)


async def test_before_the_first_subscription_and_after_the_last_no_push_names_a_place_to_resume_from(beating):
    stage = beating
    await stage.teller.tell("A")
    async with stage.subscriber() as one:
        welcome = await one.next()
        assert "cursor" not in welcome
        assert welcome["head"].partition(".")[0] == welcome["epoch"]
        before = [await one.push("heartbeat") for _ in range(3)]
        result = await one.subscribe(snapshot=False)
        one.pushes.clear()
        during = [await one.push("heartbeat") for _ in range(3)]
        await one.ask("unsubscribe", subscription_id=result["subscription_id"])
        one.pushes.clear()
        after = [await one.push("heartbeat") for _ in range(3)]
    assert ["cursor" in beat for beat in (*before, *during, *after)] == [False] * 3 + [True] * 3 + [False] * 3


async def test_a_heartbeat_before_the_answer_to_the_first_subscribe_names_no_place(tmp_path):
    async with taking_its_time(tmp_path, calm(heartbeat=0.05, sweep=0.01)) as stage:
        await stage.teller.tell("A")
        stage.log.may = anyio.Event()
        async with stage.subscriber() as one:
            await one.next()
            await one.socket.send(json.dumps({"id": 1, "method": "subscribe", "params": {}}))
            beats = [await one.push("heartbeat") for _ in range(3)]
            stage.log.may.set()
            assert "cursor" in (await one.answer(1))["result"]
        assert not any("cursor" in beat for beat in beats)


async def test_subscribes_are_answered_in_their_order_and_what_is_quick_may_come_before_them(stage):
    await stage.teller.tell(*(f"a{number}" for number in range(600)))
    async with stage.subscriber() as one:
        await one.next()
        commands = [
            ("s1", "subscribe", {}),
            ("s2", "subscribe", {"snapshot": False}),
            ("p1", "ping", {}),
            ("s3", "subscribe", {"filter": {"account": ["a1"]}}),
            ("p2", "ping", {}),
        ]
        for id_, method, params in commands:
            await one.socket.send(json.dumps({"id": id_, "method": method, "params": params}))
        answers, data = [], []
        while len(answers) < 5 or len(data) < 3:
            message = json.loads(await one.socket.recv())
            (answers if "id" in message else data).append(message)
            if message.get("type") == "snapshot":
                ids = {each["result"].get("subscription_id") for each in answers}
                assert message["subscription_id"] in ids, "data before the answer"
    order = [message["id"] for message in answers]
    assert [id_ for id_ in order if id_[0] == "s"] == ["s1", "s2", "s3"]
    assert [id_ for id_ in order if id_[0] == "p"] == ["p1", "p2"]
    assert [message["result"]["subscription_id"] for message in answers if message["id"][0] == "s"] == ["1", "2", "3"]


async def test_a_subscription_that_is_not_answered_yet_cannot_be_ended_and_is_not_listed(tmp_path):
    async with taking_its_time(tmp_path) as stage:
        await stage.teller.tell("A")
        stage.log.may = anyio.Event()
        async with stage.subscriber() as one:
            await one.next()
            await one.socket.send(json.dumps({"id": "s", "method": "subscribe", "params": {}}))
            assert (await one.ask("unsubscribe", subscription_id="1"))["error"]["code"] == "not_found"
            assert (await one.ask("list_subscriptions"))["result"] == {"subscriptions": []}
            stage.log.may.set()
            assert (await one.answer("s"))["result"]["subscription_id"] == "1"
            assert len((await one.ask("list_subscriptions"))["result"]["subscriptions"]) == 1


async def test_a_subscription_that_replays_sends_again_what_another_has_had_and_versions_tell(stage):
    await stage.teller.tell("A")
    for _ in range(3):
        await stage.teller.tell("A")
    async with stage.subscriber() as one:
        oldest = (await one.next())["oldest_cursor"]
        await one.subscribe(cursor=oldest)
        first = await one.updates(3)
        await one.subscribe(cursor=oldest)
        again = await one.updates(3)
        assert versions(first) == versions(again) == [("A", 1), ("A", 2), ("A", 3)]
        assert [each["cursor"] for each in again] == [each["cursor"] for each in first], "cursors step back"
        await stage.teller.tell("A")
        assert versions(await one.updates(1)) == [("A", 4)], "and live it comes once"
        assert (await one.ask("ping"))["result"]
        assert one.pushes == []


async def test_the_oldest_cursor_may_be_resumed_from_and_the_head_too(stage):
    await stage.teller.tell("A")
    await stage.teller.tell("A")
    async with stage.subscriber() as one:
        welcome = await one.next()
        for cursor, seen in ((welcome["oldest_cursor"], [("A", 1)]), (welcome["head"], [])):
            result = await one.subscribe(cursor=cursor)
            assert (result["recovered"], result["cursor"]) == (True, cursor)
            assert versions(await one.updates(len(seen))) == seen


async def test_a_baseline_after_the_snapshot_never_comes_and_its_first_event_is_version_1(stage):
    await stage.teller.tell("A")
    async with stage.subscriber() as one:
        await one.subscribe()
        await one.push("snapshot")
        await stage.teller.tell("late")
        await stage.teller.tell("A", "late")
        assert versions(await one.updates(2)) == [("A", 1), ("late", 1)]


async def test_a_token_that_narrows_a_subscription_while_it_opens_lets_nothing_through_before_its_answer(tmp_path):
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # of "secret"
    (tmp_path / "tokens.toml").write_text(f'[[token]]\nsha256 = "{digest}"\naccount = ["A"]\n')
    settings = {"tokens_env": "T", "tokens_file": str(tmp_path / "tokens.toml")}
    async with taking_its_time(tmp_path, environ={"T": "all-rights"}, **settings) as stage:
        await stage.teller.tell("A", "B")
        async with stage.subscriber(additional_headers={"Authorization": "Bearer all-rights"}) as one:
            await one.next()
            await one.subscribe(snapshot=False, filter={"account": ["nobody"]})
            stage.log.may = anyio.Event()
            await one.socket.send(json.dumps({"id": "s", "method": "subscribe", "params": {}}))
            assert (await one.ask("auth", token="secret"))["result"] == {"auth": "ok"}
            await stage.teller.tell("A", "B")
            await until(lambda: str(stage.relay.flusher.fan_out.cursor).endswith(".3"))
            assert (await one.ask("ping"))["result"]
            assert [message["type"] for message in one.pushes] == ["error"], "of the first, which has ended"
            stage.log.may.set()
            assert (await one.answer("s"))["result"]["filter"] == {"account": ["A"]}
            assert [row["account"] for row in (await one.push("snapshot"))["data"]] == ["A"]


async def test_the_lag_in_a_heartbeat_is_the_age_in_milliseconds_of_the_oldest_event_that_waits(beating):
    stage = beating
    await stage.teller.tell("A")
    async with stage.subscriber() as one:
        await one.subscribe(snapshot=False, delivery="conflate", interval_ms=60_000)
        await stage.teller.tell("A")
        await one.updates(1)
        one.pushes.clear()
        assert (await one.push("heartbeat"))["lag_ms"] == 0
        await stage.teller.tell("A", observed_at=wall() - 700_000_000)
        while (beat := await one.push("heartbeat"))["lag_ms"] == 0:
            pass
        assert 700_000 <= beat["lag_ms"] < 700_000 + PATIENCE * 1000
        stage.later(60.0)
        await one.updates(1)
        while (await one.push("heartbeat"))["lag_ms"]:
            pass


async def test_a_chain_is_written_as_in_the_config_on_the_stream_over_http_and_in_rights(tmp_path):
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # of "secret"
    (tmp_path / "tokens.toml").write_text(f'[[token]]\nsha256 = "{digest}"\nchain = ["solana-900"]\n')
    bearer = {"Authorization": "Bearer secret"}
    async with staged(tmp_path, tokens_file=str(tmp_path / "tokens.toml")) as stage:
        await stage.teller.tell("A")
        async with stage.subscriber(additional_headers=bearer) as one:
            for written in ("solana-900", SOLANA):
                result = await one.subscribe(filter={"chain": [written]})
                assert (result["filter"], result["snapshot_rows"]) == ({"chain": [SOLANA]}, 1)
            assert (await one.ask("subscribe", filter={"chain": ["ethereum-1"]}))["error"]["code"] == "forbidden"
        async with stage.http(headers=bearer) as http:
            for written in ("solana-900", SOLANA):
                (row,) = (await http.get("/v1/balances", params={"chain": written})).json()["data"]
                assert row["chain"] == SOLANA
