"""Many members in few filters of bounded size, with few of them changed when members come and go. Pure."""

import msgspec


class Chunk(msgspec.Struct, frozen=True, cache_hash=True):
    """Members of one filter, sorted. Thousands of watches share it, so it is hashed once."""

    members: tuple[str, ...] = ()


class Chunks:
    """Members in chunks."""

    def __init__(self, most: int) -> None:
        """`most`: members of a chunk."""
        self._most = most
        self._chunks: list[Chunk] = []

    def arrange(self, members: set[str]) -> dict[str, Chunk]:
        """From now on these: the chunk in which each of them is. A full one stays as long as all of its members do."""
        kept = [
            chunk for chunk in self._chunks if len(chunk.members) == self._most and members.issuperset(chunk.members)
        ]
        rest = sorted(members.difference(*(chunk.members for chunk in kept)))
        fresh = [Chunk(tuple(rest[start : start + self._most])) for start in range(0, len(rest), self._most)]
        self._chunks = kept + fresh
        return {member: chunk for chunk in self._chunks for member in chunk.members}
