"""What the providers saw of a fleet, judged from plain arrivals: limits, overlap, gaps. Pure; nothing of the watcher is asked.

An arrival names the process that sent it, not the member: a process that was started anew is another one beside its
predecessor. All times are seconds of one monotonic clock, that of the machine on which all of it runs.
"""

from collections import Counter, defaultdict
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

APART = 0.1
"""Seconds within which two processes never ask one provider."""
OTHERS = 1.2
"""By what factor the providers that an event does not concern may be asked more slowly."""
QUIET = 3.0
"""Seconds beyond its usual interval that a provider may go unpolled while nothing is done: a busy machine, a slow commit."""


class Quota(NamedTuple):
    """So many calls in any window of so many seconds; one request takes `cost` of them."""

    calls: int
    per: float
    cost: int = 1

    @property
    def requests(self):
        return self.calls // self.cost

    @property
    def interval(self):
        """Seconds from one request to the next at full pace."""
        return self.per / self.requests


class Arrival(NamedTuple):
    at: float
    provider: str
    process: str
    refused: bool = False


class Event(NamedTuple):
    """Something that was done to the fleet."""

    kind: str
    began: float
    settled: float
    """When every provider had been asked again."""
    harmed: frozenset
    """Processes that were in its way."""
    bound: float
    """Seconds that a provider may go unpolled because of it."""
    dirty: bool
    """No release: what the former owner may have asked counts as asked, so its window may have to pass on top."""
    deleted: frozenset = frozenset()
    """Providers that no config had for a while: nobody had to ask them."""


class Gap(NamedTuple):
    """How long one provider went unpolled at one event, beyond its usual interval."""

    kind: str
    provider: str
    seconds: float
    allowed: float


class FleetJudge:
    """`quotas`: provider → those that it counts by. `violations` by law; `examples` has the first few in words."""

    def __init__(self, quotas):
        self.quotas = quotas
        self.violations = Counter()
        self.examples = []
        self.gaps = []
        """Of the providers that moved, or whose owner was harmed, at each event."""
        self.others = {}
        """Kind of event → how much more slowly the rest was asked meanwhile: 1.0 is the pace of quiet times."""
        self.moves = 0

    def judge(self, arrivals, events, until):
        """Everything that arrived up to `until`, in any order, and what was done meanwhile."""
        asked = defaultdict(list)
        for arrival in sorted(arrivals):
            asked[arrival.provider].append(arrival)
            if arrival.refused:
                self._broken("refused", f"{arrival.provider} by {arrival.process} at {arrival.at:.3f}")
        for provider in self.quotas:
            self._judge_limits(provider, asked[provider])
            self._judge_overlap(provider, asked[provider])
            self._judge_quiet(provider, asked[provider], events)
        for event in events:
            self._judge_gaps(event, asked, until)
        self._judge_others(events, asked)

    def _judge_limits(self, provider, arrivals):
        """Every window counts, whoever asked; refused requests too, since a provider counts them at times."""
        for quota in self.quotas[provider]:
            for first, beyond in zip(arrivals, arrivals[quota.requests :], strict=False):
                if beyond.at - first.at < quota.per:
                    text = f"{provider}: {quota.requests + 1} in {beyond.at - first.at:.3f} s, allowed {quota.requests} in {quota.per:g}"
                    self._broken("limit exceeded", f"{text}; {first.process} … {beyond.process} at {beyond.at:.3f}")

    def _judge_overlap(self, provider, arrivals):
        for one, other in pairwise(arrivals):
            if one.process == other.process:
                continue
            self.moves += 1
            if other.at - one.at < APART:
                text = (
                    f"{provider}: {one.process}, and {other.process} {other.at - one.at:.3f} s later, at {other.at:.3f}"
                )
                self._broken("overlap", text)

    def _judge_quiet(self, provider, arrivals, events):
        if not arrivals:
            self._broken("never asked", provider)
        for before, after in pairwise(arrivals):
            seconds = after.at - before.at - self._interval(provider)
            if seconds > QUIET and not any(before.at < event.settled and after.at > event.began for event in events):
                self._broken("unpolled without a cause", f"{provider} for {seconds:.1f} s at {before.at:.1f}")

    def _interval(self, provider):
        return max(quota.interval for quota in self.quotas[provider])

    def _judge_gaps(self, event, asked, until):
        for provider, quotas in self.quotas.items():
            arrivals = [*asked[provider], Arrival(until, provider, "")]
            around = [pair for pair in pairwise(arrivals) if pair[0].at < event.settled and pair[1].at > event.began]
            if provider in event.deleted or not _concerned(event, around):
                continue
            seconds = max(0.0, max(after.at - before.at for before, after in around) - self._interval(provider))
            allowed = event.bound + (max(quota.per for quota in quotas) if event.dirty else 0.0)
            self.gaps.append(Gap(event.kind, provider, seconds, allowed))
            if seconds > allowed:
                text = f"{provider} for {seconds:.1f} s at {event.kind} ({event.began:.1f}), allowed {allowed:.1f}"
                self._broken("unpolled for too long", text)

    def _judge_others(self, events, asked):
        """Between two requests of one process, against the quiet times of the same providers."""
        quiet, busy = defaultdict(list), defaultdict(lambda: defaultdict(list))
        for provider, arrivals in asked.items():
            pairs = list(pairwise(arrivals))
            for event in events:
                around = [pair for pair in pairs if pair[0].at >= event.began and pair[1].at <= event.settled]
                if around and not _concerned(event, around):
                    busy[event.kind][provider] += [after.at - before.at for before, after in around]
            quiet[provider] = [
                after.at - before.at
                for before, after in pairs
                if not any(before.at < event.settled and after.at > event.began for event in events)
            ]
        for kind, providers in busy.items():
            ratios = [fmean(found) / fmean(quiet[each]) for each, found in providers.items() if quiet[each]]
            if not ratios:
                continue
            self.others[kind] = fmean(ratios)
            if self.others[kind] > OTHERS:
                self._broken("others delayed", f"{self.others[kind]:.2f} × at {kind}")

    def _broken(self, law, text):
        self.violations[law] += 1
        if len(self.examples) < 20:
            self.examples.append(f"{law}: {text}")


def _concerned(event, pairs):
    """Whether the provider moved, or was held by a process that the event harmed."""
    return any(
        before.process != after.process or {before.process, after.process} & event.harmed for before, after in pairs
    )
