"""TokenKit (Starknet): one pair, twenty pairs, or one account; cached, and ordered only by the time of the refresh."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from watcher.model.addresses import STARKNET, AddressError, felt
from watcher.sandbox.faults import Lens, Seen
from watcher.sandbox.limits import Quota, QuotaGate, QuotaRuling
from watcher.sandbox.messages import VALID_KEY, SimulatedReply, SimulatedRequest, json_reply
from watcher.sandbox.population import Population
from watcher.sandbox.truth import BalanceKey, SimulatedBalance

STARKNET_TOKENS = (("USDC", 6), ("ETH", 18), ("STRK", 18), ("WBTC", 8), ("LORDS", 18), ("EKUBO", 18))
STARKNET_USDC = "0x053c91253bc9682c04929ca02ed00b3e423f6710d2ee7e0d5ebb06f3ecf368a8"
MOST_PAIRS = 20
MAX_AGE = 300.0
ENDPOINTS = {"/api/balance/": "balance", "/api/balances/": "balances", "/api/account-balances/": "account-balances"}
BAD_KEYS = (Quota(20, 300.0),)
"""Wrong keys that are let through before the address is blocked for a while."""


class _Pair(msgspec.Struct):
    account_address: str
    token_address: str


class _Batch(msgspec.Struct):
    balances: list[_Pair]
    force_refresh: bool = False
    max_age: float = MAX_AGE


class _CacheEntry(NamedTuple):
    """What the cache holds of one pair."""

    refreshed: float
    amount: int


class SimulatedTokenKit:
    name = "tokenkit"
    cost = 1
    quotas = (Quota(1, 10.0),)
    demo: Mapping[str, Any] = {"limits": [{"requests": 10, "per": 10.0}], "max_age": 0}

    def __init__(self) -> None:
        self._cache: dict[BalanceKey, _CacheEntry] = {}
        self._bad_keys = QuotaGate(BAD_KEYS)

    def populate(self, population: Population, /) -> None:
        tokens = [
            (symbol, scale, STARKNET_USDC if symbol == "USDC" else population.felt_address())
            for symbol, scale in STARKNET_TOKENS
        ]
        for rank in range(6):
            account = population.felt_address()
            listed = rank >= 4
            if listed:
                population.watch(account=account)
            for symbol, scale, token in tokens:
                population.add(BalanceKey("tokenkit", STARKNET, account, token), scale, symbol, digits=scale + 5)
                if not listed:
                    population.watch(account=account, token=token)

    def admit(self, request: SimulatedRequest, now: float, /) -> SimulatedReply | None:
        """Too many wrong keys block the address; a missing key does not count."""
        if request.headers.get("api-key") == VALID_KEY:
            return None
        if "api-key" in request.headers and not self._bad_keys.arrive(now, "").granted:
            return json_reply(429, {"detail": "Too many invalid API keys from this address."})
        return json_reply(401, {"detail": "Invalid or missing API key."}, www_authenticate='api-key realm="tokenkit"')

    def endpoint(self, request: SimulatedRequest, /) -> str:
        return ENDPOINTS.get(request.path, "balance")

    def resource(self, request: SimulatedRequest, /) -> str:
        return f"{request.path}{sorted(request.query.items())}{request.body.decode(errors='replace')}"

    def limit_headers(self, _ruling: QuotaRuling, _wall: float, /) -> dict[str, str]:
        return {}

    def throttled(self, _request: SimulatedRequest, _ruling: QuotaRuling, _wall: float, /) -> SimulatedReply:
        return json_reply(429, {"detail": "Rate limit exceeded for this API key."})

    def failed(self, status: int, _request: SimulatedRequest, /) -> SimulatedReply:
        return json_reply(
            status, {"detail": "A server error occurred." if status == 500 else "Temporarily unavailable."}
        )

    def disguised(self, _request: SimulatedRequest, _dice: random.Random, /) -> SimulatedReply:
        return json_reply(200, {"success": False, "data": None, "errors": [{"error": "chain fetch failed"}]})

    def answer(self, request: SimulatedRequest, lens: Lens, /) -> SimulatedReply:
        try:
            if request.path == "/api/balances/" and request.method == "POST":
                return self._batch(msgspec.json.decode(request.body, type=_Batch), lens)
            if request.path not in ENDPOINTS or request.method != "GET":
                return json_reply(404, {"detail": "Not found."})
            age, force = _freshness(request)
            account = felt(request.query.get("account_address", ""))
            if request.path == "/api/account-balances/":
                return self._account(account, age, lens, force=force)
            token = felt(request.query.get("token_address", ""))
            return json_reply(200, {"success": True, "data": self._pair(account, token, age, lens, force=force)})
        except (AddressError, ValueError, RecursionError) as error:  # msgspec's and Unicode's errors are ValueErrors
            return json_reply(400, {"success": False, "errors": [{"error": str(error)}]})

    def _batch(self, batch: _Batch, lens: Lens) -> SimulatedReply:
        if len(batch.balances) > MOST_PAIRS:
            raise ValueError(f"at most {MOST_PAIRS} pairs")
        data, errors = [], []
        for pair in batch.balances:
            named = {"account_address": pair.account_address, "token_address": pair.token_address}
            try:
                account, token = felt(pair.account_address), felt(pair.token_address)
            except AddressError as error:
                errors.append({**named, "error": str(error)})
                continue
            if lens.hit("error"):
                lens.faults_met.append("error")
                errors.append({**named, "error": "chain fetch failed"})
                continue
            data.append(self._pair(account, token, batch.max_age, lens, force=batch.force_refresh))
        return json_reply(200, {"success": True, "data": data, "errors": errors or None})

    def _pair(self, account: str, token: str, max_age: float, lens: Lens, *, force: bool) -> dict[str, Any]:
        found = lens.truth.of("tokenkit", account=account, token=token)
        row, refreshed = self._look(found[0], max_age, lens, force=force) if found else (None, lens.now)
        return {
            "account_address": account,
            "token_address": token,
            "balance": str(row.amount if row else 0),
            "balance_usd": _usd(row),
            "last_updated": _time(lens.wall(refreshed)).isoformat(),
        }

    def _account(self, account: str, max_age: float, lens: Lens, *, force: bool) -> SimulatedReply:
        """Zero rows too; an account that nobody knows has no rows and is no error."""
        looks = [
            self._look(balance, max_age, lens, force=force) for balance in lens.truth.of("tokenkit", account=account)
        ]
        times = {row.balance.key: refreshed for row, refreshed in looks}
        rows = lens.without_one([row for row, _ in looks])
        data = [_row(number, row, _time(lens.wall(times[row.balance.key]))) for number, row in enumerate(rows, 1)]
        return json_reply(200, {"success": True, "count": len(data), "data": data})

    def _look(self, balance: SimulatedBalance, max_age: float, lens: Lens, *, force: bool) -> tuple[Seen, float]:
        """The cache's row while it is young enough, else a new one from the chain, and when it was refreshed."""
        kept = self._cache.get(balance.key)
        old = kept is None or force or lens.now - kept.refreshed > max_age
        if kept is not None and old and lens.hit("cached"):
            lens.faults_met.append("cached")
            old = False
        if kept is not None and not old:
            return lens.show(balance, kept.amount, 0), kept.refreshed
        row = lens.unslotted([balance], f"tokenkit/{balance.key.account}/{balance.key.token}")[0]
        self._cache[balance.key] = _CacheEntry(lens.now, row.amount)
        return row, lens.now


def _row(number: int, row: Seen, refreshed: datetime) -> dict[str, Any]:
    balance = row.balance
    token = {
        "address": balance.key.token,
        "symbol": balance.symbol,
        "name": balance.symbol,
        "decimals": balance.scale,
        "current_price_usd": "1.000000",
        "logo": None,
    }
    return {
        "id": number,
        "account": {"address": balance.key.account},
        "token": token,
        "balance": str(row.amount),
        "balance_usd": str(_usd(row)),
        "last_updated": refreshed.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _time(wall: float) -> datetime:
    """Whole seconds, as the API's own examples."""
    return datetime.fromtimestamp(0, UTC) + timedelta(seconds=int(wall))


def _freshness(request: SimulatedRequest) -> tuple[float, bool]:
    """`max_age` and `force_refresh` from the query. Raises ValueError."""
    return float(request.query.get("max_age", MAX_AGE)), request.query.get("force_refresh") == "true"


def _usd(row: Seen | None) -> float:
    return round(row.amount / 10**row.balance.scale, 6) if row else 0.0
