"""What follows for a provider, or for one watch, when a poll failed: see the tree in providers/failures.py.

A key or a watch that has worked in this process is doubted before it is condemned, since gateways and databases forget
for a minute what they know: it is asked again after DOUBT seconds, and when the provider says the same each time, it means
it. What others say in between, or no answer, neither confirms nor refutes; a good answer does.
"""

import random
from collections.abc import Iterable
from math import inf

import msgspec

from watcher.limits.limiter import Limiter
from watcher.model.targets import Target
from watcher.poller.poll_stats import PollStats
from watcher.providers.failures import Exhausted, Failure, Misconfigured, RefusedCredential, Throttled
from watcher.providers.protocol import Response
from watcher.providers.waits import retry_after, spent
from watcher.scheduling.lane_scheduler import LaneScheduler, PollJob

DOUBT = (5.0, 15.0, 60.0)
"""Seconds after which what has worked is asked again, one after another, before a refusal of it is believed."""
EXHAUSTED = 3 * 3600.0
"""Seconds that a provider is left alone once its credits are used up."""
REFUSED = 900.0
"""Seconds that a provider is left alone once it refused our credential: some block an address that insists."""
ASIDE = 60.0
"""Seconds, at most, that a watch is left alone at first which the provider says cannot be; doubled with each refusal."""
MISCONFIGURED = 1800.0
"""Seconds up to which that doubles."""
REMIND = 6 * 3600.0
"""Seconds after which a watch that goes on being refused for the same reason is told again."""
LONGEST_PAUSE = 3600.0
"""Seconds; of a pause after 429, or of any other that an answer asks for."""
DOUBLED = 60.0
"""Seconds up to which pauses double while a provider goes on refusing without saying until when."""
JITTER = 0.25
"""Of a pause, added; at most MOST_JITTER seconds."""
MOST_JITTER = 5.0


class _Charge(msgspec.Struct):
    """What the provider says against its key, or against one watch."""

    sort: type[Failure]
    said: int = 0
    """Times, one after another: each was asked for after the one before was heard."""
    told: str | None = None
    """The reason, once it was told as an alert."""
    told_at: float = -inf


class FailurePolicy:
    """Of one provider. max_interval: its setting. seed: makes them replayable."""

    def __init__(
        self, limiter: Limiter, lanes: LaneScheduler, stats: PollStats, *, max_interval: float | None = None, seed: int
    ) -> None:
        self._limiter = limiter
        self._budget = limiter.budget
        self._lanes = lanes
        self._stats = stats
        self._random = random.Random(seed)  # noqa: S311 (spreads retries, hides nothing)
        self._aside = min(max_interval or ASIDE, ASIDE)
        self._renewed_at = -inf
        self._refused_in_a_row = 0
        self._escalates_at = -inf
        self._paused: dict[str | None, float] = {}
        """Until when, as it was told last."""
        self._key_worked = False
        self._key: _Charge | None = None
        self._heard_at = -inf
        """When the key was last refused: what left before was asked before, and says it no second time."""
        self._refused: set[Target] = set()
        """Whose requests were refused for the key since it was last good."""
        self._theirs: set[Target] = set()
        """Refused for the key, while it was good for others: it is not the key."""
        self._worked: set[Target] = set()
        self._charges: dict[Target, _Charge] = {}

    def renewed(self, now: float) -> None:
        """There is a new credential: what only the old one deserved is over."""
        self._renewed_at = now
        self._key_worked, self._key, self._heard_at = False, None, -inf
        self._refused.clear()
        self._theirs.clear()
        self._charges.clear()
        self._lanes.recall_all()
        self._limiter.resume()

    def heard(self, job: PollJob, response: Response, now: float) -> None:
        """An answer of any kind: one that says that a quota is used up keeps its scope waiting until it is not."""
        waits = [wait for wait in (spent(response), retry_after(response)) if wait is not None]
        if waits:
            self._limiter.pause(now + max(waits), self._budget.refusal_scope(job.lane.endpoint))

    def answered(self, job: PollJob, granted: float, now: float, missing: Iterable[Target] = ()) -> None:
        """A good answer came, to a request that left at `granted`; of what is missing in it, it says nothing."""
        self._refused_in_a_row = 0
        for target in set(job.targets).difference(missing):
            self._worked.add(target)
            self._theirs.discard(target)
            charge = self._charges.pop(target, None)
            if charge is not None and charge.told is not None:
                self._stats.cleared(str(target), charge.told)
        if self._is_news(granted):
            self._key_worked, self._key = True, None
            self._theirs |= self._refused.difference(job.targets)
            self._refused.clear()
        elif granted >= self._renewed_at and not self._key_worked:  # it worked, while it was refused beside that
            self._key_worked = True
            if self._key is not None:
                self._limiter.resume()
                self._limiter.pause(now + self._jittered(DOUBT[0]), remember=False)

    def failed(self, job: PollJob, granted: float, failure: Failure, now: float) -> None:
        """A request that left at `granted` brought this."""
        if failure.retry_after is not None and not isinstance(failure, Throttled):
            self._pause(job, failure.retry_after, failure.reason, now)
        if granted < self._renewed_at and not isinstance(failure, Throttled):
            self._lanes.failed(job, granted, now)  # it was said to another key
        elif isinstance(failure, Misconfigured) or (
            isinstance(failure, RefusedCredential) and self._theirs.issuperset(job.targets)
        ):
            self._put_off(job, failure, now)
        elif isinstance(failure, Exhausted | RefusedCredential) and self._is_news(granted):
            self._doubt(job, granted, failure, now)
        else:
            self._lanes.failed(job, granted, now)
            if isinstance(failure, Throttled):
                self._throttle(job, failure, now)

    def _is_news(self, granted: float) -> bool:
        """Whether what came to that request says anything of this key beyond what is known."""
        return granted >= self._renewed_at and granted > self._heard_at

    def _put_off(self, job: PollJob, failure: Failure, now: float) -> None:
        if len(job.targets) > 1:
            self._lanes.split(job)
            return
        (target,) = job.targets
        charge = self._charges[target] = _said_again(self._charges.get(target), failure)
        doubts = DOUBT if target in self._worked else ()
        if charge.said <= len(doubts):
            self._lanes.set_aside(job, now + self._jittered(doubts[charge.said - 1]))
            return
        seconds = min(self._aside * 2.0 ** min(20, charge.said - len(doubts) - 1), MISCONFIGURED)
        self._lanes.set_aside(job, now + self._jittered(seconds))
        if charge.told != failure.reason or now - charge.told_at >= REMIND:
            self._stats.alert("watch.misconfigured", seconds, failure.reason, watch=str(target))
            charge.told, charge.told_at = failure.reason, now

    def _throttle(self, job: PollJob, failure: Throttled, now: float) -> None:
        wait = failure.retry_after
        if wait is None:
            period = self._budget.shortest_window(job.lane.endpoint)
            wait = min(period * 2**self._refused_in_a_row, max(period, DOUBLED))
            if now >= self._escalates_at:  # several in flight at once are refused for one and the same reason
                self._refused_in_a_row = min(10, self._refused_in_a_row + 1)
                self._escalates_at = now + wait
        self._pause(job, wait, failure.reason, now)

    def _pause(self, job: PollJob, wait: float, reason: str, now: float) -> None:
        scope = self._budget.refusal_scope(job.lane.endpoint)
        wait = self._jittered(min(max(0.0, wait), LONGEST_PAUSE))
        self._limiter.pause(now + wait, scope)
        if now + wait > self._paused.get(scope, -inf) + MOST_JITTER:  # several in flight at once are told the same
            self._stats.paused(wait, scope, reason)
            self._paused[scope] = now + wait

    def _doubt(self, job: PollJob, granted: float, failure: Exhausted | RefusedCredential, now: float) -> None:
        """The provider refuses our key or plan: ask again, about another watch first where there is one, or believe it."""
        self._heard_at = now
        self._refused.update(job.targets)
        charge = self._key = _said_again(self._key, failure)
        if self._key_worked and charge.said <= len(DOUBT):
            seconds = self._jittered(DOUBT[charge.said - 1])
            self._stats.paused(seconds, None, failure.reason)
            if len(job.targets) == 1 < len(job.schedule):
                self._lanes.set_aside(job, now + seconds + self._budget.interval(job.lane.endpoint))
            else:
                self._lanes.failed(job, granted, now)
        else:
            used_up = isinstance(failure, Exhausted)
            event, seconds = ("provider.exhausted", EXHAUSTED) if used_up else ("provider.refused", REFUSED)
            self._stats.alert(event, seconds, failure.reason)
            seconds = self._jittered(seconds)
            self._lanes.failed(job, granted, now)
        # Not remembered: a restart is what the operator does once the cause is gone.
        self._limiter.pause(now + seconds, remember=False)

    def _jittered(self, seconds: float) -> float:
        return seconds + self._random.uniform(0, min(JITTER * seconds, MOST_JITTER))


def _said_again(charge: _Charge | None, failure: Failure) -> _Charge:
    """The same word once more, or another one for the first time."""
    sort = type(failure)
    again = charge if charge is not None and charge.sort is sort else _Charge(sort)
    again.said += 1
    return again
