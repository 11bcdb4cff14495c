"""The sources of hints that the config names: what each is asked about, and the sockets of those that have one.

They run beside the pollers, and a poller needs none of them: whatever fails here is told, tried again, and ends nothing else.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

import anyio
import msgspec
import structlog
from anyio.abc import TaskGroup

from watcher.app.hint_router import RESTARTS, HintRouter
from watcher.app.settings import Settings
from watcher.hints import settings as hint_settings
from watcher.hints.channel import Channel, WatchedScope
from watcher.hints.ethereum import EthereumChannel
from watcher.hints.figures import SourceFigures
from watcher.hints.settings import EthereumHints, HintSettings, SolanaHints, TokenkitHints
from watcher.hints.socket_source import SocketSource
from watcher.hints.solana import SolanaChannel
from watcher.hints.starknet import StarknetChannel
from watcher.ledger import Ledger
from watcher.model.addresses import SOLANA, STARKNET
from watcher.model.keys import UNKNOWN_MINT
from watcher.poller.poller import Poller
from watcher.providers.helius import HeliusSettings
from watcher.providers.protocol import Provider
from watcher.redaction.secret import Secret
from watcher.runtime.config_section import Mistakes
from watcher.runtime.slicing import run_in_slices

LOOK = 20.0
"""Seconds between two looks at what is watched: listings name other tokens, and partitions come and go."""
SCOPES_PER_STEP = 100

log = structlog.get_logger()


class HintSource(msgspec.Struct, frozen=True):
    """One `[[hints]]`, with its address or what its webhooks are signed with."""

    table: HintSettings
    secret: Secret

    @property
    def name(self) -> str:
        return self.table.source

    @property
    def chain(self) -> str:
        """The one that it tells of."""
        match self.table:
            case EthereumHints(chain=chain):
                return chain
            case SolanaHints():
                return SOLANA
        return STARKNET


def hint_sources(config: Settings, environment: Mapping[str, str], *, polls: bool) -> tuple[HintSource, ...]:
    """Those of the config; for a process that polls nothing the webhooks alone. Raises SettingsError."""
    found, mistakes = [], Mistakes()
    for table in config.hints:
        if polls or isinstance(table, TokenkitHints):
            with mistakes.gathered():
                found.append(HintSource(table, hint_settings.secret_of(table, environment)))
    mistakes.raise_any()
    return tuple(found)


def webhook_secrets(sources: Iterable[HintSource]) -> dict[str, Secret]:
    """Of TokenKit's webhooks, by source."""
    return {source.name: source.secret for source in sources if isinstance(source.table, TokenkitHints)}


def watched_scopes(provider: Provider, ledger: Ledger) -> Iterator[WatchedScope]:
    """What a provider reads, with the tokens that are known of it."""
    helius = isinstance(provider.settings, HeliusSettings)
    commitment = provider.settings.commitment if isinstance(provider.settings, HeliusSettings) else None
    for group in provider.groups:
        for target in group.targets:
            scope = target.scope
            tokens = (
                ledger.tokens(scope) if scope.token is None else () if scope.token == UNKNOWN_MINT else (scope.token,)
            )
            yield WatchedScope(scope, token_account=helius, tokens=tuple(tokens), commitment=commitment)


class _Running:
    """One socket at work."""

    def __init__(self, source: HintSource, connections: int) -> None:
        """`connections`: how many one of its name has made before: what changed since the last is unknown."""
        self.source = source
        self.figures = SourceFigures(
            name=source.name, type=source.table.type, chain=source.chain, connections=connections
        )
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()
        self.socket: SocketSource | None = None
        self.turn = anyio.Lock()
        """Of whoever says what the socket is to watch."""


class HintSources:
    """Of one process that polls. `polled`: the pollers of that moment, each with the ledger that it fills."""

    def __init__(
        self,
        router: HintRouter,
        polled: Callable[[], Iterable[tuple[Poller, Ledger]]],
        *,
        wall: Callable[[], int],
        seed: int,
    ) -> None:
        self._router = router
        self._polled = polled
        self._wall = wall
        self._seed = seed
        self._wanted: dict[str, HintSource] = {}
        self._running: dict[str, _Running] = {}
        self._connections: dict[str, int] = {}
        """Made by sources that have ended, by name."""
        self._watched: Sequence[WatchedScope] = ()
        self._changed = anyio.Event()

    def use(self, sources: Sequence[HintSource]) -> None:
        """From now on these. Those that are as they were go on."""
        self._wanted = {source.name: source for source in sources if not isinstance(source.table, TokenkitHints)}
        self._changed.set()

    def look_soon(self) -> None:
        """Something else is watched."""
        self._changed.set()

    async def run(self) -> None:
        """For ever."""
        async with anyio.create_task_group() as tasks:
            while True:
                self._changed = anyio.Event()
                self._watched = await run_in_slices(self._look())
                due = self._due()
                await self._end_others(due)
                for running in self._running.values():
                    await self._watch(running)
                self._start_missing(due, tasks)
                with anyio.move_on_after(LOOK):
                    await self._changed.wait()

    def _due(self) -> dict[str, HintSource]:
        """Those that have something to tell of: a member of a fleet connects to no node of which it polls nothing."""
        chains = {watched.scope.chain for watched in self._watched}
        return {name: source for name, source in self._wanted.items() if source.chain in chains}

    async def _end_others(self, due: Mapping[str, HintSource]) -> None:
        """And take away those that have ended, however that came about: they begin anew."""
        ending = [one for name, one in self._running.items() if due.get(name) != one.source or one.ended.is_set()]
        for running in ending:
            running.scope.cancel()
        for running in ending:
            await running.ended.wait()
            del self._running[running.source.name]
            self._connections[running.source.name] = running.figures.connections
            self._router.forget(running.source.name, running.figures)

    def _start_missing(self, due: Mapping[str, HintSource], tasks: TaskGroup) -> None:
        for name, source in due.items():
            if name not in self._running:
                self._running[name] = running = _Running(source, self._connections.get(name, 0))
                self._router.figures[name] = running.figures
                tasks.start_soon(self._keep, running)

    async def _watch(self, running: _Running) -> None:
        try:
            async with running.turn:
                if running.socket is not None:
                    await run_in_slices(running.socket.watch(self._watched))
        except Exception:  # a bug, as in `_keep`
            log.exception("hints.failed", source=running.source.name)
            running.scope.cancel()

    def _look(self) -> Generator[None, None, Sequence[WatchedScope]]:
        found: list[WatchedScope] = []
        for poller, ledger in self._polled() if self._wanted else ():
            yield from poller.hinted.index()  # else what is covered would have it made in one go
            for number, watched in enumerate(watched_scopes(poller.provider, ledger)):
                found.append(watched)
                if number % SCOPES_PER_STEP == 0:
                    yield
        return found

    async def _keep(self, running: _Running) -> None:
        """Run it until it is cancelled. It never ends by itself: if it does, for whatever reason, it begins anew."""
        name, figures, tries = running.source.name, running.figures, 0
        try:
            with running.scope:
                while True:
                    try:
                        running.socket = socket = self._socket(running.source, figures)
                        async with running.turn:
                            await run_in_slices(socket.watch(self._watched))
                        await socket.run()
                    except Exception:  # a bug: it must not end what polls well without it
                        log.exception("hints.failed", source=name)
                    running.socket, tries = None, tries + 1
                    figures.connected, figures.problem = False, "a bug of ours: report it"
                    self._router.covers(name, ())
                    await anyio.sleep(RESTARTS.pause(tries))
        finally:
            running.ended.set()

    def _socket(self, source: HintSource, figures: SourceFigures) -> SocketSource:
        return SocketSource(
            source.name,
            source.table.type,
            source.secret,
            channel_of(source.table),
            self._router,
            figures,
            wall=self._wall,
            seed=self._seed,
        )


def channel_of(table: HintSettings) -> Channel:
    """How it is spoken to."""
    match table:
        case SolanaHints():
            return SolanaChannel(table.max_subscriptions)
        case EthereumHints():
            return EthereumChannel(table.chain)
    return StarknetChannel()
