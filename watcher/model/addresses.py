"""Canonical forms of chains, accounts and tokens, so that one thing has one spelling in keys, requests and filters.

| family | canonical form |
|---|---|
| EVM (`eip155:…`) | `0x` and 40 lower-case hex digits: case carries only a checksum |
| Solana (`solana:…`) | the base58 string itself: case matters, and 32 bytes have exactly one spelling |
| Starknet (`starknet:…`) | the felt as `0x` and 64 lower-case hex digits: the API pads, other tools do not |

A package of others may add a family by an entry point of the group `balance_watcher.chains`.
"""

import re
from collections.abc import Callable, Collection, Mapping
from functools import cache, lru_cache
from importlib.metadata import EntryPoint, entry_points

import msgspec

from watcher.redaction.redactor import SECRETS
from watcher.runtime.config_section import SettingsError

GROUP = "balance_watcher.chains"

SOLANA = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"
ETHEREUM = "eip155:1"
BSC = "eip155:56"
STARKNET = "starknet:SN_MAIN"

CANONICAL_EVM = re.compile(r"0x[0-9a-f]{40}")
_EVM = re.compile(r"0x[0-9a-fA-F]{40}")
_FELT = re.compile(r"0x[0-9a-fA-F]{1,64}")
_BASE58 = re.compile(r"[1-9A-HJ-NP-Za-km-z]{32,44}")
_NAMESPACE = re.compile(r"[-a-z0-9]{3,8}")
_CAIP2 = re.compile(r"[-a-z0-9]{3,8}:[-_a-zA-Z0-9]{1,32}")
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS = {letter: value for value, letter in enumerate(_ALPHABET)}
LOOKED_AT = 1000
"""Characters of what is no address that are searched for a secret: those that are shown, and many behind them."""
_PRIME = 2**255 - 19
_CURVE_D = -121665 * pow(121666, -1, _PRIME) % _PRIME
"""Of ed25519: -x² + y² = 1 + d·x²·y² modulo the prime."""
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


def _one_spelling_only(_text: str) -> None:
    return None


def _respelled_evm(text: str) -> str | None:
    return text.lower() if _EVM.fullmatch(text) else None


def _respelled_felt(text: str) -> str | None:
    return _padded(text) if _FELT.fullmatch(text) else None


class AddressFamily(msgspec.Struct, frozen=True):
    """How accounts and tokens of one CAIP-2 namespace are written.

    An entry point of the group `balance_watcher.chains` adds one; its name is the namespace. Ours cannot be replaced.
    """

    namespace: str
    canonical: Callable[[str], str]
    """An address in its one spelling. Raises AddressError."""
    respelled: Callable[[str], str | None] = _one_spelling_only
    """The one spelling of a text that has the shape of such an address; None: it has another shape, or there is one
    spelling only. Filters name no chain, so each value of a filter is given to every family: it must be cheap."""
    aliases: Mapping[str, str] = {}
    """Names that people write for a chain → its CAIP-2 id."""


BUILT_IN = (
    AddressFamily("eip155", evm, _respelled_evm, {"ethereum-1": ETHEREUM, "bsc-56": BSC}),
    AddressFamily("solana", solana, aliases={"solana-900": SOLANA}),
    AddressFamily("starknet", felt, _respelled_felt),
)


@cache
def families() -> Mapping[str, AddressFamily]:
    """Every family by its namespace. Raises SettingsError for a plug-in that cannot be loaded, or is none."""
    ours = {family.namespace: family for family in BUILT_IN}
    return {**ours, **{point.name: _loaded(point) for point in entry_points(group=GROUP)}, **ours}


def _loaded(point: EntryPoint) -> AddressFamily:
    where = f"the chain plugin {point.name} = {point.value}"
    try:
        family = point.load()
    except Exception as error:  # whatever its code raises
        raise SettingsError(f"{where} cannot be loaded ({error}): repair or uninstall it") from error
    if not isinstance(family, AddressFamily) or family.namespace != point.name or not _NAMESPACE.fullmatch(point.name):
        raise SettingsError(f"{where} is no AddressFamily of the CAIP-2 namespace {point.name}: repair or uninstall it")
    return family


def canonical(chain: str, text: str) -> str:
    """The canonical form of an account or token on a CAIP-2 chain. Raises AddressError."""
    family = families().get(chain.partition(":")[0])
    if family is None:
        raise AddressError(chain, f"is no chain of which addresses are known: they are {', '.join(families())}")
    try:
        return family.canonical(text)
    except AddressError as error:
        raise AddressError(error.text, f"{error.reason} (the chain is {chain})") from None


def chain(text: str) -> str:
    """The CAIP-2 id of a chain, from that id or from an alias. Raises AddressError."""
    known = _aliases()
    if text not in known and not _CAIP2.fullmatch(text):
        choice = f"write a CAIP-2 id such as {ETHEREUM}, or one of {', '.join(known)}"
        raise AddressError(text, f"is not a chain: {choice}")
    return known.get(text, text)


def aliases(chains: Collection[str]) -> list[str]:
    """What people write for these CAIP-2 ids."""
    return [alias for alias, chain in _aliases().items() if chain in chains]


def _aliases() -> dict[str, str]:
    return {alias: chain for family in families().values() for alias, chain in family.aliases.items()}


def filter_forms(text: str) -> tuple[str, ...]:
    """The canonical spellings that a value in a subscriber's filter stands for.

    A filter names no chain: `0x` and 40 digits may be an EVM address or a short felt, so it stands for both; any
    other hex number is a felt. What no family respells is taken as it stands.
    """
    forms = (family.respelled(text) for family in families().values())
    return tuple(dict.fromkeys(form for form in forms if form is not None)) or (text,)


def base58(data: bytes) -> str:
    """As Solana writes bytes: one `1` for each zero byte before the others."""
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def from_base58(text: str) -> bytes:
    """The 32 bytes of a Solana address. Raises AddressError."""
    return _number(solana(text)).to_bytes(32, "big")


def on_curve(text: str) -> bool:
    """Whether a Solana address is a point of ed25519, so that somebody may hold its key: wallets are; associated token
    accounts and others that a program has derived never are. False for what is no address."""
    if not _BASE58.fullmatch(text):
        return False
    y = int.from_bytes(_number(text).to_bytes(33, "big")[1:], "little") & (2**255 - 1)
    square = (y * y - 1) * pow(_CURVE_D * y * y + 1, -1, _PRIME) % _PRIME
    return y < _PRIME and (square == 0 or pow(square, (_PRIME - 1) // 2, _PRIME) == 1)


def _padded(text: str) -> str:
    return f"0x{int(text, 16):064x}"


def _is_32_bytes(text: str) -> bool:
    zeros = len(text) - len(text.lstrip("1"))
    return zeros + (_number(text).bit_length() + 7) // 8 == 32


def _number(base58_digits: str) -> int:
    number = 0
    for letter in base58_digits:
        number = number * 58 + _DIGITS[letter]
    return number


def _shown(text: str) -> str:
    text = SECRETS.redacted(text[:LOOKED_AT])  # an answer may hold a key where an address should stand
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
