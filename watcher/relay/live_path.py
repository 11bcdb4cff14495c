"""The live path: one follower of the log for everybody.

The frame of an event is made once. As long as events go to the same connections they are kept as one round, which is
dealt out straight to the sockets of all whose outbox is empty. Whatever would disturb that order (a reply to a command,
somebody who joins or leaves, an event for others) first settles the round: puts references to its frames into the
outboxes. So a connection joins or leaves between two events and never within one.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from watcher.model.log import Commit, Cursor, Published
from watcher.model.watches import WatchIndex
from watcher.relay import wire
from watcher.relay.conflation import FramedEvent
from watcher.relay.outbox import Outbox
from watcher.relay.provider_statuses import ProviderStatuses
from watcher.relay.subscription import Subscription, SubscriptionIndex, interval_of

KEPT = 512
"""Events kept for connections that are nearly there, so that they need not look into the journal."""
SLICE_SECONDS = 0.004
"""Seconds that the loop is held at a stretch."""
BATCH = 32
"""Connections flushed between two looks at the clock."""

Recipients = tuple[tuple[Outbox, ...], tuple[tuple[Outbox, float | None], ...]]
"""Who gets a key: those that get every event, and those with a conflater and their interval."""


class FanOut:
    """The head of the log as this process knows it, and who is on the live path. Never awaits."""

    def __init__(self, head: Cursor, watches: Callable[[], WatchIndex] = WatchIndex) -> None:
        """`watches`: those of the config as it is now."""
        self._watches = watches
        self.cursor = head
        """Everything before is in the outboxes of all that are live and want it, or in the round."""
        self.providers = ProviderStatuses(lambda name: watches().may_read(name))
        self.ready: deque[Outbox] = deque()
        """Those with something to send that they did not have at the last flush."""
        self.overflowed: list[Outbox] = []
        """Those that became too full: they are to leave the live path."""
        self.round: list[bytes] = []
        """Frames for the recipients that were not dealt them yet. Replaced, never emptied."""
        self._recipients: tuple[Outbox, ...] = ()
        """Of the round."""
        self._dealt = 0
        self._groups: dict[tuple[Outbox, ...], tuple[Outbox, ...]] = {}
        """One tuple for all keys that the same outboxes get, until somebody joins or leaves."""
        self._recent: deque[FramedEvent] = deque()
        self._since = head
        """Everything from here on is among the recent events."""
        self._index: SubscriptionIndex[tuple[Outbox, Subscription], Recipients] = SubscriptionIndex(
            self._found, watches
        )
        self._crossed: SubscriptionIndex[tuple[Outbox, Subscription], Recipients] = SubscriptionIndex(
            self._found, watches
        )
        """Of those that want crossings too."""

    def join(self, outbox: Outbox, subscriptions: Iterable[Subscription]) -> None:
        self._regroup()
        for subscription in subscriptions:
            self._index.add((outbox, subscription), subscription.matcher)
            if subscription.crossed:
                self._crossed.add((outbox, subscription), subscription.matcher)

    def leave(self, outbox: Outbox, subscriptions: Iterable[Subscription]) -> None:
        self._regroup()
        for subscription in subscriptions:
            self._index.remove((outbox, subscription))
            self._crossed.remove((outbox, subscription))

    def add(self, outbox: Outbox, subscription: Subscription) -> None:
        self.join(outbox, (subscription,))

    def drop(self, outbox: Outbox, subscription: Subscription) -> None:
        self.leave(outbox, (subscription,))

    def publish(self, event: Published, now: float) -> None:
        """Give one event to all that want it. HOT."""
        self.cursor = cursor = self.cursor.after(event.partition, event.position)
        entry = self.framed(event, cursor)
        self._keep(entry)
        every, conflating = (self._crossed if event.type == "crossed" else self._index).find(event.key)
        if every:
            self._give(every, entry.frame)
        for outbox, interval in conflating:
            outbox.accept(entry, now, interval)
            self.ready.append(outbox)
            if outbox.full:
                self.overflowed.append(outbox)

    def framed(self, event: Published, cursor: Cursor) -> FramedEvent:
        """With the label that its balance has now."""
        label = wire.label_of(self._watches().info(event.key).label)
        return FramedEvent(event, cursor, wire.event(str(cursor), event, label), label)

    def _give(self, outboxes: tuple[Outbox, ...], frame: bytes) -> None:
        if outboxes is not self._recipients or self._dealt:
            self.settle()
            if self.ready:  # those would wait for the end of a new round, and of the next one
                for outbox in outboxes:
                    outbox.queue([frame], len(frame), self.ready, self.overflowed)
                return
            self._recipients = outboxes
        self.round.append(frame)

    def deal(self, most: int) -> None:
        """The round, to the next of those that get it. HOT."""
        frames, cursor = self.round, self.cursor  # `next_recipients` may end the round
        Outbox.write_all(self.next_recipients(most), frames, cursor, self.ready, self.overflowed)

    def next_recipients(self, most: int) -> tuple[Outbox, ...]:
        """The next that get the round, at once and in order; none when everybody has it."""
        first = self._dealt
        outboxes = self._recipients[first : first + most]
        self._dealt = first + len(outboxes)
        if self._dealt == len(self._recipients):
            self._end_round()
        return outboxes

    @property
    def dealing(self) -> bool:
        """Some have the round and some do not."""
        return self._dealt > 0

    def settle(self) -> None:
        """The rest of the round, into the outboxes."""
        frames, outboxes = self.round, self._recipients[self._dealt :]
        self._end_round()
        size = sum(map(len, frames))
        if frames:
            for outbox in outboxes:
                outbox.queue(frames, size, self.ready, self.overflowed)

    def take_overflowed(self) -> list[Outbox]:
        found, self.overflowed = self.overflowed, []
        return found

    def _end_round(self) -> None:
        self.round, self._recipients, self._dealt = [], (), 0

    def _regroup(self) -> None:
        self.settle()
        self._groups.clear()

    def advance(self, commit: Commit, now: float) -> None:
        """All events of the commit were published."""
        self.cursor = commit.cursor
        for health in commit.health:
            self.providers.take(health, now)

    def recent(self, position: Cursor) -> list[FramedEvent] | None:
        """Everything from `position` to the head, if it is all still at hand."""
        if not position.reaches(self._since):
            return None
        places = position.positions
        return [entry for entry in self._recent if entry.event.position >= places[entry.event.partition]]

    def observed_at(self, frame: bytes) -> int | None:
        """When the event in that very frame was observed, wall-clock microseconds; None when it is long gone."""
        return next((entry.event.observed_at for entry in self._recent if entry.frame is frame), None)

    def _keep(self, entry: FramedEvent) -> None:
        self._recent.append(entry)
        if len(self._recent) > KEPT:
            gone = self._recent.popleft()
            self._since = self._since.after(gone.event.partition, gone.event.position)

    def _found(self, held: list[tuple[Outbox, Subscription]]) -> Recipients:
        every: dict[Outbox, None] = {}
        wanting: dict[Outbox, list[Subscription]] = {}
        for outbox, subscription in held:
            if outbox.conflater is None:
                every[outbox] = None
            else:
                wanting.setdefault(outbox, []).append(subscription)
        group = tuple(every)
        mixed = tuple((outbox, interval_of(each)) for outbox, each in wanting.items())
        return self._groups.setdefault(group, group), mixed


class Flusher:
    """Gives to the kernel what stands in the round and in the outboxes, a slice of the loop's time at a stretch.

    Frames go straight to the socket, so that one event costs each connection one system call. Nothing here waits for a
    connection.
    """

    fan_out: FanOut
    time: Callable[[], float]
    """Monotonic seconds."""

    def __init__(
        self, overflow: Callable[[list[Outbox]], None], watches: Callable[[], WatchIndex] = WatchIndex
    ) -> None:
        """`overflow`: those became too full, and are to leave the live path. `watches`: those of the config as it is now."""
        self._overflow = overflow
        self._watches = watches
        self._flushing = False
        self._flushed: asyncio.Event | None = None
        self._timers: dict[Outbox, asyncio.TimerHandle] = {}
        """When the next event that an outbox holds back is due."""
        self._loop: asyncio.AbstractEventLoop

    def start(self, head: Cursor) -> None:
        self._loop = asyncio.get_running_loop()
        self.time = self._loop.time
        self.fan_out = FanOut(head, self._watches)

    def restart(self, head: Cursor) -> Cursor:
        """Another log begins; where the former one was.

        Who finds another fan-out than before holds something of the former log, and throws it away.
        """
        self.fan_out.settle()
        before, self.fan_out = self.fan_out.cursor, FanOut(head, self._watches)
        return before

    async def publish(self, commit: Commit, most: int) -> None:
        """Frame the events of a commit and give them on; the loop is free after each slice, and after `most` bytes. HOT."""
        fan_out, time = self.fan_out, self.time
        now = time()
        until, size = now + SLICE_SECONDS, 0
        for event in commit.events:
            if fan_out.dealing:  # settling it would hold the loop, and cost more than the wait
                await self.settled()
            fan_out.publish(event, now)
            size += len(event.data)
            if fan_out.overflowed:
                self.take_off()
            now = time()
            if now >= until or size >= most:
                await self.settled()
                now = time()
                until, size = now + SLICE_SECONDS, 0
        fan_out.advance(commit, now)
        if fan_out.ready or fan_out.round:
            self.schedule()

    def put(self, outbox: Outbox, frame: bytes) -> None:
        """A frame that is not an update."""
        if outbox.open:
            self.fan_out.settle()
            outbox.put(frame)
            self.mark(outbox)

    def mark(self, outbox: Outbox) -> None:
        """It has something to send."""
        self.fan_out.ready.append(outbox)
        self.schedule()

    def schedule(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def forget(self, outbox: Outbox) -> None:
        """It has closed, or nothing that it holds back has to be waited for."""
        if (timer := self._timers.pop(outbox, None)) is not None:
            timer.cancel()

    async def settled(self) -> None:
        """Until everybody who takes something has been given what is there."""
        self.schedule()
        if self._flushed is None:
            self._flushed = asyncio.Event()
        await self._flushed.wait()

    def _flush(self) -> None:
        """HOT."""
        until = self.time() + SLICE_SECONDS
        while self.fan_out.ready or self.fan_out.round:
            if self.fan_out.round:
                self.fan_out.deal(BATCH)
            else:
                self._flush_ready()
            if self.fan_out.overflowed:
                self.take_off()
            if self.time() >= until:
                self._loop.call_soon(self._flush)
                return
        self._flushing = False
        if self._flushed is not None:
            self._flushed.set()
            self._flushed = None

    def _flush_ready(self) -> None:
        """The outboxes. Only while there is no round: everything up to the fan-out's cursor is in them. HOT."""
        ready, now, cursor = self.fan_out.ready, self.time(), self.fan_out.cursor
        for _ in range(min(BATCH, len(ready))):
            outbox = ready.popleft()
            # A blocked one is marked again when its socket has room.
            if outbox.open and not outbox.blocked:
                outbox.flush(now, cursor)
                if outbox.conflater is not None:
                    self._set_timer(outbox)

    def flush_last(self, outbox: Outbox) -> None:
        """What still may go before its close frame."""
        self.fan_out.settle()
        if outbox.open and not outbox.blocked:
            outbox.flush(self.time(), self.fan_out.cursor)

    def take_off(self) -> None:
        """Off the live path with those that are too full. To be called only where there are some."""
        self._overflow(self.fan_out.take_overflowed())

    def _set_timer(self, outbox: Outbox) -> None:
        self.forget(outbox)
        due = outbox.conflater.due_at() if outbox.conflater is not None else None
        if due is not None:
            self._timers[outbox] = self._loop.call_later(due - self.time(), self.mark, outbox)
