"""What of an answer cannot be understood: those balances are unknown, and all the others stand.

A row that cannot be read makes its balance unknown even where another row is fine: the two may belong together.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar, TypeVarTuple

import msgspec

from watcher.model.addresses import AddressError
from watcher.model.keys import Key
from watcher.model.readings import Reading
from watcher.model.targets import Target
from watcher.providers.answers import attempt
from watcher.providers.failures import Malformed
from watcher.providers.protocol import ReadResult

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SUMS = 100_000
"""Balances of several rows that are remembered."""


class Gaps:
    """The parts of one answer that are not as the API documents them."""

    def __init__(self) -> None:
        self.count = 0
        self.keys: set[Key] = set()
        """Balances that such parts are about, as far as they say."""
        self.nameless = False
        """One of them does not say what it is about: it may belong to any balance that has several rows."""
        self._reason: object = None
        """What is wrong with the first of them."""
        self._of = ""

    def add(self, reason: object, *keys: Key, of: str = "") -> None:
        """`reason`: what becomes one line when it is reported, as a failure does; of the first gap alone it is. `of`: what
        it is about, in our own words."""
        if not self.count:
            self._reason, self._of = reason, f"{of}: " if of else ""
        self.count += 1
        self.keys.update(keys)
        self.nameless = self.nameless or not keys

    def key(self, make: Callable[[*Ts], T], *args: *Ts) -> T | None:
        """The key, or the address, that a row is about; None, and a gap, when it names none (AddressError)."""
        try:
            return make(*args)
        except AddressError as error:
            self.add(error)
            return None

    def reading(self, key: Key, of: str, make: Callable[[*Ts], T], *args: *Ts) -> T | None:
        """What a row says of that key; None, and a gap, when it cannot be understood (Malformed). `of`: as `add` has it."""
        try:
            return make(*args)
        except Malformed as failure:
            self.add(failure, key, of=of)
            return None

    def remark(self) -> str:
        """In one line."""
        more = f" (and {self.count - 1} more)" if self.count > 1 else ""
        return f"not all can be understood: {self._of}{self._reason}{more}"

    def without(self, readings: Sequence[Reading]) -> Sequence[Reading]:
        """What the answer says. Raises Malformed when nothing of it can be understood."""
        known = [reading for reading in readings if reading.key not in self.keys] if self.keys else readings
        if self.count and not known:
            raise Malformed(self.remark())
        return known

    def listing(self, readings: Sequence[Reading], target: Target, lacks: str | None = None) -> ReadResult:
        """A listing of these. It is partial where something is unknown, or `lacks` says what is not in it.

        Without its own mark of completeness and without a row it says nothing at all. Raises Malformed.
        """
        known = self.without(readings)
        if lacks is not None and not known:
            return ReadResult([], missing=(target,), remark=lacks)
        remark = self.remark() if self.count else lacks
        return ReadResult(known, listing=target.scope, partial=remark is not None, remark=remark)


class Sums:
    """Of how many rows each balance was the sum in its last whole answer, where it was more than one.

    An answer that lacks something may lack one of them, and what is left is no balance. Of more than SUMS
    balances the latest are remembered.
    """

    def __init__(self) -> None:
        self._rows: dict[Key, int] = {}

    def remember(self, rows: Counter[Key]) -> None:
        """Nothing is missing in an answer in which so many rows tell each balance."""
        for key, count in rows.items():
            self._rows.pop(key, None)
            if count > 1:
                self._rows[key] = count
        for key in list(islice(self._rows, max(0, len(self._rows) - SUMS))):
            del self._rows[key]

    def incomplete(self, rows: Counter[Key]) -> set[Key]:
        """Something is missing in such an answer: the balances that it may be a part of."""
        return {key for key, count in rows.items() if count < self._rows.get(key, 1)}


def open_rows(rows: Iterable[Any], decoder: msgspec.json.Decoder[T]) -> Iterator[T | msgspec.Raw]:
    """Each row opened; one of another shape is left closed."""
    for row in rows:
        if isinstance(row, msgspec.Raw):
            opened = attempt(decoder, row)
            yield row if opened is None else opened
        else:
            yield row
