"""What the relay makes of heartbeats: the last one of each provider, and that nobody polls it any more."""

import msgspec

from watcher.client.provider_news import UnreadWatch
from watcher.model.events import HintsHealth, HintSourceHealth, ProviderHealth, UnreadAlert
from watcher.model.times import format_rfc3339
from watcher.relay.messages import ProviderStatus
from watcher.relay.provider_statuses import SILENT, ProviderStatuses, without_senders

HINTS = HintsHealth(sources=(), hinted_delay=0.5, unhinted_delay=None)
BEGAN = 1_790_000_000_000_000


def wall(now, ahead=0.0):
    return BEGAN + round((now + ahead) * 1e6)


def beat(now, state="ok"):
    told = {"instance": "one", "watches": 1, "last_success": None, "stalest_seconds": None, "paused_until": None}
    reason = None if state == "ok" else "no answer in time (2 in a row)"
    told |= {"provider": "p", "time": format_rfc3339(wall(now)), "budget_used": 0.5}
    return ProviderHealth(state=state, reason=reason, since=None, hints=HINTS, **told)


def state(statuses, now, ahead=0.0):
    return dict(statuses.all(wall(now, ahead), now))["p"].state


def test_a_provider_without_a_heartbeat_for_45_seconds_fails_since_the_last_one_and_one_brings_it_back():
    statuses = ProviderStatuses()
    for now in (0.0, 15.0):
        statuses.take(beat(now), now)
    assert state(statuses, 59.0) == "ok"
    status = dict(statuses.all(wall(61.0), 61.0))["p"]
    assert (status.state, status.reason, status.since) == ("failing", SILENT, format_rfc3339(wall(15.0)))
    statuses.take(beat(62.0), 62.0)
    assert state(statuses, 62.0) == "ok"


def test_what_hints_do_is_told_for_as_long_as_somebody_polls():
    statuses = ProviderStatuses()
    for now in (0.0, 15.0):
        statuses.take(beat(now), now)
    assert dict(statuses.all(wall(16.0), 16.0))["p"].hints == HINTS
    assert dict(statuses.all(wall(61.0), 61.0))["p"].hints is None


def test_who_was_removed_from_the_config_and_is_silent_is_told_no_more_until_somebody_polls_it():
    polled = {"p"}
    statuses = ProviderStatuses(polled.__contains__)
    for now in (0.0, 15.0):
        statuses.take(beat(now), now)
    polled.clear()
    assert state(statuses, 59.0) == "ok", "another process may have another config"
    assert statuses.news(wall(59.0), 59.0)
    assert list(statuses.all(wall(61.0), 61.0)) == []
    assert statuses.news(wall(61.0), 61.0), "that it went is news"
    statuses.take(beat(62.0), 62.0)
    assert state(statuses, 62.0) == "ok"


def test_a_heartbeat_that_stood_in_the_journal_for_long_is_no_sign_of_life():
    statuses = ProviderStatuses()
    statuses.take(beat(0.0), 3600.0)
    assert state(statuses, 3600.0) == "failing"


def test_a_clock_that_is_ahead_of_the_pollers_is_no_silence_once_heartbeats_come():
    statuses = ProviderStatuses()
    for now in (0.0, 15.0):
        statuses.take(beat(now), now)
    assert state(statuses, 20.0, ahead=3600.0) == "ok"
    assert state(statuses, 61.0, ahead=3600.0) == "failing"


def test_news_is_another_state_or_another_provider_and_nothing_else():
    statuses = ProviderStatuses()
    assert not statuses.news(wall(0.0), 0.0)
    statuses.take(beat(0.0), 0.0)
    assert statuses.news(wall(0.0), 0.0)
    assert not statuses.news(wall(1.0), 1.0)
    statuses.take(beat(1.0, "failing"), 1.0)
    assert statuses.news(wall(1.0), 1.0)
    statuses.take(beat(2.0, "failing"), 2.0)
    assert not statuses.news(wall(2.0), 2.0)
    statuses.take(beat(3.0), 3.0)
    assert statuses.news(wall(3.0), 3.0)
    assert statuses.news(wall(60.0), 60.0), "silence is news, though nothing came"


def test_who_is_bound_is_not_told_which_other_tokens_post_hints():
    def status(*names):
        told = {"type": "http", "connected": True, "since": None, "per_second": 1.0, "precision": None}
        told = [
            HintSourceHealth(source=name, **told | ({"type": "solana"} if name == "push" else {})) for name in names
        ]
        hints = HintsHealth(sources=tuple(told), hinted_delay=0.5, unhinted_delay=None)
        return ProviderStatus(None, None, 0.0, "ok", None, None, hints)

    assert without_senders(status("http", "http:desk", "push", "http:2d711642")) == status("http", "push")
    plain, none = status("http", "push"), ProviderStatus(None, None, 0.0, "ok", None, None)
    assert (without_senders(plain), without_senders(none)) == (plain, none)


def test_balances_that_are_not_read_are_told_with_the_provider_while_it_is_heard_of():
    unread = (UnreadAlert("silent", "2026-01-25T14:43:57.000001Z", 2),)
    statuses = ProviderStatuses()
    statuses.take(msgspec.structs.replace(beat(0.0), unread=unread), 0.0)
    status = dict(statuses.all(wall(0.0), 0.0))["p"]
    assert status.unread == unread
    assert without_senders(status).unread == ()
    assert dict(statuses.all(wall(60.0), 60.0))["p"].unread == ()


def test_a_terminal_is_told_once_when_it_begins_and_once_when_it_ends():
    one = UnreadAlert("silent", "2026-01-25T14:43:57.000001Z", 2)
    watch, other = UnreadWatch(None), UnreadWatch(["q"])

    def news(*unread):
        statuses = {"p": ProviderStatus(None, None, 0.0, "ok", None, None, None, unread)}
        assert [*other.news(statuses)] == []
        return [(each.provider, each.alert, each.balances) for each in watch.news(statuses)]

    assert [news(), news(one), news(one), news(), news()] == [[], [("p", "silent", 2)], [], [("p", "silent", 0)], []]
