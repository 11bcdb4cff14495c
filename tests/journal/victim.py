"""A process that writes without end, to be killed: `python -m tests.journal.victim FILE SEED`.

Prints the greatest number committed after each commit; ends with 75 when fenced, 69 when the file cannot be written.
"""

import contextlib
import os
import random
import sys
from pathlib import Path

import anyio

from watcher.journal import Batch, Fenced, Unwritable
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.logs.setup import configure
from watcher.model.events import CommitRow
from watcher.model.log import Unavailable
from watcher.testing.journal_samples import BEGAN, baseline, change


async def opened(writer):
    """The rows by account, as soon as nobody else holds the file: another one may stall just when it does."""
    while True:
        with contextlib.suppress(Unavailable):
            return {state.account: CommitRow(state) for state in (await writer.open()).states}


async def write(path, seed):
    rng = random.Random(seed)
    journal = SqliteJournal(path, encoding="json", retention=604800.0, clock=lambda: BEGAN)
    writer = journal.writer(0)
    rows = await opened(writer)
    while True:
        names = {f"account{rng.randrange(50)}" for _ in range(rng.randrange(1, 30))}
        batch = []
        for name in sorted(names):
            old = rows.get(name)
            batch.append(change(old, int(old.state.amount) + 1) if old else baseline(name, rng.randrange(100)))
        try:
            await writer.commit(Batch(batch, {"count": str(rng.random()).encode()}))
        except Unavailable:  # locked by the other one: what is committed says how to go on
            rows = await opened(writer)
            continue
        rows.update((row.state.account, row) for row in batch)
        os.write(1, b"%d\n" % sum(row.state.version for row in rows.values()))


def main(path, seed):
    configure("warning")
    try:
        anyio.run(write, Path(path), int(seed))
    except Fenced:
        return 75
    except Unwritable as error:
        os.write(2, f"{error}\n".encode())
        return 69


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
