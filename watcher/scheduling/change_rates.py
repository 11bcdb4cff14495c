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
