"""What a node has said before. One event that two subscriptions match comes twice. Pure."""

from collections import OrderedDict
from collections.abc import Hashable

MOST_REMEMBERED = 10_000
"""Events that are known again."""


class Repeats:
    """The events of late, each with what was last said of it."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Hashable, object] = OrderedDict()

    def is_repeated(self, event: Hashable, said: object) -> bool:
        """Whether just that was said of it last. Remembers it."""
        repeated = event in self._seen and self._seen[event] == said
        self._seen[event] = said
        self._seen.move_to_end(event)
        if len(self._seen) > MOST_REMEMBERED:
            self._seen.popitem(last=False)
        return repeated

    def forget(self) -> None:
        self._seen.clear()
