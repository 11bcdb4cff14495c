"""Everybody on the stream: who comes, who leaves and why, and whose socket takes nothing."""

from collections.abc import Callable, Iterator
from typing import Literal

import msgspec
import structlog

from watcher.model.log import Cursor, GapReason
from watcher.relay import wire
from watcher.relay.connection import Connection
from watcher.relay.live_path import Flusher
from watcher.relay.messages import CloseReason, Lagging
from watcher.relay.outbox import Outbox
from watcher.relay.settings import RelayTuning

logger = structlog.get_logger()

DropCause = Literal["stalled", "astray", "outlived"] | GapReason
"""Why a slow connection was ended: the metric's label `reason`. For others that is the word in the close frame."""


class RelayStats(msgspec.Struct, frozen=True):
    """How it stands at one moment, for the metrics."""

    connections: int = 0
    accepted: int = 0
    sent: int = 0
    """Updates."""
    conflated: int = 0
    lagging: int = 0
    """Times that a connection left the live path because its outbox was full."""
    snapshots: int = 0
    stalled: int = 0
    """Connections that take nothing right now."""
    reading: int = 0
    """Connections that read the log right now."""
    refused: dict[str, int] = {}
    """Upgrades, and requests for another host, by reason."""
    dropped: dict[str, int] = {}
    """Connections that we ended, by reason."""
    log_errors: int = 0


class ConnectionRegistry:
    """The registry of all connections, by their outboxes, and what is counted about them."""

    def __init__(self, flusher: Flusher, tuning: RelayTuning, read_for: Callable[[Connection], None]) -> None:
        """`read_for`: somebody is to read the log for a connection that is off the live path."""
        self.read_for = read_for
        self.reserved = 0
        """Places taken: streams, and upgrades under way."""
        self.reading: set[Connection] = set()
        """Those that somebody reads the log for."""
        self._flusher = flusher
        self._tuning = tuning
        self._all: dict[Outbox, Connection] = {}
        self._blocked: dict[Connection, tuple[float, int]] = {}
        """Since when the kernel takes nothing of how many bytes."""
        self._accepted = 0
        self._sent = 0
        """Updates, by connections that are gone."""
        self._conflated = 0
        """Events, likewise."""
        self._lagging = 0
        self._snapshots = 0
        self._stalled = 0
        self._log_errors = 0
        self._refused: dict[str, int] = {}
        self._dropped: dict[str, int] = {}

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._all.values())

    def __len__(self) -> int:
        return len(self._all)

    # Who comes and leaves.

    def reserve(self) -> None:
        """A place for one that is to become a stream."""
        self.reserved += 1

    def release(self) -> None:
        self.reserved -= 1

    def add(self, connection: Connection) -> None:
        self._all[connection.outbox] = connection
        self._accepted += 1

    def remove(self, connection: Connection) -> None:
        """Nothing more is sent to it, from this moment on."""
        outbox = connection.outbox
        outbox.shut()
        if self._all.pop(outbox, None) is not None:
            self._sent += outbox.sent
            self._conflated += outbox.conflated
        self._blocked.pop(connection, None)
        self._flusher.fan_out.leave(outbox, connection.subscriptions)
        outbox.close()
        self._flusher.forget(outbox)

    def put(self, connection: Connection, frame: bytes) -> None:
        """A frame that is not an update."""
        self._flusher.put(connection.outbox, frame)

    def drop(self, connection: Connection, why: CloseReason, cause: DropCause | None = None) -> None:
        """End it and say why, in the log and the metrics too: a stalled client will hardly read the close frame."""
        if connection.outbox.open:
            reason = cause or why.reason
            self._dropped[reason] = self._dropped.get(reason, 0) + 1
            logger.info("relay.dropped", connection=connection.id, code=why.code, reason=why.reason, why=reason)
            self.close(connection, why)

    def close(self, connection: Connection, why: CloseReason) -> None:
        self._flusher.flush_last(connection.outbox)
        self.remove(connection)
        connection.hang_up(why)

    # Whose socket takes nothing.

    def block(self, connection: Connection) -> None:
        """The kernel did not take all of the last flush."""
        connection.outbox.block()
        self._blocked[connection] = (self._flusher.time(), connection.outbox.unsent)

    def unblock(self, connection: Connection) -> None:
        self._blocked.pop(connection, None)
        if connection.outbox.unblock():
            self._flusher.mark(connection.outbox)

    @property
    def blocked(self) -> int:
        return len(self._blocked)

    def stalled(self, now: float) -> list[Connection]:
        """Those of which the kernel took nothing for so long that they are to be ended."""
        found, self._stalled = [], 0
        for connection, (since, unsent) in list(self._blocked.items()):
            left = connection.outbox.unsent
            if left != unsent:
                self._blocked[connection] = (now, left)
            elif now - since >= self._tuning.stall:
                found.append(connection)
            else:
                self._stalled += now - since >= self._tuning.sweep
        return found

    # Who is off the live path.

    def start_reading(self, connection: Connection) -> bool:
        """False: somebody reads the log for it already."""
        if connection in self.reading:
            return False
        self.reading.add(connection)
        return True

    def stop_reading(self, connection: Connection) -> None:
        self.reading.discard(connection)

    def overflow(self, outboxes: list[Outbox]) -> None:
        """Off the live path with those: they are too full."""
        fan_out = self._flusher.fan_out
        for outbox in outboxes:
            if not outbox.live or not outbox.open:
                continue
            connection = self._all[outbox]
            fan_out.leave(outbox, connection.subscriptions)
            lagging = connection.overflow(fan_out.cursor, self._flusher.time())
            self._lagging += 1
            if lagging:
                self.put(connection, wire.push(Lagging(cursor=str(outbox.watermark(fan_out.cursor)))))
            self.read_for(connection)

    def change_log(self, before: Cursor, head: Cursor, reason: GapReason) -> None:
        """The log that was read up to `before` cannot be read on; another has its head at `head`."""
        for connection in self:
            outbox = connection.outbox
            ended = connection.session.end_without_gaps(reason)
            connection.change_log(before, head, reason)
            if ended:
                connection.rearrange()
                for frame in ended:
                    outbox.put(frame)
            if outbox.waiting or outbox.has_waiter:
                self._flusher.mark(outbox)

    # What is counted.

    def count_refusal(self, reason: str) -> None:
        self._refused[reason] = self._refused.get(reason, 0) + 1

    def count_snapshot(self) -> None:
        self._snapshots += 1

    def count_log_error(self) -> None:
        self._log_errors += 1

    def stats(self) -> RelayStats:
        """Added up from what the connections keep for themselves."""
        return RelayStats(
            connections=self.reserved,
            accepted=self._accepted,
            sent=self._sent + sum(outbox.sent for outbox in self._all),
            conflated=self._conflated + sum(outbox.conflated for outbox in self._all),
            lagging=self._lagging,
            snapshots=self._snapshots,
            stalled=self._stalled,
            reading=len(self.reading),
            refused=dict(self._refused),
            dropped=dict(self._dropped),
            log_errors=self._log_errors,
        )
