"""The committer on real SQLite, mostly in virtual time: groups, back-pressure, faults, cancellation, shutdown."""

import contextlib
import random
import sqlite3
import tempfile
from pathlib import Path

import anyio
import anyio.lowlevel
import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.journal.laws import records, violations
from watcher.ingest.committer import CLOSING, DEADLINE, STOPPING, Committer
from watcher.journal import Fenced
from watcher.journal.sqlite import file as sqlite_file
from watcher.journal.sqlite.file import connect, inline, worker
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.ledger import Ledger
from watcher.model.keys import Key, Scope
from watcher.model.log import Unavailable
from watcher.model.readings import Answer, Reading, Times
from watcher.testing.journal_samples import BEGAN


def in_virtual_time(main, *arguments, seed=0, instruments=()):
    """Run a world. The scheduler is seeded: a world that fails can be seen to fail again.

    It is the life of a process: the files that it could not close when it ended, its end closes.
    """
    trio._core._run._r.seed(seed)
    options = {"clock": MockClock(autojump_threshold=0), "instruments": list(instruments)}
    with contextlib.ExitStack() as files, pytest.MonkeyPatch.context() as process:

        def opened(*where, **how):
            return files.enter_context(contextlib.closing(connect(*where, **how)))

        process.setattr(sqlite_file, "connect", opened)
        return anyio.run(main, *arguments, backend="trio", backend_options=options)


def key(number):
    return Key("bank", "eip155:1", f"a{number}", "native")


def answer(amounts, order=None, listing=None):
    """What a provider said just now: the number of an account → amount (None: there is no such balance)."""
    now = anyio.current_time()
    readings = [
        Reading(key(number), None if amount is None else str(amount), "base", order=order)
        for number, amount in amounts.items()
    ]
    ordering = "none" if order is None else "strict"
    return Answer("bank", readings, ordering, 0.0, Times(now, now, BEGAN + int(now * 1e6)), listing)


OTHER = Key("other", "eip155:1", "a1", "native")


def of(provider, answer):
    """The same from another provider."""
    readings = [
        msgspec.structs.replace(reading, key=msgspec.structs.replace(reading.key, provider=provider))
        for reading in answer.readings
    ]
    return msgspec.structs.replace(answer, provider=provider, readings=readings)


class Disk:
    """How statements are run: inline, after `seconds`, and with whatever trouble the test makes."""

    def __init__(self):
        self.seconds = 0.0
        self.trouble = []
        """Popped at each statement: None, `before` or `after` (the work is done and its answer is lost), `hang`."""

    async def stall(self):
        await anyio.sleep(60.0)
        raise Unavailable("the disk gave up")

    async def __call__(self, work):
        trouble = self.trouble.pop(0) if self.trouble else None
        await anyio.sleep(self.seconds)
        if trouble == "before":
            raise Unavailable("the disk is away")
        if trouble == "hang":
            await self.stall()
        result = work()
        if trouble == "hang after":
            await self.stall()
        if trouble == "after":
            raise Unavailable("the answer was lost")
        await anyio.lowlevel.checkpoint()
        return result


class World:
    """One file and the committer of the process that writes it at the moment."""

    def __init__(self, path, *, gather=0.0, bound=1000, disk=inline):
        self.path = path
        self.journal = SqliteJournal(path, encoding="json", retention=1e9, clock=lambda: BEGAN, runner=lambda: disk)
        self.committer = Committer(self.journal.writer(0), Ledger(), gather=gather, bound=bound)

    @contextlib.asynccontextmanager
    async def running(self):
        async with anyio.create_task_group() as tasks:
            await tasks.start(self.committer.run)
            yield self.committer
            tasks.cancel_scope.cancel()

    def amounts(self):
        return amounts_in(self.path)


def amounts_in(path):
    """What the file says: account → (version, amount)."""
    return {state["account"]: (state["version"], state["amount"]) for state in records(path)[1]}


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_file, "BUSY", 0.0)  # SQLite would wait in real time
    return tmp_path / "balances.db"


class TestGroups:
    def test_what_is_accepted_is_committed(self, path):
        async def main():
            world = World(path)
            async with world.running() as committer:
                assert (await committer.accept(answer({1: 5, 2: 6}, order=1))).baselines == 2
                await committer.flush()
                assert (await committer.accept(answer({1: 7, 2: 6}, order=2))).changed == {key(1)}
                await committer.flush()
                assert world.amounts() == {"a1": (1, "7"), "a2": (0, "6")}
                assert (committer.commits, committer.rows, committer.failures) == (2, 3, 0)

        in_virtual_time(main)
        assert violations(path) == []

    def test_readings_that_arrive_during_a_commit_go_together_in_the_next_one(self, path):
        async def main():
            disk = Disk()
            world = World(path, disk=disk)
            async with world.running() as committer:
                disk.seconds = 1.0
                for number in range(50):
                    await committer.accept(answer({number: 1}, order=1))
                    await anyio.sleep(0.01)
                await committer.flush()
                assert committer.commits == 2
                assert committer.rows == 50

        in_virtual_time(main)

    def test_a_commit_takes_a_thousand_rows_at_most(self, path):
        async def main():
            async with World(path).running() as committer:
                await committer.accept(answer(dict.fromkeys(range(2500), 1), order=1))
                await committer.flush()
                assert committer.commits == 3
                assert committer.rows == 2500

        in_virtual_time(main)

    def test_a_commit_begins_no_sooner_than_gather_seconds_after_the_one_before(self, path):
        async def main():
            async with World(path, gather=0.01).running() as committer:
                for order in range(1, 1001):
                    await committer.accept(answer({1: order}, order=order))
                    await anyio.sleep(0.001)
                await committer.flush()
                assert 80 <= committer.commits <= 101

        in_virtual_time(main)
        assert violations(path) == []

    def test_a_change_alone_waits_for_nothing(self, path):
        async def main():
            async with World(path, gather=10.0).running() as committer:
                await anyio.sleep(60.0)
                began = anyio.current_time()
                await committer.accept(answer({1: 1}, order=1))
                while not committer.commits:
                    await anyio.lowlevel.checkpoint()
                assert anyio.current_time() == began

        in_virtual_time(main)

    def test_a_large_listing_is_judged_in_slices_between_which_others_get_their_turn(self, path):
        async def main():
            async with World(path).running() as committer:
                turns = []

                async def other():
                    while True:
                        await anyio.lowlevel.checkpoint()
                        turns.append(committer.ledger.pending)

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(other)
                    await anyio.lowlevel.checkpoint()
                    turns.clear()
                    scope = Scope("bank", "eip155:1")
                    await committer.accept(answer(dict.fromkeys(range(12_000), 1), order=1, listing=scope))
                    tasks.cancel_scope.cancel()
                assert len(turns) >= 2

        in_virtual_time(main)

    def test_a_memory_restored_in_the_middle_of_a_listing_hears_all_of_it_again(self, path):
        async def main():
            disk = Disk()
            async with World(path, disk=disk).running() as committer:
                disk.trouble = ["before"]
                scope = Scope("bank", "eip155:1")
                for order in (1, 2):
                    await committer.accept(answer(dict.fromkeys(range(12_000), 1), order=order, listing=scope))
                await committer.flush()
                await committer.accept(answer({**dict.fromkeys(range(12_000), 1), 99_999: 4}, order=3, listing=scope))
                await committer.flush()
                assert committer.failures == 1
            found = amounts_in(path)
            assert len(found) == 12_001
            assert found["a99999"] == (1, "4")

        in_virtual_time(main)
        assert violations(path) == []


class TestNotes:
    def test_a_note_goes_with_the_next_commit_and_is_there_after_a_restart(self, path):
        async def main():
            async with World(path).running() as committer:
                committer.note("limiter:bank", b"1")
                committer.note("limiter:bank", b"2")
                committer.note("schedule:bank", b"x")
                assert committer.notes == {"limiter:bank": b"2", "schedule:bank": b"x"}
                await committer.flush()
                assert committer.commits == 1
            async with World(path).running() as committer:
                assert committer.notes == {"limiter:bank": b"2", "schedule:bank": b"x"}

        in_virtual_time(main)

    def test_a_note_survives_a_commit_that_failed_and_never_replaces_a_newer_one(self, path):
        async def main():
            disk = Disk()
            async with World(path, disk=disk).running() as committer:
                disk.seconds = 0.5
                disk.trouble = ["before"]
                committer.note("a", b"old")
                committer.note("b", b"kept")
                await anyio.sleep(0.1)
                committer.note("a", b"new")
                await committer.flush()
            async with World(path).running() as committer:
                assert committer.notes == {"a": b"new", "b": b"kept"}

        in_virtual_time(main)

    def test_flush_returns_at_once_when_everything_is_committed(self, path):
        async def main():
            async with World(path).running() as committer:
                await committer.flush()
                await committer.flush()

        in_virtual_time(main)

    def test_flush_ends_under_a_load_that_never_does(self, path):
        async def main():
            disk = Disk()
            async with World(path, disk=disk).running() as committer:
                disk.seconds = 0.01

                async def load():
                    for order in range(1, 100_000):
                        await committer.accept(answer({order % 50: order}, order=order))
                        await anyio.sleep(0.001)

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(load)
                    await anyio.sleep(1.0)
                    await committer.accept(answer({77: 1}, order=1))
                    with anyio.fail_after(0.2):
                        await committer.flush()
                    assert committer.ledger.get(key(77)).version == 0
                    tasks.cancel_scope.cancel()

        in_virtual_time(main)

    def test_flush_says_so_when_the_end_comes_first(self, path):
        async def main():
            disk, complaints = Disk(), []
            world = World(path, disk=disk)

            async def flush():
                try:
                    await world.committer.flush()
                except Unavailable as error:
                    complaints.append(str(error))

            async with anyio.create_task_group() as tasks, world.running() as committer:
                disk.trouble = ["hang"] * 9
                await committer.accept(answer({1: 1}, order=1))
                tasks.start_soon(flush)
                await anyio.sleep(0.1)
            await flush()
            assert complaints == ["the journal was closed before everything was committed"] * 2

        in_virtual_time(main)

    def test_a_note_is_saved_before_the_rows_that_wait(self, path):
        async def main():
            disk = Disk()
            disk.seconds = 0.05
            async with World(path, disk=disk).running() as committer:
                await committer.accept(answer(dict.fromkeys(range(20_000), 1), order=1))
                await committer.save("limiter:bank", b"one")
                assert committer.ledger.pending > 10_000
                with contextlib.closing(sqlite3.connect(path)) as seen:
                    assert seen.execute("SELECT data FROM note").fetchall() == [(b"one",)]

        in_virtual_time(main)

    def test_save_says_so_when_the_end_comes_first(self, path):
        async def main():
            disk, complaints = Disk(), []
            world = World(path, disk=disk)

            async def save():
                try:
                    await world.committer.save("limiter:bank", b"one")
                except Unavailable as error:
                    complaints.append(str(error))

            async with anyio.create_task_group() as tasks, world.running():
                disk.trouble = ["hang"] * 9
                tasks.start_soon(save)
                await anyio.sleep(0.1)
            assert complaints == ["the journal was closed before a note was committed"]

        in_virtual_time(main)


class TestBacklogs:
    """One provider tells far more than a commit takes."""

    @pytest.fixture
    def disk(self):
        disk = Disk()
        disk.seconds = 0.05
        return disk

    def test_what_another_tells_mostly_finds_the_journal_free(self, path, disk):
        async def main():
            waited = []
            async with World(path, disk=disk).running() as committer:
                await committer.accept(of("other", answer({1: 0}, order=0)))
                await committer.flush()
                await committer.accept(answer(dict.fromkeys(range(6_000), 1), order=1))
                for number in range(1, 40):
                    await anyio.sleep(number * 0.037 % 0.15)
                    began = anyio.current_time()
                    await committer.accept(of("other", answer({1: number}, order=number)))
                    while committer.ledger.get(OTHER).version < number:  # noqa: ASYNC110 (an outside eye)
                        await anyio.sleep(0.001)
                    waited.append(anyio.current_time() - began)
                    assert committer.ledger.waiting("bank") > 0
            assert sum(seconds < 0.055 for seconds in waited) > len(waited) / 3, "else hardly ever"
            assert max(waited) < 0.105

        in_virtual_time(main)
        assert violations(path) == []

    def test_all_of_it_is_committed_at_last_and_at_the_end_without_a_rest(self, path, disk):
        async def main():
            async with World(path, disk=disk).running() as committer:
                await committer.accept(of("other", answer({1: 0}, order=0)))
                await committer.accept(answer(dict.fromkeys(range(2_000), 1), order=1))
                await committer.flush()
                assert len(committer.ledger) == 2_001
                began = anyio.current_time()
                assert committer.commits == pytest.approx(20, abs=2)
                assert began == pytest.approx(20 * 3 * disk.seconds, rel=0.2)
                await committer.accept(answer(dict.fromkeys(range(2_000), 2), order=2))
            assert anyio.current_time() - began == pytest.approx(20 * disk.seconds, rel=0.2)

        in_virtual_time(main)
        assert len(records(path)[0]) == 2_000
        assert violations(path) == []

    def test_one_that_is_alone_does_not_rest(self, path, disk):
        async def main():
            async with World(path, disk=disk).running() as committer:
                began = anyio.current_time()
                await committer.accept(answer(dict.fromkeys(range(5_000), 1), order=1))
                await committer.flush()
                assert anyio.current_time() - began == pytest.approx(5 * disk.seconds, rel=0.2)

        in_virtual_time(main)


class TestTheJournalIsDown:
    def test_pollers_wait_for_minutes_with_a_flat_memory_and_nothing_is_lost(self, path):
        async def main():
            world, pending, accepted = World(path, bound=40), [], dict.fromkeys(range(120), 0)

            async def poll(number):
                order = 0
                while True:
                    order += 1
                    await committer.accept(answer({number: order // 2}, order=order))
                    accepted[number] = order // 2
                    pending.append(committer.ledger.pending)
                    await anyio.sleep(1.0)

            async with world.running() as committer, anyio.create_task_group() as tasks:
                for number in accepted:
                    tasks.start_soon(poll, number)
                await anyio.sleep(30.0)
                with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as thief:
                    thief.execute("BEGIN IMMEDIATE")
                    await anyio.sleep(1.5)  # not when the others wake up too
                    waiting = len(pending)
                    await anyio.sleep(600.0)
                    assert len(pending) == waiting, "nobody gets past a journal that is down"
                    assert committer.problem is not None
                    assert committer.failures > 100
                    thief.execute("ROLLBACK")
                await anyio.sleep(30.0)
                assert committer.problem is None
                tasks.cancel_scope.cancel()
            assert max(pending) <= 40 + 1
            assert {int(name[1:]): int(amount) for name, (_, amount) in world.amounts().items()} == accepted
            assert min(accepted.values()) >= 28

        in_virtual_time(main)
        assert violations(path) == []

    def test_the_start_waits_for_a_journal_that_is_not_there_yet(self, path):
        async def main():
            disk = Disk()
            disk.trouble = ["before"] * 5
            async with World(path, disk=disk).running() as committer:
                assert committer.ready.is_set()
                assert committer.failures == 5
                assert anyio.current_time() >= 0.1 + 0.2 + 0.4 + 0.8 + 1.6

        in_virtual_time(main)

    @pytest.mark.parametrize("trouble", ["hang", "hang after"])
    def test_a_commit_without_an_answer_is_given_up_and_settled_by_the_next_open(self, path, trouble):
        async def main():
            disk = Disk()
            async with World(path, disk=disk).running() as committer:
                await committer.accept(answer({1: 1}, order=1))
                await committer.flush()
                began = anyio.current_time()
                disk.trouble = [trouble]
                await committer.accept(answer({1: 2}, order=2))
                await committer.flush()
                assert DEADLINE <= anyio.current_time() - began < DEADLINE + 1
                await committer.accept(answer({1: 3}, order=3))

        in_virtual_time(main)
        assert violations(path) == []
        assert amounts_in(path) == {"a1": (2, "3")}

    def test_a_successor_ends_the_run_with_fenced(self, path):
        async def twice():
            first, second = World(path), World(path)
            async with anyio.create_task_group() as tasks:
                ended = []

                async def run():
                    try:
                        await first.committer.run()
                    except Fenced as error:
                        ended.append(error)

                tasks.start_soon(run)
                await first.committer.ready.wait()
                await first.committer.accept(answer({1: 1}, order=1))
                await first.committer.flush()
                async with second.running() as committer:
                    for order in (2, 3):  # after a start, the first differing answer wants to be confirmed
                        await committer.accept(answer({1: 2}, order=order))
                        await anyio.sleep(1.0)
                    await committer.flush()
                    await first.committer.accept(answer({1: 3}, order=4))
                    await anyio.sleep(1.0)
                    assert len(ended) == 1
                    with pytest.raises(Unavailable):
                        await first.committer.flush()
            assert second.amounts() == {"a1": (1, "2")}

        in_virtual_time(twice)
        assert violations(path) == []


class TestStopping:
    def test_what_pends_is_committed_at_the_end(self, path):
        async def main():
            disk = Disk()
            world = World(path, disk=disk, bound=10_000)
            async with world.running() as committer:
                disk.seconds = 0.1
                await committer.accept(answer(dict.fromkeys(range(2500), 1), order=1))
                committer.note("limiter:bank", b"stamps")
                await anyio.sleep(0.05)
                committer.note("late", b"too")
            assert len(world.amounts()) == 2500
            async with World(path).running() as committer:
                assert committer.notes == {"limiter:bank": b"stamps", "late": b"too"}

        in_virtual_time(main)

    @pytest.mark.parametrize("moment", [0.0, 2.0, 7.5])
    def test_a_journal_that_does_not_answer_delays_the_end_for_seconds_only(self, path, moment):
        async def main():
            disk = Disk()
            async with World(path, disk=disk).running() as committer:
                disk.trouble = ["hang"] * 9
                await committer.accept(answer({1: 1}, order=1))
                await anyio.sleep(moment)
                began = anyio.current_time()
            assert anyio.current_time() - began <= STOPPING + CLOSING

        in_virtual_time(main)

    def test_stopping_while_the_journal_is_down_is_immediate(self, path):
        async def main():
            disk = Disk()
            disk.trouble = ["before"] * 1000
            with anyio.move_on_after(20.0):
                await World(path, disk=disk).committer.run()
            assert anyio.current_time() <= 20.0 + CLOSING

        in_virtual_time(main)


class Cut(trio.abc.Instrument):
    """Cancels a scope just before the n-th step that any task takes after `armed`."""

    def __init__(self, step):
        self.left = step
        self.scope = None

    def before_task_step(self, _task):
        if self.scope is not None:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


class TestCancellation:
    """Issue: cancellation at every await of the commit path. Steps of tasks are where cancellation can strike."""

    SCRIPT = ({1: 1, 2: 1}, {1: 2}, {2: 5, 3: 1}, {1: 1, 2: 6}, {3: 9})

    def test_at_no_await_of_the_commit_path_does_it_break_a_law(self, path):
        step, reached = 0, True
        while reached:
            step += 1
            for file in path.parent.iterdir():
                file.unlink()
            cut = Cut(step)
            in_virtual_time(self.live, path, cut, instruments=[cut])
            reached = cut.left <= 0
            before = path.exists() and amounts_in(path)
            assert not before or violations(path) == []
            in_virtual_time(self.go_on, path)
            assert violations(path) == []
            assert {name: amount for name, (_, amount) in amounts_in(path).items()} == {
                "a1": "1",
                "a2": "6",
                "a3": "9",
            }
        assert step > 40

    async def live(self, path, cut):
        disk = Disk()
        with anyio.CancelScope() as scope:
            cut.scope = scope
            async with World(path, disk=disk, gather=0.01).running() as committer:
                disk.trouble = [None, "after", None, "before"]
                for order, amounts in enumerate(self.SCRIPT, 1):
                    await committer.accept(answer(amounts, order=order))
                    committer.note("order", b"%d" % order)
                    await anyio.sleep(0.005)
                await committer.flush()
        cut.scope = None

    async def go_on(self, path):
        async with World(path).running() as committer:
            for order in (100, 101):
                await committer.accept(answer({1: 1, 2: 6, 3: 9}, order=order))
                await anyio.sleep(1.0)
            await committer.flush()


class TestAnyTrouble:
    @settings(max_examples=40, deadline=None)
    @given(
        trouble=st.lists(st.sampled_from([None, None, "before", "after", "hang", "hang after"]), max_size=30),
        seed=st.integers(0, 2**32),
    )
    def test_whatever_the_journal_does_the_laws_hold_and_the_last_amounts_arrive(self, trouble, seed):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "balances.db"
            final = in_virtual_time(self.live, path, trouble, seed, seed=seed)
            assert violations(path) == []
            assert amounts_in(path).keys() == {f"a{number}" for number in final}
            assert {name: amount for name, (_, amount) in amounts_in(path).items()} == {
                f"a{number}": str(amount) for number, amount in final.items()
            }

    async def live(self, path, trouble, seed):
        rng, truth, disk = random.Random(seed), dict.fromkeys(range(5), 0), Disk()
        async with World(path, disk=disk, gather=0.01).running() as committer:
            disk.trouble = list(trouble)
            for order in range(1, 60):
                truth[rng.randrange(5)] = rng.randrange(4)
                asked = rng.sample(sorted(truth), rng.randrange(1, 6))
                await committer.accept(answer({number: truth[number] for number in asked}, order=order))
                await anyio.sleep(rng.choice([0.0, 0.001, 0.02]))
            for order in (100, 101):
                await committer.accept(answer(truth, order=order))
                await anyio.sleep(1.0)
            await committer.flush()
        return truth


class TestSeveralProviders:
    def test_whoever_tells_little_does_not_wait_behind_one_who_tells_much(self, path):
        async def main():
            disk = Disk()
            world = World(path, bound=100, disk=disk)
            async with world.running() as committer:
                disk.seconds = 1.0
                await committer.accept(answer(dict.fromkeys(range(5000), 1), order=1))
                began = anyio.current_time()
                other = Key("shop", "eip155:1", "a1", "native")
                said = msgspec.structs.replace(answer({}), readings=[Reading(other, "1", "base")], provider="shop")
                await committer.accept(said)
                assert anyio.current_time() == began
                await anyio.sleep(3.0)
                assert committer.ledger.get(other).version == 0
                assert committer.ledger.waiting("bank") >= 2000

        in_virtual_time(main)


class TestProduction:
    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_it_runs_on_a_thread_of_its_own_under_either_loop(self, path, backend):
        async def main():
            world = World(path, disk=worker())
            async with world.running() as committer:
                for order in range(1, 50):
                    await committer.accept(answer(dict.fromkeys(range(order % 5 + 1), order), order=order))
                await committer.flush()
                assert world.amounts()["a0"][1] == "49"

        anyio.run(main, backend=backend)
        assert violations(path) == []
