"""SQLite against the least that SQLite could cost, in one run: `python -m tests.bench.journal [keys]`.

- commits: the writer, encoding and thread included, against bare `executemany` + commit of ready-made rows, into the
  same tables of another file with the same pragmas, 100 changes a commit, in short turns; and against the same bare
  work on a thread, since no loop can wait for a disk itself: what that costs is in the first ratio too;
- restore: open and restore into a ledger against a raw read, which is every record fetched and decoded;
- memory of a key in the ledger;
- from an accepted answer to a follower who has it, within the process and across two.
"""

import contextlib
import gc
import statistics
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import anyio
import msgspec

from watcher.ingest.committer import Committer
from watcher.journal import Batch
from watcher.journal.sqlite.file import open_to_write, worker
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.journal.sqlite.writer import INSERT_EVENT, PUT_STATE
from watcher.ledger import Ledger
from watcher.model.events import JSON
from watcher.model.readings import Answer, Reading, Times
from watcher.model.times import parse_rfc3339
from watcher.testing.journal_samples import BEGAN, baseline, change

GROUP = 100
ROUNDS = 10
TURNS = 120
ANSWERS = 200


def journal_at(path):
    return SqliteJournal(path, encoding="json", retention=604800.0, clock=lambda: BEGAN)


def batches():
    """Rounds of 100 changes over 10,000 balances, baselines first."""
    rows = [baseline(f"account{number}", 10**9 + number) for number in range(10_000)]
    yield from (rows[start : start + GROUP] for start in range(0, len(rows), GROUP))
    for number in range(TURNS * ROUNDS):
        place = number * GROUP % len(rows)
        rows[place : place + GROUP] = told = [change(row, 10**9 + number) for row in rows[place : place + GROUP]]
        yield told


def bare(connection, rows):
    """What a commit cannot do without: the rows are ready, nothing is checked."""
    events, states = rows
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(INSERT_EVENT, events)
    connection.executemany(PUT_STATE, states)
    connection.execute("COMMIT")


def ready(rows):
    kind = JSON.content_type
    return (
        [
            (str(row.state.key), row.state.version, parse_rfc3339(row.event.observed_at), kind, JSON.encode(row.event))
            for row in rows
            if row.event
        ],
        [(str(row.state.key), row.state.account, row.state.version, kind, JSON.encode(row.state)) for row in rows],
    )


async def commits(folder):
    work = list(batches())
    writer = journal_at(folder / "ours.db").writer(0)
    await writer.open()
    on_thread = worker()
    with (
        contextlib.closing(open_to_write(folder / "bare.db")) as here,
        contextlib.closing(open_to_write(folder / "thread.db")) as there,
    ):

        async def ours(rows):
            await writer.commit(Batch(rows))

        async def bare_here(rows):
            bare(here, rows)

        async def bare_there(rows):
            await on_thread(lambda: bare(there, rows))

        for rows in work[:GROUP]:
            await ours(rows)
            await bare_here(ready(rows))
            await bare_there(ready(rows))
        spent = {ours: [], bare_here: [], bare_there: []}
        for start in range(GROUP, len(work), ROUNDS):
            turn = work[start : start + ROUNDS]
            finished = [ready(rows) for rows in turn]
            for way, taken in spent.items():
                taken.append(await timed(way, turn if way is ours else finished))
    await writer.close()
    fast, floor, threaded = (
        [GROUP * ROUNDS / statistics.median(column) for column in zip(*taken, strict=True)] for taken in spent.values()
    )
    print(f"commits      {fast[0]:10,.0f} events/s, bare {floor[0]:,.0f}: ratio {fast[0] / floor[0]:.2f} (goal >= 0.8)")
    print(f"  by processor time {fast[1] / floor[1]:.2f}")
    print(f"  bare on a thread {threaded[0]:,.0f}: ratio {fast[0] / threaded[0]:.2f}, by processor time", end=" ")
    print(f"{fast[1] / threaded[1]:.2f}")


async def timed(way, turn):
    """Seconds for that turn: by the clock and of the processor."""
    began, worked = time.perf_counter(), time.process_time()
    for rows in turn:
        await way(rows)
    return time.perf_counter() - began, time.process_time() - worked


def fill(path, keys):
    """A journal that holds that many balances, made with plain SQL."""
    row = baseline("x", 10**9).state
    states = (
        msgspec.structs.replace(row, account=f"0x{number:040x}", amount=str(10**9 + number)) for number in range(keys)
    )
    records = ((str(one.key), one.account, 0, JSON.content_type, JSON.encode(one)) for one in states)
    with contextlib.closing(open_to_write(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        connection.executemany(PUT_STATE, records)
        connection.execute("COMMIT")


async def restore(folder, keys):
    path = folder / "large.db"
    fill(path, keys)
    raw, opened, loaded = [], [], []
    for _ in range(3):
        gc.collect()
        began = time.perf_counter()
        with contextlib.closing(open_to_write(path)) as connection:
            found = [JSON.state(data) for (data,) in connection.execute("SELECT data FROM state")]
        raw.append(time.perf_counter() - began)
        assert len(found) == keys
        del found
        gc.collect()
        writer, ledger = journal_at(path).writer(0), Ledger()
        began = time.perf_counter()
        restored = await writer.open()
        opened.append(time.perf_counter() - began)
        ledger.restore(restored.states, restored.notes, restored.epoch)
        loaded.append(time.perf_counter() - began)
        await writer.close()
        del restored
        gc.collect()
    floor, ours, whole = min(raw), min(opened), min(loaded)
    print(
        f"restore      {ours:10.2f} s for {keys:,} keys, raw read {floor:.2f}: ratio {ours / floor:.2f} (goal <= 1.5)"
    )
    print(f"  into the ledger as well {whole:.2f} s: ratio {whole / floor:.2f}")


async def memory(folder, keys=100_000):
    """Exact bytes of the objects that a restored ledger keeps."""
    path = folder / "memory.db"
    fill(path, keys)
    writer, ledger = journal_at(path).writer(0), Ledger()
    tracemalloc.start()
    restored = await writer.open()
    ledger.restore(restored.states, restored.notes, restored.epoch)
    del restored
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await writer.close()
    print(f"memory       {size / keys:10.0f} B a key in the ledger (goal <= 400)")


def answer(number):
    key = baseline("x", 0).state.key
    now = anyio.current_time()
    reading = Reading(key, str(number), "base", order=number)
    return Answer("bank", [reading], "strict", 0.0, Times(now, now, time.time_ns() // 1000))


async def accept_some(path, settle=0.5):
    """An answer every 20 ms or so; its time goes with it as `observed_at`."""
    committer = Committer(journal_at(path).writer(0), Ledger(), gather=0.0)
    async with anyio.create_task_group() as tasks:
        await tasks.start(committer.run)
        for number in range(1, ANSWERS + 2):
            await committer.accept(answer(number))
            await anyio.sleep(0.02 + number % 7 / 1000)
        await anyio.sleep(settle)
        tasks.cancel_scope.cancel()


async def follow(path):
    """Milliseconds from an answer's time to the moment at which the follower has it."""
    reader = await journal_at(path).reader()
    delays = []
    with anyio.fail_after(120):
        async for commit in reader.follow((await reader.bounds()).head):
            now = time.time_ns() // 1000
            delays += [(now - event.observed_at) / 1000 for event in commit.events]
            if len(delays) >= ANSWERS:
                break
    await reader.close()
    return delays


async def latency(path):
    """In two processes; within one, the relay of the daemon reads through the same journal object and is woken."""
    await journal_at(path).init()
    command = [
        sys.executable,
        "-c",
        f"import anyio; from tests.bench.journal import *; anyio.run(accept_some, Path({str(path)!r}))",
    ]
    async with await anyio.open_process(command, stdout=None, stderr=None):
        tell("two processes", await follow(path))


async def latency_within(path):
    journal, delays = journal_at(path), []
    committer = Committer(journal.writer(0), Ledger(), gather=0.0)

    async def arrive():
        reader = await journal.reader()
        async for commit in reader.follow((await reader.bounds()).head):
            now = time.time_ns() // 1000
            delays.extend((now - event.observed_at) / 1000 for event in commit.events)

    async with anyio.create_task_group() as tasks:
        await tasks.start(committer.run)
        tasks.start_soon(arrive)
        for number in range(1, ANSWERS + 2):
            await committer.accept(answer(number))
            await anyio.sleep(0.02 + number % 7 / 1000)
        await anyio.sleep(0.5)
        tasks.cancel_scope.cancel()
    tell("one process", delays)


def tell(where, delays):
    delays = sorted(delays)
    p50, p99 = delays[len(delays) // 2], delays[len(delays) * 99 // 100]
    print(f"latency      {p50:10.2f} ms p50, {p99:.2f} ms p99, {where} (goal p50 <= 10)")


def main(keys=1_000_000):
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        anyio.run(commits, folder)
        anyio.run(latency_within, folder / "one.db")
        anyio.run(latency, folder / "two.db")
        anyio.run(restore, folder, keys)
        anyio.run(memory, folder)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
