"""Ondo Global Markets: the balances of a chain, narrowed by account, by token, by both or not at all.

Answers are cached for a minute by the provider and carry neither time nor order. An unfiltered answer names every
holder on the chain, so a row must cost little: see `_readings`.
"""

import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, repeat
from typing import Annotated, ClassVar, Literal, NoReturn

import msgspec

from watcher import addresses
from watcher.addresses import CANONICAL_EVM, ONDO_NAMES, AddressError
from watcher.columns import Column, Columns
from watcher.events import Key, Reading, Scope, Unit
from watcher.providers.answers import decode, distinct, one_line, refuse, spoken, token_units
from watcher.providers.configured import Configured
from watcher.providers.failures import Malformed, Temporary, Throttled
from watcher.providers.ondo_large import SIZE, Token, Uncut, columns
from watcher.providers.provider import (
    Credentials,
    Found,
    Lane,
    Limit,
    ProviderSettings,
    Request,
    Response,
    Target,
    Watch,
)
from watcher.providers.waits import refused


class OndoSettings(ProviderSettings, frozen=True, kw_only=True):
    """`[providers.NAME]` of type `ondo`."""


class _Answer(msgspec.Struct):
    tokens: list[Token]


class _Complaint(msgspec.Struct):
    """What the API itself says."""

    code: Annotated[str, msgspec.Meta(pattern="^[A-Z][A-Z0-9_]*$")]
    message: str


class _Gateway(msgspec.Struct, forbid_unknown_fields=True):
    """What its gateway says to a key that it does not know, with status 403."""

    message: Literal["Forbidden"]


_ANSWER = msgspec.json.Decoder(_Answer)
_COMPLAINT = msgspec.json.Decoder(_Complaint)
_GATEWAY = msgspec.json.Decoder(_Gateway)
_CANONICAL_AMOUNT = re.compile(r"(?:0|[1-9][0-9]{0,59})(?:\.[0-9]{0,39}[1-9])?").fullmatch
UNIT: Unit = "decimal"


class Ondo(Configured):
    """`GET /v1/chains/{chain}/balances`, with `userAddress` and `tokenAddress` as the watch has them."""

    Settings: ClassVar[type[ProviderSettings]] = OndoSettings
    HOST = "https://api.gm.ondo.finance"
    LIMITS = (Limit(1, 1.0),)
    SETTLE = 60.0
    CACHE = 60.0

    def __init__(self, name: str, settings: OndoSettings, *, keyed: bool) -> None:
        super().__init__(name, settings, keyed=keyed)
        self.ordering = "none"
        self.lanes = (Lane(None, _folded(map(self._target, settings.watch))),)

    def _target(self, watch: Watch) -> Target:
        if watch.chain is None:
            raise self.mistake(f"a watch lacks its chain: write chain = … with one of {', '.join(ONDO_NAMES.values())}")
        try:
            name = addresses.chain(watch.chain)
        except AddressError as error:
            raise self.mistake(str(error)) from None
        if name not in ONDO_NAMES:
            raise self.mistake(f"chain = {watch.chain!r}: Ondo has {', '.join(ONDO_NAMES.values())}")
        scope = Scope(self.name, name, self.address(name, watch.account), self.address(name, watch.token))
        return Target("listing", scope)

    def credentials(self, secret: str | None) -> Credentials:
        return Credentials() if secret is None else Credentials(headers={"x-api-key": secret})

    def ask(self, lane: Lane, targets: Sequence[Target], interval: float) -> Request:  # noqa: ARG002
        (target,) = targets
        scope = target.scope
        narrowed = (("userAddress", scope.account), ("tokenAddress", scope.token))
        params = tuple((name, value) for name, value in narrowed if value is not None)
        return Request("GET", f"/v1/chains/{ONDO_NAMES[str(scope.chain)]}/balances", (target,), params=params)

    def read(self, request: Request, response: Response) -> Found:
        if response.status != 200:
            _refuse(request, response)
        scope = request.targets[0].scope
        answer = decode(_ANSWER, response.body)
        return Found(_merged(_readings(scope, token) for token in answer.tokens), listing=scope)

    def slices(self, request: Request, response: Response, size: int = SIZE) -> Generator[None, None, Found]:
        """The same of a large answer with status 200, about `size` bytes at a time, as columns that check themselves.

        What it says hangs on the body and the target alone.
        """
        scope = request.targets[0].scope
        try:
            found = yield from columns(str(scope.chain), response.body, size)
            return Found(Columns(scope.provider, _as_asked(scope, found), partial(_checked, scope)), listing=scope)
        except (Malformed, Uncut):
            return self.read(request, response)  # which says what is wrong, if anything is


def _readings(scope: Scope, token: Token) -> Iterator[Reading]:
    """The rows of one token. Raises Malformed for what we did not ask for and what is no address or amount.

    Whole columns pass through C, because a chain has half a million holders: a third of the time of a loop.
    """
    name = str(scope.chain)
    (address,) = _canonical(name, [token.address])
    if scope.token not in (None, address):
        raise Malformed(f"the answer tells of token {address}, which we did not ask for")
    accounts = _canonical(name, [row.holder.account for row in token.balances])
    if scope.account is not None and set(accounts) - {scope.account}:
        raise Malformed(f"the answer tells of accounts that we did not ask for, beside or instead of {scope.account}")
    amounts = [row.balance for row in token.balances]
    if not all(map(_CANONICAL_AMOUNT, amounts)):
        amounts = list(map(token_units, amounts))
    keys = map(Key, repeat(scope.provider), repeat(name), accounts, repeat(address))
    return map(Reading, keys, amounts, repeat(UNIT), repeat(None), repeat(token.symbol))


def _as_asked(scope: Scope, found: Sequence[Column]) -> list[Column]:
    """The columns, under their tokens' one spelling. Raises Uncut for what only a look at each row can tell."""
    spelled = _canonical(str(scope.chain), [column.token for column in found])
    pages = [page for column in found for page in column.pages]
    strangers = scope.account is not None and any(set(accounts) - {scope.account} for accounts, _ in pages)
    if strangers or len(set(spelled)) < len(found) or set(spelled) - {scope.token or each for each in spelled}:
        raise Uncut
    return [msgspec.structs.replace(column, token=each) for column, each in zip(found, spelled, strict=True)]


def _checked(scope: Scope, column: Column, account: str, amount: str) -> Reading:
    """One row as a reading. Raises Malformed."""
    (account,) = _canonical(column.chain, [account])
    if not _CANONICAL_AMOUNT(amount):
        amount = token_units(amount)
    return Reading(Key(scope.provider, column.chain, account, column.token), amount, UNIT, None, column.symbol)


def _canonical(name: str, accounts: list[str]) -> list[str]:
    if name.startswith("eip155:") and all(map(CANONICAL_EVM.fullmatch, accounts)):
        return accounts
    try:
        return [addresses.canonical(name, account) for account in accounts]
    except AddressError as error:
        raise Malformed(str(error)) from None


def _merged(tokens: Iterable[Iterable[Reading]]) -> list[Reading]:
    """All rows, one for each key. Raises Malformed when one key is told twice and differently."""
    readings = list(chain.from_iterable(tokens))
    return readings if len({reading.key for reading in readings}) == len(readings) else distinct(readings)


def _folded(targets: Iterable[Target]) -> tuple[Target, ...]:
    """Without duplicates and without what the listing of another target tells as well."""
    unique = dict.fromkeys(targets)
    scopes = {target.scope for target in unique}
    return tuple(target for target in unique if not any(wider in scopes for wider in _wider(target.scope)))


def _wider(scope: Scope) -> Iterator[Scope]:
    """The scopes whose listings tell all that one of `scope` would."""
    for account, token in ((None, None), (scope.account, None), (None, scope.token)):
        wider = Scope(scope.provider, scope.chain, account, token)
        if wider != scope:
            yield wider


def _refuse(request: Request, response: Response) -> NoReturn:
    complaint = spoken(_COMPLAINT, response.body)
    if complaint is None:
        gateway = spoken(_GATEWAY, response.body) if response.status == 403 else None
        refuse(request, response, None if gateway is None else gateway.message)
    message = one_line(f"{complaint.code} {complaint.message}")
    if complaint.code == "PAUSED_GM_CHAIN":
        raise Temporary(f"the chain is paused: {message}")
    if complaint.code == "RATE_LIMITED":
        raise Throttled(message, refused(response))
    refuse(request, response, message)
