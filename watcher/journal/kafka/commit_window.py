"""The last slices of the log, which all live followers of a reader share. Pure."""

from collections import deque
from collections.abc import Sequence

from watcher.model.log import Commit

WINDOW_ROWS = 20_000
"""Events and baselines kept for followers that are a little behind."""
Positions = tuple[int, ...]


class CommitWindow:
    """The last slices of the log, numbered. Each follower holds the number of the next one it wants."""

    def __init__(self, start: Positions) -> None:
        self.first = 0
        self.start = start
        """Everything before this is gone from here."""
        self._slices: deque[tuple[Positions, Commit]] = deque()
        self._weight = 0

    @property
    def end(self) -> Positions:
        return self._slices[-1][1].cursor.positions if self._slices else self.start

    @property
    def next(self) -> int:
        return self.first + len(self._slices)

    def append(self, commit: Commit) -> None:
        self._slices.append((self.end, commit))
        self._weight += _rows_in(commit)
        while self._weight > WINDOW_ROWS and len(self._slices) > 1:
            _, gone = self._slices.popleft()
            self._weight -= _rows_in(gone)
            self.start = gone.cursor.positions
            self.first += 1

    def slice_for(self, positions: Sequence[int]) -> int | None:
        """The number of the first slice that somebody at `positions` needs; None when it is gone already."""
        number, before = self.next, self.end
        for start, commit in reversed(self._slices):
            if commit.cursor.positions != start and reaches(positions, commit.cursor.positions):
                break  # known; what came at the same place behind it, without events, may not be
            number, before = number - 1, start
        return number if reaches(positions, before) else None

    def get(self, number: int) -> Commit:
        return self._slices[number - self.first][1]


def _rows_in(commit: Commit) -> int:
    return 1 + len(commit.events) + len(commit.baselines)


def reaches(positions: Sequence[int], others: Sequence[int]) -> bool:
    return all(mine >= other for mine, other in zip(positions, others, strict=True))
