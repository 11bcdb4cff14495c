"""How far long work is: a log line every few seconds, and none from what ends before that."""

import contextlib
import time
from collections.abc import Callable, Iterator

import anyio
import structlog
from anyio.abc import TaskGroup

EVERY = 2.0
"""Seconds between two lines, and before the first one."""

log = structlog.get_logger()


class Progress:
    """Of one piece of work, on one thread. what: as the line shall name it. total: of what is counted, where that is known."""

    def __init__(self, what: str, total: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._total = total
        self._clock = clock
        self._began = clock()
        self._next = self._began + EVERY

    def at(self, done: int) -> None:
        """So many are done."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + EVERY
        of = {} if self._total is None else {"of": max(self._total, done)}
        log.info("progress", what=self._what, done=done, **of, seconds=round(now - self._began, 1))


@contextlib.contextmanager
def still_at(what: str, tasks: TaskGroup) -> Iterator[None]:
    """For a block that waits for others and cannot say how far it is. `tasks`: where what reports it may run."""
    scope = anyio.CancelScope()

    async def report() -> None:
        began = anyio.current_time()
        with scope:
            while True:
                await anyio.sleep(EVERY)
                log.info("progress", what=what, seconds=round(anyio.current_time() - began, 1))

    tasks.start_soon(report)
    try:
        yield
    finally:
        scope.cancel()
