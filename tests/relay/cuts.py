"""Random cuts, judged against a subscriber that never leaves: `python -m tests.relay.cuts --cuts 1000 --seed 1`.

One process tells changes and serves a relay that stays. Two more relays on the same database come and go: they are
killed with SIGKILL, and subscribers are cut by a TCP reset, a close frame, half a frame or silence, each carrying its
cursor to whichever relay is there. In the end nobody has a gap, and nobody was told anything twice in one life.
"""

import argparse
import asyncio
import contextlib
import json
import random
import socket
import struct
import sys
import tempfile
from pathlib import Path

import anyio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.kafka_broker import free_port
from tests.relay.stage import PATIENCE, calm, staged

ACCOUNTS = [f"a{n}" for n in range(12)]
WAYS = ("reset", "close", "half", "leave", "kill")


class Served:
    """A relay process that can be killed and comes back on its port."""

    def __init__(self, path):
        self.path = path
        self.port = free_port()
        self.process = None

    async def start(self):
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.relay.served", str(self.path), str(self.port), stdout=asyncio.subprocess.PIPE
        )
        line = await self.process.stdout.readline()
        while not line.strip().isdigit():  # a line of the log
            assert line, "the relay process ended"
            line = await self.process.stdout.readline()

    async def kill(self):
        await self.end()
        await self.start()

    async def end(self):
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.communicate()  # to the end of the pipe, or it would be left to the garbage collector


class Follower:
    """Subscribes, is cut, comes again with its cursor; keeps what it was told, in order."""

    def __init__(self, rng, ports, *, crossed=False):
        self.crossed = crossed
        """It wants crossings too."""
        self.rng = rng
        self.ports = ports
        self.cursor = None
        self.events = []
        self.faults = []

    async def live(self, count):
        """Until so many updates came, or the connection ended."""
        url = f"ws://127.0.0.1:{self.rng.choice(self.ports())}/v1/stream"
        try:
            async with connect(
                url, compression=None, open_timeout=PATIENCE, ping_interval=None, close_timeout=0.2
            ) as client:
                await self._follow(client, count)
                await self._part(client)
        except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError):
            await anyio.sleep(0.02)

    async def _follow(self, client, count):
        params = {"snapshot": False} if self.cursor is None else {"cursor": self.cursor, "on_gap": "error"}
        params |= {"crossed": True} if self.crossed else {}
        await client.send(json.dumps({"id": 1, "method": "subscribe", "params": params}))
        seen = set()
        while count:
            async with asyncio.timeout(PATIENCE):
                message = json.loads(await client.recv())
            if message.get("id") == 1:
                if "error" in message:
                    self.faults.append(message["error"])
                    return
                self.cursor = self.cursor or message["result"]["cursor"]
            elif message["type"] in ("update", "crossed"):
                self.take(message, seen)
                count -= 1
            elif "cursor" in message:
                self.cursor = message["cursor"]

    def take(self, message, seen):
        event = message["event"]
        if event["id"] in seen:
            self.faults.append(("told twice in one life", event["id"]))
        seen.add(event["id"])
        self.cursor = message["cursor"]
        self.events.append((event["account"], event["version"], event["id"], event.get("alert", "")))

    async def _part(self, client):
        way = self.rng.choice(WAYS[:4])
        raw = client.transport.get_extra_info("socket")
        if way == "reset":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.transport.abort()
        elif way == "half":
            client.transport.write(b"\x81\xfe\x00")
            client.transport.close()
        elif way == "leave":
            client.transport.abort()


def judge(told, follower):
    """Gaps and repetitions of one follower against everything that was told."""
    firsts = list(dict.fromkeys(follower.events))
    told = [event for event in told if follower.crossed or not event[3]]
    gaps = set(told) - set(firsts)
    order = {}
    disorder = 0
    for account, version, _, alert in firsts:
        # A crossing stands behind its change, and before the next one.
        disorder += version != order.get(account, 0) + (not alert)
        order[account] = version
    return {
        "gaps": len(gaps),
        "unasked": len(set(firsts) - set(told)),
        "repeated": len(follower.events) - len(firsts),
        "disorder": disorder,
        "faults": follower.faults,
    }


async def trial(cuts, seed, folder, followers=8):  # noqa: C901, PLR0915 - one stage, all its actors
    rng = random.Random(seed)
    async with staged(folder, calm(heartbeat=5.0)) as stage:
        await stage.teller.tell(*ACCOUNTS)
        others = [Served(stage.path), Served(stage.path)]
        crowd = [
            Follower(random.Random(seed + n), lambda: [stage.port, *(o.port for o in others)], crossed=n % 2 == 0)
            for n in range(followers)
        ]
        stayer = Follower(rng, lambda: [stage.port], crossed=True)
        for each in crowd:
            each.cursor = str(stage.relay.flusher.fan_out.cursor)
        stayer.cursor = crowd[0].cursor
        done, silent = anyio.Event(), anyio.Event()
        left = [cuts]

        async def tell():
            while not done.is_set():
                told = rng.sample(ACCOUNTS, rng.randint(1, 6))
                await stage.teller.tell(*told, crossed=told[:2])
                await anyio.sleep(rng.random() * 0.01)
            silent.set()

        async def leave_and_return(follower):
            while left[0] > 0:
                left[0] -= 1
                await follower.live(follower.rng.randint(1, 30))

        async def kill():
            while left[0] > 0:
                await anyio.sleep(0.5 + rng.random())
                left[0] -= 1
                await rng.choice(others).kill()

        async def stay():
            with contextlib.suppress(ConnectionClosed):
                async with stage.connect(compression=None, ping_interval=None) as client:
                    await stayer._follow(client, 10**9)

        try:
            for each in others:
                await each.start()
            async with anyio.create_task_group() as always:
                always.start_soon(stay)
                always.start_soon(tell)
                async with anyio.create_task_group() as tasks:
                    for each in crowd:
                        tasks.start_soon(leave_and_return, each)
                    tasks.start_soon(kill)
                done.set()
                await silent.wait()
                told = [(event.account, event.version, event.id, "") for event in stage.teller.told]
                crossed = [(event.account, event.version, event.id, event.alert) for event in stage.teller.crossed]
                for each in [*crowd, stayer]:
                    owed = len(told) + (len(crossed) if each.crossed else 0)
                    with anyio.move_on_after(2 * PATIENCE):
                        while not each.events or len(set(each.events)) < owed:
                            if each is stayer:
                                await anyio.sleep(0.01)
                            else:
                                await each.live(owed - len(set(each.events)))
                always.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                for each in others:
                    await each.end()
    return told + crossed, stayer, crowd


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        told, stayer, crowd = anyio.run(trial, options.cuts, options.seed, Path(folder))
    verdicts = [judge(told, each) for each in [stayer, *crowd]]
    for verdict in verdicts:
        print(verdict)
    gaps = sum(v["gaps"] + v["disorder"] + v["unasked"] for v in verdicts)
    repeated = sum(v["repeated"] for v in verdicts)
    faults = sum(len(v["faults"]) for v in verdicts)
    print(
        f"{options.cuts} cuts, {len(told)} events, {len(crowd)} followers: {gaps} gaps, {repeated} duplicates, {faults} faults"
    )
    return 1 if gaps or repeated or faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
