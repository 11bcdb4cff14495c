"""From a journal's intervals to times, and from a long history to the pieces of it that are gone through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.polling import helius
from watcher.limits.forecast import DAY
from watcher.model.keys import Key, Scope
from watcher.model.targets import LISTING, Target
from watcher.rehearsal.feeds import targets_of
from watcher.rehearsal.history import BalanceHistory, Observed, history_of, rehearsed
from watcher.rehearsal.pieces import JUDGED, JUDGED_BALANCE, MOST_ALONE, SHORTEST, Piece, pieces_of, shares, steps_of
from watcher.rehearsal.synthetic import made_up, zipf_rates

KEY = Key("helius", "solana:1", "a", "t")
SECOND = 1_000_000


def observed(*intervals):
    """(amount before, amount, earliest second, latest second)"""
    return [Observed(KEY, before, after, int(a * SECOND), int(b * SECOND)) for before, after, a, b in intervals]


def test_a_change_lies_within_its_interval_and_anywhere_in_it():
    places = []
    for seed in range(200):
        history = history_of(observed(("1", "2", 100, 160)), [(KEY, "2")], 100 * SECOND, 400 * SECOND, seed=seed)
        (balance,) = history.balances
        assert balance.amounts == ["1", "2"]
        places += balance.times
    assert history.seconds == 300
    assert all(0 < place <= 60 for place in places)
    assert min(places) < 5
    assert max(places) > 55
    assert sum(places) / len(places) == pytest.approx(30, abs=4)


def test_the_same_seed_places_them_in_the_same_way():
    changes = observed(("1", "2", 100, 160), ("2", "3", 160, 230))
    one, two, other = (history_of(changes, [(KEY, "3")], 0, 400 * SECOND, seed=seed) for seed in (1, 1, 2))
    assert one == two != other


def test_what_began_before_the_history_lies_in_its_first_part():
    for seed in range(50):
        history = history_of(observed(("1", "2", 50, 110)), [(KEY, "2")], 100 * SECOND, 200 * SECOND, seed=seed)
        assert 0 <= history.balances[0].times[0] <= 10


def test_behind_a_cache_a_change_may_be_older_than_the_reading_that_did_not_show_it():
    places = []
    for seed in range(200):
        one = history_of(observed(("1", "2", 150, 160)), [], 100 * SECOND, 400 * SECOND, seed=seed, cache=40.0)
        places += one.balances[0].times
    assert 20 < min(places) < 25
    assert 55 < max(places) <= 60


def test_who_never_changed_is_known_all_the_same():
    history = history_of([], [(KEY, "7")], 0, SECOND, seed=1)
    assert history.balances == [BalanceHistory(KEY, [], ["7"])]


def test_a_history_that_is_too_short_is_repeated():
    balance = BalanceHistory(KEY, [1.0, 6.0], ["1", "2", "1"])
    found = rehearsed(balance, 10.0, [Piece(0.0, 25.0, 0.0)])
    assert found.times == [1.0, 6.0, 11.0, 16.0, 21.0]
    assert found.amounts == ["1", "2", "1", "2", "1", "2"]


def test_at_a_seam_no_change_leads_to_the_amount_that_is_there():
    balance = BalanceHistory(KEY, [1.0, 6.0], ["1", "2", "3"])
    found = rehearsed(balance, 10.0, [Piece(0.0, 2.0, 0.0), Piece(10.0, 20.0, 2.0)])
    assert found.times == [1.0, 8.0]  # at 11 it would become 2 once more
    assert found.amounts == ["1", "2", "3"]


def test_pieces_are_put_behind_one_another():
    balance = BalanceHistory(KEY, [5.0, 50.0, 95.0], ["0", "1", "2", "3"])
    found = rehearsed(balance, 100.0, [Piece(0.0, 10.0, 0.0), Piece(90.0, 100.0, 10.0)])
    assert found.times == [5.0, 15.0]
    assert found.amounts == ["0", "1", "3"]


@given(st.floats(0.01, 400), st.floats(1e-6, 2))
def test_pieces_are_as_long_as_wished_and_spread_over_all_the_days(days, share):
    seconds = days * DAY
    pieces = pieces_of(seconds, share)
    length = sum(piece.end - piece.start for piece in pieces)
    assert length == pytest.approx(max(min(share, 1) * seconds, min(seconds, SHORTEST)))
    begins = end = 0.0
    room = seconds / len(pieces)
    for number, piece in enumerate(pieces):
        assert piece.begins == pytest.approx(begins)
        assert end - 1e-6 <= piece.start < piece.end <= seconds * (1 + 1e-9)
        assert number * room - 1e-6 <= piece.start
        assert piece.end <= (number + 1) * room * (1 + 1e-9)
        begins, end = begins + piece.end - piece.start, piece.end


def test_pieces_come_at_all_times_of_the_day():
    starts = [piece.start % DAY / 3600 for piece in pieces_of(30 * DAY, 0.05)]
    assert len({int(start // 4) for start in starts}) == 6


@given(st.lists(st.floats(0, 1e9), max_size=8), st.floats(1, 1e9))
def test_small_works_are_done_whole_and_large_ones_share_the_rest(steps, most):
    found = shares(steps, most)
    done = [one * part for one, part in zip(steps, found, strict=True)]
    assert sum(done) <= most * (1 + 1e-9)
    assert all(0 <= part <= 1 for part in found)
    assert max(done, default=0) <= most * MOST_ALONE * (1 + 1e-9)
    if any(part < 1 for part in found):
        assert sum(done) == pytest.approx(most) or max(done) == pytest.approx(most * MOST_ALONE)
        cut = [work for work, part in zip(done, found, strict=True) if part < 1]
        assert max(cut) == pytest.approx(min(cut))
        assert max(done) <= max(cut) * (1 + 1e-9)
    else:
        assert sum(steps) <= most * (1 + 1e-9)


def test_what_changes_seldom_is_little_work_and_what_is_judged_at_each_read_is_much():
    provider = helius(100, limits=((10, 1.0),))
    quiet, lively, heavy = (
        steps_of(provider, 1000.0, [rate] * 100, balances) for rate, balances in ((1e-6, 1), (10.0, 1), (10.0, 100))
    )
    assert quiet == pytest.approx(20_000, rel=0.01)
    assert lively == pytest.approx(10_000 * (2 + JUDGED + JUDGED_BALANCE), rel=0.02)
    assert heavy == pytest.approx(10_000 * (2 + JUDGED + 100 * JUDGED_BALANCE), rel=0.02)
    assert (
        steps_of(provider, 1000.0, [], 0.0) == steps_of(provider, 1000.0, [0.0], 1.0) == pytest.approx(20_000, rel=0.01)
    )


def target(account=None, token=None, chain="solana:1"):
    return Target(LISTING, Scope("helius", chain, account, token))


def test_a_balance_is_read_by_every_target_that_covers_it():
    targets = [target("a"), target(None, "t"), target("a", "t"), target(), target("b"), target("a", "u")]
    found = targets_of(targets, [KEY, Key("helius", "solana:2", "a", "t"), Key("other", "solana:1", "a", "t")])
    assert {one for one, keys in found.items() if keys} == set(targets[:4])
    assert all(keys in ([], [KEY]) for keys in found.values())


def test_made_up_rates_are_unequal_and_have_the_wished_mean():
    targets = [target(str(n)) for n in range(1000)]
    rates = zipf_rates(targets, 2.0, 1)
    assert sum(rates.values()) * 3600 / 1000 == pytest.approx(2.0)
    ordered = sorted(rates.values(), reverse=True)
    assert sum(ordered[:10]) / sum(ordered) == pytest.approx(0.5, abs=0.1)
    assert rates == zipf_rates(targets[::-1], 2.0, 1) != zipf_rates(targets, 2.0, 2)


def test_made_up_changes_come_at_their_rate_and_never_lead_back():
    (balance,) = made_up([(target("a"), 0.1)], 100_000.0, 1)
    assert len(balance.times) == pytest.approx(10_000, rel=0.05)
    assert balance.times == sorted(balance.times)
    assert len(set(balance.amounts)) == len(balance.amounts) == len(balance.times) + 1
    assert made_up([(target("a"), 0.0)], 100.0, 1)[0].times == []
