"""A budget that refills: `capacity` at once, and `rate` a second."""


class TokenBucket:
    """What is taken beyond it is a debt, which is repaid first. Pure; time (monotonic seconds) is given."""

    __slots__ = ("_at", "_capacity", "_level", "_rate")

    def __init__(self, capacity: float, rate: float) -> None:
        self._capacity = self._level = capacity
        self._rate = rate
        self._at = float("-inf")

    def left(self, now: float) -> float:
        """Below zero: the debt."""
        if now > self._at:
            self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
            self._at = now
        return self._level

    def take(self, amount: float, now: float) -> float:
        """How many seconds it is in debt then; 0 without one."""
        self._level = self.left(now) - amount
        return max(0.0, -self._level / self._rate)
