"""Jupiter Ultra: all balances of a Solana account, with a slot each (`balances`) or without any order (`holdings`).

Native SOL is an entry of its own beside wrapped SOL: it becomes the token `native`.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal, NoReturn

import msgspec

from watcher.addresses import SOLANA, AddressError, solana
from watcher.events import Key, Reading
from watcher.providers.answers import Decimals, Order, base_units, decode, one_line, refuse, spoken, unambiguous
from watcher.providers.configured import Configured
from watcher.providers.failures import Malformed
from watcher.providers.provider import Credentials, Found, Lane, Limit, ProviderSettings, Request, Response, Target

NATIVE = "native"


class JupiterSettings(ProviderSettings, frozen=True, kw_only=True):
    """`[providers.NAME]` of type `jupiter`."""

    endpoint: Literal["balances", "holdings"] = "balances"


class _Balance(msgspec.Struct, gc=False):
    amount: str
    slot: Order


class _TokenAccount(msgspec.Struct, gc=False):
    account: str
    amount: str
    decimals: Decimals


class _Holdings(msgspec.Struct):
    amount: str
    tokens: dict[str, list[_TokenAccount]]


class _Complaint(msgspec.Struct, forbid_unknown_fields=True):
    """What the API itself says. Gateways of others say `error` too, among other things."""

    error: str


class _Gateway(msgspec.Struct):
    """What its gateway says."""

    code: int
    """The HTTP status again."""
    message: str


_BALANCES = msgspec.json.Decoder(dict[str, _Balance])
_HOLDINGS = msgspec.json.Decoder(_Holdings)
_COMPLAINT = msgspec.json.Decoder(_Complaint)
_GATEWAY = msgspec.json.Decoder(_Gateway)


class Jupiter(Configured):
    """`GET /ultra/v1/balances/{account}` or `/ultra/v1/holdings/{account}`."""

    Settings: ClassVar[type[ProviderSettings]] = JupiterSettings
    HOST = "https://api.jup.ag"
    LIMITS = (Limit(60, 60.0),)
    KEYLESS_LIMITS = (Limit(30, 60.0),)
    KEYLESS = True

    def __init__(self, name: str, settings: JupiterSettings, *, keyed: bool) -> None:
        super().__init__(name, settings, keyed=keyed)
        if settings.limits is None and not keyed:
            self.limits = self.KEYLESS_LIMITS
        self._endpoint = settings.endpoint
        self.ordering = "strict" if settings.endpoint == "balances" else "none"
        self.lanes = (Lane(None, self.listings(SOLANA, settings.watch)),)

    def credentials(self, secret: str | None) -> Credentials:
        return Credentials() if secret is None else Credentials(headers={"x-api-key": secret})

    def ask(self, lane: Lane, targets: Sequence[Target], interval: float) -> Request:  # noqa: ARG002
        (target,) = targets
        return Request("GET", f"/ultra/v1/{self._endpoint}/{target.scope.account}", (target,))

    def read(self, request: Request, response: Response) -> Found:
        if response.status != 200:
            _refuse(request, response)
        scope = request.targets[0].scope
        account = str(scope.account)
        tell = self._balances if self._endpoint == "balances" else self._holdings
        return Found(tell(account, response.body), listing=scope)

    def _balances(self, account: str, body: bytes) -> list[Reading]:
        entries = decode(_BALANCES, body)
        unambiguous(body, b'"slot"', len(entries))
        return [self._balance(account, name, entry) for name, entry in entries.items()]

    def _balance(self, account: str, name: str, entry: _Balance) -> Reading:
        amount = base_units(entry.amount)
        if name == "SOL":
            return Reading(self._key(account, NATIVE), amount, "base", symbol="SOL", order=entry.slot, slot=entry.slot)
        return Reading(self._key(account, _mint(name)), amount, "base", order=entry.slot, slot=entry.slot)

    def _holdings(self, account: str, body: bytes) -> list[Reading]:
        holdings = decode(_HOLDINGS, body)
        unambiguous(body, b'"decimals"', sum(map(len, holdings.tokens.values())))
        native = Reading(self._key(account, NATIVE), base_units(holdings.amount), "base", symbol="SOL")
        return [native, *(self._holding(account, *item) for item in holdings.tokens.items() if item[1])]

    def _holding(self, account: str, mint: str, parts: list[_TokenAccount]) -> Reading:
        if len({part.account for part in parts}) != len(parts):
            raise Malformed(f"one token account of mint {one_line(mint)} is told twice")
        (decimals,) = _agreed(mint, {part.decimals for part in parts})
        amount = sum(int(base_units(part.amount)) for part in parts)
        return Reading(self._key(account, _mint(mint)), str(amount), "base", decimals=decimals)

    def _key(self, account: str, token: str) -> Key:
        return Key(self.name, SOLANA, account, token)


def _refuse(request: Request, response: Response) -> NoReturn:
    if (complaint := spoken(_COMPLAINT, response.body)) is not None:
        refuse(request, response, complaint.error)
    gateway = spoken(_GATEWAY, response.body)
    refuse(request, response, gateway.message if gateway and gateway.code == response.status else None)


def _mint(text: str) -> str:
    try:
        return solana(text)
    except AddressError as error:
        raise Malformed(str(error)) from None


def _agreed(mint: str, decimals: set[int]) -> Iterable[int]:
    if len(decimals) != 1:
        raise Malformed(f"mint {one_line(mint)} is told with several decimals")
    return decimals
