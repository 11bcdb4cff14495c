"""Webhooks of a real daemon, taken by the receivers that docs/examples has for others: with and without their libraries."""

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

import pytest

from tests.e2e import checker
from tests.e2e.harness import ROOT, get, one_clear_line, settle, until, written
from tests.e2e.test_spine import kafka_journal
from tests.foreign import npm, require
from tests.webhooks.samples import secret

EXAMPLES = ROOT / "docs" / "examples" / "webhooks"
SECRETS = {"WEBHOOK_SECRET": secret("e2e"), "OTHER_SECRET": secret("other")}
TOKEN = {"Authorization": "Bearer canary-of-the-relay"}
ALERT = [{"name": "any", "above": "0"}]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Example:
    """One receiver of docs/examples, as a process."""

    def __init__(self, folder, name, *, port=None, secrets=SECRETS["WEBHOOK_SECRET"]):
        self.name, self.port = name, port or free_port()
        self._folder, self._secrets = folder, secrets
        self._out = folder / f"{name}.out"
        self._process = None

    def start(self):
        if self.name.endswith(".py"):
            command = [sys.executable, str(EXAMPLES / self.name)]
        else:
            require("node")
            command = ["node", str(self._script())]
        environment = os.environ | {"PORT": str(self.port), "WEBHOOK_SECRET": self._secrets}
        with self._out.open("ab") as out:
            self._process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        until(self._serves, lambda: f"{self.name} serves: {written(self._out)}")
        return self

    def _script(self):
        """Where it finds its library."""
        if "library" not in self.name:
            return EXAMPLES / self.name
        modules = self._folder / "npm"
        if not modules.exists():
            npm(ROOT / "tests" / "webhooks" / "npm", modules)
        return shutil.copy(EXAMPLES / self.name, modules / self.name)

    def _serves(self):
        assert self._process.poll() is None, written(self._out)
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    def end(self):
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    @property
    def taken(self):
        """What it has printed: each event once."""
        lines = written(self._out).splitlines(keepends=True) if self._out.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    @property
    def changes(self):
        return [one["data"] for one in self.taken if one["type"] == "balance.changed.v1"]

    @property
    def crossings(self):
        return [one["data"] for one in self.taken if one["type"] == "balance.crossed.v1"]


@pytest.fixture
def examples(tmp_path):
    made = []

    def example(name, **more):
        made.append(Example(tmp_path, name, **more))
        return made[-1].start()

    yield example
    for one in made:
        one.end()


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("receiver*")))
def test_a_sender_that_goes_away_in_the_midst_ends_no_receiver(examples, name):
    receiver = examples(name)
    for body in (b"", b'{"type":'):
        for reset in (False, True):
            with socket.create_connection(("127.0.0.1", receiver.port)) as sender:
                if reset:
                    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sender.sendall(b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + body)
                time.sleep(0.1)  # until it waits for the rest
    assert get(f"http://127.0.0.1:{receiver.port}/hook", method="POST", body=b"{}")[0] == 401


def table(receiver, **more):
    return {
        "name": receiver.name,
        "url": f"http://127.0.0.1:{receiver.port}/hook",
        "secret_env": "WEBHOOK_SECRET",
        "allow_private": True,
        **more,
    }


def metric(port, name, **labels):
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    text = get(f"http://127.0.0.1:{port}/metrics", headers=TOKEN)[1].decode()
    lines = [line for line in text.splitlines() if line.startswith(f"{name}{{") and all(one in line for one in wanted)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def of(events):
    return [(one["id"], one["version"], one["amount"]) for one in events]


def test_each_receiver_takes_every_event_in_order_through_a_kill_of_the_daemon(house, examples):
    sandbox = house.sandbox(rate=20.0)
    names = ("receiver.py", "receiver_library.py", "receiver.mjs", "receiver_library.mjs")
    receivers = [examples(name) for name in names]
    config = house.config(sandbox.providers(), alert=ALERT, webhook=[table(one) for one in receivers])
    daemon = house.run(config, env=SECRETS)
    follower = house.follower(daemon.port)
    until(lambda: all(len(one.changes) >= 10 for one in receivers), "events come")
    daemon.end(signal.SIGKILL)
    daemon = house.run(config, env=SECRETS)
    follower.port = daemon.port
    before = len(follower.events)
    until(lambda: len(follower.events) >= before + 10, "it goes on")
    settle(sandbox, daemon.port)
    until(
        lambda: all(len(one.changes) >= len(follower.events) for one in receivers),
        lambda: f"all come: {[len(one.changes) for one in receivers]} of {len(follower.events)}",
    )
    for receiver in receivers:
        # Its place is saved before anything is delivered, at the head: what it misses was committed before it was known.
        assert of(receiver.changes)[-len(follower.events) :] == of(follower.events)[-len(receiver.changes) :]
        assert len({one["id"] for one in receiver.taken}) == len(receiver.taken)
        assert all(one["timestamp"] == one["data"]["observed_at"] for one in receiver.taken)
        assert all(one["id"] == one["data"]["id"] for one in receiver.taken)
    assert of(receivers[0].crossings)
    assert [of(one.crossings) for one in receivers] == [of(receivers[0].crossings)] * 4
    assert metric(daemon.port, "watcher_webhook_deliveries_total", result="failed") == 0
    assert daemon.end()[0] == 0


@pytest.mark.kafka
def test_on_kafka_each_partition_is_delivered_in_order_and_goes_on_after_a_kill(house, examples, kafka, prefix):
    sandbox, receiver = house.sandbox(rate=20.0), examples("receiver.py")
    journal = kafka_journal(kafka, prefix)
    config = house.config(sandbox.providers(), alert=ALERT, webhook=[table(receiver)], **journal)
    assert house.finished("init", "-c", config, env=SECRETS).status == 0
    daemon = house.run(config, env=SECRETS)
    until(lambda: len(receiver.changes) >= 50, "events come")
    daemon.end(signal.SIGKILL)
    daemon = house.run(config, env=SECRETS)
    follower = house.follower(daemon.port)
    before = len(receiver.changes)
    until(lambda: len(receiver.changes) >= before + 50, "it goes on")
    settle(sandbox, daemon.port)
    until(lambda: set(of(follower.events)) <= set(of(receiver.changes)), "all come")
    versions = {}
    for one in receiver.changes:
        known = versions.setdefault(checker.name(one), one["version"] - 1)
        assert one["version"] == known + 1, "each in its order, and none left out, over the kill"
        versions[checker.name(one)] = one["version"]
    assert len(versions) > 50
    assert receiver.crossings
    assert daemon.end()[0] == 0


def test_a_receiver_that_is_down_is_named_and_makes_nothing_unready(house, examples):
    sandbox = house.sandbox(rate=20.0)
    tables = {"helius": sandbox.providers()["helius"]}
    up, down = examples("receiver.py"), Example(house.folder, "down.py")
    hooks = [table(up, events=["changed"]), table(down, events=["changed"])]
    relay = {"port": 0, "tokens_env": "TOKENS"}
    daemon = house.run(
        house.config(tables, relay=relay, webhook=hooks), env=SECRETS | {"TOKENS": "canary-of-the-relay"}
    )
    until(lambda: len(up.changes) >= 20, "the other one gets its events")
    until(lambda: metric(daemon.port, "watcher_webhook_failing", webhook="down.py") == 1, "it fails")
    status, body = get(f"http://127.0.0.1:{daemon.port}/readyz")
    assert (status, json.loads(body)["webhooks"]) == (200, "failing"), "names need a token"
    status, body = get(f"http://127.0.0.1:{daemon.port}/readyz", headers=TOKEN)
    assert status == 200
    assert json.loads(body)["webhooks"] == {"receiver.py": "ok", "down.py": "the connection was refused"}
    assert metric(daemon.port, "watcher_webhook_lag_seconds", webhook="down.py") > 0
    daemon.until_told("webhook.failing", webhook="down.py", problem="the connection was refused")
    assert daemon.end()[0] == 0


def test_a_reload_adds_removes_and_rotates(house, examples):
    sandbox = house.sandbox(rate=20.0)
    tables = {"helius": sandbox.providers()["helius"]}
    file = house.folder / "secret"
    file.write_text(secret("old"))
    file.chmod(0o600)
    first, second = examples("receiver.py", secrets=secret("new")), examples("receiver_library.py")
    hook = {**table(first), "secret_file": str(file)}
    del hook["secret_env"]
    config = house.config(tables, webhook=[hook])
    daemon = house.run(config, env=SECRETS)
    daemon.until_told("webhook.failing", problem="status 401")
    file.write_text(f"{secret('new')} {secret('old')}")
    house.config(tables, webhook=[hook, table(second, name="second")])
    daemon.process.send_signal(signal.SIGHUP)
    said = daemon.until_told("config.reloaded", result="applied")
    assert (said["webhooks_added"], said["webhooks_changed"]) == (["second"], ["receiver.py"])
    assert said["cannot_change_in_the_environment"][-1] == "[[webhook]] second"
    until(lambda: len(first.changes) >= 5 and len(second.changes) >= 5, "both get events")
    assert first.changes[0]["version"] == 1, "from where it began, although it refused all before"
    house.config(tables)
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until_told("config.reloaded", webhooks_removed=["receiver.py", "second"])
    assert "webhooks" not in json.loads(get(f"http://127.0.0.1:{daemon.port}/readyz")[1])
    assert daemon.end()[0] == 0
    assert secret("new").removeprefix("whsec_")[:12] not in daemon.err


def test_pollers_alone_deliver_too(house, examples):
    sandbox = house.sandbox(rate=20.0)
    receiver = examples("receiver.py")
    config = house.config({"helius": sandbox.providers()["helius"]}, webhook=[table(receiver)])
    daemon = house.run(config, "--only", "pollers", env=SECRETS)
    until(lambda: len(receiver.changes) >= 5, "events come")
    assert daemon.end()[0] == 0


def test_a_test_event_is_sent_and_what_came_of_it_is_said(house, examples):
    receiver = examples("receiver.py")
    providers = house.sandbox(rate=0.0).providers()
    hooks = [table(receiver, name="ops"), table(receiver, name="other", secret_env="OTHER_SECRET")]
    config = house.config({"helius": providers["helius"]}, webhook=hooks)
    good = house.finished("webhook", "test", "-c", config, "ops", env={"WEBHOOK_SECRET": SECRETS["WEBHOOK_SECRET"]})
    assert good.status == 0, good.err
    assert good.out.startswith("ops: status 204 in 0.")
    (taken,) = receiver.taken
    assert taken["id"].startswith("test-")
    assert (taken["type"], taken["data"]) == ("webhook.test", {"webhook": "ops"})
    both = house.finished("webhook", "test", "-c", config, env=SECRETS)
    one_clear_line(both, 69, "1 of 2 webhooks did not take the test event")
    assert "other: status 401" in both.out
    assert "give it the same secret" in both.out
    receiver.end()
    down = house.finished("webhook", "test", "-c", config, "ops", env=SECRETS)
    assert down.status == 69
    assert "ops: not delivered" in down.out
    assert "the connection was refused" in down.out
    wrong = house.finished("webhook", "test", "-c", config, "opps", env=SECRETS)
    one_clear_line(wrong, 2, "no webhook is called 'opps'", "did you mean `ops`?")
    none = house.finished("webhook", "test", "-c", house.config({"helius": providers["helius"]}), env=SECRETS)
    one_clear_line(none, 2, "no [[webhook]]")
