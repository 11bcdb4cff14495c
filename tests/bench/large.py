"""A chain with half a million holders, all in one run: `python -m tests.bench.large [rows]`.

- whole: an Ondo answer of about 54 MB, one row in ten thousand changed, read and compared as the poller does it,
  against a bare typed decode of the same body, in turns; once into structs that the collector watches, which is what
  msgspec makes by default, and once into structs that it does not, which is the cheapest there is;
- unchanged: the same body once more;
- hold: the longest that the event loop was not free for another task that asks for a turn all the time, and how much of
  that was our own CPU time, which is what counts on a machine that others use too;
- memory: the peak on top of what the ledger keeps, against the size of the body.
"""

import gc
import statistics
import sys
import time
import tracemalloc
from contextlib import asynccontextmanager

import anyio
import msgspec

from watcher.ingest.committer import Committer
from watcher.journal import Restored
from watcher.ledger import Ledger
from watcher.model.readings import Answer, Times
from watcher.poller.bulk import fingerprint
from watcher.providers.ondo import Ondo, OndoSettings
from watcher.providers.protocol import Response
from watcher.providers.settings import Watch
from watcher.runtime.slicing import run_in_slices

TOKENS = 40


class Holder(msgspec.Struct, gc=False):
    account: str


class Balance(msgspec.Struct, gc=False):
    holder: Holder = msgspec.field(name="holderAddress")
    balance: str


class Token(msgspec.Struct):
    address: str = msgspec.field(name="tokenAddress")
    symbol: str = msgspec.field(name="tokenSymbol")
    balances: list[Balance]


class Listing(msgspec.Struct):
    tokens: list[Token]


class WatchedHolder(msgspec.Struct):
    account: str


class WatchedBalance(msgspec.Struct):
    holder: WatchedHolder = msgspec.field(name="holderAddress")
    balance: str


class WatchedToken(msgspec.Struct):
    address: str = msgspec.field(name="tokenAddress")
    symbol: str = msgspec.field(name="tokenSymbol")
    balances: list[WatchedBalance]


class WatchedListing(msgspec.Struct):
    tokens: list[WatchedToken]


def body(rows, turn):
    """One token has half of the holders, as popular ones do."""
    tokens, done = [], 0
    for number in range(TOKENS):
        count = rows // 2 if number == 0 else rows // 2 // (TOKENS - 1)
        held = [holding(n, turn) for n in range(done, done + count)]
        tokens.append(Token(f"0x{number + 1:040x}", f"T{number}on", held))
        done += count
    return msgspec.json.encode(Listing(tokens))


def holding(n, turn):
    account = n * 0x9E3779B97F4A7C15F39CC0605CEDC8341082276B % 2**160
    return Balance(Holder(f"0x{account:040x}"), f"{n % 977 + turn * (n % 10_000 == 0)}.46758380011703843{n % 9 + 1}")


class Journal:
    """Takes everything at once: this measures what comes before it."""

    async def open(self):
        return Restored([], {}, "e0", anyio.current_time(), released=True)

    async def commit(self, batch):  # noqa: ARG002 (a Writer)
        await anyio.lowlevel.checkpoint()

    async def release(self, *, in_doubt=0.0):  # noqa: ARG002
        await anyio.lowlevel.checkpoint()

    async def close(self):
        await anyio.lowlevel.checkpoint()


class Watcher:
    """What the poller does with an answer once it is there."""

    def __init__(self):
        settings = OndoSettings(type="ondo", watch=[Watch(chain="ethereum-1")])
        self.provider = Ondo("ondo", settings, keyed=True)
        (group,) = self.provider.groups
        self.request = self.provider.ask(group.lanes[0], group.targets, 60.0)
        self.scope = self.request.targets[0].scope
        self.committer = Committer(Journal(), Ledger(), gather=0.0, bound=10**9)
        self.now = 0.0

    def answer(self, readings, known):
        now = self.now
        return Answer("ondo", readings, "none", 60.0, Times(now - 1, now, int(now * 1e6)), self.scope, known)

    async def take(self, data):
        """Whether it had to be read."""
        self.now += 100.0
        response = Response(200, data, self.now)
        known = await run_in_slices(fingerprint(data))
        if await self.committer.repeat(self.answer([], known)) is not None:
            return False
        found = await run_in_slices(self.provider.read_in_slices(self.request, response))
        await self.committer.accept(self.answer(found.readings, known))
        await run_in_slices(found.readings.clear())  # type: ignore[attr-defined] # a bulk listing has it
        return True


async def timed(work):
    """CPU seconds of the process."""
    gc.collect()
    began = time.process_time()
    await work()
    return time.process_time() - began


async def bare(decoder, data):
    decoder.decode(data)


async def pulse(held):
    """Asks for a turn all the time, as a relay would; every wait for one counts."""
    while True:
        wall, cpu = time.perf_counter(), time.thread_time()
        await anyio.lowlevel.checkpoint()
        held.append((time.perf_counter() - wall, time.thread_time() - cpu))


async def longest_hold(work):
    held = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pulse, held)
        await anyio.lowlevel.checkpoint()
        await work()
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    return " (".join(f"{max(seconds) * 1e3:.1f} ms" for seconds in zip(*held, strict=True)) + " of our own)"


@asynccontextmanager
async def watching(rows):
    """A watcher that knows body 0."""
    watcher = Watcher()
    async with anyio.create_task_group() as tasks:
        await tasks.start(watcher.committer.run)
        data = body(rows, 0)
        for _ in range(2):
            assert await watcher.take(data)
        await watcher.committer.flush()
        yield watcher
        tasks.cancel_scope.cancel()


async def measure(rows):
    async with watching(rows) as watcher:
        gc.freeze()  # so that the bare decode, whose structs the collector watches, does not pay for what stands here
        await ratios(watcher, rows)
        gc.unfreeze()
        await holds(watcher, rows)
        await memory(watcher, rows)


async def ratios(watcher, rows, turns=5):
    usual, cheap = msgspec.json.Decoder(WatchedListing), msgspec.json.Decoder(Listing)
    theirs, least, ours, again = [], [], [], []
    for turn in range(1, turns + 1):
        data = body(rows, turn)
        theirs.append(await timed(lambda data=data: bare(usual, data)))
        least.append(await timed(lambda data=data: bare(cheap, data)))
        ours.append(await timed(lambda data=data: watcher.take(data)))
        await watcher.committer.flush()
        again.append(await timed(lambda data=data: watcher.take(data)))
    floor, cheapest, whole, same = map(statistics.median, (theirs, least, ours, again))
    print(
        f"bare      {floor * 1e3:6.0f} ms for {rows:,} rows ({len(data) / 1e6:.0f} MB), {cheapest * 1e3:.0f} untracked"
    )
    for name, seconds, goal in (("whole", whole, 2), ("unchanged", same, 0.15)):
        print(
            f"{name:9} {seconds * 1e3:6.0f} ms: {seconds / floor:.2f} x a bare typed decode (goal {goal}), "
            f"{seconds / cheapest:.2f} x one into untracked structs"
        )


async def holds(watcher, rows):
    data = body(rows, 0)
    gc.collect()
    whole = await longest_hold(lambda: watcher.take(data))
    await watcher.committer.flush()
    same = await longest_hold(lambda: watcher.take(data))
    print(f"hold      {whole} at the longest, {same} when unchanged (goal 50)")


async def memory(watcher, rows):
    data = body(rows, 1)
    gc.collect()
    tracemalloc.start()
    await watcher.take(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"memory    {peak / len(data):6.2f} x the body at the peak, beside the body and the ledger")


def main(argv=()):
    anyio.run(measure, int(argv[0]) if argv else 500_000)


if __name__ == "__main__":
    main(sys.argv[1:])
