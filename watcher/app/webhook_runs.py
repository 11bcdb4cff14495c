"""The webhooks that the config names, at work beside each partition that this process has open.

A webhook needs nothing of the pollers and they nothing of it: what fails here is logged, tried again, and ends nothing else.
"""

import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import anyio
import structlog
from anyio.abc import TaskGroup

from watcher.app.settings import Settings
from watcher.ingest.committer import Committer
from watcher.journal import Reader
from watcher.model.log import JournalError, Unavailable
from watcher.model.watches import WatchIndex
from watcher.runtime.backoff import Backoff
from watcher.runtime.config_section import Mistakes
from watcher.webhooks import settings as webhook_settings
from watcher.webhooks.connections import ReceiverTransport, TargetGuard
from watcher.webhooks.delivery import PartitionDelivery, Receiver
from watcher.webhooks.figures import WebhookFigures
from watcher.webhooks.places import Owned
from watcher.webhooks.sender import Sender
from watcher.webhooks.settings import Webhook

RESTARTS = Backoff(1.0, 60.0)
"""Behind a bug, or a reader that cannot be opened."""

log = structlog.get_logger()


def webhooks_of(config: Settings, environment: Mapping[str, str], *, polls: bool) -> tuple[Webhook, ...]:
    """Those of the config, with their secrets; none for a process that owns no partition. Raises SettingsError."""
    found, mistakes = [], Mistakes()
    for table in config.webhooks if polls else ():
        with mistakes.gathered():
            found.append(webhook_settings.load(table, environment))
    mistakes.raise_any()
    return tuple(found)


def receiver_of(webhook: Webhook, figures: WebhookFigures, watches: WatchIndex, wall: Callable[[], int]) -> Receiver:
    """Its connections share one guard."""
    guard = TargetGuard(allow_private=webhook.settings.allow_private, plain=webhook.plain)
    return Receiver(webhook, figures, watches, lambda: Sender(webhook, ReceiverTransport(guard), wall))


class _Running:
    """One webhook at work on one partition."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()


class Webhooks:
    """Of one process. `reader`: gives the one that all share."""

    def __init__(
        self,
        reader: Callable[[], Awaitable[Reader]],
        partitions: int,
        wall: Callable[[], int],
        receiver: Callable[[Webhook, WebhookFigures, WatchIndex, Callable[[], int]], Receiver] = receiver_of,
    ) -> None:
        self.configured: Sequence[Webhook] = ()
        self.figures: dict[str, WebhookFigures] = {}
        """By name, of those that are configured."""
        self._reader = reader
        self._partitions = partitions
        self._wall = wall
        self._receiver = receiver
        self._receivers: dict[str, Receiver] = {}
        self._changed = anyio.Event()
        self._turns = anyio.Lock()

    def use(self, webhooks: Sequence[Webhook], watches: WatchIndex) -> None:
        """From now on these. Those that are as they were go on; one that has changed goes on at its place."""
        self.configured = webhooks
        self.figures = {one.title: self.figures.get(one.title) or WebhookFigures(one.title) for one in webhooks}
        receivers: dict[str, Receiver] = {}
        for webhook in webhooks:
            before = self._receivers.get(webhook.title)
            if before is not None and before.webhook == webhook:
                before.use_names(watches)
                receivers[webhook.title] = before
            else:
                figures = self.figures[webhook.title]
                figures.gone = False
                receivers[webhook.title] = self._receiver(webhook, figures, watches, self._wall)
        self._receivers = receivers
        self._changed.set()
        self._changed = anyio.Event()

    def figures_now(self) -> Collection[WebhookFigures]:
        return self.figures.values()

    async def run(self, committer: Committer) -> None:
        """Beside an open partition, for ever. Raises what a journal raises, but for Unavailable, in groups."""
        running: dict[str, _Running] = {}
        async with anyio.create_task_group() as tasks:
            while True:
                changed = self._changed
                await self._end_others(running)
                self._start_missing(running, committer, tasks)
                await changed.wait()

    async def _end_others(self, running: dict[str, _Running]) -> None:
        ending = [one for name, one in running.items() if self._receivers.get(name) is not one.receiver]
        for one in ending:
            one.scope.cancel()
        for one in ending:
            await one.ended.wait()
            del running[one.receiver.webhook.title]

    def _start_missing(self, running: dict[str, _Running], committer: Committer, tasks: TaskGroup) -> None:
        for name, receiver in self._receivers.items():
            if name not in running:
                running[name] = _Running(receiver)
                tasks.start_soon(self._keep, running[name], committer)

    async def _keep(self, running: _Running, committer: Committer) -> None:
        """Deliver until cancelled, or until the receiver is gone."""
        tries = 0
        try:
            with running.scope:
                while not await self._delivered(running.receiver, committer):
                    tries += 1
                    await anyio.sleep(RESTARTS.pause(tries))
        finally:
            running.ended.set()

    async def _delivered(self, receiver: Receiver, committer: Committer) -> bool:
        """True once the receiver is gone; False: it is to be tried again."""
        ended = False
        try:
            await self._deliver(receiver, committer)
            ended = True
        except* Unavailable:
            pass  # whoever writes or polls tells that
        except* JournalError:
            raise
        except* Exception:  # a bug: it must not end what polls well without it
            log.exception("webhook.failed", webhook=receiver.webhook.title)
        return ended

    async def _deliver(self, receiver: Receiver, committer: Committer) -> None:
        reader = await self._reader()
        await PartitionDelivery(
            receiver,
            Owned(committer.partition, self._partitions),
            reader,
            committer,
            turns=self._turns,
            wall=self._wall,
            seed=secrets.randbits(32),
        ).run()
