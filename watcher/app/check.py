"""`watcher check`: what the limits allow, and what each provider answers.

The arithmetic is that of a sweep: reading every watch once takes so many calls on each lane; each limit lets so many
through in a second; the slowest limit decides.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import anyio
import msgspec

from watcher.app.credit_forecast import credit_forecast, spent_credits
from watcher.app.daemon import Daemon, wall
from watcher.app.exit_status import Exit
from watcher.app.file_descriptors import connections
from watcher.app.limit_words import duration_words, limit_words
from watcher.app.provider_sources import Source
from watcher.app.settings import Settings
from watcher.limits.lease import STAMPS
from watcher.limits.windows import Limit
from watcher.model.partitions import partition_of
from watcher.model.targets import Target
from watcher.poller.assembly import schedules_of
from watcher.poller.checkpoints import restore_rates
from watcher.poller.connections import HttpConnections
from watcher.poller.http_exchange import HttpExchange
from watcher.providers.failures import Failure, Misconfigured, RefusedCredential
from watcher.providers.protocol import Provider, Response
from watcher.redaction.safe_text import one_line, pad_left, pad_right, print_line, width
from watcher.redaction.secret import Secret
from watcher.scheduling.schedule import Schedule

SHOWN = 12
"""Balances shown of one provider."""


async def check(config: Settings, environment: Mapping[str, str], offline: bool, believed: bool) -> None:  # noqa: FBT001 (the command's own flags)
    """`watcher check`. Raises Exit with 69 when a provider did not answer, 78 when one refused its credential."""
    built = Daemon(config, environment)  # whatever `run` would refuse is refused here
    for source in built.sources:
        for line in limit_lines(source.provider):
            print_line(line)
    for line in shared_partitions([source.provider.name for source in built.sources], built.journal.partitions):
        print_line(line)
    hosts = {source.provider.name: (source.provider.base_url, source.secret) for source in built.sources}
    providers = [source.provider for source in built.sources]
    for warning in itertools.chain(same_watches(providers), same_credentials(hosts), built.exposed()):
        print_line(f"warning: {warning}")
    wished = config.relay.max_connections
    if (possible := connections(wished, len(built.sources))) < wished:
        print_line(
            f"warning: the limit of open files allows the relay {possible:,} connections, and [relay] max_connections "
            f"asks for {wished:,}: raise it (ulimit -n)"
        )
    if believed:
        await _learned_rates(built)
    if not offline:
        await _ask_all(built.sources)


def limit_lines(provider: Provider) -> Iterator[str]:
    """What the limits allow one provider, as lines for people."""
    allowed = plan(provider)
    share = "" if provider.settings.share == 1 else f", our share {provider.settings.share:g}"
    yield (
        f"{provider.name} ({provider.settings.type}): {_count(allowed.watches, 'watch', 'watches')} in "
        f"{_count(allowed.calls, 'request', 'requests')}; "
        f"each is read every {duration_words(allowed.interval)} on average"
    )
    yield f"  binding limit: {limit_words(allowed.binding)} at {provider.cost:g} a request{share}"
    yield from credit_forecast(provider, allowed.interval)
    for warning in allowed.warnings:
        yield f"  warning: {warning}"


def shared_partitions(names: Sequence[str], partitions: int) -> Iterator[str]:
    """A line for each partition in which several providers live, where the journal has more than one."""
    homes: dict[int, list[str]] = {}
    for name in names:
        homes.setdefault(partition_of(name, partitions), []).append(name)
    for partition, together in sorted(homes.items()):
        if partitions > 1 and len(together) > 1:
            yield f"{', '.join(together[:-1])} and {together[-1]} share partition {partition}: they commit and move together"


async def _ask_all(found: Sequence[Source]) -> None:
    exits: list[Exit] = []
    for source in found:
        try:
            for line in await _ask(source):
                print_line(line)
        except Failure as failure:
            print_line(f"{source.provider.name}: {one_line(failure.reason, 1000)}")
            exits.append(_exit_of(source.provider.name, failure))
    if exits:
        raise max(exits, key=lambda end: end.status)


def _exit_of(name: str, failure: Failure) -> Exit:
    if isinstance(failure, RefusedCredential):
        return Exit(78, f"{name} refuses the credential: look at the key it is given")
    if isinstance(failure, Misconfigured):
        return Exit(2, f"{name} refuses what is asked: look at its watches")
    return Exit(69, f"{name} did not answer with balances: {type(failure).__name__.lower()}")


async def _ask(source: Source) -> Iterator[str]:
    """One request on the first lane of the provider's first group, and the balances of its answer as lines of a table."""
    provider = source.provider
    group = provider.groups[0]
    lane = group.lanes[0]
    request = provider.ask(lane, group.targets[: lane.batch], 60.0)
    async with HttpConnections(lambda: True) as transport:  # one request, under no lease
        exchange = HttpExchange(provider, transport, source.credentials(), wall)
        response: Response = await exchange.send(request)
    readings = provider.read(request, response).readings
    return _table(
        provider.name,
        [
            (r.key.account, one_line(r.symbol, 32) if r.symbol else r.key.token, r.key.kind, r.amount or "0", r.unit)
            for r in readings
        ],
    )


def _table(name: str, rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield f"{name}: answers with {_count(len(rows), 'balance', 'balances')}"
    shown = rows[:SHOWN]
    widths = [max((width(row[i]) for row in shown), default=0) for i in range(5)]
    for account, token, kind, amount, unit in shown:
        yield (
            f"  {pad_right(account, widths[0])}  {pad_right(token, widths[1])}  {kind:<{widths[2]}}  {pad_left(amount, widths[3])}  "
            f"{'base units' if unit == 'base' else 'tokens'}"
        )
    if len(rows) > SHOWN:
        yield f"  … and {len(rows) - SHOWN} more"


async def _learned_rates(built: Daemon) -> None:
    """The rates that the schedules had learned when they were last saved. Reads the journal and disturbs nobody."""
    try:
        await built.journal.check()
        reader = await built.journal.reader()
        try:
            notes = await reader.notes()
        finally:
            await reader.close()
    finally:
        await built.journal.close()
    for source in built.sources:
        print_line(
            f"{source.provider.name}: {_learned(source.provider, notes.get(f'schedule:{source.provider.name}'))}"
        )
        for line in _spent(source.provider, notes.get(STAMPS + source.provider.name)):
            print_line(line)


def _learned(provider: Provider, learned: bytes | None) -> str:
    if learned is None:
        return "nothing learned yet"
    now = anyio.current_time()
    schedules = schedules_of(provider, seed=0, now=now)
    try:
        restore_rates(schedules, learned, now, wall())
    except ValueError:
        return "what was learned cannot be read: the next run begins anew"
    return "; ".join(_schedule_line(schedule, now) for schedule in schedules)


def _spent(provider: Provider, stamps: bytes | None) -> list[str]:
    try:
        return [] if stamps is None else list(spent_credits(provider, stamps, wall()))
    except ValueError:
        return ["  the limiter's stamps cannot be read: the next run waits as after a refusal"]


def _schedule_line(schedule: Schedule[Target], now: float) -> str:
    stalest = schedule.stalest(now)
    waits = (
        "nothing read yet"
        if stalest is None
        else f"the stalest was read {duration_words(stalest[1])} ago ({stalest[0]})"
    )
    return (
        f"{len(schedule)} watches, a cycle of {duration_words(schedule.cycle(now))}, "
        f"a change is expected to be seen after {duration_words(schedule.expected_mean_delay(now))} on average; {waits}"
    )


class SweepPlan(msgspec.Struct, frozen=True):
    """What one provider's limits allow."""

    watches: int
    calls: int
    """Requests that read every watch once."""
    interval: float
    """Seconds between two readings of one watch, on average."""
    binding: Limit
    """The limit that decides `interval`."""
    warnings: list[str]


def plan(provider: Provider) -> SweepPlan:
    """One sweep over all watches, under the limit that makes it slowest. `Daemon` has refused impossible budgets."""
    groups = provider.groups
    times = [(_seconds(provider, limit), limit) for limit in provider.limits]
    slowest, binding = max(times, key=lambda pair: pair[0])
    interval = max(slowest, provider.min_interval)
    watches = sum(len(group.targets) for group in groups)
    calls = sum(group.sweep for group in groups)
    return SweepPlan(watches, calls, interval, binding, list(_warnings(provider, interval, slowest, binding)))


def _seconds(provider: Provider, limit: Limit) -> float:
    """How long one sweep takes under this limit alone."""
    calls = sum(group.sweep for group in provider.groups if limit.endpoint in (None, group.widest.endpoint))
    return calls * provider.cost * limit.per / (limit.requests * provider.settings.share)


def _warnings(provider: Provider, interval: float, slowest: float, binding: Limit) -> Iterator[str]:
    wished = provider.settings.max_interval
    if wished is not None and interval > wished * 1.001:
        yield (
            f"max_interval {duration_words(wished)} cannot be met: the limits allow {duration_words(interval)}; {_help(provider, binding)}"
        )
    if provider.cache and slowest < provider.cache and provider.min_interval < provider.cache:
        yield (
            f"answers are cached for {duration_words(provider.cache)}: asking each watch every {duration_words(interval)} tells nothing more, "
            f"write min_interval = {provider.cache:g}"
        )
    if (most := provider.max_balances) < sum(len(group.targets) for group in provider.groups):
        yield f"max_balances {most} is below the number of watches: those beyond it stay unknown, write a larger one"
    burst = min(provider.limits, key=lambda limit: limit.per)
    if binding is not burst and binding.per > 3600:
        yield (
            f"{limit_words(burst)} would allow {duration_words(interval * _rate(binding) / _rate(burst))}, but {limit_words(binding)} binds first"
        )


def _help(provider: Provider, binding: Limit) -> str:
    hints = ["fewer watches", f"a plan with more than {limit_words(binding)}"]
    if provider.settings.share < 1:
        hints.append(f"a share above {provider.settings.share:g}")
    hints += provider.advice
    return f"what helps: {', '.join(hints[:-1])} or {hints[-1]}"


def _rate(limit: Limit) -> float:
    return limit.requests / limit.per


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def same_watches(providers: Sequence[Provider]) -> Iterator[str]:
    """A warning for each two tables of one type that watch the same thing."""
    seen: dict[tuple[object, ...], str] = {}
    for provider in providers:
        for group in provider.groups:
            for target in group.targets:
                scope = target.scope
                what = (provider.settings.type, provider.base_url, scope.chain, scope.account, scope.token)
                other = seen.setdefault(what, provider.name)
                if other != provider.name:
                    yield f"{other} and {provider.name} both watch {target}: it is read and told twice"


def same_credentials(keys: dict[str, tuple[str, Secret | None]]) -> Iterator[str]:
    """A warning for each two tables that share one key; `keys`: name → (host, key)."""
    seen: dict[tuple[str, Secret], str] = {}
    for name, (host, key) in keys.items():
        if key is not None:
            other = seen.setdefault((host, key), name)
            if other != name:
                yield f"{other} and {name} use one key: divide its limits between them with `limits` or `share`"
