"""A large answer is cut between its rows and opened a piece at a time: a decoder takes all in one go, and nothing else
runs meanwhile.

A cut is tried where a row seems to end, and accepted when the piece before it is whole by itself: such pieces, with commas
between them, are the whole answer. An answer that cannot be cut so is opened in one go, if it is small enough for that.
"""

import re
from collections.abc import Generator, Sized
from typing import NamedTuple, TypeVar

import msgspec

from watcher.providers.answers import decode_either
from watcher.providers.failures import Malformed

T = TypeVar("T", bound=Sized)
U = TypeVar("U", bound=Sized)

PIECE = 2**16
"""Bytes opened in one step of work: a few milliseconds."""
REACH = 2**14
"""Bytes before the end of a piece in which a row has to end."""
ROWS = 100_000
"""In one answer; each costs half a kilobyte while it is read."""
HEAD = 4096
"""Bytes that may stand before the rows."""
PLACEHOLDER = msgspec.Raw(b"0")
"""Stands for all rows; no answer has such a row."""
SPACE = rb"[ \t\n\r]{0,99}"
BETWEEN_ROWS = re.compile(rb"\}%b(,)%b\{" % (SPACE, SPACE))


class NotCuttable(Exception):
    """The body does not look as documented: it may be good all the same."""


class Layout(NamedTuple):
    """How the rows stand in an answer."""

    opening: re.Pattern[bytes]
    """What stands before the first row."""
    between: re.Pattern[bytes]
    """The end of a row, the comma (a group of its own), and how the next one begins."""
    ending: re.Pattern[bytes]
    """The end of the last row, and a bracket."""
    brackets: tuple[bytes, bytes]
    placeholder: bytes
    """`PLACEHOLDER`, to see whether the rest of the answer has its rows where they are due; a member of an object has no name."""


def list_layout(*names: bytes) -> Layout:
    """A list of objects under one of these names."""
    opening = rb'"(?:%b)"%b:%b\[' % (b"|".join(map(re.escape, names)), SPACE, SPACE)
    return Layout(re.compile(opening), BETWEEN_ROWS, re.compile(rb"\}%b\]" % SPACE), (b"[", b"]"), b"0")


def object_layout(opening: bytes, end: bytes) -> Layout:
    """An object whose members all end with that bracket."""
    parts = (re.escape(end), SPACE, SPACE)
    between, ending = re.compile(rb'%b%b(,)%b"' % parts), re.compile(rb"%b%b\}" % parts[:2])
    return Layout(re.compile(opening), between, ending, (b"{", b"}"), b'"":0')


def last_cut(body: bytes, between: re.Pattern[bytes], first: int, last: int) -> int:
    """The place of the last comma between two rows there. Raises NotCuttable."""
    found = [cut.start(1) for cut in between.finditer(body, max(first, last - REACH), last)]
    if not found:
        raise NotCuttable
    return found[-1]


def decode_pieces(
    body: bytes, layout: Layout, strict: msgspec.json.Decoder[T], loose: msgspec.json.Decoder[U], size: int = PIECE
) -> Generator[None, None, tuple[bytes, list[T | U]]]:
    """The answer with `layout.placeholder` instead of its rows, and the rows, opened piece by piece.

    Raises NotCuttable, and Malformed for more rows than there may be.
    """
    opening = layout.opening.search(body, 0, HEAD)
    if opening is None:
        raise NotCuttable
    found: list[T | U] = []
    rows = 0
    place, (left, right) = opening.end(), layout.brackets
    while True:
        ending = layout.ending.search(body, place, place + size)
        end = ending.end() - 1 if ending else last_cut(body, layout.between, place, place + size)
        try:
            found.append(decode_either(strict, loose, left + body[place:end] + right))
        except Malformed:
            raise NotCuttable from None
        if (rows := rows + len(found[-1])) > ROWS:
            raise Malformed(f"more than {ROWS} rows in one answer")
        yield
        if ending:
            return body[: opening.end()] + layout.placeholder + body[end:], found
        place = end + 1
