"""A chain's half a million holders, a megabyte at a time, into columns.

A JSON decoder takes an answer in one go, and nothing else runs meanwhile. So the body is cut between two rows. A cut is
right when the part before it is a list of whole rows by itself. An answer that has more than documented is left to the
decoder. A row of another shape stands in its column with an amount that no check lets pass, and with its account where it
names one.
"""

import re
from collections.abc import Generator
from typing import Generic, TypeVar

import msgspec

from watcher.model.bulk_listing import CHANGED_ROWS, PageBuilder, TokenColumn
from watcher.providers.answers import attempt, decode
from watcher.providers.failures import Malformed
from watcher.providers.json_pieces import BETWEEN_ROWS, HEAD, SPACE, NotCuttable, last_cut

T = TypeVar("T")

SIZE = 2**20
"""Bytes decoded in one step of work: some ten milliseconds."""
TOKENS = 10_000
"""In one listing. Each costs a little in one go, whatever the number of its holders."""
LEAST = len(b'{"holderAddress":{"account":""},"balance":""},')
"""Bytes of a row beside its account and amount."""

_OPENING = re.compile(rb'(?:\xef\xbb\xbf)?%b\{%b"tokens"%b:%b\[%b' % (5 * (SPACE,)))
_BEHIND = re.compile(rb"%b(?:(,)%b|\]%b\}%b)" % (4 * (SPACE,)))


class _Holder(msgspec.Struct, gc=False):
    account: str


class OndoHolder(msgspec.Struct, gc=False):
    holder: _Holder = msgspec.field(name="holderAddress")


class OndoBalance(OndoHolder, gc=False):
    balance: str


class _TokenAddress(msgspec.Struct):
    address: str = msgspec.field(name="tokenAddress")


class OndoToken(_TokenAddress, Generic[T]):
    symbol: str = msgspec.field(name="tokenSymbol")
    balances: list[T]


BALANCE = msgspec.json.Decoder(OndoBalance)
HELD = msgspec.json.Decoder(OndoHolder)
ADDRESS = msgspec.json.Decoder(_TokenAddress)
_TOKEN = msgspec.json.Decoder(OndoToken[OndoBalance])
_ROWS = msgspec.json.Decoder(list[OndoBalance])
_CLOSED = msgspec.json.Decoder(list[msgspec.Raw])


class _Rows:
    """The rows of one token so far."""

    def __init__(self, chain: str) -> None:
        self.pages = PageBuilder()
        self._cased = chain.startswith("eip155:")

    def take(self, part: bytes) -> Generator[None, None, None]:
        """Raises Malformed."""
        accounts: list[str] = []
        amounts: list[str] = []

        def once(rows: list[OndoBalance]) -> bool:
            """Whether the bytes of these rows have no room for anything else, so that no member stands twice."""
            accounts[:] = [row.holder.account for row in rows]
            amounts[:] = [row.balance for row in rows]
            return len(part) == len(rows) * LEAST - 1 + len("".join(accounts)) + len("".join(amounts))

        whole = b"[%b]" % part
        try:
            decode(_ROWS, whole, once)
        except Malformed:
            accounts, amounts = yield from _one_by_one(decode(_CLOSED, whole))
        self.pages.add(_lowered(accounts) if self._cased else accounts, amounts)


def _one_by_one(rows: list[msgspec.Raw]) -> Generator[None, None, tuple[list[str], list[str]]]:
    accounts, amounts = [], []
    for number, row in enumerate(rows, 1):
        if number % CHANGED_ROWS == 0:
            yield
        whole = attempt(BALANCE, row)
        held = whole or attempt(HELD, row)
        accounts.append("" if held is None else held.holder.account)
        amounts.append("" if whole is None else whole.balance)
    return accounts, amounts


def columns(chain: str, body: bytes, size: int = SIZE) -> Generator[None, None, list[TokenColumn]]:
    """The tokens of an answer, about `size` bytes at a time; nothing of a row is checked. Raises NotCuttable, Malformed.

    A token without a symbol is one that cannot be understood.
    """
    found: list[TokenColumn] = []
    opening = _OPENING.match(body)
    place, more = (opening.end(), True) if opening else (0, False)
    yielded = place
    while more:
        start = body.find(b"[", place, place + HEAD) + 1
        if not start:
            raise NotCuttable
        rows = _Rows(chain)
        end = yield from _taken(rows, body, start, size)
        close = body.find(b"}", end, end + HEAD) + 1
        token, symbol = _token_of(body[place:start] + b"]" + body[end:close])
        if len(found) == TOKENS:
            raise Malformed(f"more than {TOKENS} tokens in one listing")
        behind = _BEHIND.match(body, close)
        if behind is None:
            raise NotCuttable
        found.append(TokenColumn(chain, token, symbol, rows.pages.whole()))
        if end - yielded > size or len(found) % CHANGED_ROWS == 0:
            yielded = end
            yield
        place, more = behind.end(), behind[1] is not None
    if place != len(body):
        raise NotCuttable
    return found


def _token_of(data: bytes) -> tuple[str, str | None]:
    """Of a token without its rows: its address, and its symbol unless it cannot be understood. Raises Malformed."""
    try:
        token = decode(_TOKEN, data)
    except Malformed:
        return decode(ADDRESS, data).address, None
    return token.address, token.symbol


def _taken(rows: _Rows, body: bytes, place: int, size: int) -> Generator[None, None, int]:
    """The rows from `place` on, one after another; returns the place behind their closing bracket."""
    while True:
        end = body.find(b"]", place, place + size)
        if end >= 0:
            yield from rows.take(body[place:end])
            return end + 1
        cut = last_cut(body, BETWEEN_ROWS, place, place + size)
        yield from rows.take(body[place:cut])
        place = cut + 1
        yield


def _lowered(accounts: list[str]) -> list[str]:
    """EVM addresses in lower case. A text that is no address stays unchanged; the check refuses it later."""
    text = "\n".join(accounts)
    lowered = text.lower()
    if lowered == text or not text.isascii() or "0X" in text:
        return accounts
    split = lowered.split("\n")
    return split if len(split) == len(accounts) else accounts
