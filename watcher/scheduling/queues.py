"""Three collections of the small integers that stand for targets, in a few bytes each: an index, a heap and a ring."""

import heapq
from array import array
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

FIXED_POINT = 2.0**24  # steps of the virtual time; a target of average rate strides 1
MANY = 8  # one entry in so many: ordering all anew is quicker than putting each in its place


class TargetIndex(Generic[T]):
    """Target to number in about 10 bytes each, where a dict takes 80: open addressing over the given list."""

    def __init__(self, targets: list[T]) -> None:
        self._targets = targets
        self._mask = (1 << (2 * len(targets)).bit_length()) - 1
        self._table = array("i", [-1]) * (self._mask + 1)
        for i, target in enumerate(targets):
            self._table[self._slot(target)] = i

    def find(self, target: T) -> int:
        """Raises KeyError for a target that is not scheduled here."""
        i = self._table[hash(target) & self._mask]
        if i >= 0 and self._targets[i] == target:  # three in four stand where they are first looked for
            return i
        i = self._table[self._slot(target)]
        if i < 0:
            raise KeyError(target)
        return i

    def _slot(self, target: T) -> int:
        table, targets, mask = self._table, self._targets, self._mask
        rest = hash(target) & 0xFFFFFFFFFFFFFFFF
        slot = rest & mask
        while (i := table[slot]) >= 0 and targets[i] != target:
            rest >>= 5
            slot = (5 * slot + rest + 1) & mask
        return slot


class VirtualTimeHeap:
    """Least key first, on heapq: an entry is one integer, the key in fixed point and the item in its low bits.

    An item that is removed leaves a dead entry behind; its key shows that: `key[i]` is negative while i is not in the
    heap. A binary heap with positions has no dead entries, but takes four times as long in plain Python.
    """

    def __init__(self, size: int) -> None:
        self.key = array("d", [-1.0]) * size
        self._entries: list[int] = []
        self._bits = size.bit_length()
        self._mask = (1 << self._bits) - 1
        self._alive = 0

    def __len__(self) -> int:
        return self._alive

    def empty(self) -> bool:
        return not self._alive

    def push(self, i: int) -> None:
        """Its key is set beforehand, as a negative."""
        key = self.key[i] = -self.key[i]
        self._alive += 1
        heapq.heappush(self._entries, int(key * FIXED_POINT) << self._bits | i)

    def pop(self) -> int:
        while True:
            entry = heapq.heappop(self._entries)
            i = entry & self._mask
            if int(self.key[i] * FIXED_POINT) == entry >> self._bits:
                self.key[i] = -self.key[i]
                self._alive -= 1
                return i

    def remove(self, i: int) -> None:
        """Does nothing if it is not there."""
        if self.key[i] < 0:
            return
        self.key[i] = -self.key[i]
        self._alive -= 1
        self._sweep()

    def stretch(self, ratios: Mapping[int, float], now: float) -> None:
        """Lengthen what lies between virtual time `now` and the keys of these, whether they are in the heap or not."""
        moved = []
        for i, ratio in ratios.items():
            if ratio == 1.0:
                continue
            key = abs(self.key[i])
            stretched = max(1 / FIXED_POINT, now + (key - now) * ratio if key > now else key)
            if self.key[i] < 0:
                self.key[i] = -stretched
            elif stretched != key:
                self.key[i] = stretched
                moved.append(int(stretched * FIXED_POINT) << self._bits | i)
        if len(moved) * MANY > len(self._entries):
            self._entries += moved
            heapq.heapify(self._entries)
        else:
            for entry in moved:
                heapq.heappush(self._entries, entry)
        self._sweep()

    def _sweep(self) -> None:
        """Take dead entries away, once they are many."""
        if len(self._entries) > 1.25 * self._alive + 100:
            self._entries = list({e for e in self._entries if self._is_alive(e)})
            heapq.heapify(self._entries)

    def _is_alive(self, entry: int) -> bool:
        return int(self.key[entry & self._mask] * FIXED_POINT) == entry >> self._bits


class LastReadRing:
    """The resting targets in the order in which they were last read: a linked list in two arrays."""

    def __init__(self, size: int) -> None:
        self._end = size
        self._next, self._previous = array("i", [size]) * (size + 1), array("i", [size]) * (size + 1)

    def head(self) -> int:
        return self._next[self._end]

    def after(self, i: int) -> int:
        """The one read next after it, or -1."""
        following = self._next[i]
        return -1 if following == self._end else following

    def append(self, i: int) -> None:
        last = self._previous[self._end]
        self._next[last] = self._previous[self._end] = i
        self._previous[i], self._next[i] = last, self._end

    def unlink(self, i: int) -> None:
        before, following = self._previous[i], self._next[i]
        self._next[before], self._previous[following] = following, before
