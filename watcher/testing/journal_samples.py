"""Balances, changes and readers for the tests of a journal."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable

import anyio
import msgspec

from watcher.journal import Journal, Reader, Restored, Writer
from watcher.model.alerts import Crossing, Direction, crossing_id
from watcher.model.events import BalanceState, CommitRow, HintsHealth, HintSourceHealth, ProviderHealth, changed
from watcher.model.keys import Filter
from watcher.model.log import Commit, Cursor, Published
from watcher.model.times import format_rfc3339

PATIENCE = 60.0
"""Seconds after which a test gives up."""
BEGAN = 1_790_000_000_000_000
"""Wall-clock microseconds (September 2026) at which these little worlds begin."""


def baseline(account: str, amount: int, at: int = BEGAN) -> CommitRow:
    """The first amount of one balance."""
    return CommitRow(
        BalanceState(
            provider="bank",
            chain="eip155:1",
            account=account,
            token="0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48",  # noqa: S106 (an address)
            kind="total",
            symbol="USDC",
            version=0,
            amount=str(amount),
            unit="base",
            decimals=6,
            slot=None,
            as_of=None,
            observed_at=format_rfc3339(at),
        )
    )


def change(row: CommitRow, amount: int, after: int = 1_000_000) -> CommitRow:
    """The next change of that balance, `after` microseconds later."""
    before = row.state
    observed_at = format_rfc3339(BEGAN + (before.version + 1) * after)
    state = msgspec.structs.replace(
        before,
        version=before.version + 1,
        amount=str(amount),
        observed_at=observed_at,
        first_observed_at=before.first_observed_at or before.observed_at,
    )
    return CommitRow(state, changed("e0", state, before.amount, before.observed_at))


def crossing(row: CommitRow, alert: str = "low", direction: Direction = "below") -> Crossing:
    """That alert, crossed with that row."""
    state = row.state
    return Crossing(
        id=crossing_id("e0", alert, state.key, state.version, direction),
        alert=alert,
        direction=direction,
        threshold="100",
        amount=state.amount,
        previous_amount=None if row.event is None else row.event.previous_amount,
        provider=state.provider,
        chain=state.chain,
        account=state.account,
        token=state.token,
        kind=state.kind,
        version=state.version,
        observed_at=state.observed_at,
    )


SOURCE = HintSourceHealth(
    source="push", type="solana", connected=True, since=format_rfc3339(BEGAN), per_second=0.5, precision=None
)


def health(provider: str, time: int = BEGAN) -> ProviderHealth:
    return ProviderHealth(
        provider=provider,
        time=format_rfc3339(time),
        instance="one",
        watches=3,
        last_success=format_rfc3339(time),
        stalest_seconds=1.5,
        paused_until=None,
        budget_used=0.25,
        state="ok",
        reason=None,
        since=format_rfc3339(BEGAN),
        hints=HintsHealth(sources=(SOURCE,), hinted_delay=0.5, unhinted_delay=None),
    )


@contextlib.asynccontextmanager
async def opened(journal: Journal, partition: int = 0) -> AsyncIterator[tuple[Writer, Restored]]:
    """That partition's writer, and what it restored."""
    writer = journal.writer(partition)
    try:
        yield writer, await writer.open()
    finally:
        await writer.close()


@contextlib.asynccontextmanager
async def reading(journal: Journal) -> AsyncIterator[Reader]:
    reader = await journal.reader()
    try:
        yield reader
    finally:
        await reader.close()


@contextlib.asynccontextmanager
async def following(reader: Reader, cursor: Cursor) -> AsyncIterator[AsyncIterator[Commit]]:
    """The log from there. Its generator, if it is one, is closed at the end."""
    commits = reader.follow(cursor)
    try:
        yield commits
    finally:
        if (close := getattr(commits, "aclose", None)) is not None:
            await close()


async def collect(reader: Reader, cursor: Cursor, enough: Callable[[list[Commit]], object]) -> list[Commit]:
    """Commits from `cursor` on, until `enough(commits)`."""
    commits: list[Commit] = []
    with anyio.fail_after(PATIENCE):
        async with following(reader, cursor) as log:
            async for commit in log:
                commits.append(commit)
                if enough(commits):
                    return commits
    raise AssertionError("a log has no end")


async def snapshot(
    reader: Reader,
    wanted: Filter = Filter(),  # noqa: B008 (frozen)
    size: int = 500,
) -> tuple[Cursor, list[BalanceState]]:
    """The cursor and all rows of a snapshot, read in pages of that size; of its two forms the one that there is."""
    found = await reader.glance(wanted, size) or await reader.snapshot(wanted)
    try:
        rows: list[BalanceState] = []
        count = found.rows
        while page := await found.page(size):
            assert len(page) <= size
            rows += page
        assert len(rows) == count
        return found.cursor, rows
    finally:
        found.close()


def events(commits: Iterable[Commit]) -> list[Published]:
    return [event for commit in commits for event in commit.events]


def crossings(commits: Iterable[Commit]) -> list[Published]:
    return [event for event in events(commits) if event.type == "crossed"]


def baselines(commits: Iterable[Commit]) -> list[BalanceState]:
    return [state for commit in commits for state in commit.baselines]


async def read(reader: Reader, cursor: Cursor, count: int) -> list[Published]:
    """The next `count` events."""
    return events(await collect(reader, cursor, lambda commits: len(events(commits)) >= count))


def by_key(states: Iterable[BalanceState]) -> dict[str, BalanceState]:
    return {str(state.key): state for state in states}
