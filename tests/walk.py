"""The walk of one change: which files it passes from the bytes of an answer to the bytes of the update at a subscriber.

    python tests/walk.py [--changes 15] [--tree] [--sequence] [--repo CHECKOUT]

The whole daemon runs in this process, built from a config: one Helius watch against an HTTP/1.1 server on loopback, a SQLite
journal, the relay, one websocket subscriber. A profiler runs on every thread from the moment before the server writes an
answer with a new amount to the moment the subscriber has its `update`. It looks only at frames of the package's own code.

  way      frames that carry the change: the new amount stands in an argument or in what they return (directly, or in a
           struct, list or bytes there; `self` is not searched). The goals of docs/architecture.md are about these
  window   all frames that ran meanwhile: limits, schedule and counters too
  reading  the visit of the ledger that evaluates the reading, all frames
  calls    frames begun; a resumed coroutine or generator is no new call, nor is a comprehension
  stays    runs of frames in one file; returns = stays - distinct files: how often the walk comes back to a file

Other work may run beside the walk (timers of the relay, the next poll). So the change with the fewest calls is printed, and
the median of all beside it.
"""

import argparse
import asyncio
import collections
import dis
import functools
import importlib
import json
import logging
import statistics
import sys
import tempfile
import threading
from pathlib import Path

import anyio
import msgspec
import structlog
import websockets

FIRST = 2
"""Changes that are not counted: they fill caches."""
FIGURES = (
    *("way files", "way calls", "window files", "window calls", "window stays"),
    *("ledger files", "ledger calls", "reading calls", "reading stays", "reading returns"),
)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repo", type=Path, default=Path(__file__).parents[1], help="the checkout to measure")
    parser.add_argument("--settings", default="watcher.app.settings", help="the module with parse(table)")
    parser.add_argument("--daemon", default="watcher.app.daemon", help="the module with Daemon(config, environment)")
    parser.add_argument("--ledger", default="ledger/", help="the room whose stays are counted")
    parser.add_argument("--changes", type=int, default=15)
    parser.add_argument("--tree", action="store_true", help="also the calls of the best walk, by file")
    parser.add_argument("--sequence", action="store_true", help="also the stays of the best walk, in order")
    return parser.parse_args()


def has(value, amount, depth=5):
    """Whether the amount (text of digits) stands in a value."""
    if isinstance(value, str):
        return amount in value
    if isinstance(value, bytes | bytearray | memoryview):
        return amount.encode() in bytes(value)
    if not depth:
        return False
    if isinstance(value, list | tuple | set | frozenset | collections.deque):
        return any(has(each, amount, depth - 1) for each in list(value)[:50])
    if isinstance(value, dict):
        return any(has(each, amount, depth - 1) for pair in list(value.items())[:50] for each in pair)
    if isinstance(value, msgspec.Struct):
        return any(has(getattr(value, name, None), amount, depth - 1) for name in value.__struct_fields__)
    return False


def stays(places):
    """Each run of equal places once."""
    return [place for before, place in zip(["", *places], places, strict=False) if place != before]


def runs_inside(items, inside):
    """Lists of neighbours for which `inside` holds."""
    found, run = [], []
    for item in [*items, None]:
        if item is not None and inside(item):
            run.append(item)
        elif run:
            found.append(run)
            run = []
    return found


@functools.cache
def first_instruction(code):
    """Offset at which a frame stands that has just begun; a coroutine or generator that is resumed stands further on."""
    return next((each.offset for each in dis.get_instructions(code) if each.opname == "RESUME"), 0)


class Profiler:
    """Records frames of files below `root` while it is `on`."""

    def __init__(self, root, ledger):
        self.root = f"{root}/"
        self.ledger = ledger
        self.on = False
        self.amount = ""
        self.forget()

    def forget(self):
        self.frames = {}
        """By id. They are held, so that no other frame gets the id of one."""
        self.calls = []
        """(file, function) of each frame that began."""
        self.begun = []
        """Ids of these frames."""
        self.carriers = {}
        """Id → (file, function) of frames that carry the amount."""
        self.places = []
        """The file in which each thread's innermost frame stands, in order."""

    @functools.cache  # noqa: B019 (one profiler lives as long as the process)
    def file(self, code):
        name = code.co_filename
        return name.removeprefix(self.root) if name.startswith(self.root) else None

    def __call__(self, frame, event, result):
        if not self.on or event not in ("call", "return"):
            return
        file = self.file(frame.f_code)
        if file is None:
            return
        if event == "call":
            self.enter(frame, file)
        else:
            self.leave(frame, file, result)

    def enter(self, frame, file):
        code = frame.f_code
        if id(frame) not in self.frames:
            self.frames[id(frame)] = frame
            begins = frame.f_lasti <= first_instruction(code)
            if begins and not code.co_name.endswith(("comp>", "genexpr>")):
                self.calls.append((file, code.co_qualname))
                self.begun.append(id(frame))
                names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
                if any(has(frame.f_locals.get(name), self.amount) for name in names if name not in ("self", "cls")):
                    self.carriers[id(frame)] = (file, code.co_qualname)
        self.places.append(file)

    def leave(self, frame, file, result):
        if id(frame) in self.frames and id(frame) not in self.carriers and has(result, self.amount):
            self.carriers[id(frame)] = (file, frame.f_code.co_qualname)
        back = frame.f_back
        while back is not None and self.file(back.f_code) is None:
            back = back.f_back
        if back is not None:
            self.places.append(self.file(back.f_code))

    def walk(self):
        """The figures of what was recorded, which is forgotten."""
        row = stays(self.places)
        begun = set(self.begun)
        way = [self.carriers[number] for number in self.begun if number in self.carriers]
        way += [place for number, place in self.carriers.items() if number not in begun]  # began before, returns it now
        visits = runs_inside(
            [call for call in self.calls if not call[0].startswith(("model", "redaction"))],
            lambda call: call[0].startswith(self.ledger),
        )
        reading = max(visits, key=len)
        visited = stays([file for file, _ in reading])
        found = {
            "way": way,
            "calls": list(self.calls),
            "row": row,
            "reading": reading,
            "way files": len({file for file, _ in way}),
            "way calls": len(way),
            "window files": len({file for file, _ in self.calls} | set(row)),
            "window calls": len(self.calls),
            "window stays": len(row),
            "ledger files": len({file for file in row if file.startswith(self.ledger)}),
            "ledger calls": sum(file.startswith(self.ledger) for file, _ in self.calls),
            "reading calls": len(reading),
            "reading stays": len(visited),
            "reading returns": len(visited) - len(set(visited)),
        }
        self.forget()
        return found


class Provider:
    """Answers getTokenAccountBalance; after `change` the next answer has another amount."""

    def __init__(self, profiler):
        self.profiler = profiler
        self.amount, self.slot, self.due = 7_310_951, 1, False

    def change(self):
        self.due = True

    async def serve(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.lower().split(b"\r\n")
                size = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
                begins, body = self.answer(json.loads(await reader.readexactly(size)))
                await asyncio.sleep(0.02)  # whoever sent the request has gone to wait for the answer
                self.profiler.on = begins or self.profiler.on
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
                    + body
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass

    def answer(self, asked):
        """Whether the answer has a new amount, and its body."""
        begins, self.due = self.due, False
        self.slot += 1
        if begins:
            self.amount += 101
            self.profiler.amount = str(self.amount)
        value = {"amount": str(self.amount), "decimals": 2, "uiAmount": 1.0, "uiAmountString": "1"}
        result = {"context": {"slot": self.slot}, "value": value}
        return begins, json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}).encode()


def config(folder, port):
    watch = {
        "account": "3emsAVdmGKERbHjmGfQ6oZ1e35dkf5iYcS6U4CPKFVaa",
        "token": "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
    }
    provider = {
        "type": "helius",
        "base_url": f"http://127.0.0.1:{port}",
        "api_key_env": "WALK_KEY",
        "limits": [{"requests": 40, "per": 10.0}],
        "watch": [watch],
    }
    return {"journal": f"sqlite:///{folder}/balances.db", "relay": {"port": 0}, "providers": {"helius": provider}}


async def updates(client):
    async for message in client:
        if json.loads(message).get("type") == "update":
            yield


async def measure(options, profiler, folder):
    """One walk for each change."""
    provider = Provider(profiler)
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
    settings = importlib.import_module(options.settings)
    daemon = importlib.import_module(options.daemon)
    table = config(folder, server.sockets[0].getsockname()[1])
    built = daemon.Daemon(settings.parse(table), {"WALK_KEY": "canary-key"})
    walks = []
    async with anyio.create_task_group() as tasks:
        started = await tasks.start(built.run)
        async with websockets.connect(f"ws://127.0.0.1:{started.port}/v1/stream") as client:
            await client.send(json.dumps({"id": 1, "method": "subscribe", "params": {}}))
            await anyio.sleep(0.8)  # the baseline is committed
            coming = updates(client)
            for _ in range(options.changes):
                provider.change()
                with anyio.fail_after(10):
                    await anext(coming)
                profiler.on = False
                walks.append(profiler.walk())
                await anyio.sleep(0.02)
        tasks.cancel_scope.cancel()
    server.close()
    return walks


def report(options, walks):
    best = min(walks, key=lambda walk: (walk["window calls"], walk["window stays"]))
    print(f"{'':18} best  median   ({len(walks)} changes)")
    for name in FIGURES:
        print(f"{name:18} {best[name]:4}  {statistics.median_high(walk[name] for walk in walks):6}")
    visit = (f"{file.removeprefix(options.ledger)}:{function}" for file, function in best["reading"])
    print("one reading:", " > ".join(visit))
    if options.sequence:
        print("\n".join(f"{number:3} {file}" for number, file in enumerate(best["row"], 1)))
    for title in ("way", "calls") if options.tree else ():
        print(f"== {title}")
        for file in sorted({file for file, _ in best[title]}):
            functions = [function for where, function in best[title] if where == file]
            print(f"{len(functions):4} {file}: {', '.join(functions)}")


def main():
    options = arguments()
    sys.path.insert(0, str(options.repo))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    profiler = Profiler((options.repo / "watcher").resolve(), options.ledger)
    with tempfile.TemporaryDirectory(prefix="walk-") as folder:
        sys.setprofile(profiler)
        threading.setprofile(profiler)
        walks = asyncio.run(measure(options, profiler, folder))
        sys.setprofile(None)
    report(options, walks[FIRST:])


if __name__ == "__main__":
    main()
