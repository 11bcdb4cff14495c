import itertools
import json

import httpx
import pytest

from tests.polling import Api, account_of, fine, helius, poll, tokenkit
from watcher.scheduling.lane_scheduler import OutageDetector
from watcher.scheduling.schedule import Schedule


class Polls:
    """A poll a second, answered at once. `good(target, now)` says how it ends."""

    def __init__(self, watches):
        self.schedule = Schedule(range(watches), seed=1, now=0.0)
        self.outage = OutageDetector(self.schedule, 1)
        self.now = 0.0
        self.asked = []
        self.read = {}
        """watch → seconds of every good answer."""

    def run(self, seconds, good):
        end = self.now + seconds
        while self.now < end:
            for target in self.schedule.pick(self.now):
                self.asked.append((self.now, target))
                if good(target, self.now):
                    self.schedule.report(target, self.now, changed=False)
                    self.outage.answered(self.now)
                    self.read.setdefault(target, []).append(self.now)
                else:
                    self.outage.failed([target], self.now, self.now)
            self.now += 1.0

    def first_read_after(self, moment):
        return {target: next(time for time in times if time >= moment) for target, times in self.read.items()}


def up(_target, _now):
    return True


def down(_target, _now):
    return False


@pytest.mark.parametrize("watches", [1, 2, 3, 20, 300])
def test_after_an_outage_every_watch_is_read_in_an_ordinary_turn(watches):
    polls = Polls(watches)
    polls.run(10 * watches, up)
    polls.run(30 * watches, down)
    recovered = polls.now
    polls.run(10 * watches, up)
    assert max(polls.first_read_after(recovered).values()) <= recovered + 1.5 * watches + 2


def test_after_an_outage_what_was_hinted_meanwhile_is_read_first():
    polls = Polls(300)
    polls.run(3000, up)
    polls.run(600, down)
    for target in (3, 250):
        polls.schedule.hint(target, polls.now, "push")
    recovered = polls.now
    polls.run(900, up)
    assert max(polls.first_read_after(recovered)[target] for target in (3, 250)) <= recovered + 10


def test_a_short_outage_costs_those_that_it_hit_no_turn_of_theirs():
    polls = Polls(5000)
    polls.run(15000, up)
    polls.run(200, down)
    recovered = polls.now
    hit = {target for time, target in polls.asked if time >= recovered - 200}
    polls.run(1000, up)
    assert len(hit) >= 100
    assert all(polls.read[target][-1] >= recovered for target in hit)


def test_an_outage_that_comes_again_and_again_blames_nobody():
    polls = Polls(30)
    polls.run(300, up)
    for _ in range(20):
        polls.run(100, down)
        polls.run(6, up)
    recovered = polls.now - 6
    polls.run(300, up)
    assert max(polls.first_read_after(recovered).values()) <= recovered + 45


def test_watches_that_fail_while_others_answer_back_off_as_ever():
    polls = Polls(40)
    polls.run(4000, lambda target, _now: target >= 10)
    late = [target for time, target in polls.asked if time >= 2000]
    assert sum(target < 10 for target in late) <= 10 * 2000 / (40 * 8) + 10
    waits = [after - before for times in polls.read.values() for before, after in itertools.pairwise(times)]
    assert max(waits) <= 160


def test_an_attempt_that_hung_in_the_outage_is_forgiven_when_it_ends_after_it():
    polls = Polls(10)
    polls.run(100, up)
    stuck = polls.schedule.pick(polls.now)
    left = polls.now
    polls.run(200, down)
    polls.run(20, up)
    polls.outage.failed(stuck, left, polls.now)
    back = polls.now
    polls.run(5, up)
    assert polls.read[stuck[0]][-1] >= back


def test_the_longest_unread_comes_first():
    polls = Polls(10)
    polls.run(100, up)
    polls.run(300, down)
    before = {target: times[-1] for target, times in polls.read.items()}
    recovered = polls.now
    polls.run(30, up)
    order = sorted(before, key=polls.first_read_after(recovered).__getitem__)
    stale = sorted(before, key=before.__getitem__)
    assert set(order[1:4]) <= set(stale[:6])


# --- in the poller


def unreachable(request):
    raise httpx.ConnectError("no route", request=request)


def behind(request):
    return httpx.Response(
        200, json={"jsonrpc": "2.0", "id": "1", "error": {"code": -32005, "message": "Node is behind"}}
    )


@pytest.mark.parametrize(
    "answer", [unreachable, behind, lambda _: httpx.Response(503), lambda _: httpx.Response(200, text="<html>")]
)
def test_a_provider_that_comes_back_is_read_whole_in_one_sweep(tmp_path, answer):
    api = Api(lambda request, n: answer(request) if 100 <= api.times[-1] < 700 else fine(request, n))
    (poller,) = poll(tmp_path / "balances.db", 760, (helius(20, limits=((1, 1.0),)), api))
    after = {}
    for time, request in api.arrivals:
        if time >= 700:
            after.setdefault(account_of(request), time)
    assert len(after) == 20
    assert max(after.values()) <= 735
    assert poller.stats.answers > 100


def test_an_endpoint_that_is_down_is_no_trouble_of_the_others_watches(tmp_path):
    def answer(request, _n):
        if request.url.path == "/api/balances/":
            return httpx.Response(503)
        account = dict(request.url.params)["account_address"]
        if account.endswith("3e8"):
            return httpx.Response(503)
        row = {"account": {"address": account}, "token": {"address": "0x7"}}
        row |= {"balance": "7", "last_updated": "2026-01-25T14:43:57Z"}
        return httpx.Response(200, json={"success": True, "data": [row]})

    api = Api(answer)
    limits = ((60, 60.0, "balances"), (60, 60.0, "account-balances"))
    poll(tmp_path / "balances.db", 600, (tokenkit(2, listings=5, limits=limits), api))
    listings = [dict(request.url.params) for _, request in api.arrivals if request.method == "GET"]
    pairs = [json.loads(request.content) for _, request in api.arrivals if request.method == "POST"]
    assert sum(params["account_address"].endswith("3e8") for params in listings) <= 600 / (5 * 8) + 6
    assert len(pairs) > 60
