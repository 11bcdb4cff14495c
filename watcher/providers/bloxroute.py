"""bloXroute Trader API: all balances of a Solana account in token units, without order and without decimals.

The wire has camelCase names, the given page snake_case ones, and two of its names are misspelt; an older page has
numbers as strings. Errors also come inside status 200. Native SOL is shown under the mint of wrapped SOL.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, ClassVar, NoReturn, TypeVar

import msgspec

from watcher.addresses import SOLANA, AddressError, solana
from watcher.events import EXACT, AmountError, Key, Kind, Reading, canonical
from watcher.providers.answers import Code, asked, decode, moved, one_line, refuse, unambiguous
from watcher.providers.configured import Configured
from watcher.providers.failures import Failure, Malformed, Misconfigured, RefusedCredential, Temporary, Throttled
from watcher.providers.provider import Credentials, Found, Lane, Limit, ProviderSettings, Request, Response, Target
from watcher.providers.waits import clock, refused

MINUTE = 60.0
"""Credits are counted by the provider's clock minute."""


class BloxrouteSettings(ProviderSettings, frozen=True, kw_only=True):
    """`[providers.NAME]` of type `bloxroute`."""


class _Row(msgspec.Struct, gc=False):
    symbol: str | None = None
    mint: str | None = msgspec.field(name="tokenMint", default=None)
    mint_snake: str | None = msgspec.field(name="token_mint", default=None)
    mint_page: str | None = msgspec.field(name="tokenMin", default=None)
    settled: Decimal | None = msgspec.field(name="settledAmount", default=None)
    settled_snake: Decimal | None = msgspec.field(name="settled_amount", default=None)
    unsettled: Decimal | None = msgspec.field(name="unsettledAmount", default=None)
    unsettled_snake: Decimal | None = msgspec.field(name="unsettled_amount", default=None)
    open_orders: Decimal | None = msgspec.field(name="openOrdersAmount", default=None)
    open_orders_snake: Decimal | None = msgspec.field(name="open_orders_amount", default=None)
    open_orders_page: Decimal | None = msgspec.field(name="openOrderAmount", default=None)


class _Answer(msgspec.Struct):
    tokens: list[_Row] | None = None
    tokens_page: list[_Row] | None = msgspec.field(name=".tokens", default=None)
    code: Code | None = None
    message: str | None = None
    details: list[Any] | None = None


_ANSWER = msgspec.json.Decoder(_Answer)
Amounts = dict[Kind, Decimal]
T = TypeVar("T")


class Bloxroute(Configured):
    """`GET /api/v2/balance?ownerAddress=…`."""

    Settings: ClassVar[type[ProviderSettings]] = BloxrouteSettings
    HOST = "https://ny.solana.dex.blxrbdn.com"
    LIMITS = (Limit(60, MINUTE),)
    COST = 5.0

    def __init__(self, name: str, settings: BloxrouteSettings, *, keyed: bool) -> None:
        super().__init__(name, settings, keyed=keyed)
        self.ordering = "none"
        self.lanes = (Lane(None, self.listings(SOLANA, settings.watch)),)

    def credentials(self, secret: str | None) -> Credentials:
        return Credentials() if secret is None else Credentials(headers={"authorization": secret})

    def ask(self, lane: Lane, targets: Sequence[Target], interval: float) -> Request:  # noqa: ARG002
        (target,) = targets
        return Request("GET", "/api/v2/balance", (target,), params=(("ownerAddress", str(target.scope.account)),))

    def read(self, request: Request, response: Response) -> Found:
        answer = _opened(response)
        if answer.code is not None or response.status != 200:
            _refuse(request, response, answer)
        rows = answer.tokens if answer.tokens is not None else answer.tokens_page
        if rows is None:
            raise Malformed("the answer has no list of tokens")
        unambiguous(response.body, b"ettled", 2 * len(rows))
        scope = request.targets[0].scope
        sums: dict[str, Amounts] = {}
        symbols: dict[str, str | None] = {}
        for row in rows:
            mint = _mint(row)
            symbols.setdefault(mint, row.symbol)
            _add(sums.setdefault(mint, {}), _amounts(row))
        readings = [
            Reading(
                Key(self.name, SOLANA, str(scope.account), mint, kind),
                canonical(amount),
                "decimal",
                symbol=symbols[mint],
            )
            for mint, amounts in sums.items()
            for kind, amount in amounts.items()
        ]
        return Found(readings, listing=scope)


def _opened(response: Response) -> _Answer:
    try:
        return decode(_ANSWER, response.body)
    except Failure:
        if response.status == 200:
            raise
        return _Answer()


def _refuse(request: Request, response: Response, answer: _Answer) -> NoReturn:
    """By the gRPC code where there is one (the gateway passes it on, even with status 200), else by the status."""
    wait = MINUTE - clock(response) % MINUTE
    if answer.code is None or answer.message is None or answer.details is None or moved(response):
        refuse(request, response, None, wait=wait)
    reason = f"code {answer.code}: {one_line(answer.message)}"
    if answer.code == 8 or response.status == 429:
        raise Throttled(reason, refused(response) or wait)
    if answer.code in (7, 16):
        raise RefusedCredential(reason)
    if response.status != 200:
        refuse(request, response, answer.message)
    if answer.code in (3, 5, 9, 11, 12):
        raise Misconfigured(f"{reason} (asked for {asked(request.targets)})")
    raise Temporary(reason)


def _mint(row: _Row) -> str:
    try:
        return solana(_one("tokenMint", row.mint, row.mint_snake, row.mint_page))
    except AddressError as error:
        raise Malformed(str(error)) from None


def _amounts(row: _Row) -> Amounts:
    return {
        "settled": _amount(_one("settledAmount", row.settled, row.settled_snake)),
        "unsettled": _amount(_one("unsettledAmount", row.unsettled, row.unsettled_snake)),
        "open_orders": _amount(_one("openOrdersAmount", row.open_orders, row.open_orders_snake, row.open_orders_page)),
    }


def _one(name: str, *spellings: T | None) -> T:
    """The value of a field that has several spellings; one that is not told is unknown and never zero."""
    told = {value for value in spellings if value is not None}
    if len(told) != 1:
        raise Malformed(f"a row tells {'no' if not told else 'more than one'} {name}")
    return told.pop()


def _amount(value: Decimal) -> Decimal:
    try:
        return Decimal(canonical(value))
    except AmountError as error:
        raise Malformed(str(error)) from None


def _add(sums: Amounts, amounts: Amounts) -> None:
    try:
        for kind, amount in amounts.items():
            sums[kind] = EXACT.add(sums.get(kind, Decimal(0)), amount)
    except ArithmeticError:
        raise Malformed("the rows of one mint have no exact sum of at most 100 digits") from None
