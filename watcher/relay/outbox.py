"""What waits for one connection, in order, and how far along the log it has been filled and emptied.

A connection is at one place of the log at a time. On the live path the fan-out puts events in as they are committed. Off
it whoever reads the log for the connection puts them in. Nothing here waits for a connection but `room`.
"""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable

from watcher.model.log import Cursor
from watcher.relay import wire
from watcher.relay.conflation import Conflater, FramedEvent
from watcher.relay.settings import RelayTuning
from watcher.relay.subscription import Subscription, interval_of, wanted_by_any


class Outbox:
    __slots__ = (
        "__weakref__",
        "_drained",
        "_transport",
        "_tuning",
        "blocked",
        "conflater",
        "controls",
        "descriptor",
        "direct",
        "flushed",
        "frames",
        "last_observed",
        "live",
        "open",
        "position",
        "sent",
        "size",
    )  # fmt: skip

    def __init__(
        self, tuning: RelayTuning, head: Cursor, transport: asyncio.WriteTransport, descriptor: int | None
    ) -> None:
        """`descriptor`: where bytes may be given to the kernel without a detour; None for TLS."""
        self.frames: list[bytes] = []
        self.size = 0
        """Bytes."""
        self.controls = 0
        """How many of the frames are not updates."""
        self.sent = 0
        """Events given to the socket."""
        self.conflater: Conflater | None = None
        self.open = True
        self.live = True
        self.position = head
        """Off the live path: everything before was put in here."""
        self.flushed = head
        """Everything before was given to the socket."""
        self.last_observed: int | None = None
        """Off the live path: wall-clock microseconds of the last event read."""
        self.blocked = False
        """The kernel did not take all of the last flush."""
        self.descriptor = descriptor
        self.direct = descriptor
        """The same while it is open and the kernel has taken everything."""
        self._transport = transport
        self._tuning = tuning
        self._drained: asyncio.Event | None = None
        """Set when there may be room, or when it is closed."""

    # Filled.

    def put(self, frame: bytes) -> None:
        """A frame that is not an update."""
        self.frames.append(frame)
        self.size += len(frame)
        self.controls += 1

    def accept(self, entry: FramedEvent, now: float, interval: float | None) -> None:
        """An event that is wanted; `interval` None when one of those that want it wants every one."""
        if self.conflater is not None:
            self.conflater.offer(entry, now, interval)
            return
        self.frames.append(entry.frame)
        self.size += len(entry.frame)

    def deliver(self, entry: FramedEvent, now: float, subscriptions: Iterable[Subscription]) -> None:
        """One event read from the log, if one of the subscriptions wants it from that place on."""
        event = entry.event
        wanting = [each for each in subscriptions if each.wants(event)]
        self.position = entry.cursor
        self.last_observed = event.observed_at
        if wanting:
            self.accept(entry, now, interval_of(wanting))

    def queue(self, frames: list[bytes], size: int, ready: deque["Outbox"], overflowed: list["Outbox"]) -> None:
        """Updates of so many bytes. HOT: once for each connection that is not written to directly."""
        if not self.frames:
            ready.append(self)
        self.frames += frames
        self.size += size
        if self.size > self._tuning.outbox_bytes:
            overflowed.append(self)

    # Emptied.

    @staticmethod
    def write_all(
        outboxes: Iterable["Outbox"],
        frames: list[bytes],
        cursor: Cursor,
        ready: deque["Outbox"],
        overflowed: list["Outbox"],
    ) -> None:
        """Updates up to `cursor`, to all of these: a system call each, however many frames. HOT: the one call is `write`.

        Whoever cannot be written to gets them into the outbox.
        """
        write = os.write
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        count, size = len(frames), len(data)
        for outbox in outboxes:
            if outbox.direct is None or outbox.frames:
                outbox.queue(frames, size, ready, overflowed)
                continue
            try:
                taken = write(outbox.direct, data)
            except OSError:
                taken = 0
            outbox.sent += count
            outbox.flushed = cursor
            if taken != size:
                outbox.give_rest(data[taken:])

    def flush(self, now: float, head: Cursor) -> None:
        """Give the kernel everything that may go now. Not to be called while it is blocked. HOT."""
        data = self.take(now, head) if self.frames or self.conflater is not None else b""
        taken = 0
        # The transport does the same at three times the price. It is empty here, or we were blocked; and the descriptor
        # is ours while we are open, since `connection_lost` comes before it is closed.
        if self.descriptor is not None and data:
            try:
                taken = os.write(self.descriptor, data)
            except OSError:
                taken = 0
        if taken != len(data):
            self.give_rest(data[taken:])
        if self._drained is not None and not self.blocked:
            self._wake()

    def take(self, now: float, head: Cursor) -> bytes:
        """Everything that may go now, as one piece. `head`: how far the fan-out is. HOT."""
        frames, self.frames = self.frames, []
        self.sent += len(frames) - self.controls
        self.controls = self.size = 0
        self.flushed = head if self.live else self.position
        if self.conflater is not None:
            for entry, cursor in self.conflater.take(now):
                frames.append(
                    entry.frame if cursor is entry.cursor else wire.event(str(cursor), entry.event, entry.label)
                )
                self.sent += 1
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def give_rest(self, data: bytes) -> None:
        """What the kernel did not take, to the transport, which finds out why."""
        with contextlib.suppress(RuntimeError):  # it is closing: one that leaves must not end the round
            self._transport.write(data)

    # The socket.

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not taken."""
        return self._transport.get_write_buffer_size()

    def block(self) -> None:
        """The kernel did not take everything."""
        self.direct = None
        self.blocked = True

    def unblock(self) -> bool:
        """It has, meanwhile. Whether there may be something to flush now."""
        self.blocked = False
        if self.open:
            self.direct = self.descriptor
        if self.waiting or self.conflater is not None:  # what was held back may have become due meanwhile
            return True
        self._wake()
        return False

    def shut(self) -> None:
        """Nothing more is sent: the descriptor may be another's at once."""
        self.open = False
        self.direct = self.descriptor = None

    def close(self) -> None:
        """Whoever waits for room goes on and finds it shut."""
        self.shut()
        self.frames.clear()
        self._wake()

    async def room(self) -> None:
        """Until the socket has taken everything and not too much is held back; or until it is closed."""
        while self.open and (self.waiting or self.crowded or self.blocked):
            self._drained = asyncio.Event()
            await self._drained.wait()

    @property
    def has_waiter(self) -> bool:
        """Somebody waits for room."""
        return self._drained is not None

    def _wake(self) -> None:
        if self._drained is not None:
            self._drained.set()
            self._drained = None

    # How much it holds.

    @property
    def waiting(self) -> bool:
        """Something could be sent if the socket took it."""
        return bool(self.frames) or (self.conflater is not None and self.conflater.ready)

    @property
    def crowded(self) -> bool:
        """More is held back than may be: no more is read before some of it was sent."""
        return self.conflater is not None and self.conflater.full

    @property
    def full(self) -> bool:
        return self.size > self._tuning.outbox_bytes or (self.conflater is not None and self.conflater.full)

    @property
    def enough(self) -> bool:
        """Whoever reads the log for it stops here until this was sent."""
        return (
            self.size >= self._tuning.replay_bytes
            or self.crowded
            or (self.conflater is not None and self.conflater.ready)
        )

    def conflate(self, subscriptions: list[Subscription]) -> None:
        """After a subscription came, changed or went: these stand."""
        if self.conflater is None and any(each.conflate for each in subscriptions):
            self.conflater = Conflater(self._tuning.outbox_bytes, self._tuning.conflated_bytes)
        if self.conflater is not None:
            self.conflater.keep(lambda event: wanted_by_any(subscriptions, event))

    # Its place in the log.

    def watermark(self, head: Cursor) -> Cursor:
        """All that matches before it was put in here."""
        reached = head if self.live else self.position
        return reached if self.conflater is None else self.conflater.watermark(reached)

    def begin(self, start: Cursor, *, alone: bool) -> Cursor:
        """A subscription begins there, the only one or not; where the connection has to go on from."""
        self.position = start if alone else self.position.least(start)
        return self.position if self.conflater is None else self.conflater.watermark(self.position)

    def move(self, cursor: Cursor) -> None:
        """Off the live path: everything before was put in here."""
        self.position = cursor

    def leave(self, head: Cursor) -> None:
        """Off the live path, everything before `head` being in here or sent."""
        self.live = False
        self.position = head

    def join(self) -> None:
        """Onto the live path: it has reached the head."""
        self.live = True
        self.last_observed = None

    def overflow(self) -> bool:
        """Off the live path, back to what the socket has taken; whether the client has to be sent `lagging`.

        Replies to commands stay, since the log does not hold them.
        """
        lags_already = any(isinstance(frame, wire.LiveFrame) for frame in self.frames)
        self.live = False
        self.position = self.flushed
        self.frames = [frame for frame in self.frames if isinstance(frame, wire.ControlFrame)]
        if self.conflater is not None:
            self.conflater.rewind()
        self.controls = len(self.frames)
        self.size = sum(map(len, self.frames))
        return not lags_already

    def change_log(self, before: Cursor, head: Cursor, *, restarts: bool) -> None:
        """The log that was read up to `before` cannot be read on, and another has its head at `head`.

        What waits is true and may go. `restarts`: some subscription is to be served anew, and until the first one is the
        connection stays where it was; without one it stands at that head at once.
        """
        self.position = self.watermark(before)
        if self.conflater is not None:
            self.conflater.give_up()
        self.last_observed = None
        if restarts:
            self.live = False
        else:
            self.position = self.flushed = head

    # What heartbeats report.

    @property
    def updates(self) -> int:
        """Sent, and those that wait."""
        return self.sent + len(self.frames) - self.controls

    @property
    def conflated(self) -> int:
        """Events that were replaced by a later one of their key."""
        return 0 if self.conflater is None else self.conflater.conflated

    def oldest_waiting(self, observed_at: Callable[[bytes], int | None]) -> int | None:
        """Wall-clock microseconds of the oldest event that the client has not got; None when there is none.

        `observed_at`: when the event in a frame of the live path was observed.
        """
        if self.conflater is not None and len(self.conflater):
            return self.conflater.oldest()
        if self.live and len(self.frames) > self.controls:
            found = (observed_at(frame) for frame in self.frames)
            return next((time for time in found if time is not None), None)
        return self.last_observed
