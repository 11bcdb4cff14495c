"""Many members in few filters of bounded size, with few of them changed when members come and go. Pure."""

from collections.abc import Generator, Mapping

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

    def arrange(self, members: Mapping[str, None]) -> Generator[None, None, dict[str, Chunk]]:
        """From now on these: the chunk in which each of them is. A full one stays as long as all of its members do."""
        chunks: list[Chunk] = []
        placed: dict[str, Chunk] = {}
        for chunk in self._chunks:
            if len(chunk.members) == self._most and all(member in members for member in chunk.members):
                chunks.append(chunk)
                placed.update(dict.fromkeys(chunk.members, chunk))
            yield
        rest = [member for member in members if member not in placed]
        for start in range(0, len(rest), self._most):
            yield
            chunks.append(chunk := Chunk(tuple(sorted(rest[start : start + self._most]))))
            placed.update(dict.fromkeys(chunk.members, chunk))
        self._chunks = chunks
        return placed
