"""What is asked about, and through which endpoints: targets in groups, each with its lanes."""

from math import ceil

import msgspec

from watcher.model.keys import Scope

LISTING = "listing"
"""The family of targets whose answer names every balance of their scope."""


class Target(msgspec.Struct, frozen=True, gc=False, cache_hash=True):
    """One thing to ask about: a balance or a listing. Watches that mean the same are the same target."""

    family: str
    """Which of the provider's endpoints can answer it; `LISTING` for those that list."""
    scope: Scope

    def __str__(self) -> str:
        parts = (("chain", self.scope.chain), ("account", self.scope.account), ("token", self.scope.token))
        return ", ".join(f"{name} {part}" for name, part in parts if part is not None)


class Lane(msgspec.Struct, frozen=True, gc=False):
    """One endpoint, and how many targets one request to it carries."""

    endpoint: str | None = None
    """The name that limits use for it; None: the provider's limits know no endpoints."""
    batch: int = 1


class TargetGroup(msgspec.Struct, frozen=True, gc=False):
    """Targets that are read by the same lanes, and so share one schedule. A target stands in one group."""

    targets: tuple[Target, ...]
    lanes: tuple[Lane, ...] = (Lane(),)

    @property
    def widest(self) -> Lane:
        """The lane that reads the group with the fewest requests; of equal ones the first."""
        return max(self.lanes, key=lambda lane: lane.batch)

    @property
    def sweep(self) -> int:
        """Requests that read every target once, through the widest lane."""
        return ceil(len(self.targets) / self.widest.batch)
