"""What happens because time has passed: heartbeats, pings, and the end of those who do not authorize or do not read."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import anyio

from watcher.model.times import format_rfc3339
from watcher.relay import wire
from watcher.relay.catch_up import CatchUp
from watcher.relay.flusher import Delivery
from watcher.relay.http.routes import Sees
from watcher.relay.messages import AUTH_TIMEOUT, SLOW_CONSUMER, Heartbeat, ProviderStatus
from watcher.relay.settings import RelayTuning
from watcher.relay.websocket import Peer

T = TypeVar("T", bound=Hashable)


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

    def due(self, now: float) -> list[T]:
        """Everybody whose time has come, once each."""
        found = []
        for who, when in self._due.items():
            if when > now:
                break
            found.append(who)
        for who in found:
            del self._due[who]
        return found


class Timers:
    """One look at everybody at a fixed pace."""

    def __init__(self, delivery: Delivery, pace: RelayTuning, wall: Callable[[], int], sees: Sees) -> None:
        """`wall`: microseconds. `sees`: see Plain."""
        self._delivery = delivery
        self._pace = pace
        self._wall = wall
        self._sees = sees
        self._auths: DueQueue[Peer] = DueQueue(pace.auth)
        self._heartbeats: DueQueue[Peer] = DueQueue(pace.heartbeat)
        self._pings: DueQueue[Peer] = DueQueue(pace.ping)

    def enter(self, peer: Peer, now: float) -> None:
        """A new connection."""
        self._pings.enter(peer, now)
        if peer.session.rights is None:
            self._auths.enter(peer, now)
        else:
            self._heartbeats.enter(peer, now)

    def leave(self, peer: Peer) -> None:
        for queue in (self._auths, self._heartbeats, self._pings):
            queue.leave(peer)

    def authorized(self, peer: Peer) -> None:
        self._heartbeats.enter(peer, self._delivery.time())

    async def keep(self, replays: CatchUp) -> None:
        while True:
            await anyio.sleep(self._pace.sweep)
            now = self._delivery.time()
            for peer in self._auths.due(now):
                if peer.session.rights is None:
                    self._delivery.drop(peer, AUTH_TIMEOUT)
            for peer in self._heartbeats.due(now):
                self._turn(self._heartbeats, peer, now, self.beat)
            for peer in self._pings.due(now):
                self._turn(self._pings, peer, now, self._ping)
            self._end_stalled(now)
            for peer in list(replays.readers):
                if peer.astray(self._delivery.hub.cursor, now):
                    self._delivery.drop(peer, SLOW_CONSUMER, "astray")
                elif peer.pages is not None and peer.pages.over:
                    self._delivery.drop(peer, SLOW_CONSUMER, "outlived")
            self._delivery.stats.reading = len(replays.readers)

    def _turn(self, queue: DueQueue[Peer], peer: Peer, now: float, do: Callable[[Peer], None]) -> None:
        if peer.open:
            do(peer)
            queue.enter(peer, now)

    def _ping(self, peer: Peer) -> None:
        self._delivery.put(peer, wire.KEEPALIVE)

    def _end_stalled(self, now: float) -> None:
        """Who takes nothing."""
        stalled = 0
        for peer, (since, size) in list(self._delivery.paused.items()):
            left = peer.connection.transport.get_write_buffer_size()
            if left != size:
                self._delivery.paused[peer] = (now, left)
            elif now - since >= self._pace.stall:
                self._delivery.drop(peer, SLOW_CONSUMER, "stalled")
            else:
                stalled += now - since >= self._pace.sweep
        self._delivery.stats.stalled = stalled

    def beat(self, peer: Peer) -> None:
        """Tell how far everything was sent. Between the pages of a snapshot there is nothing to tell."""
        peer.beat_due = peer.paging
        if peer.paging:
            return
        self._delivery.hub.settle()
        rights = peer.session.rights
        heartbeat = Heartbeat(
            cursor=str(peer.watermark(self._delivery.hub.cursor)),
            sent=peer.sent + len(peer.frames) - peer.controls,
            conflated=peer.conflated,
            lag_ms=self._lag(peer),
            time=format_rfc3339(self._wall()),
            providers={
                name: ProviderStatus(health.last_success, health.paused_until, health.budget_used)
                for name, health in self._delivery.hub.health.items()
                if rights is not None and self._sees(rights, name)
            },
        )
        self._delivery.put(peer, wire.push(heartbeat))

    def _lag(self, peer: Peer) -> int:
        oldest = peer.oldest
        if peer.conflater is not None and len(peer.conflater):
            oldest = peer.conflater.oldest()
        elif peer.live and len(peer.frames) > peer.controls:
            found = (self._delivery.hub.told_at(frame) for frame in peer.frames)
            oldest = next((told for told in found if told is not None), None)
        return 0 if oldest is None else max(0, (self._wall() - oldest) // 1000)
