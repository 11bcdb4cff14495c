"""Who is due: one queue for everybody with the same interval, so that a look costs only those whose time has come."""

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Rota(Generic[T]):
    """Turns at a fixed interval (seconds), for as long as somebody takes them again. Pure; time is given."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._queue: deque[tuple[float, T]] = deque()

    def enter(self, who: T, now: float) -> None:
        """Due one interval from now."""
        self._queue.append((now + self._interval, who))

    def due(self, now: float) -> list[T]:
        """Everybody whose time has come; they leave the queue."""
        found = []
        while self._queue and self._queue[0][0] <= now:
            found.append(self._queue.popleft()[1])
        return found
