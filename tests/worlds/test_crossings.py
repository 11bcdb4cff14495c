"""One crossing for each true crossing of what is committed, and none else: on real SQLite, through edits, restarts and faults.

A small oracle tells from each commit that arrived in the file, and from nothing else, which crossings it has to have.
"""

import contextlib
import json
import random
import sqlite3
from typing import NamedTuple

import anyio
import pytest

from tests.crossing_oracle import Oracle, Told, in_unit
from tests.ingest.test_committer import Disk, in_virtual_time
from watcher.app import alert_settings
from watcher.ingest.committer import Committer
from watcher.ingest.rejections import RETRY
from watcher.journal import Rejected
from watcher.journal.sqlite import file as sqlite_file
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.ledger import Ledger
from watcher.model.alert_index import AlertIndex
from watcher.model.alerts import crossing_id
from watcher.model.bulk_listing import BulkListing, TokenColumn
from watcher.model.events import JSON
from watcher.model.keys import Key, Scope
from watcher.model.log import Unavailable
from watcher.model.readings import Answer, Reading, Times
from watcher.model.times import format_rfc3339
from watcher.model.watches import Watched, WatchIndex
from watcher.testing.journal_samples import BEGAN

CHAIN = "eip155:1"
SINGLES = [Key("p", CHAIN, f"a{n}", token) for n in range(3) for token in ("usd", "eur")]
LISTED = [Key("q", CHAIN, "w", token) for token in ("usd", "eur", "btc", "sol")]
BULK = [Key("b", CHAIN, f"h{n}", "usd") for n in range(6)]
KEYS = [*SINGLES, *LISTED, *BULK]
AMOUNTS = ["0", "1", "3", "5", "7", "9", "10", "30", "49", "50", "51", "70", "100"]
LABELS, TAGS = ("hot", "cold"), ("x", "y", "z")


def unit_of(key):
    """Jupiter and Helius count in base units, Ondo in tokens."""
    return "decimal" if key.provider == "b" else "base"


class Moment(NamedTuple):
    """What held when a commit was begun."""

    tables: list
    names: dict
    seen: dict


class Recorded:
    """The writer of the file. What arrives in it is judged by the oracle at once, whatever the committer learns of it."""

    def __init__(self, inner, world):
        self._inner, self._world = inner, world
        self.open, self.release, self.close = inner.open, inner.release, inner.close

    async def commit(self, batch):
        world = self._world
        then = Moment(list(world.tables), dict(world.names), dict(world.seen))
        self._refuse(batch)
        try:
            await self._inner.commit(batch)
        finally:
            world.look(then)

    def _refuse(self, batch):
        keys = [row.state.key for row in batch.rows] + [crossing.key for crossing in batch.crossings]
        bad = {str(key) for key in keys if key in self._world.poisoned}
        if not bad:
            return
        if self._world.random.random() < 0.5:
            raise Rejected("one of them", {})
        notes = {
            name: "no"
            for name, data in batch.notes.items()
            if name.startswith("alert:") and json.loads(data)["key"] in bad
        }
        raise Rejected("these", notes if notes and len(batch.rows) < len(keys) else dict.fromkeys(bad, "no"))


class World:
    def __init__(self, path, seed):
        self.path = path
        self.random = random.Random(seed)
        self.oracle = Oracle()
        self.tables, self.names = [], dict.fromkeys(KEYS, (None, ()))
        self.poisoned = set()
        self.order = 0
        self.truth = dict.fromkeys(KEYS)
        self.seen = {}
        """Key → when amounts were read since the last edit: {(amount, RFC 3339)}."""
        self.states, self.notes, self.seq = {}, {}, 0
        self.crossed = []

    @contextlib.asynccontextmanager
    async def life(self):
        """One process. It ends in order or is killed."""
        self.disk = Disk()
        journal = SqliteJournal(
            self.path, encoding="json", retention=1e9, clock=lambda: BEGAN, runner=lambda: self.disk
        )
        self.committer = Committer(Recorded(journal.writer(0), self), Ledger(), gather=0.01, bound=1000)
        self.use()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.committer.run)
            await self.committer.ready.wait()
            yield
            if self.random.random() < 0.5:
                self.disk.trouble = ["before"] * 1000
            tasks.cancel_scope.cancel()

    # What happens

    def use(self):
        watched = [
            Watched(Scope(key.provider, key.chain, key.account, key.token), label, tags)
            for key, (label, tags) in self.names.items()
        ]
        self.committer.use_alerts(AlertIndex(alert_settings.parse(self.tables), WatchIndex(watched)))
        self.seen = {}

    def edit(self):
        choice, tables = self.random.random(), self.tables
        if choice < 0.35 or not tables:
            free = [name for name in "ABCDEFGH" if name not in {table["name"] for table in tables}]
            if free:
                tables.insert(self.random.randrange(len(tables) + 1), self.table(self.random.choice(free)))
        elif choice < 0.5:
            tables.pop(self.random.randrange(len(tables)))
        elif choice < 0.8:
            number = self.random.randrange(len(tables))
            tables[number] = self.table(tables[number]["name"])
        else:
            key = self.random.choice(KEYS)
            self.names[key] = (
                self.random.choice([None, *LABELS]),
                tuple(self.random.sample(TAGS, self.random.randrange(3))),
            )
        self.use()

    def table(self, name):
        rng = self.random
        side = rng.choice(["below", "above"])
        table = {"name": name, side: rng.choice(["1", "5", "7.0", "50", "5.5"])}
        if rng.random() < 0.5:
            clear = [text for text in AMOUNTS if (float(text) >= float(table[side])) == (side == "below")]
            clear = [text for text in clear if float(text) != float(table[side]) or rng.random() < 0.2]
            if clear:
                table["clear"] = rng.choice(clear)
        if rng.random() < 0.3:
            table["decimals"] = 1
        parts = {
            "provider": ["p", "q", "b"],
            "account": ["a0", "a1", "a2", "w", "h0", "h1"],
            "token": ["usd", "eur", "btc"],
            "kind": ["total", "settled"],
            "label": list(LABELS),
            "tag": list(TAGS),
            "chain": [CHAIN, "eip155:2"],
        }
        for part in rng.sample(sorted(parts), rng.choice([0, 0, 1, 1, 1, 2])):
            table[part] = rng.sample(parts[part], rng.choice([1, 2])) if rng.random() < 0.5 else rng.choice(parts[part])
        return table

    def move(self, keys, chance):
        for key in keys:
            if self.random.random() < chance:
                self.truth[key] = self.random.choice(AMOUNTS)

    async def single(self):
        keys = self.random.sample(SINGLES, self.random.choice([1, 1, 2]))
        self.move(keys, 0.5)
        self.order += 1
        readings = [
            Reading(key, self.truth[key] or "0", unit_of(key), order=self.order, slot=self.order) for key in keys
        ]
        await self.answer(Answer("p", readings, "strict", 0.0, self.times()), keys)

    async def listing(self, *, still=False):
        if not still and self.random.random() < 0.5:
            self.move(LISTED, 0.3)
        if not still and self.random.random() < 0.2:
            self.truth[self.random.choice(LISTED)] = None
        said = {key: self.truth[key] for key in LISTED if self.truth[key] is not None}
        readings = [Reading(key, amount, unit_of(key)) for key, amount in said.items()]
        scope = Scope("q", CHAIN, "w")
        answer = Answer("q", readings, "none", 0.0, self.times(), scope, fingerprint=repr(said).encode())
        await self.answer(answer, LISTED)

    async def bulk(self, *, still=False):
        if not still and self.random.random() < 0.5:
            self.move(BULK, 0.3)
        said = {key: self.truth[key] for key in BULK if self.truth[key] is not None}
        pages = [(tuple(key.account for key in said), tuple(said.values()))] if said else []
        column = TokenColumn(CHAIN, "usd", None, pages)

        def check(column, account, amount):
            return Reading(Key("b", CHAIN, account, column.token), amount, "decimal")

        rows = BulkListing("b", [column], check)
        fingerprint = repr(said).encode() if self.random.random() < 0.5 else b""
        await self.answer(
            Answer("b", rows, "none", 0.0, self.times(), Scope("b", CHAIN, None, "usd"), fingerprint), BULK
        )

    def times(self):
        now = anyio.current_time()
        return Times(now, now, BEGAN + int(now * 1e6))

    async def answer(self, answer, keys):
        for key in keys:
            amount = self.truth[key] or "0"
            self.seen.setdefault(key, set()).add((amount, format_rfc3339(answer.times.observed_at)))
        if await self.committer.repeat(answer) is None:
            await self.committer.accept(answer)

    # What is true

    def look(self, then):
        """Everything that has arrived in the file since the last look: at most one commit."""
        with contextlib.closing(sqlite3.connect(self.path)) as file:
            found = file.execute("SELECT seq, type, data FROM event WHERE seq > ? ORDER BY seq", (self.seq,)).fetchall()
            states = [JSON.state(data) for (data,) in file.execute("SELECT data FROM state")]
            notes = dict(file.execute("SELECT key, data FROM note WHERE key LIKE 'alert:%'").fetchall())
        crossed = [json.loads(data) for _, kind, data in found if kind == "crossed"]
        rows = {s.key: s for s in states if self.states.get(s.key) != s}
        judged = {Key.parse(json.loads(data)["key"]) for name, data in notes.items() if self.notes.get(name) != data}
        for key in dict.fromkeys([*rows, *(key_of(one) for one in crossed), *judged]):
            told = [one for one in crossed if key_of(one) == key]
            self.judge(then, key, rows.get(key), told)
        self.crossed += crossed
        self.states |= {state.key: state for state in states}
        self.notes, self.seq = notes, max([self.seq, *(seq for seq, _, _ in found)])

    def judge(self, then, key, row, told):
        before = self.states.get(key)
        state = row or before
        previous = None
        if row is not None and row.version > 0:  # a listing that was complete before says that there was nothing
            previous = "0" if before is None else before.amount
        expected = self.oracle.step(then.tables, key, then.names[key], state, previous, row=row is not None)
        assert [self.as_told(one) for one in told] == expected
        for one in told:
            assert one["id"] == crossing_id(self.epoch(), one["alert"], key, state.version, one["direction"])
            if row is not None:
                assert one["observed_at"] == state.observed_at
            else:
                assert (state.amount, one["observed_at"]) in then.seen.get(key, ()), "nobody read that since the edit"

    def epoch(self):
        return self.committer.ledger._epoch

    @staticmethod
    def as_told(one):
        threshold = in_unit(one["threshold"], {}, "decimal")
        return Told(one["alert"], one["direction"], threshold, one["amount"], one["previous_amount"], one["version"])

    async def say_all_again(self):
        self.order += 1
        readings = [
            Reading(key, self.truth[key] or "0", unit_of(key), order=self.order, slot=self.order) for key in SINGLES
        ]
        await self.answer(Answer("p", readings, "strict", 0.0, self.times()), SINGLES)
        await self.listing(still=True)
        await self.bulk(still=True)

    def complete(self):
        """What has been read since the last edit has nothing to tell any more."""
        for key, state in self.states.items():
            assert state.amount == (self.truth[key] or "0"), key
            assert self.oracle.due(self.tables, key, self.names[key], state) == []


def key_of(one):
    return Key(*(one[part] for part in ("provider", "chain", "account", "token", "kind")))


async def live(world, steps):
    rng = world.random
    for number in range(steps):
        await anyio.sleep(rng.choice([0.001, 0.02, 1.0]))
        action = rng.random()
        if action < 0.45:
            await world.single()
        elif action < 0.65:
            await world.listing()
        elif action < 0.75:
            await world.bulk()
        elif action < 0.87:
            world.edit()
        elif action < 0.93:
            world.disk.trouble += rng.choices(["before", "after", "hang", "hang after", None], k=rng.choice([1, 2, 3]))
        elif action < 0.95:
            world.poisoned = {rng.choice(KEYS)}
        elif action < 0.97:
            world.poisoned = set()
        if number % 10 == 9:
            await quiet(world)
    await quiet(world)


async def quiet(world):
    """No fault any more, and whoever was left out may come again: then all is said that there is to say."""
    world.disk.trouble, world.poisoned = [], set()
    await anyio.sleep(2 * RETRY.longest)
    for _ in range(12):
        await anyio.sleep(1.0)
        await world.say_all_again()
    await world.committer.flush()
    await anyio.sleep(1.0)
    world.complete()


@pytest.mark.parametrize("seed", range(60))
def test_each_crossing_of_what_is_committed_is_told_once_and_nothing_else(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(sqlite_file, "BUSY", 0.0)
    world = World(tmp_path / "balances.db", seed)

    async def main():
        for _ in range(4):
            with contextlib.suppress(Unavailable):
                async with world.life():
                    await live(world, 60)

    in_virtual_time(main, seed=seed)
    assert len({one["id"] for one in world.crossed}) == len(world.crossed) == world.oracle.count
    assert world.oracle.count > 30
