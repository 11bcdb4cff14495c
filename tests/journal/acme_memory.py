"""A journal of somebody else's: one partition, in memory, for `journal = "acme-memory://NAME"`.

Everything that it needs of ours it imports from the faces that any package may use. What it keeps ends with the process.
"""

import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import anyio
import msgspec

from watcher.journal import (
    Batch,
    Fenced,
    JournalOptions,
    JournalPlugin,
    PrivateFile,
    Reader,
    Restored,
    Writer,
    first_changes,
)
from watcher.journal.record_limits import MAX_RECORD_BYTES, UNPARSABLE, refuse_unfit, too_large
from watcher.journal.views import ViewLimits, ViewPool, open_snapshot
from watcher.model.alerts import Crossing
from watcher.model.closed_days import days_closed
from watcher.model.events import JSON, BalanceChanged, BalanceState, ProviderHealth
from watcher.model.filters import FilterMatcher
from watcher.model.keys import Filter, Key
from watcher.model.log import Bounds, Commit, Cursor, Expired, Published, SmallSnapshot, Snapshot, Unavailable
from watcher.model.past import Closing, HistorySlice
from watcher.model.times import parse_rfc3339


class Log:
    """What is committed: by name, for as long as the process lives."""

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(8)
        self.owner = ""
        self.released = True
        self.states: dict[Key, BalanceState] = {}
        self.notes: dict[str, bytes] = {}
        self.commits: list[Commit] = []
        self.kept_from = 0
        self.closings: dict[tuple[str, Key], Closing] = {}
        self.changed = anyio.Event()

    @property
    def head(self) -> Cursor:
        return self.commits[-1].cursor if self.commits else Cursor(self.epoch, (0,))

    def append(self, commit: Commit) -> None:
        self.commits.append(commit)
        changed, self.changed = self.changed, anyio.Event()
        changed.set()


LOGS: dict[str, Log] = {}


class MemoryWriter:
    def __init__(self, log: Log, boottime: Callable[[], float]) -> None:
        self._log = log
        self._boottime = boottime
        self._token = secrets.token_hex(8)
        self._opened = False

    async def open(self) -> Restored:
        if self._opened and self._log.owner != self._token:
            raise Fenced("another instance writes this log now")
        settled = self._log.released or self._log.owner == self._token
        self._opened, self._log.owner, self._log.released = True, self._token, False
        states, notes = list(self._log.states.values()), dict(self._log.notes)
        return Restored(states, notes, self._log.epoch, self._boottime(), settled)

    def _require_owner(self) -> None:
        if self._log.owner != self._token:
            raise Fenced("another instance writes this log now")

    async def commit(self, batch: Batch) -> None:
        self._require_owner()
        refuse_unfit({str(key): why for key, record in _records(batch) if (why := _unfit(key, record)) is not None})
        (first,) = self._log.head.positions
        changes = (row.event for row in batch.rows if row.event is not None)
        events = [_published(one, position) for position, one in enumerate((*changes, *batch.crossings), first)]
        baselines = [row.state for row in batch.rows if row.event is None]
        self._log.states.update((row.state.key, row.state) for row in batch.rows)
        self._log.notes.update(batch.notes)
        self._log.closings.update(((one.day, one.balance.key), one) for one in batch.closings)
        self._log.append(Commit(Cursor(self._log.epoch, (first + len(events),)), events, baselines))

    async def release(self, *, in_doubt: float = 0.0) -> None:
        self._require_owner()
        self._log.released = not in_doubt

    async def close(self) -> None:
        pass


def _records(batch: Batch) -> Iterator[tuple[Key, msgspec.Struct]]:
    for row in batch.rows:
        yield from ((row.state.key, record) for record in (row.state, row.event) if record is not None)
    yield from ((crossing.key, crossing) for crossing in batch.crossings)
    yield from ((closing.balance.key, closing) for closing in batch.closings)


def _unfit(key: Key, record: msgspec.Struct) -> str | None:
    if (size := len(msgspec.json.encode(record))) > MAX_RECORD_BYTES:
        return too_large(size)
    return None if Key.parsable(str(key)) else UNPARSABLE


def _published(event: BalanceChanged | Crossing, position: int) -> Published:
    at, what = parse_rfc3339(event.observed_at), "crossed" if isinstance(event, Crossing) else "changed"
    return Published(event.key, event.version, JSON.encode(event), 0, position, at, what)


class StateCopy:
    """The states of one moment."""

    def __init__(self, log: Log) -> None:
        self.cursor = log.head
        self._log = log
        self._commits = len(log.commits)
        self._states = list(log.states.values())

    def newest(self) -> bool:
        return len(self._log.commits) == self._commits

    def end(self) -> None:
        self._states = []

    async def count(self, wanted: Filter) -> int:
        return sum(1 for _ in self._matching(wanted))

    async def page(self, wanted: Filter, behind: int, size: int) -> tuple[int, Sequence[BalanceState]]:
        return behind + size, list(self._matching(wanted))[behind : behind + size]

    def _matching(self, wanted: Filter) -> Iterator[BalanceState]:
        matcher = FilterMatcher.of(wanted)
        return (state for state in self._states if matcher.matches(state.key))


class MemoryReader:
    def __init__(self, log: Log, view_limits: ViewLimits) -> None:
        self._log = log
        self._views = ViewPool(self._copy, limits=view_limits)

    async def _copy(self) -> StateCopy:
        return StateCopy(self._log)

    async def bounds(self) -> Bounds:
        return Bounds(Cursor(self._log.epoch, (0,)), self._log.head)

    async def glance(self, wanted: Filter, most: int) -> Snapshot | None:
        copy = StateCopy(self._log)
        _, states = await copy.page(wanted, 0, most + 1)
        return SmallSnapshot(copy.cursor, list(states)) if len(states) <= most else None

    async def snapshot(self, wanted: Filter) -> Snapshot:
        return await open_snapshot(self._views, wanted)

    async def notes(self) -> dict[str, bytes]:
        return dict(self._log.notes)

    async def follow(self, cursor: Cursor) -> AsyncIterator[Commit]:
        log = self._log
        if (reason := (await self.bounds()).gap(cursor)) is not None:
            raise Expired(reason)
        (position,) = cursor.positions
        number = len(log.commits)
        while number and not (
            log.commits[number - 1].events and log.commits[number - 1].cursor.positions[0] <= position
        ):
            number -= 1  # what came at this place without events may be new
        while True:
            self._views.expire()
            if log.epoch != cursor.epoch:
                raise Unavailable("a new log was begun")
            changed = log.changed
            for commit in log.commits[number:]:
                number += 1
                yield _behind(commit, position)
            with anyio.move_on_after(1.0):
                await changed.wait()

    async def closing_days(self) -> list[str]:
        return days_closed(self._log.notes, 0, time.time_ns() // 1000)

    async def closings(self, day: str, wanted: Filter) -> AsyncIterator[Sequence[Closing]]:
        matcher = FilterMatcher.of(wanted)
        yield [one for (of, key), one in self._log.closings.items() if of == day and matcher.matches(key)]

    async def kept_from(self) -> int:
        return self._log.kept_from

    async def between(
        self, wanted: Filter, first: int, last: int, until: Cursor, behind: Cursor | None = None
    ) -> AsyncIterator[HistorySlice]:
        if (reason := Bounds(self._log.head, self._log.head).gap(until)) in ("epoch_changed", "ahead"):
            raise Expired(reason)
        matcher, (end,) = FilterMatcher.of(wanted), until.positions
        (begin,) = (0,) if behind is None else behind.positions
        log = [event for commit in self._log.commits for event in commit.events if begin <= event.position < end]
        inside = [event for event in log if first <= event.observed_at <= last and matcher.matches(event.key)]
        yield HistorySlice(inside, len(log), len(log))

    def first_changes(self, wanted: Filter, time: int, until: Cursor) -> AsyncIterator[HistorySlice]:
        return first_changes(self.between(wanted, time + 1, 2**62, until))

    async def close(self) -> None:
        self._views.close()


def _behind(commit: Commit, position: int) -> Commit:
    return msgspec.structs.replace(commit, events=[event for event in commit.events if event.position >= position])


class MemoryJournal:
    partitions = 1
    gather = 0.0
    path = None

    def __init__(
        self,
        log: Log,
        view_limits: ViewLimits = ViewLimits(),  # noqa: B008 (frozen)
        boottime: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._log = log
        self._boottime = boottime
        self._view_limits = view_limits

    def writer(self, partition: int) -> Writer:
        assert partition == 0
        return MemoryWriter(self._log, self._boottime)

    async def reader(self) -> Reader:
        return MemoryReader(self._log, self._view_limits)

    async def heartbeat(self, health: Sequence[ProviderHealth]) -> None:
        self._log.append(Commit(self._log.head, health=list(health)))

    async def released(self) -> bool:
        return self._log.released

    async def swap_note(self, key: str, before: bytes | None, after: bytes) -> bool:
        if self._log.notes.get(key) != before:
            return False
        self._log.notes[key] = after
        return True

    def hint_exchange(self) -> None:
        pass

    async def prepare(self) -> str:
        return await self.init()

    async def init(self, *, new_log: bool = False) -> str:
        if new_log:
            gone = [event.observed_at for commit in self._log.commits for event in commit.events]
            self._log.kept_from = max(self._log.kept_from, *(time + 1 for time in gone), 0)
            self._log.epoch, self._log.owner, self._log.commits = secrets.token_hex(8), "", []
        return f"the log {self._log.epoch} is in memory: {len(self._log.states)} balances"

    async def check(self) -> None:
        pass

    async def close(self) -> None:
        pass


class MemoryPlugin:
    Settings: type[msgspec.Struct] | None = None
    interface = 2
    example = "acme-memory://NAME"

    def check(self, _url: str, _settings: None) -> None:
        pass

    def open(self, options: JournalOptions, _settings: None) -> MemoryJournal:
        return MemoryJournal(LOGS.setdefault(options.url, Log()), boottime=options.boottime)

    def private_files(self, _url: str, _settings: None) -> Iterator[PrivateFile]:
        yield from ()


PLUGIN: JournalPlugin = MemoryPlugin()
