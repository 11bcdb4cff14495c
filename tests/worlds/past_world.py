"""A world whose every move is known, watched for hours by daemons that come, go and are killed; and what it is asked of its past.

Real everything, but for the wires and the clocks. The truth of a balance at a time is what its API would have answered then.
"""

import contextlib
import random

import anyio
import httpx
import msgspec
import trio

from tests.polling import START, journal, poller_of, wall
from watcher.app.partition_runner import Polling
from watcher.ingest.last_seen_notes import LastSeenNotes
from watcher.journal.sqlite.file import inline
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.model.keys import Filter, Key
from watcher.model.times import parse_rfc3339
from watcher.past.state_at import state_at
from watcher.providers.registry import known
from watcher.sandbox.messages import VALID_KEY
from watcher.sandbox.registry import PROVIDERS
from watcher.sandbox.transport import SandboxTransport
from watcher.sandbox.world import SandboxSettings, World, watches

TRAVEL = 2.6
"""Seconds that an answer is on its way at most: held back, and the network."""
CACHE = 20
"""Seconds that TokenKit may answer out of its cache."""
LIMITS = {"jupiter": (1, 20), "bloxroute": (5, 15), "helius": (1, 5), "ondo": (1, 15), "tokenkit": (1, 15)}
"""(requests, seconds)"""
LAG = {"helius": 13.2, "jupiter": 0.8, "bloxroute": 0.0, "ondo": 0.0, "tokenkit": CACHE + 1.0}
"""Seconds by which an honest answer may be older than the chain: slots that are not final, caches."""
LIES = {"helius": 30.0, "jupiter": 20.0, "bloxroute": 20.0, "ondo": 20.0, "tokenkit": CACHE + 21.0}
"""The same with replicas that lag."""


BEFORE = 120.0
"""Seconds until somebody looks: no answer is from before the world began."""


class Mover:
    """Moves every balance now and then: no amount comes twice, and a balance appears or vanishes once."""

    def __init__(self, world, seed):
        self._world = world
        self._dice = random.Random(f"{seed}/mover")
        self._number = 0
        balances = list(world.truth.balances.values())
        self._fates = {
            balance.key: self._dice.choice(("appears", "vanishes", "stays", "stays")) for balance in balances
        }
        for balance in balances:
            if self._fates[balance.key] == "appears":
                world.truth.put(balance, 0, anyio.current_time())
            elif not balance.amount:
                world.truth.put(balance, self._another(), anyio.current_time())

    def _another(self):
        self._number += 1
        return 10_000 + self._number

    async def run(self, every):
        balances = list(self._world.truth.balances.values())
        while True:
            await anyio.sleep(self._dice.expovariate(1 / every))
            balance = self._dice.choice(balances)
            gone = balance.amount == 0 and self._fates[balance.key] == "vanishes"
            vanishes = balance.amount and self._fates[balance.key] == "vanishes" and self._dice.random() < 0.3
            if not gone:
                self._world.truth.put(balance, 0 if vanishes else self._another(), anyio.current_time())


class Failing(SandboxTransport):
    """A provider that cannot be reached for a while, now and then. `outages`: (from, to) in seconds."""

    def __init__(self, world, outages):
        super().__init__(world)
        self._outages = outages

    async def handle_async_request(self, request):
        if any(begin <= anyio.current_time() < end for begin, end in self._outages):
            raise httpx.ConnectError("nobody is there", request=request)
        return await super().handle_async_request(request)


def provider(each, seed):
    kind, (requests, per) = known()[each], LIMITS[each]
    table = {
        "type": each,
        "base_url": f"http://127.0.0.1/{each}",
        "api_key_env": "KEY",
        "limits": [{"requests": requests, "per": per}],
        "watch": watches(seed)[each],
        **({"max_age": CACHE} if each == "tokenkit" else {}),
    }
    return kind(each, msgspec.convert(table, kind.Settings), keyed=True)


async def nothing(_poller):
    await anyio.sleep_forever()


async def live_once(file, world, seed, outages, until, *, killed):
    """One daemon. Killed: what it does from that moment on is not in the file."""
    async with journal(file) as committer, anyio.create_task_group() as tasks:
        for each in PROVIDERS:
            transport = Failing(world, outages[each])
            poller = poller_of(provider(each, seed), None, committer, seed=seed, secret=VALID_KEY, transport=transport)
            tasks.start_soon(Polling(poller, transport, LastSeenNotes(each, committer, wall)).run, nothing)
        await trio.sleep_until(until)
        left = {path: path.read_bytes() for path in parts(file)} if killed else None
        tasks.cancel_scope.cancel()
    if left is not None:
        for path in parts(file):
            path.unlink()
        for path, content in left.items():
            path.write_bytes(content)


def parts(file):
    """The file and its WAL."""
    return [path for path in (file, file.with_name(f"{file.name}-wal")) if path.exists()]


class Asker:
    """Asks for the past, now and then while the world goes on, and at its end; and judges each row by the truth."""

    def __init__(self, file, world, lag, seed):
        self._file, self._world, self._lag = file, world, lag
        self.dice = random.Random(f"{seed}/asker")
        self.counts = dict.fromkeys(("certain", "changing", "unseen", "left out"), 0)
        self.wrong = []
        self.committed = {}
        """Key → when it was found committed first (seconds)."""

    async def look_forever(self):
        while True:
            await self.look()
            await anyio.sleep(60.0)

    async def look(self):
        """At what is committed, and at moments that have just been."""
        now = anyio.current_time()
        async with self._reading() as reader:
            found = await reader.glance(Filter(), 10_000)
            for state in await found.page(10_000):
                self.committed.setdefault(state.key, now)
        await self.ask(max(0.0, now - self.dice.expovariate(1 / 300)))

    @contextlib.asynccontextmanager
    async def _reading(self):
        sqlite = SqliteJournal(self._file, encoding="json", retention=1e9, clock=wall, runner=lambda: inline)
        reader = await sqlite.reader()
        try:
            yield reader
        finally:
            await reader.close()

    async def ask(self, time):
        """What was held `time` seconds after the beginning."""
        async with self._reading() as reader:
            rows = await state_at(reader, START + round(time * 1e6), Filter(), now=wall())
        assert [row.key for row in rows] == sorted({row.key for row in rows})
        for row in rows:
            self.counts[row.status] += 1
            if (why := self._wrong(row, time)) is not None:
                self.wrong.append((time, why, row))
        for key in {key for key, first in self.committed.items() if first <= time} - {row.key for row in rows}:
            self.wrong.append((time, "it was known", key))
        self.counts["left out"] += len(self._world.truth.balances) - len(rows)

    def _wrong(self, row, time):
        """What is wrong with the row; None: nothing."""
        if row.status == "certain":
            return None if row.amount in self._true(row.key, time) else "it was another amount"
        if row.status == "unseen":
            seen = seconds(row.last_seen)
            if seen >= time:
                return "it was seen afterwards"
            return None if row.amount in self._true(row.key, seen) else "it was not seen then"
        first, last = map(seconds, row.between)
        if not first < time < last:
            return "it is another time"
        if row.previous_amount not in self._true(row.key, first) or row.amount not in self._true(row.key, last):
            return "it did not become that"
        between = {text for at in self._moves(row.key, first, last) for text in self._true(row.key, at)}
        return None if self._true(row.key, time) & (between | {row.previous_amount, row.amount}) else "it was neither"

    def _true(self, key, time):
        """What an answer that came then may have said."""
        balance = self._balance(key)
        begin = time - TRAVEL - self._lag[key.provider]
        return {balance.text(balance.at(at)) for at in (begin, time, *self._moves(key, begin, time))}

    def _moves(self, key, first, last):
        return [move.time for move in self._balance(key).moves if first <= move.time <= last]

    def _balance(self, key: Key):
        return self._world.truth.balances[key.provider, key.chain, key.account, key.token, key.kind]


def seconds(text):
    """From the beginning."""
    return (parse_rfc3339(text) - START) / 1e6


def outages_of(dice, length):
    """For each provider, a few times for up to half an hour."""
    return {
        each: [(begin := dice.uniform(0, length), begin + dice.uniform(60, 1800)) for _ in range(2)]
        for each in PROVIDERS
    }


async def live(file, seed, faults, *, length, times, lag):
    """Hours of it, and so many questions. Daemons live for a while and are stopped or killed, and nobody is there for a while."""
    dice = random.Random(f"{seed}/lives")
    limits = "none," + ",".join(f"{each}={requests}/{per}" for each, (requests, per) in LIMITS.items())
    world = World(
        SandboxSettings(seed=seed, rate=0.0, faults=faults, limits=limits), start=anyio.current_time(), wall=START / 1e6
    )
    outages, asker = outages_of(dice, length), Asker(file, world, lag, seed)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Mover(world, seed).run, 15.0)
        await SqliteJournal(file, encoding="json", retention=1e9, clock=wall, runner=lambda: inline).init()
        await anyio.sleep(BEFORE)
        killed = False
        while anyio.current_time() < length:
            async with anyio.create_task_group() as looking:
                looking.start_soon(asker.look_forever)
                until = min(length, anyio.current_time() + dice.uniform(600, 3600))
                await live_once(file, world, seed, outages, until, killed=(killed := not killed))
                looking.cancel_scope.cancel()
            await asker.look()
            await anyio.sleep(dice.choice((0.0, 5.0, 600.0)))
            await asker.look()
        for _ in range(times):
            await asker.ask(asker.dice.uniform(0.0, anyio.current_time()))
        tasks.cancel_scope.cancel()
    return asker
