"""A provider's tasks: one that grants, one for each request in flight, one that saves what a restart must know."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from math import inf
from typing import Protocol

import anyio
import httpx
import msgspec
from anyio.abc import TaskGroup, TaskStatus

from watcher.ledger import Verdict
from watcher.limits.budget import Budget, Slot
from watcher.limits.limiter import Limiter
from watcher.model.bulk_listing import BulkListing, Contradiction, UnreadableRow
from watcher.model.events import ProviderHealth
from watcher.model.readings import Answer
from watcher.model.targets import Target
from watcher.model.times import format_rfc3339
from watcher.poller.bulk import clear_rows_only, fingerprint, reading
from watcher.poller.connections import MOST
from watcher.poller.failure_policy import FailurePolicy
from watcher.poller.http_exchange import HttpExchange
from watcher.poller.poll_stats import PollStats
from watcher.poller.transport_errors import Unreachable
from watcher.providers.failures import Failure, Malformed, RefusedCredential
from watcher.providers.protocol import Credentials, Provider, ReadResult, Request, Response
from watcher.providers.waits import retry_after
from watcher.redaction.redactor import SECRETS
from watcher.runtime.slicing import run_in_slices
from watcher.scheduling.lane_scheduler import LaneScheduler, PollJob
from watcher.scheduling.schedule import Schedule

SAVE = 1.0
"""Seconds between two saves of the limiter's stamps, at least."""
SAVE_SCHEDULES = 60.0
"""Seconds between two saves of the learned rates."""


class AnswerSink(Protocol):
    """Where answers and small records go: the journal's `AnswerSink`, which this room does not import."""

    async def accept(self, answer: Answer) -> Verdict: ...

    async def repeat(self, answer: Answer) -> Verdict | None: ...

    def note(self, key: str, data: bytes) -> None: ...

    async def save(self, key: str, data: bytes) -> None: ...


class _Learned(msgspec.Struct, array_like=True):
    wall: int
    schedules: list[bytes]
    """In the order of the groups."""


def budget_of(provider: Provider) -> Budget:
    """The provider's limits as a budget. Raises BudgetError for limits under which no call could be made."""
    endpoints = [lane.endpoint for group in provider.groups for lane in group.lanes]
    return Budget(provider.limits, cost=provider.cost, share=provider.settings.share, endpoints=endpoints)


def schedules_of(provider: Provider, *, seed: int, now: float) -> list[Schedule[Target]]:
    """One schedule for each group, in their order."""
    settings = provider.settings
    return [
        Schedule(
            group.targets,
            seed=seed,
            now=now,
            max_interval=settings.max_interval,
            min_interval=provider.min_interval,
            name=lambda target: f"{target.family}, {target}",
        )
        for group in provider.groups
    ]


def restore_rates(schedules: Iterable[Schedule[Target]], learned: bytes, now: float, wall: int) -> None:
    """Take up what the note `schedule:NAME` says, aged by the time since. Raises ValueError for foreign bytes."""
    saved = msgspec.msgpack.decode(learned, type=_Learned)
    downtime = max(0.0, (wall - saved.wall) / 1e6)
    for schedule, data in zip(schedules, saved.schedules, strict=False):
        schedule.restore(data, downtime, now)


class Poller:
    """One provider, polled for ever.

    transport: its `Connections`; closed by whoever made it. credentials: what no reason may quote.
    wall: gives wall-clock microseconds. seed: makes pauses replayable.
    """

    def __init__(
        self,
        provider: Provider,
        transport: httpx.AsyncBaseTransport,
        intake: AnswerSink,
        *,
        credentials: Credentials,
        budget: Budget,
        schedules: Sequence[Schedule[Target]],
        wall: Callable[[], int],
        seed: int,
    ) -> None:
        self.provider = provider
        self.name = provider.name
        self.budget = budget
        self.schedules = tuple(schedules)
        self.stats = PollStats(provider.name)
        self.answered = anyio.Event()
        """Set by the first answer of any kind; `stats.refused_at_first` says which."""
        self._intake = intake
        self._exchange = HttpExchange(provider, transport, credentials, wall)
        self._limiter = Limiter(budget)
        self._lanes = LaneScheduler(provider.groups, schedules, budget)
        SECRETS.add(_values(credentials))
        longest = provider.settings.max_interval
        self._pauses = FailurePolicy(self._limiter, self._lanes, self.stats, max_interval=longest, seed=seed)
        self._wall = wall
        self._taking_in = anyio.Lock()
        """One large answer at a time: together they would have the loop for themselves."""
        self._in_flight = 0
        """Requests without an answer, and answers that the journal has not taken."""

    def restore(self, notes: Mapping[str, bytes], now: float) -> None:
        """Before `run`: what the last process knew, from the journal's notes."""
        try:
            if (stamps := notes.get(f"limiter:{self.name}")) is not None:
                self.budget.restore(stamps, now, self._wall())
        except ValueError:
            self.stats.forgot("limiter")
            self.budget.pause(now + self.budget.shortest_window(self.budget.endpoints[0]))
        try:
            if (learned := notes.get(f"schedule:{self.name}")) is not None:
                restore_rates(self.schedules, learned, now, self._wall())
        except ValueError:
            self.stats.forgot("schedule")

    def renew(self, credentials: Credentials) -> None:
        """Go on with these, at once: pauses for a refused key or used-up credits end, those after a 429 do not.

        Call it on the event loop. What left before is answered to the old ones, and pauses nothing.
        """
        self._exchange.renew(credentials)
        SECRETS.add(_values(credentials))
        self._pauses.renewed(anyio.current_time())

    def health(self, instance: str) -> ProviderHealth:
        """What the heartbeat says of this provider now."""
        now, wall = anyio.current_time(), self._wall()
        until = self.budget.paused_until(now)
        stalest = [found[1] for schedule in self.schedules if (found := schedule.stalest(now)) is not None]
        last = self.stats.last_success
        return ProviderHealth(
            provider=self.name,
            time=format_rfc3339(wall),
            instance=instance,
            watches=sum(len(schedule) for schedule in self.schedules),
            last_success=None if last is None else format_rfc3339(last),
            stalest_seconds=max(stalest, default=None),
            paused_until=None if until is None else format_rfc3339(wall + int((until - now) * 1e6)),
            budget_used=self.budget.utilization(now),
        )

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Poll for ever. Cancelled, it gives requests in flight up and notes what a restart must know."""
        await self._save_stamps()  # a process that is killed from here on leaves word that it was there
        task_status.started()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._save_for_ever)
                tasks.start_soon(self._learn_for_ever)
                await self._grant_for_ever(tasks)
        finally:
            self._intake.note(*self._stamps())
            now = anyio.current_time()
            self._note_schedules(_Learned(self._wall(), [schedule.save(now) for schedule in self.schedules]))

    async def _grant_for_ever(self, tasks: TaskGroup) -> None:
        while True:
            now = anyio.current_time()
            room = self._in_flight < MOST and not self._exchange.full
            job, when = self._lanes.next_job(now) if room else (None, inf)
            if job is None:
                await self._limiter.wait_until(when)
            else:
                self._in_flight += 1
                slot = self._limiter.grant(now, job.lane.endpoint)
                tasks.start_soon(self._poll, job, slot)

    async def _poll(self, job: PollJob, slot: Slot) -> None:
        request = self.provider.ask(job.lane, job.targets, job.schedule.cycle(slot.granted))
        try:
            response, sent, received = await self._send(request, slot)
            observed_at = self._wall()
            try:
                self._pauses.heard(job, response, received)
                found, verdict = await self._heard(request, response, (sent, received, observed_at))
            finally:
                self._exchange.let_go(response)
        except Failure as failure:
            self._fail(job, slot.granted, failure)
        except Contradiction as error:
            self._fail(job, slot.granted, Malformed(str(error)))
        else:
            self._pauses.answered(job, slot.granted, anyio.current_time(), found.missing)
            self._succeed(job, found, verdict, observed_at)
        self._in_flight -= 1
        self._limiter.wake()

    async def _send(self, request: Request, slot: Slot) -> tuple[Response, float, float]:
        sent = anyio.current_time()
        self.stats.sent()
        try:
            with self._limiter.held(slot):
                response = await self._exchange.send(request)
        finally:
            received = anyio.current_time()
            self.stats.ended(received - sent)
        return response, sent, received

    async def _heard(
        self, request: Request, response: Response, times: tuple[float, float, int]
    ) -> tuple[ReadResult, Verdict]:
        """What the answer means, and what follows. Raises Failure, Contradiction."""
        large = reading(self.provider, request, response)
        if large is not None:
            async with self._taking_in:
                return await self._take_in(request, response, large, times)
        found = self._read(request, response)
        return found, await self._hand_over(found, *times)

    def _read(self, request: Request, response: Response) -> ReadResult:
        """What the answer means. Raises Failure; each knows how long the answer wants us to wait."""
        try:
            return self.provider.read(request, response)
        except Failure as failure:
            if failure.retry_after is None:
                failure.retry_after = retry_after(response)
            raise

    async def _take_in(
        self,
        request: Request,
        response: Response,
        large: Generator[None, None, ReadResult],
        times: tuple[float, float, int],
    ) -> tuple[ReadResult, Verdict]:
        """A large listing: is it the one before? Else read and compare it, all in slices."""
        known = await run_in_slices(fingerprint(response.body))
        unread = ReadResult([], listing=request.targets[0].scope)
        verdict = await self._intake.repeat(self._answer(unread, *times, known))
        if verdict is not None:
            return unread, verdict
        found = await run_in_slices(large)
        try:
            verdict = await self._intake.accept(self._answer(found, *times, b"" if found.partial else known))
        except UnreadableRow:  # and so nothing of it was judged
            found = await run_in_slices(clear_rows_only(found))
            verdict = await self._intake.accept(self._answer(found, *times))
        if isinstance(found.readings, BulkListing):
            await run_in_slices(found.readings.clear())
        return found, verdict

    async def _hand_over(self, found: ReadResult, sent: float, received: float, observed_at: int) -> Verdict:
        if not found.readings and found.listing is None:
            return Verdict()
        return await self._intake.accept(self._answer(found, sent, received, observed_at))

    def _answer(self, found: ReadResult, sent: float, received: float, observed_at: int, known: bytes = b"") -> Answer:
        provider = self.provider
        ordering, settle = provider.ordering, provider.settle
        times = (sent, received, observed_at)
        listed = (found.listing, known, found.partial)
        return Answer(provider.name, found.readings, ordering, settle, *times, *listed, max_known=provider.max_balances)

    def _succeed(self, job: PollJob, found: ReadResult, verdict: Verdict, observed_at: int) -> None:
        now = anyio.current_time()
        self._answered(refused=False)
        self.stats.answered(verdict)
        missing, read = set(found.missing), 0
        for target in job.targets:
            if target in missing:
                job.schedule.failed(target, now)
            elif _outdated(target, found, verdict):
                job.schedule.outdated(target, now)
            else:
                read += 1
                job.schedule.report(target, now, any(target.scope.covers(key) for key in verdict.changed))
            if any(target.scope.covers(key) for key in verdict.candidates):
                job.schedule.confirm(target)
        self._lanes.answered(job, now)
        if read:
            self.stats.succeeded(observed_at)
        elif verdict.stale:
            self.stats.outdated(_asked(job), now)
        self.stats.full(_asked(job), verdict.refused, self.provider.max_balances)
        if found.remark is not None:
            self.stats.remarked(SECRETS.redacted(found.remark), _asked(job), now)

    def _fail(self, job: PollJob, granted: float, failure: Failure) -> None:
        now = anyio.current_time()
        failure.reason = SECRETS.redacted(failure.reason)  # it may quote an answer that echoes what we sent
        if not isinstance(failure, Unreachable):
            self._answered(refused=isinstance(failure, RefusedCredential))
        self.stats.failed(failure, _asked(job), now)
        self._pauses.failed(job, granted, failure, now)

    def _answered(self, *, refused: bool) -> None:
        if self.stats.refused_at_first is None:
            self.stats.refused_at_first = refused
            self.answered.set()

    async def _save_for_ever(self) -> None:
        while True:
            await anyio.sleep(SAVE)
            while not self.budget.unsaved_changes:
                await self._limiter.wait_until(inf)
            await self._save_stamps()

    async def _save_stamps(self) -> None:
        await self._intake.save(*self._stamps())
        self.budget.mark_saved()
        self._limiter.wake()

    def _stamps(self) -> tuple[str, bytes]:
        return f"limiter:{self.name}", self.budget.save(anyio.current_time(), self._wall())

    async def _learn_for_ever(self) -> None:
        while True:
            told = self.stats.answers
            await anyio.sleep(SAVE_SCHEDULES)
            if self.stats.answers > told:
                now, wall = anyio.current_time(), self._wall()
                self._note_schedules(_Learned(wall, [await run_in_slices(each.saving(now)) for each in self.schedules]))

    def _note_schedules(self, learned: _Learned) -> None:
        self._intake.note(f"schedule:{self.name}", msgspec.msgpack.encode(learned))


def _outdated(target: Target, found: ReadResult, verdict: Verdict) -> bool:
    """Whether the answer has nothing of the target but what is older than what is known."""
    if found.listing is not None:
        return bool(verdict.stale) and not verdict.accepted
    if not any(target.scope.covers(key) for key in verdict.stale):
        return False
    return all(reading.key in verdict.stale for reading in found.readings if target.scope.covers(reading.key))


def _values(credentials: Credentials) -> set[str]:
    return {value for value in (*credentials.headers.values(), *credentials.params.values()) if value}


def _asked(job: PollJob) -> str:
    first, *rest = job.targets
    return f"{first} and {len(rest)} more" if rest else str(first)
