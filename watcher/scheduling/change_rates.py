"""How often each target changes, by what its answers say: the two-rate Gamma rule (docs/freshness.md). Pure.

Each rate is estimated twice, slowly (over hours) and as a burst (over a minute), with the odds between the two. Both
are shrunk towards the mean of the population, the more strongly the more alike the targets are. Rates are changes per
second.
"""

from array import array
from math import exp, expm1, inf, log, log1p

EXPONENT = 0.45  # polls ∝ rate^0.45; ½ is best for the mean, a little less gains 4-8 % of p99
FAST = 60.0  # seconds of burst evidence
BURST_SHAPE = 0.05
SHAPES = (0.25, 1.0, 4.0, 16.0, 1e6)  # how unequal the targets may be, from very to not at all
ODDS_CLIP = 5.0
ODDS_MEMORY = 500  # polls
ODDS_KEEP = 1 - 1 / ODDS_MEMORY
ALMOST = 1 - 1e-12  # the surest estimate: being wrong costs something finite
FIRST_GUESS = 3600.0  # seconds between changes, before anything is known
TINY_RATE = 1e-12  # changes per second: years of silence must not become a division by zero


class ChangeRates:
    """What the answers say of each target and of the population. The names are those of the formulas in docs/freshness.md."""

    def __init__(self, size: int) -> None:
        self.a, self.b, self.af, self.bf, self.odds = (array("f", bytes(4 * size)) for _ in range(5))
        self.changes, self.seconds = 1.0, FIRST_GUESS  # of the population, faded
        self.scores = [0.0] * len(SHAPES)
        self.shape = SHAPES[0]
        self.unit = 1 / FIRST_GUESS
        self.hits = self.expected = 0.0  # of the guarantee polls: the share that changed, and the share expected to
        self.surprised = False  # far more of them changed than expected: everything moves at once, so read all
        self.changes_seen = self.delay = 0.0  # faded: changes seen, and the seconds that they waited, summed
        self._keep = 1 - 1 / max(5000, 20 * size)
        self._sweep = size

    def columns(self) -> tuple["array[float]", ...]:
        return self.a, self.b, self.af, self.bf, self.odds

    def settle_unit(self) -> None:
        self._sweep = 0
        self.unit = self._mean()
        self.shape = SHAPES[self.scores.index(max(self.scores))]

    def stride(self, i: int) -> float:
        """How far in virtual time its next poll lies."""
        c, mean = self.shape, self._mean()
        slow = (self.a[i] + c) / (self.b[i] + c / mean)
        w = 1 / (1 + exp(-self.odds[i]))
        rate = (1 - w) * slow + w * (self.af[i] + BURST_SHAPE) / (self.bf[i] + BURST_SHAPE / slow)
        return float((rate / self.unit) ** -EXPONENT)

    def learn(self, i: int, gap: float, changed: bool, guaranteed: bool, slow: float) -> float:  # noqa: FBT001 (hot path)
        """One answer, `gap` seconds after the one before. Gives the stride to its next poll."""
        a, b, af, bf, odds = self.a[i], self.b[i], self.af[i], self.bf[i], self.odds[i]
        keep = self._keep
        self.changes = self.changes * keep + changed
        self.seconds = self.seconds * keep + gap
        mean = self._mean()
        w = 1 / (1 + exp(-odds))
        A, B, Af, Bf, x, xf, q, qf = self._weigh_shapes(a, b, af + BURST_SHAPE, bf, w, gap, changed, 1 / mean)  # noqa: N806
        odds = odds * ODDS_KEEP + (log(qf / q) if changed else x - xf)
        odds = self.odds[i] = min(ODDS_CLIP, max(-ODDS_CLIP, odds))
        w = 1 / (1 + exp(-odds))
        if guaranteed:
            self.hits += 0.1 * (changed - self.hits)
            self.expected += 0.1 * (q + w * (qf - q) - self.expected)
            self.surprised = self.hits > 0.3 and self.hits > 2 * self.expected
        self.changes_seen *= keep
        self.delay *= keep
        a, b = a * (fade := exp(-gap / slow)), b * fade + gap
        af, bf = af * (fade := exp(-gap / FAST)), bf * fade + gap
        if changed:  # a poll cannot tell one change from several, so this is their expected number, given at least one
            n, nf = A * gap / B / q, Af * gap / Bf / qf
            expected = n + w * (nf - n)
            a, af = a + expected, af + nf
            self.changes += expected - 1
            self.changes_seen += expected
            self.delay += expected * gap / 2
        self.a[i], self.b[i], self.af[i], self.bf[i] = a, b, af, bf
        if self._sweep > 0:
            self._sweep -= 1
            self.unit = self._mean()
        c = self.shape
        steady = (a + c) / (b + c / mean)
        rate = steady + w * ((af + BURST_SHAPE) / (bf + BURST_SHAPE / steady) - steady)
        return float((rate / self.unit) ** -EXPONENT)

    def chance(self, i: int, gap: float) -> float:
        """That its answer shows a change, `gap` seconds after the one before, as is believed beforehand."""
        a, b = self.a[i] + self.shape, self.b[i] + self.shape / self._mean()
        w = 1 / (1 + exp(-self.odds[i]))
        q = -expm1(-a * log1p(gap / b))
        qf = -expm1(-(self.af[i] + BURST_SHAPE) * log1p(gap / (self.bf[i] + BURST_SHAPE * b / a)))
        return q + w * (qf - q)

    def learn_hinted(self, i: int, gap: float, age: float, slow: float) -> float:
        """As `learn`, of an answer that shows a change, and that a hint has asked for: there is one change `age`
        seconds ago, the first in all the gap, and the expected number since. Rates stay true by that: as a change
        that polling has met, it would count for too many, for the read came when there was one."""
        keep, w = self._keep, 1 / (1 + exp(-self.odds[i]))
        rate, burst, odds = self._weigh_densities(i, gap, w)
        odds = self.odds[i] = min(ODDS_CLIP, max(-ODDS_CLIP, self.odds[i] * ODDS_KEEP + odds))
        w = 1 / (1 + exp(-odds))
        n, nf = 1 + age * rate, 1 + age * burst
        expected = n + w * (nf - n)
        self.changes = self.changes * keep + expected
        self.seconds = self.seconds * keep + gap
        self.changes_seen = self.changes_seen * keep + expected
        self.delay = self.delay * keep + expected * age
        self.a[i] = self.a[i] * (fade := exp(-gap / slow)) + expected
        self.b[i] = self.b[i] * fade + gap
        self.af[i] = self.af[i] * (fade := exp(-gap / FAST)) + nf
        self.bf[i] = self.bf[i] * fade + gap
        if self._sweep > 0:
            self._sweep -= 1
            self.unit = self._mean()
        return self.stride(i)

    def _weigh_densities(self, i: int, gap: float, w: float) -> tuple[float, float, float]:
        """As `_weigh_shapes`, where it is known that there was one change and when: that has a density and no
        probability. Gives what the best shape says: steady rate, burst rate, and the log of how much likelier the
        burst is."""
        per_change, best, said = 1 / self._mean(), -inf, (0.0, 0.0, 0.0)
        a, b, Af, bf = self.a[i], self.b[i], self.af[i] + BURST_SHAPE, self.bf[i]  # noqa: N806
        for k, c in enumerate(SHAPES):
            A, B = a + c, b + c * per_change  # noqa: N806
            Bf = bf + BURST_SHAPE * B / A  # noqa: N806
            d = log(A / B) - (A + 1) * log1p(gap / B)
            odds = log(Af / Bf) - (Af + 1) * log1p(gap / Bf) - d
            grade = d + log1p(w * expm1(odds)) if odds < 0 else d + odds + log(w + (1 - w) * exp(-odds))
            self.scores[k] = grade = self.scores[k] * self._keep + grade
            if grade > best:
                best, self.shape, said = grade, c, (A / B, Af / Bf, odds)
        return said

    def _weigh_shapes(  # noqa: PLR0917 (hot path)
        self,
        a: float,
        b: float,
        Af: float,  # noqa: N803
        bf: float,
        w: float,
        gap: float,
        changed: bool,  # noqa: FBT001
        per_change: float,
    ) -> tuple[float, float, float, float, float, float, float, float]:
        """Choose the prior shape that has predicted the answers best so far, and give what it says of this answer."""
        keep, scores, best = self._keep, self.scores, -inf
        for k, c in enumerate(SHAPES):
            A, B = a + c, b + c * per_change  # noqa: N806
            Bf = bf + BURST_SHAPE * B / A  # noqa: N806
            x, xf = A * log1p(gap / B), Af * log1p(gap / Bf)
            q, qf = -expm1(-x), -expm1(-xf)
            p = q + w * (qf - q)
            scores[k] = grade = scores[k] * keep + (log(p) if changed else log1p(-p if p < ALMOST else -ALMOST))
            if grade > best:
                best, self.shape, terms = grade, c, (A, B, Af, Bf, x, xf, q, qf)
        return terms

    def _mean(self) -> float:
        return max(TINY_RATE, self.changes / self.seconds)
