"""Growing pauses between tries."""

import msgspec


class Backoff(msgspec.Struct, frozen=True):
    """`first` seconds, then twice as long each time, at most `longest`. Whoever fails counts; this only says how long."""

    first: float
    longest: float

    def pause(self, tries: int) -> float:
        """Seconds behind the `tries`-th failure in a row, counted from 1."""
        return min(self.first * 2.0 ** min(tries - 1, 60), self.longest)

    def after(self, last: float) -> float:
        """Seconds that follow a pause of `last`; 0: there was none. For callers that others tell how long to wait, too."""
        return min(max(self.first, 2.0 * last), self.longest)
