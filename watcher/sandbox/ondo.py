"""Ondo GM: `/v1/chains/{chain}/balances`, by holder, by token, by both or for the whole chain; no order, and cached."""

import random
import re
from collections.abc import Mapping
from typing import Any

from watcher.model.addresses import BSC, ETHEREUM, SOLANA, AddressError, canonical
from watcher.sandbox.faults import Lens, Seen
from watcher.sandbox.limits import Quota, QuotaRuling
from watcher.sandbox.messages import VALID_KEY, SimulatedReply, SimulatedRequest, json_reply, page_reply
from watcher.sandbox.population import Population
from watcher.sandbox.truth import BalanceKey, plain

ETHEREUM_STOCKS = {
    "AAPLon": "0x14c3abf95cb9c93a8b82c1cdcb76d72cb87b2d4c",
    "TSLAon": "0xf6b1117ec07684d3958cad8beb1b302bfd21103f",
}
STOCKS = ("AAPLon", "TSLAon", "NVDAon")
CHAINS = {"ethereum-1": ETHEREUM, "bsc-56": BSC, "solana-900": SOLANA}
"""The name in the path → CAIP-2."""
_PATH = re.compile(r"/v1/chains/([^/]+)/balances")
_FILTERS = {"userAddress": "account", "tokenAddress": "token"}


class SimulatedOndo:
    name = "ondo"
    cost = 1
    quotas = (Quota(1, 1.0),)
    demo: Mapping[str, Any] = {"limits": [{"requests": 10, "per": 1.0}], "share": 0.5}

    def __init__(self) -> None:
        self._cache: dict[str, tuple[float, SimulatedReply]] = {}

    def populate(self, population: Population, /) -> None:
        """Ethereum: two tokens' holders and single balances; BNB Chain: holders; Solana: the whole chain."""
        tokens = self._settle(population, ETHEREUM, holders=4)
        for token in tokens[:2]:
            population.watch(chain="ethereum-1", token=token)
        for balance in population.balances:
            if balance.key.chain == ETHEREUM and balance.key.token == tokens[2]:
                population.watch(chain="ethereum-1", account=balance.key.account, token=balance.key.token)
        self._settle(population, BSC, holders=3)
        for holder in dict.fromkeys(each.key.account for each in population.balances if each.key.chain == BSC):
            population.watch(chain="bsc-56", account=holder)
        self._settle(population, SOLANA, holders=3)
        population.watch(chain="solana-900")

    def _settle(self, population: Population, chain: str, holders: int) -> list[str]:
        """Everybody on one chain; gives the tokens."""
        address = population.solana_address if chain == SOLANA else population.evm_address
        scale = 9 if chain == SOLANA else 18
        accounts = [address() for _ in range(holders)]
        known = ETHEREUM_STOCKS if chain == ETHEREUM else {}
        tokens = [known.get(symbol) or address() for symbol in STOCKS]
        for symbol, token in zip(STOCKS, tokens, strict=True):
            for account in accounts:
                key = BalanceKey("ondo", chain, account, token)
                population.add(key, scale, symbol, digits=scale + 3, in_units=True)
        return tokens

    def admit(self, request: SimulatedRequest, _now: float, /) -> SimulatedReply | None:
        """The gateway turns away who brings no key; only a wrong key reaches the application."""
        key = request.headers.get("x-api-key")
        if key is None:
            return json_reply(403, {"message": "Forbidden"}, x_amzn_errortype="ForbiddenException")
        return None if key == VALID_KEY else _error(401, "INVALID_API_KEY", "invalid API key")

    def endpoint(self, _request: SimulatedRequest, /) -> str:
        return "balances"

    def resource(self, request: SimulatedRequest, /) -> str:
        return f"{request.path}?{sorted(request.query.items())}"

    def limit_headers(self, _ruling: QuotaRuling, _wall: float, /) -> dict[str, str]:
        return {}

    def throttled(self, _request: SimulatedRequest, _ruling: QuotaRuling, _wall: float, /) -> SimulatedReply:
        return json_reply(429, {"code": "RATE_LIMITED", "message": "rate limit exceeded"})

    def failed(self, status: int, _request: SimulatedRequest, /) -> SimulatedReply:
        return (
            _error(500, "INTERNAL_ERROR", "An internal server error occurred.")
            if status == 500
            else page_reply(status, "503")
        )

    def disguised(self, _request: SimulatedRequest, dice: random.Random, /) -> SimulatedReply:
        if dice.random() < 0.5:
            return page_reply(200, "Request blocked")
        return _error(400, "PAUSED_GM_CHAIN", "The chain is paused.")

    def answer(self, request: SimulatedRequest, lens: Lens, /) -> SimulatedReply:
        """Raises nothing: a wrong request is answered with the documented code."""
        path = _PATH.fullmatch(request.path)
        if path is None or request.method != "GET":
            return _error(404, "RESOURCE_NOT_FOUND", "no such resource")
        if path[1] not in CHAINS:
            return _error(400, "INVALID_GM_CHAIN", f"chain must be one of {', '.join(CHAINS)}")
        parts = {"chain": CHAINS[path[1]]}
        try:
            for name, part in _FILTERS.items():
                if name in request.query:
                    parts[part] = canonical(parts["chain"], request.query[name])
        except AddressError:
            return _error(400, "INVALID_USER_ADDRESS", "One of the request parameters is invalid.")
        return self._cached(request, lens) or self._fresh(request, parts, lens)

    def _cached(self, request: SimulatedRequest, lens: Lens) -> SimulatedReply | None:
        made, kept = self._cache.get(self.resource(request), (float("-inf"), None))
        return kept if lens.now - made < lens.faults.cache else None

    def _fresh(self, request: SimulatedRequest, parts: dict[str, str], lens: Lens) -> SimulatedReply:
        rows = lens.unslotted(lens.truth.of("ondo", **parts), self.resource(request))
        kept = lens.without_one([row for row in rows if row.amount])
        answer = json_reply(200, {"tokens": _tokens(kept, lens)})
        if lens.faults.cache:
            self._cache[self.resource(request)] = (lens.now, answer)
        return answer


def _tokens(rows: list[Seen], lens: Lens) -> list[dict[str, Any]]:
    tokens: dict[str, dict[str, Any]] = {}
    for row in rows:
        key = row.balance.key
        token = {"tokenAddress": key.token, "tokenSymbol": row.balance.symbol, "balances": []}
        balance = {"holderAddress": {"account": key.account}, "balance": _text(row, lens)}
        tokens.setdefault(key.token, token)["balances"].append(balance)
    return list(tokens.values())


def _text(row: Seen, lens: Lens) -> str:
    """Up to 18 digits after the point, at times all of them: `0.5` and `0.500000000000000000` are one amount."""
    text = plain(row.amount, row.balance.scale)
    if lens.dice.random() < 0.8:
        return text
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction:0<18}"


def _error(status: int, code: str, message: str) -> SimulatedReply:
    documentation = "https://docs.ondo.finance/api-reference/error-codes"
    return json_reply(status, {"message": message, "documentation": documentation, "code": code})
