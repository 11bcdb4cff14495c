"""Ondo Global Markets: the balances of a chain, narrowed by account, by token, by both or not at all.

Answers are cached for a minute by the provider and carry neither time nor order. An unfiltered answer names every
holder on the chain, so a row must cost little: see `_readings`.
"""

import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, repeat
from typing import Annotated, ClassVar, Generic, Literal, NoReturn, TypeVar

import msgspec

from watcher.limits.windows import Limit
from watcher.model import addresses
from watcher.model.addresses import BSC, CANONICAL_EVM, ETHEREUM, SOLANA, AddressError
from watcher.model.amounts import symbol
from watcher.model.bulk_listing import CHANGED_ROWS, BulkListing, TokenColumn, UnreadableRow
from watcher.model.keys import Key, Scope
from watcher.model.readings import Reading, Unit
from watcher.model.targets import LISTING, Lane, Target, TargetGroup
from watcher.providers.answers import attempt, decode, distinct, documented_error, refuse, token_units
from watcher.providers.failures import Malformed, Temporary, Throttled
from watcher.providers.gaps import Gaps
from watcher.providers.json_pieces import NotCuttable
from watcher.providers.ondo_bulk import ADDRESS, BALANCE, HELD, SIZE, OndoBalance, OndoToken, columns
from watcher.providers.protocol import Credentials, ReadResult, Request, Response
from watcher.providers.settings import ConfiguredProvider, ProviderSettings, Watch
from watcher.providers.waits import refusal_wait
from watcher.redaction.safe_text import one_line
from watcher.runtime.slicing import run_at_once

T = TypeVar("T")


class OndoSettings(ProviderSettings, frozen=True, kw_only=True):
    """`[providers.NAME]` of type `ondo`."""


class _Answer(msgspec.Struct, Generic[T]):
    tokens: list[T]


class _Complaint(msgspec.Struct):
    """What the API itself says."""

    code: Annotated[str, msgspec.Meta(pattern="^[A-Z][A-Z0-9_]*$")]
    message: str


class _Gateway(msgspec.Struct, forbid_unknown_fields=True):
    """What its gateway says to a key that it does not know, with status 403."""

    message: Literal["Forbidden"]


_ANSWER = msgspec.json.Decoder(_Answer[OndoToken[OndoBalance]])
_CLOSED = msgspec.json.Decoder(_Answer[msgspec.Raw])
_TOKEN = msgspec.json.Decoder(OndoToken[msgspec.Raw])
_COMPLAINT = msgspec.json.Decoder(_Complaint)
_GATEWAY = msgspec.json.Decoder(_Gateway)
_CANONICAL_AMOUNT = re.compile(r"(?:0|[1-9][0-9]{0,59})(?:\.[0-9]{0,39}[1-9])?").fullmatch
UNIT: Unit = "decimal"
CHAINS = {ETHEREUM: "ethereum-1", BSC: "bsc-56", SOLANA: "solana-900"}
"""CAIP-2 → the name in the path."""


class Ondo(ConfiguredProvider[OndoSettings]):
    """`GET /v1/chains/{chain}/balances`, with `userAddress` and `tokenAddress` as the watch has them."""

    Settings: ClassVar[type[ProviderSettings]] = OndoSettings
    HOST = "https://api.gm.ondo.finance"
    LIMITS = (Limit(1, 1.0),)
    SETTLE = 60.0
    CACHE = 60.0
    BALANCES = 1_000_000

    def __init__(self, name: str, settings: OndoSettings, *, keyed: bool) -> None:
        super().__init__(name, settings, keyed=keyed)
        self.groups = (TargetGroup(_folded(map(self._target, settings.watch))),)

    def _target(self, watch: Watch) -> Target:
        if watch.chain is None:
            raise self.mistake(f"a watch lacks its chain: write chain = … with one of {', '.join(CHAINS.values())}")
        try:
            name = addresses.chain(watch.chain)
        except AddressError as error:
            raise self.mistake(str(error)) from None
        if name not in CHAINS:
            raise self.mistake(f"chain = {watch.chain!r}: Ondo has {', '.join(CHAINS.values())}")
        scope = Scope(self.name, name, self.address(name, watch.account), self.address(name, watch.token))
        return Target(LISTING, scope)

    def credentials(self, secret: str | None) -> Credentials:
        return Credentials() if secret is None else Credentials(headers={"x-api-key": secret})

    def ask(self, lane: Lane, targets: Sequence[Target], interval: float) -> Request:  # noqa: ARG002
        (target,) = targets
        scope = target.scope
        narrowed = (("userAddress", scope.account), ("tokenAddress", scope.token))
        params = tuple((name, value) for name, value in narrowed if value is not None)
        return Request("GET", f"/v1/chains/{CHAINS[str(scope.chain)]}/balances", (target,), params=params)

    def read(self, request: Request, response: Response) -> ReadResult:
        if response.status != 200:
            _refuse(request, response)
        (target,) = request.targets
        body = response.body
        try:
            answer = decode(_ANSWER, body, partial(_nothing_more, body))
            return ReadResult(_merged(_readings(target.scope, token) for token in answer.tokens), listing=target.scope)
        except Malformed:
            return run_at_once(_one_by_one(target, decode(_CLOSED, body).tokens))

    def read_in_slices(
        self, request: Request, response: Response, size: int = SIZE
    ) -> Generator[None, None, ReadResult]:
        """The same of a large answer with status 200, about `size` bytes at a time, as columns that check themselves."""
        (target,) = request.targets
        scope = target.scope
        try:
            found = yield from columns(str(scope.chain), response.body, size)
            known = _as_asked(scope, found)
            rows = BulkListing(scope.provider, known, partial(_checked, scope))
            lost = len(found) - len(known)
        except (Malformed, NotCuttable):  # one by one it shows what is wrong, if anything is
            return (yield from _one_by_one(target, decode(_CLOSED, response.body).tokens))
        return ReadResult(
            rows, listing=scope, partial=lost > 0, remark=f"{lost} tokens are not as documented" if lost else None
        )


def _nothing_more(body: bytes, answer: _Answer[OndoToken[OndoBalance]]) -> bool:
    """Whether the answer has no member but the documented ones, each of which an object must have."""
    return body.count(b":") == 1 + sum(3 + 3 * len(token.balances) for token in answer.tokens)


def _one_by_one(target: Target, tokens: Sequence[msgspec.Raw]) -> Generator[None, None, ReadResult]:
    """What can be understood of an answer. Raises Malformed when nothing can, and for what we did not ask for."""
    scope, gaps = target.scope, Gaps()
    readings: list[Reading] = []
    lost: set[str] = set()
    for number, raw in enumerate(tokens, 1):
        if number % CHANGED_ROWS == 0:
            yield
        token = attempt(_TOKEN, raw)
        named = token or attempt(ADDRESS, raw)
        address = gaps.key(addresses.canonical, str(scope.chain), named.address if named else "")
        if address is None:
            continue
        if scope.token not in (None, address):
            raise Malformed(f"the answer tells of token {address}, which we did not ask for")
        if token is None:
            gaps.add(f"token {address} is not as documented")
            lost.add(address)
            continue
        for done, row in enumerate(token.balances, 1):
            reading = _row(scope, address, symbol(token.symbol), row, gaps)
            if reading is not None:
                readings.append(reading)
            if done % CHANGED_ROWS == 0:
                yield
    gaps.keys.update(reading.key for reading in readings if reading.key.token in lost)
    return gaps.listing(distinct([reading for reading in readings if reading.key not in gaps.keys]), target)


def _row(scope: Scope, token: str, name: str | None, raw: msgspec.Raw, gaps: Gaps) -> Reading | None:
    """One row. None, and a gap, for what cannot be understood. Raises Malformed for what we did not ask for."""
    row = attempt(BALANCE, raw)
    held = row or attempt(HELD, raw)
    account = gaps.key(addresses.canonical, str(scope.chain), held.holder.account if held else "")
    if account is None:
        return None
    if scope.account not in (None, account):
        raise Malformed(f"the answer tells of account {account}, which we did not ask for")
    key = Key(scope.provider, str(scope.chain), account, token)
    amount = gaps.reading(key, account, _amount, row.balance if row else "")
    return None if amount is None else Reading(key, amount, UNIT, None, name)


def _readings(scope: Scope, token: OndoToken[OndoBalance]) -> Iterator[Reading]:
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
    return map(Reading, keys, amounts, repeat(UNIT), repeat(None), repeat(symbol(token.symbol)))


def _as_asked(scope: Scope, found: Sequence[TokenColumn]) -> list[TokenColumn]:
    """The columns that can be understood, under their tokens' one spelling.

    Raises NotCuttable for what only a look at each row can tell.
    """
    known: dict[str, TokenColumn] = {}
    gaps, names = Gaps(), []
    for column in found:
        name = gaps.key(addresses.canonical, str(scope.chain), column.token)
        if name is not None:
            names.append(name)
            if column.symbol is not None:
                known[name] = msgspec.structs.replace(column, token=name, symbol=symbol(column.symbol))
    pages = [page for column in known.values() for page in column.pages]
    strangers = scope.account is not None and any(set(accounts) - {scope.account} for accounts, _ in pages)
    nothing = len(known) < len(found) and not pages
    if nothing or strangers or len(set(names)) < len(names) or set(names) - {scope.token or name for name in names}:
        raise NotCuttable
    return list(known.values())


def _checked(scope: Scope, column: TokenColumn, account: str, amount: str) -> Reading:
    """One row as a reading. Raises UnreadableRow."""
    name = None
    try:
        (name,) = _canonical(column.chain, [account])
        amount = _amount(amount)
    except Malformed as failure:
        raise UnreadableRow(failure, name) from None
    return Reading(Key(scope.provider, column.chain, name, column.token), amount, UNIT, None, column.symbol)


def _amount(text: str) -> str:
    """Canonical. Raises Malformed; no text at all stands for a row of another shape."""
    if not text:
        raise Malformed("a row is not as documented")
    return text if _CANONICAL_AMOUNT(text) else token_units(text)


def _canonical(name: str, accounts: list[str]) -> list[str]:
    if name.startswith("eip155:") and all(map(CANONICAL_EVM.fullmatch, accounts)):
        return accounts
    try:
        return [addresses.canonical(name, account) for account in accounts]
    except AddressError as error:
        raise Malformed(error) from None


def _merged(tokens: Iterable[Iterable[Reading]]) -> list[Reading]:
    """All rows, one for each key. Raises Malformed when two rows of one key differ."""
    readings = list(chain.from_iterable(tokens))
    return readings if len({reading.key for reading in readings}) == len(readings) else distinct(readings)


def _folded(targets: Iterable[Target]) -> tuple[Target, ...]:
    """Without duplicates, and without targets that the listing of another one covers."""
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
    complaint = documented_error(_COMPLAINT, response.body)
    if complaint is None:
        gateway = documented_error(_GATEWAY, response.body) if response.status == 403 else None
        refuse(request, response, None if gateway is None else gateway.message)
    message = one_line(f"{complaint.code} {complaint.message}")
    if complaint.code == "PAUSED_GM_CHAIN":
        raise Temporary(f"the chain is paused: {message}")
    if complaint.code == "RATE_LIMITED":
        raise Throttled(message, refusal_wait(response))
    refuse(request, response, message)
