"""Which of two instances stays. Pure: no clients, no clock.

Every instance has one claim, (generation, id), shared by all of its partitions, which only ever grows; it is written
to each partition that the instance opens. An instance ends when it meets a greater claim in a partition that it had
opened. Two instances cannot both end: each would have met a claim of the other that was greater than its own of that
moment, and claims never shrink, so each of the two would be greater than the other.
"""

from watcher.journal import Fenced
from watcher.journal.kafka.records import Owner


class Claim:
    """What this instance writes into each partition that it opens."""

    def __init__(self, instance: str) -> None:
        self.own = Owner(0, instance)

    def meet(self, found: Owner | None, *, opened: bool) -> None:
        """Another claim stands in a partition. Raises Fenced when we had `opened` it and the other is greater.

        A partition that we open for the first time is taken over: our claim grows beyond the one that stands there.
        """
        if found is None or found.instance == self.own.instance:
            return
        if not opened:
            self.own = Owner(max(self.own.generation, found.generation + 1), self.own.instance)
        elif found > self.own:
            raise Fenced(f"another instance ({found.instance}) writes this journal now; this one ends")
