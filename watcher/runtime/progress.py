"""How far long work is: a log line every few seconds, and none from what ends before that."""

import time
from collections.abc import Callable

import structlog

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
