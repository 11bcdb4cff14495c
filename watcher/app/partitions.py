"""The partitions that this instance has open, each with the providers that live in it.

One is opened and let go while the others go on. Without a fleet all in use are opened at once and none is let go before the end.
"""

import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import anyio
import msgspec

from watcher.app.exit_status import Exit
from watcher.app.provider_sources import Source
from watcher.fleet.handover import IN_FLIGHT_WAIT
from watcher.ingest.committer import Committer
from watcher.journal import Journal
from watcher.ledger import Ledger
from watcher.model.partitions import partition_of
from watcher.poller.assembly import budget_of, schedules_of
from watcher.poller.connections import HttpConnections
from watcher.poller.poller import Poller
from watcher.runtime.task_scope import task_scope


class Clocks(msgspec.Struct, frozen=True):
    """The two that only `app` reads, and gives to all others."""

    wall: Callable[[], int]
    """Microseconds of the wall clock."""
    boottime: Callable[[], float]
    """Seconds that run on while the machine is suspended, where a clock does: leases are measured by it."""


class PartitionRunner:
    """One partition, from its opening until it is let go: its committer, and a poller for each provider that lives there."""

    def __init__(self, partition: int, journal: Journal, clocks: Clocks) -> None:
        self.partition = partition
        self.committer = Committer(
            journal.writer(partition),
            Ledger(),
            gather=journal.gather,
            partition=partition,
            boottime=clocks.boottime,
        )
        self.pollers: Sequence[Poller] = ()
        """Empty until it polls."""
        self.settled = anyio.Event()
        """Set once it polls, or has ended before it could."""
        self._wall = clocks.wall
        self._opening = anyio.CancelScope()
        self._letting_go = anyio.Event()

    def let_go(self) -> None:
        """`run` ends in order, and says so in the journal: "released". A partition that is not open yet is opened for that."""
        self._letting_go.set()
        self._opening.cancel()

    async def run(
        self,
        sources: Callable[[], Sequence[tuple[int, Source]]],
        beside: Callable[[Poller], Coroutine[Any, Any, None]],
    ) -> None:
        """Open and poll, until cancelled or let go. Raises what the committer and `beside` raise.

        sources: who lives here, with the keys of that moment, each with the seed of its pauses.
        beside: runs beside each poller.
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
            async with contextlib.AsyncExitStack() as stack:
                # The connections enclose the pollers' tasks, since each has tasks of its own.
                self.pollers = [
                    self._poller(
                        seed, source, await stack.enter_async_context(HttpConnections(self.committer.lease.valid))
                    )
                    for seed, source in sources()
                ]
                async with anyio.create_task_group() as tasks:
                    for poller in self.pollers:
                        tasks.start_soon(poller.run)
                        tasks.start_soon(beside, poller)
                    self.settled.set()
                    await self._letting_go.wait()
                    await self._finish_requests()
                    tasks.cancel_scope.cancel()

    async def _finish_requests(self) -> None:
        """Ask nothing more, and give what is out a moment. What has no answer then counts as spent: the pollers note it."""
        self.committer.lease.end()
        with anyio.move_on_after(IN_FLIGHT_WAIT):
            for poller in self.pollers:
                await poller.drained()

    def _poller(self, seed: int, source: Source, transport: HttpConnections) -> Poller:
        provider = source.provider
        now = anyio.current_time()
        poller = Poller(
            provider,
            transport,
            self.committer,
            credentials=source.credentials(),
            budget=budget_of(provider),
            schedules=schedules_of(provider, seed=seed, now=now),
            wall=self._wall,
            seed=seed,
        )
        poller.restore(self.committer.notes)
        return poller


class Partitions:
    """All that one instance has open. `sources`: the configured providers; replaced in place when keys are read again."""

    def __init__(self, sources: Sequence[Source], journal: Journal, clocks: Clocks) -> None:
        self._sources = sources
        self._journal = journal
        self._clocks = clocks
        self._news = anyio.Event()
        self._open: dict[int, PartitionRunner] = {}
        self._refused_at_first: dict[str, bool] = {}
        """Provider → whether its first answer to this instance refused the credential."""

    @property
    def in_use(self) -> list[int]:
        """Those in which a configured provider lives; any other would cost something and commit nothing."""
        return sorted({self._home(source) for source in self._sources})

    @property
    def committers(self) -> list[Committer]:
        return [runner.committer for _, runner in sorted(self._open.items())]

    @property
    def pollers(self) -> list[Poller]:
        """In the order of the config."""
        polled = {poller.name: poller for runner in self._open.values() for poller in runner.pollers}
        return [polled[source.provider.name] for source in self._sources if source.provider.name in polled]

    def _home(self, source: Source) -> int:
        return partition_of(source.provider.name, self._journal.partitions)

    def runner(self, partition: int) -> PartitionRunner:
        """For `run`, which has to follow. From here on the partition counts as open."""
        self._open[partition] = runner = PartitionRunner(partition, self._journal, self._clocks)
        return runner

    async def run(self, runner: PartitionRunner) -> None:
        """Until it ends. Raises Fenced, Lost and other errors of the journal, and Exit, in groups."""
        try:
            await runner.run(lambda: self._living_in(runner.partition), self._polled)
        finally:
            del self._open[runner.partition]
            runner.settled.set()

    def _living_in(self, partition: int) -> list[tuple[int, Source]]:
        return [(number, source) for number, source in enumerate(self._sources) if self._home(source) == partition]

    async def news(self) -> None:
        """Return once another provider is polled, or the state of one is another. For one that waits."""
        await self._news.wait()
        self._news = anyio.Event()  # only now: what came while nobody waited is news too

    async def all_polling(self) -> None:
        """Return once all that are open poll; who is let go before that is waited for no longer."""
        for runner in list(self._open.values()):
            await runner.settled.wait()

    async def _polled(self, poller: Poller) -> None:
        """Runs beside each poller."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._judge_first_answer, poller)
            while True:
                self._news.set()
                await poller.state_changed()

    async def _judge_first_answer(self, poller: Poller) -> None:
        """End when the first answer of every configured provider refuses our credential. One among several is only an alert.

        A member of a fleet that owns some of them cannot tell: if it ended, the others would take them over and end as well.
        """
        await poller.answered.wait()
        self._refused_at_first.setdefault(poller.name, poller.stats.refused_at_first is True)
        if len(self._refused_at_first) == len(self._sources) and all(self._refused_at_first.values()):
            names = ", ".join(source.provider.name for source in self._sources)
            raise Exit(78, f"every provider refused our credentials ({names}): look at the keys they are given")
