"""What people see of hints from a running daemon: sources that come and go, what was hinted, and that it was right."""

import json

from tests.e2e.harness import get, until

URL = "PUSH_URL"


def figures(port):
    """Every sample of `/metrics`: its name with its labels → its value."""
    lines = get(f"http://127.0.0.1:{port}/metrics")[1].decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_a_source_is_shown_where_it_covers_something_with_its_figures_and_its_end(house):
    sandbox = house.sandbox(rate=0)
    providers = {name: table for name, table in sandbox.providers().items() if name in ("helius", "ondo")}
    config = house.config(providers, hints=[{"type": "solana", "name": "push", "url_env": URL}])
    daemon = house.run(config, env={URL: f"ws://127.0.0.1:{sandbox.port}/_push/solana"})
    tail = house.watcher("tail", f"ws://127.0.0.1:{daemon.port}/v1/stream", "--verbose", "--provider", "helius")
    connected = 'watcher_hint_source_connected{source="push",type="solana"}'
    until(lambda: figures(daemon.port)[connected] == 1.0, "the source is there")
    told = tail.until_told("hints.connected", provider="helius", source="push")
    assert told["since"] is not None

    watch = providers["helius"]["watch"][0]
    body = json.dumps({"hints": [{"provider": "helius", "account": watch["account"]}]}).encode()
    status, answer = get(f"http://127.0.0.1:{daemon.port}/v1/hints", method="POST", body=body)
    assert (status, json.loads(answer)) == (202, {"accepted": 1, "unknown": 0})
    assert figures(daemon.port)['watcher_hints_total{result="accepted",source="http",type="http"}'] == 1.0
    tail.until_told("hints.connected", provider="helius", source="http")
    judged = 'watcher_hinted_reads_total{provider="helius",result="unchanged"}'
    until(lambda: figures(daemon.port)[judged] == 1.0, "its hint is judged: nothing had moved")
    assert figures(daemon.port)['watcher_hint_precision{provider="helius",source="http"}'] < 1.0

    sandbox.process.end()
    until(lambda: figures(daemon.port)[connected] == 0.0, "the source is away")
    tail.until_told("hints.away", provider="helius", source="push")
    assert tail.end()[0] == 0, tail.err
    assert tail.out == "", "a pipe holds changes alone"
