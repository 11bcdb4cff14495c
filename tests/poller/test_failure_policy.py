"""What follows from any sequence of answers: no requested wait is cut short, and nobody is left alone without a reason."""

from itertools import pairwise
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.polling import helius
from watcher.limits.limiter import Limiter
from watcher.poller.assembly import budget_of, schedules_of
from watcher.poller.condition import ProviderCondition
from watcher.poller.failure_policy import (
    DOUBT_STEPS,
    EXHAUSTED_PAUSE,
    LONGEST_ASIDE,
    LONGEST_BACKOFF,
    LONGEST_PAUSE,
    MOST_JITTER,
    REFUSED_PAUSE,
    FailurePolicy,
)
from watcher.poller.poll_stats import PollStats
from watcher.providers.failures import Exhausted, Malformed, Misconfigured, RefusedCredential, Temporary, Throttled
from watcher.providers.protocol import Response
from watcher.providers.waits import requested_wait
from watcher.scheduling.lane_scheduler import LaneScheduler

TRIP = 0.05
"""Seconds from a request to its answer."""
KEY = (RefusedCredential, Exhausted)


class House:
    """A provider's lanes, limiter and failure policy, in a time of ours."""

    def __init__(self, watches=3, **settings):
        provider = helius(watches, limits=((1, 1.0),), **settings)
        self.budget = budget_of(provider)
        schedules = schedules_of(provider, seed=1, now=0.0)
        self.lanes = LaneScheduler(provider.groups, schedules, self.budget)
        limiter, stats = Limiter(self.budget), PollStats("helius")
        longest, self.condition = provider.settings.max_interval, ProviderCondition(stats)
        self.policy = FailurePolicy(limiter, self.lanes, stats, self.condition, max_interval=longest, seed=1)
        self.now = 0.0

    def asked(self):
        """The next request: when it left, and what for. Answered TRIP later, which is now."""
        job, when = self.lanes.next_job(self.now)
        while job is None:
            assert self.now < when < inf, "nobody will ever be asked again"
            self.now = when
            job, when = self.lanes.next_job(self.now)
        granted, slot = self.now, self.budget.grant(self.now)
        self.now += TRIP
        self.budget.settle(slot, self.now)
        return granted, job

    def answered(self, granted, job, failure=None, headers=None):
        """A failure, or a good answer."""
        self.policy.pause_as_asked(job, requested_wait(Response(200, b"", 1.8e9, headers or {})), self.now)
        if failure is not None:
            self.policy.failed(job, granted, failure, self.now)
            return
        self.policy.answered(job, granted, self.now)
        for target in job.targets:
            job.schedule.report(target, self.now, False)
        self.lanes.answered(job, self.now)


waits = st.none() | st.integers(1, 2 * 3600).map(float)
answers = st.one_of(
    st.none(),
    st.tuples(st.sampled_from([Throttled, Temporary, Malformed, Misconfigured, RefusedCredential, Exhausted]), waits),
    st.integers(1, 2 * 3600),
)
"""A good one; a failure and the wait that it asks for; a good one that says after how many seconds there is a quota again."""


@given(st.lists(answers, max_size=60))
def test_no_requested_wait_is_cut_short_and_without_its_own_word_a_provider_is_not_left_alone(course):
    house = House()
    requested, alone, worked, said, sort = 0.0, 0.0, False, 0, None
    for answer in course:
        granted, job = house.asked()
        assert granted >= requested - 1e-6
        kind, wait = answer if isinstance(answer, tuple) else (None, answer)
        now, bound = house.now, 0.0
        if kind is None:
            worked, said = True, 0
            house.answered(granted, job, headers={"ratelimit": f'"q";r=0;t={wait}'} if wait else None)
        else:
            house.answered(granted, job, kind("because", wait))
        if kind in KEY and house.policy._not_the_key.isdisjoint(job.targets):
            said, sort = (said + 1 if kind is sort else 1), kind
            long = REFUSED_PAUSE if kind is RefusedCredential else EXHAUSTED_PAUSE
            bound = DOUBT_STEPS[said - 1] if worked and said <= len(DOUBT_STEPS) else long
        elif kind is Throttled and wait is None:
            bound = LONGEST_BACKOFF
        if wait is not None:
            requested = max(requested, now + min(wait, LONGEST_PAUSE))
        alone = max(alone, now + bound + MOST_JITTER, requested + MOST_JITTER)
        assert house.budget.ready_at(house.now) <= alone + 1.01


@pytest.mark.parametrize(("kind", "long", "event"), [(RefusedCredential, REFUSED_PAUSE, "refused"), (Exhausted, EXHAUSTED_PAUSE, "exhausted")])  # fmt: skip
def test_a_key_that_has_worked_is_asked_again_three_times_before_it_is_condemned(kind, long, event):
    house, times = House(1), []
    house.answered(*house.asked())
    with capture_logs() as logs:
        for _ in range(6):
            granted, job = house.asked()
            times.append(granted)
            house.answered(granted, job, kind("no"))
            alerts = [record for record in logs if record["event"] == f"provider.{event}"]
            assert len(alerts) == max(0, len(times) - 3)
        for wait, (before, after) in zip((*DOUBT_STEPS, long, long), pairwise(times), strict=True):
            assert wait <= after - before <= wait + MOST_JITTER + 2
        house.answered(*house.asked())
        granted, job = house.asked()
        house.answered(granted, job, kind("no"))  # after a good answer all begins anew
        assert house.asked()[0] - granted < DOUBT_STEPS[0] + MOST_JITTER


def test_a_key_that_never_worked_is_condemned_at_its_first_word():
    house = House(1)
    granted, job = house.asked()
    house.answered(granted, job, RefusedCredential("no"))
    assert REFUSED_PAUSE <= house.asked()[0] - granted <= REFUSED_PAUSE + MOST_JITTER + 2


@pytest.mark.parametrize(
    "other", [Temporary("a page"), Malformed("nonsense"), Throttled("too fast"), Temporary("", 9.0)]
)
def test_what_others_say_neither_confirms_nor_refutes_what_the_provider_said(other):
    house, words = House(1), 0
    house.answered(*house.asked())
    with capture_logs() as logs:
        while not any(record["event"] == "provider.refused" for record in logs):
            for failure in (RefusedCredential("no"), other, other):
                granted, job = house.asked()
                house.answered(granted, job, failure)
                words += failure is not other
            assert words < 10
    assert words == 1 + len(DOUBT_STEPS)


def test_two_different_words_confirm_each_other_not():
    house = House(1)
    house.answered(*house.asked())
    with capture_logs() as logs:
        for n in range(12):
            granted, job = house.asked()
            house.answered(granted, job, KEY[n % 2]("no"))
    assert not [record for record in logs if record["log_level"] == "error"]


def test_many_in_flight_that_are_refused_at_once_say_it_once():
    house = House(40)
    house.answered(*house.asked())
    flight = [house.asked() for _ in range(20)]
    with capture_logs() as logs:
        for granted, job in flight:
            house.answered(granted, job, RefusedCredential("no"))
    assert house.budget.ready_at(house.now) <= house.now + DOUBT_STEPS[0] + MOST_JITTER
    assert [record["event"] for record in logs] == ["provider.paused"]


def test_a_watch_that_is_refused_while_the_key_is_good_for_others_keeps_nobody_waiting():
    house, bad, asked = House(3), None, []
    for _ in range(3):
        house.answered(*house.asked())
    with capture_logs() as logs:
        while house.now < 3600:
            granted, job = house.asked()
            bad = bad or job.targets
            asked.append(job.targets == bad)
            house.answered(granted, job, RefusedCredential("HTTP 403") if job.targets == bad else None)
    assert len(asked) > 3300
    assert sum(asked) < 14
    (alert,) = [record for record in logs if record["log_level"] == "error"]
    assert (alert["event"], alert["watch"]) == ("watch.misconfigured", str(bad[0]))


def aside(house, answer, seconds):
    """When the first watch was asked, while `answer(n)` says what its n-th answer was; all others are fine."""
    bad, times = None, []
    while house.now < seconds:
        granted, job = house.asked()
        bad = bad or job.targets
        if job.targets == bad:
            times.append(granted)
            house.answered(granted, job, answer(len(times)))
        else:
            house.answered(granted, job)
    return [after - before for before, after in pairwise(times)]


@pytest.mark.parametrize(("settings", "first"), [({}, 60), ({"max_interval": 10.0}, 10), ({"max_interval": 600.0}, 60)])
def test_a_watch_set_aside_comes_back_later_and_later_and_is_logged_rarely(settings, first):
    with capture_logs() as logs:
        gaps = aside(House(3, **settings), lambda _: Misconfigured("HTTP 404: no"), 40_000)
    due = [min(first * 2**n, LONGEST_ASIDE) for n in range(len(gaps))]
    assert all(wait <= gap <= wait + MOST_JITTER + 4 for wait, gap in zip(due, gaps, strict=True))
    assert len([record for record in logs if record["event"] == "watch.misconfigured"]) == 2


def test_another_reason_is_logged_at_once():
    with capture_logs() as logs:
        aside(House(3), lambda n: Misconfigured(f"reason {n // 3}"), 1000)
    reasons = [record["reason"] for record in logs if record["event"] == "watch.misconfigured"]
    assert reasons == ["reason 0", "reason 1"]


def test_a_watch_that_has_worked_is_doubted_and_a_good_answer_ends_its_accusation():
    course = [None, *[Misconfigured("no")] * 6, None, None, *[Misconfigured("no")] * 5]
    with capture_logs() as logs:
        gaps = aside(House(3), lambda n: course[n - 1] if n <= len(course) else None, 1500)
    due = [0, *DOUBT_STEPS, 60, 120, 240, 0, 0, *DOUBT_STEPS, 60, 120]
    assert all(wait <= gap <= wait + MOST_JITTER + 6 for wait, gap in zip(due, gaps, strict=False))
    assert len(gaps) > len(due)
    events = [record["event"] for record in logs if record["event"].startswith("watch.")]
    assert events == ["watch.misconfigured", "watch.recovered"] * 2


@settings(max_examples=40)
@given(st.lists(st.sampled_from([None, Misconfigured, Misconfigured, Temporary, Malformed]), min_size=1, max_size=8))
def test_no_watch_is_left_alone_for_longer_or_shorter_than_its_own_word_allows(course):
    house, bad, times = House(3), None, []
    worked, said, due = False, 0, []
    while len(times) <= len(course):
        granted, job = house.asked()
        bad = bad or job.targets
        if job.targets != bad:
            house.answered(granted, job)
            continue
        times.append(granted)
        kind = course[len(times) - 1] if len(times) <= len(course) else None
        if kind is None:
            worked, said = True, 0
        said += kind is Misconfigured
        waits = (*(DOUBT_STEPS if worked else ()), 60, 120, 240, 480, 960, 1800, 1800, 1800)
        due.append(waits[said - 1] if kind is Misconfigured else 0)
        house.answered(granted, job, kind and kind("because"))
    for wait, (before, after) in zip(due, pairwise(times), strict=False):
        assert wait <= after - before <= wait + MOST_JITTER + 8 * 4  # others' turns, and a failing watch's own 8 cycles
