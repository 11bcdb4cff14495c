"""A relay in a process of its own on a given database, for tests that kill it: `python -m tests.relay.served DB PORT`."""

import sys
from pathlib import Path

import anyio

from tests.relay.stage import calm, relaying
from watcher.journal.sqlite.journal import SqliteJournal


async def main(path, port):
    journal = SqliteJournal(Path(path), encoding="json", retention=86400.0, clock=int)
    async with relaying(journal, calm(heartbeat=5.0), port=port) as (_, bound):
        print(bound, flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], int(sys.argv[2]))
