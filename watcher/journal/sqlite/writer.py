"""The writer of the SQLite journal: fences by epoch, restores, commits in group transactions."""

import contextlib
import functools
import itertools
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from watcher.journal import Batch, Fenced, Restored, Unwritable
from watcher.journal.record_limits import MAX_RECORD_BYTES, UNENCODABLE, UNPARSABLE, refuse_unfit, too_large
from watcher.journal.sqlite.closings import PUT_CLOSING, ClosingRecord, closing_records
from watcher.journal.sqlite.file import (
    Run,
    contents_of,
    explained,
    identity,
    open_to_write,
    transaction,
)
from watcher.journal.sqlite.identity import leave_mark
from watcher.journal.sqlite.reading import CommitSignal
from watcher.journal.sqlite.retention import Retention
from watcher.model.alerts import Crossing
from watcher.model.events import JSON, MSGPACK, BalanceState, Codec, CommitRow, ProviderHealth
from watcher.model.keys import KINDS, Key
from watcher.model.log import JournalError
from watcher.model.times import parse_rfc3339
from watcher.runtime.progress import Progress

ROWS = 50
"""Rows that one statement takes where there are as many: SQLite then looks AUTOINCREMENT up, and Python lets the
interpreter go, once for all of them."""
ONE = "(?, ?, ?, ?, ?)"
INSERT_EVENT = "INSERT INTO event (key, version, observed_at, content, data) VALUES (?, ?, ?, ?, ?)"
INSERT_CROSSING = "INSERT INTO event (type, key, version, observed_at, content, data) VALUES ('crossed', ?, ?, ?, ?, ?)"
PUT_STATE = (
    "INSERT INTO state (key, account, version, content, data) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET version = excluded.version, content = excluded.content, data = excluded.data"
)
INSERT_EVENTS, PUT_STATES = (one.replace(ONE, ", ".join([ONE] * ROWS)) for one in (INSERT_EVENT, PUT_STATE))
PUT_NOTE = "INSERT INTO note VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET data = excluded.data"
PUT_HEALTH = (
    "INSERT INTO provider (name, data, beat) VALUES (?, ?, (SELECT ifnull(max(beat), 0) + 1 FROM provider))"
    " ON CONFLICT (name) DO UPDATE SET data = excluded.data, beat = excluded.beat"
)
RESTORED_AT_ONCE = 10_000
"""Balances."""
Records = list[tuple[object, ...]]
_micros = functools.lru_cache(maxsize=1024)(parse_rfc3339)  # the rows of one answer share their time
log = structlog.get_logger()


class SqliteWriter:
    """Fences by epoch, restores, commits; lets what is past retention go."""

    def __init__(
        self,
        path: Path,
        codec: Codec,
        retention: Retention,
        run: Run,
        signal: CommitSignal,
        *,
        boottime: Callable[[], float],
    ) -> None:
        self._path = path
        self._codec = codec
        self._retention = retention
        self._run = run
        self._signal = signal
        self._boottime = boottime
        self._owner = secrets.token_hex(8)
        self._fence = 0
        self._log = ""
        self._head = 0
        """Where we left the log: contents that were put back under us stand behind it."""
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    async def open(self) -> Restored:
        """Raises Fenced when another instance opened after us, Unavailable when locked, Unwritable, WrongJournal."""
        released = await self._run(self._open)
        fenced_at = self._boottime()  # here, since it may be the event loop's, and before what takes long
        restored = await self._run(lambda: self._restore(fenced_at, released=released))
        self._signal.local = True
        self._signal.wake()
        return restored

    async def commit(self, batch: Batch) -> None:
        # Here, so that the thread holds the interpreter for SQL only.
        events, states, crossings = self._records(batch)
        closings = closing_records(batch.closings) if batch.closings else []
        await self._run(lambda: self._commit(events, states, crossings, batch.notes, closings))
        self._signal.wake()

    async def heartbeat(self, health: Sequence[ProviderHealth]) -> None:
        await self._run(lambda: self._heartbeat(health))
        self._signal.wake()

    async def release(self, *, in_doubt: float = 0.0) -> None:
        if not in_doubt:  # nobody waits for us to let go of a file
            await self._run(self._release)

    async def close(self) -> None:
        await self._run(self._leave)
        self._signal.local = False
        self._signal.wake()

    def _open(self) -> bool:
        """Whether nothing is in doubt of whoever wrote before."""
        self._close()
        missing = not self._path.exists()
        connection = open_to_write(self._path)
        if missing:
            log.info("journal.made", path=str(self._path))
        self._connection, self._file = connection, identity(self._path)
        try:
            return self._raise_fence(connection)
        except JournalError:
            self._close()
            raise

    def _raise_fence(self, connection: sqlite3.Connection) -> bool:
        """Raise the epoch: whoever wrote before is fenced from here on, so what is restored next stays true.

        Whether nothing is in doubt of whoever that was.
        """
        with explained(self._path), transaction(connection):
            fence, owner, released = self._claim(connection)
            # Opened again after a failure: another owner since then is a successor, and he stays.
            if self._fence and owner != self._owner:
                raise Fenced(f"another instance writes {self._path} now")
            connection.execute("UPDATE meta SET value = ? WHERE name = 'fence'", (fence + 1,))
            connection.execute("UPDATE meta SET value = ? WHERE name = 'owner'", (self._owner,))
            connection.execute("UPDATE meta SET value = 0 WHERE name = 'released'")
            contents = contents_of(connection)
        self._log, self._head = contents.log, contents.head
        self._fence = fence + 1
        return bool(released) or owner == self._owner

    @staticmethod
    def _claim(connection: sqlite3.Connection) -> tuple[int, str, int]:
        """The fence, whose it is, and whether that one released it."""
        fence, owner, released = connection.execute(
            "SELECT (SELECT value FROM meta WHERE name = 'fence'), (SELECT value FROM meta WHERE name = 'owner'),"
            " (SELECT value FROM meta WHERE name = 'released')"
        ).fetchone()
        return fence, owner, released

    def _restore(self, fenced_at: float, *, released: bool) -> Restored:
        assert self._connection is not None, "it was opened a moment ago"
        try:
            with explained(self._path):
                states, notes = self._contents(self._connection)
        except JournalError:
            self._close()
            raise
        return Restored(states, notes, self._log, fenced_at, released)

    def _contents(self, connection: sqlite3.Connection) -> tuple[list[BalanceState], dict[str, bytes]]:
        decode = {codec.content_type: codec.state for codec in (JSON, MSGPACK)}
        (last,) = connection.execute("SELECT max(id) FROM state").fetchone()  # no row of it is ever removed
        progress = Progress(f"restoring balances from {self._path}", last)
        rows = connection.execute("SELECT content, data FROM state ORDER BY id")
        states: list[BalanceState] = []
        try:
            while part := rows.fetchmany(RESTORED_AT_ONCE):
                states += [decode[content](data) for content, data in part]
                progress.at(len(states))
        except (msgspec.DecodeError, KeyError) as error:
            raise Unwritable(f"{self._path} is damaged: a balance in it cannot be read ({error})") from error
        return states, dict(connection.execute("SELECT key, data FROM note").fetchall())

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction of the one writer. Raises Fenced when that is somebody else by now."""
        connection = self._connection
        if connection is None or identity(self._path) != self._file:
            raise Unwritable(f"{self._path} was moved, removed or closed while it was written to")
        with explained(self._path), transaction(connection):
            (fence,) = connection.execute("SELECT value FROM meta WHERE name = 'fence'").fetchone()
            if fence != self._fence:
                raise Fenced(f"another instance writes {self._path} now")
            contents = contents_of(connection)
            if (contents.log, contents.head) != (self._log, self._head):
                raise Unwritable(f"{self._path} was put back to what it was before while it was written to")
            yield connection

    def _commit(
        self,
        events: Records,
        states: Records,
        crossings: Records,
        notes: Mapping[str, bytes],
        closings: Sequence[ClosingRecord],
    ) -> None:
        with self._transaction() as connection:
            _put(connection, INSERT_EVENT, INSERT_EVENTS, events)
            if crossings:
                connection.executemany(INSERT_CROSSING, crossings)
            _put(connection, PUT_STATE, PUT_STATES, states)
            connection.executemany(PUT_NOTE, notes.items())
            if closings:
                connection.executemany(PUT_CLOSING, closings)
            self._retention.trim(connection)
            head = contents_of(connection).head
        self._head = head
        if events or crossings:
            leave_mark(self._path, self._log, head)

    def _release(self) -> None:
        with self._transaction() as connection:
            connection.execute("UPDATE meta SET value = 1 WHERE name = 'released'")

    def _records(self, batch: Batch) -> tuple[Records, Records, Records]:
        """What goes into `event` and into `state`, and into `event` behind it. Every commit of every change passes here: no
        call too many.

        Raises Rejected.
        """
        try:
            events, states, fit = self._encoded(batch.rows)
            crossings = self._crossings(batch.crossings) if batch.crossings else []
        except UNENCODABLE:
            refuse_unfit(self._unfit(batch))
            raise
        if not fit or any(not _fits(crossing) for crossing in crossings):
            refuse_unfit(self._unfit(batch))
        return events, states, crossings

    def _unfit(self, batch: Batch) -> dict[str, str]:
        """Each alone: by key, what is wrong with those that cannot be committed."""
        unfit: dict[str, str] = {}
        rows = (
            (row.state.key, record) for row in batch.rows for record in (row.state, row.event) if record is not None
        )
        for key, record in (*rows, *((crossing.key, crossing) for crossing in batch.crossings)):
            try:
                size = len(self._codec.encode(record))
            except UNENCODABLE as error:
                unfit[str(key)] = f"not to be encoded: {error}"
            else:
                if size > MAX_RECORD_BYTES:
                    unfit[str(key)] = too_large(size)
                elif not Key.parsable(str(key)):
                    unfit[str(key)] = UNPARSABLE
        return unfit

    def _crossings(self, crossings: Sequence[Crossing]) -> Records:
        content, encode = self._codec.content_type, self._codec.encode
        return [
            (str(crossing.key), crossing.version, _micros(crossing.observed_at), content, encode(crossing))
            for crossing in crossings
        ]

    def _encoded(self, rows: Sequence[CommitRow]) -> tuple[Records, Records, bool]:
        """The same, and whether all of it is small enough and can be read again."""
        content, encode = self._codec.content_type, self._codec.encode_all
        states_now = [row.state for row in rows]
        keys = [f"{state.provider}/{state.chain}/{state.account}/{state.token}/{state.kind}" for state in states_now]
        changes = [(key, row.event) for key, row in zip(keys, rows, strict=True) if row.event is not None]
        state_data, event_data = encode(states_now), encode([event for _, event in changes])
        states: Records = [
            (key, state.account, state.version, content, data)
            for key, state, data in zip(keys, states_now, state_data, strict=True)
        ]
        events: Records = [
            (key, event.version, _micros(event.observed_at), content, data)
            for (key, event), data in zip(changes, event_data, strict=True)
        ]
        small = max(map(len, itertools.chain(state_data, event_data)), default=0) <= MAX_RECORD_BYTES
        parsable = "".join(keys).count("/") == 4 * len(keys) and KINDS.issuperset([state.kind for state in states_now])
        return events, states, small and parsable

    def _heartbeat(self, health: Sequence[ProviderHealth]) -> None:
        with self._transaction() as connection:
            connection.executemany(PUT_HEALTH, [(one.provider, JSON.encode(one)) for one in health])
            self._retention.trim(connection)

    def _leave(self) -> None:
        """The file alone is the whole log then, for whoever copies it: our readers, who close behind us, see to nothing."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _fits(record: tuple[object, ...]) -> bool:
    """Whether a crossing is small enough, and its key can be read again."""
    key, *_, data = record
    assert isinstance(key, str)
    assert isinstance(data, bytes)
    return len(data) <= MAX_RECORD_BYTES and Key.parsable(key)


def _put(connection: sqlite3.Connection, one: str, many: str, records: Records) -> None:
    """The records in their order, ROWS to a statement; what is left over one by one."""
    whole = len(records) - len(records) % ROWS
    for start in range(0, whole, ROWS):
        connection.execute(many, list(itertools.chain.from_iterable(records[start : start + ROWS])))
    connection.executemany(one, records[whole:])
