"""The daemon under attack, its honest neighbour, and what is judged of both."""

import asyncio
import contextlib
import fcntl
import json
import os
import resource
import signal
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.attack.neighbour import ACCOUNT
from tests.chaos.system import OURS, PATIENCE, ROOT, Stuck, toml, until

RATE = 20
"""Polls a second that the honest provider allows; every one changes four balances."""
KEY = "ATTACK_API_KEY"
SECRET = "canary-attack-5e0c7b19d4"
"""The hostile provider's key."""

POLLS = 0.95
"""Of the polls of the same time in peace."""
WAIT = 1.5
"""Times the p99 of peace."""
NOISE = 0.025
"""Seconds that a p99 may be longer, whatever that factor says: two cores run the attacker, the neighbour and the daemon."""
HEALTHZ = 0.3
"""Seconds in which `/healthz` answers."""
END = 5.0
"""Seconds that the daemon has to end."""
RECOVERY = 120
"""Half seconds behind an attack before the neighbour counts as lost."""
LOG = 200_000
"""Bytes that an attack may add to the log."""


class Measured(NamedTuple):
    """Of peace or of an attack. MB are 10^6 bytes."""

    polls: float
    """A second."""
    updates: int
    p50: float
    p99: float
    healthz: float
    failed: int
    cuts: int
    gaps: int
    memory: float
    """Most that was resident, in MB."""
    cpu: float
    """Cores that the daemon took."""


class Verdict(NamedTuple):
    name: str
    peace: Measured
    attack: Measured
    log: int
    """Bytes that it grew by."""
    late: list
    """What is wrong with the neighbour's service, as the clock tells it."""
    wrong: list
    """What else is: no clock and no busy machine excuses it."""
    told: str
    """What the attack says of itself."""


class Process:
    """A child of ours that is spoken to line by line."""

    def __init__(self, process):
        self._process = process

    @classmethod
    async def start(cls, *command):
        pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
        process = await asyncio.create_subprocess_exec(*OURS, sys.executable, "-m", *command, cwd=ROOT, **pipes)
        return cls(process)

    async def line(self):
        line = await self._process.stdout.readline()
        if not line:
            raise Stuck("the neighbour ended")
        return line

    async def ask(self, command):
        self._process.stdin.write(command.encode() + b"\n")
        return json.loads(await self.line())

    async def end(self):
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()


class Stage:
    """One daemon before two providers: an honest one that is judged, and one that an attack may answer for."""

    def __init__(self, folder, journal=None):
        self.folder = folder
        self.journal = journal or f"sqlite:///{folder / 'balances.db'}"
        self.log = folder / "daemon.log"
        self.port = 0
        """The relay's."""
        self.daemon = None
        self.hostile = None
        """Answers for the hostile provider."""
        self._neighbour = None
        self._pipe = None
        """The daemon's stderr."""

    @property
    def pid(self):
        return self.daemon.pid

    def told(self):
        return self.log.read_text(encoding="utf-8", errors="replace")

    def listen(self, pipe):
        """What the daemon says, into the log, until `plug`."""
        os.set_blocking(pipe, False)
        self._pipe = pipe
        asyncio.get_running_loop().add_reader(pipe, self._copy)

    def _copy(self):
        if said := os.read(self._pipe, 1 << 16):
            with self.log.open("ab") as log:
                log.write(said)
        else:
            self.plug()

    def plug(self):
        """From now on nobody reads the daemon's stderr."""
        asyncio.get_running_loop().remove_reader(self._pipe)

    def close(self):
        self.plug()
        os.close(self._pipe)

    def written(self):
        """The size of the log, in bytes."""
        return self.log.stat().st_size

    async def measure(self, seconds):
        """Let so many seconds pass."""
        await self._neighbour.ask("mark")
        _forget_peak(self.pid)
        before, began = _cpu(self.pid), asyncio.get_running_loop().time()
        await asyncio.sleep(seconds)
        told, took = await self._neighbour.ask("mark"), asyncio.get_running_loop().time() - began
        return Measured(
            polls=told["polls"] / told["seconds"],
            updates=told["updates"],
            p50=told["p50"] if told["p50"] is not None else seconds,
            p99=told["p99"] if told["p99"] is not None else seconds,
            healthz=told["healthz"],
            failed=told["failed"],
            cuts=told["cuts"],
            gaps=told["gaps"],
            memory=_status(self.pid, "VmHWM") / 1000,
            cpu=(_cpu(self.pid) - before) / took,
        )

    async def get(self, path):
        """The status and the whole answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
        finally:
            writer.close()
        return int(answer.split()[1]), answer


@contextlib.asynccontextmanager
async def staged(folder, attack, journal=None):
    """A Stage in peace: the neighbour is served. `attack` may prepare it, and says how it is to be set up."""
    stage = Stage(folder, journal)
    async with contextlib.AsyncExitStack() as stack:
        stage._neighbour = neighbour = await Process.start("tests.attack.neighbour")
        stack.push_async_callback(neighbour.end)
        tables = {"honest": _table(int(await neighbour.line()), min_interval=0.0)}
        stage.hostile = await stack.enter_async_context(attack.hostile.serving())
        tables |= attack.tables(stage.hostile.port)
        config = folder / "watcher.toml"
        table = {"journal": stage.journal, "relay": {"port": 0}, "kafka": attack.kafka, "providers": tables}
        config.write_text(toml(table))
        await attack.prepare(stage)
        if stage.journal.startswith("kafka:"):
            await _init(config)
        await _start(stage, config, attack, stack)
        assert (await neighbour.ask(f"follow {stage.port}")) is not None
        yield stage


def _table(port, **more):
    return {
        "type": "jupiter",
        "base_url": f"http://127.0.0.1:{port}",
        "limits": [{"requests": RATE, "per": 1.0}],
        "watch": [{"account": ACCOUNT}],
        **more,
    }


async def _init(config):
    command = (*OURS, sys.executable, "-m", "watcher", "init", "-c", str(config))
    init = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL)
    if status := await init.wait():
        raise Stuck(f"watcher init ended with {status}")


async def _start(stage, config, attack, stack):
    def limited():
        if attack.descriptors:
            most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (attack.descriptors, most))

    command = (*OURS, sys.executable, "-m", "watcher", "run", "-c", str(config))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), KEY: SECRET}
    reading, writing = os.pipe()
    try:
        stage.daemon = await asyncio.create_subprocess_exec(
            *command, cwd=stage.folder, env=environment, stdout=asyncio.subprocess.DEVNULL,
            stderr=writing, preexec_fn=limited,
        )  # fmt: skip
    finally:
        os.close(writing)
    if attack.plugged:
        fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 4096)
    stage.log.touch()
    stage.listen(reading)
    stack.callback(stage.close)
    stack.push_async_callback(_end, stage)

    def started():
        return '"started"' in stage.told() or stage.daemon.returncode is not None

    await until(started, "the daemon starts")
    for line in stage.told().splitlines():
        if '"started"' in line:
            stage.port = json.loads(line)["port"]
    if not stage.port:
        raise Stuck(f"the daemon ended with {stage.daemon.returncode}: {stage.told()[-1500:]}")


async def _end(stage):
    if stage.daemon.returncode is None:
        stage.daemon.kill()
    await stage.daemon.wait()


async def recovered(stage):
    """Whether the neighbour is told something again, however long a busy machine makes it wait."""
    for _ in range(RECOVERY):
        if (await stage.measure(0.5)).updates:
            return True
    return False


async def ended(stage):
    """Status and seconds of an end that was asked for."""
    began = asyncio.get_running_loop().time()
    stage.daemon.send_signal(signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            await stage.daemon.wait()
    return stage.daemon.returncode, asyncio.get_running_loop().time() - began


def _traceback(told):
    return next(line for line in told.splitlines() if "Traceback" in line)[:3000]


def _status(pid, name):
    """A size of a process, in KB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1.024
    return 0.0


def _forget_peak(pid):
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _cpu(pid):
    """Seconds of a core that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def assail(folder, attack, *, peace, seconds, journal=None):
    """Peace, the attack, and what became of the neighbour: a Verdict. For a process of its own."""
    async with staged(folder, attack, journal) as stage:
        os.nice(10)  # from here on we stand for other machines, which take none of the daemon's cores
        await asyncio.sleep(min(2.0, peace))
        before = await stage.measure(peace)
        written = stage.written()
        if attack.plugged:
            stage.plug()
        task = asyncio.create_task(attack.run(stage))
        await asyncio.sleep(attack.grace)
        during = await stage.measure(seconds)
        told = attack.told()
        if task.done() and not task.cancelled() and task.exception() is not None:
            raise task.exception()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        grown = stage.written() - written
        late = list(delayed(before, during))
        wrong = list(harmed(attack, before, during, grown))
        wrong += [text async for text in attack.judge(stage)]
        if not await recovered(stage):
            wrong.append("nothing is told any more behind it")
        status, took = await ended(stage)
        if took > END:
            late.append(f"SIGTERM ended it after {took:.1f} s")
        if status != 0:
            wrong.append(f"SIGTERM ended it with {status}")
        if "Traceback" in stage.told():
            wrong.append(f"a traceback is in the log: {_traceback(stage.told())}")
        return Verdict(attack.name, before, during, grown, late, wrong, told)


def alone(attack, *, peace=6.0, seconds=10.0, journal=None):
    """One attack with a daemon of its own, to the end: a Verdict. `journal`: None for a file, or Kafka's address."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(assail(Path(folder), attack, peace=peace, seconds=seconds, journal=journal))


def delayed(before, during):
    """What is wrong with the neighbour's service."""
    if not during.updates:
        yield "nothing is told"
    if during.polls < POLLS * before.polls:
        yield f"polls {during.polls:.1f} a second, {before.polls:.1f} in peace"
    if during.p99 > max(WAIT * before.p99, before.p99 + NOISE):
        yield f"p99 {during.p99 * 1e3:.1f} ms, {before.p99 * 1e3:.1f} in peace"
    if during.healthz > HEALTHZ or during.failed:
        yield f"/healthz after {during.healthz * 1e3:.0f} ms, {during.failed} times not at all"


def harmed(attack, before, during, grown):
    """What the attack has taken."""
    if during.cuts or during.gaps:
        yield f"{during.cuts} cuts and {during.gaps} gaps of the subscriber"
    if during.memory - before.memory > attack.megabytes:
        yield f"memory grew by {during.memory - before.memory:.0f} MB, {attack.megabytes} are allowed"
    if grown > LOG:
        yield f"the log grew by {grown} bytes"
