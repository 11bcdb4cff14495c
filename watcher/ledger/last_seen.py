"""When each balance of a provider was last seen to be what is committed, as a note."""

from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Sequence

from watcher.ledger.record import Arrival, BalanceRecord, TokenGroup
from watcher.ledger.store import Store
from watcher.model.bulk_listing import PAGE_ROWS
from watcher.model.last_seen import SeenNote, digest
from watcher.model.times import shared_micros

MOST_ALONE = 5_000
"""Balances of a provider up to which each has a time of its own."""
MOST_LATE = 2_500
"""Of a provider with more: those that have one since they were seen long before the others of their token."""
MOST_FLOORS = 1_000
"""Tokens that have a time; the others have one together."""
STEP = 1_000
"""Balances in one step of work."""
SECOND = 1_000_000
Seen = tuple[TokenGroup, Sequence[str], list[int]]
"""Accounts of a group, and when each was last seen (wall-clock microseconds, 0: never)."""


def seen_note(store: Store, provider: str, at: int) -> Generator[None, None, SeenNote | None]:
    """What to note; None: what it began with is no longer true. Answers may be evaluated and rows committed between two steps.

    at: wall-clock microseconds: all that came before has been evaluated.
    """
    taken_back = store.taken_back
    seen: dict[str, list[Seen]] = defaultdict(list)
    groups = store.groups(provider)
    named = set(sorted(groups, key=lambda group: -len(group.records))[:MOST_FLOORS])
    for group in groups:
        name = f"{group.chain}/{group.token}/{group.kind}" if group in named else ""
        for accounts, records in _pages(group):
            for start in range(0, len(records), STEP):
                times = [*map(_time, records[start : start + STEP])]
                seen[name].append((group, accounts[start : start + STEP], times))
                yield
    alone: dict[bytes, int] = {}
    floors: dict[str, int] = {}
    if store.count(provider) > MOST_ALONE:
        floors = yield from _floors(seen, alone, MOST_LATE / store.count(provider))
    else:
        for group, accounts, times in (each for parts in seen.values() for each in parts):
            _alone(group, accounts, times, 2**63, alone)
            yield
    if store.taken_back != taken_back:
        return None
    alone |= {digest(key): shared_micros(since) for key, since in store.pending_changes.since(provider)}
    together: dict[int, list[bytes]] = defaultdict(list)
    for balance, time in alone.items():
        together[time].append(balance)
    return SeenNote(at, [(time, b"".join(names)) for time, names in together.items()], floors)


def _floors(
    seen: dict[str, list[Seen]], alone: dict[bytes, int], share: float
) -> Generator[None, None, dict[str, int]]:
    """The times of tokens. Of each token that share of its balances at most, those seen first, are put into `alone`."""
    floors: dict[str, int] = {}
    for name, parts in seen.items():
        seconds: Counter[int] = Counter()
        for _, _, times in parts:
            seconds.update(time // SECOND for time in times if time)
            yield
        cut = _cut(seconds, int(share * seconds.total()))
        for group, accounts, times in parts:
            _alone(group, accounts, times, cut, alone)
            least = min((time for time in times if time >= cut), default=None)
            if least is not None:
                floors[name] = min(least, floors.get(name, least))
            yield
    return floors


def _cut(seconds: Counter[int], most: int) -> int:
    """The time before which at most so many were seen."""
    before, cut = 0, 1
    for second in sorted(seconds):
        cut = max(1, second * SECOND)
        before += seconds[second]
        if before > most:
            break
    return cut


def _alone(group: TokenGroup, accounts: Iterable[str], times: Iterable[int], cut: int, alone: dict[bytes, int]) -> None:
    """Put those that were seen before `cut` into `alone`."""
    for account, time in zip(accounts, times, strict=True):
        if 0 < time < cut:
            alone[digest(group.key(account))] = time


def _pages(group: TokenGroup) -> Sequence[tuple[Sequence[str], Sequence[BalanceRecord]]]:
    """Of a small group pages would be kept for nothing."""
    if len(group.records) > PAGE_ROWS:
        return list(group.pages())
    return [(list(group.records), list(group.records.values()))]


def _time(record: BalanceRecord) -> int:
    seen = record.last_seen
    if isinstance(seen, Arrival):
        return 0 if record.amount is None else seen.observed_at
    return shared_micros(seen) if seen else 0
