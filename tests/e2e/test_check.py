"""`watcher check` against simulated providers: its requests stand in the same limits as the daemon's."""

import contextlib
import json
import sqlite3

from tests.e2e.harness import until


def narrow(house, per):
    """TokenKit, which allows one request in `per` seconds, and a config that asks for that one."""
    sandbox = house.sandbox(limits=f"tokenkit=1/{per}")
    table = sandbox.providers(tokenkit={"limits": [{"requests": 1, "per": per}]})["tokenkit"]
    return sandbox, house.config({"tokenkit": {**table, "watch": table["watch"][:1]}})


def figure(sandbox, name):
    return sandbox.report(history=False)["providers"]["tokenkit"][name]


def document(process):
    assert process.status in (0, 69), process.err
    return json.loads(process.out)


def test_checks_one_after_the_other_and_a_daemon_behind_them_exceed_no_limit(house):
    sandbox, config = narrow(house, 4)
    assert house.finished("init", "-c", config).status == 0
    notes = []
    for _ in range(2):
        check = house.finished("check", "-c", config, "--json")
        assert [one["asked"] for one in document(check)["providers"]] == [1]
        with contextlib.closing(sqlite3.connect(house.folder / "balances.db")) as file:
            notes += file.execute("SELECT data FROM note WHERE key = 'limiter:tokenkit'").fetchall()
    assert len({*notes}) == 2  # each is counted in the journal
    daemon = house.run(config)
    until(lambda: figure(sandbox, "requests") > 2, "it polls")
    assert figure(sandbox, "refusals") == 0
    assert daemon.end()[0] == 0


def test_beside_a_daemon_that_uses_all_of_a_limit_it_asks_nothing_and_says_so(house):
    sandbox, config = narrow(house, 2)
    daemon = house.run(config)
    until(lambda: figure(sandbox, "requests") > 1, "it polls")
    check = house.finished("check", "-c", config, "--json")
    told = [one["what"] for one in document(check)["findings"] if one["severity"] == "warning"]
    assert any("a running daemon" in what for what in told), told
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
