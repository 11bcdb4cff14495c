"""`watcher run --only relay`: relays in processes of their own, and a cursor that is carried from one to the other."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import sys
import urllib.request
from itertools import count, pairwise
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from watcher.sandbox.world import VALID_KEY, tables

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[2]
KEY = "ONLY_RELAY_API_KEY"
REQUESTS = {"helius": 12, "ondo": 8, "tokenkit": 3}
"""A second, of each provider that is polled here."""
PARTITIONS = 3
PATIENCE = 180.0
"""Seconds for anything to come about on a busy machine before it counts as stuck."""


class House:
    """The processes of one test, on one config."""

    def __init__(self, folder, journal, more):
        self.folder = folder
        self.file = folder / "watcher.toml"
        self.journal = journal
        self.more = more
        self.processes = []
        self.numbers = count()

    def write(self, port):
        lines = [f"journal = {json.dumps(self.journal)}", self.more, "[relay]", "port = 0"]
        for name, table in tables(port, 1, KEY).items():
            if name in REQUESTS:
                watches = table.pop("watch")
                if name == "tokenkit":
                    table["max_age"] = 0
                lines += [f"[providers.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
                lines.append(f"limits = [{{ requests = {REQUESTS[name]}, per = 1.0 }}]")
                for watch in watches:
                    entries = (f"{key} = {json.dumps(value)}" for key, value in watch.items())
                    lines += [f"[[providers.{name}.watch]]", *entries]
        self.file.write_text("\n".join(lines))

    async def begin(self, *arguments, key=None):
        """A process and the file it writes to. Only who is given the key has it in its environment."""
        path = self.folder / f"{next(self.numbers)}.log"
        environment = {name: value for name, value in os.environ.items() if name != KEY}
        with path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "watcher", *map(str, arguments)),
                cwd=ROOT,
                env=environment | ({KEY: key} if key else {}),
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process, path

    async def run(self, only, **more):
        """One half, once it serves: the process and its port."""
        process, path = await self.begin("run", "--only", only, "-c", self.file, **more)
        record = await told(process, path, lambda line: '"event":"started"' in line.replace(" ", ""))
        return process, json.loads(record)["port"]

    async def status(self, *arguments):
        """Of a command that ends by itself, and what it said."""
        process, path = await self.begin(*arguments)
        with anyio.fail_after(PATIENCE):
            return await process.wait(), path.read_text()

    async def end(self):
        for process in self.processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def told(process, path, wanted):
    """The first line of a log that is wanted."""
    with anyio.fail_after(PATIENCE):
        while True:
            text = path.read_text()
            for line in text.splitlines():
                if wanted(line):
                    return line
            assert process.returncode is None, text
            await anyio.sleep(0.02)


@contextlib.asynccontextmanager
async def house(folder, journal, more=""):
    found = House(folder, journal, more)
    found.write(1)
    try:
        yield found
    finally:
        with anyio.CancelScope(shield=True):
            await found.end()


async def kill(process, how=signal.SIGKILL):
    process.send_signal(how)
    await process.wait()


async def balances(port):
    """The cursor, and the version of each key."""

    def ask():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/balances") as answer:
            return json.load(answer)

    found = await anyio.to_thread.run_sync(ask)
    return found["cursor"], {name(row): row["version"] for row in found["data"]}


def name(row):
    return tuple(row[part] for part in ("provider", "chain", "account", "token", "kind"))


def stream(port):
    return connect(f"ws://127.0.0.1:{port}/v1/stream", compression=None, open_timeout=PATIENCE, ping_interval=None)


class Follower:
    """Follows from a cursor, on whichever relay; keeps the versions of each key as they were told."""

    def __init__(self, cursor):
        self.cursor = cursor
        self.versions = {}
        self.count = 0

    async def follow(self, port, on_update=lambda: None):
        """Until the connection ends."""
        with contextlib.suppress(ConnectionClosed):
            async with stream(port) as client:
                params = {"cursor": self.cursor, "on_gap": "error"}
                await client.send(json.dumps({"id": 1, "method": "subscribe", "params": params}))
                async for text in client:
                    message = json.loads(text)
                    assert "error" not in message, message
                    if message.get("type") == "update":
                        self.take(message)
                        on_update()

    def take(self, message):
        self.cursor = message["cursor"]
        self.count += 1
        self.versions.setdefault(name(message["event"]), []).append(message["event"]["version"])

    async def until(self, condition):
        with anyio.fail_after(PATIENCE):
            while not condition(self):  # noqa: ASYNC110 - its updates come from another process
                await anyio.sleep(0.02)

    async def lives_on(self, port, updates, process=None):
        """So many more updates from one relay; then that relay is killed, or this one leaves without a word."""
        most = self.count + updates
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.follow, port)
            await self.until(lambda one: one.count >= most)
            if process is None:
                tasks.cancel_scope.cancel()
            else:
                await kill(process)


def complete(follower, before, after):
    """Whether it was told exactly every version between two looks, each once and in order."""
    expected = {key: list(range(before.get(key, 0) + 1, last + 1)) for key, last in after.items()}
    return follower.versions == {key: versions for key, versions in expected.items() if versions}


def faults(follower):
    """Steps of a key that are not by one: gaps and repetitions."""
    return {
        key: versions
        for key, versions in follower.versions.items()
        if any(after != before + 1 for before, after in pairwise(versions))
    }


async def carried(house, reported=anyio.lowlevel.checkpoint):
    """The story, once the journal is there; the pollers end when they have `reported` on themselves. Gives what the relay that came last tells: its port, cursor and versions."""
    sandbox, path = await house.begin("sandbox", "--port", 0, "--rate", 60, "--limits", "none")
    house.write(int((await told(sandbox, path, lambda line: "127.0.0.1" in line)).split()[0].rpartition(":")[2]))
    starting = [*(house.run("relay") for _ in range(3)), house.run("pollers", key=VALID_KEY)]
    (stays, stays_on), (first, first_on), (second, second_on), (pollers, none) = await asyncio.gather(*starting)
    assert none is None
    await settled(stays_on)
    cursor, before = await balances(stays_on)
    stayer, goer = Follower(cursor), Follower(cursor)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stayer.follow, stays_on)
        await goer.lives_on(first_on, 6, first)
        await goer.lives_on(stays_on, 6)
        await goer.lives_on(second_on, 6)
        await goer.lives_on(stays_on, 6)
        await goer.lives_on(second_on, 6, second)
        tasks.start_soon(goer.follow, stays_on)
        await reported()
        await kill(pollers, signal.SIGTERM)
        assert pollers.returncode == 0
        late, late_on = await house.run("relay")  # the pollers are down, and it serves
        end, after = await balances(late_on)
        for each in (stayer, goer):
            await each.until(lambda one: complete(one, before, after) or faults(one))
            assert (faults(each), complete(each, before, after)) == ({}, True)
        assert goer.count == stayer.count >= 30
        tasks.cancel_scope.cancel()
    assert stays.returncode is late.returncode is None
    return late_on, end, after


async def settled(port):
    """Until there is something to follow."""
    with anyio.fail_after(PATIENCE):
        while not any((await balances(port))[1].values()):  # noqa: ASYNC110 - another process does it
            await anyio.sleep(0.05)


async def reported(path):
    """Until a success of each provider stands in the journal: after a slow start the first report tells of none."""
    with anyio.fail_after(PATIENCE), contextlib.closing(sqlite3.connect(path)) as database:
        while True:
            told = [json.loads(data) for (data,) in database.execute("SELECT data FROM provider")]
            if {each["provider"] for each in told if each["last_success"]} == set(REQUESTS):
                return
            await anyio.sleep(0.05)


@pytest.mark.parametrize("how", ["never", "other"])
async def test_a_relay_before_init_says_what_to_do_and_ends_with_status_2(tmp_path, how):
    path = tmp_path / "balances.db"
    if how == "other":
        path.touch()
    async with house(tmp_path, f"sqlite:///{path}") as at:
        status, text = await at.status("run", "--only", "relay", "-c", at.file)
        assert (status, "watcher init" in text) == (2, True), text


async def test_a_cursor_is_carried_between_relay_processes_on_sqlite(tmp_path):
    async with house(tmp_path, f"sqlite:///{tmp_path / 'balances.db'}") as at:
        assert (await at.status("init", "-c", at.file))[0] == 0
        port, end, rows = await carried(at, lambda: reported(tmp_path / "balances.db"))
        async with stream(port) as client:
            seen, beat = await snapshot_and_heartbeat(client)
        assert seen == rows
        assert beat["cursor"] == end
        assert {name for name, health in beat["providers"].items() if health["last_success"] < beat["time"]} == set(
            REQUESTS
        )


async def snapshot_and_heartbeat(client):
    """What a relay tells while nothing is polled: the versions that it shows, and its first heartbeat."""
    await client.send(json.dumps({"id": 1, "method": "subscribe"}))
    seen = {}
    with anyio.fail_after(PATIENCE):
        async for text in client:
            message = json.loads(text)
            if message.get("type") == "snapshot":
                seen |= {name(row): row["version"] for row in message["data"]}
            if message.get("type") == "heartbeat" and "cursor" in message:  # one of before the subscription has none
                return seen, message
    raise AssertionError("the relay went")


@pytest.mark.kafka
async def test_a_cursor_is_carried_between_relay_processes_on_kafka(tmp_path, kafka, prefix):
    more = f'[kafka]\ntopic_prefix = "{prefix}"\npartitions = {PARTITIONS}'
    async with house(tmp_path, f"kafka://{kafka.address}", more) as at:
        status, text = await at.status("run", "--only", "relay", "-c", at.file)
        assert (status, "watcher init" in text) == (2, True), text
        assert (await at.status("init", "-c", at.file))[0] == 0
        await carried(at)
