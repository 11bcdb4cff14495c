"""Canonical forms of chains, accounts and tokens, so that one thing has one spelling in keys, requests and filters.

| family | canonical form |
|---|---|
| EVM (`eip155:…`) | `0x` and 40 lower-case hex digits: case carries only a checksum |
| Solana (`solana:…`) | the base58 string itself: case matters, and 32 bytes have exactly one spelling |
| Starknet (`starknet:…`) | the felt as `0x` and 64 lower-case hex digits: the API pads, other tools do not |
"""

import re
from collections.abc import Callable
from functools import lru_cache

from watcher.redaction.redactor import SECRETS

SOLANA = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"
ETHEREUM = "eip155:1"
BSC = "eip155:56"
STARKNET = "starknet:SN_MAIN"

ONDO_CHAINS = {"ethereum-1": ETHEREUM, "bsc-56": BSC, "solana-900": SOLANA}
"""Ondo's own names of its chains → CAIP-2."""
ONDO_NAMES = {chain: name for name, chain in ONDO_CHAINS.items()}

CANONICAL_EVM = re.compile(r"0x[0-9a-f]{40}")
_EVM = re.compile(r"0x[0-9a-fA-F]{40}")
_FELT = re.compile(r"0x[0-9a-fA-F]{1,64}")
_BASE58 = re.compile(r"[1-9A-HJ-NP-Za-km-z]{32,44}")
_CAIP2 = re.compile(r"[-a-z0-9]{3,8}:[-_a-zA-Z0-9]{1,32}")
_DIGITS = {letter: value for value, letter in enumerate("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")}
LOOKED_AT = 1000
"""Characters of what is no address that are searched for a secret: those that are shown, and many behind them."""
FELT_BOUND = 2**251 - 256
"""Starknet addresses are above 0 and below this."""


class AddressError(ValueError):
    """Not an address of that chain. Its text is one line for whoever wrote it, made when it is asked for."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text, reason)
        self.text = text
        self.reason = reason

    def __str__(self) -> str:
        return f"{_shown(self.text)} {self.reason}"


def evm(text: str) -> str:
    """20 bytes as `0x` and 40 lower-case digits. Raises AddressError."""
    if not _EVM.fullmatch(text):
        raise AddressError(text, "is not an EVM address: write 0x and 40 hex digits")
    return text.lower()


@lru_cache(maxsize=65536)
def solana(text: str) -> str:
    """32 bytes in base58, unchanged. Raises AddressError."""
    if not _BASE58.fullmatch(text) or not _is_32_bytes(text):
        raise AddressError(text, "is not a Solana address: write the 32 bytes in base58, case as given")
    return text


def felt(text: str) -> str:
    """A Starknet address, padded to 64 lower-case digits. Raises AddressError."""
    if not _FELT.fullmatch(text) or not 0 < int(text, 16) < FELT_BOUND:
        raise AddressError(text, "is not a Starknet address: write 0x and up to 64 hex digits")
    return _padded(text)


_FAMILIES: dict[str, Callable[[str], str]] = {"eip155": evm, "solana": solana, "starknet": felt}


def canonical(chain: str, text: str) -> str:
    """The canonical form of an account or token on a CAIP-2 chain. Raises AddressError."""
    family = _FAMILIES.get(chain.partition(":")[0])
    if family is None:
        raise AddressError(chain, "is no chain of which addresses are known")
    try:
        return family(text)
    except AddressError as error:
        raise AddressError(error.text, f"{error.reason} (the chain is {chain})") from None


def chain(text: str) -> str:
    """The CAIP-2 id of a chain, from that id or from Ondo's name for it. Raises AddressError."""
    if text in ONDO_CHAINS:
        return ONDO_CHAINS[text]
    if not _CAIP2.fullmatch(text):
        raise AddressError(
            text, f"is not a chain: write a CAIP-2 id such as {ETHEREUM}, or one of {', '.join(ONDO_CHAINS)}"
        )
    return text


def filter_forms(text: str) -> tuple[str, ...]:
    """The canonical spellings that a value in a subscriber's filter stands for.

    A filter names no chain: `0x` and 40 digits may be an EVM address or a short felt, so it stands for both; any
    other hex number is a felt; anything else is taken as it stands.
    """
    if _EVM.fullmatch(text):
        return text.lower(), _padded(text)
    return (_padded(text),) if _FELT.fullmatch(text) else (text,)


def _padded(text: str) -> str:
    return f"0x{int(text, 16):064x}"


def _is_32_bytes(text: str) -> bool:
    number = 0
    for letter in text:
        number = number * 58 + _DIGITS[letter]
    zeros = len(text) - len(text.lstrip("1"))
    return zeros + (number.bit_length() + 7) // 8 == 32


def _shown(text: str) -> str:
    text = SECRETS.redacted(text[:LOOKED_AT])  # an answer may hold a key where an address should stand
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
