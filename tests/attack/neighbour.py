"""An honest neighbour, as a process of its own: a provider whose balances move, a subscriber, and a look at `/healthz`.

`python -m tests.attack.neighbour` prints the provider's port. Each line on stdin is a command, each answer one line:
`follow PORT` subscribes at the relay of that port, `mark` gives what was measured since the last mark, as JSON.
"""

import asyncio
import contextlib
import json
import sys
import time
from datetime import datetime

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

ACCOUNT = "9WzDXwBbmkg8ZTbNMqUxvQRAyrZzDsGYdLVL9zYtAWWM"
MINTS = (
    "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
    "Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB",
    "JUPyiwrYJFskUPiHa7hkeR8VUtAeFoSYbKedZNsDvCN",
)
LOOK = 0.1
"""Seconds between two looks at `/healthz`."""
PATIENCE = 10.0
"""Seconds after which a look has failed."""


class Provider:
    """Jupiter's `/balances`; every answer moves every balance."""

    def __init__(self):
        self.asked = 0

    async def serve(self):
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        return server.sockets[0].getsockname()[1]

    async def _answer(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.asked += 1
                amount = {"amount": str(self.asked), "uiAmount": 1.0, "slot": self.asked, "isFrozen": False}
                body = json.dumps(dict.fromkeys(("SOL", *MINTS), amount)).encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
        writer.close()


class Neighbour:
    def __init__(self):
        self.provider = Provider()
        self.late = []
        """Of each update: seconds from when the answer that told it arrived there until it arrived here."""
        self.looks = []
        """Of each answer of `/healthz`: seconds."""
        self.failed = 0
        self.cuts = 0
        self.gaps = 0
        self._versions = {}
        self._asked = 0
        self._since = time.monotonic()
        self._cursor = None

    def mark(self):
        """What was measured since the last one."""
        now = time.monotonic()
        late, looks = sorted(self.late), sorted(self.looks)
        told = {
            "seconds": now - self._since,
            "polls": self.provider.asked - self._asked,
            "updates": len(late),
            "p50": _quantile(late, 0.5),
            "p99": _quantile(late, 0.99),
            "healthz": max(looks, default=PATIENCE),
            "failed": self.failed,
            "cuts": self.cuts,
            "gaps": self.gaps,
        }
        self._since, self._asked = now, self.provider.asked
        self.late, self.looks, self.failed, self.cuts, self.gaps = [], [], 0, 0, 0
        return told

    async def follow(self, port):
        """Subscribed for ever; after a cut again, from the cursor."""
        params = {"filter": {"provider": ["honest"]}, "snapshot": False}
        while True:
            with contextlib.suppress(OSError, ConnectionClosed, TimeoutError):
                async with connect(f"ws://127.0.0.1:{port}/v1/stream", compression=None, ping_interval=None) as socket:
                    if self._cursor is not None:
                        params["cursor"] = self._cursor
                    await socket.send(json.dumps({"id": 1, "method": "subscribe", "params": params}))
                    async for message in socket:
                        self._hear(json.loads(message))
            self.cuts += 1
            await asyncio.sleep(0.1)

    def _hear(self, push):
        self._cursor = push.get("cursor", self._cursor)
        if push.get("type") != "update":
            return
        event = push["event"]
        self.late.append(time.time() - datetime.fromisoformat(event["observed_at"]).timestamp())
        before = self._versions.get(event["token"], event["version"] - 1)
        self.gaps += event["version"] > before + 1
        self._versions[event["token"]] = max(before, event["version"])

    async def look(self, port):
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    try:
                        writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                        good = b" 200 " in await reader.readline()
                    finally:
                        writer.transport.abort()
            except (OSError, TimeoutError):
                good = False
            if good:
                self.looks.append(time.monotonic() - began)
            else:
                self.failed += 1
            await asyncio.sleep(LOOK)


def _quantile(ordered, share):
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


async def main():
    neighbour = Neighbour()
    print(await neighbour.provider.serve(), flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    tasks = []
    while line := await commands.readline():
        command, _, argument = line.decode().strip().partition(" ")
        if command == "follow":
            tasks.append(asyncio.create_task(neighbour.follow(int(argument))))
            tasks.append(asyncio.create_task(neighbour.look(int(argument))))
        print(json.dumps(neighbour.mark()), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
