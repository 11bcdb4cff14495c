"""Solana's pubsub: `accountSubscribe` and `logsSubscribe`, with what a payment touches and what it does not.

A payment that comes in names the token account and not its owner, so that neither the wallet's account nor logs that
mention the wallet tell of it. One that goes out is signed by the wallet, and so are orders: logs mention it.
"""

import base64
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from watcher.model.addresses import AddressError, base58, from_base58, solana
from watcher.model.associated_accounts import SPL_2022_PROGRAM, SPL_PROGRAM, associated_token_account
from watcher.sandbox.helius import BEHIND
from watcher.sandbox.json_rpc import INVALID_PARAMS, RpcError
from watcher.sandbox.population import NATIVE
from watcher.sandbox.push_session import ChainEvent, PushSubscription

SYSTEM_PROGRAM = "1" * 32
ENDLESS = 2**64 - 1
RENT = 2039280
"""Lamports of a token account."""
SPACE = 165
"""Bytes of one."""
OF_TOKEN_ACCOUNTS = ("helius",)
"""Providers whose account is a token account itself; of the others it is a wallet."""
NEWER_PROGRAM = ("ondo",)
"""Providers whose mints belong to Token-2022."""
UNTRANSFERRED = ("unsettled", "open_orders")
"""Kinds of a balance that lies with an exchange: no account of the wallet holds it."""
FIRST_IDENTIFIER = 23_783


class SolanaAccount(msgspec.Struct, frozen=True):
    """What a node says of one account."""

    lamports: int
    owner: str = SYSTEM_PROGRAM
    data: bytes = b""

    def value(self) -> dict[str, Any]:
        return {
            "lamports": self.lamports,
            "data": [base64.b64encode(self.data).decode(), "base64"],
            "owner": self.owner,
            "executable": False,
            "rentEpoch": ENDLESS,
            "space": len(self.data),
        }


@lru_cache(maxsize=64)
def touched(event: ChainEvent) -> Mapping[str, SolanaAccount]:
    """The accounts that the event changes, as they are after it."""
    key = event.balance.key
    if key.kind in UNTRANSFERRED:
        return {}
    if key.token == NATIVE:
        return {key.account: SolanaAccount(event.amount)}
    address, owner, program = _token_account(event)
    if not event.amount and address == key.account:
        return {address: SolanaAccount(0)}  # an emptied one is closed here, as the simulated Helius has it
    return {address: SolanaAccount(RENT, program, _packed(key.token, owner, event.amount))}


@lru_cache(maxsize=64)
def mentioned(event: ChainEvent) -> set[str]:
    """The addresses that the transaction names."""
    key = event.balance.key
    signed = key.provider not in OF_TOKEN_ACCOUNTS and (
        key.token == NATIVE or key.kind in UNTRANSFERRED or not event.incoming
    )
    return {*touched(event), *([key.account] if signed else [])}


def _token_account(event: ChainEvent) -> tuple[str, str, str]:
    """Its address, its owner and its program."""
    key = event.balance.key
    if key.provider in OF_TOKEN_ACCOUNTS:
        return key.account, base58(b"\x01" + event.bytes32("owner")[1:]), SPL_PROGRAM
    program = SPL_2022_PROGRAM if key.provider in NEWER_PROGRAM else SPL_PROGRAM
    return associated_token_account(key.account, key.token, program), key.account, program


def _packed(mint: str, owner: str, amount: int) -> bytes:
    """A token account's bytes: mint, owner, amount, no delegate, initialized."""
    head = from_base58(mint) + from_base58(owner) + min(amount, ENDLESS).to_bytes(8, "little")
    return (head + bytes(36) + b"\x01").ljust(SPACE, b"\0")


class AccountSubscription(msgspec.Struct, frozen=True):
    account: str
    level: str

    def results(self, event: ChainEvent) -> Iterator[Any]:
        found = touched(event).get(self.account)
        if found is not None:
            yield {"context": {"slot": event.slot}, "value": found.value()}


class LogsSubscription(msgspec.Struct, frozen=True):
    mentions: str | None
    """None: every transaction."""
    level: str

    def results(self, event: ChainEvent) -> Iterator[Any]:
        if self.mentions is None or self.mentions in mentioned(event):
            program = SYSTEM_PROGRAM if event.balance.key.token == NATIVE else SPL_PROGRAM
            logs = [f"Program {program} invoke [1]", f"Program {program} success"]
            signature = base58(event.bytes32("signature") + event.bytes32("other half"))
            yield {"context": {"slot": event.slot}, "value": {"signature": signature, "err": None, "logs": logs}}


class SolanaDialect:
    levels: Mapping[str, int] = BEHIND
    ending = frozenset({"accountUnsubscribe", "logsUnsubscribe"})
    constants: Mapping[str, Any] = {}

    def subscribe(self, method: str, params: list[Any] | dict[str, Any]) -> PushSubscription | None:
        if method == "accountSubscribe":
            return _account_subscription(_listed(params))
        if method == "logsSubscribe":
            return _logs_subscription(_listed(params))
        return None

    def identifier(self, number: int) -> int | str:
        return FIRST_IDENTIFIER + number

    def given(self, params: list[Any] | dict[str, Any]) -> Any:
        return params[0] if isinstance(params, list) and len(params) == 1 and isinstance(params[0], int) else None

    def notification(
        self, subscription: PushSubscription, identifier: int | str, result: Any
    ) -> tuple[str, dict[str, Any]]:
        method = "accountNotification" if isinstance(subscription, AccountSubscription) else "logsNotification"
        return method, {"result": result, "subscription": identifier}

    def unknown(self) -> RpcError:
        return RpcError(INVALID_PARAMS, "Invalid subscription id.")


def _account_subscription(params: list[Any]) -> AccountSubscription:
    options = _options(params)
    if options.get("encoding") not in ("base64", None):
        raise RpcError(INVALID_PARAMS, "the sandbox speaks base64 only")
    return AccountSubscription(_address(params[0] if params else None), _level(options))


def _logs_subscription(params: list[Any]) -> LogsSubscription:
    given = params[0] if params else None
    level = _level(_options(params))
    if given in ("all", "allWithVotes"):
        return LogsSubscription(None, level)
    mentions = given.get("mentions") if isinstance(given, dict) and len(given) == 1 else None
    if not isinstance(mentions, list):
        raise RpcError(INVALID_PARAMS, "Invalid params: unknown filter")
    if len(mentions) != 1:
        raise RpcError(INVALID_PARAMS, "Invalid Request: Only 1 address supported")
    return LogsSubscription(_address(mentions[0]), level)


def _listed(params: list[Any] | dict[str, Any]) -> list[Any]:
    if isinstance(params, dict):
        raise RpcError(INVALID_PARAMS, "Invalid params: expected a list")
    return params


def _options(params: list[Any]) -> dict[str, Any]:
    options = params[1] if len(params) > 1 else None
    if not isinstance(options, dict | None) or len(params) > 2:
        raise RpcError(INVALID_PARAMS, "Invalid params: expected a configuration")
    return options or {}


def _level(options: dict[str, Any]) -> str:
    """The commitment; who names none gets the slowest."""
    commitment = options.get("commitment") or "finalized"
    if not isinstance(commitment, str) or commitment not in BEHIND:
        raise RpcError(INVALID_PARAMS, "Invalid params: unknown commitment")
    return commitment


def _address(given: Any) -> str:
    try:
        return solana(given if isinstance(given, str) else "")
    except AddressError:
        raise RpcError(INVALID_PARAMS, "Invalid Request: Invalid pubkey provided") from None
