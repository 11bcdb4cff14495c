"""What hints do for each provider, as heartbeat and metrics tell it. Pure.

Whether a source is there and how much it tells is counted beside it; how often that was so, and how much sooner changes are
read for it, the schedules of the provider know.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter

from watcher.hints.figures import SourceFigures
from watcher.model.events import HintsHealth, HintSourceHealth
from watcher.model.targets import Target
from watcher.model.times import format_rfc3339
from watcher.providers.protocol import Provider
from watcher.scheduling.hint_scores import HintScore
from watcher.scheduling.schedule import Schedule

READS = ("hinted", "unhinted")


def hints_health(
    provider: Provider, figures: Mapping[str, SourceFigures], schedules: Sequence[Schedule[Target]], now: float
) -> HintsHealth | None:
    """`figures`: of all sources, by name. `now`: monotonic seconds. None: no source tells of this provider, and none ever did.

    A source tells of it that covers something of it, has hinted something of it, or is away and has its chain. One that is
    being connected to for the first time is neither there nor away.
    """
    scores = scores_of(schedules)
    shown = [
        source
        for name, source in sorted(figures.items())
        if (name in scores and scores[name].hints)
        or provider.name in source.providers
        or (not source.connected and source.since is not None and _watches(provider, source.chain))
    ]
    if not shown:
        return None
    seconds = delays(schedules)
    return HintsHealth(
        sources=tuple(_health(source, scores.get(source.name), now) for source in shown),
        hinted_delay=seconds.get("hinted"),
        unhinted_delay=seconds.get("unhinted"),
    )


def _watches(provider: Provider, chain: str | None) -> bool:
    return any(target.scope.chain == chain for group in provider.groups for target in group.targets)


def scores_of(schedules: Iterable[Schedule[Target]]) -> Mapping[str, HintScore]:
    """By source. A provider with several schedules has each in its measure: by the hints that were judged there."""
    found = sorted(((name, score) for each in schedules for name, score in each.hint_scores.items()), key=itemgetter(0))
    return {name: _together([score for _, score in named]) for name, named in groupby(found, key=itemgetter(0))}


def _together(scores: Sequence[HintScore]) -> HintScore:
    judged = [(score.hits + score.misses, score.precision) for score in scores if score.precision is not None]
    number = sum(count for count, _ in judged)
    return HintScore(
        hints=sum(score.hints for score in scores),
        hits=sum(score.hits for score in scores),
        misses=sum(score.misses for score in scores),
        precision=sum(count * precision for count, precision in judged) / number if number else None,
    )


def precisions(schedules: Sequence[Schedule[Target]], shown: Collection[str]) -> Mapping[str, float]:
    """By source, of those of which a hint was judged. `shown`: those that there are; others are remembered for when they are back."""
    scores = scores_of(schedules).items()
    return {name: score.precision for name, score in scores if name in shown and score.precision is not None}


def judged(schedules: Sequence[Schedule[Target]]) -> Mapping[str, int]:
    """Hints that were judged, by what was read for them."""
    scores = scores_of(schedules).values()
    return {"changed": sum(score.hits for score in scores), "unchanged": sum(score.misses for score in scores)}


def delays(schedules: Sequence[Schedule[Target]]) -> Mapping[str, float]:
    """Seconds from a change to the read that showed it, `hinted` and `unhinted`, as far as there was one. Of several
    schedules the one that is worst off, as with all figures of a provider."""
    each = zip(*(schedule.hint_delays() for schedule in schedules), strict=True)
    found = {read: [one for one in seconds if one is not None] for read, seconds in zip(READS, each, strict=False)}
    return {read: max(known) for read, known in found.items() if known}


def _health(source: SourceFigures, score: HintScore | None, now: float) -> HintSourceHealth:
    return HintSourceHealth(
        source=source.name,
        type=source.type,
        connected=source.connected,
        since=None if source.since is None else format_rfc3339(source.since),
        per_second=source.per_second(now),
        precision=None if score is None else score.precision,
    )
