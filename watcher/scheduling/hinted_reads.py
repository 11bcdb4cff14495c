"""Hints, as the schedule sees them: which target is read next for them, and what the answers say of who sent them. Pure.

A hint brings the next read of its target forward. If that shows nothing the API may be behind the push, so the read is
repeated a few times, where that has paid. A change that is seen ends it, and then the hint was right.
"""

from collections import OrderedDict, deque
from collections.abc import Collection
from math import inf
from statistics import median

import msgspec

from watcher.scheduling.change_rates import ChangeRates
from watcher.scheduling.hint_coverage import HintCoverage
from watcher.scheduling.hint_marks import HintMarks, Mark
from watcher.scheduling.hint_scores import HintScores

REPEATS = (1.0, 3.0, 7.0)  # seconds after an unchanged hinted read: a push may be ahead of the API
AHEAD = 0.5  # seconds from a change to its hint, as good as any guess
ECHO = 5.0  # seconds after a change was seen in which a hint may be of that one
RECENT = 100  # reads that showed a change


class _Change(msgspec.Struct, eq=False, gc=False):
    """One that a read has shown, of late."""

    when: float
    hinted: int
    """Bits of the sources that had said so."""
    echoed: int = 0
    """Bits of those that said so once more, or too late."""


class HintedReads:
    """Of `size` targets, which are small integers. `cache`: seconds that the provider keeps an answer; 0: none."""

    def __init__(self, rates: ChangeRates, size: int, cache: float) -> None:
        self._rates = rates
        self.marks = HintMarks()
        self.coverage = HintCoverage(size)
        self.scores = HintScores((cache,) if cache else REPEATS)
        self._delays, self._unhinted_delays = (deque[float](maxlen=RECENT) for _ in range(2))
        self._seen: OrderedDict[int, _Change] = OrderedDict()

    def inherit(self, former: "HintedReads") -> None:
        """What was learned of the sources there."""
        self.scores.go_on(former.scores)
        self.marks.distrusted = self.scores.distrusted
        self.coverage.recalls = former.coverage.recalls
        self._delays, self._unhinted_delays = former._delays, former._unhinted_delays  # noqa: SLF001

    def add(self, i: int, source: str, now: float) -> bool:
        """A hint of it came; whether its mark is to be offered anew."""
        scores, marks = self.scores, self.marks
        bit = scores.bit(source)
        scores.received(bit)
        mark = marks.waiting.get(i)
        if mark is None or (mark.step >= 0 and bit & ~marks.distrusted):
            newer = Mark(bit, now, now, now, tries_all=scores.tries_all(bit))
            if mark is not None:  # its reads showed nothing so far, and this begins anew
                self._break_off(i, mark, newer)
                marks.hold(i)
            marks.add(i, newer)
            return True
        urgent = marks.trusts(mark) and not marks.is_doubtful(i)
        mark.sources |= bit
        mark.latest = now
        if urgent or not marks.trusts(mark):
            mark.claimed = min(mark.claimed, now)
            return False
        mark.claimed = mark.due = now
        return True

    def report(  # noqa: PLR0917 (hot path)
        self,
        i: int,
        mark: Mark,
        now: float,
        gap: float,
        changed: bool,  # noqa: FBT001
        guaranteed: bool,  # noqa: FBT001
        slow: float,
    ) -> float:
        """The answer to a read for which it was marked, as `ChangeRates.learn`. Gives the stride to its next poll."""
        rates = self._rates
        chance, trusted = rates.chance(i, gap), self.marks.trusts(mark)
        if mark.sources:
            if mark.step >= 0 and not mark.early:
                self.scores.judge_step(mark, chance, hit=changed)
            mark.unlikely *= 1 - chance
        if changed and trusted:
            # Where the API was behind, the change came to be seen at some instant since the read before.
            age = min(gap if mark.base == inf else gap / 2, now - mark.claimed + AHEAD)
            self._delays.append(now - mark.claimed)
            self._note_change(i, now, mark.sources)
            self._judge(i, mark, mark.sources, hit=True)
            return rates.learn_hinted(i, gap, age, slow)
        if changed:
            self.unhinted_change(i, now, gap, mark.sources)
            self._judge(i, mark, mark.sources, hit=True)
        elif mark.sources:
            self._repeat(i, mark, now)
        return rates.learn(i, gap, changed, guaranteed and not trusted, slow)

    def unhinted_change(self, i: int, now: float, gap: float, sources: int = 0) -> None:
        """A read that nobody (or nobody trusted) had asked for showed a change."""
        self._unhinted_delays.append(gap / 2)
        self._note_change(i, now, sources)

    def forget(self, source: str) -> None:
        """Of one that covers nothing. Its bit will be another's, so none may be left."""
        bit = self.scores.forget(source)
        self.marks.forget(bit)
        for change in self._seen.values():
            change.hinted &= ~bit
            change.echoed &= ~bit

    def delay(self) -> float | None:
        return median(self._delays) if self._delays else None

    def unhinted_delay(self) -> float | None:
        return median(self._unhinted_delays) if self._unhinted_delays else None

    def cover(self, source: str, targets: Collection[int]) -> dict[int, float]:
        """As `HintCoverage.cover`."""
        return self.coverage.cover(self.scores.bit(source), targets)

    def missed(self, source: str, now: float, cycle: float) -> None:
        """What that source covers may have changed unseen: each is marked once, within a cycle."""
        bit = self.scores.bit(source)
        self.marks.spread(bit, self.coverage.covered(bit), now, cycle)

    def _repeat(self, i: int, mark: Mark, now: float) -> None:
        """It showed nothing: again, where that has paid. Otherwise, or if there is a newer hint, this one is spent."""
        mark.base = min(mark.base, now)
        newer = self.marks.waiting.get(i)
        again = None if newer is not None else self.scores.next_step(mark, now)
        if again is not None:
            mark.step, mark.due = again
            mark.queued = inf
            self.marks.add(i, mark)
            return
        if newer is not None:
            self._break_off(i, mark, newer)
        else:
            self._judge_miss(i, mark, mark.sources)

    def _break_off(self, i: int, mark: Mark, newer: Mark) -> None:
        """Who hints again was wrong the first time. The newer mark speaks for the others too, for as long as theirs
        would have: else one that never ends would keep theirs alive."""
        self._judge_miss(i, mark, mark.sources & newer.sources)
        mark.sources &= ~newer.sources
        if mark.sources:
            newer.join(mark)

    def _judge(self, i: int, mark: Mark, sources: int, *, hit: bool) -> None:
        # A hint soon after a change that was seen counts as a hit, so the chance of that is expected too.
        self.scores.judge(sources, 1 - mark.unlikely * (1 - self._rates.chance(i, ECHO)), hit=hit)
        self.marks.distrusted = self.scores.distrusted

    def _judge_miss(self, i: int, mark: Mark, sources: int) -> None:
        seen = self._seen.get(i)
        echo = 0
        if seen is not None and mark.claimed <= seen.when + ECHO:
            echo = sources & ~seen.echoed
            seen.echoed |= echo
            if echo and not seen.hinted:
                seen.hinted = echo
                self.coverage.hinted_late(i, echo)
        self._judge(i, mark, echo, hit=True)
        self._judge(i, mark, sources & ~echo, hit=False)

    def _note_change(self, i: int, now: float, sources: int) -> None:
        if not self.scores.known:
            return
        if self.coverage.sources:
            self.coverage.changed(i, sources)
        seen = self._seen
        seen.pop(i, None)
        seen[i] = _Change(now, sources)
        while seen and next(iter(seen.values())).when < now - ECHO:
            seen.popitem(last=False)
