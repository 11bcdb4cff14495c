"""A member of a fleet: what it is assigned becomes partitions that it opens and lets go, while the others go on.

What follows from an assignment decides fleet/handover.py; when a request may leave decides the lease. Nothing is let go when the
group rebalances, or does not answer: the lease bounds what we ask until the next assignment says what is lost.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Sequence
from math import inf, isfinite

import anyio
import msgspec
import structlog
from anyio.abc import TaskGroup

from watcher.app.partition_runner import PartitionRunner
from watcher.app.partitions import Partitions
from watcher.app.provider_sources import Source
from watcher.fleet.handover import RELEASE_WAIT, HandOver, Ownership
from watcher.journal import Journal, Lost
from watcher.journal.kafka import KafkaJournal
from watcher.journal.kafka.membership import CutOff, ReceivedAssignment
from watcher.model.log import Unavailable
from watcher.poller.assembly import budget_of
from watcher.runtime.task_scope import task_scope

LEAVING = 1.0
"""Seconds that leaving the group may take, once the partitions are released: both together stay within 3 s."""
LOOK = 5.0
"""Seconds between two looks of a member that owns nothing at who writes."""
AGAIN = 0.2
"""Seconds after a look that failed."""

log = structlog.get_logger()


def fleet_of(journal: Journal) -> KafkaJournal | None:
    """The journal, if those that write it are a fleet."""
    return journal if isinstance(journal, KafkaJournal) and journal.group else None


def ownership_of(instance: str, sources: Sequence[Source]) -> Ownership:
    """What a member tells of itself."""
    return Ownership(instance, *_known(sources))


def _known(sources: Sequence[Source]) -> tuple[dict[str, float], str]:
    """The weight of each provider, and the hash of all tables."""
    weights = {source.provider.name: _weight(source) for source in sources}
    tables = {source.provider.name: source.provider.settings for source in sources}
    config = hashlib.sha256(msgspec.json.encode(tables, order="deterministic", enc_hook=str)).hexdigest()[:16]
    return weights, config


def _weight(source: Source) -> float:
    """Requests a second that the limits allow."""
    budget = budget_of(source.provider)
    return max(1.0 / budget.interval(endpoint) for endpoint in budget.endpoints)


class Holding:
    """One partition that we were given, until it is let go or lost. Times are seconds of the clock of leases."""

    def __init__(self, partition: int, clock: Callable[[], float]) -> None:
        self.partition = partition
        self.ended = anyio.Event()
        self.waiting = anyio.CancelScope()
        """While others have to end before it is opened."""
        self.runner: PartitionRunner | None = None
        self._clock = clock
        self._given_at = clock()

    @property
    def unpolled_for(self) -> float:
        """Seconds for which it has been ours and has not been polled yet; 0 from then on, and once it is let go."""
        polled = self.runner is not None and self.runner.committer.lease.begins_in() <= 0
        return 0.0 if polled or self.waiting.cancel_called else self._clock() - self._given_at

    @property
    def lease_age(self) -> float | None:
        """Seconds since the last successful commit was begun; None before the first."""
        age = inf if self.runner is None else self.runner.committer.lease.age()
        return age if isfinite(age) else None

    def let_go(self) -> None:
        self.waiting.cancel()
        if self.runner is not None:
            self.runner.let_go()


class Moves(msgspec.Struct):
    """Counts since the start."""

    opened: int = 0
    let_go: int = 0
    lost: int = 0


class FleetMember:
    """One member, for the life of the process."""

    def __init__(
        self, journal: KafkaJournal, partitions: Partitions, ownership: Ownership, clock: Callable[[], float]
    ) -> None:
        """`clock`: of leases. Raises SettingsError for a name that cannot be."""
        self.moves = Moves()
        self.unowned: Sequence[str] = ()
        """Providers of our config that nobody polls, as the last assignment says."""
        self.problem: str | None = "not in the group yet"
        """Why no assignment of ours can be believed, in a line."""
        self._journal = journal
        self._partitions = partitions
        self._ownership = ownership
        self._clock = clock
        self._membership = journal.membership(ownership.claim, clock)
        self._holdings: dict[int, Holding] = {}

    @property
    def holdings(self) -> list[Holding]:
        """What we own, opened or about to be."""
        return list(self._holdings.values())

    async def run(self) -> None:
        """Until cancelled: then all is released first, and the group is left, so that the next owners wait for nothing.

        Raises Fenced, WrongJournal and Forbidden, and Exit, in groups.
        """
        async with task_scope() as grouping:
            grouping.start_soon(self._membership.run)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._look_at_others)
                    async for notice in self._membership.notices():
                        self._take(notice, tasks)
            finally:
                with anyio.move_on_after(LEAVING, shield=True):
                    await self._membership.leave()

    def reconfigure(self, sources: Sequence[Source]) -> None:
        """The config was changed. Which partitions are whose is for the group to say: it is asked, once a session at most."""
        self._ownership.reconfigured(*_known(sources), self._clock())
        if self._ownership.rejoin_at < inf:
            self._membership.rejoin()

    def _take(self, notice: ReceivedAssignment | CutOff, tasks: TaskGroup) -> None:
        if isinstance(notice, CutOff):
            # Others may have our partitions by now: the lease has ended, and the journal says so if they have.
            self.problem = "cut off from the group: it does not answer"
            log.warning("fleet.cut_off", seconds=round(self._clock() - notice.confirmed_at, 1))
            return
        assignment = notice.assignment
        steps = self._ownership.assigned(assignment, self._clock())
        self.problem, self.unowned = None, assignment.unowned
        log.info("fleet.assigned", epoch=assignment.epoch, partitions=sorted(assignment.partitions), **_changes(steps))
        if assignment.unowned:
            log.warning("fleet.unowned", providers=assignment.unowned)
        for partition in steps.let_go & self._holdings.keys():
            self._holdings[partition].let_go()
        for partition in sorted(steps.await_release | steps.fence):
            self._open(partition, tasks, await_release=partition in steps.await_release)
        tasks.start_soon(self._rejoin_when_due)

    def _open(self, partition: int, tasks: TaskGroup, *, await_release: bool) -> None:
        before = self._holdings.get(partition)
        self._holdings[partition] = holding = Holding(partition, self._clock)
        tasks.start_soon(self._hold, holding, before, await_release, tasks)

    async def _hold(self, holding: Holding, before: Holding | None, await_release: bool, tasks: TaskGroup) -> None:  # noqa: FBT001 (start_soon knows no keywords)
        """From the assignment to the end. What ends one partition alone is settled here."""
        try:
            if before is not None:
                await before.ended.wait()
            with holding.waiting:
                if await_release:
                    await self._await_release(holding.partition)
            if holding.waiting.cancel_called:
                return
            holding.runner = self._partitions.runner(holding.partition)
            self.moves.opened += 1
            await self._partitions.run(holding.runner)
            self.moves.let_go += 1
        except BaseExceptionGroup as errors:
            if not is_loss(errors):
                raise
            self._lose(holding, tasks)
        finally:
            holding.ended.set()
            if self._holdings.get(holding.partition) is holding:
                del self._holdings[holding.partition]

    async def _await_release(self, partition: int) -> None:
        """At most RELEASE_WAIT: who has not released it by then is fenced, and its grants are in doubt."""
        with anyio.move_on_after(RELEASE_WAIT):
            while True:
                try:
                    await self._journal.await_release(partition)
                except Unavailable:
                    await anyio.sleep(AGAIN)
                else:
                    return
        log.warning("fleet.not_released", partition=partition, waited=RELEASE_WAIT)

    def _lose(self, holding: Holding, tasks: TaskGroup) -> None:
        self.moves.lost += 1
        log.warning("fleet.lost", partition=holding.partition)
        if self._holdings.get(holding.partition) is holding:  # else a later assignment has given it to us again
            self._ownership.lost(holding.partition, self._clock())
            tasks.start_soon(self._rejoin_when_due)

    async def _rejoin_when_due(self) -> None:
        """Unless another assignment comes before, which says anew when."""
        if self._ownership.rejoin_at == inf:
            return
        await anyio.sleep(max(0.0, self._ownership.rejoin_at - self._clock()))
        if self._ownership.rejoin_at <= self._clock():
            self._membership.rejoin()

    async def _look_at_others(self) -> None:
        """Whoever writes meets an instance without our group in the journal. Who owns nothing has to look."""
        while True:
            await anyio.sleep(LOOK)
            if not self._holdings:
                with contextlib.suppress(Unavailable):
                    await self._journal.require_fleet(self._partitions.in_use[0])


def _changes(steps: HandOver) -> dict[str, list[int]]:
    """For the log, without what there is none of."""
    return {name: sorted(found) for name in ("let_go", "await_release", "fence") if (found := getattr(steps, name))}


def is_loss(errors: BaseExceptionGroup[BaseException]) -> bool:
    """Whether a partition ended because another member has it. Who waits for a commit then learns that there is none."""
    leaves = list(_leaves(errors))
    return any(isinstance(leaf, Lost) for leaf in leaves) and all(
        isinstance(leaf, Lost | Unavailable) for leaf in leaves
    )


def _leaves(error: BaseException) -> Iterable[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error
