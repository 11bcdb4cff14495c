"""Helius: one SPL token account per call by Solana JSON-RPC, or up to 100 of them with `getMultipleAccounts`.

Errors come with any status and the key stands in the URL. "Could not find account" is no failure: the account is not
there. Amounts in ui units move without any transfer (interest, scaling), so only base units are read.
"""

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NoReturn

import msgspec

from watcher.addresses import SOLANA
from watcher.events import Key, Reading, Scope
from watcher.providers.answers import (
    Code,
    Decimals,
    Order,
    asked,
    base_units,
    decode,
    glimpse,
    moved,
    one_line,
    refuse,
    unambiguous,
)
from watcher.providers.configured import Configured
from watcher.providers.failures import (
    Exhausted,
    Malformed,
    Misconfigured,
    RefusedCredential,
    Temporary,
    Throttled,
)
from watcher.providers.provider import Credentials, Found, Lane, Limit, ProviderSettings, Request, Response, Target
from watcher.providers.waits import refused

UNKNOWN = "unknown"
"""The token of an account whose watch does not name its mint: the answer does not either."""
MONTH = 2_592_000.0
ID = "1"
BAD_REQUEST = (-32600, -32601, -32602)
"""What is said of a request, and so of a watch; the other codes are about the key, the plan or the node."""
PLAIN = 200
"""Bytes; what is longer is a page."""

_TOO_FAST = re.compile(r"rate.?limit|too many requests", re.IGNORECASE)
_USED_UP = re.compile(r"max usage reached", re.IGNORECASE)
_ABSENT = re.compile(r"could not find account", re.IGNORECASE)
_BEHIND = re.compile(r"behind", re.IGNORECASE)


class HeliusSettings(ProviderSettings, frozen=True, kw_only=True):
    """`[providers.NAME]` of type `helius`."""

    commitment: Literal["processed", "confirmed", "finalized"] = "confirmed"
    method: Literal["getTokenAccountBalance", "getMultipleAccounts"] = "getTokenAccountBalance"


class _Context(msgspec.Struct, gc=False):
    slot: Order


class _Amount(msgspec.Struct, gc=False):
    amount: str
    decimals: Decimals


class _Info(msgspec.Struct, rename="camel"):
    mint: str
    token_amount: _Amount


class _Parsed(msgspec.Struct):
    type: str
    info: msgspec.Raw


class _Single(msgspec.Struct):
    context: _Context
    value: _Amount | None


class _Account(msgspec.Struct):
    data: msgspec.Raw


class _Data(msgspec.Struct):
    program: str
    parsed: _Parsed


class _Several(msgspec.Struct):
    context: _Context
    value: list[_Account | None]


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
_SINGLE = msgspec.json.Decoder(_Single)
_SEVERAL = msgspec.json.Decoder(_Several)
_DATA = msgspec.json.Decoder(_Data)
_INFO = msgspec.json.Decoder(_Info)


class Helius(Configured):
    """`POST /` with `getTokenAccountBalance` or `getMultipleAccounts`."""

    Settings: ClassVar[type[ProviderSettings]] = HeliusSettings
    HOST = "https://mainnet.helius-rpc.com"
    LIMITS = (Limit(10, 1.0), Limit(1_000_000, MONTH))

    def __init__(self, name: str, settings: HeliusSettings, *, keyed: bool) -> None:
        super().__init__(name, settings, keyed=keyed)
        self.ordering = "strict"
        self._commitment = settings.commitment
        self._several = settings.method == "getMultipleAccounts"
        self.lanes = (Lane(None, self._targets(settings), 100 if self._several else 1),)

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
            Target("account", Scope(self.name, SOLANA, account, token or UNKNOWN)) for account, token in tokens.items()
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
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": ID, "method": call[0], "params": call[1]})
        return Request("POST", "/", tuple(targets), body=body)

    def read(self, request: Request, response: Response) -> Found:
        reply = _opened(request, response)
        if reply.error is not None:
            if reply.jsonrpc != "2.0" or not isinstance(reply.error, _Error) or moved(response):
                _refuse_others(request, response)
            if reply.error.code in BAD_REQUEST and reply.id not in (None, ID):
                raise Malformed(f"the answer to another request, {one_line(str(reply.id))!r}")
            return self._absence(request, response, reply)
        if response.status != 200:
            refuse(request, response, None)
        if reply.jsonrpc != "2.0" or reply.id != ID:
            raise Malformed(f"not the JSON-RPC 2.0 answer to our request {ID!r} ({glimpse(response.body)})")
        unambiguous(response.body, b'"slot"', 1)
        if self._several:
            return self._accounts(request, decode(_SEVERAL, bytes(reply.result)))
        single = decode(_SINGLE, bytes(reply.result))
        unambiguous(response.body, b'"amount"', 0 if single.value is None else 1)
        return Found([self._reading(request.targets[0], single.value, single.context.slot)])

    def _absence(self, request: Request, response: Response, reply: _Reply) -> Found:
        """The one error that says something of a balance. Raises Failure for every other."""
        if bytes(reply.result) not in (b"", b"null"):
            raise Malformed("the answer holds both a result and an error")
        if self._several or response.status not in (200, 400) or reply.id != ID or not _is_absence(reply.error):
            _refuse(request, response, reply.error)
        return Found([self._reading(request.targets[0], None, None)])

    def _accounts(self, request: Request, several: _Several) -> Found:
        if len(several.value) != len(request.targets):
            raise Malformed(f"{len(several.value)} accounts where {len(request.targets)} were asked for")
        slot = several.context.slot
        readings, missing, remarks = [], [], []
        for target, account in zip(request.targets, several.value, strict=True):
            try:
                readings.append(self._reading(target, None if account is None else _held(target, account), slot))
            except Misconfigured as failure:
                missing.append(target)
                remarks.append(failure.reason)
        return Found(readings, missing=tuple(missing), remark=remarks[0] if remarks else None)

    def _reading(self, target: Target, held: _Amount | None, slot: int | None) -> Reading:
        scope = target.scope
        key = Key(self.name, SOLANA, str(scope.account), str(scope.token))
        if held is None:
            return Reading(key, None, "base", order=slot, slot=slot)
        return Reading(key, base_units(held.amount), "base", decimals=held.decimals, order=slot, slot=slot)


def _opened(request: Request, response: Response) -> _Reply:
    """The JSON, whatever the status; what is no JSON may still say why."""
    try:
        return decode(_REPLY, response.body)
    except Malformed as unread:
        _refuse_others(request, response, unread)


def _refuse_others(request: Request, response: Response, unread: Malformed | None = None) -> NoReturn:
    """No JSON-RPC answer: nobody's word but for a short plain text, which is how the used-up credits are told at times."""
    text = response.body[:PLAIN].decode("utf-8", "replace")
    plain = len(response.body) < PLAIN and "<" not in text
    if plain and _USED_UP.fullmatch(text.strip(" \r\n\t.!\"'")):
        raise Exhausted(f"the credits are used up: {one_line(text)}")
    if plain and _TOO_FAST.search(text) and response.status < 500:
        raise Throttled(one_line(text), refused(response))
    if unread is not None and response.status == 200:
        raise unread from None
    refuse(request, response, None)


def _refuse(request: Request, response: Response, error: _Error | str | None) -> NoReturn:
    """By what the error says, which is told apart better than by its code or the status."""
    code, message, data = (
        (error.code, error.message, error.data) if isinstance(error, _Error) else (0, str(error), None)
    )
    reason = f"JSON-RPC error {code}: {one_line(message)}"
    if _USED_UP.search(message):
        raise Exhausted(f"the credits are used up ({reason})")
    if response.status == 429 or code == -32429 or _TOO_FAST.search(message):
        raise Throttled(reason, refused(response))
    if response.status in (401, 403) or code == -32001:
        raise RefusedCredential(reason)
    if response.status == 402:
        raise Exhausted(reason)
    if code == -32005:
        lagging = _BEHIND.search(message) or (isinstance(data, dict) and "numSlotsBehind" in data)
        raise Temporary(reason) if lagging else Throttled(reason, refused(response))
    if response.status < 500 and code in BAD_REQUEST:
        raise Misconfigured(f"{reason} (asked for {asked(request.targets)})")
    raise Temporary(reason)


def _is_absence(error: _Error | str | None) -> bool:
    return isinstance(error, _Error) and error.code == -32602 and _ABSENT.search(error.message) is not None


def _held(target: Target, account: _Account) -> _Amount:
    """What a token account holds. Raises Misconfigured for an account of another sort, Malformed for nonsense."""
    try:
        data = decode(_DATA, bytes(account.data))
    except Malformed:
        data = None
    if data is None or data.parsed.type != "account" or not data.program.startswith("spl-token"):
        raise Misconfigured(f"{target.scope.account} is not a token account: watch the account that holds the token")
    info = decode(_INFO, bytes(data.parsed.info))
    if target.scope.token not in (UNKNOWN, info.mint):
        raise Misconfigured(
            f"{target.scope.account} holds {one_line(info.mint)}, not the token of its watch: correct it"
        )
    return info.token_amount
