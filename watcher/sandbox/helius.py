"""Helius: Solana JSON-RPC with `getTokenAccountBalance` and `getMultipleAccounts`; the key stands in the query."""

import random
from collections.abc import Mapping
from typing import Any

import msgspec

from watcher.model.addresses import SOLANA, AddressError, solana
from watcher.model.associated_accounts import SPL_PROGRAM
from watcher.sandbox.faults import Lens, Seen
from watcher.sandbox.json_rpc import RpcError
from watcher.sandbox.limits import Quota, QuotaRuling
from watcher.sandbox.messages import VALID_KEY, SimulatedReply, SimulatedRequest, json_reply
from watcher.sandbox.population import MINTS, Population
from watcher.sandbox.truth import BalanceKey

BEHIND = {"processed": 1, "confirmed": 2, "finalized": 32}
"""Slots behind the one in the making."""
MOST_ACCOUNTS = 100
MONTH = 86_400.0
"""A window longer than this is a budget of credits, and says so when it is used up."""


class Call(msgspec.Struct):
    method: str
    params: list[Any] = []
    id: str | int | None = None
    jsonrpc: str = ""


class SimulatedHelius:
    name = "helius"
    cost = 1
    quotas = (Quota(10, 1.0), Quota(1_000_000, 2_592_000.0))
    demo: Mapping[str, Any] = {"limits": [{"requests": 100, "per": 1.0}], "share": 0.2}

    def populate(self, population: Population, /) -> None:
        for rank in range(16):
            symbol, mint, scale = MINTS[rank % len(MINTS)]
            account = population.solana_address()
            population.watch(account=account, token=mint)
            population.add(BalanceKey("helius", SOLANA, account, mint), scale, symbol, digits=scale + 5)

    def admit(self, request: SimulatedRequest, _now: float, /) -> SimulatedReply | None:
        if request.query.get("api-key") == VALID_KEY:
            return None
        return _error(401, request, -32001, "Unauthorized")

    def endpoint(self, _request: SimulatedRequest, /) -> str:
        return "rpc"

    def resource(self, request: SimulatedRequest, /) -> str:
        """What is asked, whatever the id under which."""
        try:
            call = msgspec.json.decode(request.body, type=Call)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return "helius/"
        return f"helius/{call.method}/{call.params}"

    def limit_headers(self, _ruling: QuotaRuling, _wall: float, /) -> dict[str, str]:
        return {}

    def throttled(self, request: SimulatedRequest, ruling: QuotaRuling, _wall: float, /) -> SimulatedReply:
        if ruling.per > MONTH:
            return _error(429, request, -32429, "max usage reached")
        return _error(429, request, -32005, "Too many requests", {"retry-after": str(int(ruling.free_in) + 1)})

    def failed(self, status: int, request: SimulatedRequest, /) -> SimulatedReply:
        code, message = (-32603, "Internal error") if status == 500 else (-32002, "Service unavailable")
        return _error(status, request, code, message)

    def disguised(self, request: SimulatedRequest, dice: random.Random, /) -> SimulatedReply:
        behind = dice.randint(40, 4000)
        error = {"code": -32005, "message": f"Node is behind by {behind} slots", "data": {"numSlotsBehind": behind}}
        return json_reply(200, {"jsonrpc": "2.0", "error": error, "id": _id(request)})

    def answer(self, request: SimulatedRequest, lens: Lens, /) -> SimulatedReply:
        if request.path != "/" or request.method != "POST":
            return json_reply(404, {"error": "Not found"})
        try:
            call = msgspec.json.decode(request.body, type=Call)
            result = _balance(call, lens) if call.method == "getTokenAccountBalance" else _accounts(call, lens)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _error(400, request, -32700, "Parse error")
        except RpcError as error:
            return _error(200, request, error.code, str(error))
        return json_reply(200, {"jsonrpc": "2.0", "result": result, "id": call.id})


def _balance(call: Call, lens: Lens) -> dict[str, Any]:
    address, behind = _address(call.params[0] if call.params else None), _behind(call)
    found = lens.truth.of("helius", account=address)
    if not found and lens.truth.of("jupiter", account=address):
        raise RpcError(-32602, "Invalid param: not a Token account")
    rows = lens.slotted(found, behind)
    slot = rows[0].slot if rows else 0
    if rows and lens.hit("mislabel"):
        lens.faults_met.append("mislabel")
        slot -= 1
    if not lens.without_one([row for row in rows if row.amount]):
        raise RpcError(-32602, "Invalid param: could not find account")  # an emptied account is closed here
    return {"context": {"apiVersion": "3.0.4", "slot": slot}, "value": _amount(rows[0])}


def _accounts(call: Call, lens: Lens) -> dict[str, Any]:
    if call.method != "getMultipleAccounts":
        raise RpcError(-32601, "Method not found")
    asked = call.params[0] if call.params else None
    if not isinstance(asked, list) or not 0 < len(asked) <= MOST_ACCOUNTS:
        raise RpcError(-32602, f"Too many inputs provided; max {MOST_ACCOUNTS}")
    if _option(call, "encoding") != "jsonParsed":
        raise RpcError(-32602, "the sandbox speaks jsonParsed only")
    addresses = [_address(one) for one in asked]
    held = [balance for one in addresses for balance in lens.truth.of("helius", account=one)]
    seen = lens.slotted(held, _behind(call))
    slot = seen[0].slot if seen else lens.truth.slot(lens.now) - _behind(call)
    rows = {row.balance.key.account: row for row in lens.without_one([row for row in seen if row.amount])}
    least = _option(call, "minContextSlot")
    if isinstance(least, int) and slot < least:
        raise RpcError(-32016, "Minimum context slot has not been reached")
    return {"context": {"apiVersion": "3.0.4", "slot": slot}, "value": [_account(rows.get(one)) for one in addresses]}


def _account(row: Seen | None) -> dict[str, Any] | None:
    if row is None:
        return None
    info = {
        "isNative": False,
        "mint": row.balance.key.token,
        "owner": row.balance.key.account,
        "state": "initialized",
        "tokenAmount": _amount(row),
    }
    return {
        "data": {"parsed": {"info": info, "type": "account"}, "program": "spl-token", "space": 165},
        "executable": False,
        "lamports": 2039280,
        "owner": SPL_PROGRAM,
        "rentEpoch": 2**64 - 1,
        "space": 165,
    }


def _amount(row: Seen) -> dict[str, Any]:
    scale = row.balance.scale
    ui = row.amount / 10**scale
    text = f"{ui:.{scale}f}".rstrip("0").rstrip(".")
    return {"amount": str(row.amount), "decimals": scale, "uiAmount": ui, "uiAmountString": text}


def _address(given: Any) -> str:
    try:
        return solana(given if isinstance(given, str) else "")
    except AddressError:
        raise RpcError(-32602, "Invalid param: WrongSize") from None


def _option(call: Call, name: str) -> Any:
    options = call.params[1] if len(call.params) > 1 else None
    return options.get(name) if isinstance(options, dict) else None


def _behind(call: Call) -> int:
    commitment = _option(call, "commitment") or "finalized"
    if commitment not in BEHIND:
        raise RpcError(-32602, "Invalid params: unknown commitment")
    return BEHIND[commitment]


def _id(request: SimulatedRequest) -> Any:
    try:
        return msgspec.json.decode(request.body, type=Call).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _error(
    status: int, request: SimulatedRequest, code: int, message: str, headers: dict[str, str] | None = None
) -> SimulatedReply:
    body = {"jsonrpc": "2.0", "error": {"code": code, "message": message}, "id": _id(request)}
    return json_reply(status, body, **(headers or {}))
