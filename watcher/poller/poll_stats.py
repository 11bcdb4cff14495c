"""What a provider's polls came to: plain figures for metrics and heartbeats, and the one place that logs polling."""

import math
from itertools import islice

import msgspec
import structlog

from watcher.ledger import Verdict
from watcher.poller.transport_errors import Unreachable
from watcher.providers.failures import Failure, Throttled

REPEAT = 60.0
"""Seconds after which a failure that goes on is told again."""
TOLD = 10
"""Balances, of those of which one and the same is to be told, that are named."""
BEHIND = 10
"""Good answers in a row in which everything is older than what is known: then the provider is in trouble."""

log = structlog.get_logger()


class PollStats(msgspec.Struct):
    """Counters since the start. Durations in seconds."""

    provider: str
    polls: int = 0
    """Requests sent."""
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
    trouble: str | None = None
    """Why the last poll gave no reading, in one line; None: it gave one."""
    request_seconds: float = 0.0
    """From sending to the end of the answer, summed over all polls."""
    slowest: float = 0.0
    told: dict[str, float] = {}
    """When each sort of failure was told last; empty after a good answer."""
    remarked_at: float = -math.inf
    untold: int = 0
    behind: int = 0
    """Answers in a row that brought nothing but what is older than what is known."""
    went_back: int = 0
    """Times that an order was given up because everything was older for long."""
    refused: dict[str, int] = {}
    """What was asked → how many balances in the last answer to it were not taken in, where it was any."""
    most: int = 0
    """Balances that may be known, as it was told last."""

    @property
    def word(self) -> str | None:
        """What is not as it should be, in one line; None: nothing."""
        if self.trouble is None and self.refused:
            return f"{sum(self.refused.values())} balances are not taken in: {self.most} may be known (max_balances)"
        return self.trouble

    def sent(self) -> None:
        self.polls += 1

    def ended(self, seconds: float) -> None:
        self.request_seconds += seconds
        self.slowest = max(self.slowest, seconds)

    def answered(self, verdict: Verdict) -> None:
        """A good answer, whatever it is worth."""
        self.answers += 1
        self.changes += len(verdict.changed)
        self.candidates += len(verdict.candidates)
        self.stale += len(verdict.stale)
        self.accepted += verdict.accepted
        self.went_back += len(verdict.went_back)
        for key in islice(verdict.went_back, TOLD):
            reason = "for long every answer was older than the greatest order seen: it begins anew with this one"
            more = max(0, len(verdict.went_back) - TOLD)
            log.error("order.went_back", provider=self.provider, key=str(key), others_untold=more, reason=reason)

    def succeeded(self, observed_at: int) -> None:
        """Something of the answer was news, or still is as it was. `observed_at`: wall-clock microseconds."""
        self.last_success = max(observed_at, self.last_success or 0)
        if self.trouble is not None:
            log.info("provider.recovered", provider=self.provider, after=self.trouble)
        self.trouble = None
        self.told.clear()
        self.behind = 0

    def outdated(self, asked: str, now: float) -> None:
        """All that the answer says is older than what is known. Now and then a replica lags; not time after time."""
        self.behind += 1
        if self.behind < BEHIND:
            return
        self.trouble = f"{self.behind} answers in a row were older than what is known"
        if now - self.told.get("behind", -math.inf) >= REPEAT:
            log.warning("provider.behind", provider=self.provider, reason=self.trouble, asked=asked)
            self.told["behind"] = now

    def failed(self, failure: Failure, asked: str, now: float) -> None:
        """Count it, and tell it unless the same was told a moment ago."""
        kind = type(failure).__name__.lower()
        self.failures[kind] = self.failures.get(kind, 0) + 1
        self.refusals += isinstance(failure, Throttled)
        self.trouble = failure.reason
        phase = failure.phase if isinstance(failure, Unreachable) else None
        sort = f"{kind} {phase}"
        if now - self.told.get(sort, -math.inf) < REPEAT:
            self.untold += 1
            return
        log.warning(
            "poll.failed",
            provider=self.provider,
            kind=kind,
            phase=phase,
            reason=failure.reason,
            asked=asked,
            untold=self.untold,
        )
        self.told[sort], self.untold = now, 0

    def paused(self, seconds: float, endpoint: str | None, reason: str) -> None:
        log.warning(
            "provider.paused",
            provider=self.provider,
            endpoint=endpoint or "all",
            seconds=round(seconds, 1),
            reason=reason,
        )

    def alert(self, event: str, seconds: float, reason: str, **of: str) -> None:
        """Something that no waiting cures: the operator must act. `of`: what it is about, beside the provider."""
        log.error(event, provider=self.provider, **of, retry_in_seconds=round(seconds), reason=reason)

    def cleared(self, watch: str, reason: str) -> None:
        """A watch of which an alert was told is read again."""
        log.info("watch.recovered", provider=self.provider, watch=watch, after=reason)

    def remarked(self, remark: str, asked: str, now: float) -> None:
        """A good answer that lacks something."""
        if now - self.remarked_at >= REPEAT:
            log.info("poll.incomplete", provider=self.provider, remark=remark, asked=asked)
            self.remarked_at = now

    def full(self, asked: str, refused: int, most: int) -> None:
        """A good answer named so many balances for which there was no room."""
        before, self.most = bool(self.refused), most
        if refused:
            self.refused[asked] = refused
        else:
            self.refused.pop(asked, None)
        if self.refused and not before:
            log.error("provider.full", provider=self.provider, asked=asked, reason=self.word)
        elif before and not self.refused:
            log.info("provider.has_room", provider=self.provider)

    def forgot(self, what: str) -> None:
        log.warning("provider.memory_unreadable", provider=self.provider, what=what)
