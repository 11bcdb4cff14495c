"""The embedded journal: one SQLite file, one writer, any number of readers in any process.

WAL with `synchronous=FULL`; one transaction for each group commit. Writers are fenced by an epoch: opening raises it,
and every commit reads it again inside its own transaction. Local disks only.
"""

import contextlib
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path

import anyio

from watcher.journal.sqlite.closings import ClosingRetention
from watcher.journal.sqlite.file import (
    Run,
    connect,
    explained,
    open_to_read,
    open_to_write,
    transaction,
    worker,
)
from watcher.journal.sqlite.reader import SqliteReader
from watcher.journal.sqlite.reading import CommitSignal
from watcher.journal.sqlite.retention import Retention
from watcher.journal.sqlite.writer import PUT_NOTE, SqliteWriter
from watcher.journal.views import ViewLimits
from watcher.model.events import Codec, Encoding, ProviderHealth
from watcher.model.log import JournalError


def path_of(url: str) -> Path:
    """The file that `sqlite:///relative.db` or `sqlite:////absolute.db` names."""
    return Path(url.removeprefix("sqlite:///"))


class SqliteJournal:
    """One database file. `retention` and `checkpoints` are in seconds; `clock` gives wall-clock microseconds, `boottime` the seconds of leases;
    `runner` makes the threads."""

    partitions = 1
    gather = 0.0

    def __init__(
        self,
        path: Path,
        *,
        encoding: Encoding,
        retention: float,
        clock: Callable[[], int],
        boottime: Callable[[], float] = anyio.current_time,
        runner: Callable[[], Run] = worker,
        view_limits: ViewLimits = ViewLimits(),  # noqa: B008 (frozen)
        checkpoints: float = inf,
    ) -> None:
        self.path = path
        self._codec = Codec(encoding)
        self._retention = int(retention * 1e6)
        self._checkpoints = checkpoints
        self._clock = clock
        self._boottime = boottime
        self._runner = runner
        self._view_limits = view_limits
        self._signal = CommitSignal()
        self._writer = self.writer(0)

    def writer(self, partition: int) -> "SqliteWriter":
        """The one partition's writer."""
        assert partition == 0, "SQLite has one partition"
        retention = Retention(self._kept, ClosingRetention(lambda: self._closings_kept()[0]))
        self._writer = SqliteWriter(
            self.path, self._codec, retention, self._runner(), self._signal, boottime=self._boottime
        )
        return self._writer

    def _kept(self) -> tuple[int, int]:
        now = self._clock()
        return now - self._retention, now

    def _closings_kept(self) -> tuple[int, int]:
        now = self._clock()
        return 0 if self._checkpoints == inf else max(0, now - int(self._checkpoints * 1e6)), now

    async def reader(self) -> SqliteReader:
        """Raises WrongJournal when there is no database yet."""
        run, bulk = self._runner(), self._runner()
        return await run(
            lambda: SqliteReader(
                self.path, run, bulk, self._signal, self._view_limits, closings_kept=self._closings_kept
            )
        )

    async def heartbeat(self, health: Sequence[ProviderHealth]) -> None:
        """Published by the writer of this process; silently not at all while it has none."""
        with contextlib.suppress(JournalError):
            await self._writer.heartbeat(health)

    def hint_exchange(self) -> None:
        """The process that writes the file is the one that polls."""

    async def prepare(self) -> str:
        """The embedded journal is there for whoever has nothing set up."""
        return await self.init()

    async def init(self, *, new_log: bool = False) -> str:
        """Make the database, or bring it to the newest format. Raises Unwritable, WrongJournal, Unavailable."""
        return await self._runner()(lambda: self._init(new_log=new_log))

    def _init(self, *, new_log: bool) -> str:
        missing = not self.path.exists()
        with contextlib.closing(open_to_write(self.path, new_log=new_log)) as connection, explained(self.path):
            balances, events = connection.execute(
                "SELECT (SELECT count(*) FROM state), (SELECT count(*) FROM event)"
            ).fetchone()
        if missing:
            return f"made the database {self.path}"
        if new_log:
            return f"began a new log in the database {self.path}: {balances} balances and {events} events stay"
        return f"the database {self.path} is ready: {balances} balances, {events} events"

    async def check(self) -> None:
        """Raises WrongJournal when there is no database of this format, Unwritable when it is damaged."""
        await self._runner()(lambda: open_to_read(self.path).close())

    async def released(self) -> bool:
        """Whether the last writer has ended in order, or there was none. Raises JournalError."""
        return await self._runner()(self._released)

    def _released(self) -> bool:
        with contextlib.closing(open_to_read(self.path)) as connection, explained(self.path):
            return bool(connection.execute("SELECT value FROM meta WHERE name = 'released'").fetchone()[0])

    async def swap_note(self, key: str, before: bytes | None, after: bytes) -> bool:
        """Put a note in the place of `before` (None: of none), and fence nobody. False: another one stands there by now, or
        the file cannot be written."""
        with contextlib.suppress(JournalError):
            return await self._runner()(lambda: self._swap_note(key, before, after))
        return False

    def _swap_note(self, key: str, before: bytes | None, after: bytes) -> bool:
        with (
            contextlib.closing(connect(self.path, mode="rw")) as connection,
            explained(self.path),
            transaction(connection),
        ):
            row = connection.execute("SELECT data FROM note WHERE key = ?", (key,)).fetchone()
            if row != (None if before is None else (before,)):
                return False
            connection.execute(PUT_NOTE, (key, after))
        return True

    async def close(self) -> None:
        await self._writer.close()
