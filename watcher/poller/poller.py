"""A provider's tasks: one that grants, one for each request in flight, two that save what a restart must know."""

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from math import inf
from typing import Protocol

import anyio
import httpx
import msgspec
from anyio.abc import TaskGroup, TaskStatus

from watcher.ledger import Verdict
from watcher.limits.budget import Budget, Slot
from watcher.limits.lease import Unsent
from watcher.limits.limiter import Limiter
from watcher.model.bulk_listing import BulkListing, Contradiction, UnreadableRow
from watcher.model.events import ProviderHealth
from watcher.model.hints import Hint
from watcher.model.keys import Scope
from watcher.model.readings import Answer, Times
from watcher.model.targets import LISTING, Target
from watcher.model.times import format_rfc3339
from watcher.poller.bulk import LARGE, clear_rows_only, fingerprint
from watcher.poller.checkpoints import NEARLY_OVER, TOO_SHORT, Checkpoints, NoteSink
from watcher.poller.condition import JOURNAL_AWAY, LEASE_AHEAD, Condition, Moment, ProviderCondition
from watcher.poller.connections import MAX_CONNECTIONS
from watcher.poller.failure_policy import FailurePolicy
from watcher.poller.http_exchange import HttpExchange
from watcher.poller.poll_stats import PollStats
from watcher.poller.transport_errors import Unreachable
from watcher.providers.failures import Failure, Malformed, RefusedCredential
from watcher.providers.protocol import BulkProvider, Credentials, Provider, ReadResult, Request, Response
from watcher.redaction.redactor import SECRETS
from watcher.runtime.slicing import run_in_slices
from watcher.scheduling.hinted_targets import HintedTargets
from watcher.scheduling.lane_scheduler import LaneScheduler, PollJob
from watcher.scheduling.schedule import Schedule

MARKS_PER_STEP = 50
"""Half a millisecond."""


class AnswerSink(NoteSink, Protocol):
    """Where answers go: a `Committer` of the room ingest, which this room does not import."""

    problem: str | None
    """Why the journal cannot be written at the moment."""

    async def accept(self, answer: Answer) -> Verdict:
        """What the answer means. Raises Contradiction, and UnreadableRow for a row of a bulk listing."""
        ...

    async def repeat(self, answer: Answer) -> Verdict | None:
        """What a listing means that repeats the one before. None: it is not known to, so `accept` it."""
        ...


class Poller:
    """One provider, polled for ever.

    transport: its `HttpConnections`; closed by whoever made it. credentials: what no reason may quote.
    schedules: one for each of its groups. wall: gives wall-clock microseconds. seed: makes pauses replayable.
    former: the retired one that it replaces, as the config was changed: it goes on with the figures and what is known of the key.
    """

    _in_flight = 0
    """Requests without an answer, and answers that the journal has not taken."""
    _still_read: Collection[Target] | None = None
    """Once it is retired: the targets that are read on by whoever replaces it."""

    def __init__(
        self,
        provider: Provider,
        transport: httpx.AsyncBaseTransport,
        sink: AnswerSink,
        *,
        credentials: Credentials,
        budget: Budget,
        schedules: Sequence[Schedule[Target]],
        wall: Callable[[], int],
        seed: int,
        former: "Poller | None" = None,
    ) -> None:
        self.provider = provider
        self.name = provider.name
        self.budget = budget
        self.schedules = schedules
        self.stats: PollStats = PollStats(provider.name) if former is None else former.stats
        self.answered: anyio.Event = anyio.Event() if former is None else former.answered
        """Set by the first answer of any kind; `stats.refused_at_first` says which."""
        self._bulk = provider if isinstance(provider, BulkProvider) else None
        self._sink = sink
        self._exchange = HttpExchange(provider, transport, credentials, wall)
        self._limiter = Limiter(budget)
        self._lanes = LaneScheduler(provider.groups, schedules, budget)
        self.hinted = HintedTargets(provider.groups, schedules)
        SECRETS.add(_secret_values(credentials))
        policy = self._new_policy(seed)
        self.policy: FailurePolicy = policy if former is None else former.policy.go_on(policy)
        self._checkpoints = Checkpoints(self.name, self._limiter, schedules, self.stats, sink=sink, wall=wall)
        self._wall = wall
        self._reading_large = anyio.Lock()
        """One large answer at a time: several together would have the loop for themselves."""
        self._state_changed = anyio.Event()

    def _new_policy(self, seed: int) -> FailurePolicy:
        condition, longest = ProviderCondition(self.stats), self.provider.settings.max_interval
        return FailurePolicy(self._limiter, self._lanes, self.stats, condition, max_interval=longest, seed=seed)

    def restore(self, notes: Mapping[str, bytes]) -> None:
        """Before `run`: what the last process knew, from the journal's notes."""
        self._checkpoints.restore(notes)

    def renew(self, credentials: Credentials) -> None:
        """Go on with these, at once: pauses for a refused key or used-up credits end, those after a 429 do not.

        Call it on the event loop. What left before is answered to the old ones, and pauses nothing.
        """
        self._exchange.use_credentials(credentials)
        SECRETS.add(_secret_values(credentials))
        self.policy.credentials_renewed(anyio.current_time())
        self.look()

    def health(self, instance: str) -> ProviderHealth:
        """What the heartbeat says of this provider now."""
        now, wall = anyio.current_time(), self._wall()
        until = self.budget.paused_until(now)
        stalest = [found[1] for schedule in self.schedules if (found := schedule.stalest(now)) is not None]
        last = self.stats.last_success
        condition = self.look()
        return ProviderHealth(
            provider=self.name,
            time=format_rfc3339(wall),
            instance=instance,
            watches=self._watches,
            last_success=None if last is None else format_rfc3339(last),
            stalest_seconds=max(stalest, default=None),
            paused_until=None if until is None else format_rfc3339(wall + int((until - now) * 1e6)),
            budget_used=self.budget.utilization(now),
            state=condition.state,
            reason=condition.reason,
            since=condition.since,
        )

    def look(self) -> Condition:
        """How the provider is now."""
        now, before = anyio.current_time(), self.policy.condition.state
        until = self.budget.paused_until(now)
        paused = 0.0 if until is None else until - now
        condition = self.policy.condition.look(Moment(self._wall(), self._watches, paused, self._held()))
        if condition.state != before:
            self._state_changed.set()
            self._state_changed = anyio.Event()
        return condition

    async def state_changed(self) -> None:
        """Return once its state is another one."""
        await self._state_changed.wait()

    @property
    def _watches(self) -> int:
        return sum(len(schedule) for schedule in self.schedules)

    def _held(self) -> str | None:
        """Why we ask nothing, where the reason is ours."""
        if self._sink.problem is not None:
            return JOURNAL_AWAY
        return LEASE_AHEAD if self._sink.lease.begins_in() > 0 else None

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Poll for ever. Cancelled, it gives requests in flight up and notes what a restart must know."""
        await self._checkpoints.save_limiter()  # a process that is killed from here on leaves a trace
        task_status.started()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._checkpoints.save_limiter_forever)
                tasks.start_soon(self._checkpoints.note_rates_forever)
                await self._grant_forever(tasks)
        finally:
            self._checkpoints.note_all()

    def retire(self, still_read: Collection[Target]) -> None:
        """Ask nothing more. What is out is answered yet, and what that says of these targets counts."""
        self._still_read = still_read
        self._limiter.wake()

    def hint(self, hint: Hint, source: str) -> Generator[None, None, int]:
        """A source says that something may have changed: what that touches is read next, within every limit. How many targets it
        touches, with a step for each few."""
        yield from self.hinted.index()
        now, marked, moves = anyio.current_time(), 0, False
        for schedule, target in self.hinted.find(hint):
            moves |= schedule.hint(target, now, source)
            marked += 1
            if marked % MARKS_PER_STEP == 0:
                yield
        if moves:  # a flood of what is known must not keep the limiter looking
            self._limiter.wake()
        return marked

    def hint_covered(self, source: str) -> None:
        """Whatever the source covers may have changed unseen: each is hinted once, spread over a cycle."""
        now = anyio.current_time()
        for schedule in self.schedules:
            schedule.hint_covered(source, now)
        self._limiter.wake()

    def cover(self, source: str, scopes: Collection[Scope]) -> None:
        """The source tells of changes in these from now on, and of no others."""
        for schedule, targets in self.hinted.of_scopes(scopes):
            schedule.cover(source, targets)

    async def drained(self) -> None:
        """Return once nothing is in flight: no request without an answer, no answer that the journal has not taken."""
        while self._in_flight:
            await self._limiter.wait_until(inf)

    async def _grant_forever(self, tasks: TaskGroup) -> None:
        while True:
            now = anyio.current_time()
            begins = now + self._sink.lease.begins_in()
            room = self._in_flight < MAX_CONNECTIONS and not self._exchange.is_full and self._still_read is None
            job, when = self._lanes.next_job(now) if room and begins <= now else (None, inf)
            if job is None:
                await self._limiter.wait_until(begins if begins > now else when)
            elif (slot := await self._grant(job, now, tasks)) is None:
                self._lanes.unsent(job, anyio.current_time())
            else:
                self._in_flight += 1
                tasks.start_soon(self._poll, job, slot)

    async def _grant(self, job: PollJob, now: float, tasks: TaskGroup) -> Slot | None:
        """A place for it, under a lease: a commit first, where that is over, and beside it, where it is nearly over. None: not
        now any more."""
        lease = self._sink.lease
        if not lease.lasts(NEARLY_OVER):
            if lease.lasts(TOO_SHORT):
                tasks.start_soon(self._checkpoints.renew_lease)
            else:
                await self._checkpoints.renew_lease()
                now = anyio.current_time()
                if (
                    self._still_read is not None
                    or not lease.valid()
                    or self.budget.ready_at(now, job.lane.endpoint) > now
                ):
                    return None
        return self._limiter.grant(now, job.lane.endpoint)

    async def _poll(self, job: PollJob, slot: Slot) -> None:
        request = self.provider.ask(job.lane, job.targets, _age_allowed(job, slot.granted))
        try:
            response, times = await self._send(request, slot)
            try:
                self.policy.pause_as_asked(job, response.wait, times.received)
                result, verdict = await self._receive(request, response, times)
            finally:
                self._exchange.release(response)
        except Failure as failure:
            self._fail(job, slot.granted, failure)
        except Contradiction as error:
            self._fail(job, slot.granted, Malformed(str(error)))
        except Unsent:
            now = anyio.current_time()
            self.stats.unsent(_job_words(job), now)
            self._lanes.unsent(job, now)
        else:
            self.policy.answered(job, slot.granted, anyio.current_time(), result.missing)
            self._succeed(job, result, verdict, times)
        self.look()
        self._in_flight -= 1
        self._limiter.wake()

    async def _send(self, request: Request, slot: Slot) -> tuple[Response, Times]:
        sent = anyio.current_time()
        self.stats.sent()
        try:
            with self._limiter.held(slot):
                response = await self._exchange.send(request)
        finally:
            received = anyio.current_time()
            self.stats.ended(received - sent)
        return response, Times(sent, received, self._wall())

    async def _receive(self, request: Request, response: Response, times: Times) -> tuple[ReadResult, Verdict]:
        """What the answer says, and what it means to the ledger. Raises Failure, Contradiction."""
        if self._still_read is not None and not set(request.targets) & set(self._still_read):
            return ReadResult([]), Verdict()
        large = response.status == 200 and len(response.body) >= LARGE and request.targets[0].family == LISTING
        if large and self._bulk is not None:
            reading = self._bulk.read_in_slices(request, response)
            async with self._reading_large:
                return await self._receive_large(request, response, reading, times)
        result = self._read(request, response)
        return result, await self._hand_over(result, times)

    def _read(self, request: Request, response: Response) -> ReadResult:
        """What the answer says. Raises Failure; each knows the answer's status and for how long it asks us to wait."""
        try:
            result = self.provider.read(request, response)
            return result if self._still_read is None else _only_of(self._still_read, result)
        except Failure as failure:
            if failure.retry_after is None:
                failure.retry_after = response.wait
            failure.status = response.status
            raise

    async def _receive_large(
        self, request: Request, response: Response, reading: Generator[None, None, ReadResult], times: Times
    ) -> tuple[ReadResult, Verdict]:
        """A large listing: where it does not repeat the one before, it is read and compared, all in slices."""
        known = await run_in_slices(fingerprint(response.body))
        unread = ReadResult([], listing=request.targets[0].scope)
        verdict = await self._sink.repeat(self._answer(unread, times, known))
        if verdict is not None:
            return unread, verdict
        result = await run_in_slices(reading)
        try:
            verdict = await self._sink.accept(self._answer(result, times, b"" if result.partial else known))
        except UnreadableRow:  # so nothing of it was evaluated
            result = await run_in_slices(clear_rows_only(result))
            verdict = await self._sink.accept(self._answer(result, times))
        if isinstance(result.readings, BulkListing):
            await run_in_slices(result.readings.clear())
        return result, verdict

    async def _hand_over(self, result: ReadResult, times: Times) -> Verdict:
        if not result.readings and result.listing is None:
            return Verdict()
        return await self._sink.accept(self._answer(result, times))

    def _answer(self, result: ReadResult, times: Times, known: bytes = b"") -> Answer:
        provider = self.provider
        return Answer(
            provider.name,
            result.readings,
            provider.ordering,
            provider.settle,
            times,
            listing=result.listing,
            fingerprint=known,
            partial=result.partial,
            max_known=provider.max_balances,
        )

    def _succeed(self, job: PollJob, result: ReadResult, verdict: Verdict, times: Times) -> None:
        now = anyio.current_time()
        self._note_first_answer(refused=False)
        self.stats.answered(verdict)
        read = _report_targets(job, result, verdict, now)
        self._lanes.answered(job, now)
        if read:
            self.stats.succeeded(times.observed_at)
        elif verdict.stale:
            self.stats.outdated(_job_words(job), now)
        self.stats.over_capacity(_job_words(job), verdict.refused, self.provider.max_balances)
        if result.remark is not None:
            self.stats.remarked(SECRETS.redacted(result.remark), _job_words(job), now)

    def _fail(self, job: PollJob, granted: float, failure: Failure) -> None:
        now = anyio.current_time()
        failure.reason = SECRETS.redacted(failure.reason)  # it may quote an answer that echoes what we sent
        if not isinstance(failure, Unreachable):
            self._note_first_answer(refused=isinstance(failure, RefusedCredential))
        self.stats.failed(failure, _job_words(job), now)
        self.policy.failed(job, granted, failure, now)

    def _note_first_answer(self, *, refused: bool) -> None:
        if self.stats.refused_at_first is None:
            self.stats.refused_at_first = refused
            self.answered.set()


def _age_allowed(job: PollJob, granted: float) -> float:
    """Seconds that its answer may be old, where the provider keeps answers. Ordinarily as often as each target is read; where one
    is hinted the answer must be newer than that hint, and than the read before, which did not show what it is about."""
    cycle = job.schedule.cycle(granted)
    return cycle if job.hinted_since is None else max(0.0, min(cycle, granted - job.hinted_since))


def _report_targets(job: PollJob, result: ReadResult, verdict: Verdict, now: float) -> int:
    """Report to the schedule what a good answer says of each target; how many of them it says something new enough of."""
    missing, read = set(result.missing), 0
    for target in job.targets:
        if target in missing:
            job.schedule.failed(target, now)
        elif _is_outdated(target, result, verdict):
            job.schedule.outdated(target, now)
        else:
            read += 1
            job.schedule.report(target, now, any(target.scope.covers(key) for key in verdict.changed))
        if any(target.scope.covers(key) for key in verdict.candidates):
            job.schedule.confirm(target)
    return read


def _only_of(targets: Collection[Target], result: ReadResult) -> ReadResult:
    """What it says of these."""
    if result.listing is not None:  # it answers one target, which is among them
        return result
    readings = [one for one in result.readings if any(target.scope.covers(one.key) for target in targets)]
    return msgspec.structs.replace(result, readings=readings)


def _is_outdated(target: Target, result: ReadResult, verdict: Verdict) -> bool:
    """Whether all that the answer says of the target is older than what is known."""
    if result.listing is not None:
        return bool(verdict.stale) and not verdict.accepted
    if not any(target.scope.covers(key) for key in verdict.stale):
        return False
    return all(reading.key in verdict.stale for reading in result.readings if target.scope.covers(reading.key))


def _secret_values(credentials: Credentials) -> set[str]:
    return {value for value in (*credentials.headers.values(), *credentials.params.values()) if value}


def _job_words(job: PollJob) -> str:
    first, *rest = job.targets
    return f"{first} and {len(rest)} more" if rest else str(first)
