"""Commits that take longer than a lease: nothing has failed, so nothing else would say why nobody is asked."""

from math import inf

import structlog

from watcher.limits.lease import LATE

AGAIN = 60.0
"""Seconds between two lines about them, at least."""

log = structlog.get_logger()


class SlowCommits:
    """Of one partition. The time is given, in seconds of the monotonic clock."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._logged_at = -inf

    def log_if_slow(self, seconds: float, now: float) -> None:
        """A commit took so long."""
        if seconds >= LATE and now - self._logged_at >= AGAIN:
            self._logged_at = now
            reason = f"requests leave only in the {LATE:g} s after the start of a commit: until one is quicker, nobody is asked"
            log.warning("journal.slow", partition=self._partition, commit_seconds=round(seconds, 1), reason=reason)
