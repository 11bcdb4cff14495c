"""Records that the journal does not take: each is logged once, and a balance is left out for longer and longer."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import structlog

from watcher.model.keys import Key
from watcher.runtime.backoff import Backoff

RETRY = Backoff(60.0, 3600.0)
"""Until a balance is tried again that the journal did not take even alone."""
MOST_REJECTED = 1000
"""Records that are logged and remembered as rejected."""
LONGEST_NAME = 200
"""Characters of a record's key that are logged."""

log = structlog.get_logger()


class _Pause(NamedTuple):
    until: float
    seconds: float


class RejectedKeys:
    """Of one partition. The time is given, in seconds of the monotonic clock."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._pauses: dict[Key, _Pause] = {}
        self._logged: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._pauses)

    def leave_out(self, key: Key, now: float) -> None:
        """The journal did not take the balance although nothing else was in the commit."""
        former = self._pauses.get(key)
        if former is not None or len(self._pauses) < MOST_REJECTED:
            seconds = RETRY.after(0.0 if former is None else former.seconds)
            self._pauses[key] = _Pause(now + seconds, seconds)

    def is_left_out(self, key: Key, now: float) -> bool:
        pause = self._pauses.get(key)
        return pause is not None and pause.until > now

    def forget(self, keys: Iterable[Key]) -> None:
        """These were committed."""
        for key in keys:
            self._pauses.pop(key, None)

    def log(self, reasons: Mapping[str, str]) -> None:
        """Log that records are not taken, each once, by its name (the key of a balance or of a note)."""
        for name, reason in reasons.items():
            if name not in self._logged and len(self._logged) < MOST_REJECTED:
                self._logged.add(name)
                log.error("record.rejected", partition=self._partition, key=name[:LONGEST_NAME], reason=reason)
