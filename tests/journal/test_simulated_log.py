"""Committer and ledger over a simulated log: any order of moves, polls, lost answers, crashes, twins and zombies.

The log has what Kafka's has: epochs that fence, transactions that are open, prepared or complete, and answers that
get lost at each step. A case takes milliseconds of real time and any amount of virtual time.
"""

import anyio
import anyio.lowlevel
import msgspec
import pytest
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.chaos.checker import Checker
from watcher.ingest.committer import Committer
from watcher.journal import Fenced, Restored
from watcher.ledger import Ledger
from watcher.model.keys import Key
from watcher.model.log import Unavailable
from watcher.model.readings import Answer, Reading, Times

KEYS = [Key("bank", "eip155:1", f"0x{number}", "0xa") for number in range(3)]
BEGAN = 1_790_000_000_000_000
STEPS = ("fence", "restore", "begin", "half", "all", "prepared", "complete")
"""After each of these an answer may get lost, or the process die."""


class Log:
    """One partition. What is prepared will be complete; what is only open is aborted by the next epoch."""

    def __init__(self):
        self.epoch = 0
        self.owner = None
        self.complete = []
        """(rows, notes) of each transaction, in order."""
        self.open = []
        self.prepared = None

    def fence(self, owner):
        self.settle()
        self.epoch, self.owner, self.open = self.epoch + 1, owner, []
        return self.epoch

    def settle(self):
        if self.prepared is not None:
            self.complete.append(self.prepared)
            self.prepared = None

    def append(self, epoch, records):
        if epoch != self.epoch:
            raise Unavailable("this epoch is over")
        self.open.extend(records)

    def end(self, epoch, notes):
        if epoch != self.epoch:
            raise Unavailable("this epoch is over")
        self.prepared, self.open = (self.open, notes), []

    def restored(self):
        states, notes = {}, {}
        for rows, noted in self.complete:
            states.update((row.state.key, row.state) for row in rows if row is not None)
            notes.update(noted)
        return Restored(list(states.values()), notes, "e0", anyio.current_time(), released=False)


class SimulatedWriter:
    """The `Writer` of the log. `lose`: steps whose next answer gets lost; `stuck`: it hangs there instead."""

    def __init__(self, log):
        self.log = log
        self.epoch = 0
        self.opened = False
        self.dead = False
        self.lose = set()
        self.stuck = set()
        self.running = anyio.Event()
        self.running.set()

    async def step(self, name):
        await anyio.lowlevel.checkpoint()
        await self.running.wait()
        if self.dead:
            raise Unavailable("dead")
        if name in self.stuck:
            self.stuck.discard(name)
            await anyio.sleep_forever()
        if name in self.lose:
            self.lose.discard(name)
            raise Unavailable(f"no answer to {name}")

    async def open(self):
        await self.running.wait()
        if self.dead:
            raise Unavailable("dead")
        if self.opened and self.log.owner is not self:
            raise Fenced("another one writes here")
        with anyio.move_on_after(8):
            restored = await self.take_over()
            self.opened = True
            return restored
        raise Unavailable("opening got no answer in time")

    async def take_over(self):
        self.epoch = self.log.fence(self)
        await self.step("fence")
        restored = self.log.restored()
        await self.step("restore")
        return restored

    async def commit(self, batch):
        try:
            await self.transaction(batch)
        except Unavailable:
            if self.log.owner is not self and not self.dead:
                raise Fenced("another one writes here") from None
            raise

    async def transaction(self, batch):
        await self.step("begin")
        half = len(batch.rows) // 2
        self.log.append(self.epoch, batch.rows[:half])
        await self.step("half")
        self.log.append(self.epoch, batch.rows[half:])
        await self.step("all")
        self.log.end(self.epoch, batch.notes)
        await self.step("prepared")
        self.log.settle()
        await self.step("complete")

    async def release(self, *, in_doubt=0.0):
        pass

    async def close(self):
        pass


class RestoresBeforeItFences(SimulatedWriter):
    async def take_over(self):
        restored = self.log.restored()
        await anyio.sleep(0.05)
        await self.step("restore")
        self.epoch = self.log.fence(self)
        await self.step("fence")
        return restored


class NeverAsksForTheEpoch(SimulatedWriter):
    """A fence that a commit does not feel."""

    async def transaction(self, batch):
        self.epoch = self.log.epoch
        await super().transaction(batch)


class TakesLossForSuccess(SimulatedWriter):
    """A send that nobody awaits: the second half is lost, and the rest is committed."""

    async def transaction(self, batch):
        if "half" in self.lose:
            self.lose.discard("half")
            batch = msgspec.structs.replace(batch, rows=batch.rows[: len(batch.rows) // 2])
        await super().transaction(batch)


class ForgetsVersions(SimulatedWriter):
    async def open(self):
        restored = await super().open()
        return msgspec.structs.replace(
            restored, states=[msgspec.structs.replace(state, version=0) for state in restored.states]
        )


class Instance:
    """A process: a writer, a ledger and a committer."""

    def __init__(self, log, kind):
        self.writer = kind(log)
        self.committer = Committer(self.writer, Ledger(), gather=0.01)
        self.scope = anyio.CancelScope()
        self.fenced = False

    async def run(self):
        with self.scope:
            try:
                await self.committer.run()
            except Fenced:
                self.fenced = True

    def crash(self):
        self.writer.dead = True
        self.writer.running.set()
        self.scope.cancel()

    @property
    def frozen(self):
        return not self.writer.running.is_set()


class World:
    """Balances that really exist, the log, and the instances before it."""

    def __init__(self, tasks, kind):
        self.tasks = tasks
        self.kind = kind
        self.log = Log()
        self.truth = {key: ["0"] for key in KEYS}
        self.slot = 100
        self.instances = []

    def start(self):
        instance = Instance(self.log, self.kind)
        self.instances.append(instance)
        self.tasks.start_soon(instance.run)

    @property
    def live(self):
        return [one for one in self.instances if not (one.fenced or one.writer.dead or one.frozen)]

    async def poll(self):
        """Every live instance asks once."""
        sent = anyio.current_time()
        await anyio.sleep(0.02)
        self.slot += 1
        now = anyio.current_time()
        readings = [Reading(key, self.truth[key][-1], "base", 6, "USDC", self.slot, self.slot) for key in KEYS]
        answer = Answer("bank", readings, "strict", 30.0, Times(sent, now, BEGAN + int(now * 1e6)))
        for instance in self.live:
            with anyio.move_on_after(0.5):
                await instance.committer.accept(answer)

    async def do(self, action, argument):
        if action == "move":
            key, amount = KEYS[argument % len(KEYS)], str(argument)
            if self.truth[key][-1] != amount:
                self.truth[key].append(amount)
        elif action == "poll":
            await self.poll()
        elif action == "wait":
            await anyio.sleep(argument / 10)
        elif action == "start":
            self.start()
        elif action == "thaw":
            for instance in self.instances:
                instance.writer.running.set()
        elif self.live:
            self._harm(action, argument, self.live[argument % len(self.live)])

    @staticmethod
    def _harm(action, argument, instance):
        step = STEPS[argument % len(STEPS)]
        if action == "lose":
            instance.writer.lose.add(step)
        elif action == "hang":
            instance.writer.stuck.add(step)
        elif action == "freeze":
            instance.writer.running = anyio.Event()
        else:
            instance.crash()

    async def settle(self):
        """No more faults; one instance at least; ask until nothing is untold."""
        await self.do("thaw", 0)
        for instance in self.instances:
            instance.writer.lose.clear()
            instance.writer.stuck.clear()
        await anyio.sleep(60)
        if not self.live:
            self.start()
        for number in range(6):
            if number < 3:  # who was replaced learns it at his next commit
                await self.do("move", 999 + number)
            await self.poll()
            await anyio.sleep(10)

    def violations(self):
        checker = Checker()
        for place, (rows, _) in enumerate(self.log.complete):
            for row in rows:
                if row.event is not None:
                    checker.event((place, str(row.state.key)), msgspec.to_builtins(row.event))
                checker.state((place, str(row.state.key), "state"), msgspec.to_builtins(row.state))
        checker.finish()
        checker.judge_truth({str(key): amounts for key, amounts in self.truth.items()})
        return checker.violations


def played(script, kind=SimulatedWriter):
    """What a script of (action, argument) leads to: the laws it broke, how many wrote at last, and the log."""

    async def play():
        async with anyio.create_task_group() as tasks:
            world = World(tasks, kind)
            world.start()
            for action, argument in script:
                await world.do(action, argument)
            await world.settle()
            tasks.cancel_scope.cancel()
        return world

    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(play, backend="trio", backend_options={"clock": clock})


ACTIONS = ("move", "move", "poll", "poll", "wait", "lose", "hang", "crash", "start", "freeze", "thaw")
SCRIPTS = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 100)), max_size=40)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SCRIPTS)
def test_whatever_happens_no_change_is_lost_and_none_is_told_twice(script):
    world = played(script)
    assert not world.violations()
    assert len(world.live) == 1


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("harm", ["lose", "hang", "crash"])
def test_at_each_step_an_answer_may_get_lost_or_the_process_die(step, harm):
    index = STEPS.index(step)
    opening = step in ("fence", "restore")
    script = [("poll", 0), ("wait", 5), ("move", 4), (harm if harm != "crash" else "hang", index)]
    script += [("lose", STEPS.index("begin"))] if opening else []  # so that it opens again
    script += [("poll", 0), ("wait", 1)]
    script += [("crash", 0), ("start", 0)] if harm == "crash" else [("wait", 200)]
    script += [("move", 7), ("poll", 0), ("wait", 5)]
    world = played(script)
    assert not world.violations()
    assert sum(row.event is not None for rows, _ in world.log.complete for row in rows) >= 1


MOVES = [step for amount in range(10, 40) for step in (("move", amount), ("poll", 0))]
PLANTED = {
    RestoresBeforeItFences: [*MOVES[:20], ("move", 50), ("poll", 0), ("start", 0), *MOVES],
    NeverAsksForTheEpoch: [*MOVES[:20], ("wait", 1), ("start", 0), *MOVES],  # not in the middle of a commit
    TakesLossForSuccess: [*MOVES[:12], ("move", 51), ("move", 52), ("move", 53), ("lose", 3), ("poll", 0), *MOVES],
    ForgetsVersions: [*MOVES[:12], ("crash", 0), ("start", 0), *MOVES],
}


@pytest.mark.parametrize("kind", PLANTED, ids=lambda kind: kind.__name__)
def test_a_writer_that_breaks_one_rule_is_seen(kind):
    assert not played(PLANTED[kind]).violations()
    assert played(PLANTED[kind], kind).violations()
