"""What happens because time has passed: heartbeats, pings, and the end of those who do not authorize or do not read."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import anyio
from msgspec import UNSET

from watcher.model.times import format_rfc3339
from watcher.relay import wire
from watcher.relay.connection import Connection
from watcher.relay.connections import ConnectionRegistry
from watcher.relay.http.auth import EVERYTHING
from watcher.relay.http.routes import Sees
from watcher.relay.live_path import Flusher
from watcher.relay.messages import AUTH_TIMEOUT, SLOW_CONSUMER, Heartbeat
from watcher.relay.provider_statuses import as_bound
from watcher.relay.settings import RelayTuning

T = TypeVar("T", bound=Hashable)

MOST_HEARTBEATS = 100
"""In one look: some milliseconds."""


class DueQueue(Generic[T]):
    """Who is due: everybody at the same interval (seconds), so that a look costs only those whose time has come.

    Who was due enters again, or is not due any more. Pure; `now` is monotonic seconds.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._due: dict[T, float] = {}

    def enter(self, who: T, now: float) -> None:
        """Due one interval from now."""
        self._due.pop(who, None)  # what is set anew would keep its place
        self._due[who] = now + self._interval

    def leave(self, who: T) -> None:
        """Never due again. Whoever stayed until then would be kept in memory."""
        self._due.pop(who, None)

    def hasten(self, now: float) -> None:
        """Everybody is due now, in the same order."""
        self._due = dict.fromkeys(self._due, now)

    def due(self, now: float, most: int | None = None) -> list[T]:
        """Everybody whose time has come, once each; not more than `most` at once."""
        found: list[T] = []
        for who, when in self._due.items():
            if when > now or len(found) == most:
                break
            found.append(who)
        for who in found:
            del self._due[who]
        return found


class Timers:
    """One look at everybody at a fixed pace."""

    def __init__(
        self,
        connections: ConnectionRegistry,
        flusher: Flusher,
        tuning: RelayTuning,
        wall: Callable[[], int],
        sees: Sees,
    ) -> None:
        """`wall`: microseconds. `sees`: see http.routes."""
        self._connections = connections
        self._flusher = flusher
        self._tuning = tuning
        self._wall = wall
        self._sees = sees
        self._auths: DueQueue[Connection] = DueQueue(tuning.auth)
        self._newcomers: DueQueue[Connection] = DueQueue(tuning.first_heartbeat)
        self._heartbeats: DueQueue[Connection] = DueQueue(tuning.heartbeat)
        self._pings: DueQueue[Connection] = DueQueue(tuning.ping)
        self._news = False
        self._news_at = 0.0
        """When heartbeats may come early again."""

    def enter(self, connection: Connection, now: float) -> None:
        """A new connection."""
        self._pings.enter(connection, now)
        if connection.session.rights is None:
            self._auths.enter(connection, now)
        else:
            self.authorized(connection)

    def leave(self, connection: Connection) -> None:
        for queue in (self._auths, self._newcomers, self._heartbeats, self._pings):
            queue.leave(connection)

    def authorized(self, connection: Connection) -> None:
        now = self._flusher.time()
        self._newcomers.enter(connection, now)
        self._heartbeats.enter(connection, now)

    async def run(self) -> None:
        while True:
            await anyio.sleep(self._tuning.sweep)
            now = self._flusher.time()
            for connection in self._auths.due(now):
                if connection.session.rights is None:
                    self._connections.drop(connection, AUTH_TIMEOUT)
            for connection in self._newcomers.due(now, MOST_HEARTBEATS):
                if connection.outbox.open:
                    self.heartbeat(connection)
            self._look_for_news(now)
            for connection in self._heartbeats.due(now, MOST_HEARTBEATS):
                self._repeat(self._heartbeats, connection, now, self.heartbeat)
            for connection in self._pings.due(now):
                self._repeat(self._pings, connection, now, self._ping)
            for connection in self._connections.stalled(now):
                self._connections.drop(connection, SLOW_CONSUMER, "stalled")
            self._end_stuck(now)

    def _look_for_news(self, now: float) -> None:
        """Everybody learns at once that a provider is in another state."""
        # Looked at in a pause too: a usual heartbeat may have shown a state that is over when the pause ends.
        self._news |= self._flusher.fan_out.providers.news(self._wall(), now)
        if self._news and now >= self._news_at:
            self._news, self._news_at = False, now + self._tuning.news
            self._heartbeats.hasten(now)

    def _repeat(
        self, queue: DueQueue[Connection], connection: Connection, now: float, do: Callable[[Connection], None]
    ) -> None:
        if connection.outbox.open:
            do(connection)
            queue.enter(connection, now)

    def _ping(self, connection: Connection) -> None:
        self._connections.put(connection, wire.KEEPALIVE)

    def _end_stuck(self, now: float) -> None:
        """Who reads the log and comes no nearer, or whose snapshot was taken away."""
        for connection in list(self._connections.reading):
            if connection.stuck(self._flusher.fan_out.cursor, now):
                self._connections.drop(connection, SLOW_CONSUMER, "astray")
            elif connection.pages is not None and connection.pages.over:
                self._connections.drop(connection, SLOW_CONSUMER, "outlived")

    def heartbeat(self, connection: Connection) -> None:
        """Report how far everything was sent. To whom nothing is sent it names no place: who kept it would miss what comes."""
        if not connection.wants_heartbeat():
            return
        fan_out, outbox, rights = self._flusher.fan_out, connection.outbox, connection.session.rights
        fan_out.settle()
        heartbeat = Heartbeat(
            cursor=str(outbox.watermark(fan_out.cursor)) if connection.subscriptions else UNSET,
            sent=outbox.updates,
            conflated=outbox.conflated,
            lag_ms=self._lag(connection),
            time=format_rfc3339(self._wall()),
            providers={
                name: status if rights == EVERYTHING else as_bound(status, rights)
                for name, status in fan_out.providers.all(self._wall(), self._flusher.time())
                if rights is not None and self._sees(rights, name)
            },
        )
        self._connections.put(connection, wire.push(heartbeat))

    def _lag(self, connection: Connection) -> int:
        """Milliseconds since the oldest event was observed that waits for it."""
        oldest = connection.outbox.oldest_waiting(self._flusher.fan_out.observed_at)
        return 0 if oldest is None else max(0, (self._wall() - oldest) // 1000)
