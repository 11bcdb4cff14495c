"""The part of this process that those get who are behind: a piece of a snapshot or of a replay at a time.

Live events go to everybody as they come, and must not wait for others' snapshots. So everything that reads the state
or the past does it in short pieces, one at a time, for at most a quarter of one core. Three lines take turns: first
looks, which are over at once when little is wanted; the pages of large snapshots, where who came first is served first,
so that each is through before its view ends; and replays, one piece each in order.
"""

import asyncio
import enum
import heapq
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from time import process_time

from watcher.model import filters
from watcher.model.events import BalanceState
from watcher.model.keys import Filter
from watcher.model.log import Cursor, Snapshot
from watcher.relay.log import Log

PART = 0.25
"""Of one core."""
AHEAD = 0.05
"""Seconds of work that are done without a rest when nothing was done before."""
LONG = 0.25
"""Seconds that a piece counts for at most: what takes longer had others working beside it."""


class ReadQueue(enum.IntEnum):
    LOOKS = 0
    PAGES = 1
    REPLAYS = 2


class ReadBudget:
    """Turns. `time`: monotonic seconds; `spent`: seconds of work of this process; `sleep`: waits that long.

    What others on the machine take is not our work: on a busy one a snapshot would rest for nothing.
    """

    def __init__(
        self,
        time: Callable[[], float],
        spent: Callable[[], float] = process_time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._time = time
        self._spent = spent
        self._sleep = sleep
        self._numbers = itertools.count()
        self._lines: list[list[tuple[int, int, asyncio.Future[None]]]] = [[] for _ in ReadQueue]
        self._last = 0
        self._busy = False
        self._allowance = AHEAD
        self._at = float("-inf")

    def number(self) -> int:
        """A place in the order of coming."""
        return next(self._numbers)

    @asynccontextmanager
    async def turn(self, line: ReadQueue, came: int | None = None) -> AsyncIterator[None]:
        """One piece of work, when it is its turn. In a line the lowest `came` is next; None comes last."""
        await self._enter(line, came)
        begun = self._spent()
        try:
            yield
        finally:
            self._allowance -= min(self._spent() - begun, LONG)
            self._leave()

    async def _enter(self, line: ReadQueue, came: int | None) -> None:
        if self._busy:
            number, mine = self.number(), asyncio.get_running_loop().create_future()
            heapq.heappush(self._lines[line], (number if came is None else came, number, mine))
            try:
                await mine
            except asyncio.CancelledError:
                if not mine.cancelled():
                    self._leave()
                raise
        self._busy = True
        try:
            if (rest := self._overdrawn()) > 0:
                await self._sleep(rest)
        except BaseException:
            self._leave()
            raise

    def _overdrawn(self) -> float:
        """Seconds to wait before the next piece."""
        now = self._time()
        self._allowance = min(AHEAD, self._allowance + (now - self._at) * PART)
        self._at = now
        return -self._allowance / PART

    def _leave(self) -> None:
        self._busy = False
        for line in range(self._last + 1, self._last + 1 + len(self._lines)):
            waiting = self._lines[line % len(self._lines)]
            while waiting:
                *_, next_ = heapq.heappop(waiting)
                if not next_.done():
                    self._last = line % len(self._lines)
                    self._busy = True
                    next_.set_result(None)
                    return


class SnapshotPages:
    """One snapshot, read in turns; to be closed."""

    def __init__(self, snapshot: Snapshot, share: ReadBudget, size: int, came: int) -> None:
        self._snapshot = snapshot
        self._share = share
        self._size = size
        self._came = came

    @property
    def cursor(self) -> Cursor:
        return self._snapshot.cursor

    @property
    def rows(self) -> int:
        return self._snapshot.rows

    @property
    def over(self) -> bool:
        """It was taken away."""
        return self._snapshot.over

    @asynccontextmanager
    async def page(self) -> AsyncIterator[Sequence[BalanceState]]:
        """The next rows, to be made use of within the turn; none at the end. Raises Outlived, Unavailable."""
        async with self._share.turn(ReadQueue.PAGES, self._came):
            yield await self._snapshot.page(self._size)

    def close(self) -> None:
        self._snapshot.close()


class SnapshotReader:
    """Opens them, each in its turn. `size`: rows of a page."""

    def __init__(self, log: Log, share: ReadBudget, size: int) -> None:
        self.log = log
        self.share = share
        self._size = size

    async def open(self, wanted: Filter) -> SnapshotPages:
        """What the filter shows stands for. Raises JournalError."""
        came, full = self.share.number(), filters.expand(wanted)
        async with self.share.turn(ReadQueue.LOOKS):
            snapshot = await self.log.glance(full, self._size)
        if snapshot is None:
            async with self.share.turn(ReadQueue.PAGES, came):
                pass  # a view is begun only when its pages are next: it has an end
            snapshot = await self.log.snapshot(full)
        return SnapshotPages(snapshot, self.share, self._size, came)
