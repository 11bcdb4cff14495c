"""Malformed frames and handshakes, seeded: `python -m tests.relay.hostile --tries 10000 --seed 1`.

Every try is one TCP connection. The relay answers with the right close code or status, keeps its memory, and a
subscriber that behaves gets every update meanwhile.
"""

import argparse
import asyncio
import functools
import json
import logging
import random
import resource
import tempfile
import time
from pathlib import Path

import anyio
import structlog

from tests.relay.stage import PATIENCE, calm, relaying, staged
from watcher.relay.http.hint_routes import Accepted, HookAnswer, hint_routes

UPGRADE_WITHIN = 0.5
"""Seconds that a relay of its own gives the tries which never end; all others have all the time they need."""
KEY = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
UPGRADE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    + KEY
    + b"Sec-WebSocket-Version: 13\r\n\r\n"
)


def frame(opcode, payload, *, fin=True, mask=True, size=None):
    size = len(payload) if size is None else size
    head = bytes([(0x80 if fin else 0) | opcode])
    flag = 0x80 if mask else 0
    if size < 126:
        head += bytes([flag | size])
    elif size < 65536:
        head += bytes([flag | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([flag | 127]) + size.to_bytes(8, "big")
    return head + (b"\0\0\0\0" if mask else b"") + payload


def command(rng):
    def value(depth=0):
        kind = rng.randrange(9 if depth < 3 else 6)
        leaves = [None, True, rng.randrange(-(10**30), 10**30), rng.random(), "é\u2028" * rng.randrange(9), "subscribe"]
        if kind < 6:
            return leaves[kind]
        if kind == 6:
            return [value(depth + 1) for _ in range(rng.randrange(4))]
        names = ["id", "method", "params", "filter", "cursor", "account", "snapshot", "delivery", "interval_ms", "x"]
        return {rng.choice(names): value(depth + 1) for _ in range(rng.randrange(5))}

    method = rng.choice(["subscribe", "unsubscribe", "auth", "ping", "list_subscriptions", "x"])
    params = value()
    whole = rng.choice([{"id": rng.choice([1, "a", None, 1.5]), "method": method, "params": params}, value()])
    return json.dumps(whole).encode()


def tries(rng):
    """Bytes to send behind the upgrade, and the close codes that are right (None: it stays open)."""
    text = command(rng)
    cut = rng.randrange(1, len(text)) if len(text) > 1 else 1
    cases = [
        (frame(1, text), {None}),
        (frame(1, b"[" * rng.randrange(1, 65536)), {None}),
        (frame(1, b"x" * 65536), {None}),
        (frame(1, text[:cut], fin=False) + frame(0, text[cut:]), {None}),
        (frame(2, text), {1003}),
        (frame(1, b"x" * 65537), {1009}),
        (frame(1, b"", size=2**62), {1009}),
        (frame(1, b"x" * 40000, fin=False) + frame(0, b"x" * 40000), {1009}),
        (frame(1, b"\xff\xfe\x00\x80"), {1007}),
        (frame(1, b"\xed\xa0\x80"), {1007}),
        (frame(1, text, mask=False), {1002}),
        (frame(rng.choice([3, 4, 5, 6, 7, 11, 12, 13, 14, 15]), text[:100]), {1002}),
        (bytes([0x80 | rng.choice([0x10, 0x20, 0x40, 0x70]) | 1, 0x80, 0, 0, 0, 0]), {1002}),
        (frame(0, text), {1002}),
        (frame(1, b"a", fin=False) + frame(1, b"b"), {1002}),
        (frame(9, b"p" * 126), {1002}),
        (frame(9, b"p", fin=False), {1002}),
        (frame(8, b"\x03"), {1002}),
        (frame(8, (999).to_bytes(2, "big")), {1002}),
        (frame(8, (1000).to_bytes(2, "big") + b"\xff"), {1007}),
        (b"".join(frame(1, b"x") for _ in range(200)), {4101}),
        (frame(1, b"", fin=False) + frame(0, b"", fin=False) * 1000, {None, 1009}),
        (frame(9, b"p" * 125) * 300, {None}),
    ]
    return rng.choice(cases)


ENDLESS = b"GET /v1/stream HTTP/1.1\r\nHost: loc"
"""What the relay waits for the end of until it loses patience."""
HINTS = b"POST /v1/hints HTTP/1.1\r\nHost: localhost\r\n"
HOOK = HINTS.replace(b"hints", b"hooks/tokenkit")
BODIES = [
    (HINTS + b"Content-Length: 12\r\n\r\n" + b'{"hints":[]}', {202}),
    (HINTS + b"Transfer-Encoding: chunked\r\n\r\nc\r\n" + b'{"hints":[]}\r\n0\r\n\r\n', {202}),
    (HINTS + b"\r\n", {400}),
    (HINTS + b"Content-Length: 99999999999999999999999\r\n\r\n" + b"x" * 500_000, {413}),
    (HINTS + b"Content-Length: " + b"9" * 7000 + b"\r\n\r\n", {413}),
    (HINTS + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    (HINTS + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", {400}),
    (HINTS + b"Content-Length: 0x5\r\n\r\nhello", {400}),
    (HINTS + b"Transfer-Encoding: gzip, chunked\r\n\r\n", {501}),
    (HINTS + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n[\r\n" * 20_000, {400}),
    (HINTS + b"Transfer-Encoding: chunked\r\n\r\nfffffffffff\r\n", {413}),
    (HINTS + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", {400}),
    (HINTS + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 5000, {400}),
    (HINTS + b"Content-Length: 500000\r\n\r\n" + b"[" * 500_000, {400}),
    (HINTS + b"Content-Length: 500000\r\n\r\n" + b'{"hints":[' + b"{}," * 166_000 + b"{}" * 995, {400}),
    (HINTS + b"Content-Length: 500000\r\n\r\n" + b'{"hints":[' + b"9" * 499_988 + b"]}", {400}),
    (HINTS + b"Origin: https://evil.example\r\nContent-Length: 12\r\n\r\n" + b'{"hints":[]}', {403}),
    (HINTS.replace(b"localhost", b"evil.example") + b"Content-Length: 12\r\n\r\n" + b'{"hints":[]}', {403}),
    (HOOK + b"Content-Length: 65537\r\n\r\n" + b"x" * 65537, {413}),
    (HOOK + b"Content-Length: 2\r\n\r\n{}", {401}),
]
HANDSHAKES = [
    (b"GET /v1/stream HTTP/1.0\r\nHost: localhost\r\n\r\n", {505}),
    (b"\r\n\r\n", {400}),
    (b"\x16\x03\x01\x02\x00\x01\x00", {400}),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {505}),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", {400}),
    (b"GET /healthz HTTP/1.1\nHost: localhost\n\n", {400}),
    (ENDLESS, {None}),
    (b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n", {426}),
    (UPGRADE.replace(b"13", b"12"), {400, 426}),
    (UPGRADE.replace(KEY, b""), {400}),
    (UPGRADE.replace(KEY, b"Sec-WebSocket-Key: short\r\n"), {400}),
    (UPGRADE.replace(b"websocket", b"h2c"), {426}),
    (UPGRADE.replace(b"GET", b"POST"), {405}),
    (UPGRADE.replace(b"/v1/stream", b"/" + b"a" * 9000), {414}),
    (UPGRADE.replace(b"Host: localhost", b"Host: " + b"a" * 9000), {431}),
    (UPGRADE.replace(b"Host: localhost\r\n", b"A: b\r\n" * 200), {431}),
    (UPGRADE.replace(b"Host: localhost\r\n", b"Origin: https://evil.example\r\nHost: localhost\r\n"), {403}),
    (UPGRADE.replace(b"Host: localhost\r\n", b"Host: evil.example\r\nOrigin: http://evil.example\r\n"), {403}),
    (UPGRADE.replace(b"Host: localhost\r\n", b""), {403}),
    (UPGRADE.replace(b"Host: localhost\r\n", b"Host: localhost\r\nHost: evil.example\r\n"), {403}),
    (UPGRADE.replace(b"/v1/stream", b"/v1/stream/../x"), {404}),
    (UPGRADE.replace(b"Host:", b"Content-Length: 2\r\nHost:") + b"{}", {400}),
    (UPGRADE.replace(b"Host:", b"Transfer-Encoding: chunked\r\nHost:"), {400}),
    (b"POST /v1/balances HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", {405}),
    (b"OPTIONS * HTTP/1.0\r\nHost: localhost\r\n\r\n", {405}),
    (b"GET http://localhost/healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n", {200}),
    (b"GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", {403}),
    (UPGRADE.replace(b"Host: localhost\r\n", b"Host: localhost\r\n bad folding\r\n"), {400}),
    *BODIES,
]


async def attempt(port, hasty, rng):
    """One connection; None, or what was wrong with the answer. `hasty`: where to go with a request that never ends."""
    handshake = rng.choice(HANDSHAKES) if rng.random() < 0.3 else None
    endless = handshake is not None and handshake[0] is ENDLESS
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty if endless else port)
    try:
        if handshake is not None:
            sent, right = handshake
            writer.write(sent)
            found = await _status(reader)
        else:
            sent, right = tries(rng)
            writer.write(UPGRADE)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(sent + (frame(9, b"still there?") if None in right else b""))
            found = await _close_code(reader)
        return None if found in right else f"{found} to {sent[:60]!r}, not {right}"
    finally:
        writer.transport.abort()


async def _status(reader):
    try:
        async with asyncio.timeout(PATIENCE):
            line = await reader.readline()
    except ConnectionError:
        return None
    return int(line.split()[1]) if line.startswith(b"HTTP/1.1 ") else None


async def _close_code(reader):
    """The code of the close frame; None when the ping was answered instead."""
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                head = await reader.readexactly(2)
                size = head[1]
                if size == 126:
                    size = int.from_bytes(await reader.readexactly(2), "big")
                payload = await reader.readexactly(size)
                if head[0] & 15 == 8:
                    return int.from_bytes(payload[:2], "big")
                if head[0] & 15 == 10 and payload == b"still there?":
                    return None
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        return type(error).__name__


async def unsigned(*_):
    return HookAnswer(401)


async def all_unknown(hints, _rights, _sender):
    return Accepted(accepted=0, unknown=len(hints))


def uncounted(_sender):
    pass


async def siege(count, seed, folder, *, at_once=64, progress=lambda *_: None):
    """Wrong answers, updates the good subscriber got and should have got, and growth of memory in bytes.

    Many at once, since the longest tries do nothing but wait for the relay to lose patience with half a request.
    """
    wrong, done = [], 0
    impatient = calm(upgrade=UPGRADE_WITHIN)
    doors = hint_routes(all_unknown, uncounted, unsigned)
    async with (
        staged(folder, routes=doors) as stage,
        relaying(stage.teller.journal, impatient) as (_, hasty),
    ):
        await stage.teller.tell("A")
        async with stage.subscriber() as good:
            await good.subscribe(snapshot=False)
            seeds = iter(range(seed, seed + count))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

            async def attack():
                nonlocal done
                for each in seeds:
                    if each % 50 == 0:
                        await stage.teller.tell("A")
                    fault = await attempt(stage.port, hasty, random.Random(each))
                    if fault:
                        wrong.append((each, fault))
                    done += 1
                    progress(done, wrong)

            got = []

            async def listen():
                async for message in good.socket:
                    push = json.loads(message)
                    if push["type"] == "update":
                        got.append(push["event"]["version"])

            async with anyio.create_task_group() as listening:
                listening.start_soon(listen)
                async with anyio.create_task_group() as tasks:
                    for _ in range(at_once):
                        tasks.start_soon(attack)
                told = len(stage.teller.told)
                with anyio.move_on_after(PATIENCE):
                    while len(got) < told:  # noqa: ASYNC110 - a plain list
                        await anyio.sleep(0.01)
                listening.cancel_scope.cancel()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return wrong, got == list(range(1, told + 1)), grown


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    begun = time.monotonic()

    def progress(done, wrong):
        if done % 500 == 0:
            print(
                f"{done} of {options.tries} tries after {time.monotonic() - begun:.0f} s, {len(wrong)} wrong",
                flush=True,
            )

    with tempfile.TemporaryDirectory() as folder:
        run = functools.partial(siege, options.tries, options.seed, Path(folder), progress=progress)
        wrong, unharmed, grown = anyio.run(run)
    for seed, fault in wrong[:20]:
        print(seed, fault)
    print(
        f"{options.tries} tries: {len(wrong)} wrong answers, others unharmed: {unharmed}, memory grew {grown / 1e6:.1f} MB"
    )
    return 1 if wrong or not unharmed else 0


if __name__ == "__main__":
    raise SystemExit(main())
