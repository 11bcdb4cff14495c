"""Which partition a provider lives in.

A limit belongs to a credential, and cannot be divided without loss. So all balances of a provider, the stamps of its limiter and
its learned rates stand in one partition: an answer has one ledger, one commit and one order, and the provider moves as a whole.
"""

import hashlib


def partition_of(provider: str, partitions: int) -> int:
    """A stable hash of the provider's name, of our own: no edit of the watches and no client library ever moves a key."""
    return int.from_bytes(hashlib.blake2b(provider.encode(), digest_size=8).digest()) % partitions
