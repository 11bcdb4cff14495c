"""Alerts on balances that nobody reads: the pollers know, and heartbeat, log and metrics tell."""

import anyio
import httpx
import pytest
from structlog.testing import capture_logs

from tests.polling import START, Api, account_of, fine, helius, journal, poller_of, solana, virtually, wall
from watcher.app.alert_metrics import AlertMetrics
from watcher.app.metrics_exposition import exposition
from watcher.app.provider_sources import watch_index
from watcher.app.unread_alerts import UnreadAlerts
from watcher.model.alert_index import Alert, AlertIndex
from watcher.model.keys import Filter, Key, Scope
from watcher.model.readings import Answer, Reading, Times
from watcher.model.times import format_rfc3339
from watcher.model.watches import Watched, WatchIndex

DOWN = range(100, 200)
"""Seconds in which the second account is not answered."""


def unread(name="silent", seconds=60.0, **wanted):
    return Alert(name, None, unread_for=seconds, wanted=Filter(**wanted))


def answer(request, n):
    away = int(anyio.current_time()) in DOWN and account_of(request) == solana(1)
    return httpx.Response(503) if away else fine(request, n)


def looks(path, moments, *alerts, watches=None):
    """What is found at those moments, and what the log says: one poller of three accounts."""

    async def main():
        async with journal(path) as intake, anyio.create_task_group() as tasks:
            poller = poller_of(helius(3), Api(answer), intake)
            found = UnreadAlerts(alerts, watches or watch_index([poller.provider]), wall)
            tasks.start_soon(poller.run)
            told = []
            for moment in moments:
                await anyio.sleep_until(moment)
                await found.look([poller])
                told.append((found.of("helius"), found.counts()))
            tasks.cancel_scope.cancel()
        return told

    with capture_logs() as lines:
        told = virtually(main)
    return told, [line for line in lines if line["event"].startswith("alert.")]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "balances.db"


def test_a_balance_that_is_not_read_for_so_long_is_told_until_it_is_read(path):
    told, lines = looks(path, (90, 150, 165, 180, 230), unread())
    assert [found for found, _ in told[:2]] == [(), ()]
    for (one,), counts in told[2:4]:
        assert (one.alert, one.balances) == ("silent", 1)
        assert format_rfc3339(wall_at(158)) < one.since < format_rfc3339(wall_at(161))
        assert counts == {"silent": {"helius": 1}}
    assert told[4] == ((), {})
    assert [(line["event"], line["log_level"], line["alert"], line["provider"]) for line in lines] == [
        ("alert.unread", "warning", "silent", "helius"),
        ("alert.read_again", "info", "silent", "helius"),
    ]


def wall_at(seconds):
    return START + int(seconds * 1e6)


def test_it_speaks_of_what_its_filter_names_alone(path):
    others = [unread("of another", account=(solana(0),)), unread("of another provider", provider=("jupiter",))]
    told, _ = looks(path, (180,), unread("exact", account=(solana(1),)), *others, unread("patient", 90.0))
    assert [one.alert for one in told[0][0]] == ["exact"]


def test_a_label_or_a_tag_names_it_too(path):
    named = WatchIndex([Watched(Scope("helius", target.scope.chain, target.scope.account, target.scope.token),
                                "hot" if target.scope.account == solana(1) else "cold")
                        for group in helius(3).groups for target in group.targets])  # fmt: skip
    told, _ = looks(path, (180,), unread("a", label=("hot",)), unread("b", label=("cold",)), watches=named)
    assert [one.alert for one in told[0][0]] == ["a"]


def test_one_that_was_never_read_counts_from_the_start(path):
    async def main():
        async with journal(path) as intake, anyio.create_task_group() as tasks:
            poller = poller_of(helius(2), Api(lambda _request, _n: httpx.Response(503)), intake)
            found = UnreadAlerts([unread()], watch_index([poller.provider]), wall)
            tasks.start_soon(poller.run)
            told = []
            for moment in (59, 61):
                await anyio.sleep_until(moment)
                await found.look([poller])
                told.append([one.balances for one in found.of("helius")])
            tasks.cancel_scope.cancel()
        return told

    assert virtually(main) == [[], [2]]


def test_an_alert_that_goes_with_a_reload_ends_without_a_word(path):
    async def main():
        async with journal(path) as intake, anyio.create_task_group() as tasks:
            poller = poller_of(helius(2), Api(lambda _request, _n: httpx.Response(503)), intake)
            found = UnreadAlerts([unread()], watch_index([poller.provider]), wall)
            tasks.start_soon(poller.run)
            await anyio.sleep_until(61)
            await found.look([poller])
            found.use([], WatchIndex())
            await found.look([poller])
            tasks.cancel_scope.cancel()
        return found.of("helius"), found.counts()

    with capture_logs() as lines:
        assert virtually(main) == ((), {})
    assert [line["event"] for line in lines if line["event"].startswith("alert.")] == ["alert.unread"]


def test_metrics_have_each_alert_from_the_first_scrape_on(path):
    low, silent = Alert("low", "below", "5", "5"), unread()

    async def main():
        async with journal(path) as intake:
            intake.use_alerts(AlertIndex([low, silent]))
            metrics = AlertMetrics(lambda: [low, silent], lambda: [intake], lambda: {"silent": {"helius": 3}})

            def samples():
                text = exposition(metrics.families(), "").body.decode()
                return [line for line in text.splitlines() if not line.startswith("#")]

            before = samples()
            for slot, amount in enumerate(("9", "4", "6", "3"), 1):
                now = anyio.current_time()
                reading = Reading(Key("helius", "c", "a", "t"), amount, "base", order=slot, slot=slot)
                await intake.accept(Answer("helius", [reading], "strict", 0.0, Times(now, now, wall())))
                await intake.flush()
                await anyio.sleep(1.0)
            return before, samples()

    before, after = virtually(main)
    assert before == [
        'watcher_crossings_total{alert="low",direction="below"} 0.0',
        'watcher_crossings_total{alert="low",direction="cleared"} 0.0',
        'watcher_alerts_fired{alert="low"} 0.0',
        'watcher_alert_unread{alert="silent",provider="helius"} 3.0',
    ]
    assert after == [
        'watcher_crossings_total{alert="low",direction="below"} 2.0',
        'watcher_crossings_total{alert="low",direction="cleared"} 1.0',
        'watcher_alerts_fired{alert="low"} 1.0',
        'watcher_alert_unread{alert="silent",provider="helius"} 3.0',
    ]
