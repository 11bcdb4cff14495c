"""The composition root: builds every object and holds the one task group."""

import contextlib
import secrets as tokens
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Literal

import anyio
import msgspec
import structlog
from anyio.abc import TaskGroup, TaskStatus

from watcher.app import journals
from watcher.app.exposed_secrets import exposed
from watcher.app.file_descriptors import descriptors_left
from watcher.app.fleet import FleetMember, fleet_of, ownership_of
from watcher.app.partitions import Clocks, Partitions
from watcher.app.provider_sources import secret_of, sources
from watcher.app.settings import Settings
from watcher.app.status_report import StatusReport
from watcher.journal import Journal, JournalOptions, Reader
from watcher.limits.windows import BudgetError
from watcher.logs import setup
from watcher.logs.repeat_filter import EVERY
from watcher.model.events import ProviderHealth
from watcher.poller.assembly import budget_of
from watcher.providers.protocol import Provider
from watcher.relay.http import auth, sockets
from watcher.relay.http.listener import Listener, divided
from watcher.relay.http.routes import WITHOUT_RELAY, HttpRoutes
from watcher.relay.server import Relay
from watcher.relay.settings import RelayTuning
from watcher.runtime.config_section import SettingsError
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
    options = JournalOptions(config.journal, config.encoding, config.retention, wall, environment, boottime)
    return plugin.open(options, config.journal_settings)


class Started(msgspec.Struct, frozen=True):
    """What a daemon reports once it serves."""

    port: int | None
    """Where it answers: the relay's, or `metrics_port` where there is no relay; None without either."""


class Daemon:
    """One instance, built from a config and not yet running. Raises SettingsError, WrongJournal."""

    def __init__(self, config: Settings, environment: Mapping[str, str], only: RunPart = None) -> None:
        self.instance = f"{socket.gethostname()}-{tokens.token_hex(3)}"
        self.config = config
        self.environment = environment
        self.only = only
        self.tokens = auth.load(config.relay, environment)
        self.sources = [] if only == "relay" else sources(config, environment)
        for source in self.sources:
            _require_possible(source.provider)
        self.journal = journal_of(config, environment)
        if only != "relay" and (fleet := fleet_of(self.journal)) is not None:
            self.instance = fleet.member() or self.instance  # a lasting name, where it has one; a relay is no member
        self.partitions = Partitions(self.sources, self.journal, Clocks(wall, boottime))
        self.member: FleetMember | None = None
        """While it runs in a fleet."""
        self.relay: Relay | None = None
        self._port: sockets.BoundPort | None = None
        self._report = StatusReport(self.sources, self.partitions, lambda: self.member, lambda: self.relay)

    async def run(self, *, task_status: TaskStatus[Started] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Raises Exit, and errors that `exits_for_known_errors` turns into one.

        It stops from the source on: first the pollers, then the journal once it has committed what they brought, then the relay.
        """
        await self._prepare_journal()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._close)
            self._bind_port(stack)  # before anything is fenced: who cannot serve ends without ending the one that does
            reading = await stack.enter_async_context(contextlib.AsyncExitStack())  # closed after the relay's tasks
            relaying = await stack.enter_async_context(task_scope())
            async with anyio.create_task_group() as tasks:
                # Writers open beside the reader: they end what a killed one left open, and a reader would wait for that.
                self._open_partitions(tasks)
                port = await self._open_relay(await self._open_reader(reading), relaying)
                await self.partitions.all_polling()
                if self.only != "relay":
                    tasks.start_soon(self._send_heartbeats)
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
        guarded = auth.Guard(listening, self.tokens).asks_for_tokens
        self._port = sockets.bind(listening, guarded=guarded, key=key)
        stack.callback(self._port.close)

    def _open_partitions(self, tasks: TaskGroup) -> None:
        """All in use, or as the fleet assigns them."""
        if self.sources and (journal := fleet_of(self.journal)) is not None:
            ownership = ownership_of(self.instance, self.sources)
            self.member = FleetMember(journal, self.partitions, ownership, boottime)
            tasks.start_soon(self.member.run)
            return
        for partition in self.partitions.in_use:
            tasks.start_soon(self.partitions.run, self.partitions.runner(partition))

    async def _prepare_journal(self) -> None:
        if self.only != "relay" and (text := await self.journal.prepare()) is not None:
            log.info("journal.ready", text=text)
        await self.journal.check()

    async def _close(self) -> None:
        with anyio.move_on_after(CLOSING, shield=True):
            await self.journal.close()

    async def _open_reader(self, stack: contextlib.AsyncExitStack) -> Reader | None:
        if self.only == "pollers":
            return None
        reader = await self.journal.reader()
        stack.push_async_callback(reader.close)
        return reader

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
            status=self._report.status(),
            room=descriptors_left(wished, len(self.sources)),
            bound=self._port,
        )
        possible = relay.listener.limits.connections
        if possible < wished:
            log.warning(
                "relay.fewer_connections", wished=wished, possible=possible, why="the limit of open files (ulimit -n)"
            )
        return relay

    def _metrics_port(self, bound: sockets.BoundPort) -> Listener:
        guard = auth.Guard(self.config.relay, self.tokens)
        return Listener(
            self.config.relay,
            HttpRoutes(WITHOUT_RELAY, guard, self._report.status()),
            tuning=RelayTuning(),
            room=descriptors_left(0, len(self.sources)),
            bound=bound,
        )

    async def _send_heartbeats(self) -> None:
        """Publish the health of each provider that we poll: at least every HEARTBEAT seconds, and soon after its state has
        become another one."""
        while True:
            await self.journal.heartbeat(self.health())
            sent = anyio.current_time()
            with anyio.move_on_after(HEARTBEAT):
                await self.partitions.news()
                await anyio.sleep_until(sent + LEAST_BETWEEN_HEARTBEATS)

    def reload_keys(self) -> None:
        """Read the keys of the providers again. A key that cannot be read is logged, and its provider keeps the one it has.

        While the journal is opened there are no pollers yet: they start with the new keys.
        """
        renewed = []
        for number, source in enumerate(self.sources):
            name = source.provider.name
            try:
                key = secret_of(name, source.provider.settings, self.environment)
            except SettingsError as error:
                log.error("key.unreadable", provider=name, reason=str(error))  # noqa: TRY400 (it says all)
                continue
            self.sources[number] = msgspec.structs.replace(source, secret=key)
            for poller in self.partitions.pollers:
                if poller.name == name:
                    poller.renew(self.sources[number].credentials())
            renewed.append(name)
        if renewed:
            log.info("keys.renewed", providers=renewed)

    def exposed(self) -> Iterator[str]:
        """A line for each key, token or balance that others could read."""
        return exposed(self.config, self.sources)

    def health(self) -> list[ProviderHealth]:
        return [poller.health(self.instance) for poller in self.partitions.pollers]


def _require_possible(provider: Provider) -> None:
    try:
        budget_of(provider)
    except BudgetError as error:
        raise SettingsError(f"[providers.{provider.name}]: {error}") from None


async def serve(config: Settings, environment: Mapping[str, str], only: RunPart) -> None:
    """`watcher run`: until a signal."""
    async with anyio.create_task_group() as tasks:
        await tasks.start(stop_on_signal, tasks.cancel_scope)
        log.info("starting", journal=config.journal, only=only or "all")
        tasks.start_soon(report_repeats)
        built = Daemon(config, environment, only)
        for text in built.exposed():
            log.warning("config.exposed", text=text)
        await tasks.start(reload_keys_on_hangup, built)
        try:
            await built.run()
        finally:
            asked = tasks.cancel_scope.cancel_called
            tasks.cancel_scope.cancel()
    if not asked:
        # A stray CancelledError of a library ends tasks silently; a daemon that does nothing must not look alive.
        raise RuntimeError("the daemon stopped working without being asked to")


async def report_repeats() -> None:
    while True:
        await anyio.sleep(EVERY)
        setup.report_repeats(wall() / 1e6)


async def reload_keys_on_hangup(built: Daemon, *, task_status: TaskStatus[None]) -> None:
    """Read the files with the keys again at each SIGHUP."""
    with anyio.open_signal_receiver(signal.SIGHUP) as received:
        task_status.started()
        async for _ in received:
            built.reload_keys()


async def stop_on_signal(scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
    """Cancel `scope` at SIGINT or SIGTERM."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        task_status.started()
        async for number in received:
            log.info("stopping", signal=signal.Signals(number).name)
            scope.cancel()
            return
