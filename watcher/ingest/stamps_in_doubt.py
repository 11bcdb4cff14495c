"""Stamps of limiters that a former owner may have gone beyond.

A release speaks for the whole partition. Its owner may have released it without knowing all providers that live there, in a
change of the config: what an owner before that one asked of the others is in doubt as before, and a note says of which.
"""

from collections.abc import Iterable

from watcher.journal import Restored
from watcher.limits.lease import STAMPS

NOTE = "stamps-in-doubt"
"""The key of that note: the keys of notes with stamps, in lines."""


def of(restored: Restored) -> set[str]:
    """The keys of all stamps that are in doubt."""
    keys = restored.notes.get(NOTE, b"").decode().splitlines() if restored.released else restored.notes
    return {key for key in keys if key.startswith(STAMPS)}


def encode(keys: Iterable[str]) -> bytes:
    return "\n".join(sorted(keys)).encode()
