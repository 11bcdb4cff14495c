"""What people see of hints from a running daemon: sources that come and go, what was hinted, and that it was right."""

import hashlib
import json
import signal

from tests.e2e.harness import get, until

URL = "PUSH_URL"


def figures(port, headers=None):
    """Every sample of `/metrics`: its name with its labels → its value."""
    lines = get(f"http://127.0.0.1:{port}/metrics", headers=headers)[1].decode().splitlines()
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


GOOD, BAD = "canary-of-the-good-bot", "canary-of-the-bad-bot"


def digest(token):
    return hashlib.sha256(token.encode()).hexdigest()


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def tokens_file(house, *, bad):
    good = f'[[token]]\nsha256 = "{digest(GOOD)}"\nname = "desk-bot"\n'
    bound = f'[[token]]\nsha256 = "{digest(BAD)}"\nprovider = ["helius"]\nhint = true\n'
    path = house.folder / "tokens.toml"
    path.write_text(good + bound * bad)
    return str(path)


def post(daemon, token, accounts):
    body = json.dumps({"hints": [{"provider": "helius", "account": account} for account in accounts]}).encode()
    return get(f"http://127.0.0.1:{daemon.port}/v1/hints", method="POST", body=body, headers=bearer(token))[0]


def move(sandbox, balance, amount):
    told = {name: balance[name] for name in ("chain", "account", "token")}
    body = json.dumps({"provider": "helius", "amount": amount, **told}).encode()
    assert get(f"{sandbox.url}/_set", method="POST", body=body)[0] == 200


def test_of_two_tokens_that_post_each_has_its_figures_until_it_is_taken_away(house):
    """One marks everything again and again, the other one tells of what has moved."""
    sandbox = house.sandbox(rate=0)
    tables = {"helius": sandbox.providers()["helius"]}
    config = house.config(tables, relay={"port": 0, "tokens_file": tokens_file(house, bad=True)})
    daemon = house.run(config)
    accounts = [watch["account"] for watch in tables["helius"]["watch"]]
    bad = f"http:{digest(BAD)[:8]}"
    shown = lambda token=GOOD: figures(daemon.port, bearer(token))  # noqa: E731
    precision = lambda source: shown().get(f'watcher_hint_precision{{provider="helius",source="{source}"}}')  # noqa: E731
    address = f"ws://127.0.0.1:{daemon.port}/v1/stream"
    tail = house.watcher("tail", address, "--verbose", "--token-env", "TOKEN", env={"TOKEN": GOOD})

    def learned():
        assert post(daemon, BAD, accounts) == 202
        return (precision(bad) or 1.0) < 0.2

    until(learned, "the bad one is known")
    (balance, *_) = sandbox.report()["providers"]["helius"]["balances"]
    right = 'watcher_hinted_reads_total{provider="helius",result="changed"}'
    for n in range(5):
        before = shown()[right]
        move(sandbox, balance, str(1000 + n))
        assert post(daemon, GOOD, [balance["account"]]) == 202
        until(lambda before=before: shown()[right] > before, "its hint was right")
        assert post(daemon, BAD, accounts) == 202
    until(learned, "it is known, though it has marked what the other one told of")
    assert precision("http:desk-bot") > 0.5
    assert shown()['watcher_hints_total{result="accepted",source="http:desk-bot",type="http"}'] == 5.0
    for source in ("http:desk-bot", bad):
        tail.until_told("hints.connected", provider="helius", source=source)
    bound = house.watcher("tail", address, "--verbose", "--token-env", "TOKEN", env={"TOKEN": BAD})
    bound.until_told("hints.figures", provider="helius")
    assert "http:" not in bound.err, "who is bound is not told who else posts"
    assert [name for name in shown(BAD) if "http:" in name] == []

    judged = shown()[right]
    tokens_file(house, bad=False)
    daemon.process.send_signal(signal.SIGHUP)
    assert daemon.until_told("config.reloaded", result="applied")["relay"]
    assert [name for name in shown() if bad in name] == []
    assert post(daemon, BAD, accounts) == 401
    assert precision("http:desk-bot") > 0.5
    assert shown()[right] >= judged
    assert (tail.end()[0], daemon.end()[0]) == (0, 0)
    assert "canary" not in tail.err + bound.err + daemon.err
