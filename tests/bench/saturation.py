"""The whole at saturation: what is used of each provider's limit, and what the providers' own counters refuse.

    python -m tests.bench.saturation [SECONDS]

Real pollers, limiters, schedules, providers, ledgers and committers on SQLite, five at once, against the sandbox with
its default limits, in virtual time: 30 ms of jittered network each way, faults on. Half-way the process is killed, and
another goes on a second later from what was on the disk: the last second had not been saved. Helius' month is scaled so
that it binds within the run; a second, shorter world leaves it out, and the second binds.

`used`: of the binding limit, by arrivals, before and after the kill. `refused`: by the sandbox's gates. `429s`: made up
by the sandbox (fault `refused`); each is a pause that the provider asked for, so `used` is told without them, too, and
without answers that are held back for up to two seconds or break off (`late`, `torn`): until it is known that a request
has arrived nobody else can have its slot. The goals are judged there, refusals everywhere. `most`: what a slot that is held
as long as these answers took can be used at all. `silent`: from the kill to the first request. `blind`: the longest that a watch went without a good answer, in seconds and in sweeps.
"""

import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import httpx
import msgspec
import structlog
import trio
from trio.testing import MockClock

from tests.polling import START, journal, poller_of
from watcher.ingest.committer import Committer
from watcher.ledger import Verdict
from watcher.model.readings import Answer
from watcher.poller.poller import Poller
from watcher.providers.protocol import Provider
from watcher.providers.registry import known
from watcher.sandbox.messages import VALID_KEY, SimulatedReply, SimulatedRequest
from watcher.sandbox.registry import PROVIDERS
from watcher.sandbox.transport import SandboxTransport
from watcher.sandbox.world import SandboxSettings, World, watches

FAULTS = "default,latency=0.03"
PROMPT = "refused=0,late=0,torn=0"
"""After FAULTS: without those faults that necessarily take time from a limit."""
MONTH = 259.2
"""Seconds: the ten-thousandth part of thirty days."""
DOWN = 1.0
"""Seconds between the kill and the next start."""
UNSAVED = 0.99
"""Seconds since the last save when the kill comes."""
GOALS = {1.0: 0.92, 10.0: 0.97}
"""By the seconds of the binding limit; 0.99 for longer ones."""
COLUMNS = f"{'limit':<24} {'used':>7} {'after':>7} {'most':>7} {'goal':>5} {'refused':>8} {'429s':>5} {'silent':>7} {'blind':>16}"


class Limits(NamedTuple):
    """One world's limits: as the sandbox takes them, and as the config does (None: the defaults)."""

    sandbox: str
    helius: list[dict[str, float]]


MONTHLY = Limits(f"default,helius=10/1+100/{MONTH}", [{"requests": 10, "per": 1.0}, {"requests": 100, "per": MONTH}])
SECONDLY = Limits("default,helius=10/1", [{"requests": 10, "per": 1.0}])


class Counted(World):
    """The sandbox, remembering when each provider's requests arrived."""

    def __init__(self, settings: SandboxSettings) -> None:
        super().__init__(settings, start=anyio.current_time(), wall=START / 1e6)
        self.arrivals: dict[str, list[float]] = {name: [] for name in PROVIDERS}
        self.made_up: dict[str, int] = dict.fromkeys(PROVIDERS, 0)
        """429s without cause."""

    def answer(self, request: SimulatedRequest, now: float) -> SimulatedReply:
        name = request.path.split("/")[1]
        desk = self.desks[name]
        refusals = desk.refusals
        reply = super().answer(request, now)
        if desk.refusals == refusals:
            self.arrivals[name].append(now)
            self.made_up[name] += reply.status == 429
        return reply


class Ear:
    """The intake, remembering how long each watch went without a good answer."""

    def __init__(self, intake: Committer, last_received: dict[Any, float], blind: dict[str, float]) -> None:
        self._intake = intake
        self._last_received = last_received
        self._blind = blind
        self.note, self.save, self.notes, self.repeat = intake.note, intake.save, intake.notes, intake.repeat
        self.lease, self.in_doubt, self.problem = intake.lease, intake.in_doubt, intake.problem

    async def accept(self, answer: Answer) -> Verdict:
        names = [answer.listing] if answer.listing is not None else [reading.key for reading in answer.readings]
        for name in names:
            gap = answer.times.received - self._last_received.get(name, 0.0)
            self._blind[answer.provider] = max(gap, self._blind.get(answer.provider, 0.0))
            self._last_received[name] = answer.times.received
        return await self._intake.accept(answer)


class Outcome(NamedTuple):
    world: Counted
    providers: Mapping[str, Provider]
    killed: float
    blind: Mapping[str, float]
    held: Mapping[str, float]
    """Mean seconds that a slot was held."""


def provider(name: str, seed: int, limits: Limits) -> Provider:
    table: dict[str, Any] = {"type": name, "base_url": f"http://127.0.0.1/{name}", "api_key_env": "KEY"}
    table["watch"] = watches(seed)[name]
    if name == "helius":
        table["limits"] = limits.helius
    kind = known()[name]
    return kind(name, msgspec.convert(table, kind.Settings), keyed=True)


async def live(folder: Path, limits: Limits, faults: str, seconds: float, seed: int) -> Outcome:
    world = Counted(SandboxSettings(seed=seed, rate=1.0, faults=faults, limits=limits.sandbox))
    providers = {name: provider(name, seed, limits) for name in PROVIDERS}
    last_received: dict[Any, float] = {}
    blind: dict[str, float] = {}
    pollers: list[Poller] = []
    killed = int(seconds / 2) + UNSAVED
    left = folder / "left.db"
    for file, until in ((folder / "first.db", killed), (left, seconds)):
        async with journal(file) as intake, anyio.create_task_group() as tasks:
            for each in providers.values():
                pollers.append(running(each, Ear(intake, last_received, blind), world, seed))
                tasks.start_soon(pollers[-1].run)
            await trio.sleep_until(until)
            if file != left:
                leave_as_it_is(file, left)
            tasks.cancel_scope.cancel()
        if file != left:
            await trio.sleep_until(killed + DOWN)
    return Outcome(world, providers, killed, blind, {name: held(pollers, name) for name in PROVIDERS})


def held(pollers: Sequence[Poller], name: str) -> float:
    stats = [poller.stats for poller in pollers if poller.name == name]
    return sum(each.request_durations.sum for each in stats) / sum(each.polls for each in stats)


def running(each: Provider, ear: Ear, world: World, seed: int) -> Poller:
    transport: httpx.AsyncBaseTransport = SandboxTransport(world)
    poller: Poller = poller_of(each, None, ear, seed=seed, secret=VALID_KEY, transport=transport)
    return poller


def leave_as_it_is(file: Path, left: Path) -> None:
    """What the next process finds after `kill -9`: the database as it lies there, nothing tidied up."""
    for suffix in ("", "-wal"):
        shutil.copy(f"{file}{suffix}", f"{left}{suffix}")


def saturate(limits: Limits, faults: str, seconds: float, seed: int = 1) -> Outcome:
    """Kept in memory where there is such a place: a commit a request, and no disk is what is tested here."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        clock = MockClock(autojump_threshold=0)
        options = {"clock": clock}
        return anyio.run(live, Path(folder), limits, faults, seconds, seed, backend="trio", backend_options=options)


class Use(NamedTuple):
    before: float
    after: float
    most: float
    goal: float
    silent: float
    """Seconds from the kill to the first request."""
    sweep: float
    """Seconds in which every watch is read once at the pace of the limit."""


def used(outcome: Outcome, name: str) -> Use:
    each, arrivals = outcome.providers[name], outcome.world.arrivals[name]
    limit = min(each.limits, key=lambda limit: limit.requests / limit.per)
    pace = limit.per * each.cost / limit.requests
    first = [time for time in arrivals if time <= outcome.killed]
    second = [time for time in arrivals if time > outcome.killed + DOWN]
    sweep = pace * sum(group.sweep for group in each.groups)
    goal = GOALS.get(limit.per, 0.99)
    most = limit.per / (limit.per + outcome.held[name])
    return Use(share(first, pace), share(second, pace), most, goal, second[0] - outcome.killed, sweep)


def share(arrivals: Sequence[float], pace: float) -> float:
    return (len(arrivals) - 1) * pace / (arrivals[-1] - arrivals[0])


def show(outcome: Outcome, name: str, *, judged: bool) -> bool:
    """Whether it is as it must be: nothing refused, and, where `judged`, the goal of use reached."""
    world, use = outcome.world, used(outcome, name)
    limits = ", ".join(f"{limit.requests:g}/{limit.per:g} s" for limit in outcome.providers[name].limits)
    blind = outcome.blind[name]
    print(
        f"{f'{name} {limits}':<24.24} {use.before:7.2%} {use.after:7.2%} {use.most:7.2%} {use.goal:5.0%} {world.desks[name].refusals:8d} "
        f"{world.made_up[name]:5d} {use.silent:6.2f}s {blind:7.1f}s = {blind / use.sweep:4.1f}"
    )
    return not world.desks[name].refusals and (not judged or min(use.before, use.after) >= use.goal)


def main(argv: list[str]) -> int:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), processors=[lambda *_: ""])
    seconds = float(argv[0]) if argv else 1800.0
    good = True
    for title, faults, judged in (
        ("faults as they come", FAULTS, False),
        ("no made-up refusals", f"{FAULTS},refused=0", False),
        ("nor slots held by answers that are late or break off", f"{FAULTS},{PROMPT}", True),
    ):
        print(f"-- {title}: {faults}\n{COLUMNS}")
        monthly = saturate(MONTHLY, faults, seconds)
        for name in PROVIDERS:
            good &= show(monthly, name, judged=judged)
        good &= show(saturate(SECONDLY, faults, seconds / 6), "helius", judged=judged)
    return not good


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
