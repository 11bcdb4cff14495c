"""From the log to the sockets: the live path, and everything that is given to the kernel.

Frames go straight to the socket, so that one event costs each connection one system call. Nothing here ever waits
for a connection.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable

import anyio
import anyio.lowlevel
import structlog
from websockets.protocol import State

from watcher.model.log import Commit, Expired, GapReason, Unavailable
from watcher.relay import wire
from watcher.relay.fan_out import FanOut
from watcher.relay.log_follower import Log, following
from watcher.relay.messages import CloseReason, Lagging
from watcher.relay.settings import RelayTuning
from watcher.relay.websocket import Connection, FrameBudget, Peer, RelayStats, wake

SLICE_SECONDS = 0.004
"""Seconds that the loop is held at a stretch."""
BATCH = 32
"""Connections flushed between two looks at the clock."""

logger = structlog.get_logger()


class Delivery:
    """Everybody who is connected, and the one follower of the log that serves those on the live path."""

    def __init__(self, log: Log, pace: RelayTuning, read_for: Callable[[Peer], None]) -> None:
        """`read_for`: somebody is to read the log for a connection that is off the live path."""
        self.stats = RelayStats()
        self.peers: set[Peer] = set()
        self.paused: dict[Peer, tuple[float, int]] = {}
        """Since when the kernel takes nothing of how many bytes."""
        self.following = False
        self.sent = 0
        """Updates, by connections that are gone."""
        self.conflated = 0
        """Events, likewise."""
        self.moved: asyncio.Event | None = None
        """Set when the hub has come further, and when its follower begins or ends."""
        self.hearing = FrameBudget()
        self.hub: FanOut[Peer]
        self.time: Callable[[], float]
        self._log = log
        self._pace = pace
        self._read_for = read_for
        self._away = False
        """The log could not be read, and has not been since."""
        self._flushing = False
        self._flushed: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop

    async def start(self) -> None:
        """Take the head of the log. Raises Unavailable."""
        self._loop = asyncio.get_running_loop()
        self.time = self._loop.time
        self.hub = FanOut((await self._log.bounds()).head)

    def gone(self, connection: Connection) -> None:
        """The TCP connection has ended."""
        if connection.ending is not None:  # or it were kept in memory until then, and who comes again fills it
            connection.ending.cancel()
        if connection.reserved:
            self.stats.connections -= 1
        if connection.peer is not None:
            self.forget(connection.peer)

    def put(self, peer: Peer, frame: bytes) -> None:
        if peer.open:
            self.hub.settle()
            peer.put(frame)
            self.mark(peer)

    def forget(self, peer: Peer) -> None:
        peer.shut()
        if peer in self.peers:
            self.sent += peer.sent
            self.conflated += peer.conflated
            self.peers.remove(peer)
        self.paused.pop(peer, None)
        self.hub.leave(peer)
        peer.frames.clear()
        if peer.alarm is not None:
            peer.alarm.cancel()
        wake(peer)

    def count(self) -> None:
        """Add up what the connections keep for themselves."""
        self.stats.sent = self.sent + sum(peer.sent for peer in self.peers)
        self.stats.conflated = self.conflated + sum(peer.conflated for peer in self.peers)

    def drop(self, peer: Peer, why: CloseReason, cause: str | None = None) -> None:
        """End a connection and say why, in the log and the metrics too: who stalls will hardly read a close frame."""
        if peer.open:
            cause = cause or why.reason
            self.stats.drop(cause)
            logger.info("relay.dropped", connection=peer.id, code=why.code, reason=why.reason, why=cause)
            self.close(peer, why)

    def close(self, peer: Peer, why: CloseReason) -> None:
        connection = peer.connection
        self.hub.settle()
        if peer.open and not connection.paused:
            self._flush_one(peer, self.time())
        self.forget(peer)
        if connection.protocol.state is State.OPEN:
            connection.protocol.send_close(why.code, why.reason)
            with contextlib.suppress(RuntimeError):  # the transport is closing already
                connection.send_data()
            # Early by one sweep, since that late may a stalled one have been found.
            late = self._pace.farewell - self._pace.sweep
            connection.ending = self._loop.call_later(late, connection.transport.abort)

    def mark(self, peer: Peer) -> None:
        self.hub.marked.append(peer)
        self._schedule()

    def _schedule(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Give what is there to the kernel, for as long as the loop can be held."""
        until = self.time() + SLICE_SECONDS
        while self.hub.marked or self.hub.round:
            if self.hub.round:
                self._deal()
            else:
                self._flush_marked()
            if self.hub.overflowed:
                self._take_off()
            if self.time() >= until:
                self._loop.call_soon(self._flush)
                return
        self._flushing = False
        if self._flushed is not None:
            self._flushed.set()
            self._flushed = None

    def _flush_marked(self) -> None:
        """The outboxes. Only while there is no round: everything up to the hub's cursor is in them."""
        marked, now = self.hub.marked, self.time()
        for _ in range(min(BATCH, len(marked))):
            peer = marked.popleft()
            # A paused one is marked again when its buffer is empty.
            if peer.open and not peer.connection.paused:
                self._flush_one(peer, now)

    def _deal(self) -> None:
        """The round, to the next of those that get it: one system call each, however many events are in it."""
        hub, write = self.hub, os.write
        frames, cursor = hub.round, hub.cursor
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        count, size = len(frames), len(data)
        for peer in hub.deal(BATCH):
            if peer.direct is None or peer.frames:
                hub.queue(peer, frames, size)
                continue
            try:
                taken = write(peer.direct, data)
            except OSError:
                taken = 0
            peer.sent += count
            peer.flushed = cursor
            if taken != size:
                self._give(peer, data[taken:])

    def _flush_one(self, peer: Peer, now: float) -> None:
        frames = peer.frames
        if peer.conflater is not None:
            data = peer.take(now, self.hub.cursor)
            self._set_alarm(peer)
        elif frames:
            data = peer.take(now, self.hub.cursor)
        else:
            data = b""
        taken = 0
        # The transport does the same at three times the price. It is empty here, or the connection were paused; and
        # the descriptor is ours while the peer is open, since `connection_lost` comes before it is closed.
        if peer.socket is not None and data:
            try:
                taken = os.write(peer.socket, data)
            except OSError:
                taken = 0
        if taken != len(data):
            self._give(peer, data[taken:])
        if peer.wake is not None and not peer.connection.paused:
            wake(peer)

    def _give(self, peer: Peer, data: bytes) -> None:
        """What the kernel did not take, to the transport, which finds out why."""
        with contextlib.suppress(RuntimeError):  # it is closing: one that leaves must not end the round
            peer.connection.transport.write(data)

    def _set_alarm(self, peer: Peer) -> None:
        due = peer.conflater.due_at() if peer.conflater is not None else None
        if peer.alarm is not None:
            peer.alarm.cancel()
        peer.alarm = None if due is None else self._loop.call_later(due - self.time(), self.mark, peer)

    def blocked(self, peer: Peer) -> None:
        """The kernel did not take all of the last flush."""
        peer.direct = None
        self.paused[peer] = (self.time(), peer.connection.transport.get_write_buffer_size())

    def unblocked(self, peer: Peer) -> None:
        self.paused.pop(peer, None)
        if peer.open:
            peer.direct = peer.socket
        if peer.waiting or peer.conflater is not None:  # what was held back may have become due meanwhile
            self.mark(peer)
        else:
            wake(peer)

    async def follow(self) -> None:
        delay = 0.1
        while True:
            try:
                await self._log.bounds()  # a follower who waits does not say whether the log is there
                self._log_is_back()
                self._move()
                delay = 0.1
                async with following(self._log, self.hub.cursor) as commits:
                    async for commit in commits:
                        await self.publish(commit)
            except Unavailable as problem:
                self.log_is_away(problem)
            except Expired as problem:
                await self.turn(problem.reason)
            self.following = False
            self._move()
            await anyio.sleep(delay)
            delay = min(2 * delay, 5.0)

    def log_is_away(self, problem: Unavailable) -> None:
        """Told once, however many ask and how often."""
        if not self._away:
            logger.warning("relay.journal_unavailable", problem=str(problem))
        self._away = True
        self.stats.log_errors += 1

    def _log_is_back(self) -> None:
        if self._away:
            logger.info("relay.journal_back")
        self._away = False
        self.following = True

    async def turn(self, reason: GapReason) -> None:
        """The log cannot be read on: begin at the head of what stands there now, and serve everybody anew from it.

        Who finds another hub than before holds something of the former log, and throws it away.
        """
        try:
            head = (await self._log.bounds()).head
        except Unavailable as problem:
            self.log_is_away(problem)
            return
        logger.warning("relay.log_changed", reason=reason)
        self.hub.settle()
        before, self.hub = self.hub.cursor, FanOut(head)
        for peer in self.peers:
            ended = peer.session.end_without_gaps(reason)
            peer.turn(before, head, reason)
            if ended:
                peer.rearrange()
                for push in ended:
                    peer.put(push)
            if peer.waiting or peer.wake is not None:
                self.mark(peer)
        for number, peer in enumerate(list(self.peers), 1):
            if peer.renewals:  # a command may have begun it meanwhile, and it may be through
                self._read_for(peer)
            if number % BATCH == 0:
                await anyio.lowlevel.checkpoint()

    def _move(self) -> None:
        if self.moved is not None:
            self.moved.set()
            self.moved = None

    async def publish(self, commit: Commit) -> None:
        hub, time = self.hub, self.time
        now = time()
        until, size = now + SLICE_SECONDS, 0
        for event in commit.events:
            if hub.dealing:  # settling it would hold the loop, and cost more than the wait
                await self._settled()
            hub.publish(event, now)
            size += len(event.data)
            if hub.overflowed:
                self._take_off()
            now = time()
            if now >= until or size >= self._pace.chunk:
                await self._settled()
                now = time()
                until, size = now + SLICE_SECONDS, 0
        hub.advance(commit)
        if hub.marked or hub.round:
            self._schedule()
        self._move()

    async def _settled(self) -> None:
        """Everybody who takes something has been given what is there."""
        self._schedule()
        if self._flushed is None:
            self._flushed = asyncio.Event()
        await self._flushed.wait()

    def _take_off(self) -> None:
        overflowed, self.hub.overflowed = self.hub.overflowed, []
        for peer in overflowed:
            if not peer.live or not peer.open:
                continue
            self.hub.leave(peer)
            tell = peer.overflow()
            peer.measure(self.hub.cursor, self.time())
            self.stats.lagging += 1
            if tell:
                self.put(peer, wire.push(Lagging(cursor=str(peer.watermark(self.hub.cursor)))))
            self._read_for(peer)
