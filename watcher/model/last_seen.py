"""When balances were last seen to be what is committed: a note for each provider, in the journal beside them.

A reading that repeats what is known changes nothing that is committed. So how long an amount stood is told by these notes: of
each balance its own time while there are few, else the earliest of all balances of a token, beside the times of those that were
seen long before the others.
"""

import hashlib
from collections.abc import Mapping
from math import inf

import msgspec

from watcher.model.events import BalanceState
from watcher.model.keys import Key
from watcher.model.times import format_rfc3339, shared_micros

PREFIX = "seen:"
"""Of the note's key; the provider's name follows."""
SETTLED = 60_000_000
"""Microseconds: a balance that is dated later than that before the note was made may have been unknown then, so what is said of
all balances of its token is not said of it. Far longer than an answer takes to be read."""
DIGEST = 8
"""Bytes that name a balance."""


class SeenNote(msgspec.Struct, frozen=True, array_like=True):
    """The note of one provider. Times are wall-clock microseconds."""

    at: int
    """All that had come before is in it."""
    alone: list[tuple[int, bytes]]
    """Times, and the digests of the balances that were last seen then, one behind the other."""
    floors: dict[str, int]
    """Chain, token and kind (`chain/token/kind`, "" for all that are not named) → when each of the other balances was seen,
    or later. Empty: each has its own time."""


_DECODER = msgspec.msgpack.Decoder(SeenNote)
encode = msgspec.msgpack.Encoder().encode


def digest(key: Key) -> bytes:
    return hashlib.blake2b(str(key).encode(), digest_size=DIGEST).digest()


class LastSeen:
    """What the notes say. `now`: wall-clock microseconds; a time after it is no time at which anything was seen."""

    def __init__(self, notes: Mapping[str, bytes], now: float = inf) -> None:
        self._now = now
        self._notes: dict[str, SeenNote] = {}
        self._alone: dict[bytes, int] = {}
        for name, data in notes.items():
            if name.startswith(PREFIX):
                try:
                    note = _DECODER.decode(data)
                except msgspec.DecodeError:  # of another version: it says nothing
                    continue
                self._notes[name.removeprefix(PREFIX)] = note
                for time, digests in note.alone:
                    self._alone |= {digests[start : start + DIGEST]: time for start in range(0, len(digests), DIGEST)}

    def of(self, state: BalanceState) -> int:
        """When the amount of the state was last seen, in wall-clock microseconds. `state`: of no earlier than the notes."""
        observed_at = shared_micros(state.observed_at)
        if (note := self._notes.get(state.provider)) is None:
            return observed_at
        time = self._alone.get(digest(state.key)) if note.alone else None
        if time is None and observed_at <= note.at - SETTLED:
            time = note.floors.get(f"{state.chain}/{state.token}/{state.kind}", note.floors.get(""))
        return observed_at if time is None or time > self._now else max(observed_at, time)

    def text(self, state: BalanceState) -> str:
        """The same as RFC 3339."""
        if state.provider not in self._notes:
            return state.observed_at
        time = self.of(state)
        return state.observed_at if time == shared_micros(state.observed_at) else format_rfc3339(time)
