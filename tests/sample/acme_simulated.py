"""Acme's API as the sandbox serves it, under /acme."""

import random
from collections.abc import Mapping
from typing import Any

from watcher.sandbox.api import (
    VALID_KEY,
    BalanceKey,
    Lens,
    Population,
    Quota,
    QuotaRuling,
    SimulatedReply,
    SimulatedRequest,
    json_reply,
    page_reply,
)

PREFIX = "/v1/accounts/"


class SimulatedAcme:
    name = "acme"
    cost = 1
    quotas = (Quota(5, 1.0),)
    demo: Mapping[str, Any] = {}

    def populate(self, population: Population) -> None:
        for _ in range(3):
            account = f"acme1{population.dice.randrange(16**11, 16**12):x}"
            population.watch(account=account)
            for vault in range(4):
                population.add(BalanceKey("acme", "acme:main", account, str(vault)), 6, "ACME", digits=12)

    def admit(self, request: SimulatedRequest, _now: float, /) -> SimulatedReply | None:
        if request.headers.get("x-acme-key") == VALID_KEY:
            return None
        return json_reply(401, {"reason": "the key is wrong"})

    def endpoint(self, _request: SimulatedRequest, /) -> str:
        return "accounts"

    def resource(self, request: SimulatedRequest, /) -> str:
        return f"{request.path}?{request.query.get('vault')}"

    def limit_headers(self, _ruling: QuotaRuling, _wall: float, /) -> dict[str, str]:
        return {}

    def throttled(self, _request: SimulatedRequest, ruling: QuotaRuling, _wall: float, /) -> SimulatedReply:
        return json_reply(429, {"reason": "too many requests"}, retry_after=str(int(ruling.free_in) + 1))

    def failed(self, status: int, _request: SimulatedRequest, /) -> SimulatedReply:
        return json_reply(status, {"reason": "out of order"})

    def disguised(self, _request: SimulatedRequest, _dice: random.Random, /) -> SimulatedReply:
        return page_reply(200, "Just a moment")

    def answer(self, request: SimulatedRequest, lens: Lens, /) -> SimulatedReply:
        if request.method != "GET" or not request.path.startswith(PREFIX):
            return json_reply(404, {"reason": "no such path"})
        parts = {"account": request.path.removeprefix(PREFIX)}
        if "vault" in request.query:
            parts["token"] = request.query["vault"]
        found = lens.slotted(lens.truth.of("acme", **parts), 1)
        seen = [row for row in found if row.amount or "vault" in request.query]
        rows = lens.without_one(seen)
        vaults = [{"vault": int(row.balance.key.token), "units": str(row.amount)} for row in rows]
        height = seen[0].slot if seen else lens.truth.slot(lens.now) - 1
        return json_reply(200, {"height": height, "count": len(seen), "vaults": vaults})
