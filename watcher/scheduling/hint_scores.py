"""How far each source of hints is to be believed: by what the reads that it asked for have shown. Pure.

A hint over a busy watch is often followed by a change, whoever sent it. So each read counts against what the beliefs
gave it anyway: precision = (hits − expected + 2) ÷ (hints − expected + 2), faded over a hundred.
"""

import copy
from collections.abc import Iterator, Mapping

import msgspec

from watcher.scheduling.hint_marks import Mark

MEMORY = 100  # judged hints
STEP_MEMORY = 20  # repetitions: few are made where they do not pay, and when they begin to that is to be seen
PRIOR = 2.0
TRUSTED = 0.2  # precision, below which a source is mostly wrong
PAYS = 0.1  # lift of a repetition
FORGOTTEN = ""  # the name under which sources are counted that there are no more
TRIES_ALL = 20  # one hint in so many is repeated whether that pays or not


class HintScore(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one source's hints."""

    hints: int
    """Received."""
    hits: int
    """Hints, several of one target taken together, of which a read showed a change."""
    misses: int
    precision: float | None
    """0..1; a source that is right less often than chance has 0. None: none was judged yet."""


class Tally(msgspec.Struct, eq=False):
    """Faded counts of reads: how many, how many showed a change, how many were expected to."""

    memory: int
    reads: float = 0.0
    hits: float = 0.0
    expected: float = 0.0

    def add(self, hit: bool, expected: float) -> None:  # noqa: FBT001
        keep = 1 - 1 / self.memory
        self.reads = self.reads * keep + 1
        self.hits = self.hits * keep + hit
        self.expected = self.expected * keep + expected

    @property
    def lift(self) -> float:
        """Changes shown beyond those expected, for each read. It begins at 1, with the weight of two reads."""
        return (self.hits - self.expected + PRIOR) / (self.reads + PRIOR)

    @property
    def precision(self) -> float:
        return (self.hits - self.expected + PRIOR) / (self.reads - self.expected + PRIOR)


class _Source(msgspec.Struct, eq=False):
    tally: Tally
    steps: list[Tally]
    hints: int = 0
    marks: int = 0
    hits: int = 0
    misses: int = 0


class HintScores:
    """`steps`: seconds after an unchanged hinted read at which it may be repeated."""

    def __init__(self, steps: tuple[float, ...]) -> None:
        self._steps = steps
        self._bits: dict[str, int] = {}
        self._sources: list[_Source] = []
        self._free: list[int] = []
        """Bits of sources that are forgotten."""
        self._forgotten = self._new()
        self.distrusted = 0
        """Bits of the sources that are mostly wrong."""

    def bit(self, source: str) -> int:
        if (bit := self._bits.get(source)) is None:
            bit = self._bits[source] = self._free.pop() if self._free else 1 << len(self._sources)
            place = bit.bit_length() - 1
            self._sources[place : place + 1] = [self._new()]
        return bit

    def _new(self) -> _Source:
        return _Source(Tally(MEMORY), [Tally(STEP_MEMORY) for _ in self._steps])

    def forget(self, source: str) -> int:
        """Its bit, which a source that comes later may get; 0: it was not known. Totals keep what it was judged by."""
        bit = self._bits.pop(source, 0)
        for _, gone in self._of(bit):
            self._forgotten.hits += gone.hits
            self._forgotten.misses += gone.misses
            self._free.append(bit)
        self.distrusted &= ~bit
        return bit

    @property
    def known(self) -> bool:
        """Whether anybody ever sent one, or covered anything."""
        return bool(self._sources)

    def go_on(self, former: "HintScores") -> None:
        """Of another schedule: what was learned there; the counts go to the first of several that do. Its provider may have
        been another, with repetitions at other times."""
        self._bits, self._sources = dict(former._bits), copy.deepcopy(former._sources)  # noqa: SLF001
        self._free, self._forgotten = list(former._free), copy.copy(former._forgotten)  # noqa: SLF001
        self.distrusted = former.distrusted
        if former._steps != self._steps:  # noqa: SLF001
            for source in self._sources:
                source.steps = [Tally(STEP_MEMORY) for _ in self._steps]
        for source in (*former._sources, former._forgotten):  # noqa: SLF001
            source.hints = source.hits = source.misses = 0

    def received(self, bit: int) -> None:
        self._sources[bit.bit_length() - 1].hints += 1

    def tries_all(self, bit: int) -> bool:
        """Whether the mark that is made now is one of those that try all repetitions."""
        source = self._sources[bit.bit_length() - 1]
        source.marks += 1
        return source.marks % TRIES_ALL == 0

    def judge(self, sources: int, expected: float, *, hit: bool) -> None:
        for bit, source in self._of(sources):
            source.tally.add(hit, expected)
            source.hits += hit
            source.misses += not hit
            self.distrusted &= ~bit
            if source.tally.precision < TRUSTED:
                self.distrusted |= bit

    def judge_step(self, mark: Mark, expected: float, *, hit: bool) -> None:
        """A repetition was made."""
        for _, source in self._of(mark.sources):
            source.steps[mark.step].add(hit, expected)

    def next_step(self, mark: Mark, now: float) -> tuple[int, float] | None:
        """The next repetition that has paid for one of its sources, and when it is due."""
        first = mark.step if mark.early and mark.step >= 0 else mark.step + 1
        for step in range(first, len(self._steps)):
            due = mark.base + self._steps[step]
            if due > now and (mark.tries_all or any(s.steps[step].lift >= PAYS for _, s in self._of(mark.sources))):
                return step, due
        return None

    def scores(self) -> Mapping[str, HintScore]:
        named = [(name, source) for name, bit in self._bits.items() for _, source in self._of(bit)]
        return {
            name: HintScore(
                hints=source.hints,
                hits=source.hits,
                misses=source.misses,
                precision=max(0.0, source.tally.precision) if source.tally.reads else None,
            )
            for name, source in (*named, (FORGOTTEN, self._forgotten))
            if name or source.hits or source.misses
        }

    def _of(self, sources: int) -> Iterator[tuple[int, _Source]]:
        while sources:
            bit = sources & -sources
            yield bit, self._sources[bit.bit_length() - 1]
            sources ^= bit
