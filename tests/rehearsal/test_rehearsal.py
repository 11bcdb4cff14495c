"""One provider in virtual time: what leaves, what is seen when, and what the figures then say."""

import msgspec
import pytest

from tests.polling import helius, solana, tokenkit
from tests.rehearsal.beside import rehearsed
from watcher.limits.forecast import DAY
from watcher.limits.windows import Limit
from watcher.model.addresses import ETHEREUM, SOLANA
from watcher.model.keys import Key
from watcher.model.watches import Watched, WatchIndex
from watcher.poller.assembly import budget_of
from watcher.providers.bloxroute import BloxrouteSettings
from watcher.providers.helius import HeliusSettings
from watcher.providers.ondo import OndoSettings
from watcher.providers.settings import Watch
from watcher.providers.tokenkit import TokenKitSettings
from watcher.rehearsal.history import BalanceHistory, History
from watcher.rehearsal.task import Task, Wishes

HOUR = 3600.0


def one(n, *changes, amounts=None):
    """A balance of the n-th account: it changes then."""
    amounts = amounts or [str(k) for k in range(len(changes) + 1)]
    return Key("helius", SOLANA, solana(n), "unknown"), (changes, amounts)


def settings(watches, requests, per, **more):
    return HeliusSettings(
        type="helius",
        limits=(Limit(requests, per),),
        watch=tuple(Watch(account=solana(n)) for n in range(watches)),
        **more,
    )


def test_one_watch_is_read_at_the_pace_of_the_limit_and_a_change_waits_half_of_that():
    times = [30.0 + 61.7 * n for n in range(500)]
    outcome = rehearsed(settings(1, 6, 60.0), dict([one(0, *times)]), 500 * 61.7, latency=0.2)
    assert outcome.delays.changes == 500
    assert outcome.delays.missed == 0
    assert outcome.delays.mean == pytest.approx(5.0 + 0.2, rel=0.05)
    assert outcome.delays.p50 == pytest.approx(5.2, rel=0.1)
    assert outcome.delays.most <= 10.3
    assert sum(outcome.requests_by_day) == pytest.approx(500 * 61.7 / 10, rel=0.01)
    assert outcome.share == pytest.approx(1.0, abs=0.01)


def test_what_an_answer_shows_was_so_half_way_through():
    outcome = rehearsed(settings(1, 1, 10.0), dict([one(0, 10.9)]), 30.0, latency=2.0)
    # Asked at 0, answered at 2; at 12, answered at 14; what happens at 10.9 is shown by the second.
    assert outcome.delays.mean == pytest.approx(14.0 - 10.9, abs=0.01)
    late = rehearsed(settings(1, 1, 10.0), dict([one(0, 13.5)]), 30.0, latency=2.0)
    assert late.delays.mean == pytest.approx(26.0 - 13.5, abs=0.02)


def test_changes_between_two_reads_make_one_event_and_each_waits_for_it():
    outcome = rehearsed(settings(1, 1, 10.0), dict([one(0, 12.0, 14.0, 18.0)]), 60.0, latency=0.0)
    assert (outcome.delays.changes, outcome.delays.missed) == (3, 2)
    assert outcome.delays.mean == pytest.approx((8 + 6 + 2) / 3, abs=0.01)


def test_who_comes_back_in_between_is_never_seen():
    away = one(0, 12.0, 14.0, 35.0, amounts=["1", "2", "1", "3"])
    outcome = rehearsed(settings(1, 1, 10.0), dict([away]), 60.0, latency=0.0)
    assert (outcome.delays.changes, outcome.delays.missed) == (1, 2)
    assert outcome.delays.mean == pytest.approx(5.0, abs=0.01)


def test_the_way_there_and_back_before_a_change_is_no_part_of_its_delay():
    away = one(0, 12.0, 14.0, 17.0, amounts=["1", "2", "1", "3"])
    outcome = rehearsed(settings(1, 1, 10.0), dict([away]), 60.0, latency=0.0)
    assert (outcome.delays.changes, outcome.delays.missed) == (1, 2)
    assert outcome.delays.mean == pytest.approx(3.0, abs=0.01)


def test_what_was_so_at_the_first_reading_is_no_change():
    outcome = rehearsed(settings(1, 1, 10.0), dict([one(0, 0.5, 15.0)]), 60.0, latency=2.0)
    assert outcome.delays.changes == 1


def test_what_changes_before_the_time_that_counts_does_not_count():
    balances = dict([one(0, 12.0, 14.0, 35.0)])
    outcome = rehearsed(settings(1, 1, 10.0), balances, 60.0, latency=0.0, since=13.0)
    assert outcome.delays.changes == 2
    assert outcome.delays.mean == pytest.approx((6 + 5) / 2, abs=0.01)


def test_a_vanished_balance_is_read_twice_before_it_is_an_event():
    watch = (Watch(account=solana(0)),)
    table = BloxrouteSettings(type="bloxroute", limits=(Limit(1, 10.0),), cost=1.0, watch=watch)
    keys = [Key("bloxroute", SOLANA, solana(0), token) for token in ("a", "b")]
    balances = {keys[0]: ([25.0], ["5", "0"]), keys[1]: ([], ["1"])}
    outcome = rehearsed(table, balances, 100.0, latency=0.0)
    assert outcome.confirming == 1
    assert outcome.delays.mean == pytest.approx(40.0 - 25.0, abs=0.01)


def test_a_candidate_is_confirmed_by_the_next_request_and_not_by_the_next_turn():
    watch = tuple(Watch(account=solana(n)) for n in range(20))
    table = BloxrouteSettings(type="bloxroute", limits=(Limit(1, 10.0),), cost=1.0, watch=watch)
    balances = {Key("bloxroute", SOLANA, solana(n), token): ([], ["1"]) for n in range(20) for token in ("a", "b")}
    gone = Key("bloxroute", SOLANA, solana(0), "a")
    outcomes = {}
    for left in ("0", "2"):  # a change to "2" is told at once
        outcome = rehearsed(table, {**balances, gone: ([1000.0], ["1", left])}, 3000.0, latency=0.0)
        outcomes[left] = outcome.delays.mean
    assert 10 <= outcomes["0"] - outcomes["2"] <= 21


def test_a_return_is_read_twice_where_order_is_missing():
    watch = (Watch(account=solana(0)),)
    table = BloxrouteSettings(type="bloxroute", limits=(Limit(1, 5.0),), cost=1.0, watch=watch)
    balances = {Key("bloxroute", SOLANA, solana(0), "a"): ([12.0, 22.0], ["5", "6", "5"])}
    outcome = rehearsed(table, balances, 100.0, latency=0.0)
    assert outcome.confirming == 1
    assert outcome.delays.mean == pytest.approx((15 - 12 + 30 - 22) / 2, abs=0.01)


def test_an_answer_out_of_a_cache_shows_what_was():
    account = "0x" + "1" * 40
    table = OndoSettings(type="ondo", limits=(Limit(1, 10.0),), watch=(Watch(account=account, chain="ethereum-1"),))
    balances = {Key("ondo", ETHEREUM, account, "t"): ([15.0], ["5", "6"])}
    outcome = rehearsed(table, balances, 200.0, latency=0.0)
    assert outcome.delays.mean == pytest.approx(60.0 - 15.0, abs=0.1)  # asked at 0, 10, 20, …; made anew at 60


def test_tokenkit_answers_as_old_as_is_asked_for():
    def table(**more):
        watch = (Watch(account="0x1", token="0x99"),)
        return TokenKitSettings(type="tokenkit", limits=(Limit(1, 10.0),), watch=watch, **more)

    scope = tokenkit(1).groups[0].targets[0].scope
    key = Key("tokenkit", scope.chain, table().watch[0].account, "0x99")
    provider = Task("tokenkit", table(), keyed=True, wishes=Wishes(1.0), history=None, watches=WatchIndex()).provider()
    scope = provider.groups[0].targets[0].scope
    key = Key("tokenkit", scope.chain, scope.account, scope.token)
    balances = {key: ([15.0], ["5", "6"])}
    assert rehearsed(table(max_age=0.0), balances, 200.0, latency=0.0).delays.mean == pytest.approx(5.0, abs=0.1)
    assert rehearsed(table(max_age=45.0), balances, 200.0, latency=0.0).delays.mean == pytest.approx(35.0, abs=0.1)
    forced = rehearsed(table(max_age=45.0, force_refresh=True), balances, 200.0, latency=0.0)
    assert forced.delays.mean == pytest.approx(5.0, abs=0.1)


def test_twenty_pairs_ride_on_one_request():
    pairs = tuple(Watch(account=f"0x{n + 1:x}", token="0x99") for n in range(40))
    table = TokenKitSettings(type="tokenkit", limits=(Limit(1, 10.0),), watch=pairs)
    task = Task("tokenkit", table, keyed=True, wishes=Wishes(HOUR), history=None, watches=WatchIndex())
    outcome = task.run(lambda _: None)
    assert outcome.unread == 0
    assert sum(outcome.requests_by_day) == pytest.approx(HOUR / 10.15, abs=2)
    assert outcome.longest < 90


def test_labels_have_figures_of_their_own():
    hot, quiet = one(0, *[50.0 * n for n in range(1, 60)]), one(1, 1000.0)
    scopes = [target.scope for target in helius(2).groups[0].targets]
    index = WatchIndex([Watched(scopes[0], "hot"), Watched(scopes[1], "quiet")])
    histories = [BalanceHistory(key, list(times), list(amounts)) for key, (times, amounts) in (hot, quiet)]
    task = Task(
        "helius",
        settings(2, 1, 10.0),
        keyed=True,
        wishes=Wishes(HOUR, latency=0.0),
        history=History(HOUR, histories),
        watches=index,
    )
    outcome = task.run(lambda _: None)
    assert (outcome.labels["hot"].changes, outcome.labels["quiet"].changes) == (59, 1)
    assert outcome.delays.changes == 60
    assert outcome.labels["quiet"].mean == outcome.labels["quiet"].p99 == outcome.labels["quiet"].most


def test_a_wish_that_the_limits_do_not_allow_is_counted():
    tight = rehearsed(settings(10, 1, 10.0, max_interval=60.0), dict(one(n) for n in range(10)), HOUR, latency=0.0)
    assert tight.too_seldom == 10
    assert tight.longest >= 90
    wide = rehearsed(settings(10, 2, 10.0, max_interval=60.0), dict(one(n) for n in range(10)), HOUR, latency=0.0)
    assert (wide.too_seldom, wide.unread) == (0, 0)
    never = rehearsed(settings(100, 1, 100.0), dict(one(n) for n in range(100)), HOUR, latency=0.0)
    assert never.unread == 100 - 36


def test_a_watch_that_the_history_does_not_know_changes_as_the_median_of_those_that_do():
    known = [one(n, *[HOUR / (n + 1) * (k + 0.5) for k in range(n + 1)]) for n in range(9)]
    histories = [BalanceHistory(key, list(times), list(amounts)) for key, (times, amounts) in known]
    histories.append(BalanceHistory(one(9)[0], [], ["1"]))
    table = settings(13, 10, 1.0)
    task = Task(
        "helius",
        table,
        keyed=True,
        wishes=Wishes(100 * HOUR, latency=0.0),
        history=History(HOUR, histories),
        watches=WatchIndex(),
        share=1.0,
    )
    found, unknown = task._balances(
        [target for group in task.provider().groups for target in group.targets], 100 * HOUR
    )
    assert unknown == 3
    assert sum(len(balance.times) for balance in found.made_up) / 3 == pytest.approx(500, rel=0.05)


def test_requests_of_each_day_are_counted_on_it():
    outcome = rehearsed(settings(1, 1, 100.0), dict([one(0)]), 2.5 * DAY, latency=0.0)
    assert outcome.requests_by_day == pytest.approx([864, 864, 432], abs=1)


def test_pieces_stand_for_the_whole():
    times = [37.3 * n for n in range(1, int(10 * DAY / 37.3))]
    whole = rehearsed(settings(1, 6, 60.0), dict([one(0, *times)]), 10 * DAY, latency=0.0)
    key, (times, amounts) = one(0, *times)
    task = Task(
        "helius",
        settings(1, 6, 60.0),
        keyed=True,
        wishes=Wishes(10 * DAY, latency=0.0),
        history=History(10 * DAY, [BalanceHistory(key, list(times), list(amounts))]),
        watches=WatchIndex(),
        share=0.1,
    )
    part = task.run(lambda _: None)
    assert (part.rehearsed, part.of) == (pytest.approx(DAY), 10 * DAY)
    assert part.delays.mean == pytest.approx(whole.delays.mean, rel=0.05)
    assert part.requests_by_day == pytest.approx(whole.requests_by_day, rel=0.01)
    assert part.limits[0].used == pytest.approx(whole.limits[0].used, rel=0.01)


def test_what_is_spent_already_ends_a_month_before_its_time():
    limits = (Limit(1, 1.0), Limit(10_000, 30 * DAY))
    table = msgspec.structs.replace(settings(1, 1, 1.0), limits=limits)
    former = budget_of(helius(1, limits=((1, 1.0), (10_000, 30 * DAY))))
    for n in range(9_500):
        former.count(n * 30.0)
    now = 9_500 * 30.0
    stamps = former.save(now, 1_790_000_000_000_000)

    def run(stamps):
        task = Task(
            "helius",
            table,
            keyed=True,
            wishes=Wishes(30 * DAY, latency=0.0),
            history=None,
            watches=WatchIndex(),
            stamps=stamps,
        )
        return task.run(lambda _: None)

    fresh, used = run(None), run(stamps)
    assert [limit.spent_on_day for limit in fresh.limits] == [None, None]
    assert [limit.spent_on_day for limit in used.limits] == [None, 2]
    assert used.requests_by_day[0] == pytest.approx(333, abs=2)
    assert used.requests_by_day[3] == 0
    assert min(fresh.requests_by_day) == pytest.approx(333, abs=2)


def test_the_same_seed_gives_the_same_figures():
    def run(seed):
        task = Task(
            "helius", settings(50, 10, 10.0), keyed=True, wishes=Wishes(HOUR, seed), history=None, watches=WatchIndex()
        )
        return task.run(lambda _: None)

    assert run(1) == run(1) != run(2)
