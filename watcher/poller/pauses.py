"""What follows for a provider, or for one watch, when a poll failed: see the tree in providers/failures.py."""

import random
from math import inf

from watcher.limiter import Limiter
from watcher.poller.stats import Stats
from watcher.poller.turns import Errand, Turns
from watcher.providers.failures import Exhausted, Failure, Misconfigured, RefusedCredential, Throttled

EXHAUSTED = 3 * 3600.0
"""Seconds that a provider is left alone once its credits are used up."""
REFUSED = 900.0
"""Seconds that a provider is left alone once it refused our credential: some block an address that insists."""
MISCONFIGURED = 1800.0
"""Seconds that a watch is left alone which the provider says cannot be."""
LONGEST_PAUSE = 3600.0
"""Seconds; of a pause after 429."""
DOUBLED = 60.0
"""Seconds up to which pauses double while a provider goes on refusing without saying until when."""
JITTER = 0.25
"""Of a pause, added; at most MOST_JITTER seconds."""
MOST_JITTER = 5.0


class Pauses:
    """Of one provider. `seed` makes them replayable."""

    def __init__(self, limiter: Limiter, turns: Turns, stats: Stats, *, seed: int) -> None:
        self._limiter = limiter
        self._budget = limiter.budget
        self._turns = turns
        self._stats = stats
        self._random = random.Random(seed)  # noqa: S311 (spreads retries, hides nothing)
        self._renewed_at = -inf
        self._refused_in_a_row = 0
        self._escalates_at = -inf

    def renewed(self, now: float) -> None:
        """There is a new credential: what only the old one deserved is over."""
        self._renewed_at = now
        self._limiter.resume()

    def answered(self) -> None:
        """A good answer came: the next refusal is a first one."""
        self._refused_in_a_row = 0

    def failed(self, errand: Errand, granted: float, failure: Failure, now: float) -> None:
        """A request that left at `granted` brought this."""
        if isinstance(failure, Misconfigured):
            self._put_off(errand, failure, now)
            return
        self._turns.failed(errand, granted, now)
        if isinstance(failure, Throttled):
            self._throttle(errand, failure, now)
        elif granted < self._renewed_at:
            return
        elif isinstance(failure, Exhausted):
            self._leave_alone("provider.exhausted", EXHAUSTED, failure, now)
        elif isinstance(failure, RefusedCredential):
            self._leave_alone("provider.refused", REFUSED, failure, now)

    def _put_off(self, errand: Errand, failure: Failure, now: float) -> None:
        if len(errand.targets) > 1:
            self._turns.apart(errand)
        else:
            self._turns.set_aside(errand, now + self._jittered(MISCONFIGURED))
            self._stats.alert("watch.misconfigured", MISCONFIGURED, failure.reason)

    def _throttle(self, errand: Errand, failure: Throttled, now: float) -> None:
        wait = failure.retry_after
        if wait is None:
            period = self._budget.period(errand.lane.endpoint)
            wait = min(period * 2**self._refused_in_a_row, max(period, DOUBLED))
            if now >= self._escalates_at:  # several in flight at once are refused for one and the same reason
                self._refused_in_a_row = min(10, self._refused_in_a_row + 1)
                self._escalates_at = now + wait
        scope = self._budget.scope(errand.lane.endpoint)
        wait = self._jittered(min(max(0.0, wait), LONGEST_PAUSE))
        self._limiter.pause(now + wait, scope)
        self._stats.paused(wait, scope, failure.reason)

    def _leave_alone(self, event: str, seconds: float, failure: Failure, now: float) -> None:
        # Not remembered: a restart is what the operator does once the cause is gone.
        if (self._budget.paused_until(now) or -inf) < now + seconds / 2:
            self._stats.alert(event, seconds, failure.reason)
        self._limiter.pause(now + self._jittered(seconds), remember=False)

    def _jittered(self, seconds: float) -> float:
        return seconds + self._random.uniform(0, min(JITTER * seconds, MOST_JITTER))
