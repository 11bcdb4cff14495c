"""A budget that tasks can wait for."""

import contextlib
from collections.abc import Iterator

import anyio

from watcher.limits.budget import ARRIVAL_GRACE, Budget, Slot


class Limiter:
    """A budget that tasks can wait for: whatever may let a call leave earlier or later wakes them."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._changed: anyio.Event | None = None
        """What somebody waits for; mostly nobody does."""

    def wake(self) -> None:
        """Let whoever waits look again."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def wait_until(self, when: float) -> None:
        """Return at `when`, or as soon as something changed that may move it."""
        if self._changed is None:
            self._changed = anyio.Event()
        with anyio.CancelScope(deadline=when):
            await self._changed.wait()

    def grant(self, now: float, endpoint: str | None = None) -> Slot:
        """A place for one call that leaves now. Raises ValueError when none is ready."""
        slot = self.budget.grant(now, endpoint)
        self.wake()  # for the task that saves
        return slot

    @contextlib.contextmanager
    def held(self, slot: Slot) -> Iterator[None]:
        """One attempt. It settles the slot however it ends; one without an answer may still be under way."""
        grace = ARRIVAL_GRACE
        try:
            yield
            grace = 0.0
        finally:
            self.budget.settle(slot, anyio.current_time() + grace)
            self.wake()

    def pause(self, until: float, endpoint: str | None = None, *, remember: bool = True) -> None:
        self.budget.pause(until, endpoint, remember=remember)
        self.wake()

    def resume(self) -> None:
        self.budget.resume(anyio.current_time())
        self.wake()
