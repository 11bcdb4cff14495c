"""One provider in virtual time: its own schedule, limiter and ledger rules, and instead of the network what would be answered.

It asks as the poller does: a request leaves when the limits allow one and something is due, it is answered `latency` later, and
what differs from what is known is judged by the ledger. Time jumps to whatever happens next. What repeats what is known is
reported to the schedule and not shown to the ledger, which would say so; nearly all answers do.
"""

from collections import deque
from collections.abc import Mapping
from math import floor, inf, nextafter

from watcher.ledger import Ledger, Verdict
from watcher.limits.budget import Budget, Slot
from watcher.limits.forecast import DAY
from watcher.limits.windows import Limit
from watcher.model.readings import Answer, Reading, Times
from watcher.model.targets import LISTING, Target
from watcher.poller.assembly import budget_of, schedules_of
from watcher.poller.connections import MAX_CONNECTIONS
from watcher.providers.protocol import Provider
from watcher.rehearsal.feeds import RehearsedBalance, RehearsedTarget
from watcher.rehearsal.outcome import DelayTally
from watcher.scheduling.lane_scheduler import LaneScheduler, PollJob

BEGAN = 1_600_000_000_000_000
"""Wall-clock microseconds at the begin, for the rules: any time will do."""
SLOT = 0.4
"""Seconds of a slot, where an answer names its place in the chain."""
ABSENT = "0"
BASELINE_ANSWERS = 2
"""Listings after which a baseline is complete."""

Flight = tuple[float, float, PollJob, Slot]
"""A request under way: (answered at, asked at, what, its place in the limits)."""


class Rehearsal:
    """`run` it once, then ask for its figures. Times are seconds since the begin.

    bucket: seconds by which requests are counted. since: changes before it count for nothing. stamps: what was spent of the limits before, as a journal has it. Raises ValueError
    for foreign ones.
    """

    _look = 0.0
    """When a request may leave, at the earliest."""
    _idle = True
    """Nothing was due, or no place was free: any answer may change that."""
    _days = 0
    """Begun, as far as the long limits were looked at."""

    def __init__(
        self,
        provider: Provider,
        feeds: Mapping[Target, RehearsedTarget],
        *,
        seed: int,
        latency: float,
        bucket: float,
        since: float = 0.0,
        stamps: bytes | None = None,
    ) -> None:
        self.feeds = feeds
        self.tally = DelayTally()
        self.confirming = 0
        self.requests: list[dict[str | None, int]] = []
        """Of each bucket, by endpoint."""
        self.spent: dict[Limit, int] = {}
        """Limits of a day and longer of which nothing was left, and the day, counted from 1, on which that was so first."""
        self.budget = budget_of(provider)
        if stamps is not None:
            self.budget.restore(stamps, 0.0, Budget.saved_at(stamps), released=True, begin=0.0)
        self._provider = provider
        self._endpoints = self.budget.endpoints
        self._lanes = LaneScheduler(provider.groups, schedules_of(provider, seed=seed, now=0.0), self.budget)
        self._ledger = Ledger()
        self._flying: deque[Flight] = deque()
        self._latency = latency
        self._bucket = bucket
        self._since = since
        self._cache = provider.cache
        # TokenKit is asked for answers of a certain age; other providers know no such keys.
        self._max_age: float | None = getattr(provider.settings, "max_age", None)
        self._by_age = hasattr(provider.settings, "max_age") and not getattr(provider.settings, "force_refresh", False)

    def run(self, until: float) -> None:
        """Go on up to a time."""
        flying, lanes, budget = self._flying, self._lanes, self.budget
        look, idle = self._look, self._idle
        while True:
            while flying and flying[0][0] <= look and flying[0][0] < until:
                now = flying[0][0]
                self._answered(flying.popleft())
                if idle:
                    look = now
            if look >= until:
                self._look, self._idle = look, idle
                return
            now = look
            job, look = lanes.next_job(now) if len(flying) < MAX_CONNECTIONS else (None, inf)
            idle = job is None
            if job is not None:
                self._ask(job, now)
                look = min([budget.ready_at(now, endpoint) for endpoint in self._endpoints])
                idle = look == inf

    def _ask(self, job: PollJob, now: float) -> None:
        endpoint = job.lane.endpoint
        slot = self.budget.grant(now, endpoint)
        self._flying.append((now + self._latency, now, job, slot))
        bucket = int(now / self._bucket)
        while len(self.requests) <= bucket:
            self.requests.append(dict.fromkeys(self._endpoints, 0))
        self.requests[bucket][endpoint] += 1
        if now >= self._days * DAY:
            self._look_at_long_limits(now)

    def _look_at_long_limits(self, now: float) -> None:
        """At the begin of each day: whether nothing will be left of one in its course."""
        self._days = floor(now / DAY) + 1
        for one in self.budget.forecasts(now):
            if one.ends_in is not None and one.ends_in < DAY:
                self.spent.setdefault(one.limit, self._days)

    def _answered(self, flight: Flight) -> None:
        received, asked, job, slot = flight
        self.budget.settle(slot, received)
        schedule, feeds = job.schedule, self.feeds
        shows, doubted = (asked + received) / 2, False
        oldest = self._oldest(job, asked, shows)
        for target in job.targets:
            feed = feeds[target]
            gap = received - feed.last
            feed.longest = max(feed.longest, gap)
            feed.last = received
            doubted |= feed.doubted and feed.reads >= BASELINE_ANSWERS
            feed.reads += 1
            if feed.refreshed < oldest:
                feed.refreshed = shows
            shown = feed.refreshed
            if feed.next_change > shown and not feed.doubted:
                schedule.report(target, received, False)
                continue
            verdict = self._judge(target, feed, shown, asked, received)
            schedule.report(target, received, bool(verdict.changed))
            if verdict.candidates:
                schedule.confirm(target)
        self.confirming += doubted
        self._lanes.answered(job, received)

    def _oldest(self, job: PollJob, asked: float, shows: float) -> float:
        """What the provider keeps and made before this is too old for an answer that is made at `shows`: it is made anew."""
        if self._by_age:
            most = job.schedule.cycle(asked) if self._max_age is None else self._max_age
            return shows - floor(min(max(most, 0.0), DAY))
        return nextafter(shows - self._cache, inf)

    def _judge(self, target: Target, feed: RehearsedTarget, shown: float, asked: float, received: float) -> Verdict:
        provider, ledger = self._provider, self._ledger
        listing = target.scope if target.family == LISTING else None
        leaves_out = listing is not None and provider.ordering != "weak"
        order, readings = self._order(shown), []
        for one in feed.balances:
            amount = one.amounts[one.at(shown)]
            if amount != ABSENT or not leaves_out:
                readings.append(Reading(one.key, amount, "base", order=order))
        times = Times(asked, received, BEGAN + int(received * 1e6))
        verdict = ledger.evaluate(
            Answer(provider.name, readings, provider.ordering, provider.settle, times, listing=listing)
        )
        while ledger.pending:
            ledger.take()
            ledger.committed()
        for one in feed.balances:
            self._count(one, one.at(shown), verdict, received)
        feed.show(shown)
        feed.doubted = bool(verdict.candidates) or (listing is not None and feed.reads < BASELINE_ANSWERS)
        return verdict

    def _count(self, one: RehearsedBalance, there: int, verdict: Verdict, received: float) -> None:
        """`there`: how many changes there were up to what the answer shows."""
        if not one.known:
            one.known, one.seen = True, max(there, one.at(self._since))
        elif one.key in verdict.changed and there > one.seen:
            back = one.last_return(there)
            self.tally.unseen(one.label, back - one.seen)
            self.tally.seen(one.label, [received - at for at in one.times[back:there]])
            one.seen = there
        elif there > one.seen and one.key not in verdict.candidates and one.key not in verdict.stale:
            self.tally.unseen(one.label, there - one.seen)  # what is there now is what was there before
            one.seen = there

    def _order(self, shown: float) -> int | None:
        """What the answer would have as its ordering field."""
        ordering = self._provider.ordering
        if ordering == "none":
            return None
        return floor((BEGAN / 1e6 + shown) / SLOT) if ordering == "strict" else floor(BEGAN / 1e6 + shown) * 1_000_000
