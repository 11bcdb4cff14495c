"""How much one thing may have of what many want: tokens that refill, and the time of those who read the past.

Live events go to everybody as they come, and must not wait for others' snapshots. So everything that reads the state
or the past does it in short pieces, one at a time, for at most a quarter of one core. Three queues take turns: first
looks, which are over at once when little is wanted; the pages of large snapshots, where who came first is served first,
so that each is through before its view ends; and replays, one piece each in order.
"""

import asyncio
import enum
import heapq
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import process_time

PART = 0.25
"""Of one core, for those who read the past."""
AHEAD = 0.05
"""Seconds of work that are done without a rest when nothing was done before."""
LONG = 0.25
"""Seconds that a piece counts for at most: what takes longer had others working beside it."""
FRAMES_A_TURN = 32
"""Frames read in one turn of the loop, of all connections; who comes beyond waits for another turn."""
ALL_AT_ONCE = 512
"""Frames of all who send more than a few that are read one after another: some tens of milliseconds of work, if those are
commands."""
ALL_FRAMES_PER_SECOND = 4000
"""Of all connections together that have just sent more than a few."""


class TokenBucket:
    """Refills: `capacity` at once, and `rate` a second. What is taken beyond it is a debt, which is repaid first.

    Pure; `now` is monotonic seconds.
    """

    __slots__ = ("_at", "_capacity", "_level", "_rate")

    def __init__(self, capacity: float, rate: float) -> None:
        self._capacity = self._level = capacity
        self._rate = rate
        self._at = float("-inf")

    def left(self, now: float) -> float:
        """Below zero: the debt."""
        if now > self._at:
            self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
            self._at = now
        return self._level

    def debt(self, now: float) -> float:
        """Seconds until it is repaid; 0 without one."""
        return max(0.0, -self.left(now) / self._rate)

    def take(self, amount: float, now: float) -> float:
        """Seconds of the debt then; 0 without one."""
        self._level = self.left(now) - amount
        return max(0.0, -self._level / self._rate)

    def spend(self, amount: float) -> None:
        """What was used without a look at the clock: the next look refills."""
        self._level -= amount


class FrameBudget:
    """The budget of all connections for the frames that they send."""

    def __init__(self) -> None:
        self._all = TokenBucket(ALL_AT_ONCE, ALL_FRAMES_PER_SECOND)
        self._turn = 0

    @property
    def full(self) -> bool:
        """This turn of the loop has had enough of them."""
        return self._turn >= FRAMES_A_TURN

    def take(self, frames: int, loop: asyncio.AbstractEventLoop) -> float:
        """Seconds that whoever has sent more than a few should wait then."""
        if not self._turn:
            loop.call_soon(self._end_turn)
        self._turn += frames
        return self._all.take(frames, loop.time())

    def _end_turn(self) -> None:
        self._turn = 0


class ReadQueue(enum.IntEnum):
    FIRST_LOOKS = 0
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
        self._bucket = TokenBucket(AHEAD, PART)
        self._numbers = itertools.count()
        self._queues: list[list[tuple[int, int, asyncio.Future[None]]]] = [[] for _ in ReadQueue]
        self._last = 0
        self._busy = False

    def number(self) -> int:
        """A place in the order of coming."""
        return next(self._numbers)

    @asynccontextmanager
    async def turn(self, queue: ReadQueue, came: int | None = None) -> AsyncIterator[None]:
        """One piece of work, when it is its turn. In a queue the lowest `came` is next; None comes last."""
        await self._enter(queue, came)
        begun = self._spent()
        try:
            yield
        finally:
            self._bucket.spend(min(self._spent() - begun, LONG))
            self._leave()

    async def _enter(self, queue: ReadQueue, came: int | None) -> None:
        if self._busy:
            number, mine = self.number(), asyncio.get_running_loop().create_future()
            heapq.heappush(self._queues[queue], (number if came is None else came, number, mine))
            try:
                await mine
            except asyncio.CancelledError:
                if not mine.cancelled():
                    self._leave()
                raise
        self._busy = True
        try:
            if (rest := self._bucket.debt(self._time())) > 0:
                await self._sleep(rest)
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> None:
        self._busy = False
        for number in range(self._last + 1, self._last + 1 + len(self._queues)):
            waiting = self._queues[number % len(self._queues)]
            while waiting:
                *_, next_ = heapq.heappop(waiting)
                if not next_.done():
                    self._last = number % len(self._queues)
                    self._busy = True
                    next_.set_result(None)
                    return
