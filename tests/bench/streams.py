"""The seeded change streams of benchmark `sched-v1`, the same bytes for everybody.

A stream is a file NAME.SEED.bin of little-endian records (uint32 milliseconds, uint16 target), sorted by time: 1000
targets, 28,800 seconds. `python -m tests.bench.streams DIR` writes all 55. The order of the random draws is the format:
change it and the hashes in tests/scheduling/test_schedule.py say so.
"""

import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

TARGETS = 1000
SECONDS = 28800.0
SEEDS = range(100, 105)
MEAN = 10.0 / 3600.0  # changes per second: ten an hour for each account, the mean of most streams
RECORD = np.dtype([("ms", "<u4"), ("target", "<u2")])

Changes = tuple[np.ndarray, np.ndarray]  # target of each change, and its time in seconds
Segments = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # target, from, until, rate


def _by_target(changes: Changes) -> Changes:
    ids, times = changes
    order = np.lexsort((times, ids))
    return ids[order], times[order]


def _from_segments(rng: np.random.Generator, segments: Segments) -> Changes:
    """Poisson changes of piecewise constant rates."""
    target, start, end, rate = segments
    n = rng.poisson(rate * (end - start))
    return np.repeat(target, n), np.repeat(start, n) + rng.random(n.sum()) * np.repeat(end - start, n)


def zipf_rates(rng: np.random.Generator, targets: int, s: float, mean: float = MEAN) -> np.ndarray:
    rates = np.arange(1, targets + 1, dtype=float) ** (-s)
    rates *= mean * targets / rates.sum()
    rng.shuffle(rates)
    return rates


def poisson(rng: np.random.Generator, targets: int, seconds: float, s: float = 0.0) -> Changes:
    """Steady rates, Zipf(s)."""
    rates = zipf_rates(rng, targets, s)
    return _from_segments(rng, (np.arange(targets), np.zeros(targets), np.full(targets, seconds), rates))


def mmpp(rng: np.random.Generator, targets: int, seconds: float) -> Changes:
    """Bursts: hot spells (mean 60 s, 20 changes each) with Zipf(1) frequency; 5 % of changes happen outside them."""
    spell, cold_share = 60.0, 0.05
    rates = zipf_rates(rng, targets, 1.0)
    hot_rates = np.full(targets, 20.0 / spell)
    duty = np.minimum(rates * (1 - cold_share) / hot_rates, 0.8)
    off = 1.0 / spell
    on = off * duty / (1 - duty)
    cold_rates = np.full(targets, 0.0) + rates * cold_share
    rows = []
    for i in range(targets):
        t, hot = 0.0, rng.random() < on[i] / (on[i] + off)
        while t < seconds:
            end = min(seconds, t + rng.exponential(1.0 / (off if hot else on[i])))
            rows.append((i, t, end, (hot_rates + cold_rates)[i] if hot else cold_rates[i]))
            t, hot = end, not hot
    target, start, end, rate = zip(*rows, strict=True)
    return _from_segments(rng, (np.array(target), np.array(start), np.array(end), np.array(rate)))


def hawkes(rng: np.random.Generator, targets: int, seconds: float) -> Changes:
    """Self-exciting: Zipf(1) immigrants, each change begets 0.85 others after Exp(45 s)."""
    branch, tau = 0.85, 45.0
    n = rng.poisson(zipf_rates(rng, targets, 1.0) * (1 - branch) * seconds)
    ids = np.repeat(np.arange(targets), n)
    times = rng.random(n.sum()) * seconds
    all_ids, all_times = [ids], [times]
    while len(ids):
        children = rng.poisson(branch, len(ids))
        ids = np.repeat(ids, children)
        times = np.repeat(times, children) + rng.exponential(tau, children.sum())
        inside = times < seconds
        ids, times = ids[inside], times[inside]
        all_ids.append(ids)
        all_times.append(times)
    return np.concatenate(all_ids), np.concatenate(all_times)


def drift(rng: np.random.Generator, targets: int, seconds: float) -> Changes:
    """Zipf(1.2); every two hours a random quarter of the targets exchange their rates."""
    current = zipf_rates(rng, targets, 1.2)
    parts, t = [], 0.0
    while t < seconds:
        end = min(seconds, t + 7200.0)
        parts.append((np.arange(targets), np.full(targets, t), np.full(targets, end), current.copy()))
        moved = rng.choice(targets, max(2, int(0.25 * targets)), replace=False)
        current[moved] = current[rng.permutation(moved)]
        t = end
    target, start, end, rate = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _from_segments(rng, (target, start, end, rate))


def wake(rng: np.random.Generator, targets: int, seconds: float) -> Changes:
    """Against learning: all is quiet, but at random times one target wakes for 15 minutes and never again."""
    duration, rate, quiet = 900.0, 1 / 10.0, 1 / 86400.0
    n = min(targets // 2, max(8, int(seconds / 1800.0)))
    woken = rng.choice(targets, n, replace=False)
    starts = np.sort(rng.random(n)) * (seconds - duration)
    wakes = dict(zip(woken.tolist(), starts.tolist(), strict=True))
    rows = []
    for i in range(targets):
        if i in wakes:
            a = wakes[i]
            rows += [(i, 0.0, a, quiet), (i, a, a + duration, rate), (i, a + duration, seconds, quiet)]
        else:
            rows.append((i, 0.0, seconds, quiet))
    target, start, end, rates = zip(*rows, strict=True)
    return _from_segments(rng, (np.array(target), np.array(start), np.array(end), np.array(rates)))


def refractory(rng: np.random.Generator, targets: int, seconds: float) -> Changes:
    """The opposite of bursts: Gamma(10) gaps of equal mean, so a change makes the next one less likely."""
    shape, n = 10.0, int(seconds * MEAN * 1.6 + 40)
    gaps = rng.gamma(shape, 1.0 / (shape * MEAN), (targets, n))
    gaps[:, 0] *= rng.random(targets)
    times = np.cumsum(gaps, 1).ravel()
    inside = times < seconds
    return np.repeat(np.arange(targets), n)[inside], times[inside]


def mixed(rng: np.random.Generator, targets: int, seconds: float) -> Changes:
    """One third steady Zipf(1.2), one third bursts, one third refractory."""
    third = targets // 3
    sizes = (third, third, targets - 2 * third)
    parts = (poisson(rng, third, seconds, 1.2), mmpp(rng, third, seconds), refractory(rng, sizes[2], seconds))
    ids = [part[0] + sum(sizes[:k]) for k, part in enumerate(parts)]
    return np.concatenate(ids), np.concatenate([part[1] for part in parts])


def oneshot(rng: np.random.Generator, targets: int, seconds: float) -> Changes:
    """Every target changes exactly once, at any instant, and never again."""
    return np.arange(targets), rng.random(targets) * seconds


def epoch(rng: np.random.Generator, targets: int, seconds: float) -> Changes:
    """A common cause: all change within half a second once an hour; a tenth of the usual background, Zipf(1)."""
    every = 3600.0
    n = rng.poisson(zipf_rates(rng, targets, 1.0, MEAN / 10) * seconds)
    ids = np.repeat(np.arange(targets), n)
    times = rng.random(n.sum()) * seconds
    beats = np.arange(rng.random() * every, seconds, every)
    common = np.repeat(beats, targets) + rng.random(targets * len(beats)) * 0.5
    return np.concatenate([ids, np.tile(np.arange(targets), len(beats))]), np.concatenate([times, common])


STREAMS: dict[str, Callable[[np.random.Generator, int, float], Changes]] = {
    "uniform": poisson,
    "zipf1.2": lambda rng, targets, seconds: poisson(rng, targets, seconds, 1.2),
    "zipf1.5": lambda rng, targets, seconds: poisson(rng, targets, seconds, 1.5),
    "drift": drift,
    "mmpp": mmpp,
    "hawkes": hawkes,
    "mixed": mixed,
    "wake": wake,
    "epoch": epoch,
    "oneshot": oneshot,
    "refractory": refractory,
}


def records(name: str, seed: int, targets: int = TARGETS, seconds: float = SECONDS) -> np.ndarray:
    rng = np.random.default_rng([zlib.crc32(name.encode()), targets, int(seconds), seed])
    ids, times = _by_target(STREAMS[name](rng, targets, seconds))
    ms = np.floor(times * 1000).astype(np.uint32)
    order = np.lexsort((ids, ms))
    made = np.zeros(len(ms), dtype=RECORD)
    made["ms"], made["target"] = ms[order], ids[order]
    return made


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in STREAMS:
        for seed in SEEDS:
            (folder / f"{name}.{seed}.bin").write_bytes(records(name, seed).tobytes())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
