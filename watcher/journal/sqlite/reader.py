"""Reading the SQLite journal: snapshots and the log, from this process or another one.

The log is read in short transactions. Who is at the head reads on a connection and a thread that nobody else holds up:
whoever is far behind, or wants a snapshot, is served on others.

A cursor's only position is the `seq` of the first event still to come. Baselines have no place of their own in the
log: a live follower gets them in the order in which they were made, a replay does not repeat them.
"""

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import anyio
import msgspec

from watcher.journal import Unwritable
from watcher.journal.sqlite import closings
from watcher.journal.sqlite.file import Run
from watcher.journal.sqlite.first_changes import first_changes
from watcher.journal.sqlite.past_reading import Interval, events_between, kept_from, require_log
from watcher.journal.sqlite.reading import CommitSignal, OpenFile
from watcher.journal.sqlite.shared_looks import Position, SharedLooks
from watcher.journal.sqlite.view import STATE, SqliteView, small_snapshot
from watcher.journal.views import ViewLimits, ViewPool, open_snapshot
from watcher.model.closed_days import days_closed
from watcher.model.events import JSON, BalanceState, codec_of
from watcher.model.keys import Filter, Key
from watcher.model.log import (
    Bounds,
    Commit,
    Cursor,
    EventType,
    Expired,
    JournalError,
    Published,
    SmallSnapshot,
    Snapshot,
    Unavailable,
)
from watcher.model.past import Closing, HistorySlice

ROWS_PER_READ = 1000
"""Events, and baselines, read in one transaction at most."""
POLL = 0.004
"""Seconds between two looks at a file that another process writes: one `PRAGMA data_version` each."""
IDLE = 1.0
"""The same for a file that our own writer wakes us for."""
GROWN = 128 * 1024 * 1024
"""Bytes of the WAL from which on every view is given up for a moment, so that it can begin anew."""


class SqliteReader:
    """Reads only, on connections of its own. Raises Unavailable when the file is locked or gone.

    A file that was put in its place, or in which a new log was begun, is opened by whoever asks next. Followers of the
    one before end with Unavailable; where their cursor stands in the new one they learn when they begin again.
    """

    def __init__(
        self,
        path: Path,
        run: Run,
        bulk: Run,
        signal: CommitSignal,
        view_limits: ViewLimits,
        *,
        closings_kept: Callable[[], tuple[int, int]],
    ) -> None:
        """To be made where statements run: it opens the file. Raises WrongJournal when there is none.

        `bulk`: where those run that may take long. `closings_kept`: gives two times (wall-clock microseconds): ends of days
        before the first are not kept; now.
        """
        self._path = path
        self._run = run
        self._bulk = bulk
        self._signal = signal
        self._closings_kept = closings_kept
        self._file = OpenFile(path)
        self._looks = SharedLooks()
        self._wal = path.with_name(f"{path.name}-wal")
        self._views = ViewPool(self._view, self._grown, view_limits)

    async def bounds(self) -> Bounds:
        return await self._run(self._bounds)

    async def glance(self, wanted: Filter, most: int) -> Snapshot | None:
        file = await self._current()
        return await self._bulk(lambda: self._glance(file, wanted, most))

    def _glance(self, file: OpenFile, wanted: Filter, most: int) -> SmallSnapshot | None:
        with file.reading(file.bulk) as connection:
            head = file.snapshot_head(connection)
            states = small_snapshot(connection, wanted, most)
        return None if states is None else SmallSnapshot(file.cursor(head), states)

    async def snapshot(self, wanted: Filter) -> Snapshot:
        return await open_snapshot(self._views, wanted)

    async def _view(self) -> SqliteView:
        file = await self._current()
        version = file.version

        def cursor(connection: sqlite3.Connection) -> Cursor:
            return file.cursor(file.snapshot_head(connection))

        def newest() -> bool:
            return file is self._file and file.version == version >= 0

        try:
            return await self._bulk(lambda: SqliteView(self._path, self._bulk, cursor, newest))
        except JournalError as error:  # it may have gone while this waited, and whatever it is, one reader has no view
            raise Unavailable(f"no view of {self._path} can be begun: {error}") from error

    def _grown(self) -> bool:
        try:
            return self._wal.stat().st_size > GROWN
        except OSError:
            return False

    async def notes(self) -> dict[str, bytes]:
        return await self._run(self._notes)

    async def follow(self, cursor: Cursor) -> AsyncIterator[Commit]:
        place = await self._run(lambda: self._start(cursor))
        while True:
            self._views.expire()  # where commits follow one another without a rest, too: it is then that the WAL grows
            changed = self._signal.changed()
            # Asked before reading: a commit that slips in between is seen now, and at worst looked for once more.
            version = place.file.version
            if version != place.version:
                commit = await self._look(place, version)
                if commit is not None:
                    yield commit
                    continue
            with anyio.move_on_after(IDLE if self._signal.local else POLL):
                await changed.wait()

    async def closing_days(self) -> list[str]:
        kept_from, now = self._closings_kept()
        return days_closed(await self.notes(), kept_from, now)

    async def closings(self, day: str, wanted: Filter) -> AsyncIterator[Sequence[Closing]]:
        behind: str | None = "" if day > closings.last_day_gone(self._closings_kept()[0]) else None
        while behind is not None:
            file, last = await self._current(), behind
            behind, found = await self._bulk(lambda: self._closings(file, day, last, wanted))  # noqa: B023 - it is awaited here
            if found:
                yield found

    @staticmethod
    def _closings(file: OpenFile, day: str, behind: str, wanted: Filter) -> tuple[str | None, list[Closing]]:
        with file.reading(file.bulk) as connection:
            return closings.page(connection, day, behind, wanted)

    async def kept_from(self) -> int:
        return await self._run(self._kept_from)

    def _kept_from(self) -> int:
        file = self._open()
        with file.reading(file.connection):
            return kept_from(file.connection)

    async def between(
        self, wanted: Filter, first: int, last: int, until: Cursor, behind: Cursor | None = None
    ) -> AsyncIterator[HistorySlice]:
        file = await self._current()
        require_log((await self.bounds()).head, until)
        (position,) = until.positions
        (begin,) = (0,) if behind is None else behind.positions
        interval = Interval(wanted, first, last, position, begin)
        found = events_between(file, self._bulk, interval, self._json)
        async with contextlib.aclosing(found):
            async for slice_ in found:
                yield slice_

    async def first_changes(self, wanted: Filter, time: int, until: Cursor) -> AsyncIterator[HistorySlice]:
        file = await self._current()
        require_log((await self.bounds()).head, until)
        (position,) = until.positions
        found = first_changes(file, self._bulk, wanted, time, until=position, json=self._json)
        async with contextlib.aclosing(found):
            async for slice_ in found:
                yield slice_

    async def close(self) -> None:
        self._views.close()
        await self._run(self._file.close)

    async def _current(self) -> OpenFile:
        return self._file if self._file.stands else await self._run(self._open)

    def _open(self) -> OpenFile:
        """What stands there now. Raises Unavailable when that is no journal."""
        if not self._file.stands:
            try:
                file = OpenFile(self._path)
            except JournalError as error:
                raise Unavailable(f"{self._path} was moved, removed or replaced: {error}") from error
            self._file.close()
            self._file = file
        return self._file

    def _notes(self) -> dict[str, bytes]:
        file = self._open()
        with file.reading(file.connection):
            return dict(file.connection.execute("SELECT key, data FROM note").fetchall())

    def _bounds(self) -> Bounds:
        file = self._open()
        with file.reading(file.connection):
            oldest, head = file.bounds(file.connection)
        return Bounds(file.cursor(oldest), file.cursor(head))

    def _start(self, cursor: Cursor) -> Position:
        file = self._open()
        with file.reading(file.connection):
            oldest, head = file.bounds(file.connection)
            (baseline,) = file.connection.execute("SELECT ifnull(max(id), 0) FROM state").fetchone()
        first = Cursor(cursor.epoch, (1,))
        # Positions begin at 1, and nothing is missed before it.
        reason = Bounds(file.cursor(oldest), file.cursor(head)).gap(first if cursor.positions == (0,) else cursor)
        if reason is not None:
            raise Expired(reason)
        (position,) = cursor.positions
        return Position(
            file, max(position, 1), file.baselines.get(position, baseline), more=head - position >= ROWS_PER_READ
        )

    async def _look(self, place: Position, version: int) -> Commit | None:
        """What is new since `place`, which moves behind it; None when nothing is."""
        if place.more:  # far behind, where nobody else is likely to stand
            return await self._bulk(lambda: self._look_there(place, version, place.file.bulk))
        return await self._looks.look(
            place, version, lambda: self._run(lambda: self._look_there(place, version, place.file.connection))
        )

    def _look_there(self, place: Position, version: int, connection: sqlite3.Connection) -> Commit | None:
        with place.file.reading(connection):
            commit = self._slice(place, connection)
        if version >= 0 and not place.more:
            place.version = version
        return commit if commit.events or commit.baselines or commit.health or place.more else None

    def _slice(self, place: Position, connection: sqlite3.Connection) -> Commit:
        oldest, _ = place.file.bounds(connection)
        if place.position < oldest:
            raise Expired("expired")
        place.more = False
        events = self._events(place, connection)
        baselines = self._new_baselines(place, connection)
        beats = connection.execute(
            "SELECT beat, data FROM provider WHERE beat > ? ORDER BY beat", (place.beat,)
        ).fetchall()
        place.more = place.more or len(events) == ROWS_PER_READ
        if events:
            place.position = events[-1].position + 1
        if beats:
            place.beat = beats[-1][0]
        health = [found for _, data in beats if (found := JSON.health(data)) is not None]
        return Commit(place.file.cursor(place.position), events, baselines, health)

    def _events(self, place: Position, connection: sqlite3.Connection) -> list[Published]:
        rows = connection.execute(
            "SELECT seq, key, version, observed_at, content, data, type FROM event WHERE seq >= ? ORDER BY seq LIMIT ?",
            (place.position, ROWS_PER_READ),
        )
        return [
            Published(_key(key), version, self._json(type_, content, data), 0, seq, observed_at, type_)
            for seq, key, version, observed_at, content, data, type_ in rows
        ]

    def _new_baselines(self, place: Position, connection: sqlite3.Connection) -> list[BalanceState]:
        # A balance that has changed since is left out: its first event, which is still to come, says more.
        rows = connection.execute(
            "SELECT id, version, content, data FROM state WHERE id > ? ORDER BY id LIMIT ?",
            (place.baseline, ROWS_PER_READ),
        ).fetchall()
        place.more = place.more or len(rows) == ROWS_PER_READ
        if rows:
            place.baseline = rows[-1][0]
        return [STATE[content](data) for _, version, content, data in rows if version == 0]

    def _json(self, type_: EventType, content: str, data: bytes) -> bytes:
        if content == JSON.content_type:
            return data
        try:
            codec = codec_of(content)
            return JSON.encode(codec.event(data) if type_ == "changed" else codec.crossing(data))
        except (msgspec.DecodeError, ValueError) as error:
            raise Unwritable(f"{self._path} is damaged: an event in it cannot be read ({error})") from error


def _key(text: str) -> Key:
    """`Key.parse` for what we wrote ourselves: no validation, so that a snapshot may look at every row."""
    return Key(*text.split("/"))  # type: ignore[arg-type]
