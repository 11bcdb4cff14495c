"""Two owners of one partition, one after the other: the provider never sees both, nor more than its limits allow."""

import random
from itertools import pairwise

import pytest

from tests.limits.test_limiter import Counter
from tests.worlds.processes import World
from watcher.ingest import committer as committer_module
from watcher.ingest import stamps_in_doubt
from watcher.limits.budget import Budget
from watcher.limits.lease import LATE, Lease
from watcher.limits.windows import Limit
from watcher.poller import connections as connections_module
from watcher.poller.checkpoints import Checkpoints

TEN = ((10, 1.0),)
ONE = ((1, 1.0),)
SLOW = ((1, 3.0),)
FEW = ((5, 5.0),)
SEVERAL = ((60, 60.0), (3, 1.0))
ROOMY = ((40, 60.0),)


def refused(world):
    """By a server that counts strictly: in any window, all processes together."""
    counter = Counter([Limit(*limit) for limit in world.limits])
    for time, _ in world.network.arrivals:
        counter.arrive(time)
    return counter.refused


def overlaps(world):
    """Requests of two processes within 100 ms."""
    return [
        (before, after)
        for before, after in pairwise(world.network.arrivals)
        if before[1] != after[1] and after[0] - before[0] < 0.1
    ]


def of(world, name):
    return [time for time, process in world.network.arrivals if process == name]


def judged(world):
    """Whether a law was broken."""
    found = bool(refused(world)) or bool(overlaps(world)) or out_of_turn(world)
    world.end()
    return found


def out_of_turn(world):
    """Who was followed asks no more."""
    order = [process for _, process in world.network.arrivals]
    return sum(one != other for one, other in pairwise(order)) >= len(set(order))


def killed(monkeypatch, seed, limits):
    dice = random.Random(f"killed {seed}")
    world = World(monkeypatch, seed, limits)
    old = world.start("old")
    world.run(dice.uniform(6.0, 14.0))
    old.kill()
    world.run(world.now + dice.choice([0.0, 0.3, 2.0]))
    world.start("new")
    world.run(world.now + 15.0)
    return world


def frozen(monkeypatch, seed, limits):
    """SIGSTOP, a successor, SIGCONT."""
    dice = random.Random(f"frozen {seed}")
    world = World(monkeypatch, seed, limits)
    old = world.start("old")
    world.run(dice.uniform(6.0, 14.0))
    old.frozen = True
    world.run(world.now + dice.uniform(0.0, 4.0))
    world.start("new")
    world.run(world.now + dice.uniform(1.0, 8.0))
    old.frozen = False
    world.run(world.now + 15.0)
    return world


def twin(monkeypatch, seed, limits):
    """A second instance, started by mistake."""
    world = World(monkeypatch, seed, limits)
    world.start("old")
    world.run(random.Random(f"twin {seed}").uniform(6.0, 14.0))
    world.start("new")
    world.run(world.now + 15.0)
    return world


def cut_off_at_once(monkeypatch, seed, limits):
    """Just after a commit, so that its lease is as long as can be, the old owner reaches its provider and not its log."""
    world = World(monkeypatch, seed, limits)
    old = world.start("old")
    world.run(random.Random(f"cut off {seed}").uniform(6.0, 14.0))
    commits = old.committer.commits
    while old.committer.commits == commits:
        world.run(world.now + 0.01)
    old.cut_off = True
    return world


def cut_off(monkeypatch, seed, limits):
    world = cut_off_at_once(monkeypatch, seed, limits)
    world.run(world.now + random.Random(f"followed {seed}").choice([0.0, 0.01, 0.5]))
    world.start("new")
    world.run(world.now + 8.0)
    world.processes[0].cut_off = False
    world.run(world.now + 10.0)
    return world


def late(monkeypatch, seed, limits):
    """The answer to a commit comes long after the fence of a successor, and then nothing comes from the log any more."""
    dice = random.Random(f"late {seed}")
    world = World(monkeypatch, seed, limits)
    slow = []
    old = world.start("old", after=lambda: slow.pop() if slow else 0.001)
    world.run(dice.uniform(6.0, 14.0))
    slow += [dice.uniform(1.0, 1.9)]
    while slow:
        world.run(world.now + 0.01)
    commits = old.committer.commits
    world.start("new")
    while old.committer.commits == commits:
        world.run(world.now + 0.01)
    old.cut_off = True
    world.run(world.now + 8.0)
    old.cut_off = False
    world.run(world.now + 8.0)
    return world


def end_in_order(world, process):
    process.stop()
    while not process.task.done():
        world.run(world.now + 0.001)


def stopped(monkeypatch, seed, limits):
    """SIGTERM, and the next one at once."""
    world = World(monkeypatch, seed, limits)
    old = world.start("old")
    world.run(random.Random(f"stopped {seed}").uniform(6.0, 14.0))
    end_in_order(world, old)
    world.start("new")
    world.run(world.now + 15.0)
    return world


def doubtful(monkeypatch, seed, limits):
    """While the new owner waits for the lease of the old one, a commit of its own is in doubt, and it opens again."""
    world = cut_off_at_once(monkeypatch, seed, limits)
    new = world.start("new")
    world.run(world.now + 0.5)
    new.cut_off = True
    new.committer.note("schedule:helius", b"")
    world.run(world.now + 0.3)
    new.cut_off = False
    world.run(world.now + 15.0)
    assert new.committer.failures
    return world


def hasty(monkeypatch, seed, limits):
    """One opens while the old owner has its lease, and is stopped before it polls; the next comes at once."""
    world = cut_off_at_once(monkeypatch, seed, limits)
    between = world.start("between", polls=False)
    world.run(world.now + 0.3)
    end_in_order(world, between)
    world.start("new")
    world.run(world.now + 15.0)
    return world


def unknown(monkeypatch, seed, limits):
    """Between an owner that is cut off and the next one that knows the provider comes one whose config does not have it."""
    world = cut_off_at_once(monkeypatch, seed, limits)
    between = world.start("between", polls=False)
    world.run(world.now + LATE + 0.02)
    end_in_order(world, between)
    new = world.start("new")
    world.run(world.now + 15.0)
    assert new.committer.released
    return world


STORIES = [killed, frozen, twin, cut_off, late, stopped, doubtful, hasty, unknown]


@pytest.mark.parametrize("limits", [TEN, ONE, SLOW, FEW, SEVERAL, ROOMY], ids=str)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_no_limit_is_exceeded_and_no_two_ask_at_once(story, limits, monkeypatch):
    for seed in range(4):
        world = story(monkeypatch, seed, limits)
        assert refused(world) == 0
        assert overlaps(world) == []
        assert not out_of_turn(world)
        assert of(world, "old"), "it asked at all"
        assert of(world, "new"), "and so did its successor"
        world.end()


def no_lease(monkeypatch):
    monkeypatch.setattr(Lease, "lasts", lambda lease, _seconds: lease.begins_in() <= 0)


def looked_at_when_granted(monkeypatch):
    """And not where the bytes are written."""
    monkeypatch.setattr(connections_module._Stream, "may_write", property(lambda _: None, lambda _, __: None))


def counted_from_the_end(monkeypatch):
    renew = Lease.renew
    monkeypatch.setattr(Lease, "renew", lambda lease, _started: renew(lease, lease.clock()))


def stamped_at_the_fence(monkeypatch):
    restore = Budget.restore

    def at_the_fence(budget, data, now, wall, *, released, begin):
        return restore(budget, data, now, wall, released=released, begin=begin if released else begin - LATE)

    monkeypatch.setattr(Budget, "restore", at_the_fence)


def granted_from_the_fence_on(monkeypatch):
    monkeypatch.setattr(committer_module, "LATE", 0.0)


def released_without_stamps(monkeypatch):
    monkeypatch.setattr(Checkpoints, "note_all", lambda _: None)


def released_whenever_it_ends(monkeypatch):
    monkeypatch.setattr(Lease, "doubt", lambda _lease: 0.0)


def released_for_all_providers(monkeypatch):
    monkeypatch.setattr(stamps_in_doubt, "of", lambda _: set())


@pytest.mark.parametrize(
    ("plant", "story", "limits"),
    [
        (released_whenever_it_ends, hasty, TEN),
        (released_for_all_providers, unknown, ONE),
        (no_lease, frozen, TEN),
        (no_lease, cut_off, SLOW),
        (looked_at_when_granted, frozen, TEN),
        (counted_from_the_end, late, ROOMY),
        (stamped_at_the_fence, cut_off, ONE),
        (granted_from_the_fence_on, cut_off, ROOMY),
        (released_without_stamps, stopped, FEW),
    ],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
def test_a_rule_that_is_left_out_is_seen(plant, story, limits, monkeypatch):
    assert not any(judged(story(monkeypatch, seed, limits)) for seed in range(4))
    plant(monkeypatch)
    assert any(judged(story(monkeypatch, seed, limits)) for seed in range(12))


def test_after_an_end_in_order_the_next_one_begins_at_once_and_after_a_kill_when_the_lease_is_over(monkeypatch):
    for story, least, most in ((stopped, 0.0, 1.5), (killed, LATE, LATE + 1.5)):
        world = story(monkeypatch, 1, TEN)
        new = world.processes[1].committer
        assert least <= of(world, "new")[0] - (new.lease._begins - (0.0 if new.released else LATE)) < most
        world.end()


def test_a_connect_that_takes_longer_than_a_lease_comes_to_its_request(monkeypatch):
    world = World(monkeypatch, 1, SLOW, connect=2.5)
    old = world.start("old")
    world.run(60.0)
    assert len(of(world, "old")) > 7
    assert old.poller.stats.unsent_at < 0
    world.end()


def test_a_connect_that_outlives_the_lease_is_seen(monkeypatch):
    """The lease is renewed while a request is in flight: without that none is ever sent."""
    monkeypatch.setattr(Budget, "in_flight", False)
    world = World(monkeypatch, 1, SLOW, connect=2.5)
    old = world.start("old")
    world.run(60.0)
    assert old.poller.stats.unsent_at > 0
    world.end()


def test_an_owner_that_asks_nothing_commits_nothing_and_one_that_asks_saves_once_a_second(monkeypatch):
    world = World(monkeypatch, 1, TEN, connect=0.0)
    old = world.start("old")
    world.run(20.0)
    commits = old.committer.commits
    world.run(50.0)
    assert old.committer.commits - commits <= 31
    assert len([time for time in of(world, "old") if time > 20.0]) > 0.85 * 300
    old.poller.budget.pause(1000.0)
    world.run(150.0)  # the rates that were learned are saved once more
    commits = old.committer.commits
    world.run(900.0)
    assert old.committer.commits == commits
    world.end()


def test_a_journal_whose_commits_take_as_long_as_a_lease_stops_polling(monkeypatch):
    for seconds, polls in ((1.0, True), (LATE, False)):
        world = World(monkeypatch, 1, TEN)
        world.start("old", after=lambda seconds=seconds: seconds)
        world.run(30.0)
        assert bool(of(world, "old")) == polls
        world.end()


def polls_in_a_minute(monkeypatch, commit_seconds):
    world = World(monkeypatch, 1, TEN, connect=0.0)
    world.start("old", before=lambda: commit_seconds / 2, after=lambda: commit_seconds / 2)
    world.run(60.0)
    world.end()
    return len(of(world, "old"))


def test_a_slow_journal_costs_few_polls(monkeypatch):
    quick = polls_in_a_minute(monkeypatch, 0.005)
    assert polls_in_a_minute(monkeypatch, 0.5) > 0.97 * quick
    assert polls_in_a_minute(monkeypatch, 1.0) > 0.8 * quick
    assert polls_in_a_minute(monkeypatch, 1.5) > 0.2 * quick


def test_what_is_frozen_between_grant_and_wire_goes_back_to_the_schedule_and_nobody_has_failed(monkeypatch):
    world = World(monkeypatch, 1, TEN)
    old = world.start("old")
    world.run(10.0)
    old.frozen = True
    world.run(20.0)
    old.frozen = False
    before = old.poller.stats.polls
    world.run(40.0)
    assert old.poller.stats.unsent_at == pytest.approx(20.0, abs=0.5)
    assert old.poller.stats.failures == {}
    assert old.poller.stats.unsent_requests > 0
    assert old.poller.stats.polls - before > 150, "it owns the partition yet"
    assert refused(world) == 0
    world.end()
