"""One partition let go while its process goes on: asked no more, what is out waited for, what was read committed, released."""

import itertools
import math
import random

import anyio
import pytest

from tests.polling import helius, wall
from tests.worlds.processes import LogWriter, Process, World
from watcher.app import partitions
from watcher.app.day_closer import Keeping
from watcher.app.partition_runner import Clocks, PartitionRunner, ToPoll
from watcher.app.provider_sources import Source
from watcher.app.shared_reader import SharedReader
from watcher.fleet.handover import IN_FLIGHT_WAIT
from watcher.limits.lease import LATE
from watcher.model.log import Unavailable

TEN = ((10, 1.0),)
ASKED = 10.0
"""When it is let go."""
PROMPT = 0.5
"""Seconds for the commits, at most."""


class OnePartition:
    """The journal of one process, as far as its runner asks."""

    gather, partitions = 0.0, 1

    def __init__(self, process):
        self._process = process

    async def reader(self):
        raise Unavailable("nobody reads here")

    def writer(self, _partition):
        return self._process.writer(self._process.world.log, self._process, lambda: 0.004, lambda: 0.001)


class FencedWhileOpening(LogWriter):
    """Another member opens it at the same time: the first try ends in doubt. Kafka's takes it over with the next one."""

    tries = 0

    async def open(self):
        self.tries += 1
        if self.tries == 1:
            await anyio.sleep(0.1)
            raise Unavailable("fenced while it was opened")
        return await super().open()


class RunningProcess(Process):
    """One that a runner of ours lives in."""

    ended_at = None
    writer = LogWriter

    async def _live(self):
        world = self.world
        journal, clocks = OnePartition(self), Clocks(wall, lambda: world.now)
        self.runner = PartitionRunner(0, journal, clocks, SharedReader(journal.reader), Keeping())
        provider = helius(world.watches, limits=world.limits, timeout=20.0, base_url="http://127.0.0.1")

        async def beside(_poller):
            pass

        await self.runner.run(lambda: [ToPoll(world.seed, Source(provider))], beside)
        self.ended_at = world.now


class StartingProcess(RunningProcess):
    """One that says it has started once all that it has open polls."""

    started_at = None

    async def _live(self):
        world = self.world
        provider = helius(world.watches, limits=world.limits, timeout=20.0, base_url="http://127.0.0.1")
        opened = partitions.Partitions(
            [Source(provider)],
            OnePartition(self),
            Clocks(wall, lambda: world.now),
            lambda _: None,
            reader=SharedReader(OnePartition(self).reader),
        )
        self.runner = opened.runner(0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(opened.run, self.runner)
            await opened.all_polling()
            self.started_at = world.now


def started(world, name):
    world.processes.append(RunningProcess(world, name))
    return world.processes[-1]


def let_go(world, process, when=ASKED):
    world.at(when, lambda: process.loop.call_soon(process.runner.let_go))


def world_of(monkeypatch, seed, **network):
    return World(monkeypatch, f"letting go {seed}", TEN, **network)


def test_nothing_is_asked_any_more_and_all_that_came_is_committed_and_released(monkeypatch):
    for seed in range(20):
        world = world_of(monkeypatch, seed)
        one = started(world, "one")
        let_go(world, one, when := random.Random(seed).uniform(5.0, 15.0))
        world.run(30.0)
        late = [time for time, _ in world.network.arrivals if time > when + 0.2]  # what had left is on its way
        assert not late
        assert one.ended_at < when + PROMPT
        assert world.log.released
        assert one.runner.committer.lease.begins_in() == math.inf
        world.end()


def test_what_gets_no_answer_is_waited_for_no_longer_than_the_next_owner_waits(monkeypatch):
    world = world_of(monkeypatch, 1, delay=6.0)
    one = started(world, "one")
    let_go(world, one)
    world.run(30.0)
    assert ASKED + IN_FLIGHT_WAIT <= one.ended_at < ASKED + IN_FLIGHT_WAIT + PROMPT
    assert world.log.released
    world.end()


def test_an_answer_that_comes_while_it_is_let_go_is_committed(monkeypatch):
    world = world_of(monkeypatch, 2, delay=0.4)
    one = started(world, "one")
    let_go(world, one, when=2.5)  # amid the first readings: each makes a baseline
    world.run(2.5)
    before = len(world.log.states)
    world.run(30.0)
    after = len(world.log.states)
    world.end()
    assert 0 < before < after < world.watches


def test_a_partition_that_cannot_be_opened_is_let_go_all_the_same(monkeypatch):
    world = world_of(monkeypatch, 3)
    one = started(world, "one")
    one.cut_off = True
    let_go(world, one)
    world.run(ASKED + IN_FLIGHT_WAIT + PROMPT + 1.0)
    assert one.ended_at is not None
    assert not world.network.arrivals
    assert not world.log.let_go
    world.end()


def test_what_is_let_go_before_it_polls_keeps_nobody_from_having_started(monkeypatch):
    world = world_of(monkeypatch, 3)
    one = StartingProcess(world, "one")
    world.processes.append(one)
    one.cut_off = True
    let_go(world, one)
    world.run(ASKED + IN_FLIGHT_WAIT + PROMPT + 1.0)
    assert one.started_at is not None
    assert one.started_at >= ASKED
    world.end()


def test_a_partition_that_is_being_opened_is_released_so_that_the_next_owner_waits_for_nothing(monkeypatch):
    world = world_of(monkeypatch, 4)
    one = started(world, "one")
    let_go(world, one, when=0.002)
    world.run(PROMPT)
    assert one.ended_at is not None
    assert world.log.fence
    assert world.log.released
    assert not world.network.arrivals
    world.end()


class ShutOutWhileOpening(RunningProcess):
    writer = FencedWhileOpening


@pytest.mark.parametrize("when", [0.05, 0.12], ids=["amid the try", "between two tries"])
def test_what_was_let_go_is_not_opened_anew_since_another_has_it(monkeypatch, when):
    world = world_of(monkeypatch, 6)
    world.processes.append(one := ShutOutWhileOpening(world, "one"))
    let_go(world, one, when)
    world.run(PROMPT)
    world.end()
    assert one.ended_at is not None
    assert world.log.fence == 0, "it has fenced the member that was given it since"


def test_who_lets_go_before_its_lease_began_leaves_the_owner_before_it_in_doubt(monkeypatch):
    world = world_of(monkeypatch, 5)
    one = started(world, "one")
    world.at(ASKED, one.kill)
    world.at(ASKED + 1.0, lambda: started(world, "two"))
    world.at(ASKED + 1.5, lambda: world.processes[-1].loop.call_soon(world.processes[-1].runner.let_go))
    world.run(ASKED + 1.5 + PROMPT)
    assert world.processes[-1].ended_at is not None
    assert world.log.let_go
    assert not world.log.released
    assert world.log.doubt < LATE
    # Who opens next waits for what was left then, and not anew.
    began = ASKED + 1.5 + PROMPT
    three = started(world, "three")
    world.run(ASKED + 3.0)
    assert three.runner.committer.lease._first == pytest.approx(began + LATE - 0.5, abs=0.1)
    world.end()


def grants_go_on(monkeypatch):
    """The planted bug: what is let go asks on while it waits."""
    monkeypatch.setattr(PartitionRunner, "_finish_requests", _only_wait)


async def _only_wait(runner):
    with anyio.move_on_after(IN_FLIGHT_WAIT):
        for poller in runner.pollers:
            await poller.drained()


def test_who_asks_on_while_it_waits_is_seen(monkeypatch):
    grants_go_on(monkeypatch)
    for seed in itertools.count():
        world = world_of(monkeypatch, seed, delay=0.3)
        one = started(world, "one")
        let_go(world, one)
        world.run(30.0)
        granted = [time for time, _ in world.network.arrivals if time > ASKED + IN_FLIGHT_WAIT]
        world.end()
        if granted:
            return
        assert seed < 20
