"""Reading the SQLite journal: snapshots and the log, from this process or another one, in short transactions.

A cursor's only position is the `seq` of the first event still to come. Baselines have no place of their own in the
log: a live follower is told of them in the order in which they were made, a replay does not repeat them.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import anyio
import msgspec

from watcher.events import JSON, MSGPACK, BalanceState, Cursor, Filter, Key, ProviderHealth, codec_of
from watcher.journal import Bounds, Commit, Expired, Published, Unavailable, Unwritable
from watcher.journal.sqlite_file import Run, explained, identity, log_to_read, open_to_read, transaction

SLICE = 1000
"""Events, and baselines, read in one transaction at most."""
POLL = 0.004
"""Seconds between two looks at a file that another process writes: one `PRAGMA data_version` each."""
IDLE = 1.0
"""The same for a file that our own writer wakes us for."""
REMEMBERED = 64
"""Snapshots of which the reader knows where their baselines end."""

STATE = {codec.content_type: codec.state for codec in (JSON, MSGPACK)}


class Waker:
    """Tells the followers of this process that its own writer committed."""

    def __init__(self) -> None:
        self.local = False
        """Our own process writes, so nobody else does."""
        self._changed = anyio.Event()

    def wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def changed(self) -> anyio.Event:
        """Set by the next commit after this call."""
        return self._changed


class _Place(msgspec.Struct):
    """How far one follower has read."""

    position: int
    baseline: int = 0
    """The greatest `state.id` seen."""
    beat: int = 0
    more: bool = False
    """The last look found a full slice: there may be more behind it."""
    version: int = -2
    """`PRAGMA data_version` before the last look: the file has changed since when it differs."""


class SqliteReader:
    """Reads only, on a connection of its own. Raises Unavailable when the file is locked, was replaced, or has begun a
    new log."""

    def __init__(self, path: Path, run: Run, waker: Waker) -> None:
        """To be made where statements run: it opens the file. Raises WrongJournal when there is none."""
        self._path = path
        self._run = run
        self._waker = waker
        self._connection = open_to_read(path)
        # Asks for `data_version` on the caller's thread, 250 times a second: it takes microseconds and never waits.
        self._watch = open_to_read(path)
        self._watch.execute("PRAGMA busy_timeout = 0")
        self._file = identity(path)
        self._stored, self._log = log_to_read(path, self._connection)
        # Where each snapshot's baselines end. A cursor cannot say it, and one made between a snapshot and `follow`
        # must not be missed by whoever keeps the state. The lower place wins: twice is harmless, never is not.
        self._baselines: OrderedDict[int, int] = OrderedDict()

    async def bounds(self) -> Bounds:
        oldest, head = await self._run(self._bounds)
        return Bounds(self._cursor(oldest), self._cursor(head))

    async def snapshot(self, wanted: Filter) -> tuple[Cursor, Sequence[BalanceState]]:
        head, baseline, rows = await self._run(lambda: self._snapshot(wanted))
        self._baselines[head] = min(baseline, self._baselines.get(head, baseline))
        self._baselines.move_to_end(head)
        if len(self._baselines) > REMEMBERED:
            self._baselines.popitem(last=False)
        return self._cursor(head), rows

    async def notes(self) -> dict[str, bytes]:
        return await self._run(self._notes)

    async def follow(self, cursor: Cursor) -> AsyncIterator[Commit]:
        place = await self._run(lambda: self._start(cursor))
        while True:
            changed = self._waker.changed()
            # Asked before reading: a commit that slips in between is seen now, and at worst looked for once more.
            version = self._version()
            if version != place.version:
                commit = await self._run(lambda: self._look(place, version))  # noqa: B023 - it is awaited here
                if commit is not None:
                    yield commit
                    continue
            with anyio.move_on_after(IDLE if self._waker.local else POLL):
                await changed.wait()

    async def close(self) -> None:
        await self._run(self._connection.close)
        self._watch.close()

    def _notes(self) -> dict[str, bytes]:
        with explained(self._path):
            return dict(self._connection.execute("SELECT key, data FROM note").fetchall())

    def _version(self) -> int:
        """What differs as soon as anyone has committed; -1 when it cannot be told, which differs from everything."""
        if identity(self._path) != self._file:
            return -1
        try:
            (version,) = self._watch.execute("PRAGMA data_version").fetchone()
        except sqlite3.OperationalError:
            return -1
        return int(version)

    def _cursor(self, position: int) -> Cursor:
        return Cursor(self._log, (position,))

    def _bounds(self) -> tuple[int, int]:
        with explained(self._path), transaction(self._connection, "DEFERRED"):
            return self._edges()

    def _edges(self) -> tuple[int, int]:
        if identity(self._path) != self._file:
            raise Unavailable(f"{self._path} was moved, removed or replaced: open it again")
        oldest, last, stored = self._connection.execute(
            "SELECT (SELECT min(seq) FROM event), (SELECT seq FROM sqlite_sequence WHERE name = 'event'),"
            " (SELECT value FROM meta WHERE name = 'log')"
        ).fetchone()
        if stored not in (self._stored, self._log):  # a writer may make the name that we found its own
            raise Unavailable(f"a new log was begun in {self._path}: open it again")
        head = (last or 0) + 1
        return (head if oldest is None else oldest), head

    def _snapshot(self, wanted: Filter) -> tuple[int, int, list[BalanceState]]:
        query, values = "SELECT key, content, data FROM state", tuple[str, ...]()
        if wanted.account is not None:
            query += " WHERE account IN (SELECT value FROM json_each(?))"
            values = (msgspec.json.encode(wanted.account).decode(),)
        with explained(self._path), transaction(self._connection, "DEFERRED"):
            _, head = self._edges()
            (baseline,) = self._connection.execute("SELECT ifnull(max(id), 0) FROM state").fetchone()
            # Judged by its key before it is decoded: most rows of a narrow snapshot never are.
            found = [
                STATE[content](data)
                for key, content, data in self._connection.execute(query + " ORDER BY id", values)
                if wanted.matches(_key(key))
            ]
        return head, baseline, found

    def _start(self, cursor: Cursor) -> _Place:
        if cursor.epoch != self._log or len(cursor.positions) != 1:
            raise Expired("epoch_changed")
        (position,) = cursor.positions
        with explained(self._path), transaction(self._connection, "DEFERRED"):
            oldest, head = self._edges()
            (baseline,) = self._connection.execute("SELECT ifnull(max(id), 0) FROM state").fetchone()
        if max(position, 1) < oldest:  # positions begin at 1, and nothing is missed before it
            raise Expired("expired")
        if position > head:
            raise Expired("ahead")
        return _Place(max(position, 1), self._baselines.get(position, baseline))

    def _look(self, place: _Place, version: int) -> Commit | None:
        """What is new since `place`, which moves behind it; None when nothing is."""
        with explained(self._path), transaction(self._connection, "DEFERRED"):
            commit = self._slice(place)
        if version >= 0 and not place.more:
            place.version = version
        return commit if commit.events or commit.baselines or commit.health or place.more else None

    def _slice(self, place: _Place) -> Commit:
        oldest, _ = self._edges()
        if place.position < oldest:
            raise Expired("expired")
        place.more = False
        events = self._events(place)
        baselines = self._new_baselines(place)
        beats = self._connection.execute(
            "SELECT beat, data FROM provider WHERE beat > ? ORDER BY beat", (place.beat,)
        ).fetchall()
        place.more = place.more or len(events) == SLICE
        if events:
            place.position = events[-1].position + 1
        if beats:
            place.beat = beats[-1][0]
        health = [msgspec.json.decode(data, type=ProviderHealth) for _, data in beats]
        return Commit(self._cursor(place.position), events, baselines, health)

    def _events(self, place: _Place) -> list[Published]:
        rows = self._connection.execute(
            "SELECT seq, key, version, observed_at, content, data FROM event WHERE seq >= ? ORDER BY seq LIMIT ?",
            (place.position, SLICE),
        )
        return [
            Published(_key(key), version, self._json(content, data), 0, seq, observed_at)
            for seq, key, version, observed_at, content, data in rows
        ]

    def _new_baselines(self, place: _Place) -> list[BalanceState]:
        # A balance that has changed since is left out: its first event, which is still to come, says more.
        rows = self._connection.execute(
            "SELECT id, version, content, data FROM state WHERE id > ? ORDER BY id LIMIT ?", (place.baseline, SLICE)
        ).fetchall()
        place.more = place.more or len(rows) == SLICE
        if rows:
            place.baseline = rows[-1][0]
        return [STATE[content](data) for _, version, content, data in rows if version == 0]

    def _json(self, content: str, data: bytes) -> bytes:
        if content == JSON.content_type:
            return data
        try:
            return JSON.encode(codec_of(content).event(data))
        except (msgspec.DecodeError, ValueError) as error:
            raise Unwritable(f"{self._path} is damaged: an event in it cannot be read ({error})") from error


def _key(text: str) -> Key:
    """`Key.parse` for what we wrote ourselves: no validation, so that a snapshot may look at every row."""
    return Key(*text.split("/"))  # type: ignore[arg-type]
