"""Answers that make no sense give no reading, and the watcher goes on; so do refused credentials."""

import pytest

from tests.e2e.front import before, front
from tests.e2e.harness import KEY, REQUESTS, at_rest, balances, denied, get, one_clear_line, until

SPOILT = ("wall", "html", "number", "nan", "nesting", "disguise")


def wrong(tables, *names):
    return {name: {**table, "api_key_env": "WRONG_KEY"} if name in names else table for name, table in tables.items()}


def test_answers_without_sense_give_no_reading_and_hold_nobody_up(house):
    sandbox = house.sandbox(rate=20.0, limits="none")
    tables = sandbox.providers()
    # One call in two seconds, of which bloXroute counts each as five: their nonsense keeps two processes busy.
    cost = {"bloxroute": 5}
    slow = {name: {**table, "limits": [{"requests": cost.get(name, 1), "per": 2.0}]} for name, table in tables.items()}
    with front(sandbox) as server:
        spoilt = {name: table for way in SPOILT for name, table in before(slow, server, way).items()}
        daemon = house.run(house.config({"helius": tables["helius"], **spoilt}))
        for name in spoilt:
            told = daemon.until_told("poll.failed", provider=name)
            assert told["kind"] in ("malformed", "temporary"), told
            assert "\n" not in told["reason"]
            assert len(told["reason"]) < 500
        seen = dict(server.asked)
        follower = house.follower(daemon.port)
        until(lambda: follower.events, "the good provider's changes are told")
        until(lambda: all(server.asked[path] > count for path, count in seen.items()), "everybody is asked again")
        assert {state["provider"] for state in balances(daemon.port)} == {"helius"}
        assert {event["provider"] for event in follower.events} == {"helius"}
        assert get(f"http://127.0.0.1:{daemon.port}/readyz")[0] == 200
        assert daemon.end()[0] == 0
    assert "Traceback" not in daemon.err


def test_a_credential_that_every_provider_refuses_ends_it(house):
    sandbox = house.sandbox()
    config = house.config(wrong(sandbox.providers(), *REQUESTS))
    daemon = house.finished("run", "-c", config, env={"WRONG_KEY": "nobody-knows-it"})
    one_clear_line(daemon, 78, *REQUESTS)


def test_a_page_before_every_provider_is_no_refused_credential(house):
    """A challenge, or a firewall's word: the first answer of all, and gone a little later."""
    sandbox = house.sandbox(rate=20.0, limits="none")
    with front(sandbox) as server:
        config = house.config(before(sandbox.providers(), server, "wall"))
        daemon = house.run(config)
        for name in REQUESTS:
            reason = daemon.until_told("poll.failed", provider=f"wall-{name}")["reason"]
            assert "not in the provider's own words" in reason
        apart = f"sqlite:///{house.folder / 'apart.db'}"  # in the daemon's own it would wait for what that leaves
        tables = before(sandbox.providers(), server, "wall")
        check = house.finished("check", "-c", house.config(tables, journal=apart, name="apart.toml"))
        assert check.status == 69, check.err
        server.walled = False
        every = {f"wall-{name}" for name in REQUESTS}
        until(lambda: {state["provider"] for state in balances(daemon.port)} == every, "everybody is read")
        assert daemon.end()[0] == 0


def test_a_credential_that_one_provider_refuses_pauses_that_one_alone(house):
    sandbox = house.sandbox(rate=50.0)
    daemon = house.run(house.config(wrong(sandbox.providers(), "helius")), env={"WRONG_KEY": "nobody-knows-it"})
    follower = house.follower(daemon.port)
    others = set(REQUESTS) - {"helius"}
    alert = daemon.until_told("provider.refused", provider="helius")
    assert alert["level"] == "error"
    until(lambda: {event["provider"] for event in follower.events} == others, "the others go on")
    at_rest(daemon, "helius")
    refused = denied(sandbox, "helius")
    told = len(follower.events)
    until(lambda: len(follower.events) > told + 50, "they still do")
    assert denied(sandbox, "helius") == refused
    assert daemon.end()[0] == 0


@pytest.fixture(scope="module")
def still(shared):
    """A sandbox in which nothing moves. It refuses nothing: one `check` knows nothing of what the one before it asked."""
    return shared.sandbox(rate=0.0, limits="none")


def test_check_shows_what_every_provider_answers(house, still):
    check = house.finished("check", "-c", house.config(still.providers()))
    assert check.status == 0, check.err
    for name, provider in still.report()["providers"].items():
        assert f"{name}: answers with" in check.out
        assert any(balance["amount"] in check.out for balance in provider["balances"])
    assert check.err == ""


def test_check_offline_asks_nobody(house, still):
    asked = still.report(history=False)["providers"]["ondo"]["requests"]
    check = house.finished("check", "--offline", "-c", house.config(still.providers()))
    assert check.status == 0, check.err
    assert "ondo (ondo): 10 watches" in check.out
    assert "answers with" not in check.out
    assert still.report(history=False)["providers"]["ondo"]["requests"] == asked


def test_check_tells_a_refused_credential_and_still_asks_the_others(house, still):
    config = house.config(wrong(still.providers(), "ondo"))
    check = house.finished("check", "-c", config, env={"WRONG_KEY": "nobody-knows-it"})
    one_clear_line(check, 78, "ondo")
    assert "tokenkit: answers with" in check.out


def test_check_tells_a_provider_that_is_not_there(house, still):
    tables = still.providers(jupiter={"base_url": "http://127.0.0.1:9/jupiter"})
    check = house.finished("check", "-c", house.config(tables))
    one_clear_line(check, 69, "jupiter")
    assert "tokenkit: answers with" in check.out


def test_check_refuses_what_run_would_refuse(house, still):
    config = house.config(still.providers(), relay={"prot": 0})
    one_clear_line(house.finished("check", "-c", config), 2, "`prot`", "`port`")
    check = house.finished("check", "-c", house.config(still.providers()), env={KEY: ""})
    assert check.status == 2
    lines = check.err.splitlines()
    assert len(lines) == len(REQUESTS)
    for name, line in zip(REQUESTS, lines, strict=True):
        assert line.startswith(f"watcher: [providers.{name}]: api_key_env names {KEY}, which is empty")
