"""What was held at a past time, from the events after it and the state that they lead to.

The state at a place in the log, and the events before that place that were observed after the time: of each balance the first
of them says what was before it, and until when that was seen. A balance without one is what its state says; the last time at
which it was seen so is the time of its state, or what the notes of last readings say.
"""

import heapq
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from operator import itemgetter
from typing import Protocol

import anyio.lowlevel
import msgspec

from watcher.model.closed_days import providers_closed
from watcher.model.days import is_midnight, last_day_over
from watcher.model.events import BalanceState
from watcher.model.keys import Filter, Key
from watcher.model.last_seen import LastSeen
from watcher.model.log import Cursor, Published, Snapshot, SnapshotRevoked, Unavailable
from watcher.model.past import Closing, HistorySlice, PastBalance
from watcher.model.readings import Unit
from watcher.model.times import format_rfc3339, parse_rfc3339, shared_micros

ROWS = 500
"""Balances or events in one step of work."""
PAGE = 2_000
"""Balances that the journal is asked for at once."""
TRIES = 3
"""Of a snapshot that others took away."""

Progress = Callable[[int, int], None]
"""Called with the records looked at, and about how many there are."""


class PastError(ValueError):
    """That time cannot be answered. One line for whoever asked, that says what can be."""


class PastLog(Protocol):
    """What `watcher.journal.Reader` promises, as far as the past needs it."""

    async def snapshot(self, wanted: Filter) -> Snapshot: ...

    async def notes(self) -> dict[str, bytes]: ...

    async def kept_from(self) -> int: ...

    def first_changes(self, wanted: Filter, time: int, until: Cursor) -> AsyncIterator[HistorySlice]: ...

    async def closing_days(self) -> list[str]: ...

    def closings(self, day: str, wanted: Filter) -> AsyncIterator[Sequence[Closing]]: ...


class _Change(msgspec.Struct, frozen=True, gc=False):
    """Of an event, what the past needs."""

    previous_amount: str
    amount: str
    previous_observed_at: str
    observed_at: str
    symbol: str | None
    unit: Unit
    decimals: int | None


_CHANGE = msgspec.json.Decoder(_Change)


async def state_at(
    log: PastLog, time: int, wanted: Filter, *, now: int, progress: Progress = lambda _done, _of: None
) -> Sequence[PastBalance]:
    """What was held at `time` (wall-clock microseconds; `now` is the same clock's), sorted by key.

    Raises PastError for a time in the future or older than what is kept, and Unavailable.
    """
    if time > now:
        raise PastError(f"{format_rfc3339(time)} is in the future: now it is {format_rfc3339(now)}")
    kept, notes = await log.kept_from(), await log.notes()
    seen = LastSeen(notes, now)  # before the state: what was seen since was seen of that or of a later one
    for _ in range(TRIES):
        try:
            if time < kept:
                return await _closing_at(log, time, wanted, seen, kept)
            return await _balances_at(log, time, wanted, seen, progress)
        except SnapshotRevoked:
            continue
    raise Unavailable("others read so many snapshots that none could be read to its end: ask again")


async def _closing_at(log: PastLog, time: int, wanted: Filter, seen: LastSeen, kept: int) -> Sequence[PastBalance]:
    """What was kept of the end of a day. A balance that has not changed since needs nothing that was kept."""
    days, day = await log.closing_days(), last_day_over(time)
    if not is_midnight(time) or day not in days:
        raise _not_kept(time, kept, days)
    closed = providers_closed(await log.notes(), day)
    rows = {one.balance.key: one.balance async for part in log.closings(day, wanted) for one in part}
    states, _ = await _states(log, wanted)
    for number, (key, state) in enumerate(states, 1):
        if state.provider not in closed:
            rows.pop(key, None)  # what was begun and not ended
            if (row := _without_change(state, seen, time)) is not None:
                if shared_micros(state.observed_at) > time:
                    raise _not_kept(time, kept, [], of=state.provider)
                rows[key] = row
        if number % ROWS == 0:
            await anyio.lowlevel.checkpoint()
    return sorted(rows.values(), key=lambda row: row.key)


def _not_kept(time: int, kept: int, days: Sequence[str], of: str = "") -> PastError:
    ends = f", and of the ends of days from {days[0]} to {days[-1]}" if days else ""
    what = f"of {of} nothing is kept" if of else "nothing is kept"
    return PastError(
        f"{what} of {format_rfc3339(time)}: events are kept from {format_rfc3339(kept)} on (retention){ends}"
    )


async def _states(log: PastLog, wanted: Filter) -> tuple[Iterator[tuple[Key, BalanceState]], Cursor]:
    """By key. Sorted a page at a time, since in one go that takes long."""
    snapshot = await log.snapshot(wanted)
    try:
        pages: list[list[tuple[Key, BalanceState]]] = []
        while page := await snapshot.page(PAGE):
            pages.append(sorted([(state.key, state) for state in page], key=itemgetter(0)))
        return heapq.merge(*pages, key=itemgetter(0)), snapshot.cursor
    finally:
        snapshot.close()


async def _balances_at(
    log: PastLog, time: int, wanted: Filter, seen: LastSeen, progress: Progress
) -> Sequence[PastBalance]:
    states, cursor = await _states(log, wanted)
    changes: dict[Key, Published] = {}
    async for part in log.first_changes(wanted, time, cursor):
        changes |= {event.key: event for event in part.events}
        progress(part.done, part.of)
    if time < (kept := await log.kept_from()):  # events went while they were read
        raise PastError(f"events are kept from {format_rfc3339(kept)} on by now (retention)")
    rows = []
    for number, (key, state) in enumerate(states, 1):
        if (row := balance_at(state, changes.pop(key, None), seen, time)) is not None:
            rows.append(row)
        if number % ROWS == 0:
            await anyio.lowlevel.checkpoint()
    return rows


def balance_at(state: BalanceState, first: Published | None, seen: LastSeen, time: int) -> PastBalance | None:
    """One balance at `time`, from its state and the first change after that time. None: it was not known then."""
    if first is None or shared_micros(state.observed_at) <= time:  # since then a wall clock was set back
        return _without_change(state, seen, time)
    change, since = _CHANGE.decode(first.data), state.known_since
    if since is None and first.version == 1:  # nobody noted it, but it was known before its first change
        since = change.previous_observed_at
    if since is not None and time < shared_micros(since):
        return None
    symbol, unit, decimals = change.symbol, change.unit, change.decimals
    if time <= parse_rfc3339(change.previous_observed_at):
        return _past(state, "certain", change.previous_amount, symbol=symbol, unit=unit, decimals=decimals)
    return _past(
        state,
        "changing",
        change.amount,
        symbol=symbol,
        unit=unit,
        decimals=decimals,
        previous_amount=change.previous_amount,
        between=(change.previous_observed_at, change.observed_at),
    )


def _without_change(state: BalanceState, seen: LastSeen, time: int) -> PastBalance | None:
    since = state.known_since
    if since is not None and time < shared_micros(since):
        return None
    last = seen.of(state)
    named = {"symbol": state.symbol, "unit": state.unit, "decimals": state.decimals}
    if time <= last:
        return _past(state, "certain", state.amount, **named)
    return _past(state, "unseen", state.amount, **named, last_seen=format_rfc3339(last))


def _past(state: BalanceState, status: str, amount: str, **others: object) -> PastBalance:
    return PastBalance(
        provider=state.provider,
        chain=state.chain,
        account=state.account,
        token=state.token,
        kind=state.kind,
        status=status,  # type: ignore[arg-type]
        amount=amount,
        **others,  # type: ignore[arg-type]
    )
