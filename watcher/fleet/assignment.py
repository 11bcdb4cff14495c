"""Which member polls what: what the leader makes of all claims.

A limit belongs to a credential and cannot be divided without loss, so a provider is polled by one member; and the providers of
one partition of the journal move together, since a partition has one writer. What is spread are the partitions.

- A partition goes to a member that knows most of its weight. In a rolling change of the config members know different
  providers, and none may lie idle that somebody knows.
- Among these it stays where it is, since a move costs a gap. Of two that claim it the greater epoch is right: a member that was
  frozen still claims what others have been given since.
- What nobody holds goes heaviest first to the least loaded. Then a partition moves only while that brings the loads of two
  members nearer: at the end no two differ by more than the lightest partition that could move between them.

The leader may be any of the members, so the result depends on what they claim and on nothing else, such as the order in which
they joined. Weights are counted in whole millionths: sums of floats depend on the order, and a move that seems to mend what
rounding has broken could go on for ever.
"""

from collections.abc import Iterable, Iterator, Mapping

from watcher.fleet.claims import VERSION, Assignment, MemberClaim
from watcher.model.partitions import partition_of


def assign(claims: Mapping[str, MemberClaim], partitions: int) -> dict[str, Assignment]:
    """Member id → what it is given. `partitions`: how many the journal has."""
    known = _known(claims, partitions)
    holders = _holders(claims)
    owners = _owners(known, holders)
    epoch = max((claim.epoch for claim in claims.values()), default=0) + 1
    return {
        member: Assignment(
            version=VERSION,
            epoch=epoch,
            config=claim.config,
            partitions={
                partition: holders.get(partition, member) != member
                for partition in sorted(owners)
                if owners[partition] == member
            },
            unowned=[
                provider
                for provider in sorted(claim.providers)
                if provider not in claims[owners[partition_of(provider, partitions)]].providers
            ],
        )
        for member, claim in claims.items()
    }


def _known(claims: Mapping[str, MemberClaim], partitions: int) -> dict[int, dict[str, int]]:
    """Partition → member → how much of its weight the member knows, in millionths of a request a second.

    Members may tell different weights of one provider, in a rolling change of its limits: the greatest counts for all of them.
    """
    weights: dict[str, int] = {}
    for claim in claims.values():
        for provider, weight in claim.providers.items():
            weights[provider] = max(weights.get(provider, 1), round(1e6 * weight))
    known: dict[int, dict[str, int]] = {}
    for member, claim in claims.items():
        for provider in claim.providers:
            members = known.setdefault(partition_of(provider, partitions), {})
            members[member] = members.get(member, 0) + weights[provider]
    return known


def _holders(claims: Mapping[str, MemberClaim]) -> dict[int, str]:
    """Partition → the live member that was given it last."""
    return {
        partition: member
        for member in sorted(claims, key=lambda member: (claims[member].epoch, member))
        for partition in claims[member].owned
    }


def _owners(known: Mapping[int, Mapping[str, int]], holders: Mapping[int, str]) -> dict[int, str]:
    """Partition → the member that polls it from now on."""
    spread = _Spread(known)
    for partition in known:
        if holders.get(partition) in spread.candidates[partition]:
            spread.give(partition, holders[partition])
    for partition in _heaviest_first(known.keys() - spread.owners.keys(), spread.weights):
        spread.give(partition, spread.least_loaded(spread.candidates[partition]))
    while move := spread.best_move():
        spread.give(*move)
    return spread.owners


def _heaviest_first(partitions: Iterable[int], weights: Mapping[int, int]) -> list[int]:
    return sorted(partitions, key=lambda partition: (-weights[partition], partition))


class _Spread:
    """Who owns which partition, and how heavily that loads each member."""

    def __init__(self, known: Mapping[int, Mapping[str, int]]) -> None:
        self.weights = {partition: max(members.values()) for partition, members in known.items()}
        self.candidates = {
            partition: [member for member, weight in members.items() if weight == self.weights[partition]]
            for partition, members in known.items()
        }
        self.owners: dict[int, str] = {}
        self._owned: dict[str, set[int]] = {member: set() for members in known.values() for member in members}
        self._loads = dict.fromkeys(self._owned, 0)

    def give(self, partition: int, member: str) -> None:
        """To this one from whoever has it."""
        former = self.owners.get(partition)
        if former is not None:
            self._owned[former].remove(partition)
            self._loads[former] -= self.weights[partition]
        self.owners[partition] = member
        self._owned[member].add(partition)
        self._loads[member] += self.weights[partition]

    def least_loaded(self, members: Iterable[str]) -> str:
        return min(members, key=lambda member: (self._loads[member], member))

    def best_move(self) -> tuple[int, str] | None:
        """From the most loaded member that has one: the move that mends most, or None when each would only turn it round."""
        for member in sorted(self._owned, key=lambda member: (-self._loads[member], member)):
            moves = sorted(self._moves(member))
            if moves:
                return moves[0][1:]
        return None

    def _moves(self, member: str) -> Iterator[tuple[int, int, str]]:
        """(minus what it mends, partition, to whom): how much smaller the sum of the squared loads becomes, halved.

        It becomes smaller with each move, so the moves come to an end.
        """
        for partition in self._owned[member]:
            other = self.least_loaded(self.candidates[partition])
            weight = self.weights[partition]
            mends = weight * (self._loads[member] - self._loads[other] - weight)
            if mends > 0:
                yield -mends, partition, other
