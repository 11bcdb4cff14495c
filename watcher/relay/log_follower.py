"""The one follower of the log, which feeds the live path."""

import asyncio

import anyio
import anyio.lowlevel
import structlog

from watcher.model.log import Expired, GapReason, Unavailable
from watcher.relay.connections import ConnectionRegistry
from watcher.relay.live_path import BATCH, Flusher
from watcher.relay.log import Log, following
from watcher.relay.settings import RelayTuning
from watcher.runtime.backoff import Backoff

BACKOFF = Backoff(first=0.1, longest=5.0)
"""Between two tries to follow the log."""
JOURNAL_RETRY = 0.5
"""Seconds until whoever was behind asks a journal again that did not answer."""

logger = structlog.get_logger()


class LogFollower:
    """Publishes what is committed. It tries again while the log cannot be read, and begins anew when another log stands there."""

    def __init__(self, log: Log, flusher: Flusher, connections: ConnectionRegistry, tuning: RelayTuning) -> None:
        self.following = False
        self._log = log
        self._flusher = flusher
        self._connections = connections
        self._tuning = tuning
        self._away = False
        """The log could not be read, and has not been since."""
        self._moved: asyncio.Event | None = None

    async def start(self) -> None:
        """Take the head of the log. Raises Unavailable."""
        self._flusher.start((await self._log.bounds()).head)

    async def follow(self) -> None:
        failures = 0
        while True:
            try:
                await self._log.bounds()  # a `follow` that waits does not show whether the log is there
                self._is_back()
                self._move()
                failures = 0
                async with following(self._log, self._flusher.fan_out.cursor) as commits:
                    async for commit in commits:
                        await self._flusher.publish(commit, self._tuning.replay_bytes)
                        self._move()
            except Unavailable as problem:
                self.is_away(problem)
            except Expired as problem:
                await self.change_log(problem.reason)
            self.following = False
            self._move()
            failures += 1
            await anyio.sleep(BACKOFF.pause(failures))

    async def change_log(self, reason: GapReason) -> None:
        """The log cannot be read on: begin at the head of what stands there now, and serve everybody anew from it."""
        try:
            head = (await self._log.bounds()).head
        except Unavailable as problem:
            self.is_away(problem)
            return
        logger.warning("relay.log_changed", reason=reason)
        before = self._flusher.restart(head)
        self._connections.change_log(before, head, reason)
        for number, connection in enumerate(list(self._connections), 1):
            if connection.restarts:  # a command may have begun it meanwhile, and it may be through
                self._connections.read_for(connection)
            if number % BATCH == 0:
                await anyio.lowlevel.checkpoint()

    def is_away(self, problem: Unavailable) -> None:
        """Logged once, however many ask and how often."""
        if not self._away:
            logger.warning("relay.journal_unavailable", problem=str(problem))
        self._away = True
        self._connections.count_log_error()

    def _is_back(self) -> None:
        if self._away:
            logger.info("relay.journal_back")
        self._away = False
        self.following = True

    async def moved(self) -> None:
        """Until the fan-out has come further, or the following begins or ends."""
        if self._moved is None:
            self._moved = asyncio.Event()
        await self._moved.wait()

    def _move(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None
