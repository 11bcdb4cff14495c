"""Which partition a key lives in."""

import hashlib
from collections.abc import Iterable

from watcher.model.readings import Reading


def partition_of(home: str, partitions: int) -> int:
    """A stable hash of `Key.home`, of our own: no edit of the watches and no client library ever moves a key."""
    return int.from_bytes(hashlib.blake2b(home.encode(), digest_size=8).digest()) % partitions


# goes with partition = provider
def spread(readings: Iterable[Reading], partitions: int) -> dict[int, list[Reading]]:
    """Readings by the partition that their key lives in, in order."""
    out: dict[int, list[Reading]] = {}
    for reading in readings:
        out.setdefault(partition_of(reading.key.home, partitions), []).append(reading)
    return out
