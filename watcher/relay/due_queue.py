"""Who is due: one queue for everybody with the same interval, so that a look costs only those whose time has come."""

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class DueQueue(Generic[T]):
    """Turns at a fixed interval (seconds), for as long as somebody takes them again. Pure; time is given."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._due: dict[T, float] = {}

    def enter(self, who: T, now: float) -> None:
        """Due one interval from now."""
        self._due.pop(who, None)  # what is set anew would keep its place
        self._due[who] = now + self._interval

    def leave(self, who: T) -> None:
        """Never due again. Whoever stayed until then would be kept in memory."""
        self._due.pop(who, None)

    def due(self, now: float) -> list[T]:
        """Everybody whose time has come, once each."""
        found = []
        for who, when in self._due.items():
            if when > now:
                break
            found.append(who)
        for who in found:
            del self._due[who]
        return found
