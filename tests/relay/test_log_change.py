"""The file under a relay is replaced: each subscription is served anew where it is, and nothing of two logs is mixed."""

import random

import anyio
import anyio.lowlevel
import pytest

from tests.relay.stage import PATIENCE, Teller, calm, relaying, staged, until, wall
from tests.relay.test_slow import BIG, slow
from watcher.journal.sqlite import reader as sqlite_reader
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.model.log import Expired
from watcher.relay import live_path

pytestmark = pytest.mark.anyio


class Successions:
    """Puts journals that are ready in the place of the one under a stage, one after the other."""

    def __init__(self, stage):
        self.stage = stage
        self.tellers = [stage.teller]
        self.epochs = [stage.relay.flusher.fan_out.cursor.epoch]
        self.ready = []

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        for teller in self.tellers[1:]:
            await teller.journal.close()

    @property
    def teller(self):
        return self.tellers[-1]

    async def prepare(self, *accounts, **told):
        """Another journal, with so many balances that never changed."""
        path = self.stage.path.with_name(f"next{len(self.ready) + len(self.tellers)}.db")
        teller = await opened(path)
        if accounts:
            await teller.tell(*accounts, **told)
        await teller.journal.close()
        self.ready.append((path, teller.states, teller.epoch))

    async def turn(self):
        """The next one that was prepared takes the place of the one that is there."""
        aside(self.stage.path, f"before{len(self.tellers)}")
        path, states, epoch = self.ready.pop(0)
        self.epochs.append(epoch)
        path.rename(self.stage.path)
        teller = await opened(self.stage.path)
        assert teller.epoch == epoch
        teller.states = states
        self.tellers.append(teller)

    async def turned(self):
        """The relay has seen it."""
        await until(lambda: self.stage.relay.flusher.fan_out.cursor.epoch == self.epochs[-1])


async def opened(path):
    journal = SqliteJournal(path, encoding="json", retention=86400.0, clock=wall)
    teller = Teller(journal)
    await teller.writer.open()
    reader = await journal.reader()
    teller.epoch = (await reader.bounds()).head.epoch
    await reader.close()
    return teller


def aside(path, name):
    folder = path.with_name(name)
    folder.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        file.rename(folder / file.name)
    return folder


class Told:
    """Everything that one connection was told, and the laws of it."""

    def __init__(self, one, epochs):
        self.one = one
        self.epochs = epochs
        self.messages = []
        self.open = set()
        """Subscriptions; those that wait for their rows have no log yet."""
        self.served = {}
        """Of each the number of the log that its rows are of."""
        self.log = 0
        self.page = None
        """Subscription, cursor and number of the last page of a snapshot that is not whole."""
        self.versions = {}

    async def subscribe(self, **params):
        result = await self.one.subscribe(**params)
        self.open.add(result["subscription_id"])
        return result

    async def until(self, condition):
        with anyio.fail_after(PATIENCE):
            while not condition(self.messages):
                self.take(await self.one.next())

    async def until_served(self, log):
        await self.until(lambda _: self.page is None and all(self.served.get(each) == log for each in self.open))

    async def until_at(self, teller):
        """It has the state of that journal."""
        await self.until(lambda _: self.versions == {name[1]: each.version for name, each in teller.states.items()})

    def take(self, message):
        self.messages.append(message)
        kind = message.get("type")
        if "cursor" not in message:
            return
        log = self.epochs.index(message["cursor"].partition(".")[0])
        assert log >= self.log, "a cursor of an older log"
        if kind == "snapshot":
            self._page(message, log)
            return
        assert self.page is None, f"{kind} between pages"
        assert log == self.log, f"{kind} of a log before its snapshot"
        if kind == "update":
            assert all(self.served.get(each) == log for each in self.open), "an update before all were served anew"
            self._update(message["event"])

    def _page(self, message, log):
        id_, number = message["subscription_id"], message["page"]
        if number == 1:
            # Broken off by another log, and by nothing else.
            assert self.page is None or log > self.log
            unasked = id_ in self.served
            assert message.get("reason") == ("epoch_changed" if unasked else None) or self.page is not None
            if log > self.log:
                self.versions = {}
        else:
            assert "reason" not in message
            assert self.page == (id_, message["cursor"], number - 1)
        self.log = log
        for row in message["data"]:
            self.versions[row["account"]] = row["version"]
        self.page = (id_, message["cursor"], number)
        if message["last"]:
            self.page = None
            self.served[id_] = log

    def _update(self, event):
        before = self.versions.get(event["account"], 0)
        assert event["version"] == before + 1, (event["account"], before, event["version"])
        self.versions[event["account"]] = event["version"]

    def of(self, kind):
        return [each for each in self.messages if each.get("type") == kind]


@pytest.fixture(autouse=True)
def foreign(monkeypatch):
    """The relay looks at the file as often as at one that another process writes."""
    monkeypatch.setattr(sqlite_reader, "IDLE", sqlite_reader.POLL)


@pytest.fixture
def short_memory(monkeypatch):
    """Whoever left the live path has to look into the journal: nothing is at hand."""
    monkeypatch.setattr(live_path, "KEPT", 4)


async def test_every_subscription_gets_the_new_log_on_its_connection(tmp_path):
    async with (
        staged(tmp_path) as stage,
        Successions(stage) as logs,
        stage.subscriber() as one,
        stage.subscriber() as idle,
        stage.subscriber() as late,
    ):
        await stage.teller.tell("A", "B")
        await stage.teller.tell("A")
        told = Told(one, logs.epochs)
        for account in "AB":
            await told.subscribe(filter={"account": [account]})
        await idle.next()
        await stage.teller.tell("A", "B")
        await told.until_at(stage.teller)
        await logs.prepare("A", "C")
        await logs.turn()
        await told.until_served(1)
        first, second = told.of("snapshot")[-2:]
        assert list(first) == ["type", "subscription_id", "cursor", "page", "last", "reason", "data"]
        assert [row["version"] for row in first["data"]] == [0]
        assert (second["reason"], second["data"]) == ("epoch_changed", [])
        assert (await late.subscribe())["snapshot_rows"] == 2
        await logs.teller.tell("A", "B")
        await logs.teller.tell("A", "B")
        await told.until(lambda all_: all_[-1].get("event", {}).get("account") == "B")
        assert told.versions == {"A": 2, "B": 1}
        assert (await idle.subscribe(cursor=told.messages[-1]["cursor"]))["recovered"]
        assert [each["event"]["version"] for each in await late.updates(2)] == [1, 2]
        assert stage.relay.stats.dropped == {}
        assert stage.relay.stats.connections == 3


async def test_who_wants_no_snapshot_for_a_gap_gets_an_error_and_the_connection_lives(tmp_path):
    async with staged(tmp_path) as stage, Successions(stage) as logs, stage.subscriber() as one:
        await stage.teller.tell("A")
        strict = (await one.subscribe(on_gap="error", snapshot=False))["subscription_id"]
        await logs.prepare("A")
        await logs.turn()
        error = await one.push("error")
        assert (error["code"], error["temporary"]) == ("unrecoverable_cursor", False)
        assert f"subscription {strict} " in error["message"]
        assert "epoch_changed" in error["message"]
        assert (await one.ask("list_subscriptions"))["result"] == {"subscriptions": []}
        await logs.teller.tell("A")
        assert (await one.ask("unsubscribe", subscription_id=strict))["error"]["code"] == "not_found"
        assert (await one.subscribe())["cursor"].startswith(logs.epochs[1])
        assert [each["type"] for each in one.pushes if each["type"] != "welcome"] == []
        assert (await one.push("snapshot"))["data"][0]["version"] == 1


async def test_a_conflating_reader_drops_what_pends_of_the_old_log_and_counts_it(tmp_path):
    async with (
        staged(tmp_path, calm(heartbeat=0.2, sweep=0.02)) as stage,
        Successions(stage) as logs,
        stage.subscriber() as one,
    ):
        await stage.teller.tell("A")
        told = Told(one, logs.epochs)
        await told.subscribe(delivery="conflate", interval_ms=60_000)
        await told.until_served(0)
        await stage.teller.tell("A")
        await told.until(lambda _: told.versions["A"] == 1)
        for _ in range(3):
            await stage.teller.tell("A")
        await until(lambda: stage.relay.flusher.fan_out.cursor.positions == (5,))
        await logs.prepare("A")
        await logs.turn()
        await told.until_served(1)
        await logs.teller.tell("B")
        await logs.teller.tell("B")
        await told.until(lambda _: told.versions.get("B") == 1)
        stage.later(60.0)
        await told.until(lambda all_: all_[-1]["type"] == "heartbeat" and all_[-1]["cursor"].endswith(".2"))
        assert (told.messages[-1]["conflated"], told.messages[-1]["sent"]) == (3, 2)
        assert told.versions == {"A": 0, "B": 1}


async def test_slow_readers_get_the_old_log_before_the_snapshot_or_not_at_all(tmp_path, short_memory):
    pace = calm(outbox_bytes=20_000, replay_bytes=8_000, page=20, heartbeat=0.1, sweep=0.01)
    async with staged(tmp_path, pace) as stage, Successions(stage) as logs, slow(stage) as one, slow(stage) as other:
        await stage.teller.tell("A")
        lagging, waiting = Told(one, logs.epochs), Told(other, logs.epochs)
        await lagging.subscribe()
        await lagging.until_served(0)
        await waiting.subscribe()
        await waiting.until_served(0)
        for number in range(150):
            await stage.teller.tell("A", symbol=BIG)
            if number == 149:
                await until(lambda: stage.relay.stats.lagging == 2)
        await logs.prepare("A", *(f"a{number}" for number in range(99)), symbol=BIG)
        await logs.turn()
        await logs.turned()
        for told in (lagging, waiting):
            await told.until_served(1)
            assert [each["page"] for each in told.of("snapshot")][-5:] == [1, 2, 3, 4, 5]
            assert told.of("lagging")
        await logs.teller.tell("A", "a0")
        await logs.teller.tell("A")
        for told in (lagging, waiting):
            await told.until_at(logs.teller)
            await told.until(lambda _, told=told: len(told.of("live")) == len(told.of("lagging")))
            assert told.of("live")[-1]["cursor"].startswith(logs.epochs[1])
        assert stage.relay.stats.dropped == {}


async def test_pages_that_another_log_interrupts_begin_anew(tmp_path):
    """Twice: those that the client asked for, and those that came unasked."""
    pace = calm(outbox_bytes=20_000, page=10, heartbeat=0.05, sweep=0.01)
    async with staged(tmp_path, pace) as stage, Successions(stage) as logs, slow(stage) as one:
        accounts = [f"a{number}" for number in range(300)]
        await stage.teller.tell(*accounts, symbol=BIG)
        for _ in range(2):
            await logs.prepare(*accounts, symbol=BIG)
        told = Told(one, logs.epochs)
        await told.subscribe()
        for log in range(2):
            await told.until(lambda _, log=log: told.log == log and told.page is not None)
            await until(lambda: all(each.heartbeat_due for each in stage.relay.connections))
            await logs.turn()
            await logs.turned()
        await told.until_served(2)
        last = told.of("snapshot")[-30:]
        assert [each["page"] for each in last] == list(range(1, 31))
        assert [each.get("reason") for each in last] == ["epoch_changed", *[None] * 29]
        assert len(told.of("snapshot")) < 90
        await told.until(lambda all_: all_[-1]["type"] == "heartbeat")
        await logs.teller.tell("a7")
        await told.until_at(logs.teller)


async def test_who_unsubscribes_before_its_turn_gets_nothing_of_the_new_log(tmp_path):
    pace = calm(outbox_bytes=20_000, page=10, heartbeat=0.05, sweep=0.01)
    async with staged(tmp_path, pace) as stage, Successions(stage) as logs, slow(stage) as one:
        accounts = [f"a{number}" for number in range(200)]
        await stage.teller.tell("B")
        await logs.prepare("B", *accounts, symbol=BIG)
        told = Told(one, logs.epochs)
        await told.subscribe()
        second = (await told.subscribe(filter={"account": ["B"]}))["subscription_id"]
        await told.until_served(0)
        await logs.turn()
        await told.until(lambda _: told.log == 1)
        await one.socket.send(f'{{"id":"u","method":"unsubscribe","params":{{"subscription_id":"{second}"}}}}')
        await told.until(lambda all_: all_[-1].get("id") == "u")
        told.open.discard(second)
        await told.until_served(1)
        await logs.teller.tell("B")
        await told.until(lambda _: told.versions["B"] == 1)
        assert {each["subscription_id"] for each in told.of("snapshot") if "reason" in each} == told.open
        await told.until(lambda all_: all_[-1]["type"] == "heartbeat")
        assert told.messages[-1]["cursor"] == str(stage.relay.flusher.fan_out.cursor)


async def test_a_subscription_between_the_two_logs_waits_for_the_new_one(tmp_path):
    """The file is another one already, and the follower of the log has not looked again."""
    async with staged(tmp_path) as stage, Successions(stage) as logs, stage.subscriber() as one:
        await stage.teller.tell("A")
        for _ in range(5):
            await stage.teller.tell("A")
        told = Told(one, logs.epochs)
        await told.subscribe(filter={"account": ["A"]})
        await told.until_served(0)
        for _ in range(5):
            await logs.prepare("A", "B")
            before = stage.relay.flusher.fan_out
            await logs.turn()
            answer = await one.ask("subscribe", filter={"account": ["B"]}, cursor=logs.epochs[0] + ".3")
            assert stage.relay.flusher.fan_out is not before
            result = answer["result"]
            assert (result["recovered"], result["reason"], result["snapshot_rows"]) == (False, "epoch_changed", 1)
            assert result["cursor"].startswith(logs.epochs[-1])
            await one.ask("unsubscribe", subscription_id=result["subscription_id"])
            one.pushes = [each for each in one.pushes if each.get("subscription_id") != result["subscription_id"]]
            await told.until_served(len(logs.epochs) - 1)
            await logs.teller.tell("A")
            await told.until(lambda _: told.versions["A"] == 1)


class Late:
    """A journal on a slow disk: it says where its log stands, and what is in it, when it is let."""

    def __init__(self, journal):
        self.journal = journal
        self.may = anyio.Event()
        self.may.set()
        self.rows = self.may
        self.beyond = 0
        """How often one asked for what is of another log."""

    async def reader(self):
        self._reader = await self.journal.reader()
        self.close = self._reader.close
        return self

    async def glance(self, wanted, most):
        await self.rows.wait()
        return await self._reader.glance(wanted, most)

    async def snapshot(self, wanted):
        return await self._reader.snapshot(wanted)

    async def bounds(self):
        await self.may.wait()
        return await self._reader.bounds()

    async def follow(self, cursor):
        try:
            async for commit in self._reader.follow(cursor):
                yield commit
        except Expired:
            self.beyond += 1
            raise


async def test_a_reader_of_the_log_that_sees_another_one_first_waits_for_the_others(tmp_path, short_memory):
    pace = calm(outbox_bytes=20_000, replay_bytes=8_000)
    async with staged(tmp_path) as stage, Successions(stage) as logs:
        await stage.teller.tell("A")
        late = Late(stage.teller.journal)
        async with relaying(late, pace) as (relay, stage.port), slow(stage) as one, stage.subscriber() as two:
            stage.relay = relay
            told, behind = Told(two, logs.epochs), Told(one, logs.epochs)
            for each in (told, behind):
                await each.subscribe()
                await each.until_served(0)
            for _ in range(150):
                await stage.teller.tell("A", symbol=BIG)
                await two.push("update")
            await until(lambda: relay.stats.lagging)
            told.versions["A"] = 150
            late.may = anyio.Event()
            await logs.prepare("A")
            await logs.turn()
            await until(lambda: not relay.follower.following)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(behind.until_served, 1)
                await until(lambda: late.beyond)
                late.may.set()
            await logs.teller.tell("A")
            for each in (told, behind):
                await each.until_at(logs.teller)
            assert relay.stats.dropped == {}


async def test_who_has_left_all_subscriptions_before_its_turn_is_at_the_new_log(tmp_path):
    async with staged(tmp_path) as stage, Successions(stage) as logs:
        await stage.teller.tell("A")
        for _ in range(3):
            await stage.teller.tell("A")
        late = Late(stage.teller.journal)
        relay = relaying(late, calm(heartbeat=0.05, sweep=0.01))
        async with relay as (stage.relay, stage.port), stage.subscriber() as one:
            told = Told(one, logs.epochs)
            id_ = (await told.subscribe())["subscription_id"]
            await told.until_served(0)
            late.rows = anyio.Event()
            await logs.prepare("A")
            await logs.turn()
            await logs.turned()
            await told.until(lambda all_: all_[-1]["type"] == "heartbeat")
            await one.ask("unsubscribe", subscription_id=id_)
            one.pushes.clear()
            late.rows.set()
            assert "cursor" not in await one.push("heartbeat")
            assert (await one.subscribe(snapshot=False))["cursor"].startswith(logs.epochs[1])
            await logs.teller.tell("A")
            assert (await one.push("update"))["event"]["version"] == 1


async def test_while_the_new_log_is_away_commands_are_answered_and_then_it_is_served(tmp_path):
    async with staged(tmp_path) as stage, Successions(stage) as logs:
        await stage.teller.tell("A")
        late = Late(stage.teller.journal)
        async with relaying(late) as (stage.relay, stage.port), stage.subscriber() as one:
            told = Told(one, logs.epochs)
            await told.subscribe()
            await told.until_served(0)
            late.rows = anyio.Event()
            await logs.prepare("A", "B")
            await logs.turn()
            await logs.turned()
            away = stage.path.rename(tmp_path / "away.db")
            await one.socket.send('{"id":"s","method":"subscribe"}')
            late.rows.set()
            error = (await one.answer("s"))["error"]
            assert (error["code"], error["temporary"]) == ("internal", True)
            away.rename(stage.path)
            await told.until_served(1)
            await logs.teller.tell("B")
            await told.until_at(logs.teller)


async def test_the_same_log_that_was_away_goes_on_without_a_gap_and_without_a_snapshot(tmp_path):
    async with staged(tmp_path) as stage, Successions(stage) as logs, stage.subscriber() as one:
        await stage.teller.tell("A")
        told = Told(one, logs.epochs)
        await told.subscribe()
        for _ in range(3):
            await stage.teller.tell("A")
            errors = stage.relay.stats.log_errors
            away = stage.path.rename(tmp_path / "away.db")
            await until(lambda errors=errors: stage.relay.stats.log_errors > errors)
            away.rename(stage.path)
            await stage.teller.tell("A")
            await told.until_at(stage.teller)
        assert len(told.of("snapshot")) == 1
        assert stage.relay.stats.dropped == {}


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_meanwhile_nothing_of_two_logs_is_mixed(tmp_path, short_memory, seed):
    chance = random.Random(seed)
    pace = calm(outbox_bytes=20_000, replay_bytes=8_000, page=7, heartbeat=0.05, sweep=0.01)
    async with (
        staged(tmp_path, pace) as stage,
        Successions(stage) as logs,
        stage.subscriber(close_timeout=0.1) as fast,
        slow(stage) as slower,
        slow(stage) as slowest,
    ):
        accounts = [f"a{number}" for number in range(20)]
        await stage.teller.tell(*accounts)
        for _ in range(5):
            await logs.prepare(*accounts, symbol=BIG)
        everybody = [Told(one, logs.epochs) for one in (fast, slower, slowest)]
        for told in everybody:
            await told.subscribe()
        silent = everybody.pop()  # it reads nothing before the last of them
        async with anyio.create_task_group() as tasks:
            for told in everybody:
                tasks.start_soon(told.until, lambda _, told=told: told.log == 5 and _whole(told, logs.teller))
            for _ in range(5):
                for _ in range(chance.randrange(60)):
                    await logs.teller.tell(chance.choice(accounts), symbol=BIG[: chance.choice([1, 4000])])
                    if chance.random() < 0.2:
                        await anyio.lowlevel.checkpoint()
                await logs.turn()
                if chance.random() < 0.7:
                    await logs.turned()
            await logs.turned()
            for account in accounts:
                await logs.teller.tell(account)
        await silent.until(lambda _: silent.log == 5 and _whole(silent, logs.teller))
        assert stage.relay.stats.dropped == {}


def _whole(told, teller):
    return told.versions == {name[1]: each.version for name, each in teller.states.items()}
