"""Connections off the live path: each is served what it asked for, and reads the log until it has reached the head."""

import anyio
import anyio.abc
import anyio.lowlevel

from watcher.model.log import Commit, Expired, Published, SnapshotRevoked, Unavailable
from watcher.relay import wire
from watcher.relay.budgets import ReadBudget, ReadQueue
from watcher.relay.connection import Connection
from watcher.relay.connections import ConnectionRegistry
from watcher.relay.live_path import FanOut, Flusher
from watcher.relay.log import Log, following
from watcher.relay.log_follower import JOURNAL_RETRY, LogFollower
from watcher.relay.messages import SLOW_CONSUMER, Live
from watcher.relay.opening import SubscriptionOpener

LOOKED = 64
"""Events of a replay between two turns of the loop."""


class CatchUp:
    """The readers of the log: one task for each connection that is behind, and none for the others."""

    def __init__(
        self,
        connections: ConnectionRegistry,
        flusher: Flusher,
        follower: LogFollower,
        opener: SubscriptionOpener,
        *,
        log: Log,
        budget: ReadBudget,
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        self._connections = connections
        self._flusher = flusher
        self._follower = follower
        self._opener = opener
        self._log = log
        self._budget = budget
        self._tasks = tasks

    def read_for(self, connection: Connection) -> None:
        if self._connections.start_reading(connection):
            self._tasks.start_soon(self._read, connection)

    async def _read(self, connection: Connection) -> None:
        """Serve what was asked for, then read the log until the head is reached."""
        outbox = connection.outbox
        try:
            while outbox.open:
                await outbox.room()
                if connection.restarts:
                    await self._opener.restart(connection)
                elif connection.pending:
                    await self._opener.open(connection, connection.next_pending())
                elif outbox.live or await self._catch_up(connection):
                    return
        except Expired as problem:
            self._connections.drop(connection, SLOW_CONSUMER, problem.reason)
        except SnapshotRevoked:
            self._connections.drop(connection, SLOW_CONSUMER, "outlived")
        finally:
            self._connections.stop_reading(connection)

    async def _catch_up(self, connection: Connection) -> bool:
        """Read the log until there is something else to do; whether the live path was joined."""
        outbox = connection.outbox
        if self._join(connection):
            return True
        if outbox.position.reaches(self._flusher.fan_out.cursor):
            await self._follower.moved()  # the snapshot was newer than the fan-out is
            return False
        fan_out = self._flusher.fan_out
        try:
            async with following(self._log, outbox.position) as commits:
                async for commit in commits:
                    whole = await self._replay(connection, commit, fan_out)
                    if not outbox.open or connection.pending or self._join(connection):
                        return outbox.live
                    if not whole:
                        break
                    await anyio.lowlevel.checkpoint()
        except Unavailable as problem:
            self._follower.is_away(problem)
            await anyio.sleep(JOURNAL_RETRY)
        except Expired as problem:
            if problem.reason != "epoch_changed":
                raise
            if not self._log_changed(fan_out):
                await self._follower.moved()  # it will find the same
        return False

    async def _replay(self, connection: Connection, commit: Commit, fan_out: FanOut) -> bool:
        """Everything of a slice that the fan-out has already given to the others; whether that was all of it."""
        outbox, events, done = connection.outbox, commit.events, 0
        while done < len(events):
            async with self._budget.turn(ReadQueue.REPLAYS):
                if not outbox.open or self._log_changed(fan_out):
                    return False
                piece = self._give(connection, events[done : done + LOOKED])
            done += piece
            if outbox.enough:
                self._flusher.mark(outbox)
                await outbox.room()
            elif not piece:
                return False
            else:
                await anyio.lowlevel.checkpoint()
        if not outbox.open or self._log_changed(fan_out):
            return False
        outbox.move(commit.cursor)
        self._flusher.mark(outbox)
        await outbox.room()
        return not self._log_changed(fan_out)

    def _log_changed(self, fan_out: FanOut) -> bool:
        """That fan-out was of the former log."""
        return fan_out is not self._flusher.fan_out

    def _give(self, connection: Connection, events: list[Published]) -> int:
        """Put them into the outbox until that holds enough, or the head is reached; how many that were. HOT."""
        outbox, subscriptions = connection.outbox, connection.subscriptions
        given, head, now = 0, self._flusher.fan_out.cursor.positions, self._flusher.time()
        for event in events:
            if event.position >= head[event.partition]:
                break
            cursor = outbox.position.after(event.partition, event.position)
            outbox.deliver(self._flusher.fan_out.framed(event, cursor), now, subscriptions)
            given += 1
            if outbox.enough:
                break
        return given

    def _join(self, connection: Connection) -> bool:
        """Onto the live path, in this turn of the loop, if the rest is at hand."""
        outbox, fan_out, subscriptions = connection.outbox, self._flusher.fan_out, connection.subscriptions
        if not outbox.open or connection.pending or connection.restarts:
            return False
        if not all(each.start is None or fan_out.cursor.reaches(each.start) for each in subscriptions):
            return False
        entries = fan_out.recent(outbox.position)
        if entries is None:
            return False
        now = self._flusher.time()
        for entry in entries:
            outbox.deliver(entry, now, subscriptions)
        lagged = connection.join()
        fan_out.join(outbox, subscriptions)
        if lagged:
            outbox.put(wire.LiveFrame(wire.push(Live(cursor=str(outbox.watermark(fan_out.cursor))))))
        self._flusher.mark(outbox)
        return True
