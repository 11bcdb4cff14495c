"""Which partition a provider lives in."""

from hypothesis import given
from hypothesis import strategies as st

from watcher.model.partitions import partition_of

NAMES = ("jupiter", "bloxroute", "helius", "ondo", "tokenkit", "Jupiter", "jupiter-2", "")


def test_partitions_are_fixed_for_life():
    """Golden: another figure here would move every balance of every log there is."""
    assert [partition_of(name, 16) for name in NAMES] == [11, 9, 12, 4, 9, 3, 14, 4]
    assert [partition_of(name, 8) for name in NAMES] == [3, 1, 4, 4, 1, 3, 6, 4]


@given(st.text(), st.integers(1, 10_000))
def test_a_name_lives_in_one_of_the_partitions_there_are(name, partitions):
    assert 0 <= partition_of(name, partitions) < partitions
