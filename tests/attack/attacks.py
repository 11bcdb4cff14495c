"""The attacks by name: what a hostile provider, a hostile client and a local user send."""

import asyncio
import base64
import contextlib
import functools
import itertools
import json
import urllib.parse

from tests.attack.hostile import Hostile, answer, balances, bomb, mints
from tests.attack.neighbour import ACCOUNT, MINTS
from tests.attack.stage import KEY, SECRET
from watcher.journal import Batch
from watcher.journal.sqlite.journal import SqliteJournal, path_of
from watcher.model.events import BalanceState, CommitRow

HEAD = (
    b"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
POST = b"POST /v1/hints HTTP/1.1\r\nHost: 127.0.0.1\r\n"
MANY = 150_000
"""Balances of the attacks on snapshots."""
PART = 8
"""So many characters of a key in a row are a part of it."""


def text(message):
    """A masked text frame; the mask is zero."""
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
    return b"\x81" + size + b"\0\0\0\0" + data


def control(opcode, data=b""):
    return bytes([0x80 | opcode, 0x80 | len(data)]) + b"\0\0\0\0" + data


class Attack:
    """What is sent, and how much of the daemon it may take."""

    name = ""
    megabytes = 40
    """By which the daemon's memory may grow."""
    grace = 1.0
    """Seconds after which it is in full swing."""
    descriptors = None
    """The soft limit that the daemon is started with."""
    plugged = False
    """The daemon's stderr is a pipe that nobody reads once the attack has begun."""
    kafka: dict = {}  # noqa: RUF012 - read only

    def __init__(self):
        self.hostile = Hostile()
        self.counts = {}

    def tables(self, port):  # noqa: ARG002 - some attacks have a provider
        return {}

    async def prepare(self, stage):
        """Before the daemon is started."""

    async def run(self, stage):
        raise NotImplementedError

    def told(self):
        return ", ".join(f"{count:,} {what}" for what, count in self.counts.items())

    async def judge(self, stage):  # noqa: ARG002 - some attacks have more to say
        """What is wrong besides the neighbour's service."""
        for each in ():
            yield each

    def count(self, what, by=1):
        self.counts[what] = self.counts.get(what, 0) + by


class ByProvider(Attack):
    """A provider of the config whose answers are hostile."""

    type = "jupiter"
    rate = 4

    def __init__(self):
        super().__init__()
        self.hostile = Hostile(self.spoilt)

    def tables(self, port):
        return {
            "hostile": {
                "type": self.type,
                "base_url": f"http://127.0.0.1:{port}",
                "api_key_env": KEY,
                "limits": [{"requests": self.rate, "per": 1.0}],
                "cost": 1,
                "timeout": 5.0,
                "watch": [{"account": ACCOUNT}],
            }
        }

    def spoilt(self, head, number):
        """The whole answer as bytes, or in pieces with pauses."""
        raise NotImplementedError

    async def run(self, stage):  # noqa: ARG002 - the daemon comes by itself
        self.hostile.attacking = True
        await asyncio.get_running_loop().create_future()

    def told(self):
        return f"{self.hostile.asked} answers"


class Bomb(ByProvider):
    """1 GB of zeros in gzip."""

    name = "bomb"
    megabytes = 160
    packed = functools.cached_property(lambda _: bomb(1000))

    def spoilt(self, head, number):  # noqa: ARG002
        return answer(self.packed, "Content-Encoding: gzip")


class Stack(ByProvider):
    """gzip in gzip in gzip."""

    name = "stacked-bomb"
    packed = functools.cached_property(lambda _: bomb(1000, 3))

    def spoilt(self, head, number):  # noqa: ARG002
        return answer(self.packed, "Content-Encoding: gzip, gzip, gzip")


class Digits(ByProvider):
    """A number of 20 million digits."""

    name = "digits"
    megabytes = 160
    body = functools.cached_property(lambda _: b'{"SOL":{"amount":' + b"7" * 20_000_000 + b',"slot":1}}')

    def spoilt(self, head, number):  # noqa: ARG002
        return answer(self.body)


class Members(ByProvider):
    """An object of two million entries."""

    name = "members"
    megabytes = 300
    body = functools.cached_property(
        lambda _: b'{"SOL":{"amount":"1","slot":1},' + b",".join(b'"%07x":0' % n for n in range(2_000_000)) + b"}"
    )

    def spoilt(self, head, number):  # noqa: ARG002
        return answer(self.body)


class Nesting(ByProvider):
    name = "nesting"
    megabytes = 100
    body = functools.cached_property(lambda _: b'{"SOL":' + b"[" * 10_000_000)

    def spoilt(self, head, number):  # noqa: ARG002
        return answer(self.body)


class Rows(ByProvider):
    """A list of a million rows that say nothing."""

    name = "rows"
    type = "bloxroute"
    megabytes = 300
    body = functools.cached_property(lambda _: b'{"tokens":[' + b",".join([b'{"symbol":"A"}'] * 1_000_000) + b"]}")

    def spoilt(self, head, number):  # noqa: ARG002
        return answer(self.body)


class Strangers(ByProvider):
    """20,000 tokens that nobody has seen before, in every answer."""

    name = "strangers"
    megabytes = 250
    rate = 2

    def spoilt(self, head, number):  # noqa: ARG002
        new = mints(20_000 * number, 20_000)
        return answer(balances({"SOL": 1} | dict.fromkeys(new, 1), number))


class Cookies(ByProvider):
    """200 cookies of 4 KB, others in every answer."""

    name = "cookies"
    rate = 10

    def spoilt(self, head, number):  # noqa: ARG002
        jar = [f"Set-Cookie: c{number}x{each}={'c' * 200}" for each in range(40)]
        return answer(balances({"SOL": 1}, number), *jar)

    async def judge(self, stage):  # noqa: ARG002
        if self.hostile.largest > 2_000:
            yield f"our own request head came to {self.hostile.largest} bytes"


class Headers(ByProvider):
    """Header fields without an end."""

    name = "headers"

    def spoilt(self, head, number):  # noqa: ARG002
        yield b"HTTP/1.1 200 OK\r\n"
        for each in range(20_000):
            yield b"X-%d: " % each + b"h" * 1000 + b"\r\n"


class Interim(ByProvider):
    """Interim answers without an end."""

    name = "interim"

    def spoilt(self, head, number):  # noqa: ARG002
        for _ in range(2_000):
            yield b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n" * 100


class Drip(ByProvider):
    """A byte now and then."""

    name = "drip"

    def spoilt(self, head, number):  # noqa: ARG002
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
        for _ in range(10_000):
            yield b" "
            yield 0.05


class Symbol(ByProvider):
    """A symbol of 3 MB, with what a terminal obeys."""

    name = "symbol"
    type = "bloxroute"
    megabytes = 120

    def spoilt(self, head, number):  # noqa: ARG002
        amounts = {"settledAmount": number, "unsettledAmount": 0, "openOrdersAmount": 0}
        rows = [{"symbol": "\x1b]0;owned\x07\u202e" + "s" * 3_000_000, "tokenMint": MINTS[0], **amounts}]
        rows.append({"symbol": "OK", "tokenMint": MINTS[1], **amounts})
        return answer(json.dumps({"tokens": rows}).encode())

    async def judge(self, stage):
        _, told = await stage.get("/v1/balances?provider=hostile")
        if MINTS[1].encode() not in told:
            yield "the other balance of that answer is not told"
        if len(told) > 10_000:
            yield f"the symbol is told in {len(told)} bytes"


class Echo(ByProvider):
    """Refusals that repeat our key in disguise."""

    name = "echo"
    rate = 10

    def spoilt(self, head, number):  # noqa: ARG002
        ways = [
            SECRET,
            SECRET.upper(),
            urllib.parse.quote(SECRET, safe="").replace("-", "%2D"),
            "".join(f"%{ord(each):02x}" for each in SECRET),
            "".join(f"\\u{ord(each):04x}" for each in SECRET),
            "\u200b".join(SECRET),
            base64.b64encode(SECRET.encode()).decode(),
            base64.urlsafe_b64encode(b"key=" + SECRET.encode()).decode().rstrip("="),
            "x" * 145 + SECRET,
            " ".join(SECRET[at : at + 4] for at in range(0, len(SECRET), 4)),
        ]
        if number % 2:
            return answer(balances({"SOL": number}, number))
        said = {"error": f"no such thing {ways[number // 2 % len(ways)]} \x1b[2J\u202e"}
        return answer(json.dumps(said).encode(), status="500 Internal Server Error")

    async def judge(self, stage):
        said = {"the log": stage.told()}
        for path in ("/readyz", "/metrics", "/v1/balances"):
            said[path] = (await stage.get(path))[1].decode(errors="replace")
        for where, told in said.items():
            plain = told.casefold().replace("\u200b", "").replace(" ", "")
            if any(SECRET[at : at + PART] in plain for at in range(len(SECRET) - PART + 1)):
                yield f"a part of the key is in {where}"
            if "\x1b" in told or "\u202e" in told:
                yield f"control characters are in {where}"


class ByClient(Attack):
    """Connections of strangers."""

    def __init__(self):
        super().__init__()
        self._writers = []

    async def opened(self, stage, sent=HEAD, **more):
        """A connection that has sent that; None when it was refused."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", stage.port, **more)
            writer.write(sent)
            await writer.drain()
        except OSError:
            self.count("refused")
            return None
        self._writers.append(writer)
        self.count("connections")
        return reader, writer

    async def socket(self, stage):
        """An upgraded connection; None when it was refused."""
        pair = await self.opened(stage)
        if pair is None:
            return None
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if b" 101 " in await pair[0].readuntil(b"\r\n\r\n"):
                return pair
        self.count("refused")
        return None

    async def together(self, *tasks):
        try:
            await asyncio.gather(*tasks)
        finally:
            for writer in self._writers:
                writer.transport.abort()

    @staticmethod
    async def forever():
        await asyncio.get_running_loop().create_future()


class Crowd(ByClient):
    """More idle subscribers than the usual number of descriptors."""

    name = "crowd"
    megabytes = 80
    descriptors = 1024
    grace = 4.0

    async def run(self, stage):
        for _ in range(3_000):
            await self.socket(stage)
        await self.together(self.forever())


class Halves(ByClient):
    """Handshakes that never end."""

    name = "halves"
    descriptors = 1024
    grace = 3.0

    async def _drip(self, stage):
        while True:
            pair = await self.opened(stage, HEAD[:-2] + b"X-Padding: ")
            with contextlib.suppress(OSError):
                while pair is not None and not pair[0].at_eof():
                    pair[1].write(b"x" * 64)
                    await pair[1].drain()
                    await asyncio.sleep(0.5)
                    if pair[1].transport.is_closing():
                        break
            if pair is not None:
                self._writers.remove(pair[1])
                pair[1].transport.abort()
            await asyncio.sleep(0.2)

    async def run(self, stage):
        await self.together(*(self._drip(stage) for _ in range(1_500)))


class Storm(ByClient):
    """Connections that come, send rubbish and go."""

    name = "storm"
    rubbish = (
        b"\x16\x03\x01\x02\x00\x01\x00" + bytes(200),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/balances HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{}",
        b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        HEAD.replace(b"Host", b"Origin: http://evil.example\r\nHost"),
        HEAD + control(2, b"binary"),
        HEAD + b"\xff" * 40,
    )

    async def _come(self, stage):
        for sent in itertools.cycle(self.rubbish):
            pair = await self.opened(stage, sent)
            if pair is not None:
                with contextlib.suppress(OSError, TimeoutError):
                    async with asyncio.timeout(0.2):
                        await pair[0].read(2000)
                self._writers.remove(pair[1])
                pair[1].transport.abort()
            await asyncio.sleep(0.02)

    async def run(self, stage):
        await self.together(*(self._come(stage) for _ in range(6)))


class Bodies(ByClient):
    """Bodies of half a megabyte whose last byte never comes, and of a million chunks."""

    name = "bodies"
    pause = 0.5
    slow = POST + b"Content-Length: 524288\r\n\r\n" + b"x" * 524_287
    tiny = POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000

    async def _send(self, stage, sent):
        while True:
            pair = await self.opened(stage, sent)
            if pair is not None:
                with contextlib.suppress(OSError):
                    await pair[0].read(2000)
                self._writers.remove(pair[1])
                pair[1].transport.abort()
            await asyncio.sleep(self.pause)

    async def run(self, stage):
        await self.together(*(self._send(stage, sent) for sent in [self.slow] * 32 + [self.tiny] * 2))


class Hints(Bodies):
    """A thousand hints at a time, for what is watched and for what is not, and what is no hint."""

    name = "hints"
    pause = 0.1
    bodies = (
        json.dumps({"hints": [{"provider": "neighbour", "account": ACCOUNT}] * 1000}).encode(),
        json.dumps({"hints": [{"provider": "neighbour", "account": f"{number:x}"} for number in range(1000)]}).encode(),
        b'{"hints":' + b"[" * 500_000,
        b'{"hints":[' + b"{}," * 16_000 + b"{}]}",
    )

    async def run(self, stage):
        sent = [POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body) for body in self.bodies]
        await self.together(*(self._send(stage, each) for each in sent * 2))


class Posts(Bodies):
    """Half a megabyte of hints, as fast as it is taken."""

    name = "posts"
    pause = 0.0
    large = POST + b"Content-Length: 524288\r\n\r\n" + b"x" * 524_288

    async def run(self, stage):
        await self.together(*(self._send(stage, self.large) for _ in range(8)))


class Ping(ByClient):
    """Pings as fast as they are taken."""

    name = "pings"
    what = "pings"
    sent = control(9, b"p" * 100) * 300

    async def _flood(self, stage):
        while True:
            pair = await self.socket(stage)
            with contextlib.suppress(OSError):
                while pair is not None and not pair[1].transport.is_closing():
                    pair[1].write(self.sent)
                    await pair[1].drain()
                    self.count(self.what, 300)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.01):
                            if not await pair[0].read(1 << 16):
                                break
            await asyncio.sleep(0.1)

    async def run(self, stage):
        await self.together(*(self._flood(stage) for _ in range(10)))


class Chatter(Ping):
    """Commands as fast as they are taken."""

    name = "chatter"
    what = "commands"
    sent = text({"id": 1, "method": "list_subscriptions"}) * 300


class Fragments(Ping):
    """One message in very many empty pieces."""

    name = "fragments"
    what = "pieces"
    sent = b"\x00\x80\0\0\0\0" * 300

    async def socket(self, stage):
        pair = await super().socket(stage)
        if pair is not None:
            pair[1].write(b"\x01\x81\0\0\0\0{")
        return pair


class Many(ByClient):
    """Before a journal that holds very many balances."""

    megabytes = 120

    async def prepare(self, stage):
        journal = SqliteJournal(path_of(stage.journal), encoding="json", retention=1e6, clock=lambda: 0)
        await journal.init()
        writer = journal.writer(0)
        await writer.open()
        row = BalanceState(
            provider="crowd", chain="solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", account=ACCOUNT, token="", kind="total",
            symbol=None, version=0, amount="1", unit="base", decimals=6, slot=1, as_of=None,
            observed_at="2026-01-01T00:00:00.000000Z",
        )  # fmt: skip
        named = {name: getattr(row, name) for name in row.__struct_fields__}
        for start in range(0, MANY, 5_000):
            await writer.commit(
                Batch([CommitRow(BalanceState(**named | {"token": token})) for token in mints(start, 5_000)])
            )
        await journal.close()


class Dashboards(Many):
    """Four that ask for everything, again and again."""

    name = "dashboards"

    async def _refresh(self, stage):
        while True:
            _, body = await stage.get("/v1/balances")
            self.count("answers")
            self.count("MB", len(body) // 1_000_000)

    async def run(self, stage):
        await self.together(*(self._refresh(stage) for _ in range(4)))

    async def judge(self, stage):
        status, body = await stage.get("/v1/balances")
        if status != 200 or body.count(b'"amount"') <= MANY:
            yield f"behind it {len(body)} bytes are answered, with status {status}"


class Unread(Many):
    """Thirty that ask for everything and read nothing, and thirty that subscribe so."""

    name = "unread"
    grace = 3.0

    async def run(self, stage):
        ask = b"GET /v1/balances HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        subscribe = HEAD + text({"id": 1, "method": "subscribe", "params": {}})
        while True:
            for sent in [ask] * 30 + [subscribe] * 30:
                pair = await self.opened(stage, sent, limit=1024)
                if pair is not None:
                    pair[1].transport.pause_reading()
            await asyncio.sleep(20)


class Amplified(Many):
    """Twenty that subscribe to everything, again and again."""

    name = "amplified"
    grace = 3.0

    async def _again(self, stage):
        while True:
            pair = await self.socket(stage)
            with contextlib.suppress(OSError):
                for number in range(1_000_000):
                    if pair is None or pair[1].transport.is_closing():
                        break
                    pair[1].write(text({"id": number, "method": "subscribe", "params": {}}))
                    pair[1].write(text({"id": "u", "method": "unsubscribe", "params": {"subscription_id": "s1"}}))
                    await pair[1].drain()
                    self.count("asked")
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.5):
                            while data := await pair[0].read(1 << 18):
                                self.count("MB", len(data) / 1e6)
                    if pair[0].at_eof():
                        break
            await asyncio.sleep(0.2)

    def told(self):
        self.counts = {what: round(count) for what, count in self.counts.items()}
        return super().told()

    async def run(self, stage):
        await self.together(*(self._again(stage) for _ in range(20)))


class Replayed(Amplified):
    """Twenty that read the whole log, again and again."""

    name = "replayed"

    async def prepare(self, stage):
        """The log is what the neighbour's balances make."""

    async def _again(self, stage):
        while True:
            pair = await self.socket(stage)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
                cursor = None
                while pair is not None and not pair[1].transport.is_closing():
                    if cursor is None:
                        head = await pair[0].readexactly(2)
                        size = head[1] if head[1] < 126 else int.from_bytes(await pair[0].readexactly(2), "big")
                        cursor = json.loads(await pair[0].readexactly(size))["oldest_cursor"]
                    pair[1].write(text({"id": 1, "method": "subscribe", "params": {"cursor": cursor}}))
                    await pair[1].drain()
                    self.count("asked")
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.25):
                            while data := await pair[0].read(1 << 18):
                                self.count("MB", len(data) / 1e6)
                    if pair[0].at_eof():
                        break
            await asyncio.sleep(0.2)


class Plugged(Storm):
    """stderr is a pipe that nobody reads, while strangers give us much to say."""

    name = "plugged"
    plugged = True


ATTACKS = {
    attack.name: attack
    for attack in (
        Bomb, Stack, Digits, Members, Nesting, Rows, Strangers, Cookies, Headers, Interim, Drip, Symbol, Echo,
        Crowd, Halves, Storm, Bodies, Hints, Posts, Ping, Chatter, Fragments, Dashboards, Unread, Amplified, Replayed, Plugged,
    )
}  # fmt: skip
