"""One partition while it is open: its committer, and the pollers of those that live in it, which come and go with the config."""

from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

import anyio
import msgspec

from watcher.app.day_closer import DayCloser, Keeping
from watcher.app.heritage import Heritage
from watcher.app.provider_sources import Source
from watcher.app.shared_reader import SharedReader
from watcher.fleet.handover import IN_FLIGHT_WAIT
from watcher.ingest.committer import Committer
from watcher.ingest.last_seen_notes import LastSeenNotes
from watcher.journal import Journal
from watcher.ledger import Ledger
from watcher.limits.lease import STAMPS
from watcher.model.targets import Target
from watcher.poller.assembly import budget_of, schedules_of
from watcher.poller.connections import HttpConnections
from watcher.poller.poller import Poller
from watcher.runtime.task_scope import task_scope

Beside = Callable[[Poller], Coroutine[Any, Any, None]]
BesidePartition = Callable[[Committer], Coroutine[Any, Any, None]]


class Clocks(msgspec.Struct, frozen=True):
    """The two that only `app` reads, and gives to all others."""

    wall: Callable[[], int]
    """Microseconds of the wall clock."""
    boottime: Callable[[], float]
    """Seconds that run on while the machine is suspended, where a clock does: leases are measured by it."""


class ToPoll(msgspec.Struct, frozen=True):
    """One provider that lives in a partition."""

    seed: int
    """Of its pauses."""
    source: Source
    heritage: Heritage = Heritage()


class Polling:
    """One poller at work, until it is retired or its partition ends."""

    def __init__(self, poller: Poller, transport: HttpConnections, last_seen: LastSeenNotes) -> None:
        self.poller = poller
        self._last_seen = last_seen
        self.ended = anyio.Event()
        self._transport = transport
        self._retired = anyio.Event()

    def retire(self, still_read: Collection[Target]) -> None:
        self.poller.retire(still_read)
        self._retired.set()

    async def run(self, beside: Beside) -> None:
        """`beside` runs beside the poller. Retired, it gives what is out a moment, and ends."""
        try:
            # The connections enclose the poller's tasks, since they have tasks of their own.
            async with self._transport, anyio.create_task_group() as tasks:
                tasks.start_soon(self.poller.run)
                tasks.start_soon(self._last_seen.save_forever)
                tasks.start_soon(beside, self.poller)
                await self._retired.wait()
                with anyio.move_on_after(IN_FLIGHT_WAIT):
                    await self.poller.drained()
                tasks.cancel_scope.cancel()
        finally:
            self._last_seen.save_now()
            self.ended.set()


async def nothing_beside(_: Committer) -> None:
    pass


class PartitionRunner:
    """One partition, from its opening until it is let go: its committer, and a poller for each provider that lives there."""

    def __init__(
        self, partition: int, journal: Journal, clocks: Clocks, reader: SharedReader, keeping: Keeping
    ) -> None:
        self.partition = partition
        self.committer = Committer(
            journal.writer(partition),
            Ledger(),
            gather=journal.gather,
            partition=partition,
            boottime=clocks.boottime,
        )
        self._closer = DayCloser(
            self.committer, lambda: self.pollers, reader.lend, keeping, wall=clocks.wall, boottime=clocks.boottime
        )
        self.settled = anyio.Event()
        """Set once it polls, or has ended before it could."""
        self.ended = anyio.Event()
        self._polled: dict[str, Polling] = {}
        self._begin: Callable[[Polling], None] | None = None
        """While it polls."""
        self._wall = clocks.wall
        self._opening = anyio.CancelScope()
        self._letting_go = anyio.Event()

    @property
    def polls(self) -> bool:
        """It is open, and is not being let go."""
        return self._begin is not None

    @property
    def pollers(self) -> list[Poller]:
        """Empty until it polls."""
        return [polling.poller for polling in self._polled.values()]

    def let_go(self) -> None:
        """`run` ends in order, and says so in the journal: "released". A partition that is not open yet is opened for that."""
        self._letting_go.set()
        self._opening.cancel()

    async def run(
        self,
        living_here: Callable[[], Sequence[ToPoll]],
        beside: Beside,
        beside_partition: BesidePartition = nothing_beside,
    ) -> None:
        """Open and poll, until cancelled or let go. Raises what the committer and those beside raise.

        living_here: with the keys of that moment. beside: runs beside each poller. beside_partition: runs while the partition
        is open, once for it; what it notes at its end is committed.
        It stops from the source on: first the pollers, then the committer once it has committed what they brought.
        """
        async with task_scope() as committing:
            committing.start_soon(self.committer.run)
            with self._opening:
                await self.committer.ready.wait()
            if self._letting_go.is_set():
                with anyio.move_on_after(IN_FLIGHT_WAIT):
                    # What is not open cannot be released. But no other try: it would fence whoever has been given it since.
                    await self.committer.opening_ended()
                return
            async with anyio.create_task_group() as tasks:

                def begin(polling: Polling) -> None:
                    tasks.start_soon(polling.run, beside)

                self._begin = begin
                self.poll(living_here())
                tasks.start_soon(beside_partition, self.committer)
                tasks.start_soon(self._closer.run)
                self.settled.set()
                await self._letting_go.wait()
                self._begin = None
                await self._finish_requests()
                tasks.cancel_scope.cancel()

    async def _finish_requests(self) -> None:
        """Ask nothing more, and give what is out a moment. What has no answer then counts as spent: the pollers note it."""
        self.committer.lease.end()
        with anyio.move_on_after(IN_FLIGHT_WAIT):
            for poller in self.pollers:
                await poller.drained()

    def poll(self, coming: Sequence[ToPoll]) -> None:
        """From now on these too, while it polls: else `run` asks who lives here once it does."""
        if self._begin is None:
            return
        for one in coming:
            if (name := one.source.provider.name) not in self._polled:
                transport = HttpConnections(self.committer.lease.valid)
                last_seen = LastSeenNotes(name, self.committer, self._wall)
                self._polled[name] = Polling(self._poller(one, transport), transport, last_seen)
                self._begin(self._polled[name])

    async def retire(self, still_read: Mapping[str, Collection[Target]]) -> dict[str, Poller]:
        """Provider → its targets that are read on. Those polled here ask nothing more, and have ended when this returns."""
        ending = {name: self._polled[name] for name in still_read if name in self._polled}
        for name, polling in ending.items():
            polling.retire(still_read[name])
        for name, polling in ending.items():
            await polling.ended.wait()
            del self._polled[name]
            scopes = [target.scope for target in still_read[name]]
            self.committer.ledger.forget_undecided(
                name,
                lambda key, scopes=scopes: any(scope.covers(key) for scope in scopes),  # type: ignore[misc]
            )
        return {name: polling.poller for name, polling in ending.items()}

    def _poller(self, one: ToPoll, transport: HttpConnections) -> Poller:
        source, heritage = one.source, one.heritage
        provider, now = source.provider, anyio.current_time()
        poller = Poller(
            provider,
            transport,
            self.committer,
            credentials=source.credentials(),
            budget=budget_of(provider),
            schedules=schedules_of(provider, seed=one.seed, now=now),
            wall=self._wall,
            seed=one.seed,
            former=heritage.former,
        )
        known_better = {STAMPS + provider.name} if heritage.former is not None or heritage.moved else set()
        poller.restore({key: note for key, note in self.committer.notes.items() if key not in known_better})
        if heritage.former is not None:
            for schedule in poller.schedules:
                schedule.inherit(heritage.former.schedules, now)
        if heritage.spent:
            poller.budget.carry(heritage.spent, now)
        if heritage.renewed:
            poller.renew(source.credentials())
        return poller
