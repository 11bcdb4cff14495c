"""What the relay makes of heartbeats: the last one of each provider, and that nobody polls it any more."""

import msgspec

from watcher.model.events import HintsHealth, HintSourceHealth, ProviderHealth, UnreadAlert
from watcher.model.keys import Filter
from watcher.model.times import format_rfc3339
from watcher.relay.messages import ProviderStatus
from watcher.relay.provider_statuses import SILENT, ProviderStatuses, as_bound, without_senders

HINTS = HintsHealth(sources=(), hinted_delay=0.5, unhinted_delay=None)
BEGAN = 1_790_000_000_000_000


def wall(now, ahead=0.0):
    return BEGAN + round((now + ahead) * 1e6)


def beat(now, state="ok", **more):
    told = {"instance": "one", "watches": 1, "last_success": None, "stalest_seconds": None, "paused_until": None}
    reason = None if state == "ok" else "no answer in time (2 in a row)"
    told |= {"provider": "p", "time": format_rfc3339(wall(now)), "budget_used": 0.5}
    return ProviderHealth(state=state, reason=reason, since=None, hints=HINTS, **told | more)


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


COLD = UnreadAlert("cold", format_rfc3339(BEGAN), 3)


def test_alerts_on_what_is_not_read_are_told_as_long_as_they_last_and_are_left_out_otherwise():
    statuses = ProviderStatuses()
    for now, unread in ((0.0, ()), (15.0, (COLD,))):
        statuses.take(beat(now, unread=unread), now)
    assert dict(statuses.all(wall(16.0), 16.0))["p"].unread == (COLD,)
    assert dict(statuses.all(wall(61.0), 61.0))["p"].unread == (COLD,), "what nobody polls is no less unread"
    statuses.take(beat(62.0), 62.0)
    status = dict(statuses.all(wall(62.0), 62.0))["p"]
    assert b"unread" not in msgspec.json.encode(status), "who knows of no alerts is sent what it was sent before"


def test_that_an_alert_on_what_is_not_read_begins_or_ends_is_news_at_once_and_its_figures_are_not():
    statuses, found = ProviderStatuses(), []
    more = msgspec.structs.replace(COLD, balances=4)
    for now, unread in enumerate(((), (COLD,), (more,), (more, msgspec.structs.replace(COLD, alert="x")), ())):
        statuses.take(beat(now, unread=unread), now)
        found.append(statuses.news(wall(now), now))
    assert found == [True, True, False, True, True]


def test_who_is_bound_within_a_provider_is_told_of_no_alert_that_may_be_on_the_balances_of_others():
    status = ProviderStatus(None, None, 0.0, "ok", None, None, None, (COLD,))
    assert as_bound(status, Filter(provider=("p", "q"))) == status
    for narrower in (Filter(account=("A",)), Filter(provider=("p",), token=("t",)), Filter(chain=("eip155:1",))):
        bound = as_bound(status, narrower)
        assert bound == ProviderStatus(None, None, 0.0, "ok", None, None)
        assert b"cold" not in msgspec.json.encode(bound)
