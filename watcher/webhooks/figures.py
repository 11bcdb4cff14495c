"""What is counted of one webhook, over all partitions that this process delivers of."""

from collections import Counter


class WebhookFigures:
    """Times are wall-clock microseconds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.by_result: Counter[str] = Counter(delivered=0, failed=0, gone=0)
        """Attempts."""
        self.gaps = 0
        """Times that events were not in the log any more that had not been delivered."""
        self.gone = False
        """The receiver has answered 410."""
        self._waiting: dict[int, int] = {}
        """Partition → when that was observed which is being delivered."""
        self._problems: dict[int, str] = {}
        """Partition → why its next event is not delivered."""

    @property
    def problem(self) -> str | None:
        """Why events wait, in one line of our words; None: none does for long."""
        if self.gone:
            return "the receiver is gone (410): remove it, or change what is configured"
        return next(iter(self._problems.values()), None)

    def lag(self, now: int) -> float:
        """Seconds since the oldest event was observed that is being delivered; 0: there is none."""
        return max(0, now - min(self._waiting.values(), default=now)) / 1e6

    def begin(self, partition: int, observed_at: int) -> None:
        """An event is being delivered."""
        self._waiting[partition] = observed_at

    def end(self, partition: int) -> None:
        """It is, or this partition delivers no more."""
        self._waiting.pop(partition, None)
        self._problems.pop(partition, None)

    def fail(self, partition: int, problem: str) -> None:
        self._problems[partition] = problem
