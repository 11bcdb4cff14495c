"""One subscriber: what it asked for (its session), what waits for it (its outbox), and what it is still to be given."""

import uuid
from collections.abc import Callable

from watcher.model.log import Cursor, GapReason
from watcher.relay.messages import CloseReason
from watcher.relay.outbox import Outbox
from watcher.relay.session import OpenSubscription, Session
from watcher.relay.settings import RelayTuning
from watcher.relay.snapshots import SnapshotPages
from watcher.relay.subscription import Subscription


class Connection:
    __slots__ = (
        "__weakref__",
        "_hang_up",
        "_nearest",
        "_nearest_at",
        "_started_behind",
        "_tuning",
        "heartbeat_due",
        "id",
        "lagging",
        "outbox",
        "pages",
        "paging",
        "pending",
        "reason",
        "restarts",
        "session",
    )  # fmt: skip

    def __init__(
        self, session: Session, outbox: Outbox, tuning: RelayTuning, hang_up: Callable[[CloseReason, float], None]
    ) -> None:
        """`hang_up`: sends the close frame, and aborts so many seconds later."""
        self.id = uuid.uuid4().hex[:16]
        self.session = session
        self.outbox = outbox
        self.lagging = False
        """The client was sent `lagging`."""
        self.pending: list[OpenSubscription] = []
        """Subscriptions still to be opened, in order."""
        self.restarts: list[Subscription] = []
        """Subscriptions of another log, still to be served anew from this one, in order."""
        self.reason: GapReason | None = None
        """Why they are."""
        self.paging = False
        self.pages: SnapshotPages | None = None
        """The snapshot that it is being sent."""
        self.heartbeat_due = False
        """One had to wait for the end of the pages."""
        self._tuning = tuning
        self._hang_up = hang_up
        self._started_behind = 0
        """Events that it was behind when it left the live path."""
        self._nearest = 0
        self._nearest_at = 0.0

    @property
    def subscriptions(self) -> list[Subscription]:
        """Those that stand."""
        return [each for each in self.session.subscriptions.values() if each.opened]

    # What it asked for.

    def ask(self, asked: OpenSubscription) -> None:
        self.pending.append(asked)

    def next_pending(self) -> OpenSubscription:
        return self.pending.pop(0)

    def ask_again(self, asked: OpenSubscription) -> None:
        """Before all others: the log has changed meanwhile."""
        self.pending.insert(0, asked)

    def begin(self, subscription: Subscription, start: Cursor) -> Cursor:
        """Its data begins at `start`; where the connection has to go on from."""
        alone = all(each is subscription or each in self.restarts for each in self.subscriptions)
        subscription.begin(start)
        return self.outbox.begin(start, alone=alone)

    def rearrange(self) -> None:
        """After a subscription came, changed or went."""
        self.outbox.conflate(self.subscriptions)

    # Onto the live path, and off it.

    def leave(self, head: Cursor, now: float) -> None:
        """Off the live path, everything before `head` being in the outbox or sent."""
        self.outbox.leave(head)
        for subscription in self.subscriptions:
            subscription.begin(head)
        self.measure(head, now)

    def overflow(self, head: Cursor, now: float) -> bool:
        """Off the live path because the outbox was full; whether the client has to be sent `lagging`."""
        lagging = self.outbox.overflow()
        flushed = self.outbox.flushed
        for subscription in self.subscriptions:  # one that began further on does so again
            subscription.begin(flushed.greatest(subscription.start or flushed))
        self.lagging = True
        self.measure(head, now)
        return lagging

    def join(self) -> bool:
        """Onto the live path; whether the client has to be sent `live`."""
        self.outbox.join()
        lagged, self.lagging = self.lagging, False
        return lagged

    def change_log(self, before: Cursor, head: Cursor, reason: GapReason) -> None:
        """Another log stands there, with its head at `head`: each subscription is to be served anew from it."""
        self.restarts, self.reason = self.subscriptions, reason
        self.outbox.change_log(before, head, restarts=bool(self.restarts))

    def restarted(self, subscription: Subscription) -> None:
        """It was served anew, or has ended."""
        self.restarts.remove(subscription)

    # The pages of a snapshot.

    def begin_pages(self, pages: SnapshotPages) -> None:
        self.paging, self.pages = True, pages

    def close_pages(self) -> None:
        """They are read no further; the client may still wait for those of another subscription."""
        self.pages = None

    def end_pages(self) -> bool:
        """Of one subscription; whether a heartbeat waited for that and may go now."""
        self.paging = bool(self.restarts)  # others of the connection may still have to begin anew
        return self.heartbeat_due and not self.paging

    def wants_heartbeat(self) -> bool:
        """Between the pages of a snapshot there is nothing to report: it is due behind them."""
        self.heartbeat_due = self.paging
        return not self.paging

    # Progress.

    def measure(self, head: Cursor, now: float) -> None:
        """From here on it has to come nearer."""
        self._started_behind = self._nearest = self.outbox.position.behind(head)
        self._nearest_at = now

    def stuck(self, head: Cursor, now: float) -> bool:
        """It reads the log and does not get anywhere."""
        if self.outbox.live or self.paging or self.restarts:
            return False
        behind = self.outbox.position.behind(head)
        if behind < self._nearest:
            self._nearest, self._nearest_at = behind, now
        too_long = now - self._nearest_at >= self._tuning.stuck
        return too_long or behind - self._started_behind > self._tuning.stuck_events

    def hang_up(self, why: CloseReason) -> None:
        # Early by one sweep, since that late may a stalled one have been found.
        self._hang_up(why, self._tuning.close_timeout - self._tuning.sweep)
