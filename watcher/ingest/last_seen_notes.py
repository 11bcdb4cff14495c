"""Saves when each balance of a provider was last seen: every now and then, and at the end."""

from collections.abc import Callable

import anyio

from watcher.ingest.committer import Committer
from watcher.model.last_seen import PREFIX
from watcher.runtime.slicing import run_at_once, run_in_slices

SAVE = 15.0
"""Seconds between two saves: what a kill makes unseen until the next reading."""


class LastSeenNotes:
    """Of one provider. `wall` gives wall-clock microseconds."""

    def __init__(self, provider: str, committer: Committer, wall: Callable[[], int]) -> None:
        self._provider = provider
        self._committer = committer
        self._wall = wall

    async def save_forever(self) -> None:
        while True:
            await anyio.sleep(SAVE)
            self._save(await run_in_slices(self._committer.ledger.seen_note(self._provider, self._evaluated())))

    async def save(self) -> None:
        """Return once it is committed as of now. Raises Closed at the end."""
        note = await run_in_slices(self._committer.ledger.seen_note(self._provider, self._evaluated()))
        if note is not None:
            await self._committer.save(PREFIX + self._provider, note)

    def save_now(self) -> None:
        """At the end, for the next commit."""
        self._save(run_at_once(self._committer.ledger.seen_note(self._provider, self._evaluated())))

    def _evaluated(self) -> int:
        """Wall-clock microseconds: whatever answer has come before is evaluated, as far as it has come to the committer."""
        return int(min(self._wall(), self._committer.under_way.oldest(self._provider)))

    def _save(self, note: bytes | None) -> None:
        if note is not None:
            self._committer.note(PREFIX + self._provider, note)
