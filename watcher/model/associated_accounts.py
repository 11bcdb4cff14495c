"""Where a Solana wallet keeps the tokens of one mint: its associated token account, derived from wallet, program and mint.

An instruction that pays into it names this account and not the wallet, so whoever waits for payments has to know it.
"""

import hashlib
from functools import lru_cache

from watcher.model.addresses import base58, from_base58, on_curve

SPL_PROGRAM = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"
SPL_2022_PROGRAM = "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb"
SPL_PROGRAMS = (SPL_PROGRAM, SPL_2022_PROGRAM)
"""A mint belongs to one of them, and its address does not tell which."""
_ASSOCIATING = from_base58("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
_MARKER = b"ProgramDerivedAddress"


@lru_cache(maxsize=65536)
def associated_token_account(owner: str, mint: str, program: str = SPL_PROGRAM) -> str:
    """The account of `owner` for the tokens of `mint` under one of SPL_PROGRAMS.

    The three are Solana addresses; what is none raises ValueError. It costs two curve checks on average, each a third of
    a millisecond.
    """
    seeds = from_base58(owner) + from_base58(program) + from_base58(mint)
    for bump in range(255, -1, -1):
        address = base58(hashlib.sha256(seeds + bytes([bump]) + _ASSOCIATING + _MARKER).digest())
        if not on_curve(address):
            return address
    raise ValueError(f"no account can be derived for {owner} and {mint}")
