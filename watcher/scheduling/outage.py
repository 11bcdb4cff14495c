"""Whether everything fails or only some watches do, and what follows for when they are asked again. Pure: time is given.

A watch that fails alone backs off, up to 8 average cycles. When everything fails no watch is to blame: each is asked
again a cycle later at most, and at the first good answer those that failed meanwhile are due at once.

The evidence are watches that did not fail before: a watch that goes on failing is asked less and less and counts once,
while of the others none can be passed over for long, so that three failing ones without a good answer in between mean
that there is nothing to be had.
"""

from collections.abc import Iterable, Sequence
from math import ceil, inf

from watcher.model.targets import Target
from watcher.scheduling.schedule import Schedule

EVIDENCE = 3
"""Failed requests, without a good answer since the first, for watches that did not fail before."""


class OutageDetector:
    """Of the watches in one schedule. `batch`: how many one request asks for, at most."""

    def __init__(self, schedule: Schedule[Target], batch: int) -> None:
        self._schedule = schedule
        self._enough = min(EVIDENCE, max(1, ceil(len(schedule) / batch)))
        self._evidence = 0
        self._failed: dict[Target, None] = {}
        """Since the last good answer, each once."""
        self._over = -inf
        """When the last outage ended."""

    @property
    def lasts(self) -> bool:
        return self._evidence >= self._enough

    def failed(self, targets: Sequence[Target], granted: float, now: float) -> None:
        """A request that left at `granted` brought nothing."""
        if granted < self._over <= now:  # what hung in the outage may end long after it
            self._put_back(targets, now, blameless=True)
            self._schedule.retry_now(targets, now)
            return
        self._evidence += not any(self._schedule.failing(target) for target in targets)
        self._put_back(targets, now, blameless=self.lasts)
        self._failed.update(dict.fromkeys(targets))

    def answered(self, now: float) -> None:
        """A good answer came."""
        if self.lasts:
            self._schedule.retry_now(self._failed, now)
            self._over = now
        self._evidence = 0
        self._failed.clear()

    def _put_back(self, targets: Iterable[Target], now: float, *, blameless: bool) -> None:
        for target in targets:
            self._schedule.failed(target, now, blameless=blameless)
