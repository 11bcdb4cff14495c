"""What a restart must know of one provider: the limiter's counts, saved as they change, and the learned rates.

A save is what renews the lease, where nothing else is committed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Protocol

import anyio
import msgspec

from watcher.limits.lease import STAMPS, Lease
from watcher.limits.limiter import Limiter
from watcher.model.targets import Target
from watcher.poller.poll_stats import PollStats
from watcher.runtime.slicing import run_in_slices
from watcher.scheduling.schedule import Schedule

SAVE_LIMITER = 1.0
"""Seconds from the start of one save of the limiter to that of the next, at least."""
NEARLY_OVER = 0.5
"""Seconds: a lease with less left is renewed at the next grant. More than a second is left while saves follow one another
and a commit takes less, so a busy provider needs none."""
TOO_SHORT = 0.1
"""Seconds: with less left the grant waits for that, so that the request still leaves under it. With more it does not: where a
commit takes half a second, a third of the polls would be lost, and nearly all where it takes 1.5 s."""
SAVE_RATES = 60.0
"""Seconds between two saves of the learned rates."""


class NoteSink(Protocol):
    """Where small records go, and under which lease requests leave meanwhile."""

    lease: Lease
    in_doubt: set[str]
    """Notes with the stamps of a former owner that may have asked more."""

    def note(self, key: str, data: bytes) -> None:
        """Keep it with the next commit."""
        ...

    async def save(self, key: str, data: bytes) -> None:
        """As `note`; returns once it is durable."""
        ...


class LearnedRates(msgspec.Struct, array_like=True):
    """The note `schedule:NAME`."""

    wall: int
    """Wall-clock microseconds of the save."""
    schedules: list[bytes]
    """In the order of the provider's groups."""


def restore_rates(schedules: Iterable[Schedule[Target]], learned: bytes, now: float, wall: int) -> None:
    """Restore what the note `schedule:NAME` says, aged by the time since. Raises ValueError for foreign bytes."""
    saved = msgspec.msgpack.decode(learned, type=LearnedRates)
    downtime = max(0.0, (wall - saved.wall) / 1e6)
    for schedule in schedules:
        if (
            saved.schedules
        ):  # groups come and go with the watches: each goes on with the one that knows most of its targets
            schedule.restore(max(saved.schedules, key=schedule.in_common), downtime, now)


class Checkpoints:
    """Of one provider. `wall` gives wall-clock microseconds."""

    def __init__(
        self,
        name: str,
        limiter: Limiter,
        schedules: Sequence[Schedule[Target]],
        stats: PollStats,
        *,
        sink: NoteSink,
        wall: Callable[[], int],
    ) -> None:
        self._name = name
        self._limiter = limiter
        self._budget = limiter.budget
        self._schedules = schedules
        self._stats = stats
        self._sink = sink
        self._wall = wall
        self._saving = anyio.Lock()
        """One save at a time: the budget would take the end of the first for that of the second."""

    def restore(self, notes: Mapping[str, bytes]) -> None:
        """Before the first grant. A note that cannot be read is logged; the limiter then waits as after a refusal."""
        # Side by side, the wall clock first: what passes between the two makes the stamps later. With a time from before the
        # poller was made they were earlier than they are, and a limit was exceeded by the 7 ms that it took (seen).
        wall = self._wall()
        now = anyio.current_time()
        try:
            if (counts := notes.get(stamps := STAMPS + self._name)) is not None:
                begin = now + self._sink.lease.begins_in()
                released = stamps not in self._sink.in_doubt
                if not self._budget.restore(counts, now, wall, released=released, begin=begin):
                    self._stats.clock_mismatch()
        except ValueError:
            self._stats.memory_unreadable("limiter")
            self._budget.pause(now + self._budget.shortest_window(self._budget.endpoints[0]))
        try:
            if (learned := notes.get(f"schedule:{self._name}")) is not None:
                restore_rates(self._schedules, learned, now, wall)
        except ValueError:
            self._stats.memory_unreadable("schedule")

    async def save_limiter(self) -> None:
        """Returns once it is durable."""
        async with self._saving:
            await self._save_limiter()

    async def _save_limiter(self) -> None:
        await self._sink.save(*self._limiter_note())
        self._budget.mark_saved()
        self._limiter.wake()

    async def renew_lease(self) -> None:
        """Save, unless what another save or commit has done meanwhile will do."""
        enough = TOO_SHORT if self._saving.locked() else NEARLY_OVER
        async with self._saving:
            if not self._sink.lease.lasts(enough):
                await self._save_limiter()

    async def save_limiter_forever(self) -> None:
        """Whoever asks for nothing saves nothing. While a request is in flight, its lease may be needed yet: a connect
        that takes longer than a lease would otherwise never come to its request."""
        rest = SAVE_LIMITER
        while True:
            await anyio.sleep(rest)
            while not (self._budget.unsaved_changes or self._budget.in_flight):
                await self._limiter.wait_until(inf)
            began = anyio.current_time()
            await self.save_limiter()
            rest = max(0.0, began + SAVE_LIMITER - anyio.current_time())

    async def note_rates_forever(self) -> None:
        while True:
            answers = self._stats.answers
            await anyio.sleep(SAVE_RATES)
            if self._stats.answers > answers:
                now, wall = anyio.current_time(), self._wall()
                schedules = [await run_in_slices(schedule.saving(now)) for schedule in self._schedules]
                self._note_rates(LearnedRates(wall, schedules))

    def note_all(self) -> None:
        """At the end, for the next commit."""
        self._sink.note(*self._limiter_note())
        now = anyio.current_time()
        self._note_rates(LearnedRates(self._wall(), [schedule.save(now) for schedule in self._schedules]))

    def _limiter_note(self) -> tuple[str, bytes]:
        return STAMPS + self._name, self._budget.save(anyio.current_time(), self._wall())

    def _note_rates(self, learned: LearnedRates) -> None:
        self._sink.note(f"schedule:{self._name}", msgspec.msgpack.encode(learned))
