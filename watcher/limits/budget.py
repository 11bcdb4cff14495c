"""How fast a provider may be asked, so that its own counter never refuses us (docs/limits.md says why).

A provider counts requests as they arrive, which is neither when they are granted nor when they are answered. So a call
is in flight from its grant until the attempt has ended, and counts from that time on. The next grant waits until the
window that ends now, calls in flight included, has room. Grants leave evenly, at the interval of the limit that binds:
the window is the guard, not the pacer, and what a pause or a stall left unused is not made up for.

`Budget` is arithmetic over the windows of `windows.py` and is given the time, in monotonic seconds. `Limiter` is the
thin part that waits.
"""

from collections.abc import Sequence
from math import ceil, floor, inf

import msgspec

from watcher.limits.forecast import DAY, Forecast, forecast
from watcher.limits.lease import LATE
from watcher.limits.windows import CLOCK_TOLERANCE, BudgetError, Limit, SlidingWindow, endpoint_words, window_of

ARRIVAL_GRACE = 0.25
"""Seconds in which a request may still arrive after it was given up, or after its sender may ask no more."""
FORGETTABLE = 3600.0
"""Seconds; when the clocks make no sense, windows up to this long count as full, longer ones as full as when saved."""
CLOCK_SKEW = 0.5
"""Seconds by which the wall clocks of two machines may differ. Who is handed a partition a moment after it was saved must
not take a clock that is a little behind for one that makes no sense, nor one that is ahead for time that has passed."""
MEMORY = Limit(requests=10**12, per=3600.0)
"""No limit: what was asked in its time is remembered, for a limit that comes later than the calls that it counts."""
SENSIBLE_WALL = 1_577_836_800_000_000
"""Wall-clock microseconds: 2020. A clock that says less has never been set."""


class Slot:
    """One call's place in every window that counts it, held until it is settled."""

    __slots__ = ("endpoint", "granted", "held")

    def __init__(self, endpoint: str | None, granted: float) -> None:
        self.endpoint = endpoint
        self.granted = granted
        self.held = True


class Predecessor(msgspec.Struct, frozen=True, eq=False):
    """A budget that another one carries on: what was spent under it counts there too."""

    budget: "Budget"
    beside: "Budget | None" = None
    """Goes on with all that its own room has space for: only what lies beyond that is carried. None: all is."""


class _SavedWindow(msgspec.Struct, array_like=True):
    endpoint: str | None
    per: float
    idle: float
    """Seconds after the save in which no grant was possible."""
    in_flight: int
    counts: list[tuple[int, int]]
    """(age in milliseconds, calls)"""


class _SavedBudget(msgspec.Struct, array_like=True):
    wall: int
    cost: float
    windows: list[_SavedWindow]
    pauses: list[tuple[str | None, float]]
    """(endpoint, seconds left)"""


class Budget:
    """All limits of one credential: what may leave, and when. A call takes a place in all windows or in none.

    cost: what one call takes of each limit. share: our part of the limits, in (0, 1].
    endpoints: those that will be asked for. Raises BudgetError when one of them could never be.
    """

    def __init__(
        self,
        limits: Sequence[Limit],
        *,
        cost: float = 1.0,
        share: float = 1.0,
        endpoints: Sequence[str | None] = (None,),
    ) -> None:
        self.cost = cost
        self.endpoints = tuple(dict.fromkeys(endpoints))
        # Narrow to broad: a fixed order, whoever asks.
        self._windows = [window_of(limit, cost, share) for limit in sorted(limits, key=lambda limit: limit.per)]
        self._memory = window_of(MEMORY, 1.0, 1.0)
        self._by_endpoint = {
            endpoint: [window for window in self._windows if window.limit.endpoint in (None, endpoint)]
            for endpoint in self.endpoints
        }
        for endpoint, windows in self._by_endpoint.items():
            if not windows:
                raise BudgetError(f"no limit covers {endpoint_words(endpoint)}: give one, for it or for all endpoints")
        self._pauses: dict[str | None, float] = {}
        self._remembered: dict[str | None, float] = {}
        self._saving = False
        self._unsaved_since = inf
        self._being_saved_since = inf
        self.unsaved_changes = True
        """Something happened since the last save."""

    def ready_at(self, now: float, endpoint: str | None = None) -> float:
        """When the next call may leave, not before now; inf while only a held slot or a save can tell."""
        if min(self._unsaved_since, self._being_saved_since) + LATE <= now:
            return inf
        return self._ready_at(now, endpoint)

    def _ready_at(self, now: float, endpoint: str | None) -> float:
        ready = now
        if self._pauses:
            ready = max(now, self._pauses.get(None, now), self._pauses.get(endpoint, now))
        for window in self._by_endpoint[endpoint]:  # asked several times for each request: no max() over a generator
            ready = max(ready, window.next_even, window.room_at(now))
        return ready

    def grant(self, now: float, endpoint: str | None = None) -> Slot:
        """A place for one call that leaves now. Raises ValueError when none is ready."""
        if self.ready_at(now, endpoint) > now:
            raise ValueError(f"no call may leave {endpoint_words(endpoint)} now")
        for window in self._by_endpoint[endpoint]:
            window.grant(now)
        self.unsaved_changes = True
        if self._saving:
            self._unsaved_since = min(self._unsaved_since, now)
        return Slot(endpoint, now)

    @property
    def in_flight(self) -> bool:
        """A call has left, or is about to, and has not ended."""
        return any(window.in_flight for window in self._windows)

    def settle(self, slot: Slot, when: float) -> None:
        """The attempt has ended: at `when`, at the latest, the request arrived over there."""
        if not slot.held:
            raise ValueError("a slot is settled once")
        slot.held = False
        self.unsaved_changes = True
        for window in self._by_endpoint[slot.endpoint]:
            window.in_flight -= 1
            window.count(when)
        self._memory.expire(when)
        self._memory.count(when)

    def count(self, when: float, endpoint: str | None = None) -> None:
        """A call of somebody else, under the same credential, that had arrived at `when`."""
        self.unsaved_changes = True
        for window in self._by_endpoint[endpoint]:
            window.count(when)

    @staticmethod
    def saved_at(data: bytes) -> int:
        """Wall-clock microseconds at which `save` gave this. Raises ValueError for foreign bytes."""
        return msgspec.msgpack.decode(data, type=_SavedBudget).wall

    def pause(self, until: float, endpoint: str | None = None, *, remember: bool = True) -> None:
        """Nothing leaves before `until`, from one endpoint or from all. `remember`: after a restart neither."""
        self.unsaved_changes = True
        self._pauses[endpoint] = max(until, self._pauses.get(endpoint, -inf))
        if remember:
            self._remembered[endpoint] = max(until, self._remembered.get(endpoint, -inf))
        for window in self._windows:
            if endpoint in (None, window.limit.endpoint):
                window.next_even = max(window.next_even, until)

    def resume(self, now: float) -> None:
        """Lift the pauses that are not remembered: what a restart would do, without one."""
        self.unsaved_changes = True
        self._pauses = dict(self._remembered)
        for window in self._windows:
            left = max(self._pauses.get(None, now), self._pauses.get(window.limit.endpoint, now))
            window.next_even = max(left, min(window.next_even, now + window.interval))

    def paused_until(self, now: float) -> float | None:
        """When the pause ends that lies on every endpoint; None: at least one is not paused."""
        everywhere = self._pauses.get(None, -inf)
        until = min(max(everywhere, self._pauses.get(endpoint, -inf)) for endpoint in self.endpoints)
        return until if until > now else None

    def interval(self, endpoint: str | None = None) -> float:
        """Seconds between even grants: of the limit that binds on average."""
        return self.binding(endpoint).interval

    def binding(self, endpoint: str | None = None) -> SlidingWindow:
        return max(self._by_endpoint[endpoint], key=lambda window: window.interval)

    def refusal_scope(self, endpoint: str | None = None) -> str | None:
        """The endpoint that a refusal of this one concerns: itself when its own limit binds it; None: all of them."""
        return self.binding(endpoint).limit.endpoint

    def shortest_window(self, endpoint: str | None = None) -> float:
        """Its length in seconds, which is how long to wait after a refusal that names no time."""
        return min(window.limit.per for window in self._by_endpoint[endpoint])

    def utilization(self, now: float) -> float:
        """0..1 of the binding limit; of several endpoints, the fullest."""
        windows = [self.binding(endpoint) for endpoint in self.endpoints]
        for window in windows:
            window.expire(now)
        return min(1.0, max((window.in_flight + window.counted) / window.capacity for window in windows))

    def forecasts(self, now: float) -> list[Forecast]:
        """Of each limit of a day and longer, at the pace of now."""
        return [
            forecast(window, self.cost, now, self._pace(window)) for window in self._windows if window.limit.per >= DAY
        ]

    def _pace(self, window: SlidingWindow) -> float:
        """Seconds between two grants that this window counts, at the fastest."""
        rates = sum(1 / self.interval(endpoint) for endpoint in self._users(window))
        return max(window.interval, 1 / rates) if rates else window.interval

    def _users(self, window: SlidingWindow) -> list[str | None]:
        """The endpoints whose calls it counts."""
        return [endpoint for endpoint, windows in self._by_endpoint.items() if any(each is window for each in windows)]

    def save(self, now: float, wall: int) -> bytes:
        """What a later process must know; `wall` in microseconds. Call `mark_saved` when it is durable.

        From the first save on, no call leaves while another has been unsaved for LATE seconds.
        """
        self._saving = True
        self._being_saved_since = min(self._being_saved_since, self._unsaved_since)
        self._unsaved_since = inf
        self.unsaved_changes = False
        pauses = [(endpoint, until - now) for endpoint, until in self._remembered.items() if until > now]
        return msgspec.msgpack.encode(
            _SavedBudget(wall, self.cost, [self._saved_window(window, now) for window in self._windows], pauses)
        )

    def _saved_window(self, window: SlidingWindow, now: float) -> _SavedWindow:
        users = self._users(window)
        earliest = min((min(self._ready_at(now, user), now + window.span) for user in users), default=now)
        window.expire(now)
        counts = [(floor(1000 * (now - last)), calls) for _, last, calls in window.segments]
        return _SavedWindow(window.limit.endpoint, window.limit.per, earliest - now, window.in_flight, counts)

    def mark_saved(self) -> None:
        """The last save is durable."""
        self._being_saved_since = inf

    def restore(self, data: bytes, now: float, wall: int, *, released: bool, begin: float) -> bool:
        """Before the first grant: continue from what `save` gave. Nothing leaves before `begin`. Whether the clocks make sense.

        Not `released`: whoever saved it may have gone on until `begin`, and what it can have granted unsaved, or had in
        flight, counts as spent when the last of it has arrived; nothing leaves before that either. Counted as of the
        fence it would leave the window too early: tried, and the limit was exceeded. Released: it ended in order, and
        nothing is in doubt. As little time has passed as the clocks allow; when they make no sense, none, and short
        windows are full. Raises ValueError for foreign bytes.
        """
        saved = msgspec.msgpack.decode(data, type=_SavedBudget)
        sensible = wall / 1e6 + CLOCK_SKEW >= saved.wall / 1e6 >= SENSIBLE_WALL / 1e6
        elapsed = max(0.0, (wall - saved.wall) / 1e6 - CLOCK_SKEW) if sensible else 0.0
        spent_at = begin if released else begin + ARRIVAL_GRACE
        for window in self._windows:
            source = _source(window.limit, saved.windows)
            if source is not None:
                counts = [(now - elapsed - age / 1000, self._calls(calls * saved.cost)) for age, calls in source.counts]
                longest = (wall - saved.wall) / 1e6 + CLOCK_SKEW + begin - now
                alone = min(LATE, longest - source.idle) if sensible else LATE
                unsaved = 0 if released or alone <= 0 else window.most_unsaved(alone)
                window.restore([*counts, (spent_at, self._calls(source.in_flight * saved.cost) + unsaved)], now)
                window.next_even = now + max(0.0, spent_at - now, source.idle - elapsed)
            if not sensible and window.limit.per <= FORGETTABLE:
                window.count(max(now, spent_at), max(1, window.capacity - window.counted))
        for endpoint, left in saved.pauses:
            self.pause(now + left - elapsed, endpoint)
        broadest = max(self._windows, key=lambda window: (window.limit.endpoint is None, window.limit.per))
        self._memory.restore([(last, calls) for _, last, calls in broadest.segments], now)
        return sensible

    def carry(self, predecessors: Sequence[Predecessor], now: float) -> None:
        """Before the first grant, in the process of the predecessors: what they have spent of our credential counts here too,
        and their pauses hold. Each window is as full as what was asked in its time makes it, whatever the limits were.
        """
        for window in (*self._windows, self._memory):
            spent = [(last, calls) for _, last, calls in window.segments]
            for one in predecessors:
                spent += one.budget._spent(window.limit, self.cost, one.beside, now)  # noqa: SLF001 (its own kind)
            window.segments.clear()
            window.counted = 0
            window.restore(sorted(spent), now)
            if window.segments:
                window.next_even = max(window.next_even, window.segments[-1][1] + window.interval)
        for one in predecessors:
            for pauses, remember in ((one.budget._remembered, True), (one.budget._pauses, False)):  # noqa: SLF001
                for endpoint, until in pauses.items():
                    if until > now:
                        self.pause(until, endpoint, remember=remember)

    def _spent(self, limit: Limit, cost: float, beside: "Budget | None", now: float) -> list[tuple[float, int]]:
        """(when, calls) of what counts under a limit that may not be ours, at that cost a call; oldest first."""
        window, since = self._knows_of(limit), now - limit.per * (1 + CLOCK_TOLERANCE)
        dearer = max(1.0, self.cost / cost)  # a call that became dearer was as dear before, perhaps
        spent = [(last, ceil(calls * dearer - 1e-9)) for _, last, calls in window.segments if last > since]
        if window.in_flight:
            spent.append((now + ARRIVAL_GRACE, ceil(window.in_flight * dearer - 1e-9)))
        beyond = sum(calls for _, calls in spent) - (0 if beside is None else beside._room(limit, cost))  # noqa: SLF001
        carried = []
        for when, calls in spent:
            if beyond > 0:
                carried.append((when, min(calls, beyond)))
                beyond -= calls
        return carried

    def _room(self, limit: Limit, cost: float) -> int:
        """Calls of that cost which fit into our window of this limit, in all."""
        same = (window for window in self._windows if _measures(window) == (limit.endpoint, limit.per))
        return min((floor(window.capacity * self.cost / cost + 1e-9) for window in same), default=0)

    def _knows_of(self, limit: Limit) -> SlidingWindow:
        """The window that says best what was asked in the time of that limit: one that is long enough, of the same endpoint,
        and else one that counts more than that."""
        windows = [
            window for window in (*self._windows, self._memory) if window.limit.endpoint in (None, limit.endpoint)
        ]
        if enough := [window for window in windows if window.limit.per >= limit.per]:
            return min(enough, key=lambda window: (window.limit.endpoint != limit.endpoint, window.limit.per))
        return max(windows, key=lambda window: window.limit.per)

    def _calls(self, cost: float) -> int:
        return ceil(cost / self.cost - 1e-9)


def _measures(window: SlidingWindow) -> tuple[str | None, float]:
    return window.limit.endpoint, window.limit.per


def _source(limit: Limit, saved: Sequence[_SavedWindow]) -> _SavedWindow | None:
    """The saved window that knows most of what this one asks: of the same endpoint, as long or a little longer."""
    known = sorted((window for window in saved if window.endpoint == limit.endpoint), key=lambda window: window.per)
    return next((window for window in known if window.per >= limit.per), known[-1] if known else None)
