"""A poller in virtual time: real provider, limiter, schedule, ledger, committer and SQLite; only HTTP and clocks are ours."""

import json
from contextlib import asynccontextmanager

import anyio
import httpx
from trio.testing import MockClock

from watcher.ingest.committer import Committer
from watcher.journal.sqlite.file import inline
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.ledger import Ledger
from watcher.limits.windows import Limit
from watcher.poller.assembly import budget_of, schedules_of
from watcher.poller.poller import Poller
from watcher.providers.helius import Helius, HeliusSettings
from watcher.providers.settings import Watch
from watcher.providers.tokenkit import TokenKit, TokenKitSettings

START = 1_790_000_000_000_000
"""Wall-clock microseconds at virtual 0."""
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def wall():
    return START + round(anyio.current_time() * 1e6)


def always():
    """May a request leave? Where there is no lease."""
    return True


def virtually(main, *args, clock=None):
    """Run in virtual time."""
    clock = clock or MockClock(autojump_threshold=0)
    return anyio.run(main, *args, backend="trio", backend_options={"clock": clock})


def solana(n):
    """The n-th made-up Solana address."""
    number, text = int.from_bytes(bytes([1]) * 30 + n.to_bytes(2)), ""
    while number:
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    return text


def helius(watches=1, *, name="helius", limits=((10, 1.0),), **settings):
    return Helius(
        name,
        HeliusSettings(
            type="helius",
            limits=[Limit(*limit) for limit in limits],
            watch=[Watch(account=solana(n)) for n in range(watches)],
            **settings,
        ),
        keyed=True,
    )


def tokenkit(pairs=2, *, listings=0, limits=((6, 60.0, "balances"), (6, 60.0, "account-balances"))):
    watches = [Watch(account=f"0x{n + 1:x}", token="0x99") for n in range(pairs)]
    watches += [Watch(account=f"0x{n + 1000:x}") for n in range(listings)]
    settings = TokenKitSettings(type="tokenkit", limits=[Limit(*limit) for limit in limits], watch=watches)
    return TokenKit("tokenkit", settings, keyed=True)


def balance(amount="5", slot=1):
    value = {"amount": amount, "decimals": 2, "uiAmount": 1.0, "uiAmountString": "1"}
    return {"jsonrpc": "2.0", "id": "1", "result": {"context": {"slot": slot}, "value": value}}


def carrying(request, answer):
    """As a JSON-RPC server answers: under the id of the request, where `answer` has the id 1."""
    if request.method != "POST" or b'"id":"1"' not in answer.content:
        return answer
    content = answer.content.replace(b'"id":"1"', b'"id":"%b"' % json.loads(request.content)["id"].encode())
    headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
    return httpx.Response(answer.status_code, headers=headers, content=content)


def account_of(request):
    return json.loads(request.content)["params"][0]


class Api:
    """What stands behind the network: remembers when each request arrived, and answers as told."""

    def __init__(self, answer, delay=0.03):
        self.arrivals = []
        self._answer = answer
        self._delay = delay

    async def __call__(self, request):
        await request.extensions["trace"]("http11.receive_response_headers.started", {})
        await anyio.sleep(self._delay)
        self.arrivals.append((anyio.current_time(), request))
        answer = self._answer(request, len(self.arrivals))
        if callable(answer):
            answer = await answer()
        await anyio.sleep(self._delay)
        return carrying(request, answer)

    @property
    def times(self):
        return [time for time, _ in self.arrivals]

    def paths(self):
        return [request.url.path for _, request in self.arrivals]


def fine(_request, n):
    return httpx.Response(200, json=balance(slot=n))


@asynccontextmanager
async def journal(path, run=inline):
    """An open journal for the time of the block. `run` runs its statements."""
    sqlite = SqliteJournal(path, encoding="json", retention=1e9, clock=wall, runner=lambda: run)
    await sqlite.init()
    committer = Committer(sqlite.writer(0), Ledger(), gather=0.0)
    async with anyio.create_task_group() as tasks:
        await tasks.start(committer.run)
        yield committer
        tasks.cancel_scope.cancel()


def poller_of(provider, api, intake, *, seed=1, secret="canary-key", transport=None):
    """`api` answers, or `transport`."""
    credentials = provider.credentials(secret)
    now = anyio.current_time()
    poller = Poller(
        provider,
        transport or httpx.MockTransport(api),
        intake,
        credentials=credentials,
        budget=budget_of(provider),
        schedules=schedules_of(provider, seed=seed, now=now),
        wall=wall,
        seed=seed,
    )
    poller.restore(intake.notes)
    return poller


def poll(path, seconds, *pairs):
    """Poll (provider, api) pairs for so many virtual seconds, each with its own client; gives the pollers."""

    async def main():
        async with journal(path) as intake:
            pollers = [poller_of(provider, api, intake) for provider, api in pairs]
            with anyio.move_on_after(seconds):
                async with anyio.create_task_group() as tasks:
                    for poller in pollers:
                        tasks.start_soon(poller.run)
            return pollers

    return virtually(main)
