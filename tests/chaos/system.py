"""The system under test as processes: the sandbox, daemons before it, and for Kafka a broker behind a proxy."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
import urllib.request
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from tests.chaos import sandbox
from tests.chaos.alerts import alerts, tagged, with_tags
from tests.chaos.checker import Checker
from tests.chaos.logs import PARTITIONS, KafkaLog, SqliteLog, Witness
from tests.chaos.proxy import Proxy
from tests.kafka_broker import Jvm, free_port, jars

ROOT = Path(__file__).resolve().parents[2]
OURS = ("setpriv", "--pdeathsig", "KILL", "--") if shutil.which("setpriv") else ()
"""Before a command: its process ends with the thread that started it, so with us, however we end. Linux only."""
PATIENCE = 300.0
"""Seconds for anything to come about on a busy machine before it counts as stuck."""

MANY = 20
SILENT = 4 * sandbox.SETTLE
"""A hot balance is silent when nothing is told of it in so many answers and so many seconds. The contract's law names 3
and 2 x `settle`; the rest is for the journal."""
BUSY = 10.0
"""Seconds more for a busy machine. A planted fault is seen without them."""
STALLED = 30.0
"""The same for a daemon with a planted fault, after which it is judged by what it left: it need not go on."""


class Stuck(Exception):
    """Something that must happen did not, or a process ended as it must not."""


async def until(condition, what, patience=PATIENCE):
    """Wait for a condition, not for a time. Raises Stuck."""
    try:
        async with asyncio.timeout(patience):
            while not condition():  # noqa: ASYNC110 (processes and files set no event)
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise Stuck(f"{what}: not within {patience:g} s") from None


class Daemon:
    """`watcher run` as a process of ours; `log` is the file that it writes to."""

    def __init__(self, process, log):
        self.process = process
        self.log = log
        self.frozen = False

    @property
    def status(self):
        return self.process.returncode

    @property
    def starting(self):
        return '"starting"' in self.told

    @property
    def started(self):
        return '"started"' in self.told

    @property
    def told(self):
        """Its log, of which the last character may be half written."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def send(self, number):
        # Not by the process's own method: it would ask after its end first, and take the status away from the loop.
        with contextlib.suppress(ProcessLookupError):
            if self.status is None:
                os.kill(self.process.pid, number)

    def freeze(self):
        self.frozen = True
        self.send(signal.SIGSTOP)

    def thaw(self):
        self.frozen = False
        self.send(signal.SIGCONT)

    async def up(self, what, patience=PATIENCE):
        """Until it serves, or has ended."""
        await until(lambda: self.started or self.status is not None, what, patience)

    async def kill(self):
        self.send(signal.SIGKILL)
        await self.process.wait()

    def tail(self):
        return self.told[-1500:]


class System:
    """Built by `running`. `control` names the fault that is planted in each daemon, None for the real one."""

    def __init__(self, folder, journal, seed, control, program):
        self.folder = folder
        self.kind = journal
        self.seed = seed
        self.program = program
        self.control = control
        self.daemon = None
        """The one that is meant to write now."""
        self.daemons = []
        self.others = []
        self.broker = None
        self.prefix = f"chaos-{uuid4().hex[:8]}."
        """Of the topics."""
        self.proxy = None
        self.port = None
        self.witness = None
        self.config = folder / "watcher.toml"
        self._log = None

    @property
    def checker(self):
        return self.witness.checker

    async def start_sandbox(self, rate, faults):
        arguments = (*OURS, sys.executable, "-m", "tests.chaos.sandbox", str(self.seed), str(rate), faults)
        process = await asyncio.create_subprocess_exec(*arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        self.others.append(process)
        self.port = int(await process.stdout.readline())

    def write_config(self, journal, **more):
        providers = self.tables()
        table = {"journal": journal, **more, "relay": {"port": 0}, "providers": with_tags(providers)}
        self.config.write_text(toml({**table, "alert": alerts(providers)}))

    def new_checker(self):
        """One that knows our alerts."""
        tables = self.tables()
        return Checker(alerts(tables), tagged(tables))

    def tables(self):
        """Those of all providers."""
        return sandbox.tables(self.port, self.seed)

    async def spawn(self, *arguments):
        """A daemon that has only just begun."""
        number = len(self.daemons)
        path = self.folder / f"daemon-{number}.log"
        environment = {
            **os.environ,
            sandbox.KEY: sandbox.VALID_KEY,
            **({"CHAOS_PLANTED": self.control} if self.control else {}),
        }
        with path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *OURS,
                sys.executable,
                "-m",
                self.program,
                "run",
                *arguments,
                "-c",
                str(self.config),
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )
        daemon = Daemon(process, path)
        self.daemons.append(daemon)
        return daemon

    async def start(self):
        """A daemon that writes. One that found no journal (69) is started again, as an operator would."""
        while True:
            daemon = await self.spawn()
            await daemon.up("a daemon starts")
            if daemon.status is None:
                self.daemon = daemon
                return daemon
            if daemon.status != 69:
                raise Stuck(f"a daemon ended with {daemon.status} at its start: {daemon.tail()}")

    async def one_stays(self, *two):
        """Of two daemons exactly one goes on; the other one ends with 75."""
        await until(lambda: any(one.status is not None for one in two), "one of two daemons ends")
        ended = [one for one in two if one.status is not None]
        if len(ended) == 2 or ended[0].status not in (75, 69):
            told = "; ".join(f"{one.status}: {one.tail()}" for one in ended)
            raise Stuck(f"of two daemons exactly one must stay, the other end with 75: {told}")
        (self.daemon,) = (one for one in two if one not in ended)
        await self.daemon.up("the one that stays serves")

    async def progress(self, what, patience=PATIENCE):
        """New events are committed: the system goes on."""
        before = self.checker.events
        going_on = lambda: self.checker.events > before or self.daemon.status is not None  # noqa: E731
        await until(going_on, f"events after {what}", patience)
        if self.daemon.status is not None:
            raise Stuck(f"after {what} the daemon ended with {self.daemon.status}: {self.daemon.tail()}")

    async def heard(self, what):
        """What the hot balances were when this was called, or came to since, is told: none of them is silent."""
        began, since = await self._hot(), time.monotonic()
        waiting = set(began)
        while waiting:
            await asyncio.sleep(0.05)
            if self.daemon.status is not None:
                raise Stuck(f"after {what} the daemon ended with {self.daemon.status}: {self.daemon.tail()}")
            told = self.checker.amounts(waiting)
            waiting = {key for key in waiting if key not in told or Decimal(told[key]) < Decimal(began[key][1])}
            seconds = time.monotonic() - since
            if waiting and seconds > SILENT + (0 if self.control else BUSY):
                waiting -= await self._silent(waiting, began, seconds)
            if seconds > PATIENCE:
                raise Stuck(f"after {what} nobody asks for {', '.join(waiting)}")

    async def _silent(self, waiting, began, seconds):
        """Those of which nothing was told although they were often asked for."""
        now = await self._hot()
        answers = {key: now[key][0] - began[key][0] for key in waiting}
        silent = {key for key in waiting if answers[key] > MANY}
        for key in silent:
            self.checker.silent(key, answers[key], seconds)
        return silent

    async def _hot(self):
        """Hot balance → how many answers spoke of it, and what it is."""
        return await asyncio.to_thread(self.ask, "_hot")

    def ask(self, path, method="GET"):
        """The sandbox's answer, decoded."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{path}", method=method, data=b"" if method == "POST" else None
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def balances(self, history):
        told = self.ask(f"_truth?history={int(history)}")["providers"]
        return [balance for provider in told.values() for balance in provider["balances"]]

    async def settle(self):
        """No more moves; wait until what is committed is what is. Returns the whole truth: key → all its amounts."""
        await asyncio.to_thread(self.ask, "_freeze", "POST")
        now = {each["key"]: each["amount"] for each in await asyncio.to_thread(self.balances, history=False)}
        with contextlib.suppress(Stuck):  # then the checker says which are not
            await until(lambda: not self.checker.unsettled(now), "every balance settles")
        found = await asyncio.to_thread(self.balances, history=True)
        return {each["key"]: [each["initial"], *(move["amount"] for move in each["changes"])] for each in found}

    async def stop(self):
        """The daemon ends as asked."""
        self.daemon.send(signal.SIGTERM)
        await until(lambda: self.daemon.status is not None, "SIGTERM ends the daemon")
        if self.daemon.status != 0:
            raise Stuck(f"SIGTERM ended the daemon with {self.daemon.status}: {self.daemon.tail()}")

    async def end_daemons(self):
        """Kill whatever of them is left."""
        await self._end([daemon.process for daemon in self.daemons])

    async def end(self):
        """Kill whatever is left."""
        await self._end([daemon.process for daemon in self.daemons] + self.others)

    async def _end(self, processes):
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.communicate()  # up to the end of its output, so that the pipe is closed behind it


@contextlib.asynccontextmanager
async def running(folder, journal, *, seed, rate, faults, control=None, program="watcher", node=None):
    """Everything up and writing. `node`: a broker made by `fronted`; without it Kafka gets one of its own."""
    async with contextlib.AsyncExitStack() as stack:
        system = System(folder, journal, seed, control, program)
        stack.push_async_callback(system.end)
        await system.start_sandbox(rate, faults)
        log = await (_kafka(system, stack, node) if journal == "kafka" else _sqlite(system))
        await system.start()
        system.witness = Witness(log, system.new_checker())
        try:
            await system.progress("the start")
            yield system
        finally:
            await system.end()
            await system.witness.stop()


async def _sqlite(system):
    path = system.folder / "balances.db"
    system.write_config(f"sqlite:///{path}")
    await _init(system)
    log = SqliteLog(path)
    log.watch()
    return log


class Node(NamedTuple):
    """A broker that says it were at `front`, where a proxy is to stand; `direct` leads past the proxy."""

    broker: Jvm
    front: int
    direct: int


@contextlib.contextmanager
def fronted(folder):
    """A started Node. Raises NoBroker."""
    jars()
    front, direct = free_port(), free_port()
    broker = Jvm(
        folder / "broker",
        listeners={"DIRECT": direct},
        extra={
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,DIRECT:PLAINTEXT",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{front},DIRECT://127.0.0.1:{direct}",
        },
        before=OURS,
    )
    try:
        broker.format()
        broker.start()
        yield Node(broker, front, direct)
    finally:
        broker.close()


async def _kafka(system, stack, node):
    system.broker, front, direct = node or stack.enter_context(fronted(system.folder))
    system.proxy = await stack.enter_async_context(Proxy(front, ("127.0.0.1", system.broker.port), system.seed))
    system.write_config(f"kafka://127.0.0.1:{front}", kafka={"partitions": PARTITIONS, "topic_prefix": system.prefix})
    await _init(system)
    return KafkaLog(f"127.0.0.1:{direct}", system.prefix)


async def _init(system):
    """`watcher init`, again while the broker is too slow to answer (69)."""
    command = (*OURS, sys.executable, "-m", "watcher", "init", "-c", str(system.config))
    status = 69
    while status == 69:
        init = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL)
        status = await init.wait()
    if status:
        raise Stuck(f"watcher init ended with {status}")


def toml(table):
    """As much TOML as our config needs: JSON's values are TOML's, but for tables."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict | list)]
    for name in ("relay", "kafka"):
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.get(name, {}).items())]
    for alert in table.get("alert", ()):
        lines += ["[[alert]]", *(f"{key} = {inline(value)}" for key, value in alert.items())]
    for name, provider in table["providers"].items():
        lines.append(f"[providers.{name}]")
        lines += [f"{key} = {inline(value)}" for key, value in provider.items()]
    return "\n".join(lines) + "\n"


def inline(value):
    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {inline(each)}' for key, each in value.items())} }}"
    return json.dumps(value)
