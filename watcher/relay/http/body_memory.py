"""What the bodies of all requests on one port hold together: bounded, and who holds most gives way."""

from collections import Counter
from typing import Protocol

MOST_HELD = 8 * 1024 * 1024
"""Bytes, of bodies that are coming and of whole ones whose answer is being found."""


class BodyHolder(Protocol):
    """A connection whose body is coming."""

    @property
    def address(self) -> str:
        """See `admission.address_group`."""

    @property
    def held(self) -> int:
        """Bytes of its body."""

    def crowd_out(self) -> None:
        """Its body is not waited for any more: it gives back what it holds."""


class BodyMemory:
    """Those that hold a body. When they hold too much, the oldest still coming of the address that holds most gives way."""

    def __init__(self, most: int = MOST_HELD) -> None:
        self.total = 0
        """Bytes."""
        self._most = most
        self._held: dict[BodyHolder, int] = {}
        """In the order in which they came."""
        self._whole: set[BodyHolder] = set()

    def update(self, holder: BodyHolder) -> None:
        """Some of its body came; it may be crowded out itself."""
        self.total += holder.held - self._held.get(holder, 0)
        self._held[holder] = holder.held
        while self.total > self._most and (other := self._least_missed()) is not None:
            self.leave(other)
            other.crowd_out()

    def keep(self, holder: BodyHolder) -> None:
        """Its body has come: it stays until it leaves."""
        self._whole.add(holder)

    def leave(self, holder: BodyHolder) -> None:
        """It holds nothing any more."""
        self.total -= self._held.pop(holder, 0)
        self._whole.discard(holder)

    def _least_missed(self) -> BodyHolder | None:
        coming = [holder for holder in self._held if holder not in self._whole]
        by_address: Counter[str] = Counter()
        for holder in coming:
            by_address[holder.address] += self._held[holder]
        return max(coming, key=lambda holder: by_address[holder.address], default=None)
