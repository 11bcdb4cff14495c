"""bloXroute Trader API: `/api/v2/balance?ownerAddress=`, token units as JSON numbers, no slot and no time."""

import random
from collections.abc import Mapping
from typing import Any

from watcher.model.addresses import SOLANA, AddressError, solana
from watcher.sandbox.faults import Lens, Seen
from watcher.sandbox.limits import Quota, QuotaRuling
from watcher.sandbox.messages import VALID_KEY, SimulatedReply, SimulatedRequest, json_reply
from watcher.sandbox.population import MINTS, WRAPPED_SOL, Population
from watcher.sandbox.truth import BalanceKey

FIELDS = {"settled": "settledAmount", "unsettled": "unsettledAmount", "open_orders": "openOrdersAmount"}


class SimulatedBloxroute:
    name = "bloxroute"
    cost = 5
    """Credits that one call takes."""
    quotas = (Quota(60, 60.0),)
    demo: Mapping[str, Any] = {"limits": [{"requests": 600, "per": 60.0}]}

    def populate(self, population: Population, /) -> None:
        for _ in range(3):
            owner = population.solana_address()
            population.watch(account=owner)
            for symbol, mint, scale in MINTS[:4]:
                named = "SOL" if mint == WRAPPED_SOL else symbol
                for kind, empty, part in (("settled", 0.1, 1.0), ("unsettled", 0.8, 0.15), ("open_orders", 0.8, 0.15)):
                    key = BalanceKey("bloxroute", SOLANA, owner, mint, kind)
                    population.add(key, scale, named, digits=13, empty=empty, in_units=True, part=part)

    def admit(self, request: SimulatedRequest, _now: float, /) -> SimulatedReply | None:
        if request.headers.get("authorization") == VALID_KEY:
            return None
        return _error(401, 16, "unauthenticated")

    def endpoint(self, _request: SimulatedRequest, /) -> str:
        return "balance"

    def resource(self, request: SimulatedRequest, /) -> str:
        return f"bloxroute/{request.query.get('ownerAddress')}"

    def limit_headers(self, _ruling: QuotaRuling, _wall: float, /) -> dict[str, str]:
        return {}

    def throttled(self, _request: SimulatedRequest, _ruling: QuotaRuling, _wall: float, /) -> SimulatedReply:
        return _error(429, 8, "rate limit exceeded")

    def failed(self, status: int, _request: SimulatedRequest, /) -> SimulatedReply:
        return _error(status, 13 if status == 500 else 14, "internal" if status == 500 else "unavailable")

    def disguised(self, _request: SimulatedRequest, _dice: random.Random, /) -> SimulatedReply:
        return _error(200, 14, "upstream unavailable")

    def answer(self, request: SimulatedRequest, lens: Lens, /) -> SimulatedReply:
        if request.path != "/api/v2/balance" or request.method != "GET":
            return _error(404, 5, "Not Found")
        try:
            owner = solana(request.query.get("ownerAddress", ""))
        except AddressError:
            return _error(400, 3, "ownerAddress is required and must be a public key")
        seen = lens.unslotted(lens.truth.of("bloxroute", account=owner), self.resource(request))
        mints: dict[str, list[Seen]] = {}
        for row in seen:
            mints.setdefault(row.balance.key.token, []).append(row)
        kept = [rows for rows in mints.values() if any(row.amount for row in rows)]
        return json_reply(200, {"tokens": [_token(rows) for rows in _without_one(kept, lens)]})


def _without_one(tokens: list[list[Seen]], lens: Lens) -> list[list[Seen]]:
    """A token goes missing with all its kinds, and only one whose other kinds hold nothing: one row, one lie."""
    single = [rows for rows in tokens if sum(row.amount > 0 for row in rows) == 1]
    held = [row for rows in single for row in rows if row.amount]
    lost = {row.balance.key.token for row in held} - {row.balance.key.token for row in lens.without_one(held)}
    return [rows for rows in tokens if rows[0].balance.key.token not in lost]


def _token(rows: list[Seen]) -> dict[str, Any]:
    first = rows[0].balance
    amounts = {FIELDS[row.balance.key.kind]: row.amount / 10**row.balance.scale for row in rows}
    return {"symbol": first.symbol, "tokenMint": first.key.token, **amounts}


def _error(status: int, code: int, message: str) -> SimulatedReply:
    """The envelope of grpc-gateway, which may also come with status 200."""
    return json_reply(status, {"code": code, "message": message, "details": []})
