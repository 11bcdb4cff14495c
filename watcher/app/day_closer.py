"""Closes the days of the providers of one partition: after each midnight (UTC) it commits what was held then.

The partition's owner does it, whoever that is by then: the note beside the closings says how far the one before came. A day that
was not closed wholly is closed anew, and what was committed of it is replaced.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from math import inf

import anyio
import msgspec
import structlog

from watcher.app.settings import TopLevel
from watcher.ingest.committer import Committer
from watcher.ingest.last_seen_notes import LastSeenNotes
from watcher.journal import Reader
from watcher.model.closed_days import NOTE, ClosedDays
from watcher.model.days import DAY, last_day_over, midnight_after
from watcher.model.keys import Filter
from watcher.model.log import JournalError
from watcher.model.past import Closing, PastBalance
from watcher.past.day_ends import SteadyClock, latest_close, next_day
from watcher.past.state_at import PastError, state_at
from watcher.poller.poller import Poller
from watcher.redaction.safe_text import one_line

LOOK = 5.0
"""Seconds between two looks while a day is to be closed."""
IDLE = 60.0
"""The same at other times, at most: a wall clock may be set."""
AT_ONCE = 5_000
"""Closings that are made in one go."""

log = structlog.get_logger()


class Keeping(msgspec.Struct, frozen=True):
    """For how many seconds events are kept, and closings."""

    retention: float = 604800.0
    checkpoints: float = inf

    @classmethod
    def of(cls, config: TopLevel) -> "Keeping":
        return cls(config.retention, config.checkpoint_seconds)


class _Provider(msgspec.Struct):
    """What is known of the days of one provider."""

    closed: ClosedDays
    earliest: int
    """Wall-clock microseconds: days that ended before are not closed."""
    poller: Poller | None = None
    met: float = 0.0
    """Monotonic seconds: since when that poller reads, as far as we know."""
    reason: str = ""
    """Why it could not be closed when it was tried last, as logged."""


class DayCloser:
    """Of one partition, while it is open.

    pollers: of it, as they are at the moment. wall: microseconds. boottime: seconds of a clock that nobody sets.
    """

    def __init__(
        self,
        committer: Committer,
        pollers: Callable[[], Collection[Poller]],
        reader: Callable[[], AbstractAsyncContextManager[Reader]],
        keeping: Keeping,
        *,
        wall: Callable[[], int],
        boottime: Callable[[], float],
    ) -> None:
        self._committer = committer
        self._pollers = pollers
        self._reader = reader
        self._keeping = keeping
        self._wall = wall
        self._boottime = boottime
        self._opened = wall()
        self._clock = SteadyClock()
        self._providers: dict[str, _Provider] = {}

    async def run(self) -> None:
        """For ever. The partition is open, and nothing was read since then."""
        self._opened = self._wall()
        self._meet(self._committer.ledger.providers(), since=self._opened - int(self._keeping.retention * 1e6))
        while True:
            steady = self._clock.look(self._wall(), self._boottime())
            self._meet({poller.name for poller in self._pollers()}, since=self._opened)
            waits = False
            for name, provider in sorted(self._providers.items()):
                waits |= await self._look(name, provider, steady=steady)
            await anyio.sleep(LOOK if waits else min(IDLE, self._until_midnight()))

    def _until_midnight(self) -> float:
        now = self._wall()
        return (midnight_after(last_day_over(now)) + DAY - now) / 1e6

    def _meet(self, names: Collection[str], *, since: int) -> None:
        """`since`: days before that are not closed where the journal does not say how far it came."""
        for name in sorted(names - self._providers.keys()):
            closed = ClosedDays.of(self._committer.notes, name)
            self._providers[name] = _Provider(closed, since if closed.last is None else 0)
            self._report(name, closed)

    def _report(self, name: str, closed: ClosedDays) -> None:
        if closed.last is not None:
            self._committer.closings.closed[name] = midnight_after(closed.last) / 1e6

    async def _look(self, name: str, provider: _Provider, *, steady: bool) -> bool:
        """Close the next day that is due. Whether there was one to be closed."""
        now = self._wall()
        poller = next((poller for poller in self._pollers() if poller.name == name), None)
        if poller is not provider.poller:
            provider.poller, provider.met = poller, anyio.current_time()
        if self._keeping.checkpoints != inf:
            provider.earliest = max(provider.earliest, now - int(self._keeping.checkpoints * 1e6))
        await self._forget_future(name, provider, now)
        day = next_day(provider.closed, provider.earliest, now)
        if day is None:
            return False
        if steady and self._is_due(name, provider, day, now):
            try:
                await self._close(name, provider, day)
            except (JournalError, PastError) as error:
                self._failed(name, provider, day, error)
        return True

    async def _forget_future(self, name: str, provider: _Provider, now: int) -> None:
        """Days that were closed by a clock that ran ahead are to be closed again once they are over."""
        closed = provider.closed.until(last_day_over(now))
        if closed != provider.closed:
            log.warning(
                "day.closed_ahead", provider=name, day=provider.closed.last, reason="the wall clock was set back"
            )
            provider.closed, note = closed, {NOTE + name: closed.encode()}
            await self._committer.closings.save([], note, note)

    def _is_due(self, name: str, provider: _Provider, day: str, now: int) -> bool:
        if now >= latest_close(day, self._opened, self._keeping.retention):
            return True
        ledger = self._committer.ledger
        if provider.poller is None or ledger.waiting(name) or ledger.candidate_since(name) is not None:
            return False
        moment = anyio.current_time()
        unread = min((now - midnight_after(day)) / 1e6, moment - provider.met)
        ages = (schedule.stalest(moment) for schedule in provider.poller.schedules)
        return all(age is None or age[1] < unread for age in ages)

    async def _close(self, name: str, provider: _Provider, day: str) -> None:
        end, now = midnight_after(day), self._wall()
        if provider.poller is not None:
            await LastSeenNotes(name, self._committer, self._wall).save()
        async with self._reader() as reader:
            kept_from = await reader.kept_from()
            if end < kept_from:
                provider.earliest = kept_from
                log.warning("day.missed", provider=name, day=day, reason="events of that day are not kept any more")
                return
            balances = await state_at(reader, end, Filter(provider=(name,)), now=now)
        if not balances and provider.closed.last is None:  # nothing was known of it then
            provider.earliest = end + 1
            return
        closed = provider.closed.after(day)
        await self._save(day, balances, *({NOTE + name: one.encode()} for one in (provider.closed, closed)))
        provider.closed, provider.reason = closed, ""
        self._report(name, closed)
        counts = Counter[str](balance.status for balance in balances)
        log.info("day.closed", provider=name, day=day, balances=len(balances), **counts)

    async def _save(
        self, day: str, balances: Sequence[PastBalance], before: Mapping[str, bytes], after: Mapping[str, bytes]
    ) -> None:
        """`before`, `after`: the note as it was, and as it is with the last of them."""
        for start in range(0, max(1, len(balances)), AT_ONCE):
            part = [Closing(day=day, balance=balance) for balance in balances[start : start + AT_ONCE]]
            last = start + AT_ONCE >= len(balances)
            await self._committer.closings.save(part, before, after if last else before)

    def _failed(self, name: str, provider: _Provider, day: str, error: Exception) -> None:
        reason = one_line(str(error), 300)
        if reason != provider.reason:
            provider.reason = reason
            log.warning("day.not_closed", provider=name, day=day, reason=reason)
