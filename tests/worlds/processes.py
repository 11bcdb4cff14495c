"""Several processes in one virtual time: each may be frozen, woken, cut off and killed, as an operating system does it.

Each process has an event loop of its own; one that is not turned is frozen, while time, the network and the others go
on. Real committer, ledger, poller, limiter and connections; the log, the network and the clocks are ours.
"""

import asyncio
import heapq
import itertools
import json
import math
import random
import selectors
import socket

import anyio
import anyio.lowlevel
import httpcore

from tests.polling import balance, helius, poller_of
from watcher.ingest.committer import Committer
from watcher.journal import Fenced, Restored
from watcher.ledger import Ledger
from watcher.model.log import Unavailable
from watcher.poller.connections import HttpConnections
from watcher.runtime.task_scope import task_scope


class NoFiles(selectors.SelectSelector):
    def select(self, timeout=None):  # noqa: ARG002 (nothing of the real world happens here)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time is the world's."""

    def __init__(self, world):
        super().__init__(NoFiles())
        self._world = world
        self.set_exception_handler(lambda *_: None)  # of what a killed process leaves behind

    def time(self):
        return self._world.now

    @property
    def next_at(self):
        """When it has something to do."""
        if self._ready:
            return self.time()
        return min((timer.when() for timer in self._scheduled if not timer.cancelled()), default=math.inf)

    def turn(self):
        asyncio._set_running_loop(self)
        try:
            self._run_once()
        finally:
            asyncio._set_running_loop(None)


class Network:
    """Carries requests to a server that counts, and answers back; goes on while a process is frozen.

    A connection carries one request: so a connect lies between every grant and its write.
    """

    def __init__(self, world, seed, *, delay=0.03, connect=0.1):
        self._world = world
        self._dice = random.Random(seed)
        self._delay, self._connect = delay, connect
        self.arrivals = []
        """(time, name of the process)"""

    def one_way(self):
        return self._delay * self._dice.lognormvariate(0.0, 0.4)

    async def connect_tcp(self, *_args, **_options):
        process = self._world.running
        await anyio.sleep(self._connect * self._dice.uniform(0.2, 3.0))
        return Wire(self, process)

    def send(self, wire, process, data):
        wire.there = max(wire.there, self._world.now + self.one_way())  # in order
        self._world.at(wire.there, lambda: self._arrive(wire, process, data))

    def _arrive(self, wire, process, data):
        wire.request += data
        head, end, body = wire.request.partition(b"\r\n\r\n")
        lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if end and len(body) == int(lengths[0]):
            self.arrivals.append((self._world.now, process.name))
            answer = {**balance(slot=len(self.arrivals)), "id": json.loads(body)["id"]}
            text = json.dumps(answer).encode()
            reply = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text)
            self._world.at(self._world.now + self.one_way(), lambda: wire.receive(reply))


class Wire(httpcore.AsyncNetworkStream):
    """One connection, as the process has it."""

    def __init__(self, network, process):
        self._network, self._process = network, process
        self.request = b""
        self.there = 0.0
        """When the last of it arrives."""
        self._inbox = b""
        self._came = anyio.Event()
        self._sockets = socket.socketpair()

    def receive(self, data):
        self._inbox += data
        self._came.set()

    async def read(self, max_bytes, timeout=None):  # noqa: ARG002
        while not self._inbox:
            await self._came.wait()
        data, self._inbox = self._inbox[:max_bytes], self._inbox[max_bytes:]
        return data

    async def write(self, buffer, timeout=None):  # noqa: ARG002
        if buffer:
            self._network.send(self, self._process, buffer)

    async def aclose(self):
        for each in self._sockets:
            each.close()

    def get_extra_info(self, info):
        return self._sockets[0] if info == "socket" else None


class Log:
    """One partition. A commit is in it at once or not at all, in whichever moment of its time."""

    def __init__(self):
        self.fence, self.owner, self.released = 0, None, True
        self.let_go = False
        """The owner has said its last word, in doubt or not."""
        self.doubt = math.inf
        """Seconds, as it has said."""
        self.states, self.notes = {}, {}


class LogWriter:
    """The `Writer` of a process. `before`, `after`: seconds of a commit, drawn anew each time, around its one moment."""

    def __init__(self, log, process, before, after):
        self._log, self._process = log, process
        self._before, self._after = before, after
        self._fence = 0

    async def open(self):
        log = self._log
        await self._process.reach()
        if self._fence and log.owner is not self:
            raise Fenced("another one writes here")
        released = log.released or log.owner is self
        self._fence = log.fence = log.fence + 1
        doubt = log.doubt
        log.owner, log.released, log.let_go, log.doubt = self, False, False, math.inf
        fenced_at = self._process.world.now
        await anyio.sleep(self._before())
        return Restored(list(log.states.values()), dict(log.notes), "e0", fenced_at, released, doubt)

    async def commit(self, batch):
        await anyio.sleep(self._before())
        await self._process.reach()
        self._require_owner()
        self._log.states.update((row.state.key, row.state) for row in batch.rows)
        self._log.notes.update(batch.notes)
        await anyio.sleep(self._after())

    async def release(self, *, in_doubt=0.0):
        await self._process.reach()
        self._require_owner()
        self._log.released, self._log.let_go, self._log.doubt = not in_doubt, True, in_doubt

    def _require_owner(self):
        if self._fence != self._log.fence:
            raise Fenced("another one writes here")

    async def close(self):
        pass


class Process:
    """One `watcher run` with one provider."""

    def __init__(self, world, name, *, before=lambda: 0.004, after=lambda: 0.001, polls=True):
        self.world, self.name = world, name
        self.loop = VirtualLoop(world)
        self.frozen = self.killed = self.fenced = False
        self.cut_off = False
        """Nothing that it sends reaches the log."""
        self._before, self._after = before, after
        self._polls = polls
        """Its config has the provider."""
        self.poller = None
        self.task = self.loop.create_task(self._live())

    async def reach(self):
        await anyio.lowlevel.checkpoint()
        if self.killed:
            raise Unavailable("dead")
        if self.cut_off:
            await anyio.sleep(1.0)
            raise Unavailable("no answer")

    async def _live(self):
        """As the daemon does it: the pollers end first, then the committer."""
        writer = LogWriter(self.world.log, self, self._before, self._after)
        self.committer = Committer(writer, Ledger(), gather=0.0, boottime=lambda: self.world.now)
        try:
            async with task_scope() as committing:
                committing.start_soon(self.committer.run)
                await self.committer.ready.wait()
                async with HttpConnections(self.committer.lease.valid) as transport, anyio.create_task_group() as tasks:
                    provider = helius(
                        self.world.watches, limits=self.world.limits, timeout=20.0, base_url="http://127.0.0.1"
                    )
                    self.poller = poller_of(provider, None, self.committer, seed=self.world.seed, transport=transport)
                    if self._polls:
                        tasks.start_soon(self.poller.run)
                    await anyio.sleep_forever()
        except* Fenced:
            self.fenced = True
        except* Unavailable:  # a save that the fence has ended
            assert self.committer.lease.begins_in() == math.inf

    def stop(self):
        """SIGTERM."""
        self.task.cancel()

    def kill(self):
        self.killed = self.frozen = True


class World:
    """Processes before one log and one provider."""

    def __init__(self, monkeypatch, seed, limits, *, watches=40, **network):
        self.now, self.seed, self.limits, self.watches = 0.0, seed, limits, watches
        self.log = Log()
        self.network = Network(self, f"network {seed}", **network)
        self.processes = []
        self.running = None
        self._events = []
        self._numbers = itertools.count()
        monkeypatch.setattr(httpcore, "AnyIOBackend", lambda: self.network)

    def start(self, name, **options):
        self.processes.append(Process(self, name, **options))
        return self.processes[-1]

    def at(self, when, action):
        heapq.heappush(self._events, (when, next(self._numbers), action))

    def run(self, until):
        while (when := self._next_at()) <= until:
            self.now = max(self.now, when)
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            self._turn()
        self.now = until

    def _next_at(self):
        live = (process.loop.next_at for process in self.processes if not process.frozen)
        return min((*live, *(event[0] for event in self._events[:1])), default=math.inf)

    def _turn(self):
        for process in self.processes:
            self.running = process
            while not process.frozen and process.loop.next_at <= self.now:
                process.loop.turn()

    def end(self):
        """Nobody counts any more: let everything go in order."""
        self.network.arrivals = self.network.arrivals.copy()
        for process in self.processes:
            process.frozen = False
            process.stop()
        self.run(self.now + 60)
        for process in self.processes:
            assert process.task.done()
            if not process.task.cancelled() and process.task.exception():
                raise process.task.exception()
            process.loop.close()
