"""A chain's half a million holders, a megabyte at a time, into columns.

A JSON decoder takes an answer in one go, and for as long nothing else runs. So the body is cut before a row; that a
cut is right shows when the part before it is by itself a list of whole rows. An answer that is laid out in another
way than the documented one is left to the decoder.
"""

import re
from collections.abc import Generator

import msgspec

from watcher.columns import Column, Pages
from watcher.providers.answers import decode

SIZE = 2**20
"""Bytes decoded between two breaths: some ten milliseconds."""
HEAD = 4096
"""Bytes that the head of a token may have."""
BLANK = b" \t\n\r"
ROW = b'{"holderAddress"'

_OPENING = re.compile(rb'[ \t\n\r]*\{[ \t\n\r]*"tokens"[ \t\n\r]*:[ \t\n\r]*\[[ \t\n\r]*')
_BEHIND = re.compile(rb"[ \t\n\r]*\}[ \t\n\r]*(?:(,)[ \t\n\r]*|\][ \t\n\r]*\}[ \t\n\r]*)")


class Holder(msgspec.Struct, gc=False):
    account: str


class Balance(msgspec.Struct, gc=False):
    holder: Holder = msgspec.field(name="holderAddress")
    balance: str


class Token(msgspec.Struct):
    address: str = msgspec.field(name="tokenAddress")
    symbol: str = msgspec.field(name="tokenSymbol")
    balances: list[Balance]


_TOKEN = msgspec.json.Decoder(Token)
_ROWS = msgspec.json.Decoder(list[Balance])


class _Rows:
    """The rows of one token so far."""

    def __init__(self, chain: str) -> None:
        self.pages = Pages()
        self._cased = chain.startswith("eip155:")

    def take(self, part: bytes) -> None:
        rows = decode(_ROWS, b"[%b]" % part)
        accounts = [row.holder.account for row in rows]
        self.pages.add(_lowered(accounts) if self._cased else accounts, [row.balance for row in rows])


class Uncut(Exception):
    """The body does not look as documented: it may be good all the same."""


def columns(chain: str, body: bytes, size: int = SIZE) -> Generator[None, None, list[Column]]:
    """The tokens of an answer, about `size` bytes at a time; nothing of a row is checked. Raises Uncut, Malformed."""
    found: list[Column] = []
    opening = _OPENING.match(body)
    place, more = (opening.end(), True) if opening else (0, False)
    breath = place
    while more:
        start = body.find(b"[", place, place + HEAD) + 1
        token = decode(_TOKEN, body[place:start] + b"]}")
        rows = _Rows(chain)
        end = yield from _taken(rows, body, start, size)
        behind = _BEHIND.match(body, end)
        if behind is None:
            raise Uncut
        found.append(Column(chain, token.address, token.symbol, rows.pages.whole()))
        if end - breath > size:
            breath = end
            yield
        place, more = behind.end(), behind[1] is not None
    if place != len(body):
        raise Uncut
    return found


def _taken(rows: _Rows, body: bytes, place: int, size: int) -> Generator[None, None, int]:
    """The rows from `place` on, one after another; returns the place behind their closing bracket."""
    while True:
        end = body.find(b"]", place, place + size)
        if end >= 0:
            rows.take(body[place:end])
            return end + 1
        cut = body.rfind(ROW, place + 1, place + size)
        part = body[place : max(cut, place)].rstrip(BLANK)
        if not part.endswith(b","):
            raise Uncut
        rows.take(part[:-1])
        place = cut
        yield


def _lowered(accounts: list[str]) -> list[str]:
    """EVM addresses in their one spelling. What is no address is left as it is, for the check to refuse."""
    text = "\n".join(accounts)
    lowered = text.lower()
    if lowered == text or not text.isascii() or "0X" in text:
        return accounts
    split = lowered.split("\n")
    return split if len(split) == len(accounts) else accounts
