"""Off the live path: a journal that goes and comes back, a log that ends behind the reader, pages that are broken off."""

import anyio
import pytest
from websockets.exceptions import ConnectionClosed

from tests.relay.stage import PATIENCE, calm, staged, until, wall
from tests.relay.test_slow import BIG, slow
from watcher.relay import live_path

pytestmark = pytest.mark.anyio


@pytest.fixture
def short_memory(monkeypatch):
    """Whoever left the live path has to look into the journal: nothing is at hand."""
    monkeypatch.setattr(live_path, "KEPT", 4)


async def test_while_the_journal_is_away_nothing_is_promised_and_then_nothing_is_missing(tmp_path):
    async with staged(tmp_path) as stage, stage.subscriber() as one:
        await stage.teller.tell("A")
        oldest = (await one.next())["oldest_cursor"]
        aside = stage.path.rename(tmp_path / "aside.db")
        error = (await one.ask("subscribe", cursor=oldest))["error"]
        assert (error["code"], error["temporary"]) == ("internal", True)
        assert (await one.ask("list_subscriptions"))["result"] == {"subscriptions": []}
        async with stage.subscriber() as two:
            assert await two.closed() == (1012, "internal")
        async with stage.http() as http:
            answer = await http.get("/v1/balances")
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        aside.rename(stage.path)
        assert (await one.subscribe(cursor=oldest))["recovered"]
        await stage.teller.tell("A")
        assert (await one.push("update"))["event"]["version"] == 1


async def test_a_replay_waits_for_a_journal_that_went_and_goes_on_where_it_was(tmp_path, short_memory):
    async with staged(tmp_path, calm(outbox_bytes=20_000, replay_bytes=8_000)) as stage:
        await stage.teller.tell("A")
        async with slow(stage) as one:
            await one.subscribe(snapshot=False)
            for _ in range(150):
                await stage.teller.tell("A", symbol=BIG)
            await until(lambda: stage.relay.stats.lagging)
            aside = stage.path.rename(tmp_path / "aside.db")
            seen = []
            with anyio.fail_after(PATIENCE):
                while not stage.relay.stats.log_errors:
                    with anyio.move_on_after(0.05):
                        seen.append((await one.push("update"))["event"]["version"])
            aside.rename(stage.path)
            while len(seen) < 150:
                seen.append((await one.push("update"))["event"]["version"])
            assert seen == list(range(1, 151))


async def test_who_needs_what_the_log_no_longer_holds_is_ended_and_comes_again_for_a_snapshot(tmp_path, short_memory):
    ahead = []
    async with staged(tmp_path, calm(outbox_bytes=20_000, replay_bytes=8_000), ahead=ahead) as stage:
        await stage.teller.tell("A")
        async with slow(stage) as one:
            cursor = (await one.subscribe(snapshot=False))["cursor"]
            for _ in range(150):
                await stage.teller.tell("A", symbol=BIG)
            await until(lambda: stage.relay.stats.lagging)
            ahead.append(2 * 86400 * 1_000_000)
            await stage.teller.tell("A", observed_at=wall() + sum(ahead))
            with anyio.fail_after(PATIENCE), pytest.raises(ConnectionClosed):
                await _read_on(one)
            assert stage.relay.stats.dropped == {"expired": 1}
        async with stage.subscriber() as again:
            result = await again.subscribe(cursor=cursor)
            assert (result["recovered"], result["reason"], result["snapshot_rows"]) == (False, "expired", 1)


async def _read_on(one):
    while True:
        await one.next()


async def test_unsubscribing_between_pages_ends_them_and_a_heartbeat_waits_for_their_end(tmp_path):
    pace = calm(page=50, heartbeat=0.05, sweep=0.01, outbox_bytes=20_000)
    async with staged(tmp_path, pace) as stage:
        await stage.teller.tell(*(f"a{n}" for n in range(1500)), symbol=BIG[:1000])
        async with slow(stage) as one:
            first = await one.subscribe()
            while (await one.next())["type"] != "snapshot":
                pass
            await until(lambda: all(each.heartbeat_due for each in stage.relay.connections))
            kinds = []
            await one.socket.send(
                f'{{"id":"u","method":"unsubscribe","params":{{"subscription_id":"{first["subscription_id"]}"}}}}'
            )
            while (message := await one.next()).get("id") != "u":
                kinds.append(message["type"])
            assert set(kinds) <= {"snapshot"}
            assert len(kinds) < 29
            assert (await one.next())["type"] == "heartbeat"
            whole = await one.subscribe(filter={"account": [f"a{n}" for n in range(120)]})
            pages = [await one.push("snapshot") for _ in range(3)]
            assert [page["last"] for page in pages] == [False, False, True]
            assert {page["subscription_id"] for page in pages} == {whole["subscription_id"]}
            assert not [each for each in one.pushes if each["type"] == "snapshot"]
