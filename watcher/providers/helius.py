"""Helius: one SPL token account per call by Solana JSON-RPC, or up to 100 of them with `getMultipleAccounts`.

Errors come with any status and the key stands in the URL. "Could not find account" is no failure: the account is not
there. Amounts in ui units move without any transfer (interest, scaling), so only base units are read.
"""

import itertools
import re
import secrets
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Literal, NoReturn, TypeVar

import msgspec

from watcher.limits.windows import Limit
from watcher.model.addresses import SOLANA
from watcher.model.associated_accounts import SPL_PROGRAMS
from watcher.model.keys import UNKNOWN_MINT, Key, Scope
from watcher.model.readings import Reading
from watcher.model.targets import Lane, Target, TargetGroup
from watcher.providers.answers import (
    Code,
    Decimals,
    Order,
    attempt,
    base_units,
    decode,
    glimpse,
    is_redirect,
    named_targets,
    refuse,
)
from watcher.providers.failures import Exhausted, Malformed, Misconfigured, RefusedCredential, Temporary, Throttled
from watcher.providers.gaps import Gaps
from watcher.providers.protocol import Credentials, ReadResult, Request, Response
from watcher.providers.settings import ConfiguredProvider, ProviderSettings
from watcher.providers.waits import refusal_wait
from watcher.redaction.safe_text import one_line

T = TypeVar("T")

MONTH = 2_592_000.0
BAD_REQUEST = (-32600, -32601, -32602)
"""What is said of a request, and so of a watch; the other codes are about the key, the plan or the node."""
LONGEST_MESSAGE = 1000
"""Characters of an error's message that are read."""
PLAIN = 200
"""Bytes; what is longer is a page."""

_TOO_FAST = re.compile(r"rate.?limit|too many requests", re.IGNORECASE)
_USED_UP = re.compile(r"max usage reached", re.IGNORECASE)
_ABSENT = re.compile(r"could not find account", re.IGNORECASE)
_NO_TOKEN = re.compile(r"not a (?:v2\.0 )?token account", re.IGNORECASE)
_BEHIND = re.compile(r"behind", re.IGNORECASE)


class HeliusSettings(ProviderSettings, frozen=True, kw_only=True):
    """`[providers.NAME]` of type `helius`."""

    commitment: Literal["processed", "confirmed", "finalized"] = "confirmed"
    method: Literal["getTokenAccountBalance", "getMultipleAccounts"] = "getTokenAccountBalance"


class _Context(msgspec.Struct, gc=False):
    slot: Order


class _Amount(msgspec.Struct, gc=False):
    amount: msgspec.Raw
    decimals: Decimals


class _Info(msgspec.Struct, rename="camel"):
    mint: str
    token_amount: _Amount


class _Parsed(msgspec.Struct):
    type: str
    info: msgspec.Raw


class _Data(msgspec.Struct):
    program: str
    parsed: _Parsed


class _Account(msgspec.Struct):
    data: msgspec.Raw
    owner: str | None = None


class _Result(msgspec.Struct, Generic[T]):
    context: _Context
    value: T


class _Error(msgspec.Struct):
    code: Code
    message: str = ""
    data: Any = None


class _Reply(msgspec.Struct):
    jsonrpc: str | None = None
    id: str | int | None = None
    result: msgspec.Raw = msgspec.Raw()
    error: _Error | str | None = None


_REPLY = msgspec.json.Decoder(_Reply)
_SINGLE = msgspec.json.Decoder(_Result[_Amount | None])
_SEVERAL = msgspec.json.Decoder(_Result[list[msgspec.Raw]])
_ACCOUNT = msgspec.json.Decoder(_Account)
_DATA = msgspec.json.Decoder(_Data)
_INFO = msgspec.json.Decoder(_Info)


class _NoTokenAccount(Exception):
    """There is an account, but of another sort."""


class Helius(ConfiguredProvider[HeliusSettings]):
    """`POST /` with `getTokenAccountBalance` or `getMultipleAccounts`."""

    Settings: ClassVar[type[ProviderSettings]] = HeliusSettings
    HOST = "https://mainnet.helius-rpc.com"
    LIMITS = (Limit(10, 1.0), Limit(1_000_000, MONTH))
    ORDERING = "strict"

    def __init__(self, name: str, settings: HeliusSettings, *, keyed: bool) -> None:
        super().__init__(name, settings, keyed=keyed)
        self._commitment = settings.commitment
        self._numbers = itertools.count(1)
        self._names = secrets.token_hex(6)
        """Whoever stands between may pair answers by ids, and serve others who count as we do."""
        self._held: set[Target] = set()
        """What was a token account in this process."""
        self._several = settings.method == "getMultipleAccounts"
        if not self._several:
            self.advice = ('method = "getMultipleAccounts" (up to 100 accounts a call)',)
        self.groups = (TargetGroup(self._targets(settings), (Lane(batch=100 if self._several else 1),)),)

    def _targets(self, settings: HeliusSettings) -> tuple[Target, ...]:
        tokens: dict[str, str | None] = {}
        for watch in settings.watch:
            self.only(watch, SOLANA)
            account = self.account(SOLANA, watch)
            token = self.address(SOLANA, watch.token)
            if token and tokens.get(account, token) not in (token, None):
                raise self.mistake(f"account {account} is watched under two tokens: a token account holds one, keep it")
            tokens[account] = token or tokens.get(account)
        return tuple(
            Target("account", Scope(self.name, SOLANA, account, token or UNKNOWN_MINT))
            for account, token in tokens.items()
        )

    def credentials(self, secret: str | None) -> Credentials:
        return Credentials() if secret is None else Credentials(params={"api-key": secret})

    def ask(self, lane: Lane, targets: Sequence[Target], interval: float) -> Request:  # noqa: ARG002
        accounts = [str(target.scope.account) for target in targets]
        options = {"commitment": self._commitment}
        if self._several:
            call: tuple[str, list[Any]] = ("getMultipleAccounts", [accounts, options | {"encoding": "jsonParsed"}])
        else:
            call = ("getTokenAccountBalance", [*accounts, options])
        name = f"{self._names}-{next(self._numbers)}"
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": name, "method": call[0], "params": call[1]})
        return Request("POST", "/", tuple(targets), body=body, id=name)

    def read(self, request: Request, response: Response) -> ReadResult:
        reply = _opened(request, response)
        if reply.error is not None:
            if reply.jsonrpc != "2.0" or not isinstance(reply.error, _Error) or is_redirect(response):
                _refuse_others(request, response)
            if reply.error.code in BAD_REQUEST and reply.id not in (None, request.id):
                raise Malformed(f"the answer to another request, {one_line(str(reply.id))!r}")
            return self._absence(request, response, reply)
        if response.status != 200:
            refuse(request, response, None)
        if reply.jsonrpc != "2.0" or reply.id != request.id:
            raise Malformed(f"not the JSON-RPC 2.0 answer to our request {request.id!r} ({glimpse(response.body)})")
        if self._several:
            return self._accounts(request, _result(_SEVERAL, reply))
        single = _result(_SINGLE, reply)
        return ReadResult([self._reading(request.targets[0], single.value, single.context.slot)])

    def _absence(self, request: Request, response: Response, reply: _Reply) -> ReadResult:
        """The errors that say something of a balance. Raises Failure for every other."""
        if bytes(reply.result) not in (b"", b"null"):
            raise Malformed("the answer holds both a result and an error")
        (target, *_) = request.targets
        ours = not self._several and response.status in (200, 400, 404) and reply.id == request.id
        closed = _says(reply.error, _NO_TOKEN) and target in self._held
        if not ours or not (closed or _says(reply.error, _ABSENT)):
            _refuse(request, response, reply.error)
        return ReadResult([self._reading(target, None, None)])

    def _accounts(self, request: Request, several: _Result[list[msgspec.Raw]]) -> ReadResult:
        if len(several.value) != len(request.targets):
            raise Malformed(f"{len(several.value)} accounts where {len(request.targets)} were asked for")
        slot = several.context.slot
        readings, missing, remarks, gaps = [], [], [], Gaps()
        for target, account in zip(request.targets, several.value, strict=True):
            try:
                readings.append(self._reading(target, self._amount(target, account), slot))
            except Misconfigured as failure:
                missing.append(target)
                remarks.append(failure.reason)
            except Malformed as failure:
                missing.append(target)
                gaps.add(f"{target.scope.account}: {failure.reason}")
        if gaps.count:
            remarks.append(gaps.remark())
        return ReadResult(gaps.without(readings), missing=tuple(missing), remark=remarks[0] if remarks else None)

    def _amount(self, target: Target, raw: msgspec.Raw) -> _Amount | None:
        """What one of several accounts holds; None: it is not there, or no longer a token account.

        Raises Misconfigured for an account that never was one, and Malformed.
        """
        if bytes(raw) == b"null":
            return None
        try:
            return _holding(target, raw)
        except _NoTokenAccount:
            if target in self._held:
                return None
        raise Misconfigured(
            f"{target.scope.account} is not a token account (a wallet is none): watch the account that holds the token"
        )

    def _reading(self, target: Target, held: _Amount | None, slot: int | None) -> Reading:
        scope = target.scope
        key = Key(self.name, SOLANA, str(scope.account), str(scope.token))
        if held is None:
            return Reading(key, None, "base", order=slot, slot=slot)
        amount = base_units(held.amount)
        self._held.add(target)
        return Reading(key, amount, "base", decimals=held.decimals, order=slot, slot=slot)


def _opened(request: Request, response: Response) -> _Reply:
    """The JSON, whatever the status; what is no JSON may still say why."""
    try:
        return decode(_REPLY, response.body)
    except Malformed as unread:
        _refuse_others(request, response, unread)


def _refuse_others(request: Request, response: Response, unread: Malformed | None = None) -> NoReturn:
    """No JSON-RPC answer. A short plain text may still be the API's word: used-up credits are reported so at times."""
    text = response.body[:PLAIN].decode("utf-8", "replace")
    plain = len(response.body) < PLAIN and "<" not in text
    if plain and _USED_UP.fullmatch(text.strip(" \r\n\t.!\"'")):
        raise Exhausted(f"the credits are used up: {one_line(text)}")
    if plain and _TOO_FAST.search(text) and response.status < 500:
        raise Throttled(one_line(text), refusal_wait(response))
    if unread is not None and response.status == 200:
        raise unread from None
    refuse(request, response, None)


def _refuse(request: Request, response: Response, error: _Error | str | None) -> NoReturn:
    """By what the error says: that is clearer than its code or the status."""
    code, message, data = (
        (error.code, error.message, error.data) if isinstance(error, _Error) else (0, str(error), None)
    )
    message = message[:LONGEST_MESSAGE]
    reason = f"JSON-RPC error {code}: {one_line(message)}"
    if _USED_UP.search(message):
        raise Exhausted(f"the credits are used up ({reason})")
    if response.status == 429 or code == -32429 or _TOO_FAST.search(message):
        raise Throttled(reason, refusal_wait(response))
    if response.status in (401, 403) or code == -32001:
        raise RefusedCredential(reason)
    if response.status == 402:
        raise Exhausted(reason)
    if code == -32005:
        lagging = _BEHIND.search(message) or (isinstance(data, dict) and "numSlotsBehind" in data)
        raise Temporary(reason) if lagging else Throttled(reason, refusal_wait(response))
    if response.status < 500 and code in BAD_REQUEST:
        if _NO_TOKEN.search(message):
            reason += ": a wallet is none; name the account that holds the token, or ask Jupiter for the wallet"
        raise Misconfigured(f"{reason} (asked for {named_targets(request.targets)})")
    raise Temporary(reason)


def _says(error: _Error | str | None, what: re.Pattern[str]) -> bool:
    return (
        isinstance(error, _Error) and error.code == -32602 and what.search(error.message[:LONGEST_MESSAGE]) is not None
    )


def _result(decoder: msgspec.json.Decoder[T], reply: _Reply) -> T:
    found = attempt(decoder, reply.result)
    if found is None:
        raise Malformed(f"the result is not what the API documents: {glimpse(bytes(reply.result))}")
    return found


def _holding(target: Target, raw: msgspec.Raw) -> _Amount:
    """What a token account holds.

    Raises _NoTokenAccount for one of another sort, Misconfigured for one of another mint, Malformed for nonsense.
    """
    account = attempt(_ACCOUNT, raw)
    if account is None:
        raise Malformed("not an account as documented")
    data = attempt(_DATA, account.data)
    parsed = data.parsed.type if data is not None and data.program.startswith("spl-token") else None
    if parsed != "account":
        if parsed is None and account.owner in (*SPL_PROGRAMS, None):
            raise Malformed("the account was not parsed")
        raise _NoTokenAccount
    assert data is not None
    info = attempt(_INFO, data.parsed.info)
    if info is None:
        raise Malformed("not a token account as documented")
    if target.scope.token not in (UNKNOWN_MINT, info.mint):
        raise Misconfigured(
            f"{target.scope.account} holds {one_line(info.mint)}, not the token of its watch: correct it"
        )
    return info.token_amount
