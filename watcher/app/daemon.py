"""The composition root: builds every object and holds the one task group."""

import contextlib
import secrets as tokens
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal

import anyio
import anyio.to_thread
import msgspec
import structlog
from anyio.abc import TaskGroup, TaskStatus

from watcher.app import journals
from watcher.app.alert_metrics import AlertMetrics
from watcher.app.balance_gauges import BalanceGauges
from watcher.app.day_closer import Keeping
from watcher.app.exposed_secrets import exposed
from watcher.app.file_descriptors import descriptors_left
from watcher.app.fleet import FleetMember, fleet_of, ownership_of
from watcher.app.hint_paths import HintPaths
from watcher.app.hint_report import hints_health
from watcher.app.hint_sources import HintSource
from watcher.app.partition_runner import Clocks
from watcher.app.partitions import Partitions
from watcher.app.process_tasks import call_on_hangup, report_repeats
from watcher.app.reload import Difference, Loaded, Reloads, difference, loaded, require_servable
from watcher.app.reload_log import log_refusal, log_reload
from watcher.app.settings import Settings
from watcher.app.shared_reader import SharedReader
from watcher.app.status_report import StatusReport
from watcher.app.systemd import Systemd
from watcher.app.unread_alerts import UnreadAlerts
from watcher.app.webhook_runs import Webhooks
from watcher.journal import Journal, JournalOptions, Reader, WrongJournal
from watcher.model.events import ProviderHealth
from watcher.poller.poller import Poller
from watcher.relay.http import auth, sockets
from watcher.relay.http.listener import Listener, divided
from watcher.relay.http.routes import WITHOUT_RELAY, HttpRoutes
from watcher.relay.server import Relay
from watcher.relay.settings import RelayTuning
from watcher.runtime.config_section import SettingsError
from watcher.runtime.progress import still_at
from watcher.runtime.task_scope import StartSignal, TaskScope, task_scope

HEARTBEAT = 15.0
"""Seconds between two heartbeats of a provider, at most."""
LEAST_BETWEEN_HEARTBEATS = 2.0
"""Seconds, however often states change: one that flaps is published as it is then."""
CLOSING = 2.0
"""Seconds that letting go of the journal may take."""

RunPart = Literal["pollers", "relay"] | None

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
log = structlog.get_logger()


def wall() -> int:
    """Microseconds of the wall clock. All other rooms are given this function."""
    return time.time_ns() // 1000


def boottime() -> float:
    """Seconds that run on while the machine is suspended, where a clock does: leases are measured by it."""
    return time.clock_gettime(_BOOTTIME)


def journal_of(config: Settings, environment: Mapping[str, str]) -> Journal:
    """The journal that the config names. Raises WrongJournal."""
    plugin = journals.plugin_of(config.journal, journals.known())
    options = JournalOptions(
        config.journal, config.encoding, config.retention, wall, environment, boottime, config.checkpoint_seconds
    )
    return plugin.open(options, config.journal_settings)


class Started(msgspec.Struct, frozen=True):
    """What a daemon reports once it serves."""

    port: int | None
    """Where it answers: the relay's, or `metrics_port` where there is no relay; None without either."""


class Daemon:
    """One instance, built from a config and not yet running. Raises SettingsError, WrongJournal.

    load: reads the config file anew, for a reload. Without one a reload reads keys and tokens alone. reloading: entered for as
    long as a reload lasts.
    """

    def __init__(
        self,
        config: Settings,
        environment: Mapping[str, str],
        only: RunPart = None,
        load: Callable[[], Settings] | None = None,
        reloading: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self.instance = f"{socket.gethostname()}-{tokens.token_hex(3)}"
        self.config = config
        self.environment = environment
        self.only = only
        self.reloads = Reloads(wall() / 1e6)
        self._load = load or (lambda: self.config)
        self._reloading = reloading
        self._reload_wanted = anyio.Event()
        now = loaded(config, environment, polls=only != "relay")
        self.sources, self.tokens, self.watches = [*now.sources], now.tokens, now.watches
        self.journal = journal_of(config, environment)
        if only != "relay" and (fleet := fleet_of(self.journal)) is not None:
            self.instance = fleet.member() or self.instance  # a lasting name, where it has one; a relay is no member
        self.reader = SharedReader(self.journal.reader)
        self.webhooks = Webhooks(self.reader.get, self.journal.partitions, wall)
        self.webhooks.use(now.webhooks, now.watches)
        self.partitions = self._all_partitions(now)
        self.hints = self._hint_paths(now.hints)
        self.gauges = self._balance_gauges()
        self.unread = UnreadAlerts(config.alerts, self.watches, wall)
        self.member: FleetMember | None = None
        """While it runs in a fleet."""
        self.relay: Relay | None = None
        self._port: sockets.BoundPort | None = None
        self._guard = auth.Guard(config.relay, self.tokens)
        self.report = self._status_report()

    def _all_partitions(self, now: Loaded) -> Partitions:
        return Partitions(
            self.sources,
            self.journal,
            Clocks(wall, boottime),
            self._begun,
            reader=self.reader,
            keeping=Keeping.of(self.config),
            alerts=now.alerts,
            beside=self.webhooks.run,
        )

    def _hint_paths(self, sources: Sequence[HintSource]) -> HintPaths:
        polls = self.only != "relay"
        paths = HintPaths(lambda: self.watches, self.partitions, self.journal.hint_exchange(), wall, polls=polls)
        paths.use(sources, self._senders)
        return paths

    @property
    def _senders(self) -> frozenset[str]:
        return frozenset() if self.tokens is None else self.tokens.senders

    def _balance_gauges(self) -> BalanceGauges:
        return BalanceGauges(
            lambda: 0 if self.only == "relay" else self.config.balance_gauges,
            lambda: [committer.ledger for committer in self.partitions.committers],
            lambda: self.watches,
        )

    def _begun(self, poller: Poller) -> None:
        self.hints.begun(poller)

    def _status_report(self) -> StatusReport:
        return StatusReport(
            self.sources,
            self.partitions,
            lambda: self.member,
            lambda: self.relay,
            gauges=self.gauges,
            alerts=AlertMetrics(lambda: self.config.alerts, lambda: self.partitions.committers, self.unread.counts),
            reloads=self.reloads,
            hints=self.hints.router.figures.values,
            webhooks=self.webhooks.figures_now,
            journal=self.config.journal.partition(":")[0],
        )

    async def run(self, *, task_status: TaskStatus[Started] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Raises Exit, and errors that `exits_for_known_errors` turns into one.

        It stops from the source on: first the pollers, then the journal once it has committed what they brought, then the relay.
        """
        await self._prepare_journal()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(_close, self.journal.close)
            stack.push_async_callback(_close, self.hints.close)
            self._bind_port(stack)  # before anything is fenced: who cannot serve ends without ending the one that does
            stack.push_async_callback(_close, self.reader.close)  # after the tasks of the relay and of partitions
            relaying = await stack.enter_async_context(task_scope())
            async with anyio.create_task_group() as tasks:
                with still_at("opening the journal", tasks):
                    # Writers open beside the reader: they end what a killed one left open, and a reader would wait for that.
                    self._open_partitions(tasks)
                    tasks.start_soon(self._reload_when_wanted, tasks)
                    tasks.start_soon(self.hints.run)
                    port = await self._open_relay(await self._open_reader(), relaying)
                    await self.partitions.all_polling()
                if self.only != "relay":
                    tasks.start_soon(self._send_heartbeats)
                    tasks.start_soon(self.gauges.run)
                log.info("started", instance=self.instance, port=port, journal=self.config.journal)
                task_status.started(Started(port))
                await anyio.sleep_forever()

    def _bind_port(self, stack: contextlib.AsyncExitStack) -> None:
        """The relay's, or `metrics_port` where there is no relay."""
        key, listening, wished = "[relay] port", self.config.relay, self.config.relay.max_connections
        if self.only == "pollers":
            if self.config.metrics_port is None:
                return
            wished = 0
            key, listening = "metrics_port", msgspec.structs.replace(listening, port=self.config.metrics_port)
        divided(descriptors_left(wished, len(self.sources)), listening.max_connections)
        self._port = sockets.bind(listening, guarded=self._guard.asks_for_tokens, key=key)
        stack.callback(self._port.close)

    def _open_partitions(self, tasks: TaskGroup) -> None:
        """All in use, or as the fleet assigns them."""
        if self.sources and (journal := fleet_of(self.journal)) is not None:
            ownership = ownership_of(self.instance, self.sources)
            self.member = FleetMember(journal, self.partitions, ownership, boottime)
            tasks.start_soon(self.member.run)
            return
        self.partitions.open_in_use(tasks)

    async def _prepare_journal(self) -> None:
        if self.only != "relay" and (text := await self.journal.prepare()) is not None:
            log.info("journal.ready", text=text)
        await self.journal.check()

    async def _open_reader(self) -> Reader | None:
        """For the relay. Without one the reader is opened by whoever needs it."""
        return None if self.only == "pollers" else await self.reader.get()

    async def _open_relay(self, reader: Reader | None, relaying: TaskScope) -> int | None:
        if self._port is None:
            return None
        start = StartSignal[int]()
        serving: Listener | Relay
        if reader is None:
            serving = self._metrics_port(self._port)
        else:
            self.relay = serving = self._relay(reader)
        relaying.start_soon(lambda: serving.run(task_status=start))
        return await start.value()

    def _relay(self, reader: Reader) -> Relay:
        wished = self.config.relay.max_connections
        relay = Relay(
            self.config.relay,
            reader,
            tokens=self.tokens,
            wall=wall,
            status=self.report.status(),
            room=descriptors_left(wished, len(self.sources)),
            bound=self._port,
            watches=lambda: self.watches,
            routes=self.hints.routes,
        )
        possible = relay.listener.limits.connections
        if possible < wished:
            log.warning(
                "relay.fewer_connections", wished=wished, possible=possible, why="the limit of open files (ulimit -n)"
            )
        return relay

    def _metrics_port(self, bound: sockets.BoundPort) -> Listener:
        return Listener(
            self.config.relay,
            HttpRoutes({**WITHOUT_RELAY, **self.hints.routes}, self._guard, self.report.status()),
            tuning=RelayTuning(),
            room=descriptors_left(0, len(self.sources)),
            bound=bound,
        )

    async def _send_heartbeats(self) -> None:
        """Publish the health of each provider that we poll: at least every HEARTBEAT seconds, and soon after its state has
        become another one."""
        while True:
            await self.unread.look(self.partitions.pollers)
            await self.journal.heartbeat(self.health())
            sent = anyio.current_time()
            with anyio.move_on_after(HEARTBEAT):
                await self.partitions.news()
                await anyio.sleep_until(sent + LEAST_BETWEEN_HEARTBEATS)

    def reload(self) -> None:
        """Read config, keys and tokens anew, soon: once what is being applied is applied. Several wishes meanwhile are one."""
        self._reload_wanted.set()

    async def _reload_when_wanted(self, tasks: TaskGroup) -> None:
        """One at a time. While a partition is being opened too: it then polls what is wanted by then."""
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted = anyio.Event()
            with self._reloading():
                await self._reload_once(tasks)

    async def _reload_once(self, tasks: TaskGroup) -> None:
        try:
            change = await self._read_anew()
        except (SettingsError, WrongJournal) as error:
            self.reloads.refused()
            log_refusal(error)
            return
        except Exception:  # a bug in reading, of a plug-in's too: it must not end what runs well
            self.reloads.refused()
            log.exception("config.reloaded", result="refused", reason="a bug: report it", changed="nothing")
            return
        known = set(self.exposed())
        await self._apply(change, tasks)
        for text in set(self.exposed()) - known:
            log.warning("config.exposed", text=text)
        self.reloads.succeeded(change, wall() / 1e6)
        log_reload(change)

    async def _read_anew(self) -> Difference:
        """Off the loop, since a large config takes seconds to read. Raises SettingsError and WrongJournal: nothing has changed."""
        config, change = await anyio.to_thread.run_sync(self._difference_anew, abandon_on_cancel=True)
        if change.needs_restart:  # what `check` would refuse is refused, although it would not be applied
            journal = journal_of(config, self.environment)
            if self.only != "relay" and (fleet := fleet_of(journal)) is not None:
                fleet.member()
            await journal.close()
        return change

    def _difference_anew(self) -> tuple[Settings, Difference]:
        """What the file says, and what of it is new."""
        new = loaded(self._load(), self.environment, polls=self.only != "relay")
        if self._port is not None:
            require_servable(new)
        return new.config, difference(
            Loaded(
                self.config,
                self.sources,
                self.tokens,
                self.watches,
                self.hints.configured,
                webhooks=self.webhooks.configured,
            ),
            new,
        )

    async def _apply(self, change: Difference, tasks: TaskGroup) -> None:
        self.config, self.tokens, self.watches = change.wanted.config, change.wanted.tokens, change.wanted.watches
        self._guard.use(self.config.relay, self.tokens)
        if self.relay is not None:
            self.relay.use_tokens(self.config.relay, self.tokens)
            self.relay.watches_changed()
        if change.judges:
            self.partitions.use_alerts(change.wanted.alerts)
        self.unread.use(self.config.alerts, self.watches)
        await self.partitions.reconfigure(change)
        self.hints.use(change.wanted.hints, self._senders)
        self.webhooks.use(change.wanted.webhooks, self.watches)
        self.report.watch(self.sources)
        if self.member is not None:
            self.member.reconfigure(self.sources)
        elif self.sources:
            await self.partitions.let_go_of_unused()
            self.partitions.open_in_use(tasks)

    def exposed(self) -> Iterator[str]:
        """A line for each key, token or balance that others could read."""
        return exposed(self.config, self.sources, self.hints.configured, self.webhooks.configured)

    def health(self) -> list[ProviderHealth]:
        """What is heard of each provider that is polled here."""
        figures, now = self.hints.router.figures, anyio.current_time()
        return [
            msgspec.structs.replace(
                poller.health(self.instance),
                hints=hints_health(poller.provider, figures, poller.schedules, now),
                unread=self.unread.of(poller.name),
            )
            for poller in self.partitions.pollers
        ]


async def _close(close: Callable[[], Awaitable[None]]) -> None:
    """While everything is cancelled too, for CLOSING seconds at most."""
    with anyio.move_on_after(CLOSING, shield=True):
        await close()


async def serve(config: Settings, environment: Mapping[str, str], only: RunPart, load: Callable[[], Settings]) -> None:
    """`watcher run`: until a signal. `load` reads the config anew, at SIGHUP."""
    async with anyio.create_task_group() as tasks:
        await tasks.start(stop_on_signal, tasks.cancel_scope)
        log.info("starting", journal=config.journal, only=only or "all")
        tasks.start_soon(report_repeats, wall)
        systemd, serves = Systemd(environment), StartSignal[Started]()
        built = Daemon(config, environment, only, load, systemd.reloading)
        for text in built.exposed():
            log.warning("config.exposed", text=text)
        tasks.start_soon(systemd.run, serves.value, built.report.line)
        await tasks.start(call_on_hangup, built.reload)
        try:
            await built.run(task_status=serves)
        finally:
            asked = tasks.cancel_scope.cancel_called
            tasks.cancel_scope.cancel()
    if not asked:
        # A stray CancelledError of a library ends tasks silently; a daemon that does nothing must not look alive.
        raise RuntimeError("the daemon stopped working without being asked to")


async def stop_on_signal(scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
    """Cancel `scope` at SIGINT or SIGTERM."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        task_status.started()
        async for number in received:
            log.info("stopping", signal=signal.Signals(number).name)
            scope.cancel()
            return
