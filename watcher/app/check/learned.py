"""What the schedules have learned, as the journal says."""

from collections.abc import Iterator, Mapping, Sequence

import anyio

from watcher.app.credit_forecast import spent_credits
from watcher.app.limit_words import duration_words
from watcher.app.provider_sources import Source
from watcher.limits.lease import STAMPS
from watcher.model.targets import Target
from watcher.poller.assembly import schedules_of
from watcher.poller.checkpoints import restore_rates
from watcher.providers.protocol import Provider
from watcher.scheduling.schedule import Schedule


def learned_rates(found: Sequence[Source], notes: Mapping[str, bytes], wall: int) -> Iterator[str]:
    """A line for each provider: the rates that its schedules had learned when they were last saved."""
    for source in found:
        name = source.provider.name
        yield f"{name}: {_learned(source.provider, notes.get(f'schedule:{name}'), wall)}"
        yield from _spent(source.provider, notes.get(STAMPS + name), wall)


def _learned(provider: Provider, learned: bytes | None, wall: int) -> str:
    if learned is None:
        return "nothing learned yet"
    now = anyio.current_time()
    schedules = schedules_of(provider, seed=0, now=now)
    try:
        restore_rates(schedules, learned, now, wall)
    except ValueError:
        return "what was learned cannot be read: the next run begins anew"
    return "; ".join(_schedule_line(schedule, now) for schedule in schedules)


def _spent(provider: Provider, stamps: bytes | None, wall: int) -> list[str]:
    try:
        return [] if stamps is None else list(spent_credits(provider, stamps, wall))
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
