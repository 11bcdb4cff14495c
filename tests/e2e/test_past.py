"""The past of a world of seconds, as real daemons leave it in real journals: right at every time, and certain only where it is."""

import random

import anyio
import pytest

from watcher.app.daemon import journal_of, wall
from watcher.app.settings import parse
from watcher.model.keys import Filter
from watcher.model.times import parse_rfc3339
from watcher.past.state_at import state_at
from watcher.testing.sandbox import RunningWatcher, Sandbox

TRAVEL = 1.0
"""Seconds that an answer is on its way, and a slot in the making."""
TIMES = 60


class Record:
    """What the sandbox says that was, at wall-clock seconds."""

    def __init__(self, truth):
        self._moves = {
            balance["key"]: [
                (0.0, balance["initial"]),
                *((move["time"], move["amount"]) for move in balance["changes"]),
            ]
            for desk in truth["providers"].values()
            for balance in desk["balances"]
        }

    def at(self, key, first, last):
        """All that it was from `first` to `last`."""
        moves = self._moves[str(key)]
        began = max(number for number, (time, _) in enumerate(moves) if time <= first)
        return {amount for time, amount in moves[began:] if time <= last}

    def wrong(self, row, time):
        """What is wrong with the row; None: nothing."""
        if row.status == "certain":
            return None if row.amount in self.at(row.key, time - TRAVEL, time) else "it was another amount"
        if row.status == "unseen":
            seen = parse_rfc3339(row.last_seen) / 1e6
            return (
                None if seen < time and row.amount in self.at(row.key, seen - TRAVEL, seen) else "it was not seen then"
            )
        first, last = (parse_rfc3339(text) / 1e6 for text in row.between)
        became = row.previous_amount in self.at(row.key, first - TRAVEL, first) and row.amount in self.at(
            row.key, last - TRAVEL, last
        )
        return None if first < time < last and became else "it did not become that"


async def asked(config, environment, dice, began):
    """(seconds, row) of each at some random times."""
    journal = journal_of(parse(config), environment)
    reader = await journal.reader()
    try:
        ended, rows = wall() / 1e6, []
        for _ in range(TIMES):
            time = dice.uniform(began, ended)
            rows += [(time, row) for row in await state_at(reader, round(time * 1e6), Filter(), now=wall())]
        return rows
    finally:
        await reader.close()
        await journal.close()


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def journal(request, tmp_path):
    if request.param == "sqlite":
        return {}
    address, prefix = request.getfixturevalue("kafka").address, request.getfixturevalue("prefix")
    return {"journal": f"kafka://{address}", "kafka": {"topic_prefix": prefix, "partitions": 3}}


class Mover:
    """Moves balances of a sandbox; no amount comes twice."""

    def __init__(self, sandbox, dice):
        self._sandbox, self._dice = sandbox, dice
        self._balances = [each for desk in sandbox.truth()["providers"].values() for each in desk["balances"]]
        self._amount = 1_000

    async def move(self, seconds):
        with anyio.move_on_after(seconds):
            while True:
                balance = self._dice.choice(self._balances)
                self._amount += 1
                key = {part: balance[part] for part in ("provider", "chain", "account", "token", "kind")}
                self._sandbox.set(**key, amount=str(self._amount))
                await anyio.sleep(0.1)


async def begun(config, environment):
    """The journal is there."""
    journal = journal_of(parse(config), environment)
    await journal.init()
    await journal.close()


def test_every_row_is_right_at_random_times_and_certain_only_where_it_is_certain(journal, tmp_path):
    dice = random.Random(5)
    with Sandbox(seed=5, faults="none,refused=0.05,torn=0.05,error=0.05") as sandbox:
        config, mover = sandbox.config(tmp_path, **journal), Mover(sandbox, dice)
        anyio.run(begun, config, sandbox.environment)
        began = wall() / 1e6
        for _ in range(2):
            with RunningWatcher(config, sandbox.environment):
                anyio.run(mover.move, 6.0)
            anyio.run(mover.move, 2.0)
        rows = anyio.run(asked, config, sandbox.environment, dice, began)
        truth = Record(sandbox.truth())
    assert [(time, why, row) for time, row in rows if (why := truth.wrong(row, time)) is not None] == []
    counts = {status: sum(row.status == status for _, row in rows) for status in ("certain", "changing", "unseen")}
    assert all(count > 20 for count in counts.values()), counts
