"""The whole sandbox without a socket: a request and the time in, a reply out.

| path | answers |
|---|---|
| `/jupiter/…`, `/bloxroute/…`, `/helius/`, `/ondo/…`, `/tokenkit/…`, `/NAME/…` of a plug-in | as that provider would |
| `GET /_truth` | every balance with its history, and what each provider was asked (`?history=0`: without the histories) |
| `POST /_freeze`, `POST /_thaw` | stops, restarts the moves |
| `POST /_set` | one balance: `{"provider", "chain", "account", "token", "kind"?, "amount"}` |
| `POST /_faults` | the faults from now on, in the words of `--faults`, as plain text |

The push channels, websockets under `/_push/NAME`, are the server's (push.py); what is pushed, when and to whom says `pushes`.
"""

import math
import random
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlsplit

import msgspec

from watcher.model.addresses import BSC
from watcher.sandbox import faults, limits, registry
from watcher.sandbox.api import SimulatedApi
from watcher.sandbox.faults import Lens, Memory
from watcher.sandbox.limits import QuotaGate, QuotaRuling
from watcher.sandbox.messages import VALID_KEY, SimulatedReply, SimulatedRequest, json_reply
from watcher.sandbox.population import Population
from watcher.sandbox.push_board import DIALECTS, PushBoard
from watcher.sandbox.truth import SLOT_SECONDS, BalanceKey, SimulatedBalance, Truth

SLOT_EPOCH = 1.6e9
"""Unix seconds of slot 0. Slots follow the wall clock, so that they go on growing when the sandbox is started anew."""

WEBHOOK_SECRET = "sandbox-webhook-secret"  # noqa: S105 (a sandbox has none)
"""What signs the webhooks of a sandbox that is told no secret."""
SECRET_ENV = "WATCHER_SANDBOX_WEBHOOK_SECRET"  # noqa: S105 (the name of a variable)
URL_ENVS: Mapping[str, str] = {name: f"WATCHER_SANDBOX_{name.upper()}_URL" for name in DIALECTS}
"""Push channel → the variable that holds its address, as `hint_tables` names it."""

__all__ = [
    "VALID_KEY",
    "WEBHOOK_SECRET",
    "SandboxSettings",
    "World",
    "hint_environment",
    "hint_tables",
    "population_of",
    "tables",
    "watches",
]


class SandboxSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What `watcher sandbox` takes. Raises ValueError with one line for the user."""

    port: int = 0
    """0: a free one."""
    seed: int = 1
    rate: float = 5.0
    """Changes a second over all balances; each provider gets a fifth of them."""
    faults: str = "none"
    limits: str = "default"
    webhook: str = ""
    """Where TokenKit's webhooks go; empty: nowhere."""

    def __post_init__(self) -> None:
        faults.parse(self.faults)
        limits.parse(self.limits, registry.quotas())
        if not 0 <= self.rate <= 1e6:
            raise ValueError(f"--rate: {self.rate:g} is not a number from 0 to 1000000")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"--port: {self.port} is not a number from 0 to 65535")
        if self.webhook and not _is_address(self.webhook):
            raise ValueError(f"--webhook: {self.webhook!r} is no http:// or https:// address of a receiver")


class Desk:
    """One provider's counter: its API, its limits, and what went over it."""

    def __init__(self, api: SimulatedApi, gate: QuotaGate) -> None:
        self.api = api
        self.gate = gate
        self.requests = 0
        self.refusals = 0
        """429s given because a limit was broken; those that are faults stand under `faults`."""
        self.denied = 0
        """Answers to a wrong or missing key."""
        self.answers: dict[int, int] = {}
        """By status."""
        self.faults: dict[str, int] = {}


class World:
    """Everything behind the socket. `start` is monotonic seconds, `wall` the Unix seconds of that instant."""

    def __init__(
        self, settings: SandboxSettings, *, start: float, wall: float, population: Population | None = None
    ) -> None:
        """`population`: another one than the seed's."""
        apis = [kind() for kind in registry.known().values()]
        self.settings = settings
        self.faults = faults.parse(settings.faults)
        self.truth = Truth(
            (population or Population(settings.seed, apis)).balances,
            seed=settings.seed,
            rate=settings.rate,
            start=start,
            slot=max(1_000_000, math.floor((wall - SLOT_EPOCH) / SLOT_SECONDS)),
        )
        self.pushes = PushBoard(self.truth, settings.seed, lambda: self.faults)
        self._memory = Memory(settings.seed)
        self._wall_start = wall - start
        self._network = random.Random(f"{settings.seed}/network")
        windows = limits.parse(settings.limits, registry.quotas())
        self.desks = {api.name: Desk(api, QuotaGate(windows[api.name])) for api in apis}

    def wall(self, now: float) -> float:
        """Unix seconds at monotonic `now`."""
        return self._wall_start + now

    def travel(self) -> float:
        """Seconds that the next message spends on the network."""
        return self.faults.latency * self._network.lognormvariate(0.0, 0.4) if self.faults.latency else 0.0

    def answer(self, request: SimulatedRequest, now: float) -> SimulatedReply:
        """The reply to a request that arrives at `now`. Raises nothing."""
        self.truth.advance(now)
        name, _, rest = request.path.removeprefix("/").partition("/")
        desk = self.desks.get(name)
        if desk is None:
            return self._control(name, request, now)
        desk.requests += 1
        answer = self._serve(desk, msgspec.structs.replace(request, path=f"/{rest}"), now)
        desk.answers[answer.status] = desk.answers.get(answer.status, 0) + 1
        return answer

    def _serve(self, desk: Desk, request: SimulatedRequest, now: float) -> SimulatedReply:
        denial = desk.api.admit(request, now)
        if denial is not None:
            desk.denied += 1
            return denial
        ruling = desk.gate.arrive(now, desk.api.endpoint(request), desk.api.cost)
        if not ruling.granted:
            desk.refusals += 1
            return desk.api.throttled(request, ruling, self.wall(now))
        dice = self._memory.dice(f"{desk.api.name}/{desk.api.resource(request)}")
        lens = Lens(self.truth, self.faults, self._memory, dice, now, wall_start=self._wall_start)
        answer = self._faulty(desk, request, lens, ruling)
        for fault in lens.faults_met:
            desk.faults[fault] = desk.faults.get(fault, 0) + 1
        return answer

    def _faulty(self, desk: Desk, request: SimulatedRequest, lens: Lens, ruling: QuotaRuling) -> SimulatedReply:
        """The API's answer, unless something goes wrong before it or on its way."""
        refused, disguised, torn, late = (lens.hit(fault) for fault in ("refused", "error", "torn", "late"))
        if refused:
            lens.faults_met.append("refused")
            return self._refuse(desk, request, lens, ruling)
        if disguised:
            lens.faults_met.append("error")
            return desk.api.disguised(request, lens.dice)
        answer = desk.api.answer(request, lens)
        if answer.status == 200:
            headers = {**answer.headers, **desk.api.limit_headers(ruling, self.wall(lens.now))}
            answer = msgspec.structs.replace(answer, headers=headers)
        if torn:
            lens.faults_met.append("torn")
            return _tear(answer, lens.dice)
        self._memory.remember(lens, seen=not late)
        if late:
            lens.faults_met.append("late")
            return msgspec.structs.replace(answer, delay=lens.dice.uniform(0.3, 2.0))
        return answer

    def _refuse(self, desk: Desk, request: SimulatedRequest, lens: Lens, ruling: QuotaRuling) -> SimulatedReply:
        status = lens.dice.choice((500, 500, 503, 503, 429))
        if status != 429:
            return desk.api.failed(status, request)
        soon = msgspec.structs.replace(ruling, free_in=1.0, remaining=-1, per=1.0)
        return desk.api.throttled(request, soon, self.wall(lens.now))

    def _control(self, name: str, request: SimulatedRequest, now: float) -> SimulatedReply:
        acts = {"_freeze": self.truth.freeze, "_thaw": self.truth.thaw}
        if name == "_truth":
            return json_reply(200, self.report(now, history=request.query.get("history") != "0"))
        if name in acts and request.method == "POST":
            acts[name](now)
            self.pushes.earlier()
        elif name == "_set" and request.method == "POST":
            return self._set(request, now)
        elif name == "_faults" and request.method == "POST":
            return self._set_faults(request)
        elif name not in ("_freeze", "_thaw", "_set", "_faults"):
            return json_reply(404, {"error": f"no such provider; they are {', '.join(self.desks)}"})
        else:
            return json_reply(405, {"error": "POST is needed"})
        return json_reply(200, {"frozen": self.truth.frozen, "now": now, "slot": self.truth.slot(now)})

    def _set_faults(self, request: SimulatedRequest) -> SimulatedReply:
        try:
            self.faults = faults.parse(request.body.decode())
        except ValueError as error:
            return json_reply(400, {"error": str(error)})
        return json_reply(200, self.faults)

    def _set(self, request: SimulatedRequest, now: float) -> SimulatedReply:
        try:
            asked = msgspec.json.decode(request.body, type=dict[str, str])
            balance = self.truth.balances[BalanceKey(**{part: asked[part] for part in asked if part != "amount"})]
            scaled = Decimal(asked["amount"]).scaleb(balance.scale if balance.in_units else 0)
            amount = int(scaled)
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, InvalidOperation, ValueError) as error:
            return json_reply(400, {"error": f"not a balance of this world, or not an amount: {error!r}"})
        if amount != scaled or amount < 0:
            return json_reply(400, {"error": f"{asked['amount']} is not an amount of this token"})
        self.truth.put(balance, amount, now)
        return json_reply(200, self._balance(balance, history=True))

    def report(self, now: float, *, history: bool = True) -> dict[str, Any]:
        """What really happened. `amount`s are spelt as BalanceChanged spells them; times are Unix seconds."""
        return {
            "now": now,
            "time": self.wall(now),
            "slot": self.truth.slot(now),
            "frozen": self.truth.frozen,
            "changes": self.truth.moves_made,
            "seed": self.settings.seed,
            "push": self.pushes.report(self.wall, history=history),
            "providers": {name: self._desk(name, desk, history=history) for name, desk in self.desks.items()},
        }

    def _desk(self, name: str, desk: Desk, *, history: bool) -> dict[str, Any]:
        balances = self.truth.of(name)
        return {
            "requests": desk.requests,
            "refusals": desk.refusals,
            "denied": desk.denied,
            "answers": {str(status): count for status, count in sorted(desk.answers.items())},
            "faults": desk.faults,
            "changes": sum(len(balance.moves) - 1 for balance in balances),
            "balances": [self._balance(balance, history=history) for balance in balances],
        }

    def _balance(self, balance: SimulatedBalance, *, history: bool) -> dict[str, Any]:
        found = {
            "key": "/".join(balance.key),
            **balance.key._asdict(),
            "symbol": balance.symbol,
            "unit": "decimal" if balance.in_units else "base",
            "decimals": balance.scale,
            "initial": balance.text(balance.moves[0].amount),
            "amount": balance.text(balance.amount),
        }
        if history:
            found["changes"] = [
                {"time": self.wall(move.time), "slot": move.slot, "amount": balance.text(move.amount)}
                for move in balance.moves[1:]
            ]
        return found


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _tear(answer: SimulatedReply, dice: random.Random) -> SimulatedReply:
    """Half a body that looks whole, a body that breaks off, or no answer at all."""
    half = len(answer.body) // 2
    way = dice.randrange(3)
    if way == 0:
        return msgspec.structs.replace(answer, body=answer.body[:half])
    return msgspec.structs.replace(answer, cut=half if way == 1 else -1)


def population_of(seed: int) -> Population:
    """Everybody who lives in the seed's world."""
    return Population(seed, [kind() for kind in registry.known().values()])


def watches(seed: int) -> Mapping[str, list[dict[str, object]]]:
    """For each provider the watch entries that see every balance of the seed's world exactly once."""
    return population_of(seed).watches


def tables(port: int, seed: int, key_env: str) -> dict[str, dict[str, Any]]:
    """`[providers.NAME]` tables for a sandbox on this machine; `key_env` names the variable that holds `VALID_KEY`."""
    return {
        name: {"type": name, "base_url": f"http://127.0.0.1:{port}/{name}", "api_key_env": key_env, "watch": entries}
        for name, entries in watches(seed).items()
    }


def hint_tables() -> list[dict[str, Any]]:
    """`[[hints]]` tables for every push channel and the webhooks of a sandbox; `hint_environment` has what they name."""
    return [
        {"type": "solana", "url_env": URL_ENVS["solana"]},
        {"type": "ethereum", "url_env": URL_ENVS["ethereum"]},
        {"type": "ethereum", "name": "bsc", "chain": BSC, "url_env": URL_ENVS["bsc"]},
        {"type": "starknet", "url_env": URL_ENVS["starknet"]},
        {"type": "tokenkit", "secret_env": SECRET_ENV},
    ]


def hint_environment(base: str, secret: str = WEBHOOK_SECRET) -> dict[str, str]:
    """The variables that `hint_tables` names. `base`: `http://127.0.0.1:9100`. `secret`: of the webhooks."""
    root = base.rstrip("/").replace("http", "ws", 1)
    return {SECRET_ENV: secret, **{env: f"{root}/_push/{channel}" for channel, env in URL_ENVS.items()}}
