"""The live path: one follower of the log for everybody. Pure; the server feeds it and flushes what it marks.

The frame of an event is made once. As long as events go to the same connections they are kept as one round, which the
server deals out straight to the sockets of all whose outbox is empty. Whatever would disturb that order (an answer to
a command, somebody who joins or leaves, an event for others) first settles the round: puts references to its frames
into the outboxes. So a connection joins or leaves between two events and never within one.
"""

from collections import deque
from typing import Generic, TypeVar

from watcher.model.events import ProviderHealth
from watcher.model.log import Commit, Cursor, Published
from watcher.relay import wire
from watcher.relay.conflation import FramedEvent
from watcher.relay.outbox import Link
from watcher.relay.subscription import Subscription, SubscriptionIndex, interval_of

KEPT = 512
"""Events kept for connections that are nearly there, so that they need not look into the journal."""

L = TypeVar("L", bound=Link)
Recipients = tuple[tuple[L, ...], tuple[tuple[L, float | None], ...]]
"""Who gets a key: those that get every event, and those with a conflater and their interval."""


class FanOut(Generic[L]):
    """The head of the log as this process knows it, and who is on the live path."""

    def __init__(self, head: Cursor) -> None:
        self.cursor = head
        """Everything before is in the outboxes of all that are live and want it, or in the round."""
        self.health: dict[str, ProviderHealth] = {}
        self.marked: deque[L] = deque()
        """Links with something to send that they did not have at the last flush."""
        self.overflowed: list[L] = []
        """Links whose outbox became too full; the server takes them off the live path."""
        self.round: list[bytes] = []
        """Frames for the links that were not dealt them yet. Replaced, never emptied."""
        self._links: tuple[L, ...] = ()
        self._dealt = 0
        self._groups: dict[tuple[L, ...], tuple[L, ...]] = {}
        """One tuple for all keys that the same links get, until somebody joins or leaves."""
        self._recent: deque[FramedEvent] = deque()
        self._since = head
        """Everything from here on is among the recent events."""
        self._index: SubscriptionIndex[tuple[L, Subscription], Recipients[L]] = SubscriptionIndex(self._found)

    def join(self, link: L) -> None:
        self._regroup()
        for subscription in link.subscriptions:
            self._index.add((link, subscription), subscription.matcher)

    def leave(self, link: L) -> None:
        self._regroup()
        for subscription in link.subscriptions:
            self._index.remove((link, subscription))

    def drop(self, link: L, subscription: Subscription) -> None:
        self._regroup()
        self._index.remove((link, subscription))

    def add(self, link: L, subscription: Subscription) -> None:
        self._regroup()
        self._index.add((link, subscription), subscription.matcher)

    def publish(self, event: Published, now: float) -> int:
        """Give one event to all that want it; how many those were."""
        self.cursor = cursor = self.cursor.after(event.partition, event.position)
        entry = FramedEvent(event, cursor, wire.update(str(cursor), event.data))
        self._keep(entry)
        every, conflating = self._index.find(event.key)
        if every:
            self._give(every, entry.frame)
        for link, interval in conflating:
            link.accept(entry, now, interval)
            self.marked.append(link)
            if link.full:
                self.overflowed.append(link)
        return len(every) + len(conflating)

    def _give(self, links: tuple[L, ...], frame: bytes) -> None:
        if links is not self._links or self._dealt:
            self.settle()
            if self.marked:  # those would wait for the end of a new round, and of the next one
                for link in links:
                    self.queue(link, [frame], len(frame))
                return
            self._links = links
        self.round.append(frame)

    def deal(self, most: int) -> tuple[L, ...]:
        """The next links that get the round, at once and in order; none when everybody has it."""
        first = self._dealt
        links = self._links[first : first + most]
        self._dealt = first + len(links)
        if self._dealt == len(self._links):
            self._end_round()
        return links

    @property
    def dealing(self) -> bool:
        """Some have the round and some do not."""
        return self._dealt > 0

    def settle(self) -> None:
        """The rest of the round, into the outboxes."""
        frames, links = self.round, self._links[self._dealt :]
        self._end_round()
        size = sum(map(len, frames))
        if frames:
            for link in links:
                self.queue(link, frames, size)

    def queue(self, link: L, frames: list[bytes], size: int) -> None:
        """Updates of so many bytes, into one outbox."""
        if not link.frames:
            self.marked.append(link)
        link.frames += frames
        link.size += size
        if link.size > link.limit:
            self.overflowed.append(link)

    def _end_round(self) -> None:
        self.round, self._links, self._dealt = [], (), 0

    def _regroup(self) -> None:
        self.settle()
        self._groups.clear()

    def advance(self, commit: Commit) -> None:
        """All events of the commit were published."""
        self.cursor = commit.cursor
        for health in commit.health:
            self.health[health.provider] = health

    def recent(self, position: Cursor) -> list[FramedEvent] | None:
        """Everything from `position` to the hub, if it is all still at hand."""
        if not position.reaches(self._since):
            return None
        places = position.positions
        return [entry for entry in self._recent if entry.event.position >= places[entry.event.partition]]

    def told_at(self, frame: bytes) -> int | None:
        """When the event in that very frame was observed, wall-clock microseconds; None when it is long gone."""
        return next((entry.event.observed_at for entry in self._recent if entry.frame is frame), None)

    def _keep(self, entry: FramedEvent) -> None:
        self._recent.append(entry)
        if len(self._recent) > KEPT:
            gone = self._recent.popleft()
            self._since = self._since.after(gone.event.partition, gone.event.position)

    def _found(self, held: list[tuple[L, Subscription]]) -> Recipients[L]:
        every: dict[L, None] = {}
        wanting: dict[L, list[Subscription]] = {}
        for link, subscription in held:
            if link.conflater is None:
                every[link] = None
            else:
                wanting.setdefault(link, []).append(subscription)
        group = tuple(every)
        mixed = tuple((link, interval_of(each)) for link, each in wanting.items())
        return self._groups.setdefault(group, group), mixed
