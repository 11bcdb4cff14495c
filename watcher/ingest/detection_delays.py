"""For how long changes can have gone unnoticed.

When a balance changed nobody knows: between the last accepted reading of the old amount and the answer that told the new
one. The whole of that is counted, the wait for a proof included, so it is the most that the delay can have been.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from watcher.model.events import CommitRow
from watcher.model.times import format_rfc3339
from watcher.runtime.histogram import Histogram

BOUNDS = (0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 10800.0, 21600.0, 86400.0)
"""Seconds."""


class DetectionDelays:
    """Of one partition, by provider: `observed_at - previous_observed_at` of each event that was committed.

    Left out are changes whose old amount an earlier process read last: how long nobody looked is no delay of polling.
    """

    def __init__(self) -> None:
        self.by_provider: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(BOUNDS))
        self._since: str | None = None
        """When the first answer arrived (RFC 3339)."""

    def begin(self, observed_at: int) -> None:
        """An answer has arrived, in wall-clock microseconds."""
        if self._since is None:
            self._since = format_rfc3339(observed_at)

    def count(self, rows: Iterable[CommitRow]) -> None:
        """These are committed."""
        for row in rows:
            event = row.event
            # Times of one form and one offset: the later one is the greater text.
            if event is not None and self._since is not None and event.previous_observed_at >= self._since:
                observed_at = datetime.fromisoformat(event.observed_at)
                delay = observed_at - datetime.fromisoformat(event.previous_observed_at)
                self.by_provider[event.provider].count(delay.total_seconds())
