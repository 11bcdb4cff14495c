"""bloXroute Trader API: all balances of a Solana account in token units, without order and without decimals.

The wire has camelCase names, the given page snake_case ones, and two of its names are misspelt; an older page has
numbers as strings. Errors also come inside status 200. Native SOL is shown under the mint of wrapped SOL.
"""

import contextlib
from collections import Counter
from collections.abc import Generator, Sequence
from decimal import Decimal
from itertools import chain
from typing import Any, ClassVar, Generic, NoReturn, TypeVar

import msgspec

from watcher.limits.windows import Limit
from watcher.model.addresses import SOLANA, solana
from watcher.model.amounts import EXACT, canonical, symbol
from watcher.model.keys import Key, Kind
from watcher.model.readings import Reading
from watcher.model.targets import Lane, Target, TargetGroup
from watcher.providers.answers import (
    ROWS_PER_STEP,
    Code,
    attempt,
    decode,
    decode_either,
    is_redirect,
    literal,
    named_targets,
    refuse,
    token_units,
)
from watcher.providers.failures import Failure, Malformed, Misconfigured, RefusedCredential, Temporary, Throttled
from watcher.providers.gaps import Gaps, Sums, open_rows
from watcher.providers.json_pieces import PIECE, PLACEHOLDER, NotCuttable, decode_pieces, list_layout
from watcher.providers.protocol import Credentials, ReadResult, Request, Response
from watcher.providers.settings import ConfiguredProvider, ProviderSettings
from watcher.providers.waits import refusal_wait, server_clock
from watcher.redaction.safe_text import one_line
from watcher.runtime.slicing import run_at_once

T = TypeVar("T")

NOT_GIVEN = msgspec.Raw()
"""A field that a row does not have."""
MINUTE = 60.0
"""Credits are counted by the provider's clock minute."""


class BloxrouteSettings(ProviderSettings, frozen=True, kw_only=True):
    """`[providers.NAME]` of type `bloxroute`."""


class _Minted(msgspec.Struct, gc=False):
    mint: str | None = msgspec.field(name="tokenMint", default=None)
    mint_snake: str | None = msgspec.field(name="token_mint", default=None)
    mint_page: str | None = msgspec.field(name="tokenMin", default=None)


class _Row(_Minted, gc=False):
    symbol: str | None = None
    settled: msgspec.Raw = msgspec.field(name="settledAmount", default=NOT_GIVEN)
    settled_snake: msgspec.Raw = msgspec.field(name="settled_amount", default=NOT_GIVEN)
    unsettled: msgspec.Raw = msgspec.field(name="unsettledAmount", default=NOT_GIVEN)
    unsettled_snake: msgspec.Raw = msgspec.field(name="unsettled_amount", default=NOT_GIVEN)
    open_orders: msgspec.Raw = msgspec.field(name="openOrdersAmount", default=NOT_GIVEN)
    open_orders_snake: msgspec.Raw = msgspec.field(name="open_orders_amount", default=NOT_GIVEN)
    open_orders_page: msgspec.Raw = msgspec.field(name="openOrderAmount", default=NOT_GIVEN)

    def amounts(self) -> dict[str, tuple[msgspec.Raw, ...]]:
        """All spellings of each of the `KINDS`, by its name in the answer."""
        return {
            "settledAmount": (self.settled, self.settled_snake),
            "unsettledAmount": (self.unsettled, self.unsettled_snake),
            "openOrdersAmount": (self.open_orders, self.open_orders_snake, self.open_orders_page),
        }


class _Answer(msgspec.Struct, Generic[T]):
    tokens: list[T] | None = None
    tokens_page: list[T] | None = msgspec.field(name=".tokens", default=None)
    code: Code | None = None
    message: str | None = None
    details: list[Any] | None = None


_ANSWER = msgspec.json.Decoder(_Answer[_Row])
_CLOSED = msgspec.json.Decoder(_Answer[msgspec.Raw])
_ROWS = msgspec.json.Decoder(list[_Row])
_CLOSED_ROWS = msgspec.json.Decoder(list[msgspec.Raw])
_TOKENS = list_layout(b"tokens", b".tokens")
_ROW = msgspec.json.Decoder(_Row)
_MINTED = msgspec.json.Decoder(_Minted)
KINDS: tuple[Kind, ...] = ("settled", "unsettled", "open_orders")


class Bloxroute(ConfiguredProvider[BloxrouteSettings]):
    """`GET /api/v2/balance?ownerAddress=…`."""

    Settings: ClassVar[type[ProviderSettings]] = BloxrouteSettings
    HOST = "https://ny.solana.dex.blxrbdn.com"
    LIMITS = (Limit(60, MINUTE),)
    COST = 5.0

    def __init__(self, name: str, settings: BloxrouteSettings, *, keyed: bool) -> None:
        super().__init__(name, settings, keyed=keyed)
        self._sums = Sums()
        self.groups = (TargetGroup(self.listings(SOLANA, settings.watch)),)

    def credentials(self, secret: str | None) -> Credentials:
        return Credentials() if secret is None else Credentials(headers={"authorization": secret})

    def ask(self, lane: Lane, targets: Sequence[Target], interval: float) -> Request:  # noqa: ARG002
        (target,) = targets
        return Request("GET", "/api/v2/balance", (target,), params=(("ownerAddress", str(target.scope.account)),))

    def read(self, request: Request, response: Response) -> ReadResult:
        return run_at_once(self.read_in_slices(request, response))

    def read_in_slices(self, request: Request, response: Response) -> Generator[None, None, ReadResult]:
        """The same, `ROWS_PER_STEP` rows at a time."""
        answer = yield from _opened(response)
        rows = open_rows(_rows(request, response, answer), _ROW)
        (target,) = request.targets
        account, gaps = str(target.scope.account), Gaps()
        sums: dict[Key, Decimal] = {}
        symbols: dict[str, str | None] = {}
        counts: Counter[Key] = Counter()
        for number, row in enumerate(rows, 1):
            if number % ROWS_PER_STEP == 0:
                yield
            mint = _mint(row, gaps)
            if mint is None:
                continue
            keys = [Key(self.name, SOLANA, account, mint, kind) for kind in KINDS]
            if isinstance(row, msgspec.Raw):
                gaps.add("the row is not as documented", *keys, of=mint)
                continue
            counts.update(keys)
            symbols.setdefault(mint, symbol(row.symbol))
            for key, (name, spellings) in zip(keys, row.amounts().items(), strict=True):
                _add(sums, key, name, spellings, gaps)
        if gaps.nameless:
            gaps.keys |= self._sums.incomplete(counts)
        elif not gaps.count:
            self._sums.remember(counts)
        readings = []
        for number, (key, amount) in enumerate(sums.items(), 1):
            if number % ROWS_PER_STEP == 0:
                yield
            readings.append(Reading(key, canonical(amount), "decimal", symbol=symbols[key.token]))
        return gaps.listing(readings, target)


def _rows(request: Request, response: Response, answer: _Answer[Any]) -> list[Any]:
    """The list of tokens. Raises Failure for an answer that is none."""
    if answer.code is not None or response.status != 200:
        _refuse(request, response, answer)
    if answer.tokens is not None and answer.tokens_page is not None:
        raise Malformed("the answer has two lists of tokens")
    rows = answer.tokens if answer.tokens is not None else answer.tokens_page
    if rows is None:
        raise Malformed("the answer has no list of tokens")
    return rows


def _opened(response: Response) -> Generator[None, None, _Answer[Any]]:
    if len(response.body) > PIECE and response.status == 200:
        with contextlib.suppress(NotCuttable):
            around, found = yield from decode_pieces(response.body, _TOKENS, _ROWS, _CLOSED_ROWS)
            answer = decode(_CLOSED, around)
            for name in ("tokens", "tokens_page"):
                if getattr(answer, name) == [PLACEHOLDER]:
                    return msgspec.structs.replace(answer, **{name: list(chain.from_iterable(found))})
    try:
        return decode_either(_ANSWER, _CLOSED, response.body)
    except Failure:
        if response.status == 200:
            raise
        return _Answer()


def _refuse(request: Request, response: Response, answer: _Answer[Any]) -> NoReturn:
    """By the gRPC code where there is one (the gateway passes it on, even with status 200), else by the status."""
    wait = MINUTE - server_clock(response) % MINUTE
    if answer.code is None or answer.message is None or answer.details is None or is_redirect(response):
        refuse(request, response, None, wait=wait)
    reason = f"code {answer.code}: {one_line(answer.message)}"
    if answer.code == 8 or response.status == 429:
        raise Throttled(reason, refusal_wait(response) or wait)
    if answer.code in (7, 16):
        raise RefusedCredential(reason)
    if response.status != 200:
        refuse(request, response, answer.message)
    if answer.code in (3, 5, 9, 11, 12):
        raise Misconfigured(f"{reason} (asked for {named_targets(request.targets)})")
    raise Temporary(reason)


def _mint(row: _Row | msgspec.Raw, gaps: Gaps) -> str | None:
    """Whose row it is. None, and a gap, for a row that does not say. Raises Malformed for a row that names two."""
    minted = attempt(_MINTED, row) if isinstance(row, msgspec.Raw) else row
    mints = {minted.mint, minted.mint_snake, minted.mint_page} - {None} if minted is not None else set()
    if len(mints) > 1:
        raise Malformed("a row tells more than one tokenMint")
    if not mints:
        gaps.add("a row tells no tokenMint")
        return None
    return gaps.key(solana, str(mints.pop()))


def _add(sums: dict[Key, Decimal], key: Key, name: str, spellings: Sequence[msgspec.Raw], gaps: Gaps) -> None:
    """The amount of a field that has several spellings; one that is not given is unknown and never zero."""
    try:
        amounts = {token_units(literal(spelling)) for spelling in spellings if spelling is not NOT_GIVEN}
    except Malformed as failure:
        gaps.add(failure, key, of=f"{key.token}, {name}")
        return
    if len(amounts) > 1:
        raise Malformed(f"a row of {key.token} tells more than one {name}")
    if not amounts:
        gaps.add(f"a row of {key.token} tells no {name}", key)
        return
    try:
        sums[key] = EXACT.add(sums.get(key, Decimal(0)), Decimal(amounts.pop()))
    except ArithmeticError:
        gaps.add(f"the rows of {key.token} have no exact sum of at most 100 digits", key)
