"""A TCP proxy before a Kafka broker that knows where frames begin: it cuts, holds, delays and loses them.

It runs on the tool's event loop. A held request outlives the client's connection and is delivered late, as a network
may do: that is how a delayed EndTxn comes to commit half of the next transaction (KIP-890).
"""

import asyncio
import contextlib
import random
import re

PRODUCE, INIT_PRODUCER, ADD_PARTITIONS, END_TXN = 0, 22, 24, 26
OF_WRITERS = (PRODUCE, INIT_PRODUCER, ADD_PARTITIONS, END_TXN)
GROUP = (11, 12, 13, 14)
"""JoinGroup, Heartbeat, LeaveGroup, SyncGroup: all by which a member belongs."""
CUTS = ("held", "dropped", "refused", "group held")
"""How its clients may be cut off."""
WRITER = re.compile(rb"balance-watcher\.\d+")
LATE = 8.0
"""Seconds after which a held EndTxn is delivered, whatever happened since."""


class Held:
    """An EndTxn that its client takes for lost."""

    def __init__(self, moment):
        self.moment = moment
        """The kind of request that it is to meet."""
        self.due, self.delivered = asyncio.Event(), asyncio.Event()

    async def deliver(self):
        """Returns once the broker has it."""
        self.due.set()
        await self.delivered.wait()


class Proxy:
    """Listens on `port`, speaks to the broker at `target`."""

    def __init__(self, port, target, seed):
        self.port = port
        self.target = target
        self.lag = 0.0
        """Each frame waits up to so many seconds."""
        self.stats = {"frames": 0, "connections": 0, "held EndTxn": 0, "late EndTxn": 0, "lost answers": 0}
        self._open, self._group_open = asyncio.Event(), asyncio.Event()
        self._open.set()
        self._group_open.set()
        self._dropping = self._refusing = False
        self._links = set()
        self._dice = random.Random(f"{seed}/proxy")
        self._late = 0
        self._moment = PRODUCE
        self._lost = 0
        self._waiting = {}
        """Transactional id → the EndTxn of it that is held."""
        self._server = None

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for link in list(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def cut(self):
        """Every connection, now."""
        for link in list(self._links):
            link.cancel()

    async def hold(self, seconds):
        """Nothing passes for so long."""
        self._open.clear()
        await asyncio.sleep(seconds)
        self._open.set()

    @contextlib.asynccontextmanager
    async def cutting(self, kind):
        """Meanwhile nothing passes, or of `group held` no request of the group while all others pass. What was held passes
        then, what was dropped is lost with its connection."""
        if kind == "refused":
            self._refusing = True
            self.cut()
        self._dropping = kind == "dropped"
        gate = self._group_open if kind == "group held" else self._open
        if kind.endswith("held"):
            gate.clear()
        try:
            yield
        finally:
            gate.set()
            if self._dropping:
                self.cut()
            self._dropping = self._refusing = False

    def late_ends(self, count, moment=PRODUCE):
        """The next `count` EndTxn requests are lost for their clients, whose connections are cut, and are delivered
        late: when a request of that kind comes from the same writer, behind PRODUCE and before any other."""
        self._late, self._moment = count, moment

    def lose_answers(self, count):
        """The next `count` EndTxn requests are delivered, and the connection is cut before the answer."""
        self._lost = count

    def _begin(self, reader, writer):
        """A link that is cancelled before its first step hangs up as well."""
        if self._refusing:
            writer.transport.abort()
            return
        self._links.add(task := asyncio.create_task(self._link(reader, writer)))
        task.add_done_callback(self._links.discard)
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _link(self, reader, writer):
        self.stats["connections"] += 1
        target = None
        try:
            target_reader, target = await asyncio.open_connection(*self.target)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._requests(reader, target, writer))
                pumps.create_task(self._answers(target_reader, writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, BaseExceptionGroup):
            pass  # either side has gone, or we cut the line
        finally:
            if target is not None:
                target.transport.abort()

    async def _requests(self, reader, target, client):
        while True:
            frame = await self._frame(reader)
            api = int.from_bytes(frame[4:6])
            if api in GROUP:
                await self._group_open.wait()
            found = WRITER.search(frame, 0, 200) if api in OF_WRITERS else None
            held = self._waiting.get(found[0]) if found else None
            if api == END_TXN and found and not held and self._late > 0:
                self._late -= 1
                client.transport.abort()
                await self._late_end(found[0], frame, target)
                raise ConnectionResetError
            if held and held.moment == api == INIT_PRODUCER:
                await held.deliver()
            target.write(frame)
            await target.drain()
            if held and held.moment == api == PRODUCE:
                await held.deliver()  # the next transaction has begun to send: now is the worst moment
            if api == END_TXN and self._lost > 0:
                self._lost -= 1
                self.stats["lost answers"] += 1
                await asyncio.sleep(self._dice.uniform(0, 0.005))
                raise ConnectionResetError

    async def _late_end(self, writer, frame, target):
        """Hold it until its moment, or for so long as a network may."""
        held = self._waiting[writer] = Held(self._moment)
        self.stats["held EndTxn"] += 1
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(held.due.wait(), LATE)
            target.write(frame)
            await target.drain()
            await asyncio.sleep(0.1)  # its client is long gone: do not hang up before the broker has read it
            self.stats["late EndTxn"] += 1
        finally:
            del self._waiting[writer]
            held.delivered.set()

    async def _answers(self, reader, writer):
        while True:
            frame = await self._frame(reader)
            with contextlib.suppress(ConnectionError):  # the client may have left a request behind that is still held
                writer.write(frame)
                await writer.drain()

    async def _frame(self, reader):
        head = await reader.readexactly(4)
        frame = head + await reader.readexactly(int.from_bytes(head))
        self.stats["frames"] += 1
        if self.lag:
            await asyncio.sleep(self._dice.uniform(0, self.lag))
        await self._open.wait()
        return await self._frame(reader) if self._dropping else frame
