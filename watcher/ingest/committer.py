"""Between the pollers and a partition's writer: judge on arrival, gather, commit in groups, survive the journal.

While one commit is in flight, readings are judged and queue up; the next commit takes all of them, up to 1,000 rows.
The queue is bounded: with the journal down, whoever has an answer waits at `accept` with it, and nothing is lost.

A slow journal may never finish a thousand rows in time. After a commit of unknown outcome the group is half as many rows,
down to one, and small records go apart from rows, one by one, in turns with them; commits that are quick let it grow
again. So whatever can be committed alone is committed.

Where several providers tell changes, one that tells more than a commit takes rests after each, for twice as long as that
took: what another tells meanwhile finds the journal free.
"""

import contextlib
import math
from collections.abc import Collection, Generator
from typing import NamedTuple

import anyio
import anyio.lowlevel
import structlog
from anyio.abc import TaskStatus

from watcher.journal import Batch, Rejected, Writer
from watcher.ledger import Ledger, Verdict
from watcher.model.events import CommitRow
from watcher.model.keys import Key
from watcher.model.log import JournalError, Unavailable
from watcher.model.readings import Answer
from watcher.redaction.safe_text import one_line
from watcher.runtime.slicing import REST, run_in_slices

DEADLINE = 8.0
"""Seconds that one commit may take; below Kafka's transaction time-out of 10."""
STOPPING = 3.0
"""Seconds that all commits together may still take once stopping has begun."""
CLOSING = 1.0
"""Seconds that giving the partition back may take."""
BACK_OFF = (0.1, 5.0)
"""Seconds between two tries to open: the first pause and the longest; each is twice the one before."""
GROUP = 1000
"""Rows in one commit at most."""
QUICK = DEADLINE / 4
"""Seconds: after a commit that took less the next one may be twice as large, and still take half of its time."""
LARGE = 64 * 1024
"""Bytes: a note that is larger, and did not fit into a commit of its own, is put off."""
PUT_OFF = 60.0
"""Seconds until it is tried again; meanwhile nobody waits for it."""

REJECTED = (60.0, 3600.0)
"""Seconds until what a journal did not take even alone is tried again: the first pause and the longest; each is twice
the one before. What it took no more of at once is tried after the longest."""
MOST_TOLD = 1000
"""Records of which it is told, and remembered, that the journal does not take them."""
LONGEST_NAME = 200
"""Characters of their keys that are told."""

log = structlog.get_logger()


class _Note(NamedTuple):
    """A small record that is not committed yet."""

    number: int
    """Of the first call of `note` that it stands for."""
    data: bytes


class _Pause(NamedTuple):
    until: float
    seconds: float


class _Rests:
    """Providers with a backlog, and until when no rows of theirs are taken."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._factor = REST

    def __bool__(self) -> bool:
        return bool(self._until)

    def resting(self, now: float) -> set[str]:
        return {provider for provider, until in self._until.items() if until > now}

    def next(self, now: float) -> float:
        """Seconds until one goes on. Those that have rested are forgotten."""
        self._until = {provider: until for provider, until in self._until.items() if until > now}
        return min(self._until.values(), default=now) - now

    def begin(self, providers: Collection[str], now: float, seconds: float) -> None:
        """After a commit that took so long."""
        self._until |= dict.fromkeys(providers, now + self._factor * seconds)

    def end(self) -> None:
        """From now on nobody rests."""
        self._until, self._factor = {}, 0.0


class Committer:
    """One partition's way into the journal. `gather` seconds pass after a commit before the next one begins."""

    def __init__(self, writer: Writer, ledger: Ledger, *, gather: float, bound: int = 1000, partition: int = 0) -> None:
        self.ledger = ledger
        self.partition = partition
        self.notes: dict[str, bytes] = {}
        """The small records as they were restored."""
        self.ready = anyio.Event()
        """Set by the first successful open."""
        self.trouble: str | None = None
        """Why the journal cannot be written at the moment, in one line."""
        self.commits = 0
        self.rows = 0
        """Rows committed."""
        self.failures = 0
        """Times that the journal could not be opened or the outcome of a commit was unknown."""
        self.rejected = 0
        """Records that the journal will not take, counted each time."""
        self.last_commit_seconds = 0.0
        self.commit_seconds = 0.0
        """The sum over all commits."""
        self._writer = writer
        self._gather = gather
        self._bound = bound
        self._open = self._ended = self._busy = False
        self._stop_by = math.inf
        self._group = self._most = GROUP
        self._told: set[str] = set()
        """Records of which it was told that the journal does not take them."""
        self._rejected: dict[Key, _Pause] = {}
        """Balances that it has not taken even alone, and until when they are left out."""
        self._widen_at = math.inf
        """When groups may be as large as ever again."""
        self._noted: dict[str, _Note] = {}
        self._notes_in_flight: dict[str, _Note] = {}
        self._notes = 0
        """Calls of `note`."""
        self._apart = False
        """Notes go without rows, one by one."""
        self._rows_next = False
        """After a note of its own."""
        self._put_off: dict[str, float] = {}
        """The key of a note → when it may be tried again."""
        self._rests = _Rests()
        self._in_flight = 0
        self._rounds = 0
        """Times that the ledger was asked for rows and told that they are committed."""
        self._opened_times = 0
        self._commit_scope: anyio.CancelScope | None = None
        self._work = anyio.Event()
        self._progress = anyio.Event()

    async def accept(self, answer: Answer) -> Verdict:
        """What the answer meant. Waits while the journal is down or `bound` rows of its provider pend."""
        verdict = None
        while verdict is None:
            while not self._open or self.ledger.waiting(answer.provider) >= self._bound:
                await self._progress.wait()
            verdict = await self._judged(self.ledger.evaluating(answer))
        return verdict

    async def repeat(self, answer: Answer) -> Verdict | None:
        """What a listing means that repeats the one before. None: not known to, so `accept` it whole."""
        return self.ledger.repeats(answer) if self._open else None

    async def _judged(self, evaluating: Generator[None, None, Verdict]) -> Verdict | None:
        """A large answer in slices, so that nobody waits long behind it. None: the memory was restored meanwhile."""
        opened = self._opened_times

        def work() -> Generator[None, None, Verdict | None]:
            while opened == self._opened_times:
                try:
                    next(evaluating)
                except StopIteration as end:
                    verdict: Verdict = end.value
                    return verdict
                finally:
                    self._work.set()
                yield
            return None

        return await run_in_slices(work())

    def note(self, key: str, data: bytes) -> None:
        """A small record (no `/` in its key) for the next commit to carry. A later one of that key replaces it."""
        self._notes += 1
        former = self._noted.get(key)
        self._noted[key] = _Note(self._notes if former is None else former.number, data)
        self._work.set()

    async def save(self, key: str, data: bytes) -> None:
        """`note`, and return once that is committed, or put off: rows that wait are not waited for.

        Raises Unavailable at the end.
        """
        self.note(key, data)
        number = self._notes
        while not self._noted_up_to(number):
            if self._ended:
                raise Unavailable("the journal was closed before a note was committed")
            await self._progress.wait()

    async def flush(self) -> None:
        """Return once everything accepted and noted before this call is committed, but for notes that are put off.

        Raises Unavailable at the end.
        """
        notes, counted = self._notes, (-1, -1, -1)
        rows = rounds = 0
        while True:
            if self._ended:
                raise Unavailable("the journal was closed before everything was committed")
            happened = (self.failures, self._opened_times, self.rejected)
            if counted != happened:  # what was in flight may pend again: count anew
                counted = happened
                rows = self.rows + self._in_flight + self.ledger.pending
                rounds = self._rounds + 2  # the one in flight, and one more for the notes of listings
            done = self.rows >= rows and self._rounds >= rounds and self._noted_up_to(notes)
            if self._open and (done or self._idle):
                return
            await self._progress.wait()

    @property
    def _idle(self) -> bool:
        return not self._busy and not self._work.is_set()

    def _noted_up_to(self, number: int) -> bool:
        waiting = (note for key, note in self._noted.items() if key not in self._put_off)
        return all(note.number > number for note in (*waiting, *self._notes_in_flight.values()))

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Open, then commit for ever. Raises Fenced, Unwritable and WrongJournal; opens again after Unavailable.

        Cancelled, it commits what pends and gives the partition back, within STOPPING + CLOSING seconds.
        """
        failure: JournalError | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._hurry_when_stopping)
            try:
                await self._serve(task_status)
            except JournalError as error:
                failure = error
            finally:
                await self._end()
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _hurry_when_stopping(self) -> None:
        # A shielded commit does not feel that we are cancelled. This task does, at once, and cuts its deadline.
        try:
            await anyio.sleep_forever()
        finally:
            self._stop_by = anyio.current_time() + STOPPING
            if self._commit_scope is not None:
                self._commit_scope.deadline = min(self._commit_scope.deadline, self._stop_by)

    async def _serve(self, task_status: TaskStatus[None]) -> None:
        await self._restore()
        task_status.started()
        try:
            while True:
                try:
                    await self._work.wait()
                    await self._commit_all()
                except Unavailable as error:
                    self._failed(error)
                    await self._restore()
        except anyio.get_cancelled_exc_class():
            await self._commit_the_last()
            raise

    async def _restore(self) -> None:
        """Open until it succeeds. What was in flight is settled by what is found committed."""
        pause, longest = BACK_OFF
        while not self._open:
            try:
                restored = await self._writer.open()
            except Unavailable as error:
                self._failed(error)
                await anyio.sleep(pause)
                pause = min(2 * pause, longest)
            else:  # no await from here on: nobody may judge between the old memory and the new one
                self.ledger.restore(restored.states, restored.notes, restored.epoch)
                self.notes = restored.notes
                self._opened()

    def _opened(self) -> None:
        if self.trouble is not None:
            log.info("journal.recovered", partition=self.partition)
        self.trouble = None
        self._open, self._in_flight = True, 0
        self._opened_times += 1
        self._work.set()  # what was in flight may pend again
        self.ready.set()
        self._advance()

    def _failed(self, error: Unavailable) -> None:
        if self.trouble is None:
            log.warning("journal.unavailable", partition=self.partition, reason=str(error))
        self.trouble = one_line(str(error), 400)  # `/readyz` shows it, and it may quote a broker
        self.failures += 1
        self._open = False

    async def _commit_all(self) -> None:
        """Commit until nothing pends, never two back to back."""
        self._work, self._busy = anyio.Event(), True
        try:
            while await self._commit() or self._rests:
                await anyio.sleep(self._gather)
                await self._rested()
        finally:
            self._busy = False
            self._advance()

    def _rows_wait(self, now: float) -> bool:
        """There are rows of providers that do not rest."""
        return bool(self.ledger.backlogs() - self._rests.resting(now))

    async def _rested(self) -> None:
        """Return once there may be something to take: a provider has rested, or something else is told."""
        now = anyio.current_time()
        rest = self._rests.next(now)
        if rest and not self._noted and not self._rows_wait(now):
            with anyio.move_on_after(rest):
                await self._work.wait()
            self._work = anyio.Event()

    async def _commit(self) -> bool:
        """One group of rows, with notes. False: there was nothing. Raises Unavailable in doubt, Fenced."""
        noted = self._notes_to_go()
        alone = self._apart and bool(noted)
        rows, listings = ([], {}) if alone else self._take()
        if rows or listings or noted:
            await self._commit_group(rows, listings, noted)
        self._rounds += not alone
        self._advance()
        return bool(rows or listings or noted)

    async def _commit_group(self, rows: list[CommitRow], listings: dict[str, bytes], noted: dict[str, _Note]) -> None:
        self._in_flight, self._notes_in_flight = len(rows), noted
        for key in noted:
            del self._noted[key]
        began = anyio.current_time()
        try:
            await self._write(Batch(rows, {**listings, **{key: note.data for key, note in noted.items()}}), began)
        except Rejected as error:
            self._reject(rows, noted, error)
            return
        except BaseException as error:
            self._take_back(noted)
            if isinstance(error, Unavailable):
                self._doubt(len(rows), noted, out_of_time=anyio.current_time() >= began + DEADLINE)
            raise
        for row in rows if self._rejected else ():
            self._rejected.pop(row.state.key, None)
        now = anyio.current_time()
        self._count(len(rows), now - began)
        self._trust(len(rows), noted)
        if self.ledger.shared:
            self._rests.begin({row.state.provider for row in rows} & self.ledger.backlogs(), now, now - began)

    def _reject(self, rows: list[CommitRow], noted: dict[str, _Note], error: Rejected) -> None:
        """Leave out what the journal will not take. Raises Unavailable when it must be opened again first.

        Where it does not say what that is, halves are tried until one record is left.
        """
        named, alone = error.records, len(rows) + len(noted) == 1
        if not named and alone:
            named = {**{str(row.state.key): str(error) for row in rows}, **dict.fromkeys(noted, str(error))}
        self._take_back({key: note for key, note in noted.items() if key not in named})
        refused = [row.state.key for row in rows if str(row.state.key) in named]
        self.ledger.rejected(refused)
        self._in_flight = 0
        self.rejected += len(named)
        for name, reason in named.items():
            self._tell_rejected(name, reason)
        if not error.records:
            if alone:
                for key in refused:
                    self._leave_out(key)
                self._most = GROUP
            else:
                self._doubt(len(rows), noted, out_of_time=False)
                self._most, self._widen_at = self._group, anyio.current_time() + REJECTED[1]
            raise Unavailable(str(error))

    def _leave_out(self, key: Key) -> None:
        first, longest = REJECTED
        former = self._rejected.get(key)
        if former is not None or len(self._rejected) < MOST_TOLD:
            pause = first if former is None else min(2 * former.seconds, longest)
            self._rejected[key] = _Pause(anyio.current_time() + pause, pause)

    def _tell_rejected(self, name: str, reason: str) -> None:
        if name not in self._told and len(self._told) < MOST_TOLD:
            self._told.add(name)
            log.error("record.rejected", partition=self.partition, key=name[:LONGEST_NAME], reason=reason)

    def _take(self) -> tuple[list[CommitRow], dict[str, bytes]]:
        """Rows for the next commit, and notes of listings, without rows that the journal lately did not take even alone."""
        now, rejected = anyio.current_time(), self._rejected
        while True:
            rows, listings = self.ledger.take(self._group, self._rests.resting(now))
            if not rejected:
                return rows, listings
            refused = [
                row.state.key for row in rows if row.state.key in rejected and rejected[row.state.key].until > now
            ]
            if not refused:
                return rows, listings
            self.ledger.rejected(refused)
            self.rejected += len(refused)

    def _notes_to_go(self) -> dict[str, _Note]:
        """All of them; apart, the smallest alone, and rows go first after each."""
        now = anyio.current_time()
        ready = {key: note for key, note in self._noted.items() if self._put_off.get(key, now) <= now}
        if not self._apart or not ready:
            return ready
        if self._rows_next and self._rows_wait(now):
            return {}
        key = min(ready, key=lambda key: len(ready[key].data))
        return {key: ready[key]}

    def _take_back(self, noted: dict[str, _Note]) -> None:
        """They were not committed, or nobody knows. What was noted meanwhile stands for both."""
        for key, note in noted.items():
            later = self._noted.get(key)
            self._noted[key] = note if later is None else _Note(note.number, later.data)
        self._notes_in_flight = {}

    def _doubt(self, rows: int, noted: dict[str, _Note], *, out_of_time: bool) -> None:
        """Less at a time from here on."""
        if rows:
            self._group = max(1, rows // 2)
        elif self._apart and out_of_time:
            until = anyio.current_time() + PUT_OFF
            self._put_off |= {key: until for key, note in noted.items() if len(note.data) > LARGE}
        self._apart = True
        self._rows_next = not rows

    def _trust(self, rows: int, noted: dict[str, _Note]) -> None:
        self._notes_in_flight = {}
        for key in noted:
            self._put_off.pop(key, None)
        if anyio.current_time() >= self._widen_at:
            self._most, self._widen_at = GROUP, math.inf
        if rows and self.last_commit_seconds < QUICK:
            self._group = min(2 * self._group, self._most)
        self._apart = self._apart and (self._group < self._most or bool(self._put_off))
        self._rows_next = not rows

    async def _write(self, batch: Batch, began: float) -> None:
        scope = anyio.CancelScope(shield=True, deadline=min(began + DEADLINE, self._stop_by))
        self._commit_scope = scope
        with scope:
            await self._writer.commit(batch)
            self.ledger.committed()  # no await between the two: memory says what the journal says
            return
        raise Unavailable("a commit got no answer in time")

    def _count(self, rows: int, seconds: float) -> None:
        self.commits += 1
        self.rows += rows
        self.last_commit_seconds = seconds
        self.commit_seconds += seconds
        self._in_flight = 0

    def _advance(self) -> None:
        """Let those look again who wait for room or for their rows."""
        progress, self._progress = self._progress, anyio.Event()
        progress.set()

    async def _commit_the_last(self) -> None:
        if self._open:
            self._rests.end()
            try:
                while await self._commit():
                    pass
            except Unavailable as error:  # nothing is lost: the next reading finds what is still untold
                self._failed(error)

    async def _end(self) -> None:
        self._open, self._ended = False, True
        self._advance()
        with anyio.move_on_after(CLOSING, shield=True), contextlib.suppress(JournalError):
            await self._writer.close()
