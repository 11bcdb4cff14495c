"""How fast a month is rehearsed, and whether what is rehearsed comes true: the daemon before a sandbox, and the same beforehand.

python -m tests.bench.rehearsal                          both: ten minutes
python -m tests.bench.rehearsal --seeds 5 --seconds 600  of five worlds, ten minutes each
python -m tests.bench.rehearsal --only speed             how long a month of 1,000 watches takes
"""

import argparse
import json
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.e2e.harness import KEY, PATIENCE, House
from tests.polling import solana
from tests.rehearsal.beside import BEHIND, delays, mean, rehearsed
from watcher.model.keys import Key
from watcher.providers.registry import known
from watcher.sandbox.truth import SLOT_SECONDS

WATCHES = 1000
RATE = 8.0
"""Changes a second, of which each provider has a fifth."""
TRAVEL = 0.05
LATENCY = 2 * TRAVEL * 1.083
"""Seconds: the mean of twice the network's delay, of which the sandbox is given the median."""
WARM = 40.0
"""Seconds after which every balance has been read once."""
LIMITS = {"jupiter": (1, 2.0), "bloxroute": (1, 2.0), "helius": (1, 1.0), "ondo": (1, 1.0), "tokenkit": (1, 5.0)}
GENEROUS = ",".join(f"{name}=100000/1" for name in LIMITS)
WITHIN = 0.10


def watches(name: str, count: int) -> Iterator[dict[str, str]]:
    for i in range(count):
        if name == "tokenkit":
            yield {"account": f"0x{i + 1:x}", "token": "0x99"}
        else:
            yield {"account": solana(i), **({"chain": "solana-900"} if name == "ondo" else {})}


def config(house: House, counts: dict[str, int]) -> Path:
    tables = {
        name: {"type": name, "api_key_env": KEY, "watch": list(watches(name, count))} for name, count in counts.items()
    }
    return house.config(tables, name=f"{'-'.join(counts)}.toml")


def timed(house: House, counts: dict[str, int], *more: str) -> float:
    path = config(house, counts)
    began = time.monotonic()
    done = house.finished("rehearse", "-c", path, "--synthetic", *more)
    assert done.status == 0, done.err
    return time.monotonic() - began


def speed(house: House) -> None:
    print("| a month of watches, default limits | seconds | with --whole |\n|---|---|---|")
    names = list(LIMITS)
    cases = {f"{WATCHES:,} over all five": dict.fromkeys(names, WATCHES // len(names))}
    cases |= {f"{WATCHES:,} of {name}": {name: WATCHES} for name in names}
    for text, counts in cases.items():
        print(f"| {text} | {timed(house, counts):.1f} | {timed(house, counts, '--whole'):.1f} |", flush=True)


def truth_of(report, name, begin, end):
    """Key → (seconds since `begin` at which the API shows each move, amounts)."""
    balances = report["providers"][name]["balances"]
    # Slot 0 began, as seen by the moves: each lies within its slot.
    phase = min(one["time"] - one["slot"] * SLOT_SECONDS for balance in balances for one in balance["changes"])
    found = {}
    for balance in balances:
        moves = [(_shown(name, one, phase), one["amount"]) for one in balance["changes"]]
        before = [amount for time, amount in moves if time < begin]
        inside = [(time - begin, amount) for time, amount in moves if begin <= time < end]
        opening = before[-1] if before else balance["initial"]
        key = Key(*(balance[part] for part in ("provider", "chain", "account", "token", "kind")))
        found[key] = ([time for time, _ in inside], [opening, *(amount for _, amount in inside)])
    return found


def _shown(name, move, phase):
    behind = BEHIND.get(name)
    return move["time"] if behind is None else phase + (move["slot"] + behind) * SLOT_SECONDS


def events_of(path: Path, begin: float) -> dict[Key, list[float]]:
    found: dict[Key, list[float]] = {}
    with sqlite3.connect(path) as connection:
        for key, observed_at in connection.execute("SELECT key, observed_at FROM event ORDER BY seq"):
            found.setdefault(Key.parse(key), []).append(observed_at / 1e6 - begin)
    return found


def beside(folder: Path, seed: int, seconds: float) -> dict[str, tuple[float, float, float, int]]:
    """Provider → mean delays: as it was, as it is rehearsed over what truly happened, over what the journal has; and of how many."""
    house = House(folder)
    try:
        sandbox = house.sandbox(seed=seed, rate=RATE, faults=f"latency={TRAVEL},cache=60", limits=GENEROUS)
        tables = {
            name: {**table, "limits": [{"requests": LIMITS[name][0], "per": LIMITS[name][1]}], "timeout": PATIENCE}
            for name, table in sandbox.providers().items()
        }
        tables["bloxroute"]["cost"] = 1
        del tables["tokenkit"]["max_age"]
        path = house.config(tables)
        daemon = house.run(path)
        begin = time.time()
        time.sleep(seconds)
        end = time.time()
        report = sandbox.report()
        assert daemon.end()[0] == 0
        events = events_of(folder / "balances.db", begin)
        arguments = ("-c", path, "--days", seconds / 86400, "--latency", LATENCY, "--json", "--whole")
        document = json.loads(house.finished("rehearse", *arguments).out)
    finally:
        house.close()
    recorded = {one["provider"]: one["delays"]["mean"] for one in document["new"]}
    found = {}
    for name, table in tables.items():
        moves = truth_of(report, name, begin, end)
        own = {key: events.get(key, []) for key in moves}
        real = delays(moves, own, dict.fromkeys(moves, WARM), LATENCY / 2)
        settings = msgspec.convert(table, known()[name].Settings)
        beforehand = rehearsed(settings, moves, end - begin, latency=LATENCY, since=WARM)
        found[name] = (mean(real), beforehand.delays.mean or 0.0, recorded[name], len(real))
    return found


def comparison(seeds: int, seconds: float) -> bool:
    print(
        "| world, provider | changes | mean delay, daemon | rehearsed over the truth | over its journal |\n|---|---|---|---|---|"
    )
    ratios: dict[str, list[tuple[float, float]]] = {}
    for seed in range(1, seeds + 1):
        with tempfile.TemporaryDirectory() as folder:
            for name, (real, true, recorded, count) in beside(Path(folder), seed, seconds).items():
                ratios.setdefault(name, []).append((true / real, recorded / real))
                cells = f"{real:.2f} s | {true:.2f} s ({true / real - 1:+.1%}) | {recorded:.2f} s ({recorded / real - 1:+.1%})"
                print(f"| {seed}, {name} | {count} | {cells} |", flush=True)
    fine = True
    for name, pairs in ratios.items():
        true, recorded = (mean([pair[i] for pair in pairs]) - 1 for i in (0, 1))
        fine &= abs(true) <= WITHIN
        print(f"{name}: {true:+.1%} over the truth, {recorded:+.1%} over its journal, mean of {len(pairs)}")
    return fine


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=240.0, help="of each world")
    parser.add_argument("--only", choices=("speed", "truth"))
    options = parser.parse_args()
    if options.only != "truth":
        with tempfile.TemporaryDirectory() as folder:
            house = House(Path(folder))
            try:
                speed(house)
            finally:
                house.close()
    return 0 if options.only == "speed" or comparison(options.seeds, options.seconds) else 1


if __name__ == "__main__":
    raise SystemExit(main())
