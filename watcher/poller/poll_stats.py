"""What came of a provider's polls: plain figures for metrics and heartbeats, and the one place that logs polling."""

import math
from itertools import islice

import msgspec
import structlog

from watcher.ledger import Verdict
from watcher.poller.transport_errors import Unreachable
from watcher.providers.failures import Failure, Throttled
from watcher.runtime.histogram import Histogram

REPEAT = 60.0
"""Seconds after which a failure that goes on is logged again."""
NAMED = 10
"""Balances named in the log, where the same is to be said of many."""
DURATIONS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Bounds of the histogram of requests, in seconds."""
BEHIND = 10
"""Good answers in a row in which everything is older than what is known: from then on it counts as a problem."""

log = structlog.get_logger()


class PollStats(msgspec.Struct):
    """Counters since the start. Durations in seconds."""

    provider: str
    polls: int = 0
    """Requests begun."""
    unsent_requests: int = 0
    """Those of them that never left: the lease was over."""
    answers: int = 0
    """Good ones."""
    failures: dict[str, int] = {}
    """By kind, in lower case: `throttled`, `temporary`, `unreachable`, …"""
    refusals: int = 0
    """Requests the provider refused because they came too fast (429)."""
    changes: int = 0
    candidates: int = 0
    stale: int = 0
    """Readings dropped as older than what was known."""
    accepted: int = 0
    last_success: int | None = None
    """Wall-clock microseconds."""
    refused_at_first: bool | None = None
    """Whether the very first answer refused our credential; None: no answer yet."""
    no_reading_reason: str | None = None
    """Why the last poll gave no reading, in one line; None: it gave one."""
    request_durations: Histogram = msgspec.field(default_factory=lambda: Histogram(DURATIONS))
    """Seconds from sending to the end of the answer, or of the attempt."""
    last_logged: dict[str, float] = {}
    """Sort of failure → when it was logged last; empty after a good answer."""
    remarked_at: float = -math.inf
    unsent_at: float = -math.inf
    unlogged: int = 0
    """Failures since the last one that was logged."""
    behind: int = 0
    """Answers in a row that brought nothing but what is older than what is known."""
    went_back: int = 0
    """Times that an order was given up because everything was older for long."""
    clock_mismatches: int = 0
    left_out: dict[str, int] = {}
    """What was asked → how many balances in the last answer to it were not taken in, where there were any."""
    max_balances: int = 0
    """That may be known, as of the last answer."""

    @property
    def problem(self) -> str | None:
        """What is not as it should be, in one line; None: nothing."""
        return self.no_reading_reason or self.left_out_words

    @property
    def is_behind(self) -> bool:
        """All that came for long was older than what is known."""
        return self.behind >= BEHIND

    @property
    def left_out_words(self) -> str | None:
        """That there was no room for balances, in our words; None: there was."""
        if not self.left_out:
            return None
        count = sum(self.left_out.values())
        return f"{count} balances are not taken in: {self.max_balances} may be known (max_balances)"

    def sent(self) -> None:
        self.polls += 1

    def ended(self, seconds: float) -> None:
        self.request_durations.count(seconds)

    def answered(self, verdict: Verdict) -> None:
        """A good answer, whatever it is worth."""
        self.answers += 1
        self.changes += len(verdict.changed)
        self.candidates += len(verdict.candidates)
        self.stale += len(verdict.stale)
        self.accepted += verdict.accepted
        self.went_back += len(verdict.went_back)
        for key in islice(verdict.went_back, NAMED):
            reason = "for long every answer was older than the greatest order seen: it begins anew with this one"
            more = max(0, len(verdict.went_back) - NAMED)
            log.error("order.went_back", provider=self.provider, key=str(key), others_untold=more, reason=reason)

    def succeeded(self, observed_at: int) -> None:
        """The answer says something that is not older than what is known. `observed_at`: wall-clock microseconds."""
        self.last_success = max(observed_at, self.last_success or 0)
        if self.no_reading_reason is not None:
            log.info("provider.recovered", provider=self.provider, after=self.no_reading_reason)
        self.no_reading_reason = None
        self.last_logged.clear()
        self.behind = 0

    def outdated(self, asked: str, now: float) -> None:
        """All that the answer says is older than what is known. A replica may lag now and then, but not each time."""
        self.behind += 1
        if not self.is_behind:
            return
        self.no_reading_reason = f"{self.behind} answers in a row were older than what is known"
        if now - self.last_logged.get("behind", -math.inf) >= REPEAT:
            log.warning("provider.behind", provider=self.provider, reason=self.no_reading_reason, asked=asked)
            self.last_logged["behind"] = now

    def failed(self, failure: Failure, asked: str, now: float) -> None:
        """Count it, and log it unless the same sort was logged a moment ago."""
        kind = type(failure).__name__.lower()
        self.failures[kind] = self.failures.get(kind, 0) + 1
        self.refusals += isinstance(failure, Throttled)
        self.no_reading_reason = failure.reason
        phase = failure.phase if isinstance(failure, Unreachable) else None
        sort = f"{kind} {phase}"
        if now - self.last_logged.get(sort, -math.inf) < REPEAT:
            self.unlogged += 1
            return
        log.warning(
            "poll.failed",
            provider=self.provider,
            kind=kind,
            phase=phase,
            reason=failure.reason,
            asked=asked,
            untold=self.unlogged,
        )
        self.last_logged[sort], self.unlogged = now, 0

    def unsent(self, asked: str, now: float) -> None:
        """The lease was over when a request would have left. Nobody failed, and it is asked again."""
        self.unsent_requests += 1
        if now - self.unsent_at >= REPEAT:
            log.info(
                "poll.unsent", provider=self.provider, asked=asked, reason="the lease was over: stamps are saved first"
            )
            self.unsent_at = now

    def paused(self, seconds: float, endpoint: str | None, reason: str) -> None:
        log.warning(
            "provider.paused",
            provider=self.provider,
            endpoint=endpoint or "all",
            seconds=round(seconds, 1),
            reason=reason,
        )

    def alert(self, event: str, seconds: float, reason: str, **of: str) -> None:
        """Log something that no waiting cures: the operator must act. `of`: what it is about, beside the provider."""
        log.error(event, provider=self.provider, **of, retry_in_seconds=round(seconds), reason=reason)

    def cleared(self, watch: str, reason: str) -> None:
        """A watch for which there was an alert is read again."""
        log.info("watch.recovered", provider=self.provider, watch=watch, after=reason)

    def remarked(self, remark: str, asked: str, now: float) -> None:
        """A good answer that lacks something."""
        if now - self.remarked_at >= REPEAT:
            log.info("poll.incomplete", provider=self.provider, remark=remark, asked=asked)
            self.remarked_at = now

    def over_capacity(self, asked: str, left_out: int, max_balances: int) -> None:
        """A good answer named `left_out` balances for which there was no room."""
        before, self.max_balances = bool(self.left_out), max_balances
        if left_out:
            self.left_out[asked] = left_out
        else:
            self.left_out.pop(asked, None)
        if self.left_out and not before:
            log.error("provider.full", provider=self.provider, asked=asked, reason=self.problem)
        elif before and not self.left_out:
            log.info("provider.has_room", provider=self.provider)

    def memory_unreadable(self, what: str) -> None:
        """The note of the last process cannot be read. `what`: which one."""
        log.warning("provider.memory_unreadable", provider=self.provider, what=what)

    def clock_mismatch(self) -> None:
        """The limiter's stamps are dated later than now, or before clocks were set: the provider may stand still for an hour."""
        self.clock_mismatches += 1
        text = "what the limits have counted is not dated in the past, so they count as full: are the machines' clocks right?"
        log.warning("provider.clock_mismatch", provider=self.provider, text=text)
