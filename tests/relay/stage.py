"""A relay on a real journal for tests: a teller that commits changes, and a subscriber that speaks plain websockets."""

import contextlib
import json
import time
from pathlib import Path

import anyio
import httpx
from websockets.asyncio.client import connect

from watcher.journal import Batch
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.model.events import BalanceState, CommitRow, ProviderHealth, changed
from watcher.model.times import format_rfc3339
from watcher.model.watches import NOT_KNOWN
from watcher.relay import wire
from watcher.relay.http.auth import load
from watcher.relay.http.routes import MetricsText, Readiness, Status
from watcher.relay.server import Relay
from watcher.relay.settings import RelaySettings, RelayTuning
from watcher.testing.journal_samples import crossing

SOLANA = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"
PATIENCE = 60.0
"""Seconds for anything to come about on a busy machine before it counts as stuck."""


def nothing(_rights, _accept):
    return MetricsText("text/plain; version=0.0.4; charset=utf-8", b"")


def calm(**shorter):
    """A pace at which nothing ends, and no heartbeat comes between, however long the machine stands still."""
    hours = dict.fromkeys(("heartbeat", "first_heartbeat", "news", "ping", "auth", "upgrade", "stall", "stuck"), 3600.0)
    return RelayTuning(**hours | shorter)


def crossed_by(row, alert="low"):
    """As if the amount of that row crossed the alert, at odd versions downwards."""
    return crossing(row, alert, "below" if row.state.version % 2 else "cleared")


def wall():
    return time.time_ns() // 1000


class Teller:
    """Commits baselines, changes and crossings to one journal and remembers what it told."""

    def __init__(self, journal):
        self.journal = journal
        self.writer = journal.writer(0)
        self.states = {}
        self.told = []
        self.crossed = []
        """Every crossing."""

    async def tell(
        self, *accounts, amount=None, provider="jupiter", token="native", observed_at=None, symbol=None, crossed=()
    ):
        """One commit: each account's baseline the first time, a change of 1 every other time. `crossed`: those of the accounts
        that cross an alert by it, each time the other way.
        """
        told = {"amount": amount, "observed_at": observed_at or wall(), "symbol": symbol}
        rows = [self._row((provider, account, token), **told) for account in accounts]
        crossings = [crossed_by(row) for account in crossed for row in rows if row.state.account == account]
        await self.writer.commit(Batch(rows, crossings=crossings))
        self.told += [row.event for row in rows if row.event is not None]
        self.crossed += crossings
        return [row.event for row in rows]

    def _row(self, name, amount, observed_at, symbol):
        provider, account, token = name
        before = self.states.get(name)
        version = 0 if before is None else before.version + 1
        state = self.states[name] = BalanceState(
            provider=provider,
            chain=SOLANA,
            account=account,
            token=token,
            kind="total",
            symbol=symbol,
            version=version,
            amount=amount or str(1000 + version),
            unit="base",
            decimals=None,
            slot=version,
            as_of=None,
            observed_at=format_rfc3339(observed_at),
            order=version,
        )
        if before is None:
            return CommitRow(state)
        return CommitRow(state, changed("e0", state, before.amount, before.observed_at))

    async def beat(self, name, **fields):
        health = {"last_success": None, "paused_until": None, "stalest_seconds": None, "budget_used": 0.25}
        health |= {"state": "ok", "reason": None, "since": None, **fields}
        await self.journal.heartbeat(
            [ProviderHealth(provider=name, time=format_rfc3339(wall()), instance="test", watches=1, **health)]
        )


class Stage:
    def __init__(self, relay, port, teller, path):
        self.relay = relay
        self.port = port
        self.teller = teller
        self.path = path

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}/v1/stream"

    def connect(self, **options):
        return connect(self.url, **{"open_timeout": PATIENCE, **options})

    @contextlib.asynccontextmanager
    async def subscriber(self, **options):
        async with self.connect(compression=None, **options) as client:
            yield Subscriber(client)

    def http(self, **options):
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE, **options)

    def later(self, seconds):
        """So much later for the relay, so that a time runs out once everything that comes before has happened."""
        now = self.relay.flusher.time
        self.relay.flusher.time = lambda: now() + seconds


class Subscriber:
    """Sends commands, sorts what comes back."""

    def __init__(self, socket):
        self.socket = socket
        self.count = 0
        self.pushes = []
        self.methods = {}
        """By the id of the command."""

    async def next(self, within=PATIENCE):
        """The next message, whatever it is."""
        if self.pushes:
            return self.pushes.pop(0)
        return await self._receive(within)

    async def _receive(self, within):
        with anyio.fail_after(within):
            text = await self.socket.recv()
        message = json.loads(text)
        method = self.methods.get(message.get("id"))
        if method is not None or "result" not in message:  # some tests send what is no command of ours
            assert wire.encode(wire.read(text, method)).decode() == text, (
                "not a message as the protocol's types have it"
            )
        return message

    async def push(self, kind, within=PATIENCE):
        """The next push of that kind; others are passed over."""
        while True:
            message = await self.next(within)
            if message.get("type") == kind:
                return message

    async def updates(self, count):
        return [await self.push("update") for _ in range(count)]

    async def ask(self, method, **params):
        """The whole answer to one command."""
        self.count += 1
        self.methods[self.count] = method
        await self.socket.send(json.dumps({"id": self.count, "method": method, "params": params}))
        return await self.answer(self.count)

    async def answer(self, id_):
        while True:
            message = await self._receive(PATIENCE)
            if message.get("id") == id_:
                return message
            self.pushes.append(message)

    async def subscribe(self, **params):
        answer = await self.ask("subscribe", **params)
        assert "result" in answer, answer
        return answer["result"]

    async def closed(self, within=PATIENCE):
        """The close code and reason, once it comes."""
        with anyio.fail_after(within):
            await self.socket.wait_closed()
        return self.socket.close_code, self.socket.close_reason


@contextlib.asynccontextmanager
async def staged(
    folder: Path, pace=None, environ=None, readiness=Readiness, metrics=nothing, *, ahead=(), watches=None, **settings
):
    """A relay that serves a new journal in that folder, on a free port; `calm()` unless told. `ahead`: microseconds to add to its clock.
    `watches`: a list of one WatchIndex, which may be replaced; without it nothing is known of them.
    """
    path = folder / "balances.db"
    journal = SqliteJournal(path, encoding="json", retention=86400.0, clock=lambda: wall() + sum(ahead))
    teller = Teller(journal)
    await teller.writer.open()
    try:
        async with relaying(
            journal, pace, environ, readiness=readiness, metrics=metrics, watches=watches, **settings
        ) as (relay, port):
            yield Stage(relay, port, teller, path)
    finally:
        await journal.close()


@contextlib.asynccontextmanager
async def relaying(
    journal,
    pace=None,
    environ=None,
    readiness=Readiness,
    metrics=nothing,
    *,
    room=None,
    watches=None,
    routes=None,
    **settings,
):
    """A relay of its own on somebody's journal. `routes`: what its port answers besides."""
    reader = await journal.reader()
    told = RelaySettings(**{"port": 0, **settings})
    tokens = load(told, environ or {})
    status = Status(metrics=metrics, readiness=readiness)
    held = [NOT_KNOWN] if watches is None else watches
    relay = Relay(
        told,
        reader,
        tokens=tokens,
        wall=wall,
        status=status,
        tuning=pace or calm(),
        room=room,
        watches=lambda: held[0],
        routes=routes or {},
    )
    try:
        async with anyio.create_task_group() as tasks:
            port = await tasks.start(relay_run, relay)
            yield relay, port
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await reader.close()


async def relay_run(relay, *, task_status):
    await relay.run(task_status=task_status)


async def until(condition, within=PATIENCE):
    """Plain counters have no event that could be waited for."""
    with anyio.fail_after(within):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.01)
