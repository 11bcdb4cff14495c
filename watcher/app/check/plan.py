"""What the limits allow.

The arithmetic is that of a sweep: reading every watch once takes so many calls on each lane; each limit lets so many
through in a second; the slowest limit decides.
"""

from collections.abc import Iterator, Sequence

import msgspec

from watcher.app.credit_forecast import credit_forecast
from watcher.app.limit_words import duration_words, limit_words
from watcher.limits.windows import Limit
from watcher.model.partitions import partition_of
from watcher.providers.protocol import Provider
from watcher.redaction.secret import Secret


def limit_lines(provider: Provider, allowed: "SweepPlan") -> Iterator[str]:
    """What the limits allow one provider, as lines for people."""
    share = "" if provider.settings.share == 1 else f", our share {provider.settings.share:g}"
    yield (
        f"{provider.name} ({provider.settings.type}): {count_words(allowed.watches, 'watch', 'watches')} in "
        f"{count_words(allowed.calls, 'request', 'requests')}; "
        f"each is read every {duration_words(allowed.interval)} on average"
    )
    yield f"  binding limit: {limit_words(allowed.binding)} at {provider.cost:g} a request{share}"
    yield from credit_forecast(provider, allowed.interval)


def shared_partitions(names: Sequence[str], partitions: int) -> Iterator[str]:
    """A line for each partition in which several providers live, where the journal has more than one."""
    homes: dict[int, list[str]] = {}
    for name in names:
        homes.setdefault(partition_of(name, partitions), []).append(name)
    for partition, together in sorted(homes.items()):
        if partitions > 1 and len(together) > 1:
            yield f"{', '.join(together[:-1])} and {together[-1]} share partition {partition}: they commit and move together"


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
            f"max_interval {duration_words(wished)} cannot be met: the limits allow {duration_words(interval)}: {_help(provider, binding)}"
        )
    if provider.cache and slowest < provider.cache and provider.min_interval < provider.cache:
        yield (
            f"answers are cached for {duration_words(provider.cache)}: asking each watch every {duration_words(interval)} tells nothing more: "
            f"write min_interval = {provider.cache:g}"
        )
    if (most := provider.max_balances) < sum(len(group.targets) for group in provider.groups):
        yield f"max_balances {most} is below the number of watches: those beyond it stay unknown: write a larger one"
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
    return f"what helps is {', '.join(hints[:-1])} or {hints[-1]}"


def _rate(limit: Limit) -> float:
    return limit.requests / limit.per


def count_words(number: int, one: str, many: str) -> str:
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
                    yield f"{other} and {provider.name} both watch {target}, so it is read and told twice: keep one of them"


def same_credentials(keys: dict[str, tuple[str, Secret | None]]) -> Iterator[str]:
    """A warning for each two tables that share one key; `keys`: name → (host, key)."""
    seen: dict[tuple[str, Secret], str] = {}
    for name, (host, key) in keys.items():
        if key is not None:
            other = seen.setdefault((host, key), name)
            if other != name:
                yield f"{other} and {name} use one key: divide its limits between them with `limits` or `share`"
