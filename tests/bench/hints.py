"""`sched-v1` with hints: the product's own Schedule, told of changes by sources that are late, miss some and invent others.

    python -m tests.bench.hints                     the table of goals, five seeds: twenty minutes on two processes
    python -m tests.bench.hints --seeds 2 --docs    of two seeds, and written into docs/freshness.md too

Each hint comes half a second after its change. Beside round robin stands the same schedule without hints.
"""

import argparse
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from tests.bench import freshness, streams
from tests.bench.freshness import CYCLE, WINDOW, Polls, Stream, clock, cold, delays
from watcher.scheduling.change_rates import EXPONENT
from watcher.scheduling.schedule import Schedule

PROCESSES = 2
DOCS = Path(__file__).parents[2] / "docs" / "freshness.md"
SNAPSHOT = 600.0  # seconds between two looks at what is believed
HOTTEST = 10
BEGIN, END = "<!-- hints -->", "<!-- end of hints -->"


@dataclass(frozen=True)
class Source:
    """Somebody who sends hints: one for a change with the chance `recall`, and others by which only the share
    `precision` of all is of a change. It speaks of the targets below `share` of them, and says so if it `covers` them.

    flood: false hints per second, over every target in turn.
    """

    name: str = "push"
    recall: float = 0.9
    precision: float = 1.0
    delay: float = 0.5
    share: float = 1.0
    covers: bool = True
    flood: float = 0.0

    def hints(self, stream: Stream, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Times and targets."""
        rng = np.random.default_rng([seed, *self.name.encode()])
        size = int(self.share * stream.targets)
        mine = (stream.ids < size) & (rng.random(len(stream.ids)) < self.recall)
        times, ids = stream.times[mine] + self.delay, stream.ids[mine]
        if self.flood:
            false = np.arange(int(self.flood * stream.seconds))
            return np.concatenate([times, false / self.flood]), np.concatenate([ids, false % size])
        false = rng.poisson(len(ids) * (1 / self.precision - 1))
        wrong = rng.random(false) * stream.seconds, rng.integers(0, size, false)
        return np.concatenate([times, wrong[0]]), np.concatenate([ids, wrong[1]])


@dataclass(frozen=True)
class World:
    """Who sends hints, and how the API answers: what it shows is `lag` seconds old."""

    sources: tuple[Source, ...] = ()
    lag: float = 0.0


@dataclass
class Outcome:
    """One run: its polls, how the believed rates compare with the true ones, and who was how precise."""

    polls: Polls
    believed: np.ndarray
    most_marks: int
    schedule: Schedule[int] = field(repr=False)


def simulate(stream: Stream, world: World, seed: int, cycle: float = CYCLE) -> Outcome:
    schedule = cold(seed, stream.targets)
    for source in world.sources:
        if source.covers:
            schedule.cover(source.name, range(int(source.share * stream.targets)))
    changes, times, order = stream.by_target(), [], []
    upcoming = [own[0] for own in changes]
    arrivals = in_order(stream, world.sources, seed)
    hint_at, hinted, name = next(arrivals)
    believed, looks, snapshot, most_marks = np.zeros(stream.targets), 0, WINDOW[0], 0
    pick, report = schedule.pick, schedule.report
    for now in clock(stream, cycle).tolist():
        while hint_at <= now:
            schedule.hint(hinted, hint_at, name)
            hint_at, hinted, name = next(arrivals)
        for i in pick(now):
            shown = now - world.lag
            if changed := upcoming[i] <= shown:
                upcoming[i] = changes[i][bisect_right(changes[i], shown)]
            report(i, now, changed)
            order.append(i)
            times.append(now)
        if now >= snapshot:
            believed += rates_of(schedule)
            looks, snapshot = looks + 1, snapshot + SNAPSHOT
            most_marks = max(most_marks, len(schedule._hints.marks.waiting))
    return Outcome(Polls(np.array(times), np.array(order)), believed / max(1, looks), most_marks, schedule)


def in_order(stream: Stream, sources: Sequence[Source], seed: int) -> Iterator[tuple[float, int, str]]:
    """All hints by time, with an end that never comes."""
    made = [source.hints(stream, seed) for source in sources]
    times = np.concatenate([times for times, _ in made]) if made else np.zeros(0)
    ids = np.concatenate([ids for _, ids in made]) if made else np.zeros(0)
    whose = np.repeat(np.arange(len(made)), [len(times) for times, _ in made])
    order = np.argsort(times, kind="stable")
    for start in range(0, len(order), 100_000):
        part = order[start : start + 100_000]
        for t, i, k in zip(times[part].tolist(), ids[part].tolist(), whose[part].tolist(), strict=True):
            yield t, i, sources[k].name
    yield float("inf"), -1, ""


def rates_of(schedule: Schedule[int]) -> np.ndarray:
    """Changes per second of each target, as is believed now."""
    rates = schedule._rates
    strides = np.array([rates.stride(i) for i in range(len(schedule))])
    return rates.unit * strides ** (-1 / EXPONENT)


def waited(
    stream: Stream, polls: Polls, lag: float = 0.0, window: tuple[float, float] = WINDOW
) -> tuple[np.ndarray, np.ndarray]:
    """Of each change in the window: seconds until a read showed it, and its target."""
    shown = Stream(stream.times + lag, stream.ids, stream.targets, stream.seconds)
    later = window[0] + lag, window[1] + lag
    inside = (shown.times >= later[0]) & (shown.times < later[1])
    return delays(shown, polls, later)[0] + lag, stream.ids[inside]


@dataclass(frozen=True)
class Run:
    """One stream in one world. Mean delays ÷ round robin's on the same stream."""

    case: str
    stream: str
    mean: float
    uncovered: float
    """Of the upper half of the targets, of which no source tells where a source covers half."""
    staleness: float
    """Of the longest unread, in cycles."""
    rates: float
    """Believed ÷ true, summed."""
    hottest: float
    """The same, of the ten that change most."""
    marks: int


WORLDS: dict[str, World] = {
    "none": World(),
    "usual": World((Source(precision=0.9),)),
    "perfect": World((Source(recall=1.0),)),
    "imprecise": World((Source(precision=0.5),)),
    "behind": World((Source(precision=0.9),), lag=1.0),
    "flood": World((Source(recall=0.0, flood=1000.0, covers=False),)),
    "flood beside": World((Source(precision=0.9), Source("liar", 0.0, flood=1000.0, covers=False))),
    "half": World((Source(precision=0.9, share=0.5),)),
    "two": World((Source(precision=0.9), Source("slow", precision=0.9, delay=3.0))),
}


def measure(case: str, name: str, seed: int) -> Run:
    stream, world = Stream.of(streams.records(name, seed)), WORLDS[case]
    even = float(delays(stream, freshness.round_robin(stream))[0].mean())
    outcome = simulate(stream, world, seed)
    seconds, ids = waited(stream, outcome.polls, world.lag)
    true = np.bincount(ids, minlength=stream.targets) / (WINDOW[1] - WINDOW[0])
    hottest = np.argsort(-true)[:HOTTEST]
    return Run(
        case,
        name,
        float(seconds.mean()) / even,
        float(seconds[ids >= stream.targets // 2].mean()) / even,
        freshness.staleness(stream, outcome.polls) / CYCLE,
        float(outcome.believed.sum() / true.sum()),
        float(outcome.believed[hottest].sum() / true[hottest].sum()),
        outcome.most_marks,
    )


@dataclass(frozen=True)
class Goal:
    """One line: what is measured in one case, the mean over the seeds; ÷ the case without hints, where `to_none`."""

    text: str
    case: str
    most: float
    streams: tuple[str, ...] = ("zipf1.2",)
    figure: Callable[[Run], float] = lambda run: run.mean
    least: float = 0.0
    to_none: bool = False
    worst: bool = False

    def line(self, runs: Sequence[Run]) -> str:
        values = [self.figure(run) for run in runs if run.case == self.case and run.stream in self.streams]
        if self.to_none:
            others = [self.figure(run) for run in runs if run.case == "none" and run.stream in self.streams]
            values = [value / other for value, other in zip(values, others, strict=True)]
        value = max(values) if self.worst else fmean(values)
        wanted = f"{self.least:g}-{self.most:g}" if self.least else f"≤ {self.most:g}"
        spread = f" ± {1.96 * stdev(values) / len(values) ** 0.5:.4f}" if len(values) > 1 and not self.worst else ""
        met = "yes" if self.least <= value <= self.most else "**no**"
        return f"| {self.text} | {wanted} | {value:.4f}{spread} | {met} |"


TELLABLE = tuple(name for name in streams.STREAMS if name != "epoch")
"""Where everybody changes at once there is no reading all of them within a second."""
GOALS = (
    Goal("recall 0.9, precision 0.9: zipf1.2", "usual", 0.058),
    Goal("the same: hawkes", "usual", 0.041, ("hawkes",)),
    Goal("the same: mmpp", "usual", 0.030, ("mmpp",)),
    *(Goal(f"recall 1, precision 1: {name} (floor 0.0167)", "perfect", 0.020, (name,)) for name in TELLABLE),
    Goal("recall 0.9, precision 0.5", "imprecise", 0.065),
    Goal("the API a second behind the push", "behind", 0.125),
    Goal("two sources, one three seconds late", "two", 0.058),
    Goal("1,000 false hints a second ÷ without hints", "flood", 1.05, to_none=True),
    Goal("the same beside an honest source", "flood beside", 0.065),
    Goal("the same: most marks, of 1000 watches", "flood", 1000, figure=lambda run: run.marks, worst=True),
    Goal("uncovered watches, half covered ÷ without hints", "half", 0.85, figure=lambda r: r.uncovered, to_none=True),
    Goal("believed ÷ true rate", "usual", 1.03, figure=lambda run: run.rates, least=0.97),
    Goal("the same, the ten hottest", "usual", 1.06, figure=lambda run: run.hottest, least=0.94),
    *(
        Goal(f"longest unread, cycles: {case}", case, 4.05, figure=lambda run: run.staleness, worst=True)
        for case in ("usual", "imprecise", "flood", "flood beside")
    ),
)


def table(runs: Sequence[Run], seeds: int) -> Iterator[str]:
    yield f"| mean delay ÷ round robin, zipf1.2 where nothing else is said ({seeds} seeds) | required | ours (± 95 %) | met |"
    yield "|---|---|---|---|"
    for goal in GOALS:
        yield goal.line(runs)


def whole(seeds: int) -> list[str]:
    wanted = {(goal.case, name) for goal in GOALS for name in goal.streams}
    wanted |= {("none", name) for goal in GOALS if goal.to_none for name in goal.streams}
    jobs = [(case, name, seed) for case, name in sorted(wanted) for seed in list(streams.SEEDS)[:seeds]]
    with ProcessPoolExecutor(PROCESSES) as pool:
        runs = []
        for run in pool.map(measure, *zip(*jobs, strict=True)):
            print(run, file=sys.stderr, flush=True)
            runs.append(run)
    return list(table(runs, seeds))


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=len(streams.SEEDS))
    parser.add_argument("--docs", action="store_true")
    options = parser.parse_args(argv)
    lines = "\n".join(whole(options.seeds))
    print(lines)
    if options.docs:
        text = DOCS.read_text()
        before, rest = text.split(BEGIN, 1)
        DOCS.write_text(f"{before}{BEGIN}\n{lines}\n{END}{rest.split(END, 1)[1]}")


if __name__ == "__main__":
    main(sys.argv[1:])
