"""Claims of fleets as they may be: of one config or of several, with members that are new, that lasted, that were frozen."""

import msgspec
from hypothesis import strategies as st

from watcher.fleet.claims import MemberClaim
from watcher.model.partitions import partition_of

PROVIDERS = [f"provider-{number}" for number in range(12)]
WEIGHTS = st.sampled_from([0.0, 1e-9, 0.1, 1 / 3, 1.0, 7.0, 50.0])


@st.composite
def fleets(draw, *, one_config=False, fresh=False):
    """(claims, partitions)."""
    partitions = draw(st.sampled_from([1, 3, 16, 64]))
    config = draw(st.dictionaries(st.sampled_from(PROVIDERS), WEIGHTS, min_size=1))
    configs = st.just(config) if one_config else st.dictionaries(st.sampled_from(PROVIDERS), WEIGHTS)
    owned = st.just([]) if fresh else st.lists(st.integers(0, partitions - 1), unique=True, max_size=6)
    members = draw(st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=6, unique=True))
    return {
        member: MemberClaim(1, member, draw(configs), draw(st.text("ab")), draw(owned), draw(st.integers(0, 4)))
        for member in members
    }, partitions


def owners_of(assignments):
    """Partition → member; each at most once."""
    pairs = [(partition, member) for member, given in assignments.items() for partition in given.partitions]
    assert len(dict(pairs)) == len(pairs), "a partition has two owners"
    return dict(pairs)


def next_claims(claims, assignments):
    """What the members claim once they have what they were given."""
    return {
        member: msgspec.structs.replace(
            claim, owned=list(assignments[member].partitions), epoch=assignments[member].epoch
        )
        for member, claim in claims.items()
        if member in assignments
    }


def knowledge(claims, partitions):
    """Partition in use → member → how much of its weight the member knows, in millionths."""
    greatest = {}
    for claim in claims.values():
        for provider, weight in claim.providers.items():
            greatest[provider] = max(greatest.get(provider, 0), weight)
    return {
        home: {
            member: sum(
                max(1, round(1e6 * greatest[provider]))
                for provider in claim.providers
                if partition_of(provider, partitions) == home
            )
            for member, claim in claims.items()
        }
        for home in {partition_of(provider, partitions) for provider in greatest}
    }
