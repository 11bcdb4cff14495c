"""The parts that a poller is given, made from its provider."""

from watcher.limits.budget import Budget
from watcher.model.targets import Target, TargetGroup
from watcher.providers.protocol import Provider
from watcher.scheduling.schedule import Schedule


def budget_of(provider: Provider) -> Budget:
    """The provider's limits as a budget. Raises BudgetError for limits under which no call could be made."""
    endpoints = [lane.endpoint for group in provider.groups for lane in group.lanes]
    return Budget(provider.limits, cost=provider.cost, share=provider.settings.share, endpoints=endpoints)


def schedules_of(provider: Provider, *, seed: int, now: float) -> list[Schedule[Target]]:
    """One schedule for each of the provider's groups, in their order."""
    return [_schedule(group, provider, seed, now) for group in provider.groups]


def _schedule(group: TargetGroup, provider: Provider, seed: int, now: float) -> Schedule[Target]:
    return Schedule(
        group.targets,
        seed=seed,
        now=now,
        max_interval=provider.settings.max_interval,
        min_interval=provider.min_interval,
        cache=provider.cache,
        name=lambda target: f"{target.family}, {target}",
    )
