"""Connections off the live path: each is served what it asked for, and reads the log until it has reached the hub."""

import asyncio
from collections.abc import Callable

import anyio
import anyio.abc
import anyio.lowlevel
import structlog
from msgspec import UNSET

from watcher.model.log import Commit, Cursor, Expired, GapReason, JournalError, Published, SnapshotRevoked, Unavailable
from watcher.relay import wire
from watcher.relay.budgets import ReadQueue
from watcher.relay.conflation import FramedEvent
from watcher.relay.fan_out import FanOut
from watcher.relay.flusher import Delivery
from watcher.relay.log_follower import following
from watcher.relay.messages import JOURNAL_AWAY, SLOW_CONSUMER, Live, SnapshotPage
from watcher.relay.session import OpenSubscription
from watcher.relay.settings import RelayTuning
from watcher.relay.snapshots import SnapshotPages, SnapshotReader
from watcher.relay.subscription import Subscription
from watcher.relay.websocket import Peer

LOOKED = 64
"""Events of a replay between two turns of the loop."""

logger = structlog.get_logger()


class CatchUp:
    """The readers of the log: one task for each connection that is behind, and none for the others."""

    def __init__(
        self,
        delivery: Delivery,
        snapshots: SnapshotReader,
        pace: RelayTuning,
        tasks: anyio.abc.TaskGroup,
        beat: Callable[[Peer], None],
    ) -> None:
        """`beat`: the heartbeat that had to wait for the pages of a snapshot."""
        self.readers: set[Peer] = set()
        self._delivery = delivery
        self._snapshots = snapshots
        self._log = snapshots.log
        self._budget = snapshots.budget
        self._pace = pace
        self._tasks = tasks
        self._beat = beat

    def read_for(self, peer: Peer) -> None:
        if not peer.reading:
            peer.reading = True
            self._tasks.start_soon(self._read, peer)

    async def _read(self, peer: Peer) -> None:
        """Serve what was asked for, then read the log until the hub is reached."""
        self.readers.add(peer)
        try:
            while peer.open:
                await self._emptied(peer)
                if peer.renewals:
                    await self._renew(peer)
                elif peer.asked:
                    await self._open(peer, peer.asked.pop(0))
                elif peer.live or await self._catch_up(peer):
                    return
        except Expired as problem:
            self._delivery.drop(peer, SLOW_CONSUMER, problem.reason)
        except SnapshotRevoked:
            self._delivery.drop(peer, SLOW_CONSUMER, "outlived")
        finally:
            peer.reading = False
            self.readers.discard(peer)

    async def _emptied(self, peer: Peer) -> None:
        """The socket has taken everything, and not too much is held back; or the connection has ended."""
        while peer.open and (peer.waiting or peer.crowded or peer.connection.paused):
            peer.wake = asyncio.Event()
            await peer.wake.wait()

    async def _open(self, peer: Peer, asked: OpenSubscription) -> None:
        try:
            await self._begin(peer, asked)
        except Unavailable as problem:
            self._refuse(peer, asked, problem)

    def _refuse(self, peer: Peer, asked: OpenSubscription, problem: Unavailable) -> None:
        text = f"the journal does not answer: {problem}"
        self._delivery.put(peer, peer.session.not_subscribed(asked, "internal", text))

    async def _begin(self, peer: Peer, asked: OpenSubscription) -> None:
        session, subscription, hub = peer.session, asked.subscription, self._delivery.hub
        bounds = await self._log.bounds()
        reason = None
        if asked.cursor is not None:
            if asked.cursor.epoch == bounds.head.epoch and len(asked.cursor.positions) != len(bounds.head.positions):
                text = "not a cursor of this log: it has another number of positions"
                self._delivery.put(peer, session.not_subscribed(asked, "bad_cursor", text))
                return
            reason = bounds.gap(asked.cursor)
            if reason is not None and subscription.without_gaps:
                text = f"the log cannot be read from there: {reason}"
                self._delivery.put(peer, session.not_subscribed(asked, "unrecoverable_cursor", text))
                return
        recovered = asked.cursor is not None and reason is None
        pages = None
        if not recovered and (asked.snapshot or reason is not None):
            pages = await self._snapshots.open(subscription.wanted)
        try:
            start = pages.cursor if pages is not None else asked.cursor if recovered else bounds.head
            assert start is not None
            if not await self._is_read(hub, start):
                peer.asked.insert(0, asked)
                return
            if subscription.id not in session.subscriptions:
                text = "the token was replaced by one that allows nothing of it"
                self._delivery.put(peer, session.not_subscribed(asked, "forbidden", text))
                return
            self._leave(peer)
            before = peer.position
            cursor = peer.begin(subscription, start)
            peer.measure(hub.cursor, self._delivery.time())
            rows = 0 if pages is None else pages.rows
            self._delivery.put(peer, session.subscribed(asked, cursor, recovered=recovered, rows=rows, reason=reason))
            peer.rearrange()
            self._delivery.stats.replays += recovered
            # One reading of the log serves all subscriptions of a connection: only what lies before it is read for this.
            session.charge(rows if pages is not None else start.behind(before), self._delivery.time())
            if pages is not None:
                self._delivery.stats.snapshots += 1
                await self._page(peer, subscription, cursor, pages)
        finally:
            if pages is not None:
                pages.close()

    def _leave(self, peer: Peer) -> None:
        if peer.live:
            self._delivery.hub.leave(peer)
            peer.leave(self._delivery.hub.cursor, self._delivery.time())

    async def _renew(self, peer: Peer) -> None:
        """Serve the next subscription that another log left behind, as one whose cursor is not recoverable."""
        subscription, hub = peer.renewals[0], self._delivery.hub
        try:
            pages = await self._snapshots.open(subscription.wanted)
        except Unavailable as problem:
            self._delivery.log_is_away(problem)
            while peer.asked:
                self._refuse(peer, peer.asked.pop(0), problem)
            await anyio.sleep(0.5)
            return
        try:
            if not await self._is_read(hub, pages.cursor):
                return
            if subscription.id in peer.session.subscriptions:
                cursor = peer.begin(subscription, pages.cursor)
                peer.renewals.remove(subscription)
                self._delivery.stats.snapshots += 1
                await self._page(peer, subscription, cursor, pages, peer.reason)
            else:
                peer.renewals.remove(subscription)
                self._end_pages(peer)
        finally:
            pages.close()
        if hub is self._delivery.hub and not any(peer.subscriptions):
            peer.position = hub.cursor

    async def _is_read(self, hub: FanOut[Peer], start: Cursor) -> bool:
        """Whether the hub reads the log of that cursor, and has since; when it is still to turn to it, after a wait."""
        if hub is self._delivery.hub and hub.cursor.epoch != start.epoch:
            await self._progress()
            return False
        return hub is self._delivery.hub

    async def _page(
        self,
        peer: Peer,
        subscription: Subscription,
        cursor: Cursor,
        pages: SnapshotPages,
        reason: GapReason | None = None,
    ) -> None:
        hub, number, read, last = self._delivery.hub, 0, 0, False
        peer.paging, peer.pages = True, pages
        try:
            while not last:
                await self._emptied(peer)
                async with pages.page() as states:
                    # After a turn to another log it begins anew.
                    if (
                        not peer.open
                        or hub is not self._delivery.hub
                        or subscription.id not in peer.session.subscriptions
                    ):
                        break
                    number, read = number + 1, read + len(states)
                    rows = [row for row in states if subscription.matcher.matches(row.key)]
                    last = read >= pages.rows or not states
                    page = SnapshotPage(
                        subscription_id=subscription.id,
                        cursor=str(cursor),
                        page=number,
                        last=last,
                        reason=reason if number == 1 and reason is not None else UNSET,
                        data=wire.rows(rows),
                    )
                    self._delivery.put(peer, wire.push(page))
        except SnapshotRevoked:
            raise
        except JournalError as problem:  # half of it is nothing
            logger.warning("relay.snapshot_failed", problem=str(problem))
            self._delivery.drop(peer, JOURNAL_AWAY)
        finally:
            peer.pages = None
        if hub is self._delivery.hub:
            peer.measure(hub.cursor, self._delivery.time())
        self._end_pages(peer)

    def _end_pages(self, peer: Peer) -> None:
        """Those of one subscription; others of the connection may still have to begin anew."""
        peer.paging = bool(peer.renewals)
        if peer.beat_due and not peer.paging:
            self._beat(peer)

    async def _catch_up(self, peer: Peer) -> bool:
        """Read the log until there is something else to do; whether the live path was joined."""
        if self._join(peer):
            return True
        if not self._ahead(peer):
            await self._progress()  # the snapshot was newer than the hub is
            return False
        hub = self._delivery.hub
        try:
            async with following(self._log, peer.position) as commits:
                async for commit in commits:
                    whole = await self._replay(peer, commit, hub)
                    if not peer.open or peer.asked or self._join(peer):
                        return peer.live
                    if not whole:
                        break
                    await anyio.lowlevel.checkpoint()
        except Unavailable as problem:
            self._delivery.log_is_away(problem)
            await anyio.sleep(0.5)
        except Expired as problem:
            if problem.reason != "epoch_changed":
                raise
            if hub is self._delivery.hub:
                await self._progress()  # it will find the same
        return False

    def _ahead(self, peer: Peer) -> bool:
        """The hub has passed where this one is."""
        return any(
            far > near for near, far in zip(peer.position.positions, self._delivery.hub.cursor.positions, strict=True)
        )

    async def _replay(self, peer: Peer, commit: Commit, hub: FanOut[Peer]) -> bool:
        """Everything of a slice that the hub has already given to the others; whether that was all of it."""
        done, events = 0, commit.events
        while done < len(events):
            async with self._budget.turn(ReadQueue.REPLAYS):
                if not peer.open or self._has_turned(hub):
                    return False
                piece = self._give(peer, events[done : done + LOOKED])
            done += piece
            if self._holds_enough(peer):
                self._delivery.mark(peer)
                await self._emptied(peer)
            elif not piece:
                return False
            else:
                await anyio.lowlevel.checkpoint()
        if not peer.open or self._has_turned(hub):
            return False
        peer.position = commit.cursor
        self._delivery.mark(peer)
        await self._emptied(peer)
        return not self._has_turned(hub)

    def _has_turned(self, hub: FanOut[Peer]) -> bool:
        """To another log."""
        return hub is not self._delivery.hub

    def _give(self, peer: Peer, events: list[Published]) -> int:
        """Put them into the outbox until that holds enough, or the hub is reached; how many that were."""
        given, hub, now = 0, self._delivery.hub, self._delivery.time()
        for event in events:
            if event.position >= hub.cursor.positions[event.partition]:
                break
            cursor = peer.position.after(event.partition, event.position)
            peer.oldest = event.observed_at
            peer.deliver(FramedEvent(event, cursor, wire.update(str(cursor), event.data)), now)
            given += 1
            if self._holds_enough(peer):
                break
        return given

    def _holds_enough(self, peer: Peer) -> bool:
        return peer.size >= self._pace.chunk or peer.crowded or (peer.conflater is not None and peer.conflater.ready)

    def _join(self, peer: Peer) -> bool:
        """Onto the live path, in this turn of the loop, if the rest is at hand."""
        starts = [each.start for each in peer.subscriptions if each.start is not None]
        if (
            not peer.open
            or peer.asked
            or peer.renewals
            or not all(self._delivery.hub.cursor.reaches(start) for start in starts)
        ):
            return False
        entries = self._delivery.hub.recent(peer.position)
        if entries is None:
            return False
        now = self._delivery.time()
        for entry in entries:
            peer.deliver(entry, now)
        peer.join()
        self._delivery.hub.join(peer)
        if peer.lagging:
            peer.lagging = False
            peer.put(wire.LiveFrame(wire.push(Live(cursor=str(peer.watermark(self._delivery.hub.cursor))))))
        self._delivery.mark(peer)
        return True

    async def _progress(self) -> None:
        if self._delivery.moved is None:
            self._delivery.moved = asyncio.Event()
        await self._delivery.moved.wait()
