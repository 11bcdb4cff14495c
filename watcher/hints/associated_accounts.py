"""Where a wallet on Solana holds a token, unless it was made otherwise: an address derived from wallet, program and mint.

A program may own addresses for which nobody can have a key: those that are no point of the curve. The first such one is
taken that `bump` = 255, 254, … gives.
"""

import hashlib
from functools import lru_cache

from watcher.model.addresses import on_curve

TOKEN_PROGRAMS = ("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA", "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
"""A mint belongs to one of them, and a listing does not say to which."""
_ASSOCIATED = "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL"
"""The program that owns the addresses."""
_MARK = b"ProgramDerivedAddress"
_LETTERS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUES = {letter: value for value, letter in enumerate(_LETTERS)}


@lru_cache(maxsize=65536)
def associated_account(wallet: str, mint: str, program: str) -> str:
    """The token account of that wallet for that mint. All are addresses; `program` is one of TOKEN_PROGRAMS.

    A quarter of a millisecond or more: it is asked for when a subscription is made, and not for thousands at once.
    """
    seeds = b"".join(map(_decoded, (wallet, program, mint)))
    for bump in range(255, -1, -1):
        digest = hashlib.sha256(seeds + bytes([bump]) + _decoded(_ASSOCIATED) + _MARK).digest()
        address = _encoded(digest)
        if not on_curve(address):
            return address
    raise AssertionError("256 hashes in a row that are points of the curve: half of all are")


def _decoded(address: str) -> bytes:
    number = 0
    for letter in address:
        number = number * 58 + _VALUES[letter]
    return number.to_bytes(32, "big")


def _encoded(data: bytes) -> str:
    number = int.from_bytes(data, "big")
    letters = []
    while number:
        number, value = divmod(number, 58)
        letters.append(_LETTERS[value])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return _LETTERS[0] * zeros + "".join(reversed(letters))
