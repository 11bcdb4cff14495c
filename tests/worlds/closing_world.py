"""Days of balances whose every move is known, and daemons that close the days, come, go and are killed meanwhile.

Real pollers, ledger, committer, closer and SQLite; the wires and the clocks are ours. An answer says what is true at its instant,
and no amount comes twice.
"""

import contextlib
import random
from bisect import bisect_right

import anyio
import httpx

from tests.polling import START, Api, account_of, balance, helius, poller_of, solana
from watcher.app.day_closer import DayCloser, Keeping
from watcher.app.shared_reader import SharedReader
from watcher.ingest.committer import Committer
from watcher.ingest.last_seen_notes import LastSeenNotes
from watcher.journal import Fenced
from watcher.journal.sqlite.file import inline
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.ledger import Ledger
from watcher.model.days import last_day_over, midnight_after
from watcher.model.keys import Filter
from watcher.model.log import Unavailable
from watcher.model.times import parse_rfc3339
from watcher.past.state_at import state_at

DAY = 86400.0
FIRST = (midnight_after(last_day_over(START)) - START) / 1e6 + DAY
"""Virtual seconds at the first midnight."""
WATCHES = 4
PROVIDERS = ("alpha", "beta")
LIMITS = ((1, 200.0),)
"""Each balance is read about every quarter of an hour."""


def day_after(number):
    """The day that ends at FIRST + so many days."""
    return last_day_over(START + round((FIRST + number * DAY) * 1e6))


class Truth:
    """account → (time, amount) of each move, drawn ahead."""

    def __init__(self, seed, days, every=4 * 3600.0):
        dice, number = random.Random(seed), 0
        self.moves = {}
        for account in map(solana, range(WATCHES)):
            time, moves = -1.0, []
            while time < days * DAY:
                number += 1
                moves.append((time, 1000 + number))
                time = max(time, 0.0) + dice.expovariate(1 / every)
            self.moves[account] = moves

    def at(self, account, time):
        moves = self.moves[account]
        return moves[bisect_right(moves, (time, float("inf"))) - 1][1]


class Death(Unavailable):
    """What a process meets in the journal once it is dead."""


class World:
    """`outages`: provider → (from, to) in virtual seconds. `retention`, `checkpoints`: seconds."""

    def __init__(self, path, seed, days, *, outages=(), retention=1.5 * DAY, checkpoints=float("inf")):
        self.path, self.seed = path, seed
        self.truth = Truth(seed, days)
        self.outages = dict(outages)
        self.retention, self.checkpoints = retention, checkpoints
        self.offset = 0.0
        """Seconds that the wall clock is ahead."""

    def wall(self):
        return START + round((anyio.current_time() + self.offset) * 1e6)

    def answer(self, provider):
        def answer(request, _number):
            now = anyio.current_time()
            begin, end = self.outages.get(provider, (0.0, 0.0))
            if begin <= now < end:
                raise httpx.ConnectError("nobody is there", request=request)
            return httpx.Response(200, json=balance(str(self.truth.at(account_of(request), now)), int(now * 10) + 1))

        return answer

    def journal(self, run=inline):
        return SqliteJournal(
            self.path,
            encoding="json",
            retention=self.retention,
            clock=self.wall,
            runner=lambda: run,
            checkpoints=self.checkpoints,
        )


class Process:
    """One `watcher run`. `dies_at`: the commit of closings at which it is killed, before or behind it."""

    def __init__(self, world, providers=PROVIDERS, *, dies_at=None, behind=False):
        self.world, self.providers = world, providers
        self.dies_at, self.behind = dies_at, behind
        self.dead = anyio.Event()
        self.fenced = False
        self.slices = 0
        self.journal = world.journal(self._run)

    async def _run(self, work):
        if self.dead.is_set():
            raise Death("dead")
        return await inline(work)

    def kill(self):
        self.dead.set()

    async def commit(self, batch):
        if batch.closings:
            self.slices += 1
            if self.slices == self.dies_at and not self.behind:
                self.kill()
        await self._commit(batch)
        if batch.closings and self.slices == self.dies_at:
            self.kill()
            raise Death("dead")

    async def live(self, until):
        """To that time, or its death, or until another one has taken its place."""
        writer = self.journal.writer(0)
        self._commit, writer.commit = writer.commit, self.commit
        committer = Committer(writer, Ledger(), gather=0.0)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(committer.run)
                await committer.ready.wait()
                with anyio.move_on_at(until):
                    async with anyio.create_task_group() as polling:
                        self._begin(committer, polling)
                        await self.dead.wait()
                        polling.cancel_scope.cancel()
                tasks.cancel_scope.cancel()
        except* Fenced:
            self.fenced = True
        except* Unavailable:
            assert self.dead.is_set() or self.fenced

    def _begin(self, committer, tasks):
        pollers = []
        for name in self.providers:
            provider = helius(WATCHES, name=name, limits=LIMITS)
            pollers.append(
                poller_of(provider, Api(self.world.answer(name), delay=0.0), committer, seed=self.world.seed)
            )
            tasks.start_soon(self._poll, pollers[-1], LastSeenNotes(name, committer, self.world.wall))
        for poller in pollers:
            poller._exchange._wall = poller._wall = self.world.wall
        closer = DayCloser(
            committer,
            lambda: pollers,
            SharedReader(self.journal.reader).lend,
            Keeping(self.world.retention, self.world.checkpoints),
            wall=self.world.wall,
            boottime=anyio.current_time,
        )
        tasks.start_soon(closer.run)

    async def _poll(self, poller, last_seen):
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(poller.run)
                tasks.start_soon(last_seen.save_forever)
        finally:
            last_seen.save_now()


@contextlib.asynccontextmanager
async def reading(world):
    reader = await world.journal().reader()
    try:
        yield reader
    finally:
        await reader.close()


async def closings(world, day):
    """Key → what is kept of that day."""
    async with reading(world) as reader:
        found = [one.balance async for part in reader.closings(day, Filter()) for one in part]
    assert len({row.key for row in found}) == len(found)
    return {row.key: row for row in found}


def judge(world, rows, time):
    """How many of each status, once each is as the truth has it."""
    counts = {"certain": 0, "changing": 0, "unseen": 0}
    for row in rows:
        counts[row.status] += 1

        def held(text, account=row.account):
            return str(world.truth.at(account, (parse_rfc3339(text) - START) / 1e6))

        if row.status == "certain":
            assert row.amount == str(world.truth.at(row.account, time)), row
        elif row.status == "changing":
            before, after = row.between
            assert (parse_rfc3339(before) - START) / 1e6 < time <= (parse_rfc3339(after) - START) / 1e6
            assert (held(before), held(after)) == (row.previous_amount, row.amount), row
        else:
            assert (parse_rfc3339(row.last_seen) - START) / 1e6 < time
            assert held(row.last_seen) == row.amount, row
    return counts


async def told(world, number):
    """What is answered of the end of a day, from wherever it is kept."""
    async with reading(world) as reader:
        return await state_at(reader, START + round((FIRST + number * DAY) * 1e6), Filter(), now=world.wall())


def set_ahead(world, seconds):
    world.offset += seconds
