"""The ledger at size: `python -m tests.bench.ledger [rows]`.

- compare: judging a listing of 500,000 holders in which hardly anything changed, against a bare typed decode of it;
- hold: the longest that one slice of it keeps the event loop;
- account: judging a small listing while a million other balances stand beside it, against the same alone;
- restore: a million states into a ledger, against decoding them;
- memory of a key.
"""

import gc
import statistics
import sys
import time
import tracemalloc

import msgspec

from watcher.ledger import Ledger
from watcher.model.events import JSON, BalanceState
from watcher.model.keys import Key, Scope
from watcher.model.readings import Answer, Reading, Times
from watcher.model.times import format_rfc3339

CHAIN, TOKEN = "eip155:1", "0x" + "ab" * 20
LISTING = Scope("ondo", CHAIN, None, TOKEN)


class Holder(msgspec.Struct, gc=False):
    account: str


class Balance(msgspec.Struct, gc=False):
    holder: Holder = msgspec.field(name="holderAddress")
    balance: str


def body(rows, changed):
    """About 108 bytes a row, like Ondo's."""
    return msgspec.json.encode(
        [
            Balance(Holder(f"0x{n * 7919:040x}"), f"{n % 977 + changed(n)}.46758380011703843{n % 9 + 1}")
            for n in range(rows)
        ]
    )


def answer(rows, now):
    readings = [Reading(Key("ondo", CHAIN, row.holder.account, TOKEN), row.balance, "decimal") for row in rows]
    return Answer("ondo", readings, "none", 60.0, Times(now - 1, now, int(now * 1e6)), LISTING)


def drain(ledger):
    while not ledger.idle:
        ledger.take(100_000)
        ledger.committed()


def timed(work):
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def compare(rows):
    decoder = msgspec.json.Decoder(list[Balance])
    ledger = Ledger()
    ledger.restore([], {}, "e0")
    bodies = [body(rows, lambda n, k=k: k * (n % 10_000 == 0)) for k in (0, 0, 1, 2, 3)]
    ratios, judged_seconds, longest = [], [], 0.0
    for turn, data in enumerate(bodies):
        decoding, decoded = timed(lambda data=data: decoder.decode(data))
        said = answer(decoded, 100.0 * (turn + 1))
        if turn < 2:
            ledger.evaluate(said)
        elif turn < 4:
            judging, verdict = timed(lambda said=said: ledger.evaluate(said))
            assert len(verdict.changed) == -(-rows // 10_000), len(verdict.changed)
            ratios.append(judging / decoding)
            judged_seconds.append(judging)
        else:
            longest = slice_times(ledger.evaluating(said))
        drain(ledger)
    size = len(bodies[0]) / 1e6
    print(
        f"compare: {rows:,} rows ({size:.0f} MB) judged in {min(judged_seconds):.2f} s, "
        f"{min(judged_seconds) / rows * 1e6:.2f} µs a row, {min(ratios):.2f} × a bare typed decode"
    )
    print(f"hold: the longest slice took {longest * 1e3:.1f} ms (goal 50)")


def slice_times(evaluating):
    longest = 0.0
    while True:
        seconds, more = timed(lambda: next(evaluating, evaluating))
        longest = max(longest, seconds)
        if more is evaluating:
            return longest


def states(count):
    for n in range(count):
        yield BalanceState(
            provider="ondo", chain=CHAIN, account=f"0x{n * 7919:040x}", token=TOKEN, kind="total", symbol="AAPLon",
            version=n % 5, amount=f"{n % 977}.46758380011703843{n % 9 + 1}", unit="decimal", decimals=None, slot=None,
            as_of=None, observed_at=format_rfc3339(1_700_000_000_000_000 + n), order=None,
        )  # fmt: skip


def restore(count):
    records = [JSON.encode(state) for state in states(count)]
    gc.collect()
    decoding, _ = timed(lambda: sum(1 for record in records if JSON.state(record)))
    ledger = Ledger()
    restoring, _ = timed(lambda: ledger.restore(map(JSON.state, records), {}, "e0"))
    print(f"restore: {count:,} states in {restoring:.2f} s, {restoring / decoding:.2f} × decoding them")
    return ledger


def memory(count):
    gc.collect()
    tracemalloc.start()
    ledger = Ledger()
    ledger.restore((JSON.state(JSON.encode(state)) for state in states(count)), {}, "e0")
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"memory: {taken / len(ledger):.0f} B a key over {count:,} keys, one account each (goal 400)")


def account(crowd):
    """Small listings: what stands beside them must not matter."""

    def cost(ledger):
        for now in (1.0, 2.0):
            ledger.evaluate(small(now))
        drain(ledger)
        return statistics.median(timed(lambda n=n: ledger.evaluate(small(3.0 + n)))[0] for n in range(200))

    def small(now):
        readings = [Reading(Key("ondo", CHAIN, "0xme", f"t{n}"), "5", "decimal") for n in range(20)]
        return Answer(
            "ondo", readings, "none", 60.0, Times(now, now + 0.5, int(now * 1e6)), Scope("ondo", CHAIN, "0xme")
        )

    alone = Ledger()
    alone.restore([], {}, "e0")
    one, many = cost(alone), cost(crowd)
    print(f"account: 20 balances judged in {many * 1e6:.0f} µs beside {len(crowd):,}, {many / one:.2f} × alone")


def main(argv=()):
    rows = int(argv[0]) if argv else 500_000
    compare(rows)
    account(restore(2 * rows))
    memory(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
