"""`sched-v1`: the product's own Schedule against round robin and the square-root oracle, beside the goals.

    python -m tests.bench.schedule             all eleven streams, five seeds: the table of goals
    python -m tests.bench.schedule DIR         any folder of NAME.SEED.bin: one JSON line a stream
    python -m tests.bench.schedule --svg FILE  mean delay against cycle, as a plot

The table takes about ten minutes on two processes.
"""

import json
import random
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev

from tests.bench import freshness, streams
from tests.bench.freshness import CYCLE, Score, Stream, cold, product
from tests.bench.plot import chart
from watcher.scheduling.schedule import Schedule

PROCESSES = 2
FIRST_WINDOWS = {"1": (0.0, 60.0), "2": (60.0, 120.0), "3-5": (120.0, 300.0), "6-10": (300.0, 600.0)}
PLOTTED_CYCLES = (15.0, 30.0, 60.0, 120.0, 300.0, 600.0)


@dataclass(frozen=True)
class Run:
    """One stream, three contestants."""

    name: str
    seed: str
    ours: Score
    even: Score  # round robin
    oracle: Score
    first: dict[str, float]  # windows of the first ten cycles: our mean ÷ round robin's
    batch: float | None  # batches of twenty: our mean ÷ fixed chunks'
    busiest: int  # requests in any window of three seconds, of 50 allowed

    def json(self) -> str:
        return json.dumps(
            {
                "stream": f"{self.name}.{self.seed}",
                "mean": round(self.ours.mean, 3),
                "p95": round(self.ours.p95, 3),
                "p99": round(self.ours.p99, 3),
                "max_staleness_cycles": round(self.ours.max_staleness_cycles, 3),
                "ratio_round_robin": round(self.ours.mean / self.even.mean, 4),
                "ratio_oracle": round(self.ours.mean / self.oracle.mean, 4),
            }
        )


def measure(path: Path, *, extras: bool = False) -> Run:
    name, seed = path.name.removesuffix(".bin").rsplit(".", 1)
    stream = Stream.load(path)
    number = int(seed) if seed.isdigit() else 0
    even, ours = freshness.round_robin(stream), product(stream, cold(number))
    first, batch = {}, None
    if extras and name in {"uniform", "zipf1.2"}:
        for label, window in FIRST_WINDOWS.items():
            theirs = freshness.delays(stream, even, window)[0].mean()
            first[label] = float(freshness.delays(stream, ours, window)[0].mean() / theirs)
    if extras and name == "zipf1.2":
        chunks = freshness.score(stream, freshness.round_robin(stream, batch=20))
        batch = freshness.score(stream, product(stream, cold(number), batch=20)).mean / chunks.mean
    return Run(
        name=name,
        seed=seed,
        ours=freshness.score(stream, ours),
        even=freshness.score(stream, even),
        oracle=freshness.score(stream, freshness.oracle(stream)),
        first=first,
        batch=batch,
        busiest=freshness.largest_window(ours.times, 3.0),
    )


def measure_with_extras(path: Path) -> Run:
    return measure(path, extras=True)


def decision() -> tuple[float, float, float]:
    """At 100,000 targets: median µs of a decision with its update, the same over `yardstick`, and bytes a target."""
    size, chance, spent = 100_000, random.Random(1), []
    targets = list(range(size))  # the caller's own objects
    tracemalloc.start()
    schedule = Schedule(targets, seed=1, now=0.0)
    for k in range(size // 2):
        for i in schedule.pick(k * CYCLE / size):
            schedule.report(i, k * CYCLE / size, changed=False)
    memory = tracemalloc.get_traced_memory()[0] / size
    tracemalloc.stop()
    for k in range(size // 2, 3 * size):
        now, changed = k * CYCLE / size, chance.random() < 0.15
        begun = time.perf_counter_ns()
        (i,) = schedule.pick(now)
        schedule.report(i, now, changed)
        spent.append(time.perf_counter_ns() - begun)
    micros = median(spent[-size:]) / 1000
    return micros, micros / yardstick(), memory


def yardstick() -> float:
    """µs of 100 rounds of an empty loop with one addition: how fast Python is here today."""
    spent = []
    for _ in range(2000):
        begun, total = time.perf_counter_ns(), 0.0
        for k in range(100):
            total += k
        spent.append(time.perf_counter_ns() - begun)
    return median(spent) / 1000


@dataclass(frozen=True)
class Goal:
    """One line of the table: a figure for each run it speaks of, of which the mean (or the worst) must stay below."""

    text: str
    required: float
    names: tuple[str, ...]
    figure: Callable[[Run], float | None]
    worst: bool = False

    def line(self, runs: list[Run]) -> str:
        mine = [(run, value) for run in runs if run.name in self.names and (value := self.figure(run)) is not None]
        if self.worst:
            run, value = max(mine, key=lambda pair: pair[1])
            return row(self.text, self.required, value, f"{value:.3f} ({run.name})")
        values = [value for _, value in mine]
        spread = f" ± {1.96 * stdev(values) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
        return row(self.text, self.required, fmean(values), f"{fmean(values):.3f}{spread}")


def row(text: str, required: float, value: float, shown: str) -> str:
    return f"| {text} | ≤ {required:g} | {shown} | {'yes' if value <= required else '**no**'} |"


def to_even(run: Run) -> float:
    return run.ours.mean / run.even.mean


def to_oracle(run: Run) -> float:
    return run.ours.mean / run.oracle.mean


def in_window(label: str) -> Callable[[Run], float | None]:
    return lambda run: run.first.get(label)


ALL = tuple(streams.STREAMS)
GOALS = (
    Goal("zipf1.2: mean ÷ round robin", 0.38, ("zipf1.2",), to_even),
    Goal("zipf1.2: mean ÷ oracle", 1.12, ("zipf1.2",), to_oracle),
    Goal("zipf1.5: mean ÷ oracle", 1.18, ("zipf1.5",), to_oracle),
    Goal("drift: mean ÷ round robin", 0.40, ("drift",), to_even),
    Goal("mmpp: mean ÷ round robin", 0.36, ("mmpp",), to_even),
    Goal("hawkes: mean ÷ round robin", 0.30, ("hawkes",), to_even),
    Goal("mixed: mean ÷ round robin", 0.68, ("mixed",), to_even),
    Goal("wake: mean ÷ round robin", 0.36, ("wake",), to_even),
    Goal("uniform: mean ÷ round robin", 1.02, ("uniform",), to_even),
    Goal("refractory: mean ÷ round robin", 1.02, ("refractory",), to_even),
    Goal("epoch: mean ÷ round robin", 0.90, ("epoch",), to_even),
    Goal("oneshot: mean ÷ round robin", 1.06, ("oneshot",), to_even),
    *(Goal(f"{n}: p95 ÷ round robin", 1.08, (n,), lambda run: run.ours.p95 / run.even.p95) for n in ALL),
    *(Goal(f"{n}: p99 ÷ round robin", 1.50, (n,), lambda run: run.ours.p99 / run.even.p99) for n in ALL),
    Goal("zipf1.2: changes overwritten unseen", 0.33, ("zipf1.2",), lambda run: run.ours.missed),
    Goal("hawkes: changes overwritten unseen", 0.38, ("hawkes",), lambda run: run.ours.missed),
    Goal("longest unread, worst run, cycles", 4.05, ALL, lambda run: run.ours.max_staleness_cycles, worst=True),
    Goal("requests in any 3 s, worst run", 50, ALL, lambda run: run.busiest, worst=True),
    *(Goal(f"uniform: cycle {w} ÷ round robin", 1.10, ("uniform",), in_window(w)) for w in FIRST_WINDOWS),
    Goal("zipf1.2: cycles 3-5 ÷ round robin", 0.50, ("zipf1.2",), in_window("3-5")),
    Goal("zipf1.2 in batches of 20: mean ÷ fixed chunks", 0.38, ("zipf1.2",), lambda run: run.batch),
)


def table(runs: list[Run]) -> Iterator[str]:
    yield "| goal (mean over the seeds) | required | ours (± 95 %) | met |"
    yield "|---|---|---|---|"
    for goal in GOALS:
        yield goal.line(runs)
    micros, ratio, memory = decision()
    yield row(
        "decision + update at T = 100,000, median µs", 20, micros, f"{micros:.1f} ({ratio:.1f} × 100 empty loops)"
    )
    yield row("memory, bytes a target", 128, memory, f"{memory:.0f}")


def whole() -> None:
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(PROCESSES) as pool:
        streams.write(Path(folder))
        runs = []
        for run in pool.map(measure_with_extras, sorted(Path(folder).glob("*.bin"))):
            print(run.json(), file=sys.stderr, flush=True)
            runs.append(run)
    print("\n".join(table(runs)))


def plot(path: Path) -> None:
    stream = Stream.of(streams.records("zipf1.2", 100))
    series: dict[str, list[float]] = {"round robin": [], "balance-watcher": [], "oracle": []}
    for cycle in PLOTTED_CYCLES:
        runs = (
            freshness.round_robin(stream, cycle),
            product(stream, cold(100), cycle),
            freshness.oracle(stream, cycle),
        )
        for line, polls in zip(series.values(), runs, strict=True):
            line.append(freshness.score(stream, polls, cycle).mean)
    print(json.dumps({"cycle": PLOTTED_CYCLES, **series}))
    title = "From a change to its event, 1000 targets, Zipf(1.2) (sched-v1, seed 100)"
    path.write_text(
        chart(title, "cycle, seconds (1000 ÷ requests per second)", "mean delay, seconds", PLOTTED_CYCLES, series)
    )


def main(argv: list[str]) -> None:
    if argv and not argv[0].startswith("-") and not any(Path(argv[0]).glob("*.bin")):
        sys.exit(f"no streams NAME.SEED.bin in {argv[0]}")
    if argv[:1] == ["--svg"]:
        plot(Path(argv[1]))
    elif argv:
        with ProcessPoolExecutor(PROCESSES) as pool:
            for run in pool.map(measure, sorted(Path(argv[0]).glob("*.bin"))):
                print(run.json(), flush=True)
    else:
        whole()


if __name__ == "__main__":
    main(sys.argv[1:])
