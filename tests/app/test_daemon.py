"""The root: what it makes of the config, before anything runs."""

from itertools import pairwise

import anyio
import httpx
import msgspec
import pytest
from trio.testing import MockClock

from tests.app.test_settings import HELIUS
from tests.journal.acme_memory import Log, MemoryJournal
from tests.polling import Api, fine
from watcher.app import settings
from watcher.app.daemon import HEARTBEAT, LEAST_BETWEEN_HEARTBEATS, Daemon, wall
from watcher.app.partition_runner import Polling, ToPoll
from watcher.ingest.last_seen_notes import LastSeenNotes
from watcher.poller.connections import HttpConnections
from watcher.runtime.config_section import SettingsError

NEW = "canary-new-key"


def test_a_reload_that_is_wished_for_before_the_journal_is_open_is_done_once_it_is(tmp_path):
    key = tmp_path / "helius.key"
    key.write_text("canary-old-key")
    table = {name: value for name, value in HELIUS.items() if name != "api_key_env"} | {"api_key_file": str(key)}
    table["base_url"] = "http://127.0.0.1:1"
    config = {"journal": f"sqlite:///{tmp_path / 'x.db'}", "relay": {"port": 0}, "providers": {"helius": table}}

    async def main():
        daemon = Daemon(settings.parse(config), {})
        key.write_text(NEW)
        daemon.reload()
        async with anyio.create_task_group() as tasks:
            await tasks.start(daemon.run)
            while not daemon.reloads.by_result["applied"]:  # noqa: ASYNC110 (it sets no event)
                await anyio.sleep(0.01)
            assert NEW in str(msgspec.to_builtins(daemon.sources[0].credentials()))
            key.unlink()
            daemon.reload()
            while not daemon.reloads.by_result["refused"]:  # noqa: ASYNC110
                await anyio.sleep(0.01)
            assert NEW in str(msgspec.to_builtins(daemon.sources[0].credentials()))
            tasks.cancel_scope.cancel()

    anyio.run(main)


FLEET = {"journal": "kafka://localhost:1", "kafka": {"group": "balances", "member_env": "MEMBER"}}


def test_a_relay_beside_a_fleet_is_no_member_and_needs_no_name():
    config = settings.parse({**FLEET, "providers": {"helius": HELIUS}})
    assert Daemon(config, {}, "relay").instance
    assert Daemon(config, {"MEMBER": "one"}, "relay").instance != "one", "its heartbeats would be those of the member"
    keys = {HELIUS["api_key_env"]: NEW}
    assert Daemon(config, {**keys, "MEMBER": "one"}, "pollers").instance == "one"
    with pytest.raises(SettingsError, match="member_env"):
        Daemon(config, keys, "pollers")


class Heard(MemoryJournal):
    """Keeps when heartbeats came, and of whom they spoke."""

    def __init__(self):
        super().__init__(Log())
        self.beats = []

    def writer(self, _partition):
        return super().writer(0)

    async def heartbeat(self, health):
        self.beats.append((anyio.current_time(), {one.provider: one.state for one in health}))


def test_a_provider_that_comes_later_and_does_not_answer_silences_no_other():
    async def main():
        table = {"providers": {"helius": HELIUS, "second": {**HELIUS, "type": "helius"}}}
        daemon = Daemon(settings.parse(table), {HELIUS["api_key_env"]: NEW})
        daemon.partitions._journal = daemon.journal = heard = Heard()

        async def polled(partition, name):
            (source,) = [source for source in daemon.sources if source.provider.name == name]
            runner = daemon.partitions.runner(partition)
            poller = runner._poller(ToPoll(partition, source), transport := HttpConnections(lambda: True))
            runner._polled[name] = Polling(poller, transport, LastSeenNotes(name, runner.committer, wall))
            tasks.start_soon(daemon.partitions._polled, poller)
            return poller

        async with anyio.create_task_group() as tasks:
            (await polled(0, "helius")).answered.set()
            tasks.start_soon(daemon._send_heartbeats)
            await anyio.sleep(HEARTBEAT - 1)
            await polled(1, "second")
            await anyio.sleep(2 * HEARTBEAT)
            tasks.cancel_scope.cancel()
        return heard.beats

    beats = anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})
    times = [time for time, providers in beats if "helius" in providers]
    assert len(times) >= 3
    assert max(after - before for before, after in pairwise(times)) <= HEARTBEAT + 0.1


def test_a_state_that_changes_is_published_at_once_and_one_that_flaps_no_faster_than_is_useful():
    """Fine for 20 s, down for 20 s, then five good answers and five failures in turn, a second each."""

    def answer(request, n):
        now = anyio.current_time()
        down = 20 <= now < 40 or (now >= 40 and int(now / 5) % 2)
        return httpx.Response(503) if down else fine(request, n)

    async def main():
        table = {"providers": {"helius": {**HELIUS, "limits": [{"requests": 2, "per": 1.0}]}}}
        daemon = Daemon(settings.parse(table), {HELIUS["api_key_env"]: NEW})
        daemon.partitions._journal = daemon.journal = heard = Heard()
        async with anyio.create_task_group() as tasks:
            runner = daemon.partitions.runner(0)
            runner.committer.lease.begin(0.0)
            runner.committer.lease.renew(1e9)
            (source,) = daemon.sources
            poller = runner._poller(ToPoll(0, source), httpx.MockTransport(Api(answer)))
            runner._polled["helius"] = Polling(
                poller, HttpConnections(lambda: True), LastSeenNotes("helius", runner.committer, wall)
            )
            tasks.start_soon(daemon.partitions._polled, poller)
            await tasks.start(runner.committer.run)
            await tasks.start(poller.run)
            tasks.start_soon(daemon._send_heartbeats)
            await anyio.sleep(100)
            tasks.cancel_scope.cancel()
        return [(time, providers["helius"]) for time, providers in heard.beats]

    beats = anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})
    assert min(time for time, state in beats if state == "failing") < 22 + LEAST_BETWEEN_HEARTBEATS
    assert min(time for time, state in beats if state == "ok" and time > 24) < 41 + LEAST_BETWEEN_HEARTBEATS
    times = [time for time, _ in beats]
    assert all(after - before >= LEAST_BETWEEN_HEARTBEATS for before, after in pairwise(times))
    states = [state for time, state in beats if time > 45]
    assert sum(before != after for before, after in pairwise(states)) >= 8, "each turn is published"
