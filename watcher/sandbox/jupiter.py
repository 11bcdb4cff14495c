"""Jupiter Ultra: `/ultra/v1/balances/{address}` and `/ultra/v1/holdings/{address}`, whole wallets in base units."""

import hashlib
import math
import random
from collections.abc import Mapping
from typing import Any

from watcher.model.addresses import SOLANA, AddressError, base58, solana
from watcher.model.associated_accounts import SPL_PROGRAM, associated_token_account
from watcher.sandbox.faults import Lens, Seen
from watcher.sandbox.limits import Quota, QuotaRuling
from watcher.sandbox.messages import VALID_KEY, SimulatedReply, SimulatedRequest, json_reply, page_reply
from watcher.sandbox.population import MINTS, NATIVE, Population
from watcher.sandbox.truth import BalanceKey

PATHS = ("/ultra/v1/balances/", "/ultra/v1/holdings/")
BEHIND = 1
"""The newest complete slot."""


class SimulatedJupiter:
    name = "jupiter"
    cost = 1
    quotas = (Quota(30, 60.0, "keyless"), Quota(60, 60.0, "keyed"))
    demo: Mapping[str, Any] = {"limits": [{"requests": 600, "per": 60.0}]}

    def populate(self, population: Population, /) -> None:
        for _ in range(4):
            wallet = population.solana_address()
            population.watch(account=wallet)
            population.add(BalanceKey("jupiter", SOLANA, wallet, NATIVE), 9, "SOL", digits=12, empty=0)
            for symbol, mint, scale in MINTS:
                population.add(BalanceKey("jupiter", SOLANA, wallet, mint), scale, symbol, digits=scale + 6)

    def admit(self, request: SimulatedRequest, _now: float, /) -> SimulatedReply | None:
        """No key is fine; a wrong one is not."""
        if request.headers.get("x-api-key", VALID_KEY) == VALID_KEY:
            return None
        return json_reply(401, {"code": 401, "message": "Unauthorized"})

    def endpoint(self, request: SimulatedRequest, /) -> str:
        return "keyed" if "x-api-key" in request.headers else "keyless"

    def resource(self, request: SimulatedRequest, /) -> str:
        return request.path

    def limit_headers(self, ruling: QuotaRuling, wall: float, /) -> dict[str, str]:
        return {
            "x-ratelimit-remaining": str(ruling.remaining),
            "x-ratelimit-current": str(ruling.current),
            "x-ratelimit-reset": str(math.ceil(wall + ruling.free_in)),
        }

    def throttled(self, _request: SimulatedRequest, ruling: QuotaRuling, wall: float, /) -> SimulatedReply:
        body = {"code": 429, "message": "[API Gateway] Too many requests"}
        return json_reply(429, body, **self.limit_headers(ruling, wall))

    def failed(self, status: int, _request: SimulatedRequest, /) -> SimulatedReply:
        return json_reply(status, {"error": "Internal server error" if status == 500 else "Service unavailable"})

    def disguised(self, _request: SimulatedRequest, _dice: random.Random, /) -> SimulatedReply:
        return page_reply(200, "Just a moment")

    def answer(self, request: SimulatedRequest, lens: Lens, /) -> SimulatedReply:
        prefix = next((path for path in PATHS if request.path.startswith(path)), None)
        if prefix is None or request.method != "GET":
            return json_reply(404, {"error": "Not found"})
        try:
            wallet = solana(request.path.removeprefix(prefix))
        except AddressError:
            return json_reply(400, {"error": "Invalid address"})
        found = lens.truth.of("jupiter", account=wallet)
        if prefix == PATHS[0]:
            seen = lens.slotted(found, BEHIND)
            rows = lens.without_one([row for row in seen if row.amount or row.balance.key.token == NATIVE])
            return json_reply(200, self._balances(rows, lens))
        rows = lens.unslotted(found, request.path)
        return json_reply(200, _holdings(lens.without_one([row for row in rows if row.amount])))

    def _balances(self, rows: list[Seen], lens: Lens) -> dict[str, Any]:
        """A slot for each entry, and no two entries need agree on it. An empty wallet still has its lamports."""
        slot = lens.truth.slot(lens.now) - BEHIND
        if not rows and "missing" not in lens.faults_met:
            return {"SOL": _entry(0, 9, slot)}
        return {_name(row): _entry(*_older(row, lens.dice.randint(0, 1))) for row in rows}


def _name(row: Seen) -> str:
    return "SOL" if row.balance.key.token == NATIVE else row.balance.key.token


def _older(row: Seen, slots: int) -> tuple[int, int, int]:
    slot = row.slot - slots
    return row.balance.at_slot(slot), row.balance.scale, slot


def _entry(amount: int, scale: int, slot: int) -> dict[str, Any]:
    return {"amount": str(amount), "uiAmount": amount / 10**scale, "slot": slot, "isFrozen": False}


def _holdings(rows: list[Seen]) -> dict[str, Any]:
    """No slots at all; a mint may be spread over several token accounts."""
    native = sum(row.amount for row in rows if row.balance.key.token == NATIVE)
    tokens = {row.balance.key.token: _accounts(row) for row in rows if row.balance.key.token != NATIVE}
    return {**_amounts(native, 9), "tokens": tokens}


def _accounts(row: Seen) -> list[dict[str, Any]]:
    key, scale = row.balance.key, row.balance.scale
    digest = hashlib.sha256(f"{key.account}/{key.token}".encode()).digest()
    second = row.amount // 3 if digest[0] % 2 else 0
    parts = [row.amount - second, second] if second else [row.amount]
    return [
        {
            "account": base58(b"\x01" + digest[1:]) if rank else associated_token_account(key.account, key.token),
            **_amounts(part, scale),
            "isFrozen": False,
            "isAssociatedTokenAccount": rank == 0,
            "decimals": scale,
            "programId": SPL_PROGRAM,
            "excludeFromNetWorth": False,
        }
        for rank, part in enumerate(parts)
    ]


def _amounts(amount: int, scale: int) -> dict[str, Any]:
    ui = amount / 10**scale
    return {"amount": str(amount), "uiAmount": ui, "uiAmountString": f"{ui:.{scale}f}".rstrip("0").rstrip(".")}
