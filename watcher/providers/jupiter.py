"""Jupiter Ultra: all balances of a Solana account, with a slot each (`balances`) or without any order (`holdings`).

Native SOL is an entry of its own beside wrapped SOL: it becomes the token `native`. It is always there, so an answer
without it is not a whole one.
"""

import contextlib
from collections.abc import Generator, Iterable, Sequence
from typing import Any, ClassVar, Generic, Literal, NoReturn, TypeVar

import msgspec

from watcher.limits.windows import Limit
from watcher.model.addresses import SOLANA, solana
from watcher.model.keys import Key
from watcher.model.readings import Reading
from watcher.model.targets import Lane, Target, TargetGroup
from watcher.providers.answers import (
    BOM,
    ROWS_PER_STEP,
    Decimals,
    Order,
    base_units,
    decode,
    decode_either,
    documented_error,
    glimpse,
    refuse,
)
from watcher.providers.failures import Malformed
from watcher.providers.gaps import Gaps, open_rows
from watcher.providers.json_pieces import PIECE, PLACEHOLDER, NotCuttable, decode_pieces, object_layout
from watcher.providers.protocol import Credentials, ReadResult, Request, Response
from watcher.providers.settings import ConfiguredProvider, ProviderSettings
from watcher.runtime.slicing import run_at_once

T = TypeVar("T")

NATIVE = "native"
SOL = "SOL"
BLANK = b" \t\n\r"
NO_MARK = "native SOL is missing, which every whole answer names"


class JupiterSettings(ProviderSettings, frozen=True, kw_only=True):
    """`[providers.NAME]` of type `jupiter`."""

    endpoint: Literal["balances", "holdings"] = "balances"


class _Balance(msgspec.Struct, gc=False):
    amount: msgspec.Raw
    slot: Order


class _TokenAccount(msgspec.Struct, gc=False):
    account: str
    amount: msgspec.Raw
    decimals: Decimals


class _Holdings(msgspec.Struct, Generic[T]):
    tokens: dict[str, T]
    amount: msgspec.Raw = msgspec.Raw()


class _Complaint(msgspec.Struct, forbid_unknown_fields=True):
    """What the API itself says. Gateways of others say `error` too, among other things."""

    error: str


class _Gateway(msgspec.Struct):
    """What its gateway says."""

    code: int
    """The HTTP status again."""
    message: str


_BALANCES = msgspec.json.Decoder(dict[str, _Balance])
_ENTRIES = msgspec.json.Decoder(dict[str, msgspec.Raw])
_BALANCE = msgspec.json.Decoder(_Balance)
_HOLDINGS = msgspec.json.Decoder(_Holdings[list[_TokenAccount]])
_MINTS = msgspec.json.Decoder(_Holdings[msgspec.Raw])
_TOKEN_ACCOUNTS = msgspec.json.Decoder(list[_TokenAccount])
_LISTS = msgspec.json.Decoder(dict[str, list[_TokenAccount]])
_BY_MINT = object_layout(rb"\A(?:\xef\xbb\xbf)?[ \t\n\r]{0,99}\{", b"}")
_IN_TOKENS = object_layout(rb'"tokens"[ \t\n\r]{0,99}:[ \t\n\r]{0,99}\{', b"]")
_COMPLAINT = msgspec.json.Decoder(_Complaint)
_GATEWAY = msgspec.json.Decoder(_Gateway)


class Jupiter(ConfiguredProvider[JupiterSettings]):
    """`GET /ultra/v1/balances/{account}` or `/ultra/v1/holdings/{account}`."""

    Settings: ClassVar[type[ProviderSettings]] = JupiterSettings
    HOST = "https://api.jup.ag"
    LIMITS = (Limit(60, 60.0),)
    KEYLESS_LIMITS = (Limit(30, 60.0),)
    KEYLESS = True
    ORDERING = "strict"

    def __init__(self, name: str, settings: JupiterSettings, *, keyed: bool) -> None:
        super().__init__(name, settings, keyed=keyed)
        if settings.limits is None and not keyed:
            self.limits = self.KEYLESS_LIMITS
        self._endpoint = settings.endpoint
        if settings.endpoint == "holdings":
            self.ordering = "none"  # they name no slot
        self.groups = (TargetGroup(self.listings(SOLANA, settings.watch)),)

    def credentials(self, secret: str | None) -> Credentials:
        return Credentials() if secret is None else Credentials(headers={"x-api-key": secret})

    def ask(self, lane: Lane, targets: Sequence[Target], interval: float) -> Request:  # noqa: ARG002
        (target,) = targets
        return Request("GET", f"/ultra/v1/{self._endpoint}/{target.scope.account}", (target,))

    def read(self, request: Request, response: Response) -> ReadResult:
        return run_at_once(self.read_in_slices(request, response))

    def read_in_slices(self, request: Request, response: Response) -> Generator[None, None, ReadResult]:
        """The same, `ROWS_PER_STEP` balances at a time."""
        if response.status != 200:
            _refuse(request, response)
        (target,) = request.targets
        tell = self._balances if self._endpoint == "balances" else self._holdings
        return tell(target, response.body)

    def _balances(self, target: Target, body: bytes) -> Generator[None, None, ReadResult]:
        entries = yield from _entries(body)
        if "error" in entries:
            raise Malformed(f"an error with status 200: {glimpse(body)}")
        readings, gaps, provider, account = [], Gaps(), self.name, str(target.scope.account)
        rows: Iterable[tuple[str, Any]] = zip(entries, open_rows(entries.values(), _BALANCE), strict=True)
        for number, (name, entry) in enumerate(rows, 1):
            if number % ROWS_PER_STEP == 0:
                yield
            token = NATIVE if name == SOL else gaps.key(solana, name)
            if token is None:
                continue
            key = Key(provider, SOLANA, account, token)
            reading = gaps.reading(key, name, _balance, key, entry)
            if reading is not None:
                readings.append(reading)
        return gaps.listing(readings, target, None if SOL in entries else NO_MARK)

    def _holdings(self, target: Target, body: bytes) -> Generator[None, None, ReadResult]:
        holdings = yield from _held(body)
        readings, gaps, provider, account = [], Gaps(), self.name, str(target.scope.account)
        marked = bytes(holdings.amount) != b""
        if marked:
            native = Key(provider, SOLANA, account, NATIVE)
            amount = gaps.reading(native, "the native balance", base_units, holdings.amount)
            if amount is not None:
                readings.append(Reading(native, amount, "base", symbol=SOL))
        lists = open_rows(holdings.tokens.values(), _TOKEN_ACCOUNTS)
        rows: Iterable[tuple[str, Any]] = zip(holdings.tokens, lists, strict=True)
        for number, (name, parts) in enumerate(rows, 1):
            if number % ROWS_PER_STEP == 0:
                yield
            mint = gaps.key(solana, name)
            if mint is None:
                continue
            key = Key(provider, SOLANA, account, mint)
            if isinstance(parts, msgspec.Raw):
                gaps.add("not a list of token accounts as documented", key, of=name)
            elif parts:
                decimals = _agreed(name, parts)
                amount = gaps.reading(key, name, _total, parts)
                if amount is not None:
                    readings.append(Reading(key, amount, "base", decimals=decimals))
        return gaps.listing(readings, target, None if marked else NO_MARK)


def _entries(body: bytes) -> Generator[None, None, dict[str, Any]]:
    """By mint. Raises Malformed."""
    if len(body) > PIECE:
        with contextlib.suppress(NotCuttable):
            around, found = yield from decode_pieces(body, _BY_MINT, _BALANCES, _ENTRIES)
            if around.strip(BLANK) in (b'{"":0}', BOM + b'{"":0}'):
                return _together(found)
    return decode_either(_BALANCES, _ENTRIES, body)


def _held(body: bytes) -> Generator[None, None, _Holdings[Any]]:
    """The same. Raises Malformed."""
    if len(body) > PIECE:
        with contextlib.suppress(NotCuttable):
            around, found = yield from decode_pieces(body, _IN_TOKENS, _LISTS, _ENTRIES)
            rest = decode(_MINTS, around)
            if rest.tokens == {"": PLACEHOLDER}:
                return _Holdings(_together(found), rest.amount)
    return decode_either(_HOLDINGS, _MINTS, body)


def _together(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Raises Malformed when one mint stands there twice."""
    entries: dict[str, Any] = {}
    for part in parts:
        entries |= part
    if len(entries) < sum(map(len, parts)):
        raise Malformed("the answer contradicts itself: it tells one mint twice")
    return entries


def _refuse(request: Request, response: Response) -> NoReturn:
    if (complaint := documented_error(_COMPLAINT, response.body)) is not None:
        refuse(request, response, complaint.error)
    gateway = documented_error(_GATEWAY, response.body)
    refuse(request, response, gateway.message if gateway and gateway.code == response.status else None)


def _balance(key: Key, entry: _Balance | msgspec.Raw) -> Reading:
    if isinstance(entry, msgspec.Raw):
        raise Malformed("not an amount with its slot")
    symbol = SOL if key.token == NATIVE else None
    return Reading(key, base_units(entry.amount), "base", symbol=symbol, order=entry.slot, slot=entry.slot)


def _total(parts: list[_TokenAccount]) -> str:
    """The amounts of all token accounts. Raises Malformed."""
    return str(sum(int(base_units(part.amount)) for part in parts))


def _agreed(mint: str, parts: list[_TokenAccount]) -> int:
    """The decimals of a mint. Raises Malformed for token accounts that contradict one another."""
    if len({part.account for part in parts}) != len(parts):
        raise Malformed(f"one token account of mint {mint} is told twice")
    decimals = {part.decimals for part in parts}
    if len(decimals) != 1:
        raise Malformed(f"mint {mint} is told with several decimals")
    return decimals.pop()
