"""A whole daemon whose config is changed while it runs: SQLite, and the providers of a sandbox that count."""

import contextlib
import copy
import hashlib
import json

import anyio
import msgspec
import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.e2e import checker
from tests.e2e.harness import REQUESTS as USUAL
from tests.loopback import sandboxed
from watcher.app import settings
from watcher.app.daemon import Daemon
from watcher.app.demo import world_of
from watcher.limits.budget import Budget
from watcher.model.keys import Filter
from watcher.model.log import Unavailable
from watcher.sandbox.world import VALID_KEY, SandboxSettings, tables

pytestmark = pytest.mark.anyio
PATIENCE = 30.0
REQUESTS = USUAL | {"tokenkit": 10, "bloxroute": 50}
"""A second."""
SCALED = ",".join(f"{provider}={requests}/1" for provider, requests in REQUESTS.items())
TIGHT = {"ondo": (2, 2)}


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def until(condition, seconds=PATIENCE):
    with anyio.fail_after(seconds):
        while not (found := condition()):  # noqa: ASYNC110 (of others' making: they set no event)
            await anyio.sleep(0.01)
    return found


def read_since(schedule, since):
    """All of its watches."""
    now = anyio.current_time()
    oldest = schedule.stalest(now)
    return oldest is not None and now - oldest[1] > since


def limit(requests, per):
    return {"requests": requests, "per": per}


class Running:
    """A daemon before a sandbox, and the file that it reads its config from."""

    def __init__(self, folder, world, port, tight):
        self.world = world
        self.table = {
            "journal": f"sqlite:///{folder / 'balances.db'}",
            "relay": {"port": 0},
            "providers": {
                name: {**table, "limits": [limit(*tight.get(name, (REQUESTS[name], 1)))], "settle": 2.0}
                for name, table in tables(port, 1, "KEY").items()
            },
        }
        self.table["providers"]["tokenkit"]["max_age"] = 0
        self.environment = {"KEY": VALID_KEY}
        self.logs = []
        self.daemon = None

    async def start(self, tasks):
        """Once it serves: it may poll before its relay has a port."""
        self.daemon = Daemon(self.load(), self.environment, load=self.load)
        await tasks.start(self.daemon.run)

    def load(self):
        return settings.parse(copy.deepcopy(self.table))

    @property
    def providers(self):
        return self.table["providers"]

    async def reload(self):
        """As SIGHUP does; the line that says what became of it."""
        before = self.daemon.reloads.by_result.total()
        self.daemon.reload()
        await until(lambda: self.daemon.reloads.by_result.total() > before)
        return self.lines()[-1]

    def lines(self):
        return [line for line in self.logs if line["event"] == "config.reloaded"]

    def pollers(self):
        return {poller.name: poller for poller in self.daemon.partitions.pollers}

    def of(self, name):
        return self.world.report(anyio.current_time())["providers"][name]

    def refusals(self):
        return {name: count for name in REQUESTS if (count := self.of(name)["refusals"])}

    async def asked(self, name, times=3):
        """Until it was asked so often from now on."""
        before = self.of(name)["requests"]
        await until(lambda: self.of(name)["requests"] >= before + times)

    async def told(self):
        """All events so far, the states, and what they break, where nothing moves any more."""
        reader = await self.daemon.journal.reader()
        try:
            snapshot = await reader.glance(Filter(), 10_000)
            states, events = [msgspec.to_builtins(state) for state in await snapshot.page(10_000)], []
            async for commit in reader.follow((await reader.bounds()).oldest):
                events += [msgspec.json.decode(one.data) for one in commit.events]
                if commit.cursor.reaches(snapshot.cursor):
                    break
        finally:
            await reader.close()
        truth = checker.truths(self.world.report(anyio.current_time()))
        assert checker.broken_laws(events, states) == []
        assert checker.false_changes(events, truth) == []
        return events, states

    async def settled(self):
        """Once each watch is read twice after nothing moves any more, and what that showed is committed."""
        self.world.truth.freeze(anyio.current_time())
        schedules = [schedule for poller in self.pollers().values() for schedule in poller.schedules]
        for _ in range(2):
            since = anyio.current_time()
            for schedule in schedules:
                await until(lambda one=schedule: read_since(one, since))  # noqa: B023 (it is awaited here)
        with anyio.fail_after(PATIENCE):
            for committer in self.daemon.partitions.committers:
                await committer.flush()


@pytest.fixture(params=[{}], ids=[""])
async def running(tmp_path, request):
    limits = [SCALED, *(f"{name}={requests}/{per}" for name, (requests, per) in request.param.items())]
    world = world_of(SandboxSettings(seed=1, rate=20.0, limits=",".join(limits)))
    with capture_logs() as logs:
        async with sandboxed(world) as port, anyio.create_task_group() as tasks:
            made = Running(tmp_path, world, port, request.param)
            made.logs = logs
            await made.start(tasks)
            for name in REQUESTS:
                await until(lambda name=name: made.pollers()[name].answered.is_set())
            yield made
            tasks.cancel_scope.cancel()


async def test_what_does_not_differ_goes_on_untouched(running):
    before = running.pollers()
    line = await running.reload()
    assert line["result"] == "unchanged"
    assert line["cannot_change_in_the_environment"] == [f"[providers.{name}]" for name in REQUESTS]
    running.providers["helius"]["timeout"] = 5.0
    line = await running.reload()
    assert (line["result"], line["changed"]) == ("applied", ("helius",))
    after = running.pollers()
    assert [name for name in REQUESTS if after[name] is not before[name]] == ["helius"]
    assert after["helius"].stats is before["helius"].stats
    assert running.daemon.reloads.by_result == {"applied": 1, "unchanged": 1, "refused": 0}


async def test_watches_and_limits_change_under_load_and_every_law_holds(running):
    removed = {name: running.providers[name]["watch"].pop() for name in REQUESTS}
    line = await running.reload()
    assert line["watches_removed"] == dict.fromkeys(REQUESTS, 1)
    for name in REQUESTS:
        await running.asked(name)
    for _ in range(4):
        for name in REQUESTS:
            limit = running.providers[name]["limits"][0]
            limit["requests"] = (
                max(1, limit["requests"] // 2) if limit["requests"] == REQUESTS[name] else REQUESTS[name]
            )
            if name == "bloxroute":
                limit["requests"] = max(5, limit["requests"])
        await running.reload()
        await anyio.sleep(0.2)
    for name in REQUESTS:
        running.providers[name]["watch"].append(removed[name])
    line = await running.reload()
    assert line["watches_added"] == dict.fromkeys(REQUESTS, 1)
    await running.settled()
    events, states = await running.told()
    truth = checker.truths(running.world.report(anyio.current_time()))
    assert checker.unsettled(states, truth) == {}
    assert len(events) > 20
    assert running.refusals() == {}


async def test_an_edit_alone_tells_nothing(running):
    """A listing is replaced by one of its balances, and back; a provider goes, and comes back."""
    await running.settled()
    before, _ = await running.told()
    chain = next(watch for watch in running.providers["ondo"]["watch"] if watch == {"chain": "solana-900"})
    place = running.providers["ondo"]["watch"].index(chain)
    inside = next(b for b in running.of("ondo")["balances"] if b["chain"].startswith("solana"))
    jupiter = running.providers.pop("jupiter")
    running.providers["ondo"]["watch"][place] = {**chain, "account": inside["account"], "token": inside["token"]}
    line = await running.reload()
    assert (line["changed"], line["removed"]) == (("ondo",), ("jupiter",))
    assert running.pollers().keys() == REQUESTS.keys() - {"jupiter"}
    await running.settled()
    running.providers["ondo"]["watch"][place] = chain
    running.providers["jupiter"] = jupiter
    line = await running.reload()
    assert (line["changed"], line["added"]) == (("ondo",), ("jupiter",))
    await running.settled()
    events, states = await running.told()
    assert events == before
    assert any(state["provider"] == "jupiter" for state in states)
    assert running.refusals() == {}


async def test_a_balance_that_moved_while_nobody_read_it_is_told_once_somebody_does(running):
    await running.settled()
    balance = next(b for b in running.world.truth.of("helius") if b.amount)
    entry = next(w for w in running.providers["helius"]["watch"] if w["account"] == balance.key.account)
    before, _ = await running.told()
    running.providers["helius"]["watch"].remove(entry)
    await running.reload()
    running.world.truth.put(balance, balance.amount + 5, anyio.current_time())
    await running.asked("helius", 18)
    assert (await running.told())[0] == before
    running.providers["helius"]["watch"].append(entry)
    await running.reload()
    await running.settled()
    (event,) = (await running.told())[0][len(before) :]
    assert (event["account"], event["delta"]) == (balance.key.account, "5")


async def replaced_again_and_again(running):
    """Refusals of a provider with a tight limit while its table is changed and renamed."""
    names = ["ondo", "bank"]
    for number in range(7):
        running.providers[names[0]]["timeout"] = 20.0 + number
        await running.reload()
        await anyio.sleep(0.1)
        table = running.providers.pop(names[0])
        if number % 2:
            await running.reload()
        running.providers[names[1]] = table
        names.reverse()
        await running.reload()
        await anyio.sleep(0.1)
    return running.of("ondo")["refusals"]


@pytest.mark.parametrize("running", [TIGHT], ids=["tight"], indirect=True)
async def test_what_is_spent_stays_spent_whatever_a_table_says_and_is_called(running):
    assert await replaced_again_and_again(running) == 0


@pytest.mark.parametrize("running", [TIGHT], ids=["tight"], indirect=True)
async def test_windows_that_a_reload_resets_are_seen(running, monkeypatch):
    monkeypatch.setattr(Budget, "carry", lambda *_: None)
    assert await replaced_again_and_again(running) > 0


async def test_what_check_would_refuse_changes_nothing(running, tmp_path):
    key = tmp_path / "key"
    key.write_text(VALID_KEY)
    before, config = running.pollers(), running.daemon.config
    good = copy.deepcopy(running.table)
    for spoil in (
        lambda table: table.clear(),
        lambda table: table["providers"]["helius"].update(watch=[]),
        lambda table: table["providers"]["ondo"].update(limits=[{"requests": 0, "per": 1}]),
        lambda table: table["providers"]["bloxroute"].update(limits=[{"requests": 1, "per": 60}]),
        lambda table: table["providers"]["jupiter"].update(api_key_env=None, api_key_file=str(tmp_path / "none")),
        lambda table: table["relay"].update(host="0.0.0.0"),
        lambda table: table["relay"].update(tokens_file=str(tmp_path / "none")),
        lambda table: table["relay"].update(certificate=str(tmp_path / "none"), key=str(tmp_path / "none")),
        lambda table: table.update(journal="kafka://localhost:1", kafka={"group": "g", "member_env": "NOBODY"}),
        lambda table: table.update(unknown=1),
    ):
        running.table = copy.deepcopy(good)
        running.providers["ondo"]["timeout"] = 7.0  # right, and not applied either
        spoil(running.table)
        line = await running.reload()
        assert (line["result"], line["log_level"]) == ("refused", "error")
        assert running.pollers() == before
        assert running.daemon.config is config
    assert running.daemon.reloads.by_result["refused"] == 10


async def test_a_bug_in_reading_the_file_ends_nothing(running, monkeypatch):
    before = running.pollers()
    monkeypatch.setattr(running.daemon, "_load", lambda: 1 // 0)
    line = await running.reload()
    assert (line["result"], line["log_level"]) == ("refused", "error")
    assert running.pollers() == before


async def test_what_needs_a_restart_is_named_and_left_while_the_rest_is_applied(running, tmp_path):
    running.table |= {"journal": f"sqlite:///{tmp_path / 'other.db'}", "retention": 5.0, "metrics_port": 1}
    running.table["relay"] |= {"max_connections": 7, "origins": ["https://desk.example"]}
    running.providers["ondo"]["timeout"] = 7.0
    for result in ("applied", "unchanged"):
        line = await running.reload()
        assert line["result"] == result
        assert line["needs_restart"] == ("journal", "retention", "metrics_port", "[relay] max_connections")
    assert "balances.db" in running.daemon.config.journal
    assert running.daemon.config.relay.origins == ["https://desk.example"]
    assert running.daemon.relay._guard.allows_origin("https://desk.example", "x")


async def test_a_refused_key_pauses_on_through_a_reload_and_a_new_one_ends_it(running, tmp_path):
    key = tmp_path / "key"
    key.write_text("canary-wrong-key")
    running.providers["ondo"] |= {"api_key_file": str(key)}
    del running.providers["ondo"]["api_key_env"]
    key.chmod(0o644)
    line = await running.reload()
    assert line["keys_renewed"] == ("ondo",)
    (exposed,) = [line["text"] for line in running.logs if line["event"] == "config.exposed"]
    assert str(key) in exposed
    paused = lambda: running.pollers()["ondo"].budget.paused_until(anyio.current_time())  # noqa: E731
    await until(paused)
    await until(lambda: not running.pollers()["ondo"].budget.in_flight)
    running.providers["ondo"]["timeout"] = 7.0
    asked = running.of("ondo")["denied"]
    await running.reload()
    assert paused()
    await anyio.sleep(0.3)
    assert running.of("ondo")["denied"] == asked
    key.write_text(VALID_KEY)
    running.providers["ondo"]["timeout"] = 8.0
    line = await running.reload()
    assert (line["keys_renewed"], line["changed"]) == (("ondo",), ("ondo",))
    await until(lambda: not paused())
    await running.asked("ondo", 5)


async def test_a_hundred_wishes_at_once_are_one_or_two_and_harm_nobody(running):
    for number in range(100):
        running.providers["helius"]["timeout"] = 5.0 + number
        running.daemon.reload()
        await anyio.sleep(0.002)
    await until(lambda: running.daemon.config.providers["helius"].timeout == 104.0)
    assert len(running.lines()) < 100
    await running.asked("helius", 10)
    assert running.refusals() == {}


def tokens_file(path, *tokens):
    path.write_text(
        "".join(f'[[token]]\nsha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n' for token in tokens)
    )
    return str(path)


async def closed(stream):
    with anyio.fail_after(PATIENCE), contextlib.suppress(ConnectionClosed):
        while True:
            await stream.recv()
    return stream.close_code


async def answer(socket):
    """What comes back; heartbeats may come before it."""
    while "id" not in (message := json.loads(await socket.recv())):
        pass
    return message


async def test_a_token_that_is_gone_ends_its_streams_and_no_others(running, tmp_path):
    url = f"ws://127.0.0.1:{running.daemon._port.number}/v1/stream"
    with_token = lambda token: connect(url, additional_headers={"Authorization": f"Bearer {token}"})  # noqa: E731
    async with connect(url) as anyone:
        running.table["relay"]["tokens_file"] = tokens_file(tmp_path / "tokens", "canary-one", "canary-two")
        assert (await running.reload())["relay"]
        assert await closed(anyone) == 4201
    async with with_token("canary-one") as one, with_token("canary-two") as two:
        assert json.loads(await two.recv())["auth"] == "ok"
        tokens_file(tmp_path / "tokens", "canary-two", "canary-three")
        assert (await running.reload())["result"] == "applied"
        assert await closed(one) == 4201
        for token, result in (("canary-three", "result"), ("canary-one", "error"), ("canary-two", "result")):
            await two.send(json.dumps({"id": 1, "method": "auth", "params": {"token": token}}))
            assert result in await answer(two)
        assert (await running.reload())["result"] == "unchanged"
        tokens_file(tmp_path / "tokens", "canary-three")
        await running.reload()
        assert await closed(two) == 4201
    with pytest.raises(InvalidStatus):
        async with with_token("canary-one"):
            pass


async def test_while_the_journal_is_down_a_reload_waits_for_nothing_and_all_is_right_once_it_is_back(running):
    (committer,) = running.daemon.partitions.committers
    commit, down = committer._writer.commit, anyio.Event()

    async def refuse(batch):
        if not down.is_set():
            raise Unavailable("the disk is away")
        await commit(batch)

    committer._writer.commit = refuse
    await until(lambda: committer.problem)
    removed = running.providers["helius"]["watch"].pop()
    line = await running.reload()
    assert line["watches_removed"] == {"helius": 1}
    running.providers["helius"]["watch"].append(removed)
    running.providers.pop("bloxroute")
    await running.reload()
    down.set()
    await until(lambda: not committer.problem)
    await running.settled()
    events, _ = await running.told()
    assert events
    assert running.refusals() == {}


async def test_alerts_come_and_go_with_a_reload_and_the_edit_itself_tells_nothing(running):
    await running.settled()
    table = {"name": "any", "above": "0", "provider": "helius"}
    running.table["alert"] = [table]
    line = await running.reload()
    assert (line["result"], line["alerts_added"]) == ("applied", ("any",))
    committers = running.daemon.partitions.committers
    known = [
        key for each in committers for key in each.ledger.known_keys() if each.ledger.get(key).amount not in {None, "0"}
    ]
    known = [key for key in known if key.provider == "helius"]
    await until(lambda: sum(each.ledger.fired.get("any", 0) for each in committers) == len(known) > 0)
    assert sum(each.figures.crossings["any", "above"] for each in committers) == len(known)
    running.table["alert"] = [table | {"above": "1" + "0" * 60}]
    assert (await running.reload())["alerts_changed"] == ("any",)
    await until(lambda: sum(each.figures.crossings["any", "cleared"] for each in committers) == len(known))
    running.table["alert"] = []
    assert (await running.reload())["alerts_removed"] == ("any",)
    assert (await running.reload())["result"] == "unchanged"
