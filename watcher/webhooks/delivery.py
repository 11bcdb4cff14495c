"""The delivery of one webhook's events from one partition: in order, each until the receiver has it.

It reads the log in small slices, and holds no place in it while it delivers one: a receiver that is slow or down costs the
memory of a slice and nobody's time. Those who are behind read in turns. Its place is saved in the journal now and then, so
what comes twice after a crash is what was delivered since; nothing is ever left out that the log still has.
"""

import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

import anyio
import anyio.lowlevel
import msgspec
import structlog

from watcher.model.filters import FilterMatcher
from watcher.model.log import Bounds, Closed, Commit, Cursor, Expired, Published, Unavailable
from watcher.model.watches import WatchIndex
from watcher.runtime.backoff import Backoff
from watcher.webhooks import places
from watcher.webhooks.figures import WebhookFigures
from watcher.webhooks.places import Owned, Place
from watcher.webhooks.sender import Attempt, Message, Sender, message_of
from watcher.webhooks.settings import Webhook

RETRIES = Backoff(1.0, 3600.0)
"""Between two attempts of one event; each is shortened by chance to as little as half, so that not all come at once."""
LONGEST_WAIT = 3600.0
"""Seconds that a receiver may ask for by `Retry-After`."""
DAYS = 5 * 86400.0
"""Seconds for which one event has failed until that is logged as an error."""
MOST_EVENTS = 100
"""That are held at a time."""
TURN = 2.0
"""Seconds for which one that is behind reads while others wait."""
SAVE = 5.0
"""Seconds for which a delivery is unsaved, at most."""
SAVE_QUIET = 60.0
"""The same of a place that moved past events of others."""
AWAY = Backoff(0.5, 10.0)
"""Between two tries to read the log."""

T = TypeVar("T")
log = structlog.get_logger()


class EventLog(Protocol):
    """What `watcher.journal.Reader` promises, as far as it is needed here. Raises Unavailable."""

    async def bounds(self) -> Bounds: ...

    def follow(self, cursor: Cursor) -> AsyncIterator[Commit]:
        """Raises Expired."""


class NoteStore(Protocol):
    """A partition's way into the journal, as far as notes go."""

    @property
    def notes(self) -> Mapping[str, bytes]: ...

    def note(self, key: str, data: bytes) -> None: ...

    async def save(self, key: str, data: bytes) -> None: ...


class Receiver:
    """One webhook, for all partitions of this process from its configuration until that changes."""

    def __init__(
        self,
        webhook: Webhook,
        figures: WebhookFigures,
        watches: WatchIndex,
        sender: Callable[[], Sender],
    ) -> None:
        """`sender`: makes one, for each partition."""
        self.webhook = webhook
        self.figures = figures
        self.sender = sender
        self.gone = anyio.Event()
        """It has answered 410."""
        self._events = frozenset(webhook.settings.events)
        self._kinds = webhook.settings.kinds
        self.use_names(watches)

    def use_names(self, watches: WatchIndex) -> None:
        """From now on labels and tags mean these watches."""
        self._matcher = FilterMatcher.of(self.webhook.settings.wanted, watches)

    def wants(self, event: Published) -> bool:
        return event.type in self._events and event.key.kind in self._kinds and self._matcher.matches(event.key)


class _Slice(msgspec.Struct):
    """What was read: events for this receiver, and the place behind all that was looked at."""

    events: list[Published]
    cursor: Cursor
    behind: bool
    """There is more to read at once."""


class PartitionDelivery:
    """Of one webhook on one partition. `turns`: of all that read what is behind them."""

    def __init__(
        self,
        receiver: Receiver,
        owned: Owned,
        event_log: EventLog,
        store: NoteStore,
        *,
        turns: anyio.Lock,
        wall: Callable[[], int],
        seed: int,
    ) -> None:
        self._receiver = receiver
        self._owned = owned
        self._log = event_log
        self._store = store
        self._turns = turns
        self._wall = wall
        self._random = random.Random(seed)  # noqa: S311 - it only spreads the crowd
        self._key = receiver.webhook.settings.note_key
        self._figures = receiver.figures
        self._cursor: Cursor | None = None
        """Behind all that was delivered; None: not known yet."""
        self._behind = True
        """There is more in the log than was read."""
        self._saved: tuple[int, ...] = ()
        self._saved_at = 0.0
        self._delivered = False
        """Something was, since the place was saved."""

    async def run(self) -> None:
        """Until cancelled, or until the receiver is gone. Raises what a journal raises, but for Unavailable."""
        place = places.decode(self._store.notes.get(self._key))
        if place is not None and place.gone == self._receiver.webhook.fingerprint:
            self._figures.gone = True
            self._receiver.gone.set()
            return
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._deliver_all)
                await self._receiver.gone.wait()
                tasks.cancel_scope.cancel()
            self._note(gone=self._receiver.webhook.fingerprint)
        finally:
            self._figures.end(self._owned.partition)
            if not self._receiver.gone.is_set():
                self._note()

    async def _deliver_all(self) -> None:
        with contextlib.suppress(Closed):  # the journal is being closed, and so are we
            await self._patiently(self._find_place)
            async with self._receiver.sender() as sender:
                while True:
                    part = await self._patiently(self._read)
                    for event in part.events:
                        await self._deliver(sender, event)
                        if self._receiver.gone.is_set():
                            return
                    self._cursor, self._behind = part.cursor, part.behind
                    self._note_when_due()
                    await anyio.lowlevel.checkpoint()

    async def _find_place(self) -> None:
        """It is saved before anything is delivered: a new webhook that is killed goes on where it began."""
        place = places.decode(self._store.notes.get(self._key))
        bounds = await self._log.bounds()
        found = places.going_on(place, self._owned, bounds)
        if found.gap is not None:
            self._tell_gap(found.gap, found.cursor)
        if place is None or found.gap is not None or place.gone is not None:
            await self._store.save(self._key, self._place(found.cursor))
        self._cursor, self._behind = found.cursor, True
        self._saved, self._saved_at = self._owned.positions(found.cursor), anyio.current_time()

    def _tell_gap(self, reason: str, cursor: Cursor) -> None:
        self._figures.gaps += 1
        log.error(
            "webhook.gap",
            webhook=self._receiver.webhook.title,
            partition=self._owned.partition,
            reason=reason,
            goes_on_at=str(cursor),
        )

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Try until the log can be read."""
        tries = 0
        while True:
            try:
                return await work()
            except Unavailable:  # whoever writes or polls tells that
                pass
            except Expired:  # it was held up for longer than events are kept, or another log stands there
                self._note()
                self._cursor = None
            tries += 1
            await anyio.sleep(AWAY.pause(tries))

    async def _read(self) -> _Slice:
        """The next events. Who is behind reads up to the head as it is now, in turn; else it waits for what comes."""
        if self._cursor is None:
            await self._find_place()
        if not self._behind:
            return await self._follow(None)
        async with self._turns:
            return await self._follow((await self._log.bounds()).head)

    async def _follow(self, head: Cursor | None) -> _Slice:
        """Up to `head`, or until something comes that is wanted, or some time has passed."""
        assert self._cursor is not None
        part = _Slice([], self._cursor, behind=head is not None)
        if head is not None and self._cursor.reaches(head):
            return _Slice([], self._cursor, behind=False)
        with anyio.move_on_after(TURN if head is not None else self._quiet()):
            async with _following(self._log, self._cursor) as commits:
                async for commit in commits:
                    if self._take(commit, part):
                        return part
                    if head is not None and commit.cursor.reaches(head):
                        part.behind = False
                        return part
                    if part.events and head is None:
                        return part
        return part

    def _quiet(self) -> float:
        """Seconds until the place is to be saved although nothing comes."""
        return max(0.05, self._saved_at + (SAVE if self._delivered else SAVE_QUIET) - anyio.current_time())

    def _take(self, commit: Commit, part: _Slice) -> bool:
        """What of it is wanted. Whether that is as much as is held at a time."""
        for event in commit.events:
            if self._owned.has(event.partition) and self._receiver.wants(event):
                part.events.append(event)
                if len(part.events) >= MOST_EVENTS:
                    # Behind what is held, of this partition; those before a commit's end are looked at again.
                    part.cursor = part.cursor.after(event.partition, event.position)
                    part.behind = True
                    return True
            if self._owned.has(event.partition):
                part.cursor = part.cursor.after(event.partition, event.position)
        part.cursor = commit.cursor
        return False

    async def _deliver(self, sender: Sender, event: Published) -> None:
        """Until the receiver has it, or is gone."""
        message, began, tries = message_of(event), anyio.current_time(), 0
        late = False
        self._figures.begin(self._owned.partition, event.observed_at)
        while True:
            attempt = await sender.send(message)
            if attempt.problem is None:
                break
            if attempt.gone:
                self._end(attempt)
                return
            tries += 1
            lasted = anyio.current_time() - began
            if tries == 1 or (lasted >= DAYS and not late):
                late = lasted >= DAYS
                self._tell_failing(attempt.problem, message, lasted)
            self._figures.by_result["failed"] += 1
            self._figures.fail(self._owned.partition, attempt.problem)
            await anyio.sleep(self._pause(tries, attempt))
        self._figures.by_result["delivered"] += 1
        self._figures.end(self._owned.partition)
        if tries:
            log.info("webhook.recovered", webhook=self._receiver.webhook.title, event_id=message.id, attempts=tries + 1)
        assert self._cursor is not None
        self._cursor = self._cursor.after(event.partition, event.position)
        self._delivered = True
        self._note_when_due()

    def _pause(self, tries: int, attempt: Attempt) -> float:
        """Seconds behind that failure: ours, or those that the receiver asks for where these are more."""
        pause = RETRIES.pause(tries) * self._random.uniform(0.5, 1.0)
        return max(pause, min(attempt.retry_after or 0.0, LONGEST_WAIT))

    def _tell_failing(self, problem: str, message: Message, lasted: float) -> None:
        """At the first failure of an event, and once it has failed for days."""
        tell = log.error if lasted >= DAYS else log.warning
        tell(
            "webhook.failing",
            webhook=self._receiver.webhook.title,
            partition=self._owned.partition,
            problem=problem,
            event_id=message.id,
            seconds=round(lasted),
        )

    def _end(self, attempt: Attempt) -> None:
        self._figures.by_result["gone"] += 1
        self._figures.gone = True
        log.error("webhook.gone", webhook=self._receiver.webhook.title, status=attempt.status)
        self._receiver.gone.set()

    def _note_when_due(self) -> None:
        due = SAVE if self._delivered else SAVE_QUIET
        if anyio.current_time() >= self._saved_at + due:
            self._note()

    def _note(self, gone: str | None = None) -> None:
        """For the next commit, unless it is what was saved last."""
        if self._cursor is None:
            return
        positions = self._owned.positions(self._cursor)
        self._saved_at, self._delivered = anyio.current_time(), False
        if positions != self._saved or gone is not None:
            self._saved = positions
            self._store.note(self._key, self._place(self._cursor, gone))

    def _place(self, cursor: Cursor, gone: str | None = None) -> bytes:
        place = Place(
            name=self._receiver.webhook.title,
            epoch=cursor.epoch,
            positions=self._owned.positions(cursor),
            gone=gone,
        )
        return msgspec.json.encode(place)


@contextlib.asynccontextmanager
async def _following(event_log: EventLog, cursor: Cursor) -> AsyncIterator[AsyncIterator[Commit]]:
    """The log from there on, given back at the end and not when the garbage is collected."""
    stream = event_log.follow(cursor)
    try:
        yield stream
    finally:
        if isinstance(stream, AsyncGenerator):
            with anyio.CancelScope(shield=True):
                await stream.aclose()
