"""Real processes on loopback: the sandbox, `watcher run` before it, and whoever reads what it tells."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import websockets
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from websockets.sync.client import connect

from tests.e2e import checker
from watcher.sandbox.world import VALID_KEY, tables

ROOT = Path(__file__).resolve().parents[2]
KEY = "E2E_API_KEY"
PATIENCE = 300.0
"""Seconds for anything to come about on a busy machine before it counts as stuck."""
TURN, STILL = 0.05, 0.25
"""Seconds: after which we look again whether a process has ended, and which that may take in the worst case. When it takes
longer, the machine stood still, and the process with us."""

REQUESTS = {"jupiter": 16, "bloxroute": 20, "helius": 24, "ondo": 14, "tokenkit": 1}
"""A second, at the sandbox and in the config alike. bloXroute's calls cost five each; TokenKit tells whole seconds, and
real limits never let it tell one of them twice. bloXroute and Ondo are read so often that the watcher can remember all that
it saw for as long as a lagging replica lags: 32 amounts in 20 s."""
SCALED = ",".join(f"{provider}={requests}/1" for provider, requests in REQUESTS.items())


class Stuck(AssertionError):
    """Something that must come about did not."""


def until(condition, what, patience=PATIENCE):
    """Wait for a condition and give it back. `what`: text, or a callable that gives it when it is needed."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise Stuck(f"not within {patience:g} s: {what() if callable(what) else what}")
        time.sleep(0.02)
    return found


def get(url, *, method="GET", body=None, headers=None):
    """The status and the body of one HTTP exchange."""
    request = urllib.request.Request(url, method=method, data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def written(path):
    """A file that a process may be writing: of its last character only some bytes may stand there yet."""
    return path.read_text(encoding="utf-8", errors="replace")


class Watcher:
    """One `watcher` command as a process of ours; its stdout and stderr go to files, or to descriptors of the test's."""

    def __init__(
        self,
        folder,
        *arguments,
        env=None,
        cwd=None,
        program=(sys.executable, "-m", "watcher"),
        stdout=None,
        stderr=None,
    ):
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("*.out")))
        self.arguments = arguments
        self._out = folder / f"{arguments[0]}-{number}.out"
        self._err = folder / f"{arguments[0]}-{number}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*program, *map(str, arguments)],
                stdout=out if stdout is None else stdout,
                stderr=err if stderr is None else stderr,
                cwd=cwd or ROOT,
                env=os.environ | {KEY: VALID_KEY} | dict(env or {}),
            )

    @property
    def out(self):
        return written(self._out)

    @property
    def err(self):
        return written(self._err)

    @property
    def status(self):
        return self.process.poll()

    @property
    def logged(self):
        """The events of its log, whole lines only."""
        lines = self.err.splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def told(self, event, **fields):
        """The first log record of that event with these fields, if there is one."""
        for record in self.logged:
            if record["event"] == event and fields.items() <= record.items():
                return record
        return None

    def until_told(self, event, **fields):
        def settled():
            return self.told(event, **fields) or self.status is not None

        until(settled, lambda: f"{event} {fields} of {self.arguments}: {self.err[-2000:]}")
        record = self.told(event, **fields)
        if record is None:
            raise Stuck(f"{self.arguments} ended with {self.status} before {event}: {self.err[-2000:]}")
        return record

    def end(self, how=signal.SIGTERM, patience=PATIENCE):
        """Send a signal and wait: (status, seconds that it took, without those in which the machine stood still)."""
        took, last = 0.0, time.monotonic()
        self.process.send_signal(how)
        while took < patience:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(TURN)
            now = time.monotonic()
            took, last = took + min(now - last, STILL), now
            if self.process.returncode is not None:
                return self.process.returncode, took
        raise Stuck(f"{self.arguments} did not end {patience:g} s after {how.name}: {self.err[-2000:]}")

    def wait(self, patience=PATIENCE):
        """Its status, once it has ended by itself."""
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise Stuck(f"{self.arguments} did not end by itself: {self.err[-2000:]}") from None

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Sandbox:
    """`watcher sandbox`, and what it says really happened."""

    def __init__(self, house, *, seed=1, rate=5.0, faults="none", limits=SCALED):
        self.seed = seed
        self.process = house.watcher(
            "sandbox", "--port", 0, "--seed", seed, "--rate", rate, "--faults", faults, "--limits", limits
        )
        until(lambda: "\n" in self.process.out or self.process.status is not None, "the sandbox serves")
        if not self.process.out:
            raise Stuck(f"the sandbox ended with {self.process.status}: {self.process.err[-2000:]}")
        self.url = self.process.out.split()[0]
        self.port = int(self.url.rpartition(":")[2])

    def providers(self, **more):
        """`[providers.NAME]` tables that see all of it, at its limits; `more`: further keys by name."""
        found = {}
        for name, table in tables(self.port, self.seed, KEY).items():
            # An answer that was given up here is one that a lagging replica may give again as if it were new.
            quick = {"limits": [{"requests": REQUESTS[name], "per": 1.0}], "timeout": PATIENCE}
            if name == "tokenkit":
                quick["max_age"] = 0
            found[name] = {**table, **quick, **more.get(name, {})}
        return found

    def report(self, *, history=True):
        return json.loads(get(f"{self.url}/_truth?history={int(history)}")[1])

    def freeze(self):
        assert get(f"{self.url}/_freeze", method="POST", body=b"")[0] == 200

    def faults(self, words):
        assert get(f"{self.url}/_faults", method="POST", body=words.encode())[0] == 200


class House:
    """Everything that one test has started, in a folder of its own; `close` ends it by its ids."""

    def __init__(self, folder):
        self.folder = folder
        self._stack = contextlib.ExitStack()

    def watcher(self, *arguments, **more):
        process = Watcher(self.folder / "processes", *arguments, **more)
        self._stack.callback(process.close)
        return process

    def sandbox(self, **more):
        return Sandbox(self, **more)

    def config(self, providers, *, journal=None, name="watcher.toml", **more):
        path = self.folder / name
        table = {"journal": journal or f"sqlite:///{self.folder / 'balances.db'}", "relay": {"port": 0}, **more}
        path.write_text(toml(table | {"providers": providers}))
        return path

    def run(self, config, *arguments, **more):
        """`watcher run`, once it serves."""
        process = self.watcher("run", "-c", config, *arguments, **more)
        process.port = process.until_told("started")["port"]
        return process

    def finished(self, *arguments, **more):
        """A command that ends by itself."""
        process = self.watcher(*arguments, **more)
        process.wait()
        return process

    def follower(self, port):
        follower = Follower(port)
        self._stack.callback(follower.close)
        return follower

    def close(self):
        self._stack.close()


class Follower:
    """A websocket client of plain `websockets`, on a thread: subscribes once, then resumes behind the last cursor.

    `events` has what it was told, in order; what came again after a cut is kept once.
    """

    def __init__(self, port):
        self.port = port
        self.events = []
        self.snapshot = []
        self.resumed = 0
        self.cursor = None
        self.trouble = []
        self._seen = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def close(self):
        self._stopping = True
        self._thread.join()

    def _follow(self):
        while not self._stopping:
            with contextlib.suppress(OSError, websockets.WebSocketException):
                self._converse()
            time.sleep(0.05)

    def _converse(self):
        with connect(f"ws://127.0.0.1:{self.port}/v1/stream", compression=None, max_size=None) as socket:
            self._subscribe(socket)
            while not self._stopping:
                with contextlib.suppress(TimeoutError):
                    self._take(json.loads(socket.recv(timeout=0.2)))

    def _subscribe(self, socket):
        self.snapshot = self.snapshot if self.cursor else []
        params = {} if self.cursor is None else {"cursor": self.cursor, "on_gap": "error"}
        socket.send(json.dumps({"id": 1, "method": "subscribe", "params": params}))

    def _take(self, message):
        if "error" in message:
            self.trouble.append(message["error"])
        elif message.get("id") == 1 and message["result"]["recovered"]:
            self.resumed += 1
        elif message.get("type") == "snapshot":
            self.snapshot += message["data"]
            if message["last"]:
                self.cursor = message["cursor"]
        elif message.get("type") == "update":
            self._keep(message["event"])
            self.cursor = message["cursor"]
        elif message.get("type") == "heartbeat":
            self.cursor = message.get("cursor", self.cursor)

    def _keep(self, event):
        key = checker.name(event)
        if event["version"] > self._seen.get(key, 0):
            self._seen[key] = event["version"]
            self.events.append(event)


def balances(port):
    """The committed states, from `GET /v1/balances`."""
    return json.loads(get(f"http://127.0.0.1:{port}/v1/balances")[1])["data"]


def denied(sandbox, provider):
    """How many requests the sandbox has refused for their key."""
    return sandbox.report(history=False)["providers"][provider]["denied"]


def at_rest(daemon, provider):
    """Wait until every request to a provider that is left alone has ended: none may still be on its way there."""

    def figure(name):
        text = get(f"http://127.0.0.1:{daemon.port}/metrics")[1].decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name) and label in line)

    label = f'provider="{provider}"'
    names = ("watcher_answers_total", "watcher_poll_failures_total", "watcher_unsent_total")
    ended = lambda: sum(map(figure, names))  # noqa: E731
    until(lambda: 0 < figure("watcher_polls_total") == ended(), f"every request to {provider} ends")


def settle(sandbox, port):
    """Stop moves and faults, and wait until every state is what it really is: (report, states)."""
    sandbox.freeze()
    sandbox.faults("none")
    truth = checker.truths(sandbox.report())
    left = {}

    def settled():
        left.clear()
        left.update(checker.unsettled(balances(port), truth))
        return not left

    until(settled, lambda: f"{len(left)} balances do not become what they are: {dict(list(left.items())[:5])}")
    return sandbox.report(), balances(port)


def consumed(address, prefix, partitions):
    """Every event that a `read_committed` consumer outside our code finds on Kafka: [(headers, event)]."""
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": prefix,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    topic = f"{prefix}balances.changed.v1"
    found, ended = [], set()
    deadline = time.monotonic() + PATIENCE
    try:
        consumer.assign([TopicPartition(topic, part, OFFSET_BEGINNING) for part in range(partitions)])
        while len(ended) < partitions:
            if time.monotonic() > deadline:
                raise Stuck(f"{len(ended)} of {partitions} partitions are read to their end")
            for message in consumer.consume(5000, 1.0):
                if not message.error():
                    found.append((message.key(), dict(message.headers()), json.loads(message.value())))
                elif message.error().name() == "_PARTITION_EOF":
                    ended.add(message.partition())
                else:
                    raise Stuck(message.error().str())
    finally:
        consumer.close()
    return found


def toml(table):
    """As much TOML as a config needs: JSON's scalars and lists are TOML's."""
    lines = [f"{key} = {inline(value)}" for key, value in table.items() if not isinstance(value, Mapping)]
    for name in ("relay", "kafka"):
        if name in table:
            lines += [f"[{name}]", *(f"{key} = {inline(value)}" for key, value in table[name].items())]
    for name, provider in table["providers"].items():
        lines += [f"[providers.{name}]", *(f"{key} = {inline(value)}" for key, value in provider.items())]
    return "\n".join(lines) + "\n"


def inline(value):
    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {inline(each)}' for key, each in value.items())} }}"
    return json.dumps(value)


def one_clear_line(process, status, *says):
    """The contract of every mistake: its status, nothing but one line for the user (logs aside), no traceback."""
    assert process.status == status, process.err
    lines = [line for line in process.err.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, process.err
    assert re.match(r"watcher( \w+)?: ", lines[0])
    assert "Traceback" not in process.err
    for part in says:
        assert part in lines[0], lines[0]
