"""What followers at the head of the log find: one of them reads it, and those that stand where it stood are given the same.

All followers of a process are woken by the same commit: the relay, and each webhook. Each of them would ask for the same rows,
one after another on the one thread that reads at the head, and so hold up the relay by as many reads as there are webhooks.
"""

import copy
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import anyio
import msgspec

from watcher.journal.sqlite.reading import OpenFile
from watcher.model.log import Commit

KEPT = 4
"""Looks of which is known what they found."""


class Position(msgspec.Struct):
    """How far one follower has read."""

    file: OpenFile
    position: int
    baseline: int = 0
    """The greatest `state.id` seen."""
    beat: int = 0
    more: bool = False
    """The last look found a full slice: there may be more behind it."""
    version: int = -2
    """`PRAGMA data_version` before the last look: the file has changed since when it differs."""


class _Found(msgspec.Struct, frozen=True):
    commit: Commit | None
    behind: Position
    """Where the follower stood that looked."""


class SharedLooks:
    """Of one reader. A look is known by where the follower stood, and by the version of the file that it had asked for before:
    who has asked for the same one was not promised anything that was committed later."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[OpenFile, int, int, int, int], _Found] = OrderedDict()
        self._turn = anyio.Lock()

    async def look(self, place: Position, version: int, read: Callable[[], Awaitable[Commit | None]]) -> Commit | None:
        """What `read` finds, which moves `place` behind it; or what another one has found there. Raises what it does."""
        if version < 0:  # not known, so nobody else's is the same
            return await read()
        key = (place.file, place.position, place.baseline, place.beat, version)
        async with self._turn:
            if (found := self._found.get(key)) is None:
                found = _Found(await read(), copy.copy(place))
                self._found[key] = found
                if len(self._found) > KEPT:
                    self._found.popitem(last=False)
                return found.commit
        behind = found.behind
        place.position, place.baseline, place.beat = behind.position, behind.baseline, behind.beat
        place.more, place.version = behind.more, behind.version
        return found.commit
