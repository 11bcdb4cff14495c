"""How a provider is, in a word, with the reason and since when: for the heartbeat, the page and `tail`.

Whoever may see one balance of a provider reads this. So a reason is made of our words and of numbers alone: what a
provider says may name accounts, hosts and keys, and stays in the log and behind the tokens of `/readyz`.

A provider whose answers fail is `failing` at the second failure in a row, or at the first one while it never answered:
one lost packet is no state. A watch that fails while others are read counts in the same way.
"""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from watcher.model.events import ProviderState
from watcher.model.targets import Target
from watcher.model.times import format_rfc3339
from watcher.poller.poll_stats import PollStats
from watcher.poller.transport_errors import Unreachable
from watcher.providers.failures import Exhausted, Failure, Malformed, Misconfigured, RefusedCredential, Throttled

IN_A_ROW = 2
"""Failures without a good answer between them that are a state."""
NOTICED = 5.0
"""Seconds; of a pause that a provider asks for with a good answer. A shorter one is its usual pace."""

NO_ANSWER_YET = "no answer yet since the start"
NO_ANSWER_TO_NEW_KEY = "no answer yet to the new key"
JOURNAL_AWAY = "held: the journal takes no changes at the moment"
LEASE_AHEAD = "held: another instance may still be asking, and its lease has to run out"
ASKED_TO_WAIT = "it asks us to wait"
TOO_FAST = "too many requests for its limit"
KEY_DOUBTED = "it refuses our key, which has worked before: it is asked again"
PLAN_DOUBTED = "it says that our credits are used up, and went on before: it is asked again"
LEFT_OUT = "its answers leave the watch out"
OUTDATED = "all that it answers is older than what is known"


class Condition(msgspec.Struct, frozen=True):
    """`reason`: None while all is well. `since`: RFC 3339."""

    state: ProviderState
    reason: str | None
    since: str


class Moment(NamedTuple):
    """What else stands at the moment of a look."""

    wall: int
    """Microseconds."""
    watches: int
    paused: float
    """Seconds left of a pause that lies on the whole provider; 0: none."""
    held: str | None
    """Why we do not ask, where the reason is ours; None: we do."""


class _WatchFailure(NamedTuple):
    words: str
    refused: bool
    times: int

    @property
    def counts(self) -> bool:
        return self.refused or self.times >= IN_A_ROW


class _FailingWatches:
    """Those whose last request brought nothing. The sums are kept: there may be a hundred thousand."""

    def __init__(self) -> None:
        self._failures: dict[Target, _WatchFailure] = {}
        self._sums: Counter[tuple[str, bool]] = Counter()
        """(words, refused) → how many that count."""

    def failed(self, target: Target, words: str, *, refused: bool) -> None:
        before = self._take(target)
        failure = _WatchFailure(words, refused, 1 if before is None else before.times + 1)
        self._failures[target] = failure
        if failure.counts:
            self._sums[words, refused] += 1

    def answered(self, targets: Iterable[Target]) -> None:
        if self._failures:
            for target in targets:
                self._take(target)

    def renewed(self) -> None:
        """There is a new key: what was refused may be for the old one."""
        self.answered([target for target, failure in self._failures.items() if failure.refused])

    def judged(self, watches: int) -> tuple[ProviderState, str] | None:
        """By the reason that most of them have, of so many watches in all; None: none fails that counts."""
        if not self._sums:
            return None
        ((words, refused), _), count = self._sums.most_common(1)[0], self._sums.total()
        verb = "fails" if count == 1 else "fail"
        return ("refused" if refused else "failing"), f"{count} of {watches} watches {verb}: {words}"

    def _take(self, target: Target) -> _WatchFailure | None:
        failure = self._failures.pop(target, None)
        if failure is not None and failure.counts:
            what = (failure.words, failure.refused)
            self._sums[what] -= 1
            if not self._sums[what]:
                del self._sums[what]
        return failure


class ProviderCondition:
    """Of one provider. Never awaits. What came back is reported to it; `look` makes the state of that."""

    def __init__(self, stats: PollStats) -> None:
        self._stats = stats
        self._unanswered = NO_ANSWER_YET
        """Why there is no good answer yet; empty once there is one."""
        self._failure: Failure | None = None
        """The last one since the last good answer."""
        self._in_a_row = 0
        self._refusal: tuple[ProviderState, str] | None = None
        """What follows from a refused key."""
        self._throttled: set[str | None] = set()
        """Scopes with too many requests, since the last good answer there."""
        self._watches = _FailingWatches()
        self._last: Condition | None = None

    @property
    def state(self) -> ProviderState:
        """As of the last look."""
        return "waiting" if self._last is None else self._last.state

    def answered(self, targets: Iterable[Target], missing: Iterable[Target], scope: str | None) -> None:
        """A good answer about `targets`; it says nothing of those in `missing`."""
        self._unanswered, self._failure, self._in_a_row = "", None, 0
        self._throttled.discard(scope)
        left_out = set(missing)
        self._watches.answered(target for target in targets if target not in left_out)
        for target in left_out:
            self._watches.failed(target, LEFT_OUT, refused=False)

    def failed(self, targets: Iterable[Target], failure: Failure) -> None:
        """A request about `targets` brought nothing, and is made again."""
        self._failure = failure
        self._in_a_row += 1
        for target in targets:
            self._watches.failed(target, words_of(failure), refused=False)

    def throttled(self, scope: str | None) -> None:
        self._throttled.add(scope)

    def watch_refused(self, target: Target, failure: Failure) -> None:
        """It was asked for alone, and is given up for a while."""
        self._watches.failed(target, words_of(failure), refused=True)

    def key_accepted(self) -> None:
        self._refusal = None

    def key_refused(self, failure: Failure, *, doubted: bool) -> None:
        """`doubted`: the key has worked, so it is asked again soon."""
        if doubted:
            self._refusal = ("paused", PLAN_DOUBTED if isinstance(failure, Exhausted) else KEY_DOUBTED)
        else:
            self._refusal = ("refused", words_of(failure))

    def renewed(self) -> None:
        """There is a new credential."""
        self._unanswered, self._refusal, self._in_a_row, self._failure = NO_ANSWER_TO_NEW_KEY, None, 0, None
        self._watches.renewed()

    def reconfigured(self) -> None:
        """The watches are others: those that failed may be gone, or are asked again."""
        self._watches = _FailingWatches()

    def look(self, moment: Moment) -> Condition:
        """How it is now. The same state keeps the time at which it was seen first."""
        state, reason = self._judge(moment)
        last = self._last
        since = last.since if last is not None and last.state == state else format_rfc3339(moment.wall)
        self._last = Condition(state, reason, since)
        return self._last

    def _judge(self, moment: Moment) -> tuple[ProviderState, str | None]:
        """The first that holds: what is ours, what holds for all its watches, what holds for some."""
        if moment.held is not None:
            return "waiting", moment.held
        if self._refusal is not None:
            return self._refusal
        if self._failure is not None and (self._in_a_row >= IN_A_ROW or self._unanswered):
            return "failing", f"{words_of(self._failure)} ({self._in_a_row} in a row)"
        if self._throttled:
            return "paused", TOO_FAST
        if moment.paused > NOTICED:
            return "paused", ASKED_TO_WAIT
        if (some := self._watches.judged(moment.watches)) is not None:
            return some
        if self._unanswered:
            return "waiting", self._unanswered
        if self._stats.is_behind:
            return "failing", OUTDATED
        if (left_out := self._stats.left_out_words) is not None:
            return "failing", left_out
        return "ok", None


def words_of(failure: Failure) -> str:
    """What a failure means, in our words alone."""
    match failure:
        case Unreachable():
            return failure.words
        case Throttled():
            return TOO_FAST
        case Exhausted():
            return "our credits there are used up"
        case RefusedCredential():
            return "it refuses our key"
        case Misconfigured():
            return "it refuses what we ask for"
        case Malformed():
            return "its answers cannot be understood"
    return _status_words(failure.status)


def _status_words(status: int | None) -> str:
    """Trouble that passes, by the status that it came with."""
    if status is None or 200 <= status < 300:
        return "it says that it cannot answer now"
    if status < 400:
        return f"it redirects us, which is never followed (HTTP {status})"
    if status < 500:
        return f"not it, but something before it answers (HTTP {status})"
    return f"it has trouble of its own (HTTP {status})"
