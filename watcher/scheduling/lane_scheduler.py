"""What a provider is asked next, when several lanes share its limits. Pure: time is given.

Groups take turns in proportion to the requests that one sweep of
their targets needs, evenly interleaved; one that has nothing to ask, or whose endpoint has no room, is passed over.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Sequence
from math import inf

import msgspec

from watcher.limits.budget import Budget
from watcher.model.targets import Lane, Target, TargetGroup
from watcher.scheduling.outage import OutageDetector
from watcher.scheduling.schedule import Schedule


class PollJob(msgspec.Struct, frozen=True):
    """One request to be made now."""

    lane: Lane
    schedule: Schedule[Target]
    targets: tuple[Target, ...]


class _Group(msgspec.Struct):
    schedule: Schedule[Target]
    lanes: list[Lane]
    """Those that carry the most first."""
    stride: float
    """1 / requests in a sweep."""
    turn: float
    """In virtual time: the lowest is next."""
    apart: deque[Target]
    """Picked, but to be asked alone."""
    outage: OutageDetector


class LaneScheduler:
    """`schedules`: one for each group, in their order (see `schedules_of`)."""

    def __init__(self, groups: Sequence[TargetGroup], schedules: Sequence[Schedule[Target]], budget: Budget) -> None:
        self._budget = budget
        self._clock = 0.0
        self._aside: list[tuple[float, int, _Group, Target]] = []
        self._tick = itertools.count()
        self._groups = [_grouped(group, schedule) for group, schedule in zip(groups, schedules, strict=True)]

    def next(self, now: float) -> tuple[PollJob | None, float]:
        """The request that may leave now, its targets picked; or None and when to look again, if nothing changes."""
        self._take_back(now)
        when = self._aside[0][0] if self._aside else inf
        for group in sorted(self._groups, key=lambda group: group.turn):
            lane = min(group.lanes, key=lambda lane: self._budget.ready_at(now, lane.endpoint))
            ready = max(self._budget.ready_at(now, lane.endpoint), self._due(group, now))
            if ready <= now and (targets := self._pick(group, lane, now)):
                return PollJob(lane, group.schedule, targets), now
            when = min(when, ready if ready > now else inf)
        return None, when

    def failed(self, errand: PollJob, granted: float, now: float) -> None:
        """It left at `granted` and brought nothing, for a reason that may pass: its targets are asked again."""
        self._group(errand).outage.failed(errand.targets, granted, now)

    def answered(self, errand: PollJob, now: float) -> None:
        """It brought a good answer."""
        self._group(errand).outage.answered(now)

    def apart(self, errand: PollJob) -> None:
        """One target of this request spoils it: ask each alone to find out which."""
        self._group(errand).apart.extend(errand.targets)

    def set_aside(self, errand: PollJob, until: float) -> None:
        """Asking again soon is useless: these targets stay out until then, and are asked alone when they come back."""
        group = self._group(errand)
        for target in errand.targets:
            heapq.heappush(self._aside, (until, next(self._tick), group, target))

    def recall(self) -> None:
        """Those that were set aside are due now."""
        for _, _, group, target in sorted(self._aside):
            group.apart.append(target)
        self._aside.clear()

    def _group(self, errand: PollJob) -> _Group:
        return next(group for group in self._groups if group.schedule is errand.schedule)

    def _take_back(self, now: float) -> None:
        while self._aside and self._aside[0][0] <= now:
            _, _, group, target = heapq.heappop(self._aside)
            group.apart.append(target)

    def _due(self, group: _Group, now: float) -> float:
        if group.apart:
            return now
        due = group.schedule.next_at(now)
        return inf if due is None else due

    def _pick(self, group: _Group, lane: Lane, now: float) -> tuple[Target, ...]:
        targets = (group.apart.popleft(),) if group.apart else tuple(group.schedule.pick(now, lane.batch))
        if targets:
            # A group that had nothing to ask, or no room, has saved up one turn at most.
            group.turn = max(group.turn, self._clock - group.stride)
            self._clock = max(self._clock, group.turn)
            group.turn += group.stride
        return targets


def _grouped(group: TargetGroup, schedule: Schedule[Target]) -> _Group:
    lanes = sorted(group.lanes, key=lambda lane: -lane.batch)
    stride = 1 / group.sweep
    return _Group(schedule, lanes, stride, stride / 2, deque(), OutageDetector(schedule, group.widest.batch))
