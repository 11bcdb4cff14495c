"""Which targets live sources tell of, and how much of what changes there they tell. Pure.

What push tells anyway needs no polling: a covered target is polled as if it changed only as often as push fails to say
so. That leaves more of the budget to all others. How often that is, is learned for each set of sources from the changes
that reads have shown: was the read hinted or not?
"""

from collections.abc import Collection

import msgspec

from watcher.scheduling.change_rates import EXPONENT

MEMORY = 500  # changes
DOUBT = 5.0  # changes that count as missed before anything is known
MOST_RECALL = 0.95  # push may end at any time, unseen


class Recall(msgspec.Struct, eq=False):
    """Faded counts of the changes seen in targets with the same sources, and of those that a source had hinted at."""

    changes: float = 0.0
    hinted: float = 0.0
    stretch: float = 1.0
    """Of the time to the next poll."""

    def add(self, changes: float, hinted: float) -> None:
        keep = 1 - changes / MEMORY
        self.changes = self.changes * keep + changes
        self.hinted = min(self.changes, self.hinted * keep + hinted)
        self.stretch = float((1 - min(MOST_RECALL, self.hinted / (self.changes + DOUBT))) ** -EXPONENT)


class HintCoverage:
    """Of `size` targets, which are small integers. A set of sources is an integer of bits."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.sources: list[int] = []
        """Of each target; empty as long as no source has covered any."""
        self.recalls: dict[int, Recall] = {0: Recall()}
        """Of each set of sources."""
        self._covered: dict[int, frozenset[int]] = {}
        """By source. One tells of more and more, so what is new is found without a look at every target."""

    def cover(self, bit: int, targets: Collection[int]) -> dict[int, float]:
        """This source tells of these and of no others. Gives the targets for which that is new, and by how much
        longer their time to the next poll is now."""
        if not self.sources:
            self.sources = [0] * self._size
        before, self._covered[bit] = self._covered.get(bit, frozenset()), frozenset(targets)
        ratios = {}
        for i in before ^ self._covered[bit]:
            sources = self.sources[i]
            self.sources[i] = sources ^ bit
            ratios[i] = self._recall(sources ^ bit).stretch / self._recall(sources).stretch
        return ratios

    def covered(self, bit: int) -> list[int]:
        return sorted(self._covered.get(bit, ()))

    def stretch(self, i: int) -> float:
        return self.recalls[self.sources[i]].stretch

    def changed(self, i: int, sources: int) -> None:
        """A read showed a change of it, which these had hinted at."""
        if mine := self.sources[i]:
            self.recalls[mine].add(1.0, float(mine & sources != 0))

    def hinted_late(self, i: int, sources: int) -> None:
        """A change that a read had shown before was hinted at after all."""
        if self.sources and (mine := self.sources[i]) & sources:
            self.recalls[mine].add(0.0, 1.0)

    def _recall(self, sources: int) -> Recall:
        return self.recalls.setdefault(sources, Recall())
