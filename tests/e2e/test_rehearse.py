"""`watcher rehearse` as a process: what it prints for programs, and how it ends when somebody has seen enough."""

import json
import signal
import time
from pathlib import Path

import anyio
import pytest
from confluent_kafka.admin import AdminClient

from tests.e2e.harness import until
from tests.e2e.test_past import begun
from watcher.app.daemon import journal_of
from watcher.app.settings import parse
from watcher.model.keys import Filter
from watcher.rehearsal.recorded import read
from watcher.sandbox.world import tables
from watcher.testing.sandbox import RunningWatcher, Sandbox


def config(house, **more):
    """All five, with nobody behind the port: nobody is asked."""
    found = tables(9, 1, "NOT_SET")
    return house.config({name: {**table, **more} for name, table in found.items()})


def children(pid):
    return [int(one) for file in Path(f"/proc/{pid}/task").glob("*/children") for one in file.read_text().split()]


def test_all_providers_are_rehearsed_without_a_key_and_without_a_request(house):
    path = config(house)
    done = house.finished("rehearse", "-c", path, "--old", path, "--days", "1", "--json")
    assert (done.status, done.err) == (0, "")
    document = json.loads(done.out)
    assert [one["provider"] for one in document["new"]] == ["jupiter", "bloxroute", "helius", "ondo", "tokenkit"]
    assert document["old"] == document["new"]
    assert all(one["unread"] == 0 and one["delays"]["mean"] > 0 for one in document["new"])


def test_a_ctrl_c_ends_it_with_all_its_processes_and_quietly(house):
    process = house.watcher("rehearse", "-c", config(house), "--days", "300", "--whole")
    pid = process.process.pid
    until(lambda: len(children(pid)) >= 2 or process.status is not None, "it has others work for it")
    workers = children(pid)
    assert process.end(signal.SIGINT)[0] == 0
    assert (process.out, process.err) == ("", "")
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), "they have ended, too")


@pytest.mark.kafka
def test_topics_of_before_are_named_and_where_there_are_none_changes_are_made_up(house, kafka, prefix):
    url, table = f"kafka://{kafka.address}", {"topic_prefix": prefix, "partitions": 2}
    path = house.config({"helius": tables(2, 1, "NOT_SET")["helius"]}, journal=url, kafka=table)
    nothing = house.finished("rehearse", "-c", path, "--days", "0.1")
    assert (nothing.status, nothing.err) == (0, "")
    assert "the journal knows nothing of it" in nothing.out
    assert house.finished("init", "-c", path).status == 0
    admin = AdminClient({"bootstrap.servers": kafka.address})
    for future in admin.delete_topics([f"{prefix}balances.crossed.v1"]).values():
        future.result(30)
    before = house.finished("rehearse", "-c", path, "--days", "0.1")
    assert (before.status, before.out) == (2, "")
    assert before.err == f"watcher: topic {prefix}balances.crossed.v1 is missing: run `watcher init`\n"


@pytest.mark.kafka
def test_a_past_on_kafka_is_read_to_its_end(kafka, prefix, tmp_path):
    journal = {"journal": f"kafka://{kafka.address}", "kafka": {"topic_prefix": prefix, "partitions": 3}}
    with Sandbox(seed=5, rate=5.0) as sandbox:
        config = sandbox.config(tmp_path, **journal)
        anyio.run(begun, config, sandbox.environment)
        with RunningWatcher(config, sandbox.environment):
            time.sleep(8)

    async def both():
        opened = journal_of(parse(config), sandbox.environment)
        reader = await opened.reader()
        try:
            head = (await reader.bounds()).head
            events = [event async for part in reader.between(Filter(), 0, 2**62, head) for event in part.events]
            return len([one for one in events if one.type == "changed"]), await read(reader, lambda _: None)
        finally:
            await reader.close()
            await opened.close()

    count, found = anyio.run(both)
    assert sum(map(len, found.changes.values())) == count > 10
    assert set(found.changes) <= set(found.opening) == set(found.stamps)
