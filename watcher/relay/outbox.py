"""What one connection still has to be sent, and how far along the log it is. Pure: the server does the sending.

A connection is at one place of the log at a time. On the live path the hub puts events into its outbox as they are
committed. It leaves that path to serve a new subscription, or because its outbox was full, reads the log on its own,
and joins again in the loop turn in which it has reached the hub.
"""

from collections.abc import Iterable

from watcher.model.keys import Key
from watcher.model.log import Cursor
from watcher.relay import wire
from watcher.relay.conflation import Conflater, FramedEvent
from watcher.relay.session import Session, Subscribe, Subscription
from watcher.relay.settings import RelayTuning


class Link:
    """One connection's outbox and position."""

    __slots__ = (
        "__weakref__",
        "asked",
        "authorized_at",
        "conflater",
        "controls",
        "distance",
        "flushed",
        "frames",
        "lagging",
        "limit",
        "live",
        "nearest",
        "nearest_at",
        "oldest",
        "open",
        "pace",
        "paging",
        "position",
        "reading",
        "reason",
        "renewals",
        "sent",
        "session",
        "size",
    )  # fmt: skip

    def __init__(self, session: Session, pace: RelayTuning, head: Cursor) -> None:
        self.session = session
        self.pace = pace
        self.limit = pace.outbox
        self.frames: list[bytes] = []
        self.size = 0
        self.controls = 0
        """How many of the frames are not updates."""
        self.sent = 0
        """Updates given to the socket."""
        self.conflater: Conflater | None = None
        self.open = True
        self.live = True
        self.lagging = False
        """The client was told that it is."""
        self.position = head
        """Off the live path: everything before was put into the outbox."""
        self.flushed = head
        """Everything before was given to the socket."""
        self.asked: list[Subscribe] = []
        """Subscriptions still to be opened, in order."""
        self.renewals: list[Subscription] = []
        """Subscriptions of another log, still to be served anew from this one, in order."""
        self.reason = ""
        """Why that is."""
        self.reading = False
        """Somebody is reading the log for it."""
        self.paging = False
        self.oldest: int | None = None
        """Off the live path: wall-clock microseconds of the last event read."""
        self.distance = 0
        """Events that it was behind when it left the live path."""
        self.nearest = 0
        self.nearest_at = 0.0

    @property
    def subscriptions(self) -> Iterable[Subscription]:
        return (each for each in self.session.subscriptions.values() if each.opened)

    @property
    def waiting(self) -> bool:
        """Something could be sent if the socket took it."""
        return bool(self.frames) or (self.conflater is not None and self.conflater.ready)

    @property
    def crowded(self) -> bool:
        """More is held back than may be: no more is read before some of it was sent."""
        return self.conflater is not None and self.conflater.full

    @property
    def conflated(self) -> int:
        """Events that were replaced by a later one of their key."""
        return 0 if self.conflater is None else self.conflater.conflated

    def put(self, frame: bytes) -> None:
        """A frame that is not an update."""
        self.frames.append(frame)
        self.size += len(frame)
        self.controls += 1

    def deliver(self, entry: FramedEvent, now: float) -> bool:
        """One event read from the log, if one of the subscriptions wants it from that place on."""
        event = entry.event
        wanting = [each for each in self.subscriptions if _begun(each, entry) and each.matcher.matches(event.key)]
        self.position = entry.cursor
        if wanting:
            self.accept(entry, now, interval_of(wanting))
        return bool(wanting)

    def accept(self, entry: FramedEvent, now: float, interval: float | None) -> None:
        """An event that is wanted; `interval` None when one of those that want it wants every one."""
        if self.conflater is not None:
            self.conflater.offer(entry, now, interval)
            return
        self.frames.append(entry.frame)
        self.size += len(entry.frame)

    @property
    def full(self) -> bool:
        return self.size > self.pace.outbox or (self.conflater is not None and self.conflater.full)

    def overflow(self) -> bool:
        """Whether the client is still to be told.

        Back to what the socket has taken; answers to commands stay, since the log cannot tell them again.
        """
        told = any(isinstance(frame, wire.LiveFrame) for frame in self.frames)
        self.position = self.flushed
        self.frames = [frame for frame in self.frames if isinstance(frame, wire.ControlFrame)]
        if self.conflater is not None:
            self.conflater.rewind()
        self.controls = len(self.frames)
        self.size = sum(map(len, self.frames))
        for subscription in self.subscriptions:  # one that began further on does so again
            subscription.start = self.flushed.greatest(subscription.start or self.flushed)
        self.live = False
        self.lagging = True
        return not told

    def take(self, now: float, head: Cursor) -> bytes:
        """Everything that may go now, as one piece. `head`: how far the hub is."""
        frames, self.frames = self.frames, []
        self.sent += len(frames) - self.controls
        self.controls = self.size = 0
        self.flushed = head if self.live else self.position
        if self.conflater is not None:
            for entry, cursor in self.conflater.take(now):
                frames.append(entry.frame if cursor is entry.cursor else wire.update(str(cursor), entry.event.data))
                self.sent += 1
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def watermark(self, head: Cursor) -> Cursor:
        """All that matches before it was put into the outbox."""
        reached = head if self.live else self.position
        return reached if self.conflater is None else self.conflater.watermark(reached)

    def rearrange(self) -> None:
        """After a subscription came, changed or went."""
        subscriptions = list(self.subscriptions)
        if self.conflater is None and any(each.conflate for each in subscriptions):
            self.conflater = Conflater(self.pace.outbox, self.pace.held)
        if self.conflater is not None:
            self.conflater.keep(lambda key: _wanted(subscriptions, key))

    def begin(self, subscription: Subscription, start: Cursor) -> Cursor:
        """Its data begins at `start`; where the connection has to go on from."""
        subscription.start = start
        alone = all(each is subscription or each in self.renewals for each in self.subscriptions)
        self.position = start if alone else self.position.least(start)
        return self.position if self.conflater is None else self.conflater.watermark(self.position)

    def join(self) -> None:
        """It has reached the hub."""
        self.live = True
        self.oldest = None

    def leave(self, head: Cursor, now: float) -> None:
        """Off the live path, everything before `head` being in the outbox or sent."""
        self.live = False
        self.position = head
        for subscription in self.subscriptions:
            subscription.start = head
        self.measure(head, now)

    def turn(self, before: Cursor, head: Cursor, reason: str) -> None:
        """The log that was read up to `before` cannot be read on, and what stands there now has its head at `head`.

        What waits in the outbox is true and may go. Until the first subscription is served anew the connection stays
        where it was, and says so in its heartbeats.
        """
        self.position = self.watermark(before)
        self.renewals, self.reason = list(self.subscriptions), reason
        if self.conflater is not None:
            self.conflater.give_up()
        self.oldest = None
        if self.renewals:
            self.live = False
        else:
            self.position = self.flushed = head

    def measure(self, head: Cursor, now: float) -> None:
        """From here on it has to come nearer."""
        self.distance = self.nearest = self.position.behind(head)
        self.nearest_at = now

    def astray(self, head: Cursor, now: float) -> bool:
        """It reads the log and does not get anywhere."""
        if self.live or self.paging or self.renewals:
            return False
        distance = self.position.behind(head)
        if distance < self.nearest:
            self.nearest, self.nearest_at = distance, now
        return now - self.nearest_at >= self.pace.astray or distance - self.distance > self.pace.astray_events


def interval_of(wanting: Iterable[Subscription]) -> float | None:
    """Of several that want one event the most demanding decides: every one, else the shortest interval."""
    intervals = [each.interval if each.conflate else None for each in wanting]
    found = [interval for interval in intervals if interval is not None]
    return min(found) if len(found) == len(intervals) else None


def _begun(subscription: Subscription, entry: FramedEvent) -> bool:
    start = subscription.start
    return start is None or entry.event.position >= start.positions[entry.event.partition]


def _wanted(subscriptions: Iterable[Subscription], key: Key) -> bool:
    return any(each.matcher.matches(key) for each in subscriptions)
