"""Alerts of the config, from the file to `watcher tail`: the daemon judges, the relay tells, the terminal says it in words."""

import json
import signal

from tests.e2e.harness import until
from tests.e2e.test_labels import rows


def lines(process):
    return [line for line in process.out.splitlines(keepends=True) if line.endswith("\n")]


def test_an_alert_of_the_config_is_a_line_of_tail_and_one_that_a_reload_brings_is_too(house):
    sandbox = house.sandbox(rate=0.0)
    tables = {"helius": sandbox.providers()["helius"]}
    tables["helius"]["watch"] = tables["helius"]["watch"][:1]
    tables["helius"]["watch"][0] |= {"label": "Hot wallet"}
    tables["helius"]["max_interval"] = 0.5
    rich = {"name": "rich", "above": "0", "label": "Hot wallet"}
    config = house.config(tables, alert=[rich])
    daemon = house.run(config)
    (row,) = until(lambda: rows(daemon.port), "the balance is known")
    assert row["version"] == 0
    follower = house.follower(daemon.port)
    until(lambda: follower.cursor, "the stream is followed")
    since = f"{follower.cursor.partition('.')[0]}.1"
    url = f"ws://127.0.0.1:{daemon.port}/v1/stream"
    plain = house.watcher("tail", url, "--since", since)
    whole = house.watcher("tail", url, "--since", since, "--json")
    until(lambda: lines(plain) and lines(whole), lambda: f"the first crossing is shown: {plain.err} {whole.err}")
    assert f"Hot wallet {row['account'][:6]}" in lines(plain)[0]
    assert f"ALERT rich above 0: {row['amount']}" in lines(plain)[0]
    first = json.loads(lines(whole)[0])
    assert list(first) == ["cursor", "label", "event"]
    found = {name: first["event"][name] for name in ("alert", "direction", "threshold", "amount", "version")}
    assert found == {"alert": "rich", "direction": "above", "threshold": "0", "amount": row["amount"], "version": 0}
    assert first["event"]["previous_amount"] is None

    poor = {"name": "poor", "below": f"{row['amount']}0", "label": "Hot wallet"}
    house.config(tables, alert=[rich, poor])
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: len(lines(plain)) > 1 and len(lines(whole)) > 1, lambda: f"the second is: {daemon.err[-2000:]}")
    assert f"ALERT poor below {row['amount']}0: {row['amount']}" in lines(plain)[1]
    assert [json.loads(line)["event"]["alert"] for line in lines(whole)] == ["rich", "poor"]
    assert not follower.events, "who did not ask for crossings got none"
    for process in (plain, whole, daemon):
        assert process.end()[0] == 0
