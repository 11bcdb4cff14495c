"""Subscriptions are opened: from a cursor, at the head, or with a snapshot; and anew when another log stands there."""

from collections.abc import Callable, Iterable

import anyio
import structlog
from msgspec import UNSET

from watcher.model import filters
from watcher.model.keys import Filter
from watcher.model.log import Bounds, Cursor, GapReason, JournalError, SnapshotRevoked, Unavailable
from watcher.relay import wire
from watcher.relay.commands import CommandRefused
from watcher.relay.connection import Connection
from watcher.relay.connections import ConnectionRegistry
from watcher.relay.http.auth import EVERYTHING
from watcher.relay.http.routes import Sees
from watcher.relay.live_path import FanOut, Flusher
from watcher.relay.log_follower import JOURNAL_RETRY, LogFollower
from watcher.relay.messages import JOURNAL_AWAY, SnapshotPage
from watcher.relay.near_misses import note
from watcher.relay.session import OpenSubscription
from watcher.relay.snapshots import SnapshotPages, SnapshotReader
from watcher.relay.subscription import Subscription

logger = structlog.get_logger()


class SubscriptionOpener:
    """Serves what a connection asked for, up to the place from which it goes on along the log."""

    def __init__(
        self,
        connections: ConnectionRegistry,
        flusher: Flusher,
        follower: LogFollower,
        snapshots: SnapshotReader,
        *,
        heartbeat: Callable[[Connection], None],
        sees: Sees,
    ) -> None:
        """`heartbeat`: sends one that had to wait for the pages of a snapshot. `sees`: see http.routes."""
        self._sees = sees
        self._connections = connections
        self._flusher = flusher
        self._follower = follower
        self._snapshots = snapshots
        self._log = snapshots.log
        self._heartbeat = heartbeat

    async def open(self, connection: Connection, asked: OpenSubscription) -> None:
        """Serve one subscription, or answer why not. Raises SnapshotRevoked."""
        try:
            await self._begin(connection, asked)
        except CommandRefused as refused:
            frame = connection.session.not_subscribed(asked, refused.code, str(refused))
            self._connections.put(connection, frame)
        except Unavailable as problem:
            self._refuse(connection, asked, problem)

    def _refuse(self, connection: Connection, asked: OpenSubscription, problem: Unavailable) -> None:
        text = f"the journal does not answer: {problem}"
        self._connections.put(connection, connection.session.not_subscribed(asked, "internal", text))

    async def _begin(self, connection: Connection, asked: OpenSubscription) -> None:
        """Raises CommandRefused."""
        fan_out, subscription = self._flusher.fan_out, asked.subscription
        bounds = await self._log.bounds()
        cursor = None if asked.cursor is None else bounds.widened(asked.cursor)
        gap = None if cursor is None else _gap_of(cursor, asked.subscription, bounds)
        recovered = cursor is not None and gap is None
        pages = None
        if not recovered and (asked.snapshot or gap is not None):
            pages = await self._snapshots.open(subscription.wanted)
        try:
            nothing = (
                None if pages is not None and pages.rows else await self._nothing_matches(connection, subscription)
            )
            start = pages.cursor if pages is not None else cursor if recovered else bounds.head
            assert start is not None
            if not await self._is_followed(fan_out, start):
                connection.ask_again(asked)
                return
            if subscription.id not in connection.session.subscriptions:
                raise CommandRefused("forbidden", "the token was replaced by one that allows nothing of it")
            begun = self._subscribe(connection, asked, start, pages, gap=gap, nothing=nothing)
            if pages is not None:
                self._connections.count_snapshot()
                await self._page(connection, subscription, begun, pages)
        finally:
            if pages is not None:
                pages.close()

    def _subscribe(
        self,
        connection: Connection,
        asked: OpenSubscription,
        start: Cursor,
        pages: SnapshotPages | None,
        *,
        gap: GapReason | None,
        nothing: str | None,
    ) -> Cursor:
        """The subscription stands, and its data begins at `start`; the cursor that its reply has."""
        fan_out, now = self._flusher.fan_out, self._flusher.time()
        if connection.outbox.live:
            fan_out.leave(connection.outbox, connection.subscriptions)
            connection.leave(fan_out.cursor, now)
        before = connection.outbox.position
        cursor = connection.begin(asked.subscription, start)
        connection.measure(fan_out.cursor, now)
        rows = 0 if pages is None else pages.rows
        recovered = asked.cursor is not None and gap is None
        reply = connection.session.subscribed(
            asked, cursor, recovered=recovered, rows=rows, reason=gap, nothing=nothing
        )
        self._connections.put(connection, reply)
        connection.rearrange()
        # One reading of the log serves all subscriptions of a connection: only what lies before it is read for this.
        connection.session.charge(rows if pages is not None else start.behind(before), now)
        return cursor

    async def _nothing_matches(self, connection: Connection, subscription: Subscription) -> str | None:
        """Why not; None when something of what is watched or of the state does. Raises Unavailable."""
        wanted, watches = subscription.wanted, self._snapshots.watches()
        if wanted == Filter() or filters.may_match(wanted, watches):
            return None
        by_names = wanted.label is not None or wanted.tag is not None
        if not by_names and await self._snapshots.holds_any(wanted):
            return None
        rights = connection.session.rights or wanted
        seen = [name for name in self._providers() if self._sees(rights, name)]
        return note(wanted, watches, seen, everything=rights == EVERYTHING)

    def _providers(self) -> Iterable[str]:
        """Of the config, and those that tell how they are."""
        return sorted({*self._snapshots.watches().providers, *self._flusher.fan_out.providers.names})

    async def restart(self, connection: Connection) -> None:
        """Serve the next subscription that another log left behind, as one whose cursor is not recoverable."""
        subscription, fan_out = connection.restarts[0], self._flusher.fan_out
        try:
            pages = await self._snapshots.open(subscription.wanted)
        except Unavailable as problem:
            self._follower.is_away(problem)
            while connection.pending:
                self._refuse(connection, connection.next_pending(), problem)
            await anyio.sleep(JOURNAL_RETRY)
            return
        try:
            if not await self._is_followed(fan_out, pages.cursor):
                return
            if subscription.id in connection.session.subscriptions:
                cursor = connection.begin(subscription, pages.cursor)
                connection.restarted(subscription)
                self._connections.count_snapshot()
                await self._page(connection, subscription, cursor, pages, connection.reason)
            else:
                connection.restarted(subscription)
                if connection.end_pages():
                    self._heartbeat(connection)
        finally:
            pages.close()
        if fan_out is self._flusher.fan_out and not connection.subscriptions:
            connection.outbox.move(fan_out.cursor)

    async def _is_followed(self, fan_out: FanOut, start: Cursor) -> bool:
        """Whether that fan-out is of the log of that cursor, and still stands; if the log is new to it, after a wait."""
        if fan_out is self._flusher.fan_out and fan_out.cursor.epoch != start.epoch:
            await self._follower.moved()
            return False
        return fan_out is self._flusher.fan_out

    async def _page(
        self,
        connection: Connection,
        subscription: Subscription,
        cursor: Cursor,
        pages: SnapshotPages,
        reason: GapReason | None = None,
    ) -> None:
        """Send the whole snapshot. `reason`: why it comes unasked."""
        fan_out = self._flusher.fan_out
        connection.begin_pages(pages)
        try:
            await self._send_pages(connection, subscription, cursor, pages, reason)
        except SnapshotRevoked:
            raise
        except JournalError as problem:  # half of it is nothing
            logger.warning("relay.snapshot_failed", problem=str(problem))
            self._connections.drop(connection, JOURNAL_AWAY)
        finally:
            connection.close_pages()
        if fan_out is self._flusher.fan_out:
            connection.measure(fan_out.cursor, self._flusher.time())
        if connection.end_pages():
            self._heartbeat(connection)

    async def _send_pages(
        self,
        connection: Connection,
        subscription: Subscription,
        cursor: Cursor,
        pages: SnapshotPages,
        reason: GapReason | None,
    ) -> None:
        fan_out, number = self._flusher.fan_out, 0
        while not pages.ended:
            await connection.outbox.room()
            async with pages.page() as states:
                # After a change of the log it begins anew.
                ended = subscription.id not in connection.session.subscriptions
                if ended or not connection.outbox.open or fan_out is not self._flusher.fan_out:
                    return
                wanted = [row for row in states if subscription.matcher.matches(row.key)]
                if not wanted and not pages.ended:
                    continue
                number += 1
                page = SnapshotPage(
                    subscription_id=subscription.id,
                    cursor=str(cursor),
                    page=number,
                    last=pages.ended,
                    reason=reason if number == 1 and reason is not None else UNSET,
                    data=wire.rows(wanted, self._snapshots.watches()),
                )
                self._connections.put(connection, wire.push(page))


def _gap_of(cursor: Cursor, subscription: Subscription, bounds: Bounds) -> GapReason | None:
    """Why the subscription cannot be resumed from there; None when it can. Raises CommandRefused."""
    if cursor.epoch == bounds.head.epoch and len(cursor.positions) != len(bounds.head.positions):
        raise CommandRefused("bad_cursor", "not a cursor of this log: it has another number of positions")
    gap = bounds.gap(cursor)
    if gap is not None and subscription.without_gaps:
        raise CommandRefused("unrecoverable_cursor", f"the log cannot be read from there: {gap}")
    return gap
