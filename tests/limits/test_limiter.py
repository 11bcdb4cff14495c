import contextlib
import heapq
import itertools
import random
from collections import deque

import anyio
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from watcher.limits.budget import CLOCK_SKEW, LATE, Budget
from watcher.limits.limiter import ARRIVAL_GRACE, Limiter
from watcher.limits.windows import SEGMENTS, BudgetError, Limit

WALL = 1_790_000_000_000_000
"""Wall-clock microseconds at monotonic 0."""


class Counter:
    """The provider's own count: every limit in every sliding window of arrivals, endpoints apart."""

    def __init__(self, limits, cost=1.0, share=1.0):
        self.windows = [(limit, limit.requests * share / cost, deque()) for limit in limits]
        self.arrivals = []
        self.refused = 0

    def arrive(self, now, endpoint=None):
        self.arrivals.append(now)
        refused = False
        for limit, fits, seen in self.windows:
            if limit.endpoint not in (None, endpoint):
                continue
            while seen and seen[0] <= now - limit.per:
                seen.popleft()
            seen.append(now)
            refused |= len(seen) > fits + 1e-9
        self.refused += refused

    def used(self, limit, cost=1.0, after=0.0):
        """Share of the limit that arrived from `after` on."""
        times = [time for time in self.arrivals if time >= after]
        return (len(times) - 1) * cost / (times[-1] - times[0]) / (limit.requests / limit.per)


def virtually(main, *args, seed=0):
    """Run in virtual time, replayable."""
    return anyio.run(main, *args, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


def drive(budget, counter, delay, until, *, start=0.0, ends=None):
    """Saturate a budget by plain arithmetic: no loop, no tasks. `delay()`: seconds of one way."""
    now, ends, tick = start, [] if ends is None else ends, itertools.count()
    arrivals = []
    while now < until:
        ready = budget.ready_at(now)
        if ready <= now:
            slot = budget.grant(now)
            arrived = now + delay()
            arrivals.append(arrived)
            heapq.heappush(ends, (arrived + delay(), next(tick), slot))
        else:
            now = min(ready, ends[0][0] if ends else until, until)
        while ends and ends[0][0] <= now:
            budget.settle(heapq.heappop(ends)[2], now)
    for arrived in sorted(arrivals):
        counter.arrive(arrived)


@contextlib.asynccontextmanager
async def calling(limiter, endpoint=None):
    """A call, in the steps of the poller: wait until one may leave, have it granted, hold its slot to the end."""
    while (ready := limiter.budget.ready_at(anyio.current_time(), endpoint)) > anyio.current_time():
        await limiter.wait_until(ready)
    with limiter.held(limiter.grant(anyio.current_time(), endpoint)):
        yield


def jittered(seed, median=0.03):
    draw = random.Random(seed)
    return lambda: median * draw.lognormvariate(0, 0.4)


# --- what can be refused at construction


@pytest.mark.parametrize(
    ("limits", "options", "reason"),
    [
        ([Limit(4, 60.0)], {"cost": 5}, "one call costs 5, but the limit leaves 4 per 60 s over all endpoints"),
        ([Limit(1, 1.0)], {"share": 0.5}, "one call costs 1, but the limit leaves 0.5 per 1 s"),
        ([Limit(1, 60.0, "balance")], {"cost": 2, "endpoints": ["balance"]}, "to endpoint balance: no call could"),
        ([Limit(0, 60.0)], {}, "0 requests per 60 s is no limit"),
        ([Limit(1, float("nan"))], {}, "is no limit"),
        ([Limit(1, 1.0)], {"share": 1.5}, "share 1.5"),
        ([Limit(1, 1.0)], {"cost": 0.0}, "cost 0 must be above 0"),
        ([Limit(1, 1.0, "balance")], {"endpoints": ["balance", "balances"]}, "no limit covers to endpoint balances"),
        ([], {}, "no limit covers"),
    ],
)
def test_a_budget_under_which_no_call_could_be_made_is_refused_in_one_line(limits, options, reason):
    with pytest.raises(BudgetError) as caught:
        Budget(limits, **options)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


# --- the pace


def test_grants_leave_evenly_at_the_pace_of_the_limit_that_binds():
    budget = Budget([Limit(10, 1.0), Limit(1_000_000, 2_592_000.0)])
    assert budget.interval() == pytest.approx(2.592, rel=0.003)
    counter = Counter([Limit(10, 1.0)])
    drive(budget, counter, lambda: 0.0, 100.0)
    assert {round(after - before, 2) for before, after in itertools.pairwise(counter.arrivals)} == {2.6}


def test_a_weighted_call_takes_its_cost_of_the_limit():
    assert Budget([Limit(60, 60.0)], cost=5).interval() == pytest.approx(5.0, rel=0.001)
    assert Budget([Limit(60, 60.0)], share=0.5).interval() == pytest.approx(2.0, rel=0.001)


def test_nothing_is_caught_up_after_a_pause():
    budget = Budget([Limit(60, 60.0)])
    counter = Counter([Limit(60, 60.0)])
    drive(budget, counter, lambda: 0.0, 100.0)
    budget.pause(400.0)
    drive(budget, counter, lambda: 0.0, 460.0, start=100.0)
    after = [time for time in counter.arrivals if time > 100]
    assert after[0] == 400.0
    assert min(b - a for a, b in itertools.pairwise(after)) >= 0.99
    assert len(after) <= 60


def test_nothing_is_caught_up_after_the_loop_stood_still():
    budget, counter = Budget([Limit(60, 60.0)]), Counter([Limit(60, 60.0)])
    drive(budget, counter, lambda: 0.0, 100.0)
    drive(budget, counter, lambda: 0.0, 200.0, start=130.0)
    after = [time for time in counter.arrivals if time > 100]
    assert min(b - a for a, b in itertools.pairwise(after)) >= 0.99


def test_only_a_full_window_lets_a_grant_make_up_for_part_of_its_delay():
    budget, counter = Budget([Limit(10, 1.0)]), Counter([Limit(10, 1.0)])
    drive(budget, counter, jittered(1), 60.0)
    assert counter.refused == 0
    assert budget.interval() == pytest.approx(0.1, rel=0.001)
    gaps = [b - a for a, b in itertools.pairwise(counter.arrivals)]
    assert sum(gap < 0.02 for gap in gaps) < len(gaps) / 10  # jitter of the way, no bursts


def test_a_pause_never_ends_earlier_because_of_a_later_shorter_one():
    budget = Budget([Limit(1, 1.0)])
    budget.pause(100.0)
    budget.pause(50.0)
    budget.pause(-50.0)
    assert budget.ready_at(0.0) == 100.0
    assert budget.paused_until(0.0) == 100.0
    assert budget.paused_until(100.0) is None


# --- endpoints


ENDPOINTS = ("balance", "balances")


def test_an_exhausted_endpoint_does_not_hold_up_the_others():
    budget = Budget([Limit(1, 60.0, "balance"), Limit(30, 60.0, "balances")], endpoints=ENDPOINTS)
    budget.settle(budget.grant(0.0, "balance"), 0.0)
    assert budget.ready_at(0.0, "balance") > 59
    assert budget.ready_at(0.0, "balances") == 0.0


def test_resuming_lifts_what_a_restart_would_lift_and_keeps_the_pace():
    budget = Budget([Limit(60, 60.0)])
    budget.settle(budget.grant(0.0), 0.1)
    budget.pause(900.0, remember=False)
    assert budget.ready_at(0.2) == 900.0
    budget.resume(0.2)
    assert 0.9 <= budget.ready_at(0.2) <= 1.3
    assert budget.paused_until(0.2) is None


def test_resuming_leaves_a_pause_that_is_remembered():
    budget = Budget([Limit(60, 60.0)])
    budget.pause(30.0)
    budget.pause(900.0, remember=False)
    budget.resume(0.0)
    assert budget.ready_at(0.0) == 30.0


def test_a_paused_endpoint_leaves_the_others_at_full_pace():
    budget = Budget([Limit(30, 60.0, "balance"), Limit(30, 60.0, "balances")], endpoints=ENDPOINTS)
    budget.pause(500.0, "balance")
    assert budget.ready_at(0.0, "balances") == 0.0
    assert budget.ready_at(0.0, "balance") == 500.0
    assert budget.paused_until(0.0) is None
    budget.pause(300.0, "balances")
    assert budget.paused_until(0.0) == 300.0
    budget.pause(600.0)
    assert budget.paused_until(0.0) == 600.0


def test_a_call_takes_a_place_in_all_its_windows_or_in_none():
    budget = Budget([Limit(2, 60.0), Limit(1, 60.0, "balance")], endpoints=ENDPOINTS)
    budget.grant(0.0, "balance")
    with pytest.raises(ValueError, match="no call may leave"):
        budget.grant(30.1, "balance")
    assert budget.ready_at(30.1, "balances") == 30.1
    budget.grant(30.1, "balances")
    with pytest.raises(ValueError, match="no call may leave"):
        budget.grant(70.0, "balances")


def test_a_slot_is_settled_once():
    budget = Budget([Limit(2, 60.0)])
    slot = budget.grant(0.0)
    budget.settle(slot, 1.0)
    with pytest.raises(ValueError, match="settled once"):
        budget.settle(slot, 1.0)


def test_while_only_a_held_slot_blocks_nobody_can_say_when():
    budget = Budget([Limit(1, 1.0)])
    slot = budget.grant(0.0)
    assert budget.ready_at(100.0) == float("inf")
    assert budget.utilization(100.0) == 1.0
    budget.settle(slot, 100.0)
    assert budget.ready_at(100.0) == pytest.approx(101.0, abs=0.001)


def test_utilization_is_that_of_the_binding_limit():
    budget = Budget([Limit(10, 1.0), Limit(100, 3600.0)])
    budget.settle(budget.grant(0.0), 0.0)
    assert budget.utilization(0.0) == pytest.approx(0.01)


# --- saturation, and what the provider counts


@pytest.mark.parametrize(
    ("limit", "cost", "least"),
    [
        (Limit(10, 1.0), 1, 0.92),
        (Limit(1, 1.0), 1, 0.92),
        (Limit(60, 60.0), 1, 0.99),
        (Limit(60, 60.0), 5, 0.99),
        (Limit(9000, 60.0), 1, 0.99),
        (Limit(1, 10.0), 1, 0.99),
    ],
)
def test_at_saturation_the_limit_is_used_and_nothing_refused(limit, cost, least):
    counter = Counter([limit], cost)
    drive(Budget([limit], cost=cost), counter, jittered(7), 30 * limit.per if limit.per < 60 else 360.0)
    assert counter.refused == 0
    assert counter.used(limit, cost, after=limit.per) >= least


def test_a_month_is_used_evenly_and_remembered_in_few_segments():
    limit = Limit(10_000, 2_592_000.0)
    budget, counter = Budget([limit]), Counter([limit])
    drive(budget, counter, lambda: 0.2, 3 * limit.per)
    assert counter.refused == 0
    assert counter.used(limit) >= 0.99
    assert max(b - a for a, b in itertools.pairwise(counter.arrivals)) < 10 * budget.interval()
    assert len(budget._windows[0].segments) <= SEGMENTS


class CountedAtGrant(Budget):
    """The bug that client-side limiters have: exact when it grants, not when the request arrives."""

    def settle(self, slot, when):  # noqa: ARG002 (that is the bug)
        super().settle(slot, slot.granted)


def test_the_counter_catches_a_limiter_that_counts_at_the_grant():
    limit = Limit(10, 1.0)
    counter = Counter([limit])
    drive(CountedAtGrant([limit]), counter, jittered(7), 60.0)
    assert counter.refused > len(counter.arrivals) / 20


limits_ = st.lists(
    st.tuples(st.integers(1, 12), st.sampled_from([0.5, 1.0, 3.0, 10.0]), st.sampled_from([None, None, *ENDPOINTS])),
    min_size=1,
    max_size=4,
).map(lambda rows: [Limit(*row) for row in rows])
delays_ = st.lists(st.floats(0, 0.4), min_size=1, max_size=12)


class Call:
    """One way there and back; a call given up on the way may still arrive, for a moment.

    The network goes on while our loop stands still: when a call arrives is settled when it leaves.
    """

    def __init__(self, arrivals, there, back, patience):
        self.arrivals, self.there, self.back, self.patience = arrivals, there, back, patience

    async def make(self, endpoint):
        if self.there <= self.patience + ARRIVAL_GRACE:
            self.arrivals.append((anyio.current_time() + self.there, endpoint))
        with anyio.fail_after(self.patience):
            await anyio.sleep(self.there + self.back)


async def world(budget, counter, plan, clock):
    """Workers that never rest, for 30 seconds: with cancellations, pauses and a loop that stands still."""
    limiter, draw, arrivals = Limiter(budget), random.Random(plan["seed"]), []

    async def work(endpoint):
        while True:
            there, back = draw.choice(plan["delays"]), draw.choice(plan["delays"])
            patience = 0.3 if draw.random() < plan["cancelled"] else 5.0
            with contextlib.suppress(TimeoutError):
                async with calling(limiter, endpoint):
                    await Call(arrivals, there, back, patience).make(endpoint)

    async def disturb():
        for pause, endpoint, stall in plan["troubles"]:
            await anyio.sleep(3)
            limiter.pause(anyio.current_time() + pause, endpoint)
            clock.jump(stall)

    with anyio.move_on_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(disturb)
            for endpoint in budget.endpoints * 4:
                tasks.start_soon(work, endpoint)
    assert all(window.in_flight == 0 for window in budget._windows)
    for when, endpoint in sorted(arrivals, key=lambda arrival: arrival[0]):
        counter.arrive(when, endpoint)


plans_ = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**20),
        "delays": delays_,
        "cancelled": st.sampled_from([0.0, 0.1, 0.9]),
        "troubles": st.lists(
            st.tuples(st.floats(-1, 5), st.sampled_from([None, *ENDPOINTS]), st.floats(0, 8)), max_size=4
        ),
    }
)


@settings(max_examples=25, deadline=None)
@given(limits_, st.sampled_from([1, 2, 0.5]), st.sampled_from([1.0, 0.6]), plans_)
def test_whatever_happens_no_limit_is_exceeded_in_any_window(limits, cost, share, plan):
    try:
        budget = Budget(limits, cost=cost, share=share, endpoints=ENDPOINTS)
    except BudgetError:
        assume(False)
    counter, clock = Counter(limits, cost, share), MockClock(autojump_threshold=0)
    anyio.run(world, budget, counter, plan, clock, backend="trio", backend_options={"clock": clock})
    assert counter.refused == 0
    assert counter.arrivals


# --- across a restart


def restored(limits, data, now, wall=None, *, released=False, begin=None):
    """`begin`: now, unless it is said: as if the fence had been LATE seconds ago."""
    budget = Budget(limits)
    wall = WALL + int(now * 1e6) if wall is None else wall
    budget.restore(data, now, wall, released=released, begin=now if begin is None else begin)
    return budget


def lives(limits, counter, deaths, *, delay, gap):
    """A process that is killed and started again, saving every second; the last second is never saved."""
    budget, now, note = Budget(limits), 0.0, None
    for death in deaths:
        if note is not None:
            budget = restored(limits, note, now)
        note = budget.save(now, WALL + int(now * 1e6))
        budget.mark_saved()
        ends = []
        while now < death:
            drive(budget, counter, delay, min(now + 1, death), start=now, ends=ends)
            now = min(now + 1, death)
            if now < death:
                note = budget.save(now, WALL + int(now * 1e6))
                budget.mark_saved()
        now += gap


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.sampled_from([1.0, 5.0, 10.0, 60.0])), min_size=1, max_size=2),
    st.lists(st.floats(0.05, 25), min_size=1, max_size=8),
    st.floats(0.1, 30),
    st.integers(0, 2**20),
)
def test_a_killed_process_and_its_successor_together_keep_every_limit(rows, durations, gap, seed):
    limits = [Limit(*row) for row in rows]
    counter = Counter(limits)
    deaths = list(itertools.accumulate(d + gap for d in durations))
    lives(limits, counter, deaths, delay=jittered(seed), gap=gap)
    times, counter = sorted(counter.arrivals), Counter(limits)
    for time in times:
        counter.arrive(time)
    assert counter.refused == 0


class Forgetful(Budget):
    """The bug of a limiter that lives in memory alone."""

    def restore(self, data, now, wall, *, released, begin):
        pass


def test_the_counter_catches_a_limiter_that_forgets_over_a_restart():
    limit = Limit(10, 60.0)
    counter = Counter([limit])
    for start in (0.0, 40.0):
        drive(Forgetful([limit]), counter, lambda: 0.01, start + 39.0, start=start)
    assert counter.refused > 0


@pytest.mark.parametrize(("limit", "life"), [(Limit(60, 60.0), 5.0), (Limit(1, 10.0), 4.0), (Limit(10, 1.0), 3.0)])
def test_a_restart_loop_neither_doubles_the_rate_nor_waits_a_period_each_time(limit, life):
    counter = Counter([limit])
    lives([limit], counter, [life * n for n in range(1, 41)], delay=lambda: 0.01, gap=0.5)
    calm = limit.requests / limit.per * life * 40
    assert counter.refused == 0
    assert len(counter.arrivals) > 0.25 * calm


def test_a_saved_window_ages_while_nobody_runs():
    limit = Limit(10, 60.0)
    budget = Budget([limit])
    drive(budget, Counter([limit]), lambda: 0.01, 55.0)
    note = budget.save(55.0, WALL + 55_000_000)
    assert restored([limit], note, 55.1).utilization(55.1) >= 0.9
    assert restored([limit], note, 200.0).utilization(200.0) <= 0.1
    assert restored([limit], note, 200.0, begin=190.0).ready_at(200.0) == 200.0


def test_what_can_have_been_granted_after_the_last_save_counts_as_spent():
    limit = Limit(60, 60.0)
    budget = Budget([limit])
    note = budget.save(0.0, WALL)
    assert 2 <= restored([limit], note, 30.0)._windows[0].counted <= 3


def test_where_nothing_can_have_left_since_the_last_save_nothing_is_assumed():
    limit = Limit(1, 60.0)
    budget = Budget([limit])
    budget.settle(budget.grant(0.0), 0.1)
    note = budget.save(0.2, WALL + 200_000)
    assert restored([limit], note, 40.0).ready_at(40.0) == pytest.approx(60.1 + CLOCK_SKEW, abs=0.05)


def test_a_slot_held_at_the_last_save_counts_as_of_the_restart():
    limit = Limit(1, 60.0)
    budget = Budget([limit])
    budget.grant(0.0)
    note = budget.save(1.0, WALL + 1_000_000)
    assert restored([limit], note, 30.0).ready_at(30.0) == pytest.approx(90.0 + ARRIVAL_GRACE, abs=0.05)


def test_after_a_release_nothing_is_in_doubt_and_the_first_call_may_leave_at_once():
    limit = Limit(10, 1.0)
    note = Budget([limit]).save(30.0, WALL + 30_000_000)
    budget = restored([limit], note, 30.1, released=True, begin=30.1)
    assert budget.ready_at(30.1) == 30.1
    assert budget._windows[0].counted == 0


def test_without_a_release_what_may_have_been_granted_until_the_beginning_counts_as_spent_then():
    limit = Limit(10, 1.0)
    note = Budget([limit]).save(30.0, WALL + 30_000_000)
    budget = restored([limit], note, 30.1, begin=32.1)
    assert budget._windows[0].counted == 10
    assert budget.ready_at(30.1) == pytest.approx(32.1 + ARRIVAL_GRACE + 1.0, abs=0.01)
    large = restored([Limit(60, 60.0)], Budget([Limit(60, 60.0)]).save(30.0, WALL + 30_000_000), 30.1, begin=32.1)
    assert large._windows[0].counted == 3
    assert large.ready_at(30.1) == pytest.approx(32.1 + ARRIVAL_GRACE), "nothing leaves before, although there is room"


def test_a_restore_that_took_longer_than_the_lease_stamps_what_is_in_doubt_when_it_was_over():
    limit = Limit(10, 10.0)
    note = Budget([limit]).save(30.0, WALL + 30_000_000)
    budget = restored([limit], note, 40.0, begin=32.0)
    assert budget.ready_at(40.0) == 40.0
    assert budget._windows[0].segments[0][1] == pytest.approx(32.0 + ARRIVAL_GRACE)


@pytest.mark.parametrize("wall", [WALL - 600_000, WALL - 10**12, 0])
def test_a_clock_that_went_backwards_means_full(wall):
    budget = restored([Limit(60, 60.0)], Budget([Limit(60, 60.0)]).save(0.0, WALL), 5.0, wall)
    assert budget.utilization(5.0) == 1.0
    assert budget.ready_at(5.0) == pytest.approx(65.0 + ARRIVAL_GRACE, abs=0.05)


@pytest.mark.parametrize("skew", [-CLOCK_SKEW, -0.01, 0.0, CLOCK_SKEW])
@pytest.mark.parametrize("limit", [Limit(10, 1.0), Limit(60, 60.0), Limit(1, 3.0)])
def test_the_next_owner_on_another_machine_goes_on_whichever_clock_is_ahead(limit, skew):
    before, delay = Counter([limit]), jittered(3)
    old = Budget([limit])
    drive(old, before, delay, 90.0)
    note = old.save(90.2, WALL + 90_200_000)
    new = restored([limit], note, 90.25, WALL + 90_250_000 + int(skew * 1e6), released=True, begin=90.25)
    after = Counter([limit])
    drive(new, after, delay, 180.0, start=90.25)
    assert after.arrivals[0] < 90.25 + 2 * limit.per / limit.requests + 2 * CLOCK_SKEW + 0.2
    together = Counter([limit])
    for time in sorted([*before.arrivals, *after.arrivals]):
        together.arrive(time)
    assert together.refused == 0


def test_a_clock_that_was_never_set_means_full():
    note = Budget([Limit(60, 60.0)]).save(0.0, 12_000_000)
    assert restored([Limit(60, 60.0)], note, 5.0).utilization(5.0) == 1.0


def test_a_clock_that_makes_no_sense_does_not_cost_a_month():
    limit = Limit(100_000, 2_592_000.0)
    budget = Budget([limit])
    drive(budget, Counter([limit]), lambda: 0.01, 2600.0)
    after = restored([limit], budget.save(2600.0, WALL), 0.0, WALL - 1)
    assert 100 <= after._windows[0].counted <= 105


def test_a_month_is_remembered_across_restarts_in_a_few_kilobytes():
    limit = Limit(10_000, 2_592_000.0)
    budget = Budget([limit])
    drive(budget, Counter([limit]), lambda: 0.2, 0.9 * limit.per)
    before = budget.utilization(0.9 * limit.per)
    note = budget.save(0.9 * limit.per, WALL)
    assert len(note) < 8000
    for _ in range(20):
        budget = Budget([limit])
        budget.restore(note, 0.0, WALL + 1_000_000, released=False, begin=0.0)
        note = budget.save(0.0, WALL + 1_000_000)
    assert budget.utilization(0.0) == pytest.approx(before, abs=0.01)
    assert len(budget._windows[0].segments) <= SEGMENTS


def test_a_changed_plan_takes_up_what_the_old_one_knew():
    budget = Budget([Limit(60, 60.0)], cost=1)
    drive(budget, Counter([]), lambda: 0.0, 30.0)
    dearer = Budget([Limit(300, 60.0)], cost=5)
    dearer.restore(budget.save(30.0, WALL), 0.0, WALL, released=True, begin=0.0)
    assert dearer._windows[0].counted == 30  # each is a call of its own, rounded up
    longer = Budget([Limit(1000, 3600.0)])
    longer.restore(budget.save(30.0, WALL), 0.0, WALL, released=True, begin=0.0)
    assert longer._windows[0].counted == 30


def test_pauses_survive_a_restart_unless_a_restart_is_the_cure():
    budget = Budget([Limit(1, 1.0)])
    budget.pause(100.0)
    budget.pause(9000.0, remember=False)
    after = restored([Limit(1, 1.0)], budget.save(0.0, WALL), 40.0)
    assert after.paused_until(40.0) == pytest.approx(100.0 + CLOCK_SKEW)


def test_bytes_that_are_no_save_are_refused():
    with pytest.raises(ValueError, match="malformed"):
        Budget([Limit(1, 1.0)]).restore(b"\xc1rubbish", 0.0, WALL, released=False, begin=0.0)


def test_no_call_leaves_while_another_has_been_unsaved_for_too_long():
    budget = Budget([Limit(10, 1.0)])
    budget.save(0.0, WALL)
    budget.mark_saved()
    budget.settle(budget.grant(0.0), 0.0)
    assert budget.ready_at(LATE - 0.01) < LATE
    assert budget.ready_at(LATE) == float("inf")
    budget.save(LATE, WALL)
    assert budget.ready_at(LATE) == float("inf")  # asked for, but not durable
    budget.mark_saved()
    assert budget.ready_at(LATE) == LATE
    assert not budget.unsaved_changes


# --- the part that waits


def test_who_waits_is_woken_when_a_held_slot_settles():
    async def main():
        limiter = Limiter(Budget([Limit(1, 1.0)]))
        left = []

        async def call(seconds):
            async with calling(limiter):
                left.append(anyio.current_time())
                await anyio.sleep(seconds)

        start = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, 5)
            await anyio.wait_all_tasks_blocked()  # the order in which tasks begin is chance
            tasks.start_soon(call, 0.1)
            tasks.start_soon(call, 0.1)
        return [round(time - start, 2) for time in left]

    assert virtually(main) == pytest.approx([0, 6, 7.1], abs=0.02)


def test_a_pause_during_a_wait_is_kept():
    async def main():
        limiter = Limiter(Budget([Limit(1, 1.0)]))
        start = anyio.current_time()
        async with calling(limiter):
            pass
        async with anyio.create_task_group() as tasks:

            async def pause():
                await anyio.sleep(0.5)
                limiter.pause(start + 30)

            tasks.start_soon(pause)
            async with calling(limiter):
                return anyio.current_time() - start

    assert virtually(main) == 30


def test_a_cancelled_waiter_leaves_no_trace_and_a_cancelled_call_is_counted():
    async def main():
        budget = Budget([Limit(2, 10.0)])
        limiter = Limiter(budget)
        with anyio.move_on_after(1):
            async with calling(limiter):
                await anyio.sleep_forever()
        assert budget._windows[0].in_flight == 0
        assert budget._windows[0].counted == 1
        with anyio.move_on_after(1):
            async with calling(limiter):
                raise AssertionError("the pace is 5 s")
        assert budget._windows[0].counted == 1
        async with calling(limiter):
            pass

    virtually(main)
