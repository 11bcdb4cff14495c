"""A budget that one can wait for."""

import contextlib
from collections.abc import AsyncIterator, Iterator

import anyio

from watcher.limits.budget import Budget, Slot

LINGER = 0.25
"""Seconds in which a request may still arrive after we gave it up without an answer."""


class Limiter:
    """A budget that one can wait for."""

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

    @contextlib.contextmanager
    def held(self, slot: Slot) -> Iterator[None]:
        """One attempt. It settles the slot however it ends; one without an answer may still be under way."""
        linger = LINGER
        try:
            yield
            linger = 0.0
        finally:
            self.budget.settle(slot, anyio.current_time() + linger)
            self.wake()

    @contextlib.asynccontextmanager
    async def slot(self, endpoint: str | None = None) -> AsyncIterator[Slot]:
        """Wait for one, and hold it for the attempt inside."""
        while (ready := self.budget.ready_at(anyio.current_time(), endpoint)) > anyio.current_time():
            await self.wait_until(ready)
        slot = self.budget.grant(anyio.current_time(), endpoint)
        with self.held(slot):
            yield slot

    def pause(self, until: float, endpoint: str | None = None, *, remember: bool = True) -> None:
        self.budget.pause(until, endpoint, remember=remember)
        self.wake()

    def resume(self) -> None:
        self.budget.resume(anyio.current_time())
        self.wake()
