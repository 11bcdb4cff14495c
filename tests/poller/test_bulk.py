"""The real poller over answers of Ondo of more than a megabyte, as bytes."""

import anyio
import httpx
import pytest
from trio.testing import MockClock

from tests.journal.laws import records, violations
from tests.polling import START, Api, journal, poller_of, virtually
from tests.providers.golden import AAPL, TSLA
from tests.providers.test_large import body
from watcher.model.times import format_rfc3339
from watcher.poller.bulk import LARGE
from watcher.providers.ondo import Ondo, OndoSettings
from watcher.providers.ondo_bulk import SIZE
from watcher.providers.settings import Watch
from watcher.runtime.slicing import REST, STEPS, TURN, run_in_slices

HELD = {f"0x{n * 2**140 + n:040x}": f"{n}.5" for n in range(1, 11_501)}
ONE, OTHER, NEW = "0x" + f"{7 * 2**140 + 7:040x}", "0x" + f"{9_000 * 2**140 + 9_000:040x}", "0x" + "ab" * 20


class Counted(Ondo):
    """How often it had to read an answer in slices."""

    reads = 0

    def read_in_slices(self, request, response, size=SIZE):
        self.reads += 1
        return (yield from super().read_in_slices(request, response, size))


def answered_body(more=(), **changes):
    """An answer in which AAPL's holders are HELD, but for `changes`, and some rows come behind those."""
    rows = {**HELD, **changes}
    return body([(AAPL, [*rows.items(), *more]), (TSLA, [(ONE, "3")])])


def polled(folder, bodies, *, reads):
    """Give these answers and then the last one for ever; the API, and all events by account."""
    assert min(map(len, bodies)) > LARGE
    provider = Counted("ondo", OndoSettings(type="ondo", watch=[Watch(chain="ethereum-1")]), keyed=True)
    done = anyio.Event()

    def answer(_request, n):
        if n == len(bodies) + 2:  # whoever is asked once more has taken in all before
            done.set()
        return httpx.Response(200, content=bodies[min(n, len(bodies)) - 1])

    api = Api(answer)

    async def main():
        async with journal(file) as committer:
            poller = poller_of(provider, api, committer)
            async with anyio.create_task_group() as tasks:
                await tasks.start(poller.run)
                await done.wait()
                tasks.cancel_scope.cancel()
            await committer.flush()
            return poller

    file = folder / "balances.db"
    poller = virtually(main)
    assert provider.reads == reads
    assert violations(file) == []
    events = {}
    for _, event in records(file)[0]:
        events.setdefault(event["account"], []).append(event)
    return poller, api, events


def test_a_change_is_told_once_and_a_repeated_answer_is_a_sight_without_being_read(tmp_path):
    first, second = answered_body(), answered_body(**{ONE: "8"})
    third = answered_body([(NEW, "1")], **{ONE: "9", OTHER: "4"})
    bodies = [first, first, second, second, second, third]
    poller, api, events = polled(tmp_path, bodies, reads=4)
    amounts = {name: [(e["previous_amount"], e["amount"]) for e in each] for name, each in events.items()}
    assert amounts == {ONE: [("7.5", "8"), ("8", "9")], OTHER: [("9000.5", "4")], NEW: [("0", "1")]}

    def answered(n):
        return format_rfc3339(START + round((api.times[n - 1] + 0.03) * 1e6))

    spans = [(e["previous_observed_at"], e["observed_at"]) for e in events[ONE]]
    assert spans == [(answered(2), answered(3)), (answered(5), answered(6))]
    assert events[OTHER][0]["previous_observed_at"] == events[NEW][0]["previous_observed_at"] == answered(5)
    assert poller.stats.failures == {}
    assert poller.stats.changes == 4


@pytest.mark.parametrize("bad", [("0x12", "5"), (NEW, "-1"), (NEW, None), (OTHER, None)])
def test_one_row_that_cannot_be_understood_hides_no_other_one(tmp_path, bad):
    """Its own balance is unknown, even where another row tells it well."""
    news = dict.fromkeys(list(HELD)[:30], "1")
    wrong, after = answered_body([bad], **news, **{OTHER: "4"}), answered_body(**{**news, OTHER: "4", ONE: "9"})
    poller, api, events = polled(tmp_path, [answered_body(), answered_body(), wrong, after], reads=4)
    assert {name: [event["amount"] for event in each] for name, each in events.items()} == {
        **{name: ["1", "9"] if name == ONE else ["1"] for name in news},
        OTHER: ["4"],
    }
    seen = 4 if bad[0] == OTHER else 3
    assert events[OTHER][0]["observed_at"] == format_rfc3339(START + round((api.times[seen - 1] + 0.03) * 1e6))
    assert poller.stats.failures == {}


def test_an_answer_that_contradicts_itself_in_one_row_says_nothing(tmp_path):
    wrong = answered_body([(OTHER, "5")], **dict.fromkeys(list(HELD)[:30], "1"))
    after = answered_body(**{ONE: "9"})
    poller, _, events = polled(tmp_path, [answered_body(), answered_body(), wrong, after], reads=4)
    assert {name: [event["amount"] for event in each] for name, each in events.items()} == {ONE: ["9"]}
    assert poller.stats.failures == {"malformed": 1}


def test_what_is_gone_is_told_once_it_is_confirmed(tmp_path):
    gone = list(HELD)[100:140]
    without = body([(AAPL, [row for row in HELD.items() if row[0] not in gone]), (TSLA, [(ONE, "3")])])
    _, _, events = polled(tmp_path, [answered_body(), answered_body(), without, without], reads=4)
    assert {name: [event["amount"] for event in each] for name, each in events.items()} == {
        name: ["0"] for name in gone
    }


def test_work_in_slices_rests_when_it_has_had_its_turn_and_not_at_each_step():
    clock = MockClock(autojump_threshold=0)

    def work(steps, seconds):
        for _ in range(steps):
            clock.jump(seconds)
            yield

    async def rests(steps, seconds):
        began, worked = anyio.current_time(), steps * seconds
        await run_in_slices(work(steps, seconds))
        return anyio.current_time() - began - worked

    async def main():
        assert await rests(3, TURN / 4) == 0
        assert await rests(8, TURN / 4) == pytest.approx(REST * 2 * TURN)
        assert await rests(2, 10 * TURN) == pytest.approx(REST * 20 * TURN)

    virtually(main, clock=clock)


def test_work_in_slices_lets_others_in_where_time_stands_still():
    turns = []

    def work():
        for _ in range(3 * STEPS):
            turns.append("ours")
            yield

    async def other():
        while True:
            turns.append("other")
            await anyio.lowlevel.checkpoint()

    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            await run_in_slices(work())
            tasks.cancel_scope.cancel()

    virtually(main)
    assert turns.count("other") >= 2


def test_work_in_slices_whose_process_stood_still_for_long_goes_on_soon():
    clock = MockClock(autojump_threshold=0)

    def work():
        clock.jump(600.0)  # stopped, and woken
        yield

    async def main():
        await run_in_slices(work())
        assert anyio.current_time() < 601.0

    virtually(main, clock=clock)
