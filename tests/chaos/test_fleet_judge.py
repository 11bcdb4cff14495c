"""The judge of a fleet sees each planted violation, and nothing where the laws are kept."""

import pytest

from tests.chaos.fleet_judge import Arrival, Event, FleetJudge, Quota

QUOTAS = {"bank": [Quota(2, 1.0)], "mint": [Quota(10, 10.0, cost=5)]}
END = 40.0
KILL = Event("kill", 10.0, 18.0, frozenset({"p0"}), bound=6.0, dirty=True)
JOIN = Event("join", 10.0, 18.0, frozenset(), bound=3.0, dirty=False)


def asking(provider, process, begin, end, every):
    count = int((end - begin) / every)
    return [Arrival(begin + number * every, provider, process) for number in range(count)]


def good(silent=5.0):
    """`p0` has both and ends at 10 s; `p1` takes the bank over after so many seconds, `p2` always had the mint."""
    return [
        *asking("bank", "p0", 0.0, 10.0, 0.5),
        *asking("bank", "p1", 10.0 + silent, END, 0.5),
        *asking("mint", "p2", 0.0, END, 5.0),
    ]


def judged(arrivals, events=(KILL,)):
    judge = FleetJudge(QUOTAS)
    judge.judge(arrivals, events, END)
    return judge


def test_a_fleet_that_keeps_the_laws_is_left_alone():
    judge = judged(good())
    assert not judge.violations, judge.examples
    assert judge.moves == 1
    ((kind, provider, seconds, allowed),) = judge.gaps
    assert (kind, provider, allowed) == ("kill", "bank", 7.0)
    assert seconds == pytest.approx(5.0)
    assert judge.others == {"kill": pytest.approx(1.0)}


def test_the_order_in_which_arrivals_are_told_says_nothing():
    assert not judged(good()[::-1]).violations


@pytest.mark.parametrize(
    ("planted", "law"),
    [
        ([Arrival(20.3, "bank", "p1")], "limit exceeded"),
        ([Arrival(20.3, "bank", "p3")], "limit exceeded"),
        ([Arrival(20.05, "bank", "p0")], "overlap"),
        ([Arrival(12.0, "mint", "p2")], "limit exceeded"),
        ([Arrival(12.0, "bank", "p0", refused=True)], "refused"),
    ],
)
def test_a_request_too_many_is_seen_whoever_sends_it(planted, law):
    assert law in judged(good() + planted).violations


def test_windows_are_strict_and_touch_without_sharing():
    exact = asking("bank", "p0", 0.0, 8.0, 0.5)
    assert "limit exceeded" not in judged(exact, ()).violations
    assert "limit exceeded" in judged([*exact[:-1], exact[-1]._replace(at=exact[-1].at - 0.001)], ()).violations


def test_a_provider_that_nobody_asks_for_too_long_is_seen():
    assert set(judged(good(silent=8.0)).violations) == {"unpolled for too long"}


def test_a_provider_that_is_never_asked_again_is_seen():
    arrivals = [arrival for arrival in good() if arrival.process != "p1"]
    assert "unpolled for too long" in judged(arrivals).violations


def test_a_provider_that_was_deleted_for_a_while_need_not_be_asked():
    assert not judged(good(silent=8.0), (KILL._replace(deleted=frozenset({"bank"})),)).violations


def test_a_clean_move_has_no_window_on_top():
    assert not judged(good(silent=3.0), (JOIN,)).violations
    assert "unpolled for too long" in judged(good(silent=3.6), (JOIN,)).violations


def test_a_harmed_owner_that_keeps_its_provider_is_measured_too():
    arrivals = [*asking("bank", "p0", 0.0, 10.0, 0.5), *asking("bank", "p0", 19.0, END, 0.5)]
    assert "unpolled for too long" in judged(arrivals).violations


def test_others_that_slow_down_are_seen():
    slow = [
        *asking("bank", "p0", 0.0, 10.0, 0.5),
        *asking("bank", "p0", 10.0, 18.0, 0.8),
        *asking("bank", "p0", 18.5, END, 0.5),
        *asking("mint", "p2", 0.0, END, 5.0),
    ]
    assert set(judged(slow, (JOIN,)).violations) == {"others delayed"}


def test_a_provider_that_nobody_asks_at_all_is_seen():
    arrivals = [arrival for arrival in good() if arrival.provider != "mint"]
    assert set(judged(arrivals).violations) == {"never asked"}


def test_a_pause_while_nothing_is_done_is_seen():
    assert "unpolled without a cause" in judged(good(silent=5.0), ()).violations
