"""What a provider is asked next, when several lanes share its limits. Pure: time is given.

Groups take turns in proportion to the requests that one sweep of their targets needs, evenly interleaved. A group that
has nothing to ask, or whose endpoints have no room, is passed over.

A watch that fails alone backs off, up to 8 average cycles. When everything fails no watch is to blame: each is asked
again a cycle later at most, and at the first good answer those that failed meanwhile are due at once.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from math import ceil, inf
from operator import itemgetter

import msgspec

from watcher.limits.budget import Budget
from watcher.model.targets import Lane, Target, TargetGroup
from watcher.scheduling.schedule import Schedule

MIN_EVIDENCE = 3
"""Failed requests, without a good answer since the first, for watches that did not fail before."""


class OutageDetector:
    """Whether everything fails in one schedule, or only some watches. `batch`: targets of one request, at most.

    The evidence are watches that did not fail before: a watch that goes on failing is asked less and less and counts
    once. No other can be passed over for long, so three such failures without a good answer in between are an outage.
    """

    def __init__(self, schedule: Schedule[Target], batch: int) -> None:
        self._schedule = schedule
        self._enough = min(MIN_EVIDENCE, max(1, ceil(len(schedule) / batch)))
        self._evidence = 0
        self._failed: dict[Target, None] = {}
        """Since the last good answer, each once."""
        self._ended = -inf
        """When the last outage ended."""

    @property
    def active(self) -> bool:
        return self._evidence >= self._enough

    def failed(self, targets: Sequence[Target], granted: float, now: float) -> None:
        """A request that left at `granted` brought nothing."""
        if granted < self._ended <= now:  # it left in the outage and ended after it
            self._put_back(targets, now, blameless=True)
            self._schedule.retry_now(targets, now)
            return
        self._evidence += not any(self._schedule.failing(target) for target in targets)
        self._put_back(targets, now, blameless=self.active)
        self._failed.update(dict.fromkeys(targets))

    def answered(self, now: float) -> None:
        """A good answer came."""
        if self.active:
            self._schedule.retry_now(self._failed, now)
            self._ended = now
        self._evidence = 0
        self._failed.clear()

    def _put_back(self, targets: Iterable[Target], now: float, *, blameless: bool) -> None:
        for target in targets:
            self._schedule.failed(target, now, blameless=blameless)


class GroupState(msgspec.Struct, eq=False):
    """One group of targets and where it stands among the others."""

    schedule: Schedule[Target]
    lanes: list[Lane]
    """Those that carry the most first."""
    stride: float
    """1 / requests in a sweep."""
    turn: float
    """In virtual time: the lowest is next."""
    outage: OutageDetector
    singled_out: deque[Target] = msgspec.field(default_factory=deque)
    """Picked, but to be asked alone."""


class PollJob(msgspec.Struct, frozen=True, eq=False):
    """One request to be made now."""

    lane: Lane
    targets: tuple[Target, ...]
    group: GroupState
    alone: bool = False
    """Its target was singled out."""
    hinted_since: float | None = None
    """When the last hint arrived that it is for: an answer from before that does not show what it says. None: for none."""

    @property
    def schedule(self) -> Schedule[Target]:
        return self.group.schedule


class LaneScheduler:
    """Of one provider. `schedules`: one for each group, in their order (see `schedules_of`)."""

    def __init__(self, groups: Sequence[TargetGroup], schedules: Sequence[Schedule[Target]], budget: Budget) -> None:
        self._budget = budget
        self._clock = 0.0
        self._aside: list[tuple[float, int, GroupState, Target]] = []
        """A heapq of (until, number, group, target)."""
        self._numbers = itertools.count()
        self._groups = [_state_of(group, schedule) for group, schedule in zip(groups, schedules, strict=True)]

    def next_job(self, now: float) -> tuple[PollJob | None, float]:
        """The request that may leave now, its targets picked; or None and when to look again, if nothing changes."""
        self._recall_due(now)
        when = self._aside[0][0] if self._aside else inf
        for turn, group in self._in_turn(now):
            lane, room = self._first_with_room(group, now)
            ready = max(room, _due(group, now))
            alone = bool(group.singled_out)
            if ready <= now and (targets := self._pick(group, lane, now, turn)):
                return PollJob(lane, targets, group, alone, _hinted_since(group, targets)), now
            when = min(when, ready if ready > now else inf)
        return None, when

    def _in_turn(self, now: float) -> list[tuple[float, GroupState]]:
        turns = [(_turn(group, now), group) for group in self._groups]
        if len(turns) > 1:
            turns.sort(key=itemgetter(0))
        return turns

    def _first_with_room(self, group: GroupState, now: float) -> tuple[Lane, float]:
        """The lane that may be asked first, and when; of equals the one that carries the most."""
        best, soonest = group.lanes[0], self._budget.ready_at(now, group.lanes[0].endpoint)
        for lane in group.lanes[1:]:
            ready = self._budget.ready_at(now, lane.endpoint)
            if ready < soonest:
                best, soonest = lane, ready
        return best, soonest

    def failed(self, job: PollJob, granted: float, now: float) -> None:
        """It left at `granted` and brought nothing, for a reason that may pass: its targets are asked again."""
        job.group.outage.failed(job.targets, granted, now)

    def unsent(self, job: PollJob, now: float) -> None:
        """It never left, for a reason of ours: its targets are due, and nobody is to blame."""
        if job.alone:
            job.group.singled_out.extend(job.targets)
            return
        for target in job.targets:
            job.schedule.unsent(target, now)

    def answered(self, job: PollJob, now: float) -> None:
        """It brought a good answer."""
        job.group.outage.answered(now)

    def split(self, job: PollJob) -> None:
        """One target of this request spoils it: ask each alone to find out which."""
        job.group.singled_out.extend(job.targets)

    def set_aside(self, job: PollJob, until: float) -> None:
        """Asking again soon is useless: these targets stay out until then, and are asked alone when they come back."""
        for target in job.targets:
            heapq.heappush(self._aside, (until, next(self._numbers), job.group, target))

    def recall_all(self) -> None:
        """Those that were set aside are due now."""
        for _, _, group, target in sorted(self._aside):
            group.singled_out.append(target)
        self._aside.clear()

    def _recall_due(self, now: float) -> None:
        while self._aside and self._aside[0][0] <= now:
            _, _, group, target = heapq.heappop(self._aside)
            group.singled_out.append(target)

    def _pick(self, group: GroupState, lane: Lane, now: float, turn: float) -> tuple[Target, ...]:
        alone = group.singled_out
        if alone:
            targets: tuple[Target, ...] = (alone.popleft(),)
            group.schedule.resent(targets[0], now)
        else:
            targets = tuple(group.schedule.pick(now, lane.batch))
        if targets:
            # A group that had nothing to ask, or no room, has saved up one turn at most.
            ahead = group.turn - turn
            group.turn = max(group.turn, self._clock - group.stride)
            self._clock = max(self._clock, group.turn - ahead)
            group.turn += group.stride
        return targets


def _turn(group: GroupState, now: float) -> float:
    """With a hint it comes one turn sooner, and so no oftener."""
    return group.turn - group.stride if group.schedule.hint_due(now) else group.turn


def _hinted_since(group: GroupState, targets: Iterable[Target]) -> float | None:
    arrivals = (group.schedule.hinted_since(target) for target in targets)
    return max((arrival for arrival in arrivals if arrival is not None), default=None)


def _due(group: GroupState, now: float) -> float:
    if group.singled_out:
        return now
    due = group.schedule.next_at(now)
    return inf if due is None else due


def _state_of(group: TargetGroup, schedule: Schedule[Target]) -> GroupState:
    lanes = sorted(group.lanes, key=lambda lane: -lane.batch)
    stride = 1 / group.sweep
    return GroupState(schedule, lanes, stride, stride / 2, OutageDetector(schedule, group.widest.batch))
