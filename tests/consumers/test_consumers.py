"""Foreign consumers read a log of ours, each with its own decoder, and find every law kept."""

import subprocess
from uuid import uuid4

import anyio
import pytest

from tests.consumers.clients import Confluent, Console, KafkaJs, Kcat, Streams
from tests.consumers.laws import Judge
from tests.consumers.written_log import desk, written

pytestmark = pytest.mark.kafka

CLIENTS = {
    "streams": (Streams(), "json"),
    "console": (Console(), "json"),
    "uncommitted console": (Console(committed=False), "json"),
    "kafkajs": (KafkaJs(), "json"),
    "kafkajs, msgpack": (KafkaJs(), "msgpack"),
    "kcat": (Kcat(), "json"),
    "confluent": (Confluent(), "json"),
    "confluent, msgpack": (Confluent(), "msgpack"),
}
"""The slowest to start come first."""
PATIENCE = 180.0
"""Seconds for a consumer to start and to end on a busy machine."""


@pytest.fixture(scope="module")
def logs(kafka):
    """Encoding → the log that was written in it."""
    return {
        encoding: anyio.run(written, kafka.address, f"test-{uuid4().hex[:12]}.", encoding)
        for encoding in ("json", "msgpack")
    }


class Running:
    """The processes of one client, side by side with all others."""

    def __init__(self, client, log, folder):
        self.client = client
        self.skipped = None
        self._processes = []
        folder.mkdir()
        try:
            for number, command in enumerate(client.commands(log, folder)):
                with (folder / f"{number}.out").open("wb") as out, (folder / f"{number}.err").open("wb") as err:
                    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
                self._processes.append((process, folder / f"{number}"))
        except pytest.skip.Exception as reason:
            self.skipped = str(reason)

    def lines(self):
        """What it printed, once it has ended well."""
        if self.skipped:
            pytest.skip(self.skipped)
        for process, place in self._processes:
            status = process.wait(PATIENCE)
            assert status == 0, place.with_suffix(".err").read_text()[-4000:]
            with place.with_suffix(".out").open() as output:
                yield from self.client.lines(output)

    def end(self):
        for process, _ in self._processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def running(logs, tmp_path_factory):
    folder, started = tmp_path_factory.mktemp("consumers"), {}
    try:
        for name, (client, encoding) in CLIENTS.items():
            started[name] = Running(client, logs[encoding], folder / name.replace(", ", "-"))
        yield started
    finally:
        for one in started.values():
            one.end()


def judged(lines, encoding):
    judge = Judge(encoding)
    for line in lines:
        judge.record(line)
    return judge.finish()


@pytest.mark.parametrize("name", [name for name in CLIENTS if name not in ("uncommitted console", "streams")])
def test_a_foreign_consumer_finds_every_law_kept(name, logs, running):
    encoding = CLIENTS[name][1]
    judge = judged(running[name].lines(), encoding)
    assert not judge.broken, judge.checker.examples
    assert judge.keys == logs[encoding].keys
    assert (judge.checker.events, judge.checker.states) == (logs[encoding].events, logs[encoding].states)
    assert judge.checker.events >= 10_000


def test_a_consumer_that_reads_what_is_not_committed_finds_laws_broken(logs, running):
    """The control: what the others do not see is there, and the judge sees it."""
    judge, aborted = judged(running["uncommitted console"].lines(), "json"), logs["json"].aborted
    assert judge.checker.events == logs["json"].events + aborted
    assert judge.broken == {
        "id told twice": aborted,
        "version not contiguous": aborted,
        "previous_amount is not the amount before": aborted,
        "two states of one version": aborted,
        "state and event differ": aborted,
    }


def test_a_streams_table_is_what_the_events_lead_to(logs, running):
    """And every change finds its balance in that table, and its row in a global table of somebody else's."""
    log, judge, table = logs["json"], Judge("json"), {}
    for line in running["streams"].lines():
        if "table" in line:
            table[line["table"]] = line["value"]
            continue
        judge.record(line)
        assert line["desk"] == desk(line["key"])
        assert line["balance"]["account"] == line["value"]["account"]
    for key, state in table.items():
        judge.checker.state(("table", key), state)
    judge.finish()
    assert not judge.broken, judge.checker.examples
    assert table.keys() == log.keys
    assert judge.checker.events == log.events
