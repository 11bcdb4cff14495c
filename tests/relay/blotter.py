"""A relay over a SQLite journal that a test feeds by hand, in a thread of its own, for tests that drive a browser."""

import contextlib
from pathlib import Path

import anyio
import msgspec
from anyio.from_thread import start_blocking_portal

from tests.kafka_broker import free_port
from tests.relay.stage import PATIENCE, calm, crossed_by, nothing, wall
from watcher.journal import Batch
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.model.amounts import canonical
from watcher.model.events import BalanceState, CommitRow, changed
from watcher.model.times import format_rfc3339
from watcher.relay.http import auth
from watcher.relay.http.routes import Readiness, Status
from watcher.relay.server import Relay
from watcher.relay.settings import RelaySettings

SOLANA = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"
ETHEREUM = "eip155:1"


class Blotter:
    """Balances by key, what was committed, and a relay that can be taken down and brought back on the same port."""

    def __init__(self, folder: Path, *, token: str | None = None, pace=None) -> None:
        """`token`: the one that the relay asks for."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.states: dict[str, BalanceState] = {}
        self.decimals: dict[tuple[str, str], set[int]] = {}
        """(chain, token) → what any row of it ever said."""
        self._token = token
        self._pace = pace or calm()
        self._folder = folder
        self._ahead = 0
        self._stack = contextlib.ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal("asyncio"))
        self._open("page.db")
        self._scope = None
        self._done = None

    def _open(self, name):
        self._journal = SqliteJournal(self._folder / name, encoding="json", retention=3600.0, clock=self._now)
        self._portal.call(self._journal.init)
        self._writer = self._journal.writer(0)
        self._portal.call(self._writer.open)

    def _now(self):
        return wall() + self._ahead

    def _close(self):
        self._portal.call(self._writer.close)
        self._portal.call(self._journal.close)

    def replace(self):
        """Another journal, with nothing in it."""
        self._close()
        self.states.clear()
        self._open("other.db")

    def replace_file(self, *rows):
        """Another journal under the relay that runs, in place of the file that it reads."""
        self._portal.call(self._writer.close)
        before = self._journal
        self._open("next.db")
        self.states.clear()
        self.commit([CommitRow(state) for state in rows])
        self._portal.call(self._writer.close)
        self._portal.call(self._journal.close)
        for end in ("", "-wal", "-shm"):
            (self._folder / f"page.db{end}").unlink(missing_ok=True)
        (self._folder / "next.db").rename(self._folder / "page.db")
        self._portal.call(before.close)
        self._open("page.db")

    def later(self, seconds):
        """So much later for the journal, which forgets what is then too old."""
        self._ahead += int(seconds * 1e6)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        self._close()
        self._stack.close()

    def start(self):
        started = self._portal.call(anyio.Event)
        self._scope = self._portal.call(anyio.CancelScope)
        self._done = self._portal.start_task_soon(self._run, self._scope, started)
        self._portal.call(_bounded, started)

    async def _run(self, scope, started):
        settings = RelaySettings(port=self.port, tokens_env="TOKENS" if self._token else None)
        reader = await self._journal.reader()
        with scope:
            relay = Relay(
                settings,
                reader,
                tokens=auth.load(settings, {"TOKENS": self._token or ""}),
                wall=wall,
                status=Status(metrics=nothing, readiness=Readiness),
                tuning=self._pace,
            )
            async with anyio.create_task_group() as group:
                await group.start(relay.run)
                started.set()
        await reader.close()

    def stop(self):
        if self._scope is not None:
            self._portal.call(self._scope.cancel)
            self._done.result(timeout=PATIENCE)
            self._scope = None

    def commit(self, rows, crossings=()):
        self._portal.call(self._writer.commit, Batch(rows, crossings=crossings))
        for row in rows:
            self.states[str(row.state.key)] = row.state
            if row.state.decimals is not None:
                self.decimals.setdefault((row.state.chain, row.state.token), set()).add(row.state.decimals)

    def baseline(self, *rows):
        self.commit([CommitRow(state) for state in rows])

    def move(self, key, amount):
        """One change of one balance."""
        self.commit([self.moved(key, amount)])

    def cross(self, key, amount, direction, *, alert="gas-low", threshold="5000000"):
        """One change, and the alert that it crosses."""
        row = self.moved(key, amount)
        made = {"alert": alert, "direction": direction, "threshold": threshold, "amount": row.state.amount}
        self.commit([row], [msgspec.structs.replace(crossed_by(row), **made)])

    def moved(self, key, amount):
        old = self.states[str(key)]
        parts = {name: getattr(old, name) for name in old.__struct_fields__}
        parts |= {"amount": canonical(amount), "version": old.version + 1, "observed_at": format_rfc3339(self._now())}
        state = BalanceState(**parts)
        return CommitRow(state, changed("e0", state, old.amount, old.observed_at))

    def heartbeat(self, health):
        self._portal.call(self._journal.heartbeat, health)


async def _bounded(started):
    with anyio.fail_after(PATIENCE):
        await started.wait()


def balance(provider, account, token, amount, **parts):
    """A baseline. Base units with six decimals unless told otherwise."""
    told = {"chain": SOLANA, "kind": "total", "symbol": None, "unit": "base", "decimals": 6, "slot": None} | parts
    return BalanceState(
        provider=provider,
        account=account,
        token=token,
        amount=canonical(amount),
        version=0,
        as_of=None,
        observed_at=format_rfc3339(wall()),
        **told,
    )
