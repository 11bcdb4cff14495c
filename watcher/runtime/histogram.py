"""How often a figure fell where: a bisect and two additions for each."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from math import inf

import msgspec


class Histogram(msgspec.Struct):
    """Counts by upper bounds (inclusive, ascending). What lies above all of them is counted too."""

    bounds: tuple[float, ...]
    sum: float = 0.0
    counts: list[int] = []
    """Of each bound alone, and of what lies above all."""

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def count(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def total(self) -> int:
        return sum(self.counts)

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each bound with the count of all that lies at or below it; the last bound is inf."""
        return zip((*self.bounds, inf), accumulate(self.counts), strict=True)
