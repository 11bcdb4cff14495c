"""What commits took, and what they brought: for the metrics, and for the log where one takes longer than a lease.

Nothing has failed then, so nothing else would say why nobody is asked.
"""

from collections import Counter
from collections.abc import Iterable
from math import inf

import structlog

from watcher.ingest.detection_delays import DetectionDelays
from watcher.limits.lease import LATE
from watcher.model.alerts import Crossing, Direction
from watcher.model.events import CommitRow
from watcher.runtime.histogram import Histogram

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, LATE, 5.0, 10.0, 30.0)
"""Of the histogram of durations, in seconds."""
AGAIN = 60.0
"""Seconds between two lines about slow commits, at least."""

log = structlog.get_logger()


class CommitFigures:
    """Of one partition, of the commits that succeeded. The time is given, in seconds of the monotonic clock."""

    def __init__(self, partition: int) -> None:
        self.durations = Histogram(BOUNDS)
        self.detection_delays = DetectionDelays()
        self.crossings: Counter[tuple[str, Direction]] = Counter()
        """By alert and direction."""
        self._partition = partition
        self._logged_at = -inf

    def committed(self, rows: Iterable[CommitRow], crossings: Iterable[Crossing], seconds: float, now: float) -> None:
        """These are, and that took so long."""
        self.durations.count(seconds)
        self.detection_delays.count(rows)
        self.crossings.update((crossing.alert, crossing.direction) for crossing in crossings)
        if seconds >= LATE and now - self._logged_at >= AGAIN:
            self._logged_at = now
            reason = f"requests leave only in the {LATE:g} s after the start of a commit: until one is quicker, nobody is asked"
            log.warning("journal.slow", partition=self._partition, commit_seconds=round(seconds, 1), reason=reason)
