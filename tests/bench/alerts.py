"""What alerts cost: `python -m tests.bench.alerts [alerts] [keys]`.

- commit: `take` and a commit to SQLite of 1 and of 100 changes, with alerts against without, in short turns of one run. Each
  alert speaks of some balances: of one by its account, of some by a label or a tag, of all of a token or a provider. About
  one change in four hundred makes a crossing;
- search: an edit of all alerts with so many balances known. The longest step is how long the event loop is held.
"""

import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path

import anyio

from watcher.journal import Batch
from watcher.journal.sqlite.file import inline
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.ledger import Ledger
from watcher.model.alert_index import Alert, AlertIndex
from watcher.model.keys import Filter, Key, Scope
from watcher.model.readings import Answer, Reading, Times
from watcher.model.watches import Watched, WatchIndex
from watcher.testing.journal_samples import BEGAN

BALANCES = 2_000
TURNS = {1: 4000, 100: 300}
CROSSES = 211
"""One change in so many goes below a threshold where somebody asks for that account, and comes back with the next one."""


def key(number):
    return Key("bank", "eip155:1", f"0x{number:040x}", f"0x{number % 7:040x}")


def alerts_of(count):
    """Half by account, the others by what several have."""
    found = []
    for number in range(count):
        if number % 2 == 0:
            wanted = Filter(account=(key(number).account,))
        elif number % 10 == 9:
            wanted = Filter(token=(key(number).token,))
        elif number % 50 == 3:
            wanted = Filter(provider=("bank",))
        else:
            wanted = Filter(label=(f"label{number % 97}",))
        threshold = "1000" if number % 2 == 0 else "10"
        found.append(Alert(f"alert {number}", "below", threshold, threshold, wanted=wanted))
    return found


def watches_of(keys):
    return WatchIndex(
        Watched(Scope(key.provider, key.chain, key.account, key.token), f"label{number}")
        for number, key in enumerate(keys)
        if number % 50 == 0
    )


def answer(numbers, turn):
    readings = [
        Reading(
            key(number), "999" if turn > 1 and (number + turn) % CROSSES == 0 else str(10**9 + turn), "base", order=turn
        )
        for number in numbers
    ]
    return Answer("bank", readings, "strict", 0.0, Times(float(turn), turn + 0.5, BEGAN + turn * 1_000_000))


class Side:
    """A ledger and its file."""

    def __init__(self, path, index):
        self.ledger = Ledger()
        self.writer = SqliteJournal(
            path, encoding="json", retention=604800.0, clock=lambda: BEGAN, runner=lambda: inline
        ).writer(0)
        self.index = index
        self.turn = 0
        self.crossings = 0

    async def open(self):
        restored = await self.writer.open()
        self.ledger.restore(restored.states, restored.notes, restored.epoch)
        if self.index is not None:
            self.ledger.use_alerts(self.index, 0.0)
        await self.commit(range(BALANCES), BALANCES)

    async def commit(self, numbers, rows):
        """Seconds that it took."""
        self.turn += 1
        self.ledger.evaluate(answer(numbers, self.turn))
        began = time.perf_counter()
        taken = self.ledger.take(rows)
        await self.writer.commit(Batch(taken.rows, taken.notes, taken.crossings))
        self.ledger.committed()
        took = time.perf_counter() - began
        assert len(taken.rows) == rows
        self.crossings += len(taken.crossings)
        return took


async def commits(folder, index, rows):
    without, with_alerts = Side(folder / f"without{rows}.db", None), Side(folder / f"with{rows}.db", index)
    sides = (without, with_alerts)
    for side in sides:
        await side.open()
    spent = {side: [] for side in sides}
    for turn in range(TURNS[rows]):
        numbers = [(turn * rows + number) % BALANCES for number in range(rows)]
        for side in sides if turn % 2 else sides[::-1]:
            spent[side].append(await side.commit(numbers, rows))
    plain, judged = (statistics.median(spent[side]) for side in sides)
    mean = sum(spent[with_alerts]) / sum(spent[without])
    print(
        f"commit of {rows:3}: {judged * 1e6:8.1f} µs, without alerts {plain * 1e6:8.1f}: ratio {judged / plain:.3f}, of the means "
        f"{mean:.3f} (goal <= 1.1); {with_alerts.crossings:,} crossings in {rows * TURNS[rows]:,} changes"
    )
    for side in sides:
        await side.writer.close()


def search(index, count, keys):
    ledger = Ledger()
    ledger.restore([], {}, "e0")
    ledger.evaluate(answer(range(keys), 1))
    while ledger.pending:
        ledger.take(100_000)
        ledger.committed()
    began = time.perf_counter()
    ledger.use_alerts(index, 10.0)
    steps = [began, time.perf_counter()]
    steps += [time.perf_counter() for _ in ledger.find_to_judge()]
    steps.append(time.perf_counter())
    held = max(later - earlier for earlier, later in itertools.pairwise(steps))
    print(
        f"search of {keys:,} balances for {count:,} alerts: {steps[-1] - began:.2f} s, longest step {held * 1e3:.2f} ms"
    )


def main(argv):
    count, keys = (int(text) for text in (argv + ["1000", "100000"][len(argv) :]))
    alerts = alerts_of(count)
    began = time.perf_counter()
    index = AlertIndex(alerts, watches_of([key(number) for number in range(BALANCES)]))
    print(f"index of {count:,} alerts: {(time.perf_counter() - began) * 1e3:.1f} ms")
    with tempfile.TemporaryDirectory() as folder:
        for rows in TURNS:
            anyio.run(commits, Path(folder), index, rows)
    search(index, count, keys)


if __name__ == "__main__":
    main(sys.argv[1:])
