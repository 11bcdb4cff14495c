"""One partition's way into the journal: evaluate on arrival, gather, commit in groups, survive the journal.

While one commit is in flight, answers are evaluated and their changes wait; the next commit takes all of them, up to
1,000 rows. What waits is bounded: while the journal is down, whoever has an answer waits at `accept` with it, and nothing is
lost.

A slow journal may never finish 1,000 rows in time. After a commit of unknown outcome the next one is smaller: half as many
rows (group_size.py), and notes without rows (notes.py). So whatever can be committed alone is committed.

It holds the partition's lease: requests leave only while a commit that was begun lately has succeeded (limits/lease.py).
"""

import contextlib
import math
from collections.abc import Callable, Mapping

import anyio
import anyio.lowlevel
import structlog
from anyio.abc import TaskStatus

from watcher.ingest import stamps_in_doubt
from watcher.ingest.answers_under_way import AnswersUnderWay
from watcher.ingest.closing_queue import ClosingQueue
from watcher.ingest.commit_figures import CommitFigures
from watcher.ingest.commit_group import CommitGroup
from watcher.ingest.group_size import DEADLINE, GroupSize
from watcher.ingest.long_work import JudgeSearch, evaluated
from watcher.ingest.notes import NoteQueue
from watcher.ingest.provider_rests import ProviderRests
from watcher.ingest.rejections import RETRY, RejectedKeys
from watcher.journal import Batch, Rejected, Writer
from watcher.ledger import Ledger, Taken, Verdict
from watcher.limits.lease import LATE, Lease
from watcher.model.alert_index import AlertIndex
from watcher.model.log import Closed, JournalError, Unavailable
from watcher.model.readings import Answer
from watcher.redaction.safe_text import one_line
from watcher.runtime.backoff import Backoff

STOPPING = 3.0
"""Seconds that all commits together may still take once stopping has begun."""
CLOSING = 1.0
"""Seconds that giving the partition back may take."""
REOPEN = Backoff(0.1, 5.0)
"""Between two tries to open."""

log = structlog.get_logger()


class Committer:
    """One partition's way into the journal. `gather` seconds pass after a commit before the next one begins.

    boottime: the clock of leases, the same that the writer is given.
    """

    problem: str | None = None
    """Why the journal cannot be written at the moment, in one line."""
    commits = 0
    rows = 0
    """Rows committed."""
    failures = 0
    """Times that the journal could not be opened or the outcome of a commit was unknown."""
    rejected = 0
    """Records that the journal will not take, counted each time."""
    released = False
    """Whether nothing of the owner before was in doubt when we opened first."""
    _in_flight = 0
    """Rows of the commit that is under way."""
    _rounds = 0
    """Times that the ledger was asked for rows and learned that they are committed."""
    _opened_times = 0

    def __init__(
        self,
        writer: Writer,
        ledger: Ledger,
        *,
        gather: float,
        bound: int = 1000,
        partition: int = 0,
        boottime: Callable[[], float] = anyio.current_time,
    ) -> None:
        self.ledger = ledger
        self.partition = partition
        self.lease = Lease(boottime)
        self.notes: Mapping[str, bytes] = {}
        """The notes as they were restored, and since then as they were given to us."""
        self.figures = CommitFigures(partition)
        self.under_way = AnswersUnderWay()
        self.in_doubt: set[str] = set()
        """Notes with stamps of a former owner that may have asked more, in whose place nobody here has saved others."""
        self.ready = anyio.Event()
        """Set by the first successful open."""
        self._writer, self._gather, self._bound = writer, gather, bound
        self._note_queue = NoteQueue()
        self.closings = ClosingQueue(partition, self._work_came)
        self._group = GroupSize()
        self._rejections = RejectedKeys(partition)
        self._rests = ProviderRests()
        self._open = self._opening = self._ended = self._busy = False
        self._stop_by = math.inf
        self._commit_scope: anyio.CancelScope | None = None
        self._work, self._progress = anyio.Event(), anyio.Event()
        self._search = JudgeSearch(ledger)

    async def accept(self, answer: Answer) -> Verdict:
        """What the answer meant. Waits while the journal is down or `bound` rows of its provider pend."""
        verdict = None
        self.figures.detection_delays.begin(answer.times.observed_at)
        with self.under_way.counted(answer):
            while verdict is None:
                while not self._open or self.ledger.waiting(answer.provider) >= self._bound:
                    await self._progress.wait()
                evaluating = self.ledger.evaluating(answer)
                verdict = await evaluated(evaluating, lambda: self._opened_times, self._work_came)
        return verdict

    async def repeat(self, answer: Answer) -> Verdict | None:
        """The verdict on a listing that repeats the one before. None: nobody knows that it does, so `accept` it whole."""
        verdict = self.ledger.repeats(answer) if self._open else None
        if self.ledger.looking:
            self._work.set()
        return verdict

    def use_alerts(self, index: AlertIndex) -> None:
        """Judge by these from now on."""
        self.ledger.use_alerts(index, anyio.current_time())
        self._search.begin()

    def _work_came(self) -> None:
        self._work.set()

    def note(self, key: str, data: bytes) -> None:
        """A note (no `/` in its key) for the next commit. A later one of that key replaces it."""
        self._note_queue.add(key, data)
        self._work.set()

    async def save(self, key: str, data: bytes) -> None:
        """`note`, and return once that is committed, or deferred. It does not wait for rows.

        Raises Closed at the end.
        """
        self.note(key, data)
        number = self._note_queue.added
        while not self._note_queue.committed_up_to(number):
            if self._ended:
                raise Closed("the journal was closed before a note was committed")
            await self._progress.wait()

    async def flush(self) -> None:
        """Return once everything accepted and noted before this call is committed, but for notes that are deferred.

        Raises Closed at the end.
        """
        notes, counted = self._note_queue.added, (-1, -1, -1)
        rows = rounds = 0
        while True:
            if self._ended:
                raise Closed("the journal was closed before everything was committed")
            happened = (self.failures, self._opened_times, self.rejected)
            if counted != happened:  # what was in flight may pend again: count anew
                counted = happened
                rows = self.rows + self._in_flight + self.ledger.pending
                rounds = self._rounds + 2  # the one in flight, and one more for the notes of listings
            done = self.rows >= rows and self._rounds >= rounds and self._note_queue.committed_up_to(notes)
            idle = not self._busy and not self._work.is_set()
            if self._open and (done or idle):
                return
            await self._progress.wait()

    async def opening_ended(self) -> None:
        """Return once no try to open is under way: it is open, or only another try would open it."""
        while self._opening:
            await self._progress.wait()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Open, then commit for ever. Opens again after Unavailable; raises Fenced, Unwritable and WrongJournal.

        When cancelled, it commits what pends and gives the partition back, within STOPPING + CLOSING seconds: released,
        so cancel it when the pollers have ended and noted what they asked. Raises Lost as well.
        """
        failure: JournalError | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._hurry_when_stopping)
            tasks.start_soon(self._search.run, self._work_came)
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
        tries = 0
        while not self._open:
            self._opening = True
            try:
                restored = await self._writer.open()
            except Unavailable as error:
                self._failed(error)
                tries += 1
                await anyio.sleep(REOPEN.pause(tries))
            else:  # no await from here on: no answer may be evaluated between the old memory and the new one
                self.ledger.restore(restored.states, restored.notes, restored.epoch)
                self.notes = self._note_queue.over(restored.notes)
                if not self.ready.is_set():  # later on it is we who are in no doubt of ourselves
                    self.released = restored.released
                    self.in_doubt = stamps_in_doubt.of(restored)
                # Not released: an owner before us may have renewed its lease just before our fence.
                self.lease.begin(restored.fenced_at + (0.0 if restored.released else min(LATE, restored.doubt)))
                self._opened()

    def _opened(self) -> None:
        if self.problem is not None:
            log.info("journal.recovered", partition=self.partition)
        self.problem = None
        self._open, self._opening, self._in_flight = True, False, 0
        self._opened_times += 1
        self._work.set()  # what was in flight may pend again
        self._search.begin()
        self.ready.set()
        self._advance()

    def _failed(self, error: Unavailable) -> None:
        if self.problem is None:
            log.warning("journal.unavailable", partition=self.partition, reason=str(error))
        self.problem = one_line(str(error), 400)  # `/readyz` shows it, and it may quote a broker
        self.failures += 1
        self._open = self._opening = False
        self._advance()

    async def _commit_all(self) -> None:
        """Commit until nothing pends, never two back to back."""
        self._work, self._busy = anyio.Event(), True
        try:
            while await self._commit() | await self.closings.turn(self._write, self._gather) or self._rests:
                await anyio.sleep(self._gather)
                await self._rested()
        finally:
            self._busy = False
            self._advance()

    def _rows_wait(self, now: float) -> bool:
        """There are rows of providers that do not rest."""
        return bool(self.ledger.backlogs() - self._rests.resting(now))

    async def _rested(self) -> None:
        """Return once there may be something to take: a provider has rested, or something else has come."""
        now = anyio.current_time()
        if self._note_queue.ready(now) or self._rows_wait(now):
            return
        if rest := self._rests.left(now):
            with anyio.move_on_after(rest):
                await self._work.wait()
            self._work = anyio.Event()

    async def _commit(self) -> bool:
        """One group of rows, with notes. False: there was nothing. Raises Unavailable in doubt, Fenced."""
        now = anyio.current_time()
        alone = self._note_queue.alone
        notes = self._note_queue.take(now, rows_wait=alone and self._rows_wait(now))
        rows_too = not (alone and notes)
        group = CommitGroup(self._take(now) if rows_too else Taken(), notes)
        if group:
            await self._commit_group(group)
        self._rounds += rows_too
        self._advance()
        return bool(group) or (rows_too and self.ledger.looking)

    def _take(self, now: float) -> Taken:
        """For the next commit. Without balances that the journal lately did not take even alone."""
        while True:
            taken = self.ledger.take(self._group.rows, self._rests.resting(now))
            if not self._rejections:
                return taken
            left_out = [key for key in taken.keys if self._rejections.is_left_out(key, now)]
            if not left_out:
                return taken
            self.ledger.rejected(left_out)
            self.rejected += len(left_out)

    async def _commit_group(self, group: CommitGroup) -> None:
        self._in_flight = len(group.taken.rows)
        began = anyio.current_time()
        try:
            await self._write(group.batch, began)
        except Rejected as error:
            self._reject(group, error)
        except Unavailable:
            now = anyio.current_time()
            self._group.shrink(group.balances)
            self._note_queue.in_doubt(group.balances, now, out_of_time=now >= began + DEADLINE)
            raise
        except BaseException:
            self._note_queue.take_back()
            raise
        else:
            self._committed(group, began)

    def _committed(self, group: CommitGroup, began: float) -> None:
        now, rows = anyio.current_time(), group.taken.rows
        seconds = now - began
        self.commits += 1
        self.rows += len(rows)
        self._in_flight = 0
        self.in_doubt -= group.notes.keys()
        if self._rejections:
            self._rejections.forget(group.taken.keys)
        self.figures.committed(rows, group.taken.crossings, seconds, now)
        self._group.grow(group.balances, seconds, now)
        self._note_queue.committed(group.balances, reduced=self._group.reduced)
        if self.ledger.shared:
            self._rests.begin({row.state.provider for row in rows} & self.ledger.backlogs(), now, seconds)

    def _reject(self, group: CommitGroup, error: Rejected) -> None:
        """Leave out what the journal will not take. Raises Unavailable when it must be opened again first.

        Where it does not name the record, halves are tried until one is left.
        """
        named = group.refused(error)
        self._note_queue.take_back(rejected=named)
        self.ledger.rejected(keys := group.keys_of(named))
        self._in_flight = 0
        self.rejected += len(named)
        self._rejections.log(named)
        if not error.records:
            now = anyio.current_time()
            if group.alone:
                for key in keys:
                    self._rejections.leave_out(key, now)
                self._group.release()
            else:
                self._group.shrink(group.balances)
                self._group.hold(now + RETRY.longest)
                self._note_queue.in_doubt(group.balances, now, out_of_time=False)
            raise Unavailable(str(error))

    async def _write(self, batch: Batch, began: float) -> None:
        scope = anyio.CancelScope(shield=True, deadline=min(began + DEADLINE, self._stop_by))
        self._commit_scope = scope
        started = self.lease.clock()  # before its first byte leaves; its end says nothing of a fence meanwhile
        with scope:
            await self._writer.commit(batch)
            self.ledger.committed()  # no await between the two: memory says what the journal says
            self.lease.renew(started)
            return
        raise Unavailable("a commit got no answer in time")

    def _advance(self) -> None:
        """Let those look again who wait for space or for their rows."""
        progress, self._progress = self._progress, anyio.Event()
        progress.set()

    async def _commit_the_last(self) -> None:
        if self._open:
            self._rests.end()
            try:
                if self.in_doubt or self.notes.get(stamps_in_doubt.NOTE):
                    self.note(stamps_in_doubt.NOTE, stamps_in_doubt.encode(self.in_doubt))
                while await self._commit():
                    pass
                await self._release()
            except Unavailable as error:  # nothing is lost: the next reading finds it again
                self._failed(error)

    async def _release(self) -> None:
        """Say that nobody asks any more. It is not said again: who is not believed is waited for, LATE seconds.

        While the lease of the owner before us may last, that one is in doubt: what is left of it is told, and is waited for.
        """
        self.lease.end()
        in_doubt = 0.0 if self.released else self.lease.doubt()
        scope = anyio.CancelScope(shield=True, deadline=min(anyio.current_time() + DEADLINE, self._stop_by))
        self._commit_scope = scope
        with scope:
            await self._writer.release(in_doubt=in_doubt)

    async def _end(self) -> None:
        self.lease.end()
        self._open, self._ended = False, True
        self._advance()
        with anyio.move_on_after(CLOSING, shield=True), contextlib.suppress(JournalError):
            await self._writer.close()
