"""All ways by which hints come into one process: what is posted, webhooks, the journal's exchange, sockets of its own."""

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence

import anyio

from watcher.app.hint_router import HintRouter
from watcher.app.hint_sources import HintSource, HintSources, webhook_secrets
from watcher.app.partitions import Partitions
from watcher.hints.figures import SourceFigures
from watcher.hints.tokenkit_webhook import TokenkitWebhooks
from watcher.journal import HintExchange
from watcher.model.watches import WatchIndex
from watcher.poller.poller import Poller
from watcher.relay.http.hint_routes import HookAnswer, hint_routes
from watcher.relay.http.routes import Route

UNSIGNED = 401


class HintPaths:
    """Of one process. `polls`: whether it polls at all; who does not takes what is posted, and webhooks, and sends them on."""

    def __init__(
        self,
        watches: Callable[[], WatchIndex],
        partitions: Partitions,
        exchange: HintExchange | None,
        wall: Callable[[], int],
        *,
        polls: bool,
    ) -> None:
        self.configured: Sequence[HintSource] = ()
        self.router = HintRouter(watches, lambda: partitions.pollers, exchange, anyio.current_time, wall, polls=polls)
        self._exchange = exchange
        self._polls = polls
        self._wall = wall
        self._webhooks = TokenkitWebhooks({}, {})
        self._sources = HintSources(self.router, lambda: partitions.polled, wall=wall, seed=secrets.randbits(32))

    def use(self, sources: Sequence[HintSource], senders: Collection[str]) -> None:
        """From now on these sources, and tokens with these names that may post. Those that are as they were go on."""
        figures, signed = self.router.figures, webhook_secrets(sources)
        for gone in webhook_secrets(self.configured).keys() - signed.keys():
            self.router.forget(gone, figures[gone])
        for name in signed:
            if name not in figures or figures[name].type != "tokenkit":
                figures[name] = SourceFigures(name=name, type="tokenkit", connected=True, since=self._wall())
        self.configured = sources
        self._webhooks.use(signed, figures)
        self._sources.use(sources)
        self.router.use_senders(senders)

    def begun(self, poller: Poller) -> None:
        """It polls from now on."""
        self.router.begun(poller)
        self._sources.look_soon()

    @property
    def routes(self) -> Mapping[str, Route]:
        """For a port of this process."""
        return hint_routes(self.router.posted, self._rejected, self._hooked)

    async def run(self) -> None:
        """For ever. Raises Forbidden, in a group."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.router.send_delivered)
            if self._polls:
                tasks.start_soon(self.router.receive)
                tasks.start_soon(self._sources.run)

    async def close(self) -> None:
        if self._exchange is not None:
            await self._exchange.close()

    def _rejected(self, sender: str) -> None:
        figures = self.router.of_sender(sender)
        figures.count("rejected", anyio.current_time())
        self.router.tell_rejected(figures.name, "a body that holds no hints as documented")

    async def _hooked(self, body: bytes, headers: Mapping[str, str]) -> HookAnswer:
        delivery = self._webhooks.received(body, headers, anyio.current_time())
        if delivery.status == UNSIGNED:
            self.router.tell_rejected("tokenkit", "a webhook whose signature fits no secret of ours")
        elif delivery.source is not None and delivery.hints:
            with anyio.CancelScope(shield=True):  # its sender may hang up, and what it sends again is a repeat
                await self.router.delivered(delivery.source, delivery.hints)
        return HookAnswer(delivery.status)
