"""Which consistent views of the state stand, who reads in which, and when one is taken away. Runs no statement itself.

A view costs: a SQLite file keeps everything that is written while one stands (its WAL cannot begin anew), and a list
of a million rows takes memory. So a view is shared by all who asked before it began and by those who come while it is
still the newest state; a few stand at once; and each has an end.

Half of them begin at once, the others one `space` after another: so nobody waits longer than that, and a view lives as
long as it takes until all of them were begun, whatever its readers do.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

import anyio
import msgspec

from watcher.model.events import BalanceState
from watcher.model.keys import Filter
from watcher.model.log import Cursor, SnapshotRevoked


class ViewLimits(msgspec.Struct, frozen=True):
    """How many views stand, and how long. Seconds. Tests change them; the config does not."""

    at_once: int = 4
    most: int = 8
    """Views."""
    pressed: float = 30.0
    """A view goes after that time when others wait for one, or when the WAL has grown."""
    longest: float = 120.0
    """It goes after that time in any case."""
    pause: float = 2.0
    """Without any view: a grown WAL is given that time to begin anew."""
    look: float = 0.25
    """Between two looks of the one who is next."""

    @property
    def space(self) -> float:
        """Between two views that begin while half of them stand."""
        return self.pressed / (self.most - self.at_once)


class SharedView(Protocol):
    """The state as of one cursor, read by several at a time."""

    @property
    def cursor(self) -> Cursor: ...

    def newest(self) -> bool:
        """Nothing was committed since it began."""

    def end(self) -> None: ...

    async def count(self, wanted: Filter) -> int: ...

    async def page(self, wanted: Filter, behind: int, size: int) -> tuple[int, Sequence[BalanceState]]:
        """At most `size` rows behind that place (0: from the beginning), and the place behind them."""


V = TypeVar("V", bound=SharedView)
T = TypeVar("T")


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

    def __init__(
        self,
        begin: Callable[[], Awaitable[V]],
        grown: Callable[[], bool] = lambda: False,
        limits: ViewLimits = ViewLimits(),  # noqa: B008 (frozen)
    ) -> None:
        self.limits = limits
        self._begin = begin
        self._grown = grown
        self._leases: list[ViewLease[V]] = []
        self._next = anyio.Lock()
        """Whoever has it is next."""
        self._changed = anyio.Event()
        self._asked = 0
        self._waiting = 0
        self._begun = self._ended = float("-inf")

    def __len__(self) -> int:
        return len(self._leases)

    async def acquire(self) -> ViewLease[V]:
        """A view of what is committed now, to be released. Raises what `begin` raises."""
        self._asked += 1
        asked = self._asked
        self._waiting += 1
        try:
            async with self._next:
                while (lease := self._shared(asked)) is None:
                    self.expire()
                    if self._may_begin():
                        lease = await self._begin_one()
                        break
                    with anyio.move_on_after(self.limits.look):
                        await self._changed.wait()
        finally:
            self._waiting -= 1
        lease.readers += 1
        return lease

    def _shared(self, asked: int) -> ViewLease[V] | None:
        if not self._leases or self._leases[-1].over:
            return None
        last = self._leases[-1]
        return last if asked <= last.asked or last.view.newest() else None

    def _may_begin(self) -> bool:
        limits, now = self.limits, anyio.current_time()
        if self._grown():
            return not self._leases and now - self._ended >= limits.pause
        return len(self._leases) < (limits.at_once if now - self._begun < limits.space else limits.most)

    async def _begin_one(self) -> ViewLease[V]:
        asked = self._asked
        lease = ViewLease(await self._begin(), anyio.current_time(), asked)
        self._begun = lease.begun
        self._leases.append(lease)
        return lease

    def release(self, lease: ViewLease[V]) -> None:
        lease.readers -= 1
        self.settle(lease)

    def settle(self, lease: ViewLease[V]) -> None:
        """After a reader has gone, or has its page: end the view if nobody reads in it."""
        if lease in self._leases and not lease.busy and (lease.over or not lease.readers):
            self._leases.remove(lease)
            self._ended = anyio.current_time()
            self._changed.set()
            self._changed = anyio.Event()
            lease.view.end()

    def expire(self) -> None:
        """Take away those that have stood too long."""
        if not self._leases:
            return
        now = anyio.current_time()
        longest = self.limits.pressed if self._waiting or self._grown() else self.limits.longest
        for lease in list(self._leases):
            if now - lease.begun >= longest:
                lease.over = True
                self.settle(lease)

    def close(self) -> None:
        """Take all away."""
        for lease in list(self._leases):
            lease.over = True
            self.settle(lease)


class SharedSnapshot(Generic[V]):
    """One reader of a shared view: the `Snapshot` of a journal. To be closed."""

    def __init__(self, pool: ViewPool[V], lease: ViewLease[V], wanted: Filter) -> None:
        self.cursor = lease.view.cursor
        self.rows = 0
        self._pool = pool
        self._lease = lease
        self._wanted = wanted
        self._behind = 0
        self._closed = False

    @property
    def over(self) -> bool:
        return self._lease.over

    async def count(self) -> None:
        self.rows = await self._using(lambda view: view.count(self._wanted))

    async def page(self, size: int) -> Sequence[BalanceState]:
        self._behind, states = await self._using(lambda view: view.page(self._wanted, self._behind, size))
        return states

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._pool.release(self._lease)

    async def _using(self, work: Callable[[V], Awaitable[T]]) -> T:
        if self._closed or self._lease.over:
            raise SnapshotRevoked("the snapshot was taken away: its reader was too slow, and others wait")
        self._lease.busy += 1
        try:
            return await work(self._lease.view)
        finally:
            self._lease.busy -= 1
            self._pool.settle(self._lease)


async def open_snapshot(pool: ViewPool[V], wanted: Filter) -> SharedSnapshot[V]:
    """A snapshot that knows its rows. Closed when they cannot be counted, or nobody waits for it any more."""
    snapshot = SharedSnapshot(pool, await pool.acquire(), wanted)
    try:
        await snapshot.count()
    except BaseException:
        snapshot.close()
        raise
    return snapshot
