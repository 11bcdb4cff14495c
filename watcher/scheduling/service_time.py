"""How fast the budget lets a schedule read. Pure: time is given."""


class ServiceTime:
    """Seconds per target that the budget achieves, over about one cycle, without the time idle by choice."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._count = self._spent = 0.0
        self._since: float | None = None
        self._latest = 1

    @property
    def seconds(self) -> float:
        return self._spent / self._count if self._count else 0.0

    def restore(self, seconds: float) -> None:
        self._count, self._spent = 10.0, 10.0 * seconds

    def tick(self, now: float, served: int) -> None:
        if self._since is not None:
            keep = max(0.0, 1 - served / self._memory)
            self._count = self._count * keep + served
            self._spent = self._spent * keep + now - self._since
        self._since, self._latest = now, served

    def rest(self) -> None:
        self._since = None

    def at(self, now: float) -> float:
        """As `seconds`, with the pause that lasts at `now` counted in."""
        if self._since is None or not self._count:
            return self.seconds
        return max(self.seconds, (self._spent + now - self._since) / (self._count + self._latest))
