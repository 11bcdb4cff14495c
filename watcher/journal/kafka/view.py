"""What a reader holds in memory: the state as of a place, and the last slices of the log. Pure."""

from collections import deque
from collections.abc import Sequence

from watcher.events import BalanceState, Key, ProviderHealth
from watcher.journal import Commit, Published
from watcher.journal.kafka.records import Notes, state_after, state_before

WINDOW = 20_000
"""Events and baselines kept for followers that are a little behind."""
Places = tuple[int, ...]


class Window:
    """The last slices of the log, numbered. Each follower holds the number of the next one it wants. Pure."""

    def __init__(self, start: Places) -> None:
        self.first = 0
        self.start = start
        """Everything before this is gone from here."""
        self._slices: deque[tuple[Places, Commit]] = deque()
        self._weight = 0

    @property
    def end(self) -> Places:
        return self._slices[-1][1].cursor.positions if self._slices else self.start

    @property
    def next(self) -> int:
        return self.first + len(self._slices)

    def append(self, commit: Commit) -> None:
        self._slices.append((self.end, commit))
        self._weight += _weight(commit)
        while self._weight > WINDOW and len(self._slices) > 1:
            _, gone = self._slices.popleft()
            self._weight -= _weight(gone)
            self.start = gone.cursor.positions
            self.first += 1

    def enter(self, places: Sequence[int]) -> int | None:
        """The number of the first slice that somebody at `places` needs; None when it is gone already."""
        number, before = self.next, self.end
        for start, commit in reversed(self._slices):
            if commit.cursor.positions != start and covers(places, commit.cursor.positions):
                break  # known; what came at the same place behind it, without events, may not be
            number, before = number - 1, start
        return number if covers(places, before) else None

    def get(self, number: int) -> Commit:
        return self._slices[number - self.first][1]


def _weight(commit: Commit) -> int:
    return 1 + len(commit.events) + len(commit.baselines)


def covers(places: Sequence[int], others: Sequence[int]) -> bool:
    return all(mine >= other for mine, other in zip(places, others, strict=True))


class View:
    """The state of every key as of one place in the log of events. Pure."""

    def __init__(self) -> None:
        self.rows: dict[Key, BalanceState] = {}
        self.health: dict[str, ProviderHealth] = {}
        self.notes = Notes()

    def restore(self, state: BalanceState) -> None:
        self.rows[state.key] = state

    def baseline(self, state: BalanceState) -> bool:
        """A baseline just committed; whether it is news. A state record of a change says what its event says."""
        if state.version or state.key in self.rows:
            return False
        self.rows[state.key] = state
        return True

    def apply(self, event: Published) -> None:
        row = self.rows.get(event.key)
        if row is None or event.version > row.version:
            self.rows[event.key] = state_after(event)

    def take_back(self, event: Published) -> None:
        """This event is still to come: a row that stands at it already goes back to the one before."""
        row = self.rows.get(event.key)
        if row is not None and row.version == event.version:
            self.rows[event.key] = state_before(event)
