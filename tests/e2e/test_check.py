"""`watcher check` against simulated providers: its requests stand in the same limits as the daemon's."""

import json
import time

import pytest

from tests.e2e.harness import until

REAL = {"tokenkit": {"requests": 1, "per": 2.0}, "helius": {"requests": 3, "per": 1.5}}
"""Limits that one request or three use up."""


@pytest.fixture
def narrow(house):
    """Two providers behind narrow limits, and a config that asks for all that they allow."""
    limits = ",".join(f"{name}={limit['requests']}/{limit['per']:g}" for name, limit in REAL.items())
    sandbox = house.sandbox(limits=limits)
    tables = sandbox.providers(**{name: {"limits": [limit]} for name, limit in REAL.items()})
    return sandbox, house.config({name: tables[name] for name in REAL})


def refusals(sandbox):
    report = sandbox.report(history=False)["providers"]
    return {name: report[name]["refusals"] for name in REAL}


def document(process):
    assert process.status in (0, 69), process.err
    return json.loads(process.out)


def test_checks_one_after_the_other_and_a_daemon_behind_them_exceed_no_limit(house, narrow):
    sandbox, config = narrow
    assert house.finished("init", "-c", config).status == 0
    first = house.finished("check", "-c", config, "--all")
    assert first.status == 0, first.err
    assert "helius: waits" in first.out
    began = time.monotonic()
    second = house.finished("check", "-c", config, "--json")
    assert time.monotonic() - began > 0.5  # for TokenKit's slot, which the first has used
    assert ": waits" in second.err
    assert [one["asked"] for one in document(second)["providers"]] == [1, 1]
    daemon = house.run(config)
    polled = sandbox.report(history=False)["providers"]["tokenkit"]["requests"]
    until(lambda: sandbox.report(history=False)["providers"]["tokenkit"]["requests"] > polled + 1, "it polls on")
    assert refusals(sandbox) == dict.fromkeys(REAL, 0)
    assert daemon.end()[0] == 0


def test_beside_a_daemon_that_uses_all_of_a_limit_it_asks_nothing_and_says_so(house, narrow):
    sandbox, config = narrow
    daemon = house.run(config)
    until(lambda: sandbox.report(history=False)["providers"]["tokenkit"]["requests"] > 1, "it polls")
    check = house.finished("check", "-c", config, "--json")
    told = [one["what"] for one in document(check)["findings"] if one["severity"] == "warning"]
    assert any("a running daemon" in what for what in told), told
    assert refusals(sandbox)["helius"] <= 1
    assert daemon.end()[0] == 0


def test_every_watch_is_asked_once_when_all_are_wished_for(house):
    sandbox = house.sandbox()
    config = house.config(sandbox.providers())
    check = house.finished("check", "-c", config, "--all", "--json")
    assert check.status == 0, check.err
    for one in json.loads(check.out)["providers"]:
        assert one["asked"] == one["requests"] > 0
    asked = sandbox.report(history=False)["providers"]
    assert {name: table["requests"] for name, table in asked.items()} == {
        one["provider"]: one["requests"] for one in json.loads(check.out)["providers"]
    }
