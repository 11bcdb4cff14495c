"""Which consistent views of the state stand, who reads in which, and when one is taken away. Runs no statement itself.

A view costs: a SQLite file keeps everything that is written while one stands (its WAL cannot begin anew), and a list
of a million rows takes memory. So a view is shared by all who asked before it began and by those who come while it is
still the newest state; a few stand at once; and each has an end.

Half of them begin at once, the others one `SPACE` after another: so nobody waits longer than that, and a view lives as
long as it takes until all of them were begun, whatever its readers do.
"""

from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

import anyio

AT_ONCE = 4
MOST = 8
"""Views."""
PRESSED = 30.0
"""Seconds after which a view goes when others wait for one, or when the WAL has grown."""
LONGEST = 120.0
"""Seconds after which it goes in any case."""
SPACE = PRESSED / (MOST - AT_ONCE)
"""Seconds between two that begin while half of them stand."""
PAUSE = 2.0
"""Seconds without any view that a grown WAL is given to begin anew."""
LOOK = 0.25
"""Seconds between two looks of the one who is next."""


class SharedView(Protocol):
    def newest(self) -> bool:
        """Nothing was committed since it began."""

    def end(self) -> None: ...


class Countable(Protocol):
    """A snapshot that does not know yet how many rows it has."""

    async def count(self) -> None: ...

    def close(self) -> None: ...


V = TypeVar("V", bound=SharedView)
S = TypeVar("S", bound=Countable)


class ViewLease(Generic[V]):
    """One view and who reads in it."""

    def __init__(self, view: V, begun: float, asked: int) -> None:
        self.view = view
        self.begun = begun
        self.asked = asked
        """Everybody up to this one asked before it began."""
        self.readers = 0
        self.busy = 0
        """Pages that are being read right now."""
        self.over = False
        """Taken away: no further page is read."""


class ViewPool(Generic[V]):
    """`begin` makes a view; `grown`: the WAL is so long that it ought to begin anew."""

    def __init__(self, begin: Callable[[], Awaitable[V]], grown: Callable[[], bool] = lambda: False) -> None:
        self._begin = begin
        self._grown = grown
        self._standing: list[ViewLease[V]] = []
        self._line = anyio.Lock()
        """Whoever has it is next."""
        self._changed = anyio.Event()
        self._asked = 0
        self._waiting = 0
        self._begun = self._ended = float("-inf")

    def __len__(self) -> int:
        return len(self._standing)

    async def take(self) -> ViewLease[V]:
        """A view of what is committed now, to be given back. Raises what `begin` raises."""
        self._asked += 1
        asked = self._asked
        self._waiting += 1
        try:
            async with self._line:
                while (found := self._shared(asked)) is None:
                    self.sweep()
                    if self._may_begin():
                        found = await self._begin_one()
                        break
                    with anyio.move_on_after(LOOK):
                        await self._changed.wait()
        finally:
            self._waiting -= 1
        found.readers += 1
        return found

    def _shared(self, asked: int) -> ViewLease[V] | None:
        if not self._standing or self._standing[-1].over:
            return None
        last = self._standing[-1]
        return last if asked <= last.asked or last.view.newest() else None

    def _may_begin(self) -> bool:
        now = anyio.current_time()
        if self._grown():
            return not self._standing and now - self._ended >= PAUSE
        return len(self._standing) < (AT_ONCE if now - self._begun < SPACE else MOST)

    async def _begin_one(self) -> ViewLease[V]:
        asked = self._asked
        found = ViewLease(await self._begin(), anyio.current_time(), asked)
        self._begun = found.begun
        self._standing.append(found)
        return found

    def give_back(self, one: ViewLease[V]) -> None:
        one.readers -= 1
        self.settle(one)

    def settle(self, one: ViewLease[V]) -> None:
        """After a reader has gone, or has its page: end the view if nobody reads in it."""
        if one in self._standing and not one.busy and (one.over or not one.readers):
            self._standing.remove(one)
            self._ended = anyio.current_time()
            self._changed.set()
            self._changed = anyio.Event()
            one.view.end()

    def sweep(self) -> None:
        """Take away those that have stood too long."""
        if not self._standing:
            return
        now = anyio.current_time()
        longest = PRESSED if self._waiting or self._grown() else LONGEST
        for one in list(self._standing):
            if now - one.begun >= longest:
                one.over = True
                self.settle(one)

    def close(self) -> None:
        """Take all away."""
        for one in list(self._standing):
            one.over = True
            self.settle(one)


async def counted(snapshot: S) -> S:
    """The same once it knows its rows; closed when they cannot be counted, or nobody waits for it any more."""
    try:
        await snapshot.count()
    except BaseException:
        snapshot.close()
        raise
    return snapshot
