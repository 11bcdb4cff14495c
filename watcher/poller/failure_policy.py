"""What follows for a provider, or for one watch, when a poll failed: see the tree in providers/failures.py.

Gateways and databases sometimes forget for a minute what they know. So a key or a watch that has worked in this process
is doubted before it is given up: it is asked again after each of DOUBT_STEPS, and given up when the provider says the
same each time. Other failures in between neither confirm nor refute that; a good answer refutes it.
"""

import random
from collections.abc import Iterable
from math import inf

import msgspec

from watcher.limits.limiter import Limiter
from watcher.model.targets import Target
from watcher.poller.condition import ProviderCondition
from watcher.poller.poll_stats import PollStats
from watcher.providers.failures import Exhausted, Failure, Misconfigured, RefusedCredential, Throttled
from watcher.runtime.backoff import Backoff
from watcher.scheduling.lane_scheduler import LaneScheduler, PollJob

DOUBT_STEPS = (5.0, 15.0, 60.0)
"""Seconds after which what has worked is asked again, one after another, before a refusal of it counts."""
EXHAUSTED_PAUSE = 3 * 3600.0
"""Seconds that a provider is left alone once its credits are used up."""
REFUSED_PAUSE = 900.0
"""Seconds that a provider is left alone once it refused our credential: some block an address that insists."""
FIRST_ASIDE = 60.0
"""Seconds, at most, that a misconfigured watch is left alone at first; doubled with each refusal."""
LONGEST_ASIDE = 1800.0
"""Seconds up to which that doubles."""
REMIND_AFTER = 6 * 3600.0
"""Seconds after which a watch that is still refused for the same reason is alerted again."""
LONGEST_PAUSE = 3600.0
"""Seconds; of a pause after 429, or of any other that an answer asks for."""
LONGEST_BACKOFF = 60.0
"""Seconds up to which pauses double while a provider goes on refusing without saying until when."""
JITTER = 0.25
"""Of a pause, added; at most MOST_JITTER seconds."""
MOST_JITTER = 5.0


class _Accusation(msgspec.Struct):
    """What the provider says against its key, or against one watch."""

    kind: type[Failure]
    times: int = 0
    """One after another: each was asked for after the one before had come."""
    alerted: str | None = None
    """The reason in the last alert; None: there was none."""
    alerted_at: float = -inf


class FailurePolicy:
    """Of one provider. max_interval: its setting, in seconds. seed: makes pauses replayable."""

    def __init__(
        self,
        limiter: Limiter,
        lanes: LaneScheduler,
        stats: PollStats,
        condition: ProviderCondition,
        *,
        max_interval: float | None = None,
        seed: int,
    ) -> None:
        self._limiter = limiter
        self._budget = limiter.budget
        self._lanes = lanes
        self._stats = stats
        self.condition = condition
        self._random = random.Random(seed)  # noqa: S311 (spreads retries, hides nothing)
        self._aside = Backoff(min(max_interval or FIRST_ASIDE, FIRST_ASIDE), LONGEST_ASIDE)
        self._renewed_at = -inf
        self._throttled_in_a_row = 0
        self._escalates_at = -inf
        self._paused: dict[str | None, float] = {}
        """Scope → until when, as it was logged last."""
        self._key_known_good = False
        self._key_accusation: _Accusation | None = None
        self._refused_at = -inf
        """When the key was last refused: an answer to a request that left before then says nothing new."""
        self._refused_for_key: set[Target] = set()
        """Whose requests were refused for the key since it was last good."""
        self._not_the_key: set[Target] = set()
        """Refused for the key while it was good for others, so the key is not to blame."""
        self._known_good: set[Target] = set()
        self._accusations: dict[Target, _Accusation] = {}

    def credentials_renewed(self, now: float) -> None:
        """There is a new credential: what only the old one deserved is over."""
        self._renewed_at = now
        self._key_known_good, self._key_accusation, self._refused_at = False, None, -inf
        self._refused_for_key.clear()
        self._not_the_key.clear()
        self._accusations.clear()
        self.condition.renewed()
        self._lanes.recall_all()
        self._limiter.resume()

    def go_on(self, new: "FailurePolicy") -> "FailurePolicy":
        """The config was changed: decide over the watches and limits of that one, with all that is known of key and watches. Those
        that were set aside are asked again: it was changed for them, perhaps."""
        self._limiter, self._budget, self._lanes, self._aside = new._limiter, new._budget, new._lanes, new._aside  # noqa: SLF001 (its own kind)
        self._stats.left_out.clear()  # of watches that may be gone
        self.condition.reconfigured()
        return self

    def pause_as_asked(self, job: PollJob, wait: float | None, now: float) -> None:
        """An answer of any kind came. `wait`: seconds for which its headers ask for no request; None: they do not."""
        if wait is not None:
            self._limiter.pause(now + wait, self._budget.refusal_scope(job.lane.endpoint))

    def answered(self, job: PollJob, granted: float, now: float, missing: Iterable[Target] = ()) -> None:
        """A good answer came, to a request that left at `granted`; it says nothing of the targets in `missing`."""
        self._throttled_in_a_row = 0
        self.condition.answered(job.targets, missing, self._budget.refusal_scope(job.lane.endpoint))
        for target in set(job.targets).difference(missing):
            self._known_good.add(target)
            self._not_the_key.discard(target)
            accusation = self._accusations.pop(target, None)
            if accusation is not None and accusation.alerted is not None:
                self._stats.cleared(str(target), accusation.alerted)
        if self._is_news(granted):
            self._key_known_good, self._key_accusation = True, None
            self.condition.key_accepted()
            self._not_the_key |= self._refused_for_key.difference(job.targets)
            self._refused_for_key.clear()
        elif granted >= self._renewed_at and not self._key_known_good:  # it worked, while it was refused beside that
            self._key_known_good = True
            self.condition.key_accepted()
            if self._key_accusation is not None:
                self._limiter.resume()
                self._limiter.pause(now + self._jittered(DOUBT_STEPS[0]), remember=False)

    def failed(self, job: PollJob, granted: float, failure: Failure, now: float) -> None:
        """A request that left at `granted` brought this."""
        if failure.retry_after is not None and not isinstance(failure, Throttled):
            self._pause(job, failure.retry_after, failure.reason, now)
        if granted < self._renewed_at and not isinstance(failure, Throttled):
            self._lanes.failed(job, granted, now)  # it concerns the key before this one
        elif isinstance(failure, Misconfigured) or (
            isinstance(failure, RefusedCredential) and self._not_the_key.issuperset(job.targets)
        ):
            self._set_target_aside(job, failure, now)
        elif isinstance(failure, Exhausted | RefusedCredential) and self._is_news(granted):
            self._doubt_credential(job, granted, failure, now)
        else:
            self._lanes.failed(job, granted, now)
            if isinstance(failure, Throttled):
                self._throttle(job, failure, now)
            elif not isinstance(failure, Exhausted | RefusedCredential):  # those say nothing new of the key
                self.condition.failed(job.targets, failure)

    def _is_news(self, granted: float) -> bool:
        """Whether the answer to that request says anything new of this key."""
        return granted >= self._renewed_at and granted > self._refused_at

    def _set_target_aside(self, job: PollJob, failure: Failure, now: float) -> None:
        if len(job.targets) > 1:
            self._lanes.split(job)
            return
        (target,) = job.targets
        accusation = self._accusations[target] = _accused_again(self._accusations.get(target), failure)
        doubts = DOUBT_STEPS if target in self._known_good else ()
        if accusation.times <= len(doubts):
            self._lanes.set_aside(job, now + self._jittered(doubts[accusation.times - 1]))
            return
        self.condition.watch_refused(target, failure)
        seconds = self._aside.pause(accusation.times - len(doubts))
        self._lanes.set_aside(job, now + self._jittered(seconds))
        if accusation.alerted != failure.reason or now - accusation.alerted_at >= REMIND_AFTER:
            self._stats.alert("watch.misconfigured", seconds, failure.reason, watch=str(target))
            accusation.alerted, accusation.alerted_at = failure.reason, now

    def _throttle(self, job: PollJob, failure: Throttled, now: float) -> None:
        wait = failure.retry_after
        if wait is None:
            shortest = self._budget.shortest_window(job.lane.endpoint)
            wait = Backoff(shortest, max(shortest, LONGEST_BACKOFF)).pause(self._throttled_in_a_row + 1)
            if now >= self._escalates_at:  # several in flight at once are refused for the same reason
                self._throttled_in_a_row = min(10, self._throttled_in_a_row + 1)
                self._escalates_at = now + wait
        self._pause(job, wait, failure.reason, now)
        self.condition.throttled(self._budget.refusal_scope(job.lane.endpoint))

    def _pause(self, job: PollJob, wait: float, reason: str, now: float) -> None:
        scope = self._budget.refusal_scope(job.lane.endpoint)
        wait = self._jittered(min(max(0.0, wait), LONGEST_PAUSE))
        self._limiter.pause(now + wait, scope)
        if now + wait > self._paused.get(scope, -inf) + MOST_JITTER:  # several in flight at once get the same answer
            self._stats.paused(wait, scope, reason)
            self._paused[scope] = now + wait

    def _doubt_credential(
        self, job: PollJob, granted: float, failure: Exhausted | RefusedCredential, now: float
    ) -> None:
        """The provider refuses our key or plan: ask again, about another watch first where there is one, or give up."""
        self._refused_at = now
        self._refused_for_key.update(job.targets)
        accusation = self._key_accusation = _accused_again(self._key_accusation, failure)
        doubted = self._key_known_good and accusation.times <= len(DOUBT_STEPS)
        self.condition.key_refused(failure, doubted=doubted)
        if doubted:
            seconds = self._jittered(DOUBT_STEPS[accusation.times - 1])
            self._stats.paused(seconds, None, failure.reason)
            if len(job.targets) == 1 < len(job.schedule):
                self._lanes.set_aside(job, now + seconds + self._budget.interval(job.lane.endpoint))
            else:
                self._lanes.failed(job, granted, now)
        else:
            used_up = isinstance(failure, Exhausted)
            event, seconds = ("provider.exhausted", EXHAUSTED_PAUSE) if used_up else ("provider.refused", REFUSED_PAUSE)
            self._stats.alert(event, seconds, failure.reason)
            seconds = self._jittered(seconds)
            self._lanes.failed(job, granted, now)
        # Not remembered: a restart is what the operator does once the cause is gone.
        self._limiter.pause(now + seconds, remember=False)

    def _jittered(self, seconds: float) -> float:
        return seconds + self._random.uniform(0, min(JITTER * seconds, MOST_JITTER))


def _accused_again(accusation: _Accusation | None, failure: Failure) -> _Accusation:
    """The same failure once more, or another one for the first time."""
    kind = type(failure)
    again = accusation if accusation is not None and accusation.kind is kind else _Accusation(kind)
    again.times += 1
    return again
