import contextlib
import gzip
import itertools
import json
import socket
import sqlite3
import struct
import zlib

import anyio
import anyio.lowlevel
import httpx
import pytest
from structlog.testing import capture_logs

from tests.polling import (
    START,
    Api,
    account_of,
    always,
    balance,
    fine,
    helius,
    journal,
    poll,
    poller_of,
    tokenkit,
    virtually,
    wall,
)
from watcher.app import metrics
from watcher.journal.sqlite.file import inline
from watcher.limits.budget import LATE
from watcher.model.times import format_rfc3339
from watcher.poller import http_exchange as exchange_module
from watcher.poller.assembly import budget_of
from watcher.poller.connections import MAX_CONNECTIONS, HttpConnections
from watcher.poller.failure_policy import EXHAUSTED_PAUSE, REFUSED_PAUSE
from watcher.poller.http_exchange import MAX_COOKIE_BYTES, MAX_HEAD_BYTES, MAX_HEADER_FIELDS, HttpExchange
from watcher.poller.transport_errors import Unreachable
from watcher.providers.failures import Malformed
from watcher.providers.protocol import Credentials, Request


@pytest.fixture
def file(tmp_path):
    return tmp_path / "balances.db"


@pytest.fixture
def logs():
    with capture_logs() as records:
        yield records


def events(logs, name):
    return [record for record in logs if record["event"] == name]


def gaps(times):
    return [after - before for before, after in itertools.pairwise(times)]


def rpc_error(code, message, status=200, **more):
    error = {"code": code, "message": message}
    return httpx.Response(status, json={"jsonrpc": "2.0", "id": "1", "error": error}, **more)


def too_many(**headers):
    return rpc_error(-32429, "too many requests", 429, headers=headers)


# --- the ordinary course


def test_every_watch_is_read_at_the_pace_of_the_limit(file):
    api = Api(fine)
    (poller,) = poll(file, 30, (helius(5, limits=((1, 1.0),)), api))
    assert len({account_of(request) for _, request in api.arrivals}) == 5
    assert 26 <= len(api.arrivals) <= 30
    assert min(gaps(api.times)) >= 1.0
    assert poller.stats.polls == len(api.arrivals)
    assert poller.stats.answers >= len(api.arrivals) - 1
    assert poller.stats.failures == {}


def test_a_change_is_handed_over_counted_and_told_to_the_schedule(file):
    api = Api(lambda _request, n: httpx.Response(200, json=balance(amount=str(n // 10), slot=n)))
    (poller,) = poll(file, 60, (helius(1, limits=((1, 1.0),)), api))
    assert poller.stats.changes == len(api.arrivals) // 10
    assert poller.stats.last_success is not None


def test_answers_that_are_older_than_what_is_known_are_no_success(file, logs):
    """A cluster that was reset: every answer is good, and none of them says anything."""
    api = Api(lambda _, n: httpx.Response(200, json=balance("5", slot=10**9 if n <= 3 else n)))

    async def main():
        async with journal(file) as intake:
            poller = poller_of(helius(3, limits=((1, 1.0),)), api, intake)
            with anyio.move_on_after(60):
                await poller.run()
            return poller, poller.health("me")

    poller, health = virtually(main)
    assert health.stalest_seconds > 50
    assert health.last_success < format_rfc3339(START + 10_000_000)
    assert poller.stats.stale > 40
    (record,) = events(logs, "provider.behind")
    assert "older than what is known" in record["reason"]
    assert poller.stats.no_reading_reason.endswith("answers in a row were older than what is known")


def test_an_order_that_went_back_is_told_and_polling_goes_on(file, logs):
    api = Api(lambda _, n: httpx.Response(200, json=balance("5" if n < 4 else "6", slot=10**9 if n <= 1 else n)))
    (poller,) = poll(file, 1000, (helius(1, limits=((1, 10.0),)), api))
    (record,) = events(logs, "order.went_back")
    assert record["key"].startswith("helius/")
    assert poller.stats.went_back == 1
    assert poller.stats.changes == 1
    assert poller.stats.no_reading_reason is None


def test_a_replica_that_lags_now_and_then_is_asked_again_and_is_no_trouble(file, logs):
    api = Api(lambda _, n: httpx.Response(200, json=balance("5", slot=1 if n % 4 == 3 else n + 10)))
    (poller,) = poll(file, 60, (helius(2, limits=((1, 1.0),)), api))
    assert poller.stats.stale > 10
    assert events(logs, "provider.behind") == []
    assert poller.stats.no_reading_reason is None
    first, *_ = (n for n, (_, request) in enumerate(api.arrivals) if n % 4 == 2)
    assert account_of(api.arrivals[first][1]) == account_of(api.arrivals[first + 1][1]), "at once"


def test_the_age_of_the_oldest_doubt_is_a_metric(file):
    api = Api(lambda _, n: httpx.Response(200, json=balance(str(n), slot=7)))

    async def main():
        async with journal(file) as intake:
            poller = poller_of(helius(1, limits=((1, 1.0),)), api, intake)

            def age():
                families = {family.name: family for family in metrics.of_providers([poller], [intake], [])}
                (sample,) = families["watcher_oldest_doubt_seconds"].samples
                assert sample.labels == {"provider": "helius"}
                return sample.value

            ages = [age()]
            with anyio.move_on_after(20):
                await poller.run()
            return [*ages, age()]

    before, after = virtually(main)
    assert before == 0.0
    assert 17 < after < 20


def test_a_watch_in_flight_is_not_asked_again(file):
    api = Api(fine, delay=4.0)
    poll(file, 60, (helius(2), api))
    for account in {account_of(request) for _, request in api.arrivals}:
        assert min(gaps([time for time, request in api.arrivals if account_of(request) == account])) >= 7.999


def test_no_request_leaves_without_a_slot(file):
    api = Api(fine)
    (poller,) = poll(file, 20, (helius(50, limits=((10, 1.0), (60, 60.0))), api))
    assert len(api.arrivals) <= 60
    assert all(later - earlier > 1.0 for earlier, later in zip(api.times, api.times[10:], strict=False))
    assert poller.budget.utilization(20.0) == pytest.approx(len(api.arrivals) / 60, abs=0.05)


def test_no_more_requests_are_in_flight_than_connections_are_kept(file):
    """However high the limit: more would wait for this process, and be told as an API that does not answer."""

    async def hang():
        await anyio.sleep_forever()

    api = Api(lambda *_: hang)
    poll(file, 7, (helius(300, limits=((1000, 1.0),), timeout=5.0), api))
    assert sum(time < 5 for time in api.times) == MAX_CONNECTIONS
    assert len(api.times) == 2 * MAX_CONNECTIONS


def test_pairs_are_packed_and_told_apart_in_the_answer(file):
    def answer(request, _n):
        pairs = json.loads(request.content)["balances"]
        rows = [{**pair, "balance": "7", "last_updated": "2026-01-25T14:43:57+00:00"} for pair in pairs[1:]]
        return httpx.Response(200, json={"success": True, "data": rows, "errors": ["one is missing"]})

    api = Api(answer)
    (poller,) = poll(file, 25, (tokenkit(30), api))
    asked = [json.loads(request.content)["balances"] for _, request in api.arrivals]
    assert [len(pairs) for pairs in asked] == [20, 20, 20]
    assert len({pair["account_address"] for pairs in asked for pair in pairs}) == 30
    assert poller.stats.accepted == 57


def test_the_health_of_a_provider_says_what_a_consumer_must_know(file):
    async def main():
        async with journal(file) as intake:
            poller = poller_of(helius(3), Api(fine), intake)
            before = poller.health("me")
            with anyio.move_on_after(10):
                await poller.run()
            return before, poller.health("me")

    before, after = virtually(main)
    assert (before.last_success, before.watches, before.paused_until, before.budget_used) == (None, 3, None, 0.0)
    assert after.time[:19] >= after.last_success[:19]
    assert after.stalest_seconds < 1
    assert after.budget_used > 0.5


# --- failures and what follows


def test_a_provider_that_hangs_never_delays_another_and_times_out(file, logs):
    async def hang():
        await anyio.sleep_forever()

    stuck, lively = Api(lambda *_: hang), Api(fine)
    one, other = poll(
        file, 60, (helius(2, name="stuck", timeout=5.0), stuck), (helius(2, name="lively", limits=((1, 1.0),)), lively)
    )
    assert len(lively.arrivals) >= 55
    assert one.stats.failures["unreachable"] >= 4
    assert one.stats.answers == 0
    assert other.stats.failures == {}
    assert events(logs, "poll.failed")[0]["reason"] == "no answer in time"


def test_a_failing_watch_does_not_starve_the_others(file):
    bad = None

    def answer(request, n):
        nonlocal bad
        bad = bad or account_of(request)
        return httpx.Response(500) if account_of(request) == bad else fine(request, n)

    api = Api(answer)
    poll(file, 120, (helius(4, limits=((1, 1.0),)), api))
    counts = {}
    for _, request in api.arrivals:
        counts[account_of(request)] = counts.get(account_of(request), 0) + 1
    assert 4 <= counts.pop(bad) <= 12
    assert min(counts.values()) >= 30


@pytest.mark.parametrize(("headers", "least"), [({"retry-after": "20"}, 20), ({}, 1.0)])
def test_a_429_pauses_the_whole_scope_as_long_as_told_else_one_period(file, logs, headers, least):
    api = Api(lambda request, n: too_many(**headers) if n == 5 else fine(request, n))
    (poller,) = poll(file, 60, (helius(8), api))
    quiet = max(gaps(api.times))
    assert least <= quiet <= least * 1.25 + 0.5
    assert poller.stats.refusals == 1
    assert [record["endpoint"] for record in events(logs, "provider.paused")] == ["all"]
    assert events(logs, "provider.recovered")


def test_a_429_of_one_endpoint_leaves_the_others_at_full_pace(file, logs):
    """Each of TokenKit's endpoints has its own limit; one pauses for a third of the time."""

    def answer(request, n):
        if request.url.path == "/api/balances/":
            if 300 <= api.times[-1] < 310:
                return httpx.Response(429, json={"detail": "slow down"}, headers={"retry-after": "300"})
            rows = [
                {**pair, "balance": "7", "last_updated": moment(n)} for pair in json.loads(request.content)["balances"]
            ]
            return httpx.Response(200, json={"success": True, "data": rows})
        row = {"account": {"address": dict(request.url.params)["account_address"]}, "token": {"address": "0x7"}}
        return httpx.Response(200, json={"success": True, "data": [row | {"balance": "7", "last_updated": moment(n)}]})

    def moment(n):
        return f"2026-01-25T{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}Z"

    def used(path, since, until, pace):
        times = [time for time, request in api.arrivals if request.url.path == path and since <= time < until]
        return (len(times) - 1) * pace / (times[-1] - times[0]) if len(times) > 1 else 0.0

    api = Api(answer)
    limits = ((12, 60.0, "balances"), (30, 60.0, "account-balances"))
    (poller,) = poll(file, 900, (tokenkit(2, listings=2, limits=limits), api))
    assert poller.stats.refusals == 1
    assert [record["endpoint"] for record in events(logs, "provider.paused")] == ["balances"]
    assert used("/api/balances/", 10, 300, 5.0) > 0.98
    assert used("/api/balances/", 311, 600, 5.0) == 0.0
    assert used("/api/balances/", 620, 900, 5.0) > 0.98
    for since in (10, 311, 620):
        assert used("/api/account-balances/", since, since + 280, 2.0) > 0.99


@pytest.mark.parametrize("headers", [{"retry-after": "20"}, {"ratelimit": '"default";r=0;t=20'}])
@pytest.mark.parametrize("status", [200, 202, 307, 400, 403, 404, 500, 502, 503])
def test_any_answer_without_balances_may_ask_us_to_wait(file, logs, status, headers):
    def answer(request, n):
        return httpx.Response(status, headers=headers) if n == 5 else fine(request, n)

    api = Api(answer)
    (poller,) = poll(file, 60, (helius(8), api))
    assert 20 <= max(gaps(api.times)) <= 25.5
    assert poller.stats.refusals == 0
    assert len(events(logs, "provider.paused")) == 1


def test_headers_that_come_twice_are_both_heard(file):
    twice = [("Retry-After", "10"), ("retry-after", "20")]
    api = Api(lambda request, n: httpx.Response(503, headers=twice) if n == 5 else fine(request, n))
    poll(file, 60, (helius(8), api))
    assert 20 <= max(gaps(api.times)) <= 25.5


def test_a_good_answer_that_says_that_the_quota_is_used_up_keeps_the_next_request_waiting(file, logs):
    def answer(request, n):
        left = (5 - n) % 5
        return httpx.Response(200, json=balance(slot=n), headers={"ratelimit": f'"default";r={left};t=12'})

    api = Api(answer)
    (poller,) = poll(file, 60, (helius(8), api))
    assert poller.stats.failures == {}
    assert len(api.arrivals) == 25
    assert all(gap >= 12 for gap in gaps(api.times)[4::5])


def test_a_page_of_somebody_else_neither_ends_nor_pauses_anything(file, logs):
    """A challenge as the first answer, and another one later."""
    page = {"text": "<!doctype html><title>Just a moment...</title>", "headers": {"cf-mitigated": "challenge"}}
    api = Api(lambda request, n: httpx.Response(403, **page) if n in (1, 40) else fine(request, n))
    (poller,) = poll(file, 30, (helius(2), api))
    assert poller.stats.refused_at_first is False
    assert len(api.arrivals) > 200
    assert max(gaps(api.times)) < 0.5
    assert [record["event"] for record in logs if record["log_level"] == "error"] == []


def test_a_new_key_brings_back_at_once_what_was_set_aside(file):
    def answer(request, n):
        good = key_of(request) == ["new-key"]
        return fine(request, n) if good else rpc_error(-32602, "not on your plan", 400)

    api = Api(answer)
    poller = renewing(file, api, "new-key", at=100, until=110)
    assert poller.stats.answers >= 8
    assert min(time for time in api.times if time > 100) < 101.5


def test_refusals_that_go_on_are_met_with_longer_and_longer_pauses(file):
    api = Api(lambda *_: too_many())
    poll(file, 400, (helius(40), api))
    assert len(api.arrivals) <= 16
    assert max(gaps(api.times)) >= 60


def test_a_refused_key_pauses_for_long_with_an_alert_and_says_whether_it_was_the_first_answer(file, logs):
    api = Api(lambda *_: rpc_error(-32001, "bad key", 401))
    (poller,) = poll(file, REFUSED_PAUSE * 2.5, (helius(3), api))
    assert len(api.arrivals) <= 6
    assert poller.answered.is_set()
    assert poller.stats.refused_at_first is True
    assert len(events(logs, "provider.refused")) == 3
    assert poller.stats.refusals == 0


def test_a_key_that_is_refused_once_beside_good_answers_is_doubted_and_not_left_alone(file, logs):
    """The first requests leave together: one is refused, the others are answered well a moment later."""

    def answer(request, n):
        return rpc_error(-32001, "bad key", 401) if n == 1 else fine(request, n)

    api = Api(answer)
    poll(file, 30, (helius(4, limits=((10, 0.2),)), api))
    assert len(api.arrivals) > 40


def renewing(file, api, secret, at, until):
    """Poll with the key `old-key`, renew at `at`, and give the poller at `until`."""

    async def main():
        async with journal(file) as intake, anyio.create_task_group() as tasks:
            provider = helius(3, limits=((1, 1.0),))
            poller = poller_of(provider, api, intake, secret="old-key")
            await tasks.start(poller.run)
            await anyio.sleep(at)
            poller.renew(provider.credentials(secret))
            await anyio.sleep(until - at)
            tasks.cancel_scope.cancel()
        return poller

    return virtually(main)


def key_of(request):
    return request.url.params.get_list("api-key")


def test_a_new_key_ends_the_pause_for_the_old_one_and_only_it_is_sent(file, logs):
    def answer(request, n):
        good = key_of(request) == ["new-key"]
        return fine(request, n) if good else rpc_error(-32001, f"bad key {key_of(request)}", 401)

    api = Api(answer)
    poller = renewing(file, api, "new-key", at=100, until=160)
    before = [time for time in api.times if time < 100]
    after = [key_of(request) for time, request in api.arrivals if time > 100]
    assert len(before) <= 2
    assert len(after) >= 50
    assert all(keys == ["new-key"] for keys in after)
    assert poller.stats.answers >= 50
    assert poller.stats.no_reading_reason is None


def test_a_new_key_has_not_worked_yet_and_is_condemned_at_its_first_refusal(file, logs):
    def answer(request, n):
        return fine(request, n) if key_of(request) == ["old-key"] else rpc_error(-32001, "bad key", 401)

    renewing(file, Api(answer), "new-key", at=10, until=16)
    assert len(events(logs, "provider.refused")) == 1


@pytest.mark.parametrize(
    ("code", "status", "kind"), [(-32001, 401, "refusedcredential"), (-32602, 400, "misconfigured")]
)
def test_an_answer_to_the_old_key_that_comes_late_pauses_nothing(file, logs, code, status, kind):
    async def late():
        await anyio.sleep(3)
        return rpc_error(code, "no old-key", status)

    api = Api(lambda request, n: late if key_of(request) == ["old-key"] else fine(request, n))
    poller = renewing(file, api, "new-key", at=1, until=30)
    assert poller.stats.failures[kind] >= 1
    assert poller.stats.answers >= 20
    assert [record for record in logs if record["log_level"] == "error"] == []
    assert "old-key" not in repr(logs)


def test_a_pause_after_a_429_outlasts_a_new_key(file):
    api = Api(lambda *_: too_many(**{"retry-after": "50"}))
    renewing(file, api, "new-key", at=10, until=40)
    assert len(api.arrivals) == 1


def test_neither_key_is_quoted_after_a_renewal(file, logs):
    def answer(request, _n):
        return rpc_error(-32603, f"old-key, {key_of(request)[0]}, newer", 503)

    api = Api(answer)
    poller = renewing(file, api, "new-key", at=70, until=140)
    assert len(events(logs, "poll.failed")) >= 2
    assert "-key" not in repr(logs)
    assert poller.stats.no_reading_reason.endswith("***, ***, newer")


def test_a_key_refused_later_is_not_refused_at_first(file):
    api = Api(lambda request, n: fine(request, n) if n < 3 else rpc_error(-32001, "no", 403))
    (poller,) = poll(file, 60, (helius(3), api))
    assert poller.stats.refused_at_first is False


def test_a_provider_that_was_never_reached_has_not_refused(file):
    def broken(request, _n):
        raise httpx.ConnectError("boom", request=request)

    (poller,) = poll(file, 60, (helius(3), Api(broken)))
    assert poller.stats.refused_at_first is None


def test_used_up_credits_leave_the_provider_alone_for_hours(file, logs):
    api = Api(lambda *_: httpx.Response(200, text="max usage reached"))
    poll(file, EXHAUSTED_PAUSE * 1.5, (helius(3), api))
    assert len(api.arrivals) <= 4
    assert len(events(logs, "provider.exhausted")) == 2


def test_a_watch_that_cannot_be_is_set_aside_with_an_error_and_the_others_go_on(file, logs):
    bad = None

    def answer(request, n):
        nonlocal bad
        bad = bad or account_of(request)
        if account_of(request) != bad:
            return fine(request, n)
        return rpc_error(-32602, "Invalid params")

    api = Api(answer)
    poll(file, 4000, (helius(2, limits=((1, 10.0),)), api))
    asked = [account_of(request) for _, request in api.arrivals]
    assert asked.count(bad) == 7  # again after 60, 120, 240, 480, 960, 1800 seconds
    assert len(asked) > 150
    (record,) = events(logs, "watch.misconfigured")
    assert record["log_level"] == "error"
    assert bad in record["reason"]


def test_a_batch_that_cannot_be_is_asked_one_by_one_to_find_the_culprit(file, logs):
    def answer(request, _n):
        pairs = json.loads(request.content)["balances"]
        if any(pair["account_address"].endswith("03") for pair in pairs):
            return httpx.Response(400, json={"detail": "no such account"})
        rows = [{**pair, "balance": "7", "last_updated": "2026-01-25T14:43:57+00:00"} for pair in pairs]
        return httpx.Response(200, json={"success": True, "data": rows})

    api = Api(answer)
    poll(file, 200, (tokenkit(5, limits=((60, 60.0, "balances"),)), api))
    sizes = [len(json.loads(request.content)["balances"]) for _, request in api.arrivals]
    assert sizes[:6] == [5, 1, 1, 1, 1, 1]
    assert len(events(logs, "watch.misconfigured")) == 1
    assert sizes[-1] <= 4


def test_what_cannot_be_understood_is_a_failure_and_asked_again(file):
    api = Api(lambda request, n: httpx.Response(200, text="<html>") if n == 1 else fine(request, n))
    (poller,) = poll(file, 20, (helius(1), api))
    assert poller.stats.failures == {"malformed": 1}
    assert poller.stats.answers > 10


def test_a_failure_that_goes_on_is_told_once_a_minute(file, logs):
    (poller,) = poll(file, 130, (helius(200), Api(lambda *_: httpx.Response(503))))
    assert poller.stats.failures["temporary"] > 500
    records = events(logs, "poll.failed")
    assert len(records) == 3
    assert records[1]["untold"] > 100


def test_no_secret_reaches_the_log_or_an_error(file, logs):
    def broken(request, n):
        if n % 3 == 0:
            return httpx.Response(500, text=str(request.url))
        raise httpx.ConnectError(f"cannot reach {request.url}", request=request)

    (poller,) = poll(file, 60, (helius(2), Api(broken)))
    assert poller.stats.failures["unreachable"] > 0
    assert "canary-key" not in repr(logs)
    assert "canary-key" not in repr(poller.stats)


# --- restarts, cancellation, a journal that is away


def test_a_request_that_hangs_is_saved_meanwhile(file):
    """Whoever is killed then leaves word of it."""

    async def hang():
        await anyio.sleep_forever()

    api = Api(lambda request, n: hang if n == 3 else fine(request, n))

    async def main():
        async with journal(file) as intake, anyio.create_task_group() as tasks:
            poller = poller_of(helius(1, min_interval=10.0), api, intake)
            tasks.start_soon(poller.run)
            await anyio.sleep(25)
            unsaved = poller.budget.unsaved_changes
            tasks.cancel_scope.cancel()
        return unsaved

    assert virtually(main) is False
    assert len(api.arrivals) == 3


def test_the_start_is_saved_before_the_first_request(file):
    committed = []

    def look(request, n):
        with contextlib.closing(sqlite3.connect(file)) as reader:
            committed.extend(reader.execute("SELECT key FROM note").fetchall())
        return fine(request, n)

    poll(file, 0.1, (helius(1), Api(look)))
    assert ("limiter:helius",) in committed


def test_a_restart_neither_forgets_the_window_nor_the_rates(file):
    api = Api(fine)
    provider = helius(20, limits=((10, 60.0),))

    async def main():
        for _ in range(12):
            async with journal(file) as intake:
                poller = poller_of(provider, api, intake)
                with anyio.move_on_after(10):
                    await poller.run()
        return intake.notes

    notes = virtually(main)
    assert {"limiter:helius", "schedule:helius"} <= set(notes)
    assert all(later - earlier > 60 for earlier, later in zip(api.times, api.times[10:], strict=False))
    assert len(api.arrivals) >= 10


def test_a_memory_that_cannot_be_read_costs_a_period_and_no_more(file, logs):
    async def main():
        async with journal(file) as intake:
            intake.notes.update({"limiter:helius": b"\xc1", "schedule:helius": b"\xc1"})
            api = Api(fine)
            with anyio.move_on_after(5):
                await poller_of(helius(1, limits=((1, 2.0),)), api, intake).run()
            return api.times

    assert virtually(main)[0] == pytest.approx(2.0, abs=0.1)
    assert [record["what"] for record in events(logs, "provider.memory_unreadable")] == ["limiter", "schedule"]


def test_a_provider_that_stands_still_because_the_clock_is_behind_that_of_the_owner_before_is_told(file, logs):
    async def main():
        provider = helius(1, limits=((60, 60.0),))
        async with journal(file) as intake:
            ahead = wall() + 5_000_000
            intake.notes["limiter:helius"] = budget_of(provider).save(anyio.current_time(), ahead)
            api = Api(fine)
            with anyio.move_on_after(5):
                await poller_of(provider, api, intake).run()
            return api.times

    assert virtually(main) == []
    assert [record["provider"] for record in events(logs, "provider.clock_mismatch")] == ["helius"]


def test_while_nothing_can_be_saved_nothing_leaves(file):
    async def main():
        there = anyio.Event()
        there.set()

        async def run(work):
            await there.wait()
            return await inline(work)

        async with journal(file, run) as intake, anyio.create_task_group() as tasks:
            api = Api(fine)
            await tasks.start(poller_of(helius(50), api, intake).run)
            await anyio.sleep(5)
            away, there = anyio.current_time(), anyio.Event()
            await anyio.sleep(60)
            last = max(api.times)
            there.set()
            await anyio.sleep(20)
            tasks.cancel_scope.cancel()
        return last - away, max(api.times) - last

    during, after = virtually(main)
    assert during < LATE + 0.2
    assert after > 60


@pytest.mark.parametrize("moment", [0.0, 0.01, 0.03, 0.045, 0.06, 0.1, 1.05])
def test_cancelled_at_any_point_every_slot_is_settled(file, moment):
    (poller,) = poll(file, moment, (helius(20), Api(fine)))
    assert all(window.in_flight == 0 for window in poller.budget._windows)


# --- HTTP


REQUEST = Request("GET", "/x", ())


def send(handler, *, times=1, **settings):
    async def main():
        provider = helius(1, base_url="http://127.0.0.1/prefix/", **settings)
        exchange = HttpExchange(provider, httpx.MockTransport(handler), Credentials(), lambda: 5_000_000)
        return [await exchange.send(REQUEST) for _ in range(times)][-1]

    return anyio.run(main)


def test_the_path_is_appended_to_the_prefix_and_the_credentials_are_added():
    seen = []

    async def main():
        provider = helius(1, base_url="http://127.0.0.1:1/helius/")
        transport = httpx.MockTransport(lambda request: seen.append(request) or httpx.Response(200, headers={"A": "b"}))
        credentials = Credentials({"x-api-key": "k"}, {"api-key": "s"})
        request = Request("POST", "/", (), params=(("a", "1"), ("a", "2")), body=b"{}")
        return await HttpExchange(provider, transport, credentials, lambda: 5_500_000).send(request)

    response = virtually(main)
    assert str(seen[0].url) == "http://127.0.0.1:1/helius/?api-key=s&a=1&a=2"
    assert seen[0].headers["x-api-key"] == "k"
    assert seen[0].headers["content-type"] == "application/json"
    assert (response.status, response.wall, response.headers["a"]) == (200, 5.5, "b")


def test_a_redirect_is_not_followed():
    calls = []

    def handler(request):
        calls.append(request)
        return httpx.Response(302, headers={"location": "http://127.0.0.1/elsewhere"})

    assert send(handler).status == 302
    assert len(calls) == 1


def test_an_answer_that_is_too_large_is_refused_packed_or_not():
    bomb = gzip.compress(b"0" * 3_000_000)
    assert len(bomb) < 4000
    for answer in (
        httpx.Response(200, content=b"0" * 3_000_000),
        httpx.Response(200, content=bomb, headers={"content-encoding": "gzip"}),
    ):
        with pytest.raises(Malformed, match="larger than 1000000 bytes"):
            send(lambda _, answer=answer: answer, max_bytes=1_000_000)


def sent(encoding, *pieces, status=200):
    """What becomes of an answer that comes off the wire in these pieces."""

    async def stream():
        for piece in pieces:
            yield piece

    return send(lambda _: httpx.Response(status, headers={"content-encoding": encoding}, content=stream()))


@pytest.mark.parametrize("data", [b"[1]", b"0" * 3_000_000])
def test_an_answer_is_unpacked_whole(data):
    for encoding, body in (
        ("gzip", gzip.compress(data[:1]) + gzip.compress(data[1:])),
        ("deflate", zlib.compress(data)),
        ("", data),
    ):
        pieces = [body[n : n + 1000] for n in range(0, len(body), 1000)]
        assert sent(encoding, *pieces).body == data


def test_an_answer_that_is_not_packed_as_it_says_is_a_failure():
    whole = gzip.compress(b"[1]")
    for broken in (whole[:-1], whole + b"\x00", b"[1]"):
        with pytest.raises(Unreachable, match="not compressed as it says"):
            sent("gzip", broken)
    with pytest.raises(Malformed, match="did not ask"):
        sent("gzip, gzip", gzip.compress(whole))


@pytest.mark.parametrize(("encoding", "body"), [("br", b"\x1b"), ("gzip", b"[1]"), ("gzip, gzip", b"")])
def test_a_status_that_says_enough_counts_whatever_its_body_is(encoding, body):
    response = sent(encoding, body, status=429)
    assert (response.status, response.body) == (429, b"")
    with pytest.raises((Malformed, Unreachable)):
        sent(encoding, body)


def test_without_a_word_on_it_an_answer_may_have_64_megabytes():
    assert helius(1).settings.max_bytes == 64 * 2**20


def test_an_endless_answer_is_given_up_at_the_cap():
    read = 0

    async def endless():
        nonlocal read
        while True:
            read += 1000
            yield b"0" * 1000

    with pytest.raises(Malformed, match="larger than"):
        send(lambda _: httpx.Response(200, content=endless()), max_bytes=10_000)
    assert read <= 11_000


def test_cookies_are_few_and_small_whatever_is_set():
    """Our own header once had 787 KB."""
    heads = []

    def answer(request):
        heads.append(request.headers.get("cookie", ""))
        cookies = [("set-cookie", f"c{len(heads)}-{number}={'v' * 300}") for number in range(5)]
        return httpx.Response(200, headers=cookies)

    send(answer, times=40)
    assert max(map(len, heads)) <= MAX_COOKIE_BYTES
    assert len(heads[1]) > 1500, "but they are sent back"


@pytest.mark.parametrize(
    "headers",
    [
        [(f"h{number}", "x") for number in range(MAX_HEADER_FIELDS + 1)],
        [("x", "v" * MAX_HEAD_BYTES)],
        [("v" * MAX_HEAD_BYTES, "x")],
    ],
)
@pytest.mark.parametrize("status", [200, 429])
def test_a_head_that_is_too_large_is_not_looked_at(headers, status):
    with pytest.raises(Malformed, match="head is larger"):
        send(lambda _: httpx.Response(status, headers=[("retry-after", "30"), *headers]))


def test_an_answer_in_crumbs_is_given_up():
    read = 0

    async def crumbs(size):
        nonlocal read
        while True:
            read += 1
            yield b"0" * size

    for size in (0, 1):
        with pytest.raises(Malformed, match="crumbs"):
            send(lambda _, size=size: httpx.Response(200, content=crumbs(size)))
        assert read < 11_000
        read = 0
    with pytest.raises(Malformed, match="larger than"):
        send(lambda _: httpx.Response(200, content=crumbs(100)), max_bytes=2_000_000)


def test_others_have_their_turns_between_the_pieces_of_an_answer():
    turns = 0

    async def main():
        async def pieces():
            for _ in range(3200):
                yield b"0"

        async def other():
            nonlocal turns
            while True:
                await anyio.lowlevel.checkpoint()
                turns += 1

        exchange = HttpExchange(
            helius(1), httpx.MockTransport(lambda _: httpx.Response(200, content=pieces())), Credentials(), lambda: 0
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            await exchange.send(REQUEST)
            tasks.cancel_scope.cancel()

    anyio.run(main)
    assert turns >= 90


def test_all_answers_that_are_held_at_a_time_have_a_bound(monkeypatch):
    monkeypatch.setattr(exchange_module, "MAX_HELD", 4000)

    async def main():
        transport = httpx.MockTransport(lambda _: httpx.Response(200, content=b"0" * 1000))
        exchange = HttpExchange(helius(1, max_bytes=1000), transport, Credentials(), lambda: 0)
        held = [await exchange.send(REQUEST) for _ in range(2)]
        assert not exchange.is_full
        held += [await exchange.send(REQUEST) for _ in range(2)]
        assert exchange.is_full
        with pytest.raises(Malformed, match="at a time"):
            await exchange.send(REQUEST)
        assert exchange.bytes_held == 4000
        for response in held:
            exchange.release(response)
        assert (exchange.bytes_held, exchange.is_full) == (0, False)
        await exchange.send(REQUEST)

    anyio.run(main)


@pytest.mark.parametrize(
    ("error", "phase", "reason"),
    [
        (httpx.PoolTimeout("x"), "pool", "none of our connections became free"),
        (httpx.RemoteProtocolError("x"), "protocol", "broke the protocol"),
        (httpx.WriteError("x"), "write", "broke while the request was sent"),
        (httpx.ConnectError("x"), "connect", "no connection"),
        (httpx.UnsupportedProtocol("x"), "transport", "UnsupportedProtocol"),
    ],
)
def test_trouble_on_the_network_is_told_by_its_phase(error, phase, reason):
    """What cannot be had on loopback; the rest is in test_connections.py."""

    def handler(request):
        error.request = request
        raise error

    with pytest.raises(Unreachable, match=reason) as caught:
        send(handler)
    assert caught.value.phase == phase
    assert caught.value.__cause__ is None


async def really_send(base_url, times=1):
    """Over a real socket. Gives the last answer or failure."""
    provider = helius(1, base_url=base_url, timeout=60.0)
    async with HttpConnections(always) as transport:
        exchange = HttpExchange(provider, transport, Credentials(), lambda: 0)
        for _ in range(times):
            try:
                last = await exchange.send(REQUEST)
            except Unreachable as failure:
                last = failure
        return last


GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.mark.parametrize("good_ones", [0, 1])
def test_a_request_whose_connection_was_reset_is_not_repeated(good_ones):
    """Also on a connection that has served before, where many clients silently try once more."""

    async def main():
        requests = []

        async def serve(stream):
            async with stream:
                for n in range(good_ones + 1):
                    requests.append(await stream.receive())
                    if n < good_ones:
                        await stream.send(GOOD)
                raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        async with anyio.create_task_group() as tasks:
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
            tasks.start_soon(listener.serve, serve)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            last = await really_send(f"http://127.0.0.1:{port}", times=good_ones + 1)
            tasks.cancel_scope.cancel()
        await listener.aclose()
        return last, requests

    last, requests = anyio.run(main)
    assert isinstance(last, Unreachable)
    assert len(requests) == good_ones + 1
