"""How a provider is, in our words: the state, the reason and since when, whatever comes back."""

from itertools import pairwise

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.poller.test_failure_policy import House
from tests.polling import START, Api, account_of, balance, fine, helius, journal, poller_of, virtually
from watcher.model.times import parse_rfc3339
from watcher.poller.condition import Moment
from watcher.poller.poll_stats import BEHIND
from watcher.poller.transport_errors import Unreachable, unreachable_from
from watcher.providers.failures import Exhausted, Malformed, Misconfigured, RefusedCredential, Temporary, Throttled

OUTSIDE = "zebra-key https://zebra.example/?api-key=zebra 3emsAVdmGKERbHjmGfQ6oZ1e35dkf5iYcS6U4CPKFVaa"
"""What a provider may say, and no reader may see."""


def page(status, **more):
    return lambda *_: httpx.Response(status, text=OUTSIDE, **more)


def word(code, status=200, **more):
    """An error of the provider's own."""
    error = {"jsonrpc": "2.0", "id": "1", "error": {"code": code, "message": OUTSIDE}}
    return lambda *_: httpx.Response(status, json=error, **more)


def raising(error):
    def answer(*_):
        raise error

    return answer


async def hanging():
    await anyio.sleep_forever()


STATES = {
    "a connection that is refused": (
        raising(httpx.ConnectError(OUTSIDE)),
        "failing",
        "no connection (",
    ),
    "no answer in time": (lambda *_: hanging, "failing", "no answer in time ("),
    "trouble of its own": (page(503), "failing", "it has trouble of its own (HTTP 503) ("),
    "a redirect": (page(302, headers={"location": "https://zebra.example/"}), "failing", "it redirects us"),
    "a gateway": (page(403), "failing", "not it, but something before it answers (HTTP 403) ("),
    "nonsense": (page(200), "failing", "its answers cannot be understood ("),
    "too many requests": (word(-32429, 429), "paused", "too many requests"),
    "a wrong key": (word(-32001, 401), "refused", "it refuses our key"),
    "no credits": (
        lambda *_: httpx.Response(200, text="max usage reached"),
        "refused",
        "our credits there are used up",
    ),
    "wrong watches": (word(-32602), "refused", "3 of 3 watches fail: it refuses what we ask for"),
    "all is well": (fine, "ok", None),
}


def polled(path, answer, seconds=30.0, **settings):
    """The health of a provider at each second, and the poller."""

    async def main():
        async with journal(path) as intake, anyio.create_task_group() as tasks:
            poller = poller_of(helius(3, limits=((1, 1.0),), timeout=2.0, **settings), Api(answer), intake)
            seen = [poller.health("me")]
            await tasks.start(poller.run)
            while anyio.current_time() < seconds:
                await anyio.sleep(1)
                seen.append(poller.health("me"))
            tasks.cancel_scope.cancel()
        return seen

    return virtually(main)


@pytest.mark.parametrize("what", STATES)
def test_what_comes_back_is_told_in_our_words_from_the_first_answer_on(tmp_path, what):
    answer, state, reason = STATES[what]
    first, *_, last = polled(tmp_path / "x.db", answer)
    assert (first.state, first.reason) == ("waiting", "no answer yet since the start")
    assert last.state == state
    assert (last.reason or "").startswith(reason or "")
    assert (last.reason is None) == (state == "ok")
    assert 0 <= parse_rfc3339(last.since) - START < 8e6


def test_one_failure_among_good_answers_is_no_state_and_two_in_a_row_are_one(tmp_path):
    def now_and_then(request, n):
        return page(503)() if n % 3 == 0 else fine(request, n)

    assert {each.state for each in polled(tmp_path / "1.db", now_and_then)[3:]} == {"ok"}

    def twice(request, n):
        return page(503)() if n in (10, 11, 12) else fine(request, n)

    seen = polled(tmp_path / "2.db", twice)
    assert [each.reason for each in seen if each.state == "failing"][:2] == [
        "it has trouble of its own (HTTP 503) (2 in a row)",
        "it has trouble of its own (HTTP 503) (3 in a row)",
    ]
    assert len({each.since for each in seen if each.state == "failing"}) == 1
    assert seen[-1].state == "ok"
    assert parse_rfc3339(seen[-1].since) - START > 10e6


def test_single_watches_that_fail_are_counted_while_the_others_are_read(tmp_path):
    bad = []

    def refused(request, n):
        if not bad:
            bad.append(account_of(request))
        return word(-32602)() if account_of(request) in bad else fine(request, n)

    last = polled(tmp_path / "1.db", refused)[-1]
    assert (last.state, last.reason) == ("refused", "1 of 3 watches fails: it refuses what we ask for")
    first = bad.pop()

    def down(request, n):
        return page(500)() if account_of(request) == first else fine(request, n)

    last = polled(tmp_path / "2.db", down)[-1]
    assert (last.state, last.reason) == ("failing", "1 of 3 watches fails: it has trouble of its own (HTTP 500)")
    assert last.last_success is not None


def test_a_key_that_has_worked_is_doubted_first_and_a_new_one_ends_what_was_said_of_the_old(tmp_path):
    def answer(request, n):
        good = n <= 5 or request.url.params["api-key"] == "canary-new"
        return fine(request, n) if good else word(-32001, 401)()

    async def main():
        async with journal(tmp_path / "x.db") as intake, anyio.create_task_group() as tasks:
            provider = helius(3, limits=((1, 1.0),))
            poller = poller_of(provider, Api(answer), intake)
            await tasks.start(poller.run)
            await anyio.sleep(10)
            doubted = poller.look()
            await anyio.sleep(200)
            refused = poller.look()
            poller.renew(provider.credentials("canary-new"))
            new = poller.look()
            await anyio.sleep(10)
            tasks.cancel_scope.cancel()
            return doubted, refused, new, poller.look()

    doubted, refused, new, fine_again = virtually(main)
    assert (doubted.state, refused.state, new.state, fine_again.state) == ("paused", "refused", "waiting", "ok")
    assert "has worked before" in doubted.reason
    assert new.reason == "no answer yet to the new key"


def test_answers_that_are_all_older_than_what_is_known_are_a_failure(tmp_path):
    def answer(request, n):
        return httpx.Response(200, json=balance(slot=1000 if n <= 3 else 5))

    last = polled(tmp_path / "x.db", answer, 10.0 + 3 * BEHIND)[-1]
    assert (last.state, last.reason) == ("failing", "all that it answers is older than what is known")


def test_a_state_that_is_another_one_wakes_whoever_waits_for_it(tmp_path):
    def answer(request, n):
        return page(503)() if 5 < n < 9 else fine(request, n)

    async def main():
        states = []
        async with journal(tmp_path / "x.db") as intake, anyio.create_task_group() as tasks:
            poller = poller_of(helius(3, limits=((1, 1.0),)), Api(answer), intake)

            async def note():
                while True:
                    await poller.state_changed()
                    states.append((poller.look().state, anyio.current_time()))

            tasks.start_soon(note)
            await tasks.start(poller.run)
            await anyio.sleep(30)
            tasks.cancel_scope.cancel()
        return states

    states = virtually(main)
    assert [state for state, _ in states] == ["ok", "failing", "ok"]
    assert all(after - before >= 1 for (_, before), (_, after) in pairwise(states))


def test_a_provider_that_we_do_not_ask_because_of_the_journal_waits(tmp_path):
    async def main():
        async with journal(tmp_path / "x.db") as intake:
            poller = poller_of(helius(3), Api(fine), intake)
            intake.problem = OUTSIDE
            held = poller.look()
            intake.problem = None
            return held, poller.look()

    held, after = virtually(main)
    assert (held.state, held.reason) == ("waiting", "held: the journal takes no changes at the moment")
    assert after.reason == "no answer yet since the start"


KINDS = [Throttled, Temporary, Malformed, Misconfigured, RefusedCredential, Exhausted]
NETWORK = [httpx.ConnectError(OUTSIDE), httpx.ReadError(OUTSIDE), TimeoutError(OUTSIDE), OSError(OUTSIDE)]
failures = st.one_of(
    st.builds(lambda kind, wait: kind(OUTSIDE, wait), st.sampled_from(KINDS), st.none() | st.just(30.0)),
    st.builds(unreachable_from, st.sampled_from(NETWORK), st.sampled_from(["connect", "tls", "read", "body"])),
)
steps = st.lists(st.tuples(failures | st.none(), st.sampled_from([None, 200, 302, 404, 503])), max_size=40)


@given(steps)
def test_no_reason_quotes_what_came_from_outside_and_good_answers_end_every_state(steps):
    house = House(watches=3)
    for failure, status in steps:
        if failure is not None and not isinstance(failure, Unreachable):
            failure.status = status
        house.answered(*house.asked(), failure)
        found = house.condition.look(Moment(round(house.now * 1e6), 3, 0.0, None))
        assert (found.reason is None) == (found.state == "ok")
        assert len(found.reason or "") <= 200
        assert not any(part in (found.reason or "") for part in OUTSIDE.split())
    house.now += 4 * 3600.0  # whatever was set aside or paused is due
    for _ in range(12):
        house.answered(*house.asked())
    assert house.condition.look(Moment(round(house.now * 1e6), 3, 0.0, None)).state == "ok"
