"""A fleet as processes: the sandbox of many credentials, a broker, and members, each with a proxy before the broker alone.

The broker has a listener for each member's proxy, so that one member is cut off from Kafka, and still reaches the providers,
while the others go on. One member alone has no group: it is the exclusive mode, under the same judge.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time

from tests.chaos import fleet_sandbox
from tests.chaos.alerts import alerts, with_tags
from tests.chaos.fleet_judge import Arrival
from tests.chaos.logs import KafkaLog, Witness
from tests.chaos.proxy import Proxy
from tests.chaos.system import OURS, PATIENCE, ROOT, Daemon, Stuck, System, _init, toml, until
from tests.kafka_broker import Jvm, free_port, jars

PARTITIONS = 32
WORLDS = 5
"""Five credentials each."""
SESSION = 6.0
"""Seconds: the least that a broker allows by default."""
LOOK = 0.2
"""Seconds between two looks at what has arrived."""


class Member:
    """A place in the fleet, with its config and its way to Kafka. `daemon`: the process that fills it now, if one does."""

    def __init__(self, name, config, proxy):
        self.name = name
        self.config = config
        self.proxy = proxy
        self.daemon = None
        self.process = None
        """The mark of that daemon, which no other process has."""


class Fleet(System):
    """Built by `running`. `size`: members that are meant to run; one more may join for a while."""

    def __init__(self, folder, seed, size, *, static, control):
        super().__init__(folder, "kafka", seed, control, "tests.chaos.planted" if control else "watcher")
        self.size = size
        self.members = []
        self.arrivals = []
        self.static = static
        self.configured = set(fleet_sandbox.quotas(WORLDS))
        """The providers that every member knows."""
        self.arguments = ()
        """Of `run`, beside the config."""
        self._edition = 0

    @property
    def live(self):
        return [member for member in self.members if member.daemon is not None]

    @property
    def vacant(self):
        return [member for member in self.members if member.daemon is None]

    async def start_sandbox(self, rate, faults):
        arguments = (str(self.seed), str(rate), faults, str(WORLDS))
        command = (*OURS, sys.executable, "-m", "tests.chaos.fleet_sandbox", *arguments)
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        self.others.append(process)
        self.port = int(await process.stdout.readline())

    def write(self, path, port, member=None):
        """The config of one member; its tables are those of all members of that edition."""
        kafka = {"partitions": PARTITIONS, "topic_prefix": self.prefix}
        if self.size > 1:
            kafka |= {"group": "fleet", "session_timeout": SESSION}
        if member is not None and self.static and self.size > 1:
            kafka["member"] = member
        # Each edition hashes differently and asks for the same.
        tables = self.tables()
        wanted = with_tags({name: table for name, table in tables.items() if name in self.configured})
        table = {"journal": f"kafka://127.0.0.1:{port}", "kafka": kafka, "relay": {"port": 0}, "providers": wanted}
        path.write_text(toml({**table, "alert": alerts(tables)}))

    def tables(self):
        """Those of all providers, whether they are configured now or not."""
        return fleet_sandbox.tables(self.port, self.seed, WORLDS, max_interval=60.0 + self._edition)

    def edit(self, without=frozenset()):
        """From now on members are started with another config."""
        self._edition += 1
        self.configured = fleet_sandbox.quotas(WORLDS).keys() - without
        for member in self.members:
            self.write(member.config, member.proxy.port, member.name)

    async def join(self, count=1):
        """So many processes in places that are vacant, all at once, until they serve."""
        joined = [await self._start() for _ in range(count)]
        for member in joined:
            await member.daemon.up(f"{member.process} starts")
        self.require_alive()

    async def _start(self):
        member = self.vacant[0]
        process = f"p{len(self.daemons)}"
        environment = {**os.environ, fleet_sandbox.KEY: fleet_sandbox.key_of(process)}
        if self.control:
            environment["CHAOS_PLANTED"] = self.control
        path = self.folder / f"{process}-{member.name}.log"
        command = (*OURS, sys.executable, "-m", self.program, "run", "-c", str(member.config), *self.arguments)
        with path.open("wb") as log:
            started = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        member.daemon, member.process = Daemon(started, path), process
        self.daemons.append(member.daemon)
        return member

    async def leave(self, *members):
        """SIGTERM, all at once; they end with 0."""
        for member in members:
            member.daemon.send(signal.SIGTERM)
        for member in members:
            daemon, member.daemon = member.daemon, None
            await until(lambda daemon=daemon: daemon.status is not None, f"SIGTERM ends {member.process}")
            if daemon.status != 0:
                raise Stuck(f"SIGTERM ended {member.process} with {daemon.status}: {daemon.tail()}")

    async def kill(self, member):
        daemon, member.daemon = member.daemon, None
        await daemon.kill()

    def require_alive(self):
        """Nobody ends who was not asked to. Raises Stuck."""
        for member in self.live:
            if member.daemon.status is not None:
                told = f"{member.process} ended with {member.daemon.status}: {member.daemon.tail()}"
                raise Stuck(told)

    async def whole(self, patience=PATIENCE):
        """Until every provider has been asked by somebody who is meant to live; gives that time. Raises Stuck."""
        since, seen = time.monotonic(), len(self.arrivals)
        waiting = set(self.configured)
        while waiting:
            self.require_alive()
            if time.monotonic() > since + patience:
                raise Stuck(f"nobody asks {', '.join(sorted(waiting))} within {patience:g} s")
            await asyncio.sleep(LOOK)
            processes = {member.process for member in self.live}
            new, seen = self.arrivals[seen:], len(self.arrivals)
            waiting -= {each.provider for each in new if each.at >= since and each.process in processes}
        return time.monotonic()

    async def look(self):
        """For ever: what has arrived at the sandbox."""
        while True:
            new = await asyncio.to_thread(self.ask, f"_arrivals?from={len(self.arrivals)}")
            self.arrivals += [Arrival(*each) for each in new]
            await asyncio.sleep(LOOK)


@contextlib.asynccontextmanager
async def running(folder, *, seed, size, rate, faults="none", static=False, control=None, arguments=()):
    """Everything up, and every provider asked. Raises Stuck, NoBroker."""
    async with contextlib.AsyncExitStack() as stack:
        fleet = Fleet(folder, seed, size, static=static, control=control)
        fleet.arguments = arguments
        stack.push_async_callback(fleet.end)
        await fleet.start_sandbox(rate, faults)
        fleet.broker = await _broker(fleet, stack)
        fleet.write(fleet.config, fleet.broker.port)
        await _init(fleet)
        log = KafkaLog(fleet.broker.address, fleet.prefix, PARTITIONS)
        fleet.witness = Witness(log, fleet.new_checker())
        looking = asyncio.create_task(fleet.look())
        try:
            await fleet.join(size)
            await fleet.whole()
            yield fleet
        finally:
            looking.cancel()
            await fleet.end()
            await fleet.witness.stop()


async def _broker(fleet, stack):
    """Started, with a listener behind each member's proxy; its own port leads past all of them."""
    jars()
    places = [(f"m{number}", free_port(), free_port()) for number in range(fleet.size + 1)]
    names = [name.upper() for name, _, _ in places]
    broker = Jvm(
        fleet.folder / "broker",
        listeners={name.upper(): behind for name, _, behind in places},
        extra={
            "listener.security.protocol.map": ",".join(
                f"{name}:PLAINTEXT" for name in ("CONTROLLER", "PLAINTEXT", *names)
            ),
        },
        before=OURS,
    )
    advertised = [f"PLAINTEXT://{broker.address}", *(f"{n.upper()}://127.0.0.1:{front}" for n, front, _ in places)]
    with (broker.folder / "server.properties").open("a") as properties:  # the last one of a name counts
        properties.write(f"advertised.listeners={','.join(advertised)}\n")
    stack.callback(broker.close)
    broker.format()
    await asyncio.to_thread(broker.start)
    for name, front, behind in places:
        proxy = await stack.enter_async_context(Proxy(front, ("127.0.0.1", behind), f"{fleet.seed}/{name}"))
        member = Member(name, fleet.folder / f"{name}.toml", proxy)
        fleet.members.append(member)
        fleet.write(member.config, front, name)
    return broker
