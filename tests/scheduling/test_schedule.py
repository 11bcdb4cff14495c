"""Who is asked next: the guarantee for any answers, retries, candidates, memory across restarts, and the goals."""

import hashlib
import itertools
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bench.freshness import Stream, cold, delays, oracle, product, round_robin, score
from tests.bench.streams import records
from watcher.scheduling.schedule import Schedule


def ask(schedule, now, changed=False):  # noqa: FBT002
    (target,) = schedule.pick(now)
    schedule.report(target, now, changed)
    return target


def run(schedule, since, until, step, changes=frozenset()):
    """One poll every `step` seconds; those in `changes` have changed at every look. Gives the targets polled."""
    return [ask_among(schedule, since + k * step, changes) for k in range(int((until - since) / step))]


def ask_among(schedule, now, changes):
    (target,) = schedule.pick(now)
    schedule.report(target, now, target in changes)
    return target


# --- the guarantee ---


@settings(deadline=None)
@given(
    size=st.integers(1, 40),
    share=st.sampled_from([0.1, 0.25, 0.4, 1.0]),
    data=st.data(),
)
def test_no_target_waits_longer_than_its_share_of_the_picks_whatever_the_answers_say(size, share, data):
    schedule = Schedule(range(size), seed=data.draw(st.integers(0, 9)), now=0.0)
    schedule._share = share
    answers = data.draw(st.lists(st.sampled_from(["same", "changed", "candidate"]), min_size=1, max_size=30))
    if share > 0.5:  # there every poll is a guarantee poll, and a confirmation must come out of somebody's
        answers = [answer for answer in answers if answer != "candidate"] or ["changed"]
    seen = dict.fromkeys(range(size), 0)
    for count in range(1, int(3 * size / share) + 20):
        (target,) = schedule.pick(float(count))
        answer = answers[hash((target, count // 7)) % len(answers)]
        schedule.report(target, float(count), answer == "changed")
        if answer == "candidate":
            schedule.confirm(target)
        seen[target] = count
        assert count - min(seen.values()) <= size / share + 1


@settings(deadline=None)
@given(size=st.integers(1, 60), batch=st.integers(1, 25), seed=st.integers(0, 9))
def test_a_batch_holds_each_target_once_and_what_is_in_flight_is_not_picked_again(size, batch, seed):
    schedule = Schedule(range(size), seed=seed, now=0.0)
    flying: list[int] = []
    while chosen := schedule.pick(1.0, batch):
        assert len(chosen) <= batch
        flying += chosen
    assert sorted(flying) == list(range(size))
    assert schedule.next_at(1.0) is None
    schedule.report(flying[0], 2.0, changed=False)
    assert schedule.pick(3.0, batch) == [flying[0]]


def test_when_all_is_quiet_it_is_round_robin():
    schedule = Schedule(range(50), seed=1, now=0.0)
    order = run(schedule, 0.0, 2000.0, 1.0)
    assert all(order[k : k + 50] == order[150:200] for k in range(150, 2000, 50))
    assert all(len(set(order[k : k + 50])) == 50 for k in (0, 50, 100))  # the first evidence may swap neighbours


def test_a_surprise_everywhere_is_met_with_one_clean_sweep_oldest_first():
    schedule = Schedule(range(200), seed=1, now=0.0)
    run(schedule, 0.0, 6000.0, 1.0, changes={3, 4})
    everybody = set(range(200))
    polled = run(schedule, 6000.0, 6300.0, 1.0, changes=everybody)
    assert len(set(polled)) > 195  # without the canary a quarter of 300 would have to do for the unchanging


# --- the shape of the thing ---


def test_nothing_to_watch_is_no_trouble():
    schedule = Schedule([], seed=1, now=0.0)
    assert schedule.pick(1.0, 5) == []
    assert schedule.next_at(1.0) is None
    assert schedule.stalest(1.0) is None
    assert schedule.cycle(1.0) == 0.0
    assert schedule.expected_mean_delay(1.0) == 0.0
    schedule.restore(schedule.save(1.0), 60.0, 2.0)


def test_a_single_target_is_asked_every_time():
    schedule = Schedule(["only"], seed=1, now=0.0)
    assert [ask(schedule, float(t), changed=t % 3 == 0) for t in range(1, 100)] == ["only"] * 99
    assert schedule.cycle(99.0) == pytest.approx(1.0)


def test_the_first_answer_is_a_baseline_and_teaches_nothing():
    first_changed, first_same = (Schedule(range(3), seed=1, now=0.0) for _ in range(2))
    for schedule, changed in ((first_changed, True), (first_same, False)):
        for t in (1.0, 2.0, 3.0):
            ask(schedule, t, changed)
    assert first_changed.save(4.0) == first_same.save(4.0)


def test_years_of_silence_do_not_wear_the_arithmetic_out():
    schedule = Schedule(["only"], seed=1, now=0.0)
    schedule._rates.changes = 0.0
    for day in range(400):
        ask(schedule, day * 86400.0)
    ask(schedule, 400 * 86400.0, changed=True)
    ask(schedule, 400 * 86400.0, changed=True)  # at the same instant
    assert schedule.pick(400 * 86400.0) == ["only"]


def test_an_answer_that_nobody_asked_for_is_a_mistake_of_the_caller():
    schedule = Schedule(["a", "b"], seed=1, now=0.0)
    with pytest.raises(ValueError, match="never picked"):
        schedule.report("a", 1.0, changed=False)
    with pytest.raises(KeyError):
        schedule.failed("z", 1.0)


def test_targets_whose_hashes_collide_are_told_apart():
    targets = [n << 40 for n in range(3000)]
    schedule = Schedule(targets, seed=1, now=0.0)
    assert sorted(run(schedule, 0.0, 3000.0, 1.0)) == targets


def test_a_target_given_twice_is_watched_once():
    assert len(Schedule(["a", "b", "a"], seed=1, now=0.0)) == 2


# --- intervals ---


def test_no_target_is_read_again_before_min_interval_and_the_request_is_left_unused():
    schedule = Schedule(range(5), seed=1, now=0.0, min_interval=60.0)
    last: dict[int, float] = {}
    unused = 0
    for t in range(600):
        for target in schedule.pick(float(t)):
            assert t - last.get(target, -60.0) >= 60.0
            last[target] = float(t)
            schedule.report(target, float(t), changed=True)
        if not schedule.pick(t + 0.5):
            unused += 1
            due = schedule.next_at(t + 0.5)
            assert due == min(last.values()) + 60.0
    assert unused > 500
    assert schedule.cycle(600.0) == 60.0


@pytest.mark.parametrize(("max_interval", "share"), [(30.0, 1.0), (60.0, 1.0), (150.0, 0.4), (600.0, 0.1), (9e9, 0.1)])
def test_max_interval_sets_the_guaranteed_share(max_interval, share):
    schedule = Schedule(range(60), seed=1, now=0.0, max_interval=max_interval)
    run(schedule, 0.0, 300.0, 1.0, changes={1, 2, 3})
    assert schedule._share == pytest.approx(share)


def test_max_interval_is_kept_where_the_budget_allows_it():
    schedule = Schedule(range(60), seed=1, now=0.0, max_interval=120.0)
    last = dict.fromkeys(range(60), 0.0)
    for t in range(6000):
        target = ask_among(schedule, float(t), {1, 2, 3})
        last[target] = float(t)
        assert t - min(last.values()) <= 122.0


def test_the_cycle_is_what_the_budget_achieves_and_a_pause_stretches_it_while_it_lasts():
    schedule = Schedule(range(120), seed=1, now=0.0)
    for k in range(60):
        for target in schedule.pick(k * 5.0, 20):
            schedule.report(target, k * 5.0, changed=False)
    assert schedule.cycle(295.0) == pytest.approx(30.0)
    assert schedule.cycle(297.0) == pytest.approx(30.0)
    assert schedule.cycle(295.0 + 600.0) > 150.0


# --- candidates ---


def test_a_candidate_is_the_next_poll():
    schedule = Schedule(range(100), seed=1, now=0.0)
    run(schedule, 0.0, 150.0, 1.0)
    for t in range(200, 260):
        target = ask(schedule, float(t))
        if t % 3 == 0:
            schedule.confirm(target)
            assert ask(schedule, t + 0.5) == target


def test_a_candidate_named_while_in_flight_is_the_next_poll_after_its_answer():
    schedule = Schedule(range(10), seed=1, now=0.0)
    (target,) = schedule.pick(1.0)
    schedule.confirm(target)
    schedule.report(target, 2.0, changed=False)
    assert ask(schedule, 2.0) == target
    assert ask(schedule, 3.0) != target  # one confirmation, not one for ever


def test_a_candidate_waits_for_min_interval():
    schedule = Schedule(range(10), seed=1, now=0.0, min_interval=30.0)
    target = ask(schedule, 0.0)
    schedule.confirm(target)
    others = run(schedule, 1.0, 10.0, 1.0)
    assert target not in others
    assert schedule.pick(29.0) == []
    assert schedule.next_at(29.0) == 30.0
    assert schedule.pick(30.0) == [target]


def test_a_candidate_that_is_too_fresh_for_the_heap_leaves_the_others_their_order():
    schedule = Schedule(range(3), seed=1, now=0.0, min_interval=10.0)
    first, second, third = run(schedule, 0.0, 3.0, 1.0)
    schedule.confirm(first)  # the boundary between ripe and fresh stands on it
    assert schedule.pick(10.0) == [first]
    assert schedule.pick(11.0) == [second]
    assert schedule.pick(12.0) == [third]


def test_endless_doubt_about_one_target_takes_no_more_than_its_turn_from_the_others():
    schedule = Schedule(range(20), seed=1, now=0.0)
    polls = Counter()
    for t in range(400):
        target = ask(schedule, float(t))
        polls[target] += 1
        if target in {0, 1}:
            schedule.confirm(target)
    assert min(polls.values()) >= 4


# --- failures ---


def test_an_outdated_target_is_asked_again_soon_but_not_before_min_interval_and_is_as_unread_as_before():
    schedule = Schedule(range(1), seed=1, now=0.0, min_interval=5.0)
    ask(schedule, 0.0)
    for t in (5.0, 10.0, 20.0, 30.0):
        assert schedule.pick(t - 5.1) == []
        assert schedule.pick(t) == [0]
        schedule.outdated(0, t)
    assert schedule.stalest(35.0) == (0, 35.0)


def test_a_failing_target_is_retried_at_once_and_then_after_1_2_4_8_and_8_cycles():
    schedule = Schedule(range(10), seed=1, now=0.0)
    run(schedule, 0.0, 100.0, 1.0)
    tried = []
    for t in range(100, 500):
        (target,) = schedule.pick(float(t))
        if target == 7:
            tried.append(t)
            schedule.failed(7, float(t))
        else:
            schedule.report(target, float(t), changed=False)
    waits = [after - before for before, after in itertools.pairwise(tried)]
    assert waits[0] == 1
    assert waits[1:6] == pytest.approx([10, 20, 40, 80, 80], abs=2)


def test_a_failing_half_does_not_starve_the_other():
    schedule = Schedule(range(100), seed=1, now=0.0)
    last = dict.fromkeys(range(50, 100), 0)
    for t in range(2000):
        (target,) = schedule.pick(float(t))
        if target < 50:
            schedule.failed(target, float(t))
        else:
            schedule.report(target, float(t), changed=False)
            last[target] = t
        assert t - min(last.values()) <= 401  # cycle / ε


def test_a_target_that_answers_again_is_forgiven_and_unread_time_counts_as_one_gap():
    schedule = Schedule(["only"], seed=1, now=0.0)
    ask(schedule, 0.0)
    ask(schedule, 10.0)
    for t in (20.0, 30.0):
        assert schedule.pick(t) == ["only"]
        schedule.failed("only", t)
    assert schedule.pick(31.0) == []
    assert ask(schedule, 40.0) == "only"
    assert schedule._rates.b[0] == pytest.approx(40.0, rel=0.01)
    assert schedule.pick(41.0) == ["only"]
    schedule.failed("only", 41.0)
    assert schedule.pick(41.0) == ["only"]


def test_a_lone_failing_target_keeps_its_pace_and_does_not_wait_for_ever():
    schedule = Schedule(["only"], seed=1, now=0.0)
    t, tries = 0.0, 0
    while t < 1000.0:
        if schedule.pick(t):
            tries += 1
            schedule.failed("only", t)
        t += 1.0
    assert 100 <= tries <= 130


# --- a restart ---


def test_a_restart_keeps_what_was_learned_and_knows_how_long_it_was_away():
    before = Schedule([f"w{n}" for n in range(100)], seed=1, now=0.0)
    busy = {"w3", "w4"}
    run(before, 0.0, 7200.0, 0.6, busy)
    settled = Counter(run(before, 7200.0, 7800.0, 0.6, busy))
    saved = before.save(7800.0)
    after = Schedule([f"w{n}" for n in range(50)] + ["new"], seed=2, now=0.0)  # half the list is gone, one is new
    after.restore(saved, 60.0, 5.0)
    assert after.stalest(5.0)[1] > 60.0
    assert after.cycle(5.0) == pytest.approx(0.6 * 51)
    polls = Counter(run(after, 5.0, 305.0, 0.6, busy))
    assert polls["w3"] > 0.7 * settled["w3"] * 500 / 1000
    assert polls["w3"] > 3 * polls["w20"]
    assert "new" in list(polls)[:60]


def test_a_restored_schedule_saves_the_same_again():
    schedule = Schedule(range(20), seed=1, now=0.0)
    run(schedule, 0.0, 600.0, 1.0, {1, 2})
    saved = schedule.save(600.0)
    again = Schedule(range(20), seed=5, now=600.0)
    again.restore(saved, 0.0, 600.0)
    assert msgspec.msgpack.decode(again.save(600.0)) == msgspec.msgpack.decode(saved)


def test_downtime_fades_the_bursts_before_the_habits():
    schedule = Schedule(["only"], seed=1, now=0.0)
    run(schedule, 0.0, 600.0, 1.0, {"only"})
    again = Schedule(["only"], seed=1, now=0.0)
    again.restore(schedule.save(600.0), 600.0, 0.0)
    kept, belief = schedule._rates, again._rates
    assert belief.a[0] == pytest.approx(kept.a[0], rel=0.03)
    assert belief.af[0] < kept.af[0] / 1000


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff\xff", b"{}", msgspec.msgpack.encode({"pace": 1.0})])
def test_what_is_no_saved_schedule_is_refused(data):
    with pytest.raises(ValueError, match=r".+"):
        Schedule(range(3), seed=1, now=0.0).restore(data, 1.0, 1.0)


def test_a_saved_schedule_with_a_column_cut_short_is_refused():
    schedule = Schedule(range(3), seed=1, now=0.0)
    run(schedule, 0.0, 9.0, 1.0)
    broken = msgspec.msgpack.decode(schedule.save(9.0))
    broken["ages"] = broken["ages"][:-4]
    with pytest.raises(ValueError, match="columns"):
        schedule.restore(msgspec.msgpack.encode(broken), 1.0, 9.0)


# --- the goals: one seed of three streams; all five of eleven in `python -m tests.bench.schedule` ---


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("uniform", "c2ce0d8c8a086dce"),
        ("zipf1.2", "33dc6207161e6c58"),
        ("mmpp", "0232bf536aa20b8f"),
        ("hawkes", "ec040cb62087b6ab"),
    ],
)
def test_the_streams_are_byte_for_byte_the_benchmarks(name, prefix):
    assert hashlib.sha256(records(name, 100).tobytes()).hexdigest()[:16] == prefix


@pytest.mark.usefixtures("uncounted")
@pytest.mark.world
@pytest.mark.parametrize(("name", "goal"), [("zipf1.2", 0.38), ("mmpp", 0.36), ("epoch", 0.90)])
def test_changes_are_seen_as_much_sooner_as_promised(name, goal):
    stream = Stream.of(records(name, 100))
    even, ours = score(stream, round_robin(stream)), score(stream, product(stream, cold(100)))
    assert ours.mean <= goal * even.mean
    assert ours.p95 <= 1.08 * even.p95
    assert ours.p99 <= 1.50 * even.p99
    assert ours.max_staleness_cycles <= 4.05
    if name == "zipf1.2":
        assert ours.mean <= 1.12 * score(stream, oracle(stream)).mean
        assert ours.missed <= 0.33


def test_a_cold_start_costs_nothing_and_learning_takes_minutes():
    def windows(name):
        stream = Stream.of(records(name, 100)[:9000])
        short = Stream(stream.times, stream.ids, seconds=900.0)
        even, ours = round_robin(short), product(short, cold(100))
        for window in ((0.0, 60.0), (60.0, 120.0), (120.0, 300.0), (300.0, 600.0)):
            yield delays(short, ours, window)[0].mean() / delays(short, even, window)[0].mean()

    assert all(ratio <= 1.15 for ratio in windows("uniform"))
    assert list(windows("zipf1.2"))[2] <= 0.5


@pytest.mark.usefixtures("uncounted")
def test_a_batch_filled_with_the_most_due_is_as_good_as_single_polls():
    whole = Stream.of(records("zipf1.2", 100))
    stream = Stream(whole.times, whole.ids, seconds=9000.0)
    even, ours = round_robin(stream, batch=20), product(stream, cold(100), batch=20)
    measured = (3600.0, 8400.0)
    assert delays(stream, ours, measured)[0].mean() <= 0.38 * delays(stream, even, measured)[0].mean()


def test_saving_in_steps_gives_the_same_while_polls_go_on_in_between():
    schedule = Schedule([f"w{n}" for n in range(50)], seed=1, now=0.0)
    run(schedule, 0.0, 20.0, 1.0)
    whole = schedule.save(20.0)
    steps, saved = schedule.saving(20.0), None
    for t in itertools.count(20):
        try:
            next(steps)
        except StopIteration as end:
            saved = end.value
            break
        ask(schedule, float(t))
    assert len(saved) == len(whole)
    after = Schedule([f"w{n}" for n in range(50)], seed=1, now=0.0)
    after.restore(saved, 0.0, 30.0)
    assert after.cycle(30.0) > 0
