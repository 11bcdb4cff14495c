"""A real Kafka broker for tests: the first rung of a ladder that this machine has.

1. `WATCHER_TEST_KAFKA=host:port`: a broker that somebody else runs.
2. Docker: Apache Kafka's image through testcontainers.
3. Java and Maven: Apache Kafka's own jars, resolved once into `.kafka/`, run as a local process.

Tests that hurt the broker (kill, freeze, restart) or need it configured otherwise start their own with `Jvm`.
"""

import contextlib
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
POM = Path(__file__).with_suffix(".pom.xml")
VERSION = "4.3.1"
READY = "Kafka Server started"
PATIENCE = 300.0
"""Seconds for a broker to start or to end on a busy machine before it counts as stuck."""

# What one small node needs: see "A real broker for tests" in docs. Without the replication factors a transactional
# producer waits for ever; the default dedupe buffer of the cleaner does not fit the small heap.
NODE = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL",
    "log.cleaner.dedupe.buffer.size": "2097152",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "2000",  # 6 s by default: tests of members that die would wait for so long
    "auto.create.topics.enable": "false",
    "broker.session.timeout.ms": "4000",  # how long a killed node must wait before its successor may register
    "broker.heartbeat.interval.ms": "500",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "4",
}
UNHURT = {"broker.session.timeout.ms": "60000"}
"""A node that nobody kills is not given up by its own controller after a machine has stood still for some seconds."""
REPLICATED = ("transaction.state.log", "offsets.topic", "share.coordinator.state.topic")
MIN_ISR = ("transaction.state.log", "share.coordinator.state.topic")
LOGGING = """
rootLogger.level = INFO
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %m (%c)%n
"""


class NoBroker(Exception):
    """This rung is not there; the text says why."""


class Kafka(NamedTuple):
    """A broker to talk to, and how it was come by."""

    address: str
    rung: str


def jars(pom: Path = POM, name: str = "kafka") -> Path:
    """The folder of what that POM names, the broker's jars by default; resolved on first use. Raises NoBroker."""
    folder = ROOT / ".kafka" / f"{name}-{VERSION}"
    if shutil.which("java") is None:
        raise NoBroker("no java on PATH")
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs at once resolve once
        if not folder.is_dir():
            _resolve(pom, folder)
    return folder


def _resolve(pom: Path, folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise NoBroker("no mvn on PATH")
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        copied = Path(scratch) / "jars"
        command = [maven, "-B", "-q", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={copied}"]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        except subprocess.TimeoutExpired as slow:
            raise NoBroker("mvn did not bring the jars within 600 s") from slow
        if result.returncode:
            raise NoBroker(f"mvn could not bring the jars: {result.stdout.strip()[:300]}")
        copied.rename(folder)


_DRAWN: set[int] = set()
_DRAWS = os.open(Path(tempfile.gettempdir()) / f"watcher-ports-{os.getuid()}", os.O_RDWR | os.O_CREAT, 0o600)
"""A file of which each test process locks the byte of every port that it has drawn, for as long as it lives."""


def free_port() -> int:
    """A port that nobody else is given, from now until this process ends: not the other worker, not another test run.

    What is to listen on it does so seconds later, and not while it is killed and started again. It is below the range
    that outgoing connections draw from: one of those would take it meanwhile. The dice are the system's: a test that
    seeds Python's own would draw the same as its neighbour.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        if port in _DRAWN:  # a process may lock again what it has locked
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            fcntl.lockf(_DRAWS, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            _DRAWN.add(port)
            probe.bind(("127.0.0.1", port))
            return port


class Jvm:
    """One node of Apache Kafka in KRaft mode as a process of ours.

    `listeners` ({name: port}) adds some, `extra` overrides properties; `before` is what starts the command; `voters` ({node id: controller port}) makes it one of several nodes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        node: int = 1,
        voters: Mapping[int, int] | None = None,
        cluster: str | None = None,
        listeners: Mapping[str, int] | None = None,
        extra: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        formatting: Sequence[str] = (),
        before: Sequence[str] = (),
    ) -> None:
        voters = voters or {node: free_port()}
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self._options = options
        self._formatting = formatting
        self._before = before
        self._plain = len(voters) == 1 and not formatting
        """Formatted like every other such node: done once, then copied."""
        self._cluster = cluster or cluster_id()
        copies = str(len(voters))
        open_to_us = ["PLAINTEXT://" + self.address]
        open_to_us += [f"{name}://127.0.0.1:{port}" for name, port in (listeners or {}).items()]
        properties = {
            **NODE,
            **{f"{name}.replication.factor": copies for name in REPLICATED},
            **{f"{name}.min.isr": "2" if len(voters) >= 3 else "1" for name in MIN_ISR},
            "node.id": str(node),
            "log.dirs": str(folder / "data"),
            "listeners": ",".join([*open_to_us, f"CONTROLLER://127.0.0.1:{voters[node]}"]),
            "advertised.listeners": ",".join(open_to_us),
            "controller.quorum.voters": ",".join(f"{id_}@127.0.0.1:{port}" for id_, port in voters.items()),
            **(extra or {}),
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "server.properties").write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        (folder / "log4j2.properties").write_text(LOGGING)

    def format(self) -> None:
        """Write the node's identity into its folder."""
        data, kept = self.folder / "data", ROOT / ".kafka" / f"formatted-{VERSION}"
        if self._plain and kept.is_dir():
            shutil.copytree(kept, data)
            return
        arguments = [
            "format",
            f"--cluster-id={self._cluster}",
            "-c",
            str(self.folder / "server.properties"),
            "--ignore-formatted",
        ]
        command = [*self._java("96m"), "kafka.tools.StorageTool", *arguments, *self._formatting]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stdout.decode(errors="replace")
        if self._plain:
            with contextlib.suppress(OSError), tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
                shutil.copytree(data, Path(scratch) / "data").rename(kept)

    def spawn(self) -> None:
        """Start the process; `wait` says when it is ready."""
        with (self.folder / "broker.log").open("ab") as log:
            command = [
                *self._before,
                *self._java("256m"),
                *self._options,
                "kafka.Kafka",
                str(self.folder / "server.properties"),
            ]
            self._starts = log.tell()
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def wait(self, timeout: float = PATIENCE) -> None:
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            with (self.folder / "broker.log").open("rb") as log:
                log.seek(self._starts)
                text = log.read().decode(errors="replace")
            if READY in text:
                return
            if self.process is None or self.process.poll() is not None:
                raise NoBroker(f"the broker ended at once: {text[-2000:]}")
            time.sleep(0.05)
        raise NoBroker(f"the broker was not ready within {timeout:g} s: {text[-2000:]}")

    def start(self) -> None:
        self.spawn()
        self.wait()

    def kill(self) -> None:
        """kill -9: nothing is flushed, nobody is told."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM: a controlled shutdown."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(timeout=PATIENCE)

    def _java(self, heap: str) -> list[str]:
        return [
            "java",
            f"-Xmx{heap}",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}",
            "-cp",
            f"{jars()}/*",
        ]


def cluster_id() -> str:
    return urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


@contextlib.contextmanager
def jvm(**configured: object) -> Iterator[Jvm]:
    """A broker of one's own, ready, to be hurt at will. Raises NoBroker."""
    jars()
    node = Jvm(Path(tempfile.mkdtemp(prefix="watcher-kafka-")), **configured)  # type: ignore[arg-type]
    try:
        node.format()
        node.start()
        yield node
    finally:
        node.close()


@contextlib.contextmanager
def cluster(size: int = 3) -> Iterator[list[Jvm]]:
    """Several brokers that replicate one another. Raises NoBroker."""
    jars()
    folder = Path(tempfile.mkdtemp(prefix="watcher-kafka-"))
    voters = {node: free_port() for node in range(1, size + 1)}
    identity = cluster_id()
    nodes = [Jvm(folder / str(node), node=node, voters=voters, cluster=identity) for node in voters]
    try:
        for node in nodes:
            node.format()
            node.spawn()
        for node in nodes:
            node.wait()
        yield nodes
    finally:
        for node in nodes:
            node.close()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def given() -> Iterator[Kafka]:
    address = os.environ.get("WATCHER_TEST_KAFKA")
    if not address:
        raise NoBroker("WATCHER_TEST_KAFKA is not set")
    yield Kafka(address, "WATCHER_TEST_KAFKA")


@contextlib.contextmanager
def docker() -> Iterator[Kafka]:
    if shutil.which("docker") is None:
        raise NoBroker("no docker on PATH")
    try:
        engine = subprocess.run(["docker", "info"], capture_output=True, timeout=60, check=False)
    except subprocess.TimeoutExpired as slow:
        raise NoBroker("docker does not answer") from slow
    if engine.returncode:
        raise NoBroker("no docker engine")
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    port = free_port()
    container = DockerContainer(f"apache/kafka:{VERSION}").with_bind_ports(port, port)
    container.waiting_for(LogMessageWaitStrategy(READY).with_startup_timeout(int(PATIENCE)))
    node = {
        **NODE,
        **UNHURT,
        **{f"{name}.replication.factor": "1" for name in REPLICATED},
        **{f"{name}.min.isr": "1" for name in MIN_ISR},
        "node.id": "1",
        "listeners": f"PLAINTEXT://0.0.0.0:{port},CONTROLLER://127.0.0.1:{port + 1 if port < 65535 else port - 1}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.quorum.voters": f"1@127.0.0.1:{port + 1 if port < 65535 else port - 1}",
    }
    for name, value in node.items():
        container = container.with_env(f"KAFKA_{name.upper().replace('.', '_')}", value)
    with container:
        yield Kafka(f"127.0.0.1:{port}", f"Docker, apache/kafka:{VERSION}")


@contextlib.contextmanager
def process() -> Iterator[Kafka]:
    with jvm(extra=UNHURT) as node:
        yield Kafka(node.address, f"local process, Apache Kafka {VERSION}")


@contextlib.contextmanager
def ladder() -> Iterator[Kafka]:
    """The first rung that holds. Raises NoBroker with what each of them said."""
    said = []
    with contextlib.ExitStack() as stack:
        for rung in (given, docker, process):
            try:
                found = stack.enter_context(rung())
            except NoBroker as reason:
                said.append(f"{rung.__name__}: {reason}")
            else:
                yield found
                return
        raise NoBroker("; ".join(said))
