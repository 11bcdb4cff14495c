"""Labels of the config, from the file to a row, to a metric and to a relay of its own that has no key."""

import json
import urllib.parse

from tests.e2e.harness import KEY, get, until


def rows(port, **wanted):
    return json.loads(get(f"http://127.0.0.1:{port}/v1/balances?{urllib.parse.urlencode(wanted)}")[1])["data"]


def test_a_label_of_the_config_is_in_rows_and_metrics_and_a_relay_alone_knows_it_too(house):
    sandbox = house.sandbox(rate=0.0)
    tables = {"helius": sandbox.providers()["helius"]}
    tables["helius"]["watch"][0] |= {"label": 'Cold "1"', "tags": ["ops"]}
    config = house.config(tables, balance_gauges=1)
    daemon = house.run(config)
    (row,) = until(lambda: rows(daemon.port, label='Cold "1"'), "the balance is known")
    assert (row["account"], row["tags"], row["watched"]) == (tables["helius"]["watch"][0]["account"], ["ops"], True)
    metrics = until(
        lambda: (
            (text := get(f"http://127.0.0.1:{daemon.port}/metrics")[1].decode()) and "watcher_balance{" in text and text
        ),
        "the gauge is there",
    )
    (gauge,) = [line for line in metrics.splitlines() if line.startswith("watcher_balance{")]
    assert 'label="Cold \\"1\\""' in gauge
    assert float(gauge.rpartition(" ")[2]) == float(row["amount"])
    assert daemon.end()[0] == 0

    alone = house.run(config, "--only", "relay", env={KEY: ""})
    assert rows(alone.port, tag="ops") == [row]
    assert {one["watched"] for one in rows(alone.port)} == {True}
    assert alone.end()[0] == 0
