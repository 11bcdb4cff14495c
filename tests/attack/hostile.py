"""A hostile provider: raw bytes on loopback, well behaved until it is told not to be."""

import asyncio
import contextlib
import gzip
import itertools
import json

from tests.attack.neighbour import MINTS

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
PIECE = 1 << 20
"""Bytes written at a time."""


def mints(first, count):
    """So many addresses of 32 bytes, each another one."""
    for number in range(first, first + count):
        tail = ""
        for _ in range(6):
            number, digit = divmod(number, 58)  # noqa: PLW2901 - it is taken to pieces
            tail += BASE58[digit]
        yield "4" * 38 + tail


def balances(amounts, slot):
    entry = {"uiAmount": 1.0, "slot": slot, "isFrozen": False}
    return json.dumps({name: {"amount": str(amount), **entry} for name, amount in amounts.items()}).encode()


def answer(body, *headers, status="200 OK"):
    head = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class Hostile:
    """Answers every request as `spoilt` does once `attacking` is set."""

    def __init__(self, spoilt=None):
        self.attacking = False
        self.asked = 0
        """Requests that were answered badly."""
        self.largest = 0
        """Bytes of the largest request head since then."""
        self.port = 0
        self._spoilt = spoilt
        self._number = itertools.count(1)

    @contextlib.asynccontextmanager
    async def serving(self):
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0, limit=1 << 24)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _talk(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                number = next(self._number)
                if self.attacking and self._spoilt is not None:
                    self.asked += 1
                    self.largest = max(self.largest, len(head))
                    await self._send(writer, self._spoilt(head, number))
                else:
                    writer.write(answer(balances(dict.fromkeys(("SOL", *MINTS), 1), number)))
                    await writer.drain()
        writer.transport.abort()

    async def _send(self, writer, pieces):
        """Bytes, and pauses in seconds between them."""
        for piece in [pieces] if isinstance(pieces, bytes) else pieces:
            if isinstance(piece, float):
                await asyncio.sleep(piece)
                continue
            for start in range(0, len(piece), PIECE):
                writer.write(piece[start : start + PIECE])
                await writer.drain()


def bomb(megabytes, times=1):
    """Zeros, packed so many times."""
    packed = gzip.compress(bytes(1_000_000), 9)
    packed = packed * megabytes
    for _ in range(times - 1):
        packed = gzip.compress(packed, 9)
    return packed
