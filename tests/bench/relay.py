"""What a delivery costs, as a multiple of a C `send()` loop of ours on the same sockets in the same run.

    python -m tests.bench.relay [--subscribers 100,1000,5000] [--quick]

Processor time of the server's process, user and system, over the number of deliveries; the crowd reads in a process of
its own. Each round runs all variants in turn, and the medians are compared, so that a busy machine is unfair to all.
"""

import argparse
import asyncio
import contextlib
import ctypes
import gc
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio
from websockets.asyncio.server import broadcast

from tests.relay.stage import SOLANA, staged
from tests.relay.test_slow import slow
from watcher.model.keys import Key
from watcher.model.log import Commit, Published
from watcher.model.times import parse_rfc3339
from watcher.relay import wire
from watcher.relay.settings import RelayTuning

SOURCE = Path(__file__).with_name("floor.c")
SIZE = 349
"""Bytes of an event."""


class Crowd:
    """Subscribers in a process of their own, and the library for the floor."""

    def __init__(self, folder):
        self.program = folder / "crowd"
        library = folder / "floor.so"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
        subprocess.run(["cc", "-O2", "-DCROWD", "-o", self.program, SOURCE], check=True)
        self.send_all = ctypes.CDLL(str(library)).send_all
        self.send_all.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]

    @contextlib.asynccontextmanager
    async def of(self, stage, count):
        process = await asyncio.create_subprocess_exec(
            self.program, str(stage.port), str(count), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert await process.stdout.readline() == b"joined\n"
            connections = stage.relay.connections
            while sum(each.outbox.live and bool(each.subscriptions) for each in connections) < count:  # noqa: ASYNC110
                await anyio.sleep(0.05)
            yield list(connections)
        finally:
            process.kill()
            await process.wait()


class Source:
    """Events made as the journal would give them."""

    def __init__(self, relay):
        self.relay = relay
        self.key = Key("jupiter", SOLANA, "3emsAVdmGKERbHjmGfQ6oZ1e35dkf5iYcS6U4CPKFVaa", "native")
        self.data = json.dumps({"symbol": "x" * (SIZE - 13)}, separators=(",", ":")).encode()
        assert len(self.data) == SIZE

    def commit(self, count):
        cursor = self.relay.flusher.fan_out.cursor
        first = cursor.positions[0]
        events = [Published(self.key, n, self.data, 0, n, 0) for n in range(first, first + count)]
        return Commit(type(cursor)(cursor.epoch, (first + count,)), events)


async def drained(connections):
    """Until the crowd has read everything."""
    await anyio.sleep(0.002 + len(connections) / 300_000)
    while any(each.outbox.blocked for each in connections):  # noqa: ASYNC110 - no event says it
        await anyio.sleep(0.005)


async def measured(connections, rounds, deliver):
    """Nanoseconds of processor time a round; waiting costs nothing."""
    spent = 0
    for _ in range(rounds):
        await drained(connections)
        before = time.process_time_ns()
        await deliver()
        spent += time.process_time_ns() - before
    return spent / rounds


def variants(crowd, relay):
    """Each gives one event, or four, to everybody, and returns when the kernel has it."""
    source = Source(relay)
    websockets = [accepted._connection for accepted in relay.listener.admission.sockets.values()]
    sockets = [websocket.transport.get_extra_info("socket").fileno() for websocket in websockets]
    array = (ctypes.c_int * len(sockets))(*sockets)
    (event,) = source.commit(1).events
    frame = wire.event(str(relay.flusher.fan_out.cursor), event)
    text = frame[4:]

    async def floor():
        assert crowd.send_all(array, len(sockets), frame, len(frame)) == 0

    async def library():
        broadcast(websockets, text, text=True)

    async def publish(count):
        await relay.flusher.publish(source.commit(count), RelayTuning().replay_bytes)
        while relay.flusher.fan_out.ready or relay.flusher.fan_out.round:  # noqa: ASYNC110 - a turn of the loop is what is measured
            await asyncio.sleep(0)

    return {
        "floor": (1, floor),
        "broadcast": (1, library),
        "relay": (1, lambda: publish(1)),
        "relay, 4 pending": (4, lambda: publish(4)),
    }


async def cost(crowd, folder, subscribers, rounds, repeats):
    """Nanoseconds a delivery, by variant."""
    async with staged(folder, RelayTuning(heartbeat=3600, ping=3600), max_connections=20_000) as stage:  # noqa: SIM117 - one needs the other
        async with crowd.of(stage, subscribers) as connections:
            todo = variants(crowd, stage.relay)
            gc.collect()
            gc.freeze()
            found = {name: [] for name in todo}
            for _ in range(repeats):
                for name, (events, deliver) in todo.items():
                    spent = await measured(connections, rounds, deliver)
                    found[name].append(spent / events / subscribers)
            assert not stage.relay.stats.lagging
            gc.unfreeze()
    return {name: statistics.median(each) for name, each in found.items()}


async def idle(crowd, folder, count):
    """Bytes of resident memory that a subscribed connection costs while nothing happens."""
    async with staged(folder, RelayTuning(), max_connections=20_000) as stage:
        async with crowd.of(stage, 50):
            pass
        gc.collect()
        before = resident()
        async with crowd.of(stage, count):
            gc.collect()
            return (resident() - before) / count


OTHERS = 8


TURNS = 2


async def stalled(folder):
    """Seconds until a reader that takes nothing is seen and gone (the slowest of each), and the others' p99 in
    milliseconds without and beside it: turn and turn about, so that a busy machine is unfair to both."""
    async with staged(folder, RelayTuning()) as stage, contextlib.AsyncExitStack() as opened:
        await stage.teller.tell("A")
        delays, quiet, beside, seen, gone = [], [], [], [], []

        async def listen(other):
            while True:
                told = (await other.push("update", within=60))["event"]["observed_at"]
                delays.append((time.time_ns() // 1000 - parse_rfc3339(told)) / 1000)

        async def tell(until):
            while not until():
                await stage.teller.tell("A", symbol="x" * 4000)
                await anyio.sleep(0.005)

        def gather(into):
            into += delays
            delays.clear()

        async with anyio.create_task_group() as tasks:
            for _ in range(OTHERS):
                other = await opened.enter_async_context(stage.subscriber())
                await other.subscribe(snapshot=False)
                tasks.start_soon(listen, other)
            for _ in range(TURNS):
                end = time.monotonic() + 8
                await tell(lambda end=end: time.monotonic() > end)
                gather(quiet)
                async with slow(stage) as one:
                    await one.subscribe(snapshot=False)
                    await tell(lambda: stage.relay.connections.blocked)
                    begun = time.monotonic()
                    await tell(lambda: stage.relay.stats.stalled)
                    seen.append(time.monotonic() - begun)
                    await tell(lambda: len(stage.relay.listener.admission.sockets) == OTHERS)
                    gone.append(time.monotonic() - begun)
                    gather(beside)
            tasks.cancel_scope.cancel()
    return max(seen), max(gone), p99(quiet), p99(beside)


async def stalling(folder, count):
    """Bytes of resident memory that so many stalled readers cost at most, until the last of them is gone."""
    async with staged(folder, RelayTuning()) as stage, contextlib.AsyncExitStack() as opened:
        await stage.teller.tell("A")
        for _ in range(300):  # what the journal and the recent events take is not theirs
            await stage.teller.tell("A", symbol="x" * 4000)
        gc.collect()
        before = most = resident()
        for _ in range(count):
            one = await opened.enter_async_context(slow(stage))
            await one.subscribe(snapshot=False)
        while stage.relay.listener.admission.sockets:
            await stage.teller.tell("A", symbol="x" * 4000)
            most = max(most, resident())
            await anyio.sleep(0.005)
        assert stage.relay.stats.dropped == {"stalled": count}
    return most - before


async def held(crowd, folder, count):
    """Milliseconds of a turn of the loop, as (p99.9, most), on the clock and of processor time: idle, then delivering."""
    async with staged(folder, RelayTuning(heartbeat=3600, ping=3600), max_connections=20_000) as stage:  # noqa: SIM117 - one needs the other
        async with crowd.of(stage, count) as connections:
            source = Source(stage.relay)
            gc.collect()
            gc.freeze()
            idling = await turns(lambda: anyio.sleep(0.05))

            async def deliver():
                await stage.relay.flusher.publish(source.commit(4), RelayTuning().replay_bytes)
                await drained(connections)

            busy = await turns(deliver)
            gc.unfreeze()
    return idling, busy


async def turns(do):
    """How long the turns of the loop are in five seconds of doing it."""
    wall, cpu = [], []

    async def tick():
        while True:
            begun, spent = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0)
            wall.append((time.perf_counter() - begun) * 1000)
            cpu.append((time.thread_time() - spent) * 1000)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        end = time.monotonic() + 5
        while time.monotonic() < end:
            await do()
        tasks.cancel_scope.cancel()
    return [(sorted(each)[-1 - len(each) // 1000], max(each)) for each in (wall, cpu)]


def p99(delays):
    return statistics.quantiles(delays, n=100)[98]


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


GOALS = {
    "relay": "(goals at 1,000: 1.5 x floor, 0.85 x broadcast)",
    "relay, 4 pending": "(goal: 0.45 x floor)",
}


def show_costs(crowd, folder, subscribers, rounds, repeats):
    for count in subscribers:
        place = folder / str(count)
        place.mkdir()
        found = anyio.run(cost, crowd, place, count, max(5, rounds // count), repeats)
        floor, library = found["floor"], found["broadcast"]
        print(f"{count} subscribers: a send() costs {floor / 1000:.2f} us")
        for name, each in found.items():
            goal = GOALS.get(name, "")
            print(
                f"  {name:18} {each / 1000:7.2f} us  {each / floor:5.2f} x floor  {each / library:5.2f} x broadcast  {goal}"
            )
        sys.stdout.flush()


def show_held(crowd, folder, count):
    folder.mkdir()
    for name, found in zip(("idle", "delivering"), anyio.run(held, crowd, folder, count), strict=True):
        (wall_most, wall_max), (cpu_most, cpu_max) = found
        print(
            f"a turn of the loop at {count} subscribers, {name}: p99.9 {wall_most:.2f} ms, most {wall_max:.2f} ms",
            end="",
        )
        print(f"; of processor time {cpu_most:.2f} and {cpu_max:.2f} ms (goal: 10)", flush=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subscribers", default="100,1000,5000")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    if shutil.which("cc") is None:
        print("relay: no C compiler, so no floor to compare with")
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        crowd = Crowd(folder)
        (folder / "idle").mkdir()
        if not options.quick:
            each = anyio.run(idle, crowd, folder / "idle", 2000)
            print(f"an idle connection costs {each / 1024:.1f} KiB (goal: 20 KB at most)", flush=True)
            show_held(crowd, folder / "held", 5000)
            (folder / "stalling").mkdir()
            grown = anyio.run(stalling, folder / "stalling", 24) / 1e6
            print(f"24 stalled readers cost {grown:.1f} MB at most (goal: 36)", flush=True)
            (folder / "stalled").mkdir()
            seen, gone, without, beside = anyio.run(stalled, folder / "stalled")
            print(f"a stalled reader is seen after {seen:.2f} s (goal: 1) and gone after {gone:.2f} s (goal: 17)")
            print(
                f"p99 of another reader: {without:.2f} ms without it, {beside:.2f} ms beside it (goal: the same)",
                flush=True,
            )
        counts = [int(count) for count in options.subscribers.split(",")]
        show_costs(crowd, folder, counts, 4000 if options.quick else 20_000, 3 if options.quick else 9)


if __name__ == "__main__":
    main()
