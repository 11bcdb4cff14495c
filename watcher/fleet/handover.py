"""What a member does with an assignment: which partitions it keeps, lets go and opens, and whether it waits for a release.

All members learn an assignment within some ten milliseconds of one another, and a partition may move although its owner lives.
Whoever fenced it at once would make of every join a death: the former owner's grants are in doubt, and stand still for `LATE`.

- Let go, in order: grant no more; wait at most `IN_FLIGHT_WAIT` for what is out, and count the rest as spent; commit what was
  read; save the stamps with "released", as the last record; close.
  "Released" says that nobody sends and that all is counted. So who still waits for the end of the lease before its own says
  "released, in doubt", and for how long: nobody need wait for it, and the next owner waits for what is left. A partition that
  is being opened is let go once it is open, so that there is somebody to say it (docs/fleet-model.md shows what is said too
  early).
- Open where a live member was the owner: wait at most `RELEASE_WAIT` for its "released", then fence. Nothing is in doubt if it
  came; without it the opening is as after a death. Where nobody lives who would release it: fence at once.
- Keep what was ours and is: nobody else has been told otherwise in between.

Nothing is let go when Kafka revokes, which it does at each join and with no word of what follows: the lease bounds what a member
asks until it knows its next assignment, and that may take a whole session when another one has died.
"""

from collections.abc import Collection, Mapping
from math import inf

import msgspec

from watcher.fleet.claims import VERSION, WEIGHTIEST, Assignment, MemberClaim

RELEASE_WAIT = 3.0
"""Seconds for which the next owner waits for the record "released"."""
IN_FLIGHT_WAIT = 1.5
"""Seconds for which an owner that lets go waits for answers: with a commit after it, less than the next one waits."""
LOST_WAIT = 3.0
"""Seconds after a loss that no assignment has explained, until a member asks for another one."""


class HandOver(msgspec.Struct, frozen=True):
    """Four sets of partitions. One may be let go and opened: then in this order."""

    keep: frozenset[int]
    let_go: frozenset[int]
    await_release: frozenset[int]
    """To open once the former owner has released it, or after `RELEASE_WAIT`."""
    fence: frozenset[int]
    """To open at once."""


def hand_over(owned: Collection[int], epoch: int, assignment: Assignment) -> HandOver:
    """owned, epoch: what the member has of its last assignment, and that one's number."""
    # A member that has missed an assignment does not know who had its partitions in between: whoever opened one has fenced it,
    # and what it holds of it is stale although it is given the partition again.
    missed = assignment.epoch != epoch + 1
    keep = frozenset() if missed else frozenset(owned) & assignment.partitions.keys()
    opened = frozenset(assignment.partitions) - keep
    waits = frozenset(partition for partition in opened if assignment.partitions[partition])
    return HandOver(keep, frozenset(owned) - keep, waits, opened - waits)


class Ownership:
    """What one member has been given, and what it claims at the next join. Never waits; times are seconds of one clock."""

    def __init__(self, instance: str, providers: Mapping[str, float], config: str) -> None:
        self._instance = instance
        self._knows(providers, config)
        self._owned: frozenset[int] = frozenset()
        self._epoch = 0
        self.rejoin_at = inf
        """When to ask for another assignment, unless one has come before."""

    def _knows(self, providers: Mapping[str, float], config: str) -> None:
        self._providers = {provider: min(weight, WEIGHTIEST) for provider, weight in providers.items()}
        self._config = config

    def reconfigured(self, providers: Mapping[str, float], config: str, now: float) -> None:
        """The config is another: what is claimed is told at the next join, and that is wanted now."""
        if config != self._config:
            self._knows(providers, config)
            self.rejoin_at = now

    def claim(self) -> MemberClaim:
        return MemberClaim(VERSION, self._instance, self._providers, self._config, sorted(self._owned), self._epoch)

    def assigned(self, assignment: Assignment, now: float) -> HandOver:
        """The assignment has come: what follows from it."""
        steps = hand_over(self._owned, self._epoch, assignment)
        self._owned, self._epoch = frozenset(assignment.partitions), assignment.epoch
        # A static member that comes back causes no join: nobody has seen its new config unless it asks.
        self.rejoin_at = inf if assignment.config == self._config else now
        return steps

    def lost(self, partition: int, now: float) -> None:
        """Another member of the group has claimed the partition since: it is let go.

        To open it anew at once would fence the rightful owner, which would open it anew. Mostly an assignment is on its way that
        explains the loss. When none comes, as after epochs that were counted twice, nobody else would ever poll it. One that
        was being let go is explained already, and another assignment would make all members join.
        """
        if partition in self._owned:
            self._owned -= {partition}
            self.rejoin_at = min(self.rejoin_at, now + LOST_WAIT)
