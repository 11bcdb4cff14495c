"""The partitions that this instance has open, each with the providers that live in it.

One is opened and let go while the others go on. Without a fleet all in use are open: one is let go before the end only when a
reload has taken the last provider away that lives there.
"""

from collections.abc import Callable, Iterator

import anyio
from anyio.abc import TaskGroup

from watcher.app.day_closer import Keeping
from watcher.app.exit_status import Exit
from watcher.app.heritage import Heritages
from watcher.app.partition_runner import BesidePartition, Clocks, PartitionRunner, ToPoll, nothing_beside
from watcher.app.provider_sources import Source
from watcher.app.reload import Difference, by_name, targets
from watcher.app.shared_reader import SharedReader
from watcher.ingest.committer import Committer
from watcher.journal import Journal
from watcher.ledger import Ledger
from watcher.model.alert_index import NO_ALERTS, AlertIndex
from watcher.model.partitions import partition_of
from watcher.poller.poller import Poller


class Partitions:
    """All that one instance has open. `sources`: the configured providers; replaced in place by a reload. `begun`: is told of
    each poller that begins. `keeping`: of events and closings. `beside`: runs beside each partition while it is open."""

    def __init__(
        self,
        sources: list[Source],
        journal: Journal,
        clocks: Clocks,
        begun: Callable[[Poller], None],
        *,
        reader: SharedReader,
        keeping: Keeping = Keeping(),  # noqa: B008 (frozen)
        alerts: AlertIndex = NO_ALERTS,
        beside: BesidePartition = nothing_beside,
    ) -> None:
        self._alerts = alerts
        self._sources = sources
        self._begun = begun
        self._beside = beside
        self._journal = journal
        self._clocks = clocks
        self._keeping = keeping
        self._reader = reader
        self._news = anyio.Event()
        self._open: dict[int, PartitionRunner] = {}
        self._refused_at_first: dict[str, bool] = {}
        """Provider → whether its first answer to this instance refused the credential."""
        self._heritages = Heritages()
        self._reloaded = False

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

    @property
    def polled(self) -> Iterator[tuple[Poller, Ledger]]:
        """Each poller with the ledger that it fills."""
        for runner in list(self._open.values()):
            for poller in runner.pollers:
                yield poller, runner.committer.ledger

    def _home(self, source: Source) -> int:
        return partition_of(source.provider.name, self._journal.partitions)

    def runner(self, partition: int) -> PartitionRunner:
        """For `run`, which has to follow. From here on the partition counts as open."""
        self._open[partition] = runner = PartitionRunner(
            partition, self._journal, self._clocks, self._reader, self._keeping
        )
        runner.committer.use_alerts(self._alerts)
        return runner

    def use_alerts(self, index: AlertIndex) -> None:
        """Judge by these from now on, in partitions that are opened later too."""
        self._alerts = index
        for runner in self._open.values():
            runner.committer.use_alerts(index)

    async def run(self, runner: PartitionRunner) -> None:
        """Until it ends. Raises Fenced, Lost and other errors of the journal, and Exit, in groups."""
        try:
            await runner.run(lambda: self._living_in(runner.partition), self._polled, self._beside)
        finally:
            del self._open[runner.partition]
            runner.settled.set()
            runner.ended.set()

    def _living_in(self, partition: int) -> list[ToPoll]:
        return [
            ToPoll(number, source, self._heritages.of(source.provider.name))
            for number, source in enumerate(self._sources)
            if self._home(source) == partition
        ]

    async def reconfigure(self, change: Difference) -> None:
        """Poll what is wanted from now on. Those that change or go end in order, while the others go on; which partitions are
        open stays as it is."""
        before, after = by_name(self._sources), by_name(change.wanted.sources)
        self._sources[:] = change.wanted.sources
        self._reloaded = True
        renewed = {poller.name: poller for poller in self.pollers if poller.name in change.renewed}
        for name in renewed.keys() - set(change.changed):
            renewed[name].renew(after[name].credentials())
        going = {name: targets(after[name]) if name in after else set() for name in (*change.changed, *change.removed)}
        retired: dict[str, Poller] = {}

        async def retire(runner: PartitionRunner) -> None:
            retired.update(await runner.retire(going))

        async with anyio.create_task_group() as tasks:
            for runner in self._open.values():
                tasks.start_soon(retire, runner)
        self._heritages.settle(change, before, after, retired, renewed)
        for runner in self._open.values():
            if runner.polls:
                runner.poll(self._living_in(runner.partition))
        self._heritages.forget_former()

    def open_in_use(self, tasks: TaskGroup) -> None:
        """Those that are not open yet: each is run in `tasks`."""
        for partition in self.in_use:
            if partition not in self._open:
                tasks.start_soon(self.run, self.runner(partition))

    async def let_go_of_unused(self) -> None:
        """Those in which no configured provider lives any more."""
        for runner in [runner for partition, runner in self._open.items() if partition not in self.in_use]:
            runner.let_go()
            await runner.ended.wait()

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
        self._begun(poller)
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
        if self._reloaded:  # somebody is at work on the config, and has the alerts before him
            return
        if len(self._refused_at_first) == len(self._sources) and all(self._refused_at_first.values()):
            names = ", ".join(source.provider.name for source in self._sources)
            raise Exit(78, f"every provider refused our credentials ({names}): look at the keys they are given")
