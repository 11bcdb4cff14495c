"""Days that nobody closed are closed by the next daemon that starts, with a relay and without."""

import contextlib
import json
import sqlite3
import time

import pytest

from tests.e2e.harness import get, until
from watcher.model.days import DAY, last_day_over, midnight_after
from watcher.model.times import format_rfc3339, parse_rfc3339

AWAY = 2
"""Days for which nobody was there."""


def age(path):
    """As if all had been read last so many days ago, by a version that closed nothing."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for key, data in connection.execute("SELECT key, data FROM state").fetchall():
            state = json.loads(data)
            state["observed_at"] = format_rfc3339(parse_rfc3339(state["observed_at"]) - AWAY * DAY)
            connection.execute("UPDATE state SET data = ? WHERE key = ?", (json.dumps(state).encode(), key))
        connection.execute("DELETE FROM note WHERE key LIKE 'seen:%' OR key LIKE 'closed:%'")


def kept(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        closings = [json.loads(data) for (data,) in connection.execute("SELECT data FROM closing")]
        states = [json.loads(data) for (data,) in connection.execute("SELECT data FROM state")]
    return closings, states


@pytest.mark.parametrize("only", [(), ("--only", "pollers")], ids=["relay", "pollers"])
def test_missed_days_are_closed_once_all_has_been_read_again(house, only):
    sandbox = house.sandbox(rate=0.0)
    tables = {"helius": sandbox.providers()["helius"]}
    config = house.config(tables, retention=(AWAY + 1) * 86400.0)
    first = house.run(config)
    count = len(tables["helius"]["watch"])

    def known():
        return len(json.loads(get(f"http://127.0.0.1:{first.port}/v1/balances")[1])["data"]) == count

    until(known, "all balances are known")
    assert first.end()[0] == 0
    (path,) = house.folder.rglob("*.db")
    age(path)
    days = [last_day_over(time.time_ns() // 1000 - number * DAY) for number in (1, 0)]
    daemon = house.run(config, *only)
    for day in days:
        daemon.until_told("day.closed", provider="helius", day=day)
    if not only:
        text = get(f"http://127.0.0.1:{daemon.port}/metrics")[1].decode()
        name = 'watcher_closed_day_timestamp_seconds{provider="helius"} '
        (sample,) = [line.removeprefix(name) for line in text.splitlines() if line.startswith(name)]
        assert float(sample) >= midnight_after(days[1]) / 1e6
    assert daemon.end()[0] == 0
    closings, states = kept(path)
    for day in days:
        held = {one["balance"]["account"]: one["balance"] for one in closings if one["day"] == day}
        assert {account: row["amount"] for account, row in held.items()} == {
            state["account"]: state["amount"] for state in states
        }
        assert {row["status"] for row in held.values()} == {"certain"}
