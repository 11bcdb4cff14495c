"""`watcher demo` and `watcher sandbox`: the simulated providers, with the whole daemon or alone.

The demo ends with a table: what the daemon published, beside what really happened, which only a sandbox knows.
"""

import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio

from watcher.app import settings
from watcher.app.daemon import Daemon, Started, stop_on_signal, wall
from watcher.client.stream import Stream
from watcher.client.tail import TailColumns
from watcher.logs import output
from watcher.model.events import BalanceChanged
from watcher.model.times import parse_rfc3339
from watcher.poller.poller import Poller
from watcher.redaction.safe_text import print_line
from watcher.sandbox.registry import known
from watcher.sandbox.server import serve
from watcher.sandbox.webhook_sender import send_webhooks
from watcher.sandbox.webhooks import WebhookTarget
from watcher.sandbox.world import (
    VALID_KEY,
    WEBHOOK_SECRET,
    SandboxSettings,
    World,
    hint_environment,
    hint_tables,
    tables,
)

KEY = "WATCHER_SANDBOX_KEY"
FASTER = 10
"""The demo's providers allow so many times their real limits, so that a first-time reader soon sees something."""
RATE = 5.0
"""Changes a second."""


def world_of(simulated: SandboxSettings) -> World:
    return World(simulated, start=anyio.current_time(), wall=wall() / 1e6)


async def sandbox(simulated: SandboxSettings, webhook_secret: str) -> None:
    """`watcher sandbox`: until a signal. Prints its address on stdout. `webhook_secret`: signs what goes to its webhook."""
    async with anyio.create_task_group() as tasks:
        await tasks.start(stop_on_signal, tasks.cancel_scope)
        world = world_of(simulated)
        try:
            port = await tasks.start(_serve, world, simulated.port)
        except OSError as error:
            what = (
                f"port {simulated.port} cannot be listened on ({error.strerror}): free it, or name another with --port"
            )
            raise OSError(error.errno, what) from error
        if simulated.webhook:
            tasks.start_soon(send_webhooks, world.pushes, WebhookTarget(simulated.webhook, webhook_secret))
        print_line(f"http://127.0.0.1:{port}  the key is {VALID_KEY!r}; the truth is at /_truth, pushes at /_push/NAME")
        await anyio.sleep_forever()


async def _serve(world: World, port: int, *, task_status: Any) -> None:
    await serve(world, port=port, task_status=task_status)


async def demo(seconds: float | None, seed: int, columns: TailColumns) -> None:
    """`watcher demo`: until a signal, or for so many seconds once it serves."""
    world = world_of(SandboxSettings(seed=seed, rate=RATE, faults="default", limits=f"x{FASTER}"))
    events: list[BalanceChanged] = []
    pollers: list[Poller] = []
    with tempfile.TemporaryDirectory(prefix="balance-watcher-") as folder:
        async with anyio.create_task_group() as tasks:
            await tasks.start(stop_on_signal, tasks.cancel_scope)
            port = await tasks.start(_serve, world, 0)
            environment = {KEY: VALID_KEY, **hint_environment(f"http://127.0.0.1:{port}")}
            daemon = Daemon(settings.parse(config(port, seed, Path(folder))), environment)
            started = await tasks.start(daemon.run)
            hook = f"http://127.0.0.1:{started.port}/v1/hooks/tokenkit"
            tasks.start_soon(send_webhooks, world.pushes, WebhookTarget(hook, WEBHOOK_SECRET))
            pollers = daemon.partitions.pollers
            tasks.start_soon(output.watch_closed, sys.stdout)
            if seconds is not None:
                tasks.cancel_scope.deadline = anyio.current_time() + seconds
            await _follow(started, events, columns)
        for line in summary(pollers, world, events):
            print_line(line)


def config(port: int, seed: int, folder: Path) -> dict[str, Any]:
    """The config of the demo: the sandbox's providers, at its limits, with hints from all that it pushes."""
    found = tables(port, seed, KEY)
    simulated = known()
    return {
        "journal": f"sqlite:///{folder / 'balances.db'}",
        "relay": {"port": 0},
        "hints": hint_tables(),
        "providers": {name: {**table, **simulated[name]().demo} for name, table in found.items()},
    }


async def _follow(started: Started, events: list[BalanceChanged], columns: TailColumns) -> None:
    print_line(f"the page: http://127.0.0.1:{started.port}/   the stream: ws://127.0.0.1:{started.port}/v1/stream")
    async for update in Stream(f"ws://127.0.0.1:{started.port}/v1/stream"):
        events.append(update.event)
        print(columns.line(update.event, update.label), flush=True)  # noqa: T201 (its cells are fit, and it has colours)
        await output.free_space(sys.stdout)


def summary(pollers: list[Poller], world: World, events: list[BalanceChanged]) -> Iterator[str]:
    """One screen: what was asked, published and refused, and how long after it happened a change was published."""
    truth = world.report(anyio.current_time())["providers"]
    delays = dict(_delays(truth, events))
    yield ""
    yield f"{'provider':<10} {'polls':>6} {'changes told':>13} {'happened':>9} {'refusals':>9} {'median delay':>13}"
    for poller in pollers:
        happened = truth[poller.name]
        waited = delays.get(poller.name, [])
        delay = f"{statistics.median(waited):.1f} s" if waited else "-"
        count = sum(event.provider == poller.name for event in events)
        yield (
            f"{poller.name:<10} {poller.stats.polls:>6} {count:>13} {happened['changes']:>9} {happened['refusals']:>9} {delay:>13}"
        )
    yield "refusals: requests that came faster than the provider's limit allows, counted by the provider."
    yield "A change that was overwritten before the next poll is told together with the one that overwrote it."


def _delays(truth: Mapping[str, Any], events: list[BalanceChanged]) -> Iterator[tuple[str, list[float]]]:
    """Seconds between each event and the last time that its balance took that amount."""
    moves: dict[str, list[tuple[float, str]]] = {
        balance["key"]: [(change["time"], change["amount"]) for change in balance["changes"]]
        for provider in truth.values()
        for balance in provider["balances"]
    }
    found: dict[str, list[float]] = defaultdict(list)
    for event in events:
        seen = parse_rfc3339(event.observed_at) / 1e6
        times = [time for time, amount in moves.get(str(event.key), []) if amount == event.amount and time <= seen]
        if times:
            found[event.provider].append(seen - times[-1])
    yield from found.items()
