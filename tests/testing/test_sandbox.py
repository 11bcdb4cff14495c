"""The providers and the watcher inside a test, as the tests of others have them."""

import itertools
import json
import re
import subprocess
import sys
import time
import urllib.request

import pytest
from websockets.sync.client import connect

from watcher.runtime.config_section import SettingsError
from watcher.testing.sandbox import RunningWatcher, Sandbox, SandboxError

PATIENCE = 60.0


def page(url):
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return json.load(answer)


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s"


def rows_of(watcher, count):
    """All balances, once so many are known."""
    while len(rows := page(f"{watcher.url}/v1/balances")["data"]) < count:
        pass
    return rows


def test_each_balance_that_is_set_becomes_one_event(balance_sandbox, balance_watcher):
    truth = balance_sandbox.truth()["providers"]
    rows = rows_of(balance_watcher, sum(b["amount"] != "0" for p in truth.values() for b in p["balances"]))
    one_each = {row["provider"]: row for row in rows}
    assert one_each.keys() == truth.keys()
    with connect(balance_watcher.stream) as stream:
        stream.send(json.dumps({"id": 1, "method": "subscribe", "params": {"snapshot": False}}))
        while "result" not in json.loads(stream.recv(timeout=PATIENCE)):
            pass
        wanted = {}
        for name, row in one_each.items():
            where = {part: row[part] for part in ("chain", "account", "token", "kind")}
            balance_sandbox.set(name, **where, amount="777")
            wanted[name, row["account"], row["token"], row["kind"]] = (row["amount"], "777")
        found = {}
        while len(found) < len(wanted):
            message = json.loads(stream.recv(timeout=PATIENCE))
            if message.get("type") == "update":
                event = message["event"]
                key = (event["provider"], event["account"], event["token"], event["kind"])
                assert key not in found
                found[key] = (event["previous_amount"], event["amount"])
    assert found == wanted
    assert sum(p["refusals"] + p["denied"] for p in balance_sandbox.truth()["providers"].values()) == 0


@pytest.mark.balance_sandbox(seed=5, rate=1000)
def test_the_marker_says_which_world(balance_sandbox):
    assert balance_sandbox.truth()["seed"] == 5
    balance_sandbox.freeze()
    still = balance_sandbox.truth()
    assert still["frozen"]
    assert balance_sandbox.truth()["changes"] == still["changes"]
    balance_sandbox.thaw()
    while balance_sandbox.truth()["changes"] == still["changes"]:
        pass


@pytest.mark.balance_sandbox(faults="push_delay=0.01")
def test_a_balance_that_is_set_is_pushed_and_posted(balance_sandbox):
    held = balance_sandbox.truth()["providers"]["tokenkit"]["balances"][0]
    where = {part: held[part] for part in ("chain", "account", "token")}
    balance_sandbox.send_webhooks("http://127.0.0.1:9/")  # nobody is there: it is tried again and again
    with connect(balance_sandbox.environment["WATCHER_SANDBOX_STARKNET_URL"]) as socket:
        socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "starknet_subscribeEvents"}))
        assert json.loads(socket.recv(timeout=PATIENCE))["result"] == "1"
        balance_sandbox.set("tokenkit", **where, amount="777")
        told = json.loads(socket.recv(timeout=PATIENCE))["params"]["result"]
        assert int(told["from_address"], 16) == int(held["token"], 16)
    until(lambda: balance_sandbox.truth()["push"]["webhook"]["deliveries"][0]["attempts"])
    assert balance_sandbox.truth()["push"]["starknet"]["messages"] == 1


def test_a_config_has_its_push_channels_where_hints_are_asked_for(tmp_path):
    with Sandbox(hints=True) as sandbox, Sandbox() as plain:
        tables = sandbox.config(tmp_path)["hints"]
        named = {value for table in tables for key, value in table.items() if key.endswith("_env")}
        assert named == sandbox.environment.keys() - {"WATCHER_SANDBOX_KEY"}
        assert "hints" not in plain.config(tmp_path)


@pytest.mark.balance_sandbox(hints=True, faults="push_delay=0.01")
def test_a_watcher_takes_hints_where_they_are_asked_for(balance_sandbox, balance_watcher):
    truth = balance_sandbox.truth()["providers"]
    rows_of(balance_watcher, sum(b["amount"] != "0" for p in truth.values() for b in p["balances"]))
    sources = ("solana", "ethereum", "bsc", "starknet")
    until(lambda: all(balance_sandbox.truth()["push"][name]["subscriptions"] for name in sources))
    amounts = itertools.count(1000)

    def all_hint():
        """A source subscribes to the tokens of a wallet as it comes to know them: until then, move everything again."""
        amount = str(next(amounts))
        for name in ("jupiter", "ondo", "tokenkit"):
            for held in {held["chain"]: held for held in truth[name]["balances"]}.values():
                where = {part: held[part] for part in ("chain", "account", "token")}
                balance_sandbox.set(name, **where, amount=amount)
        return set(accepted(balance_watcher)) >= {*sources, "tokenkit"}

    until(all_hint)


def accepted(watcher):
    """The sources of which a hint was taken."""
    with urllib.request.urlopen(f"{watcher.url}/metrics", timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    counts = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}
    names = [re.fullmatch(r'watcher_hints_total\{result="accepted",source="(\w+)",.*\}', name) for name in counts]
    return [name[1] for name in names if name and counts[name[0]]]


def test_what_is_no_balance_of_this_world_is_refused(balance_sandbox):
    with pytest.raises(SandboxError, match="not a balance of this world"):
        balance_sandbox.set("helius", chain="solana:x", account="nobody", token="none", amount="1")
    with pytest.raises(SandboxError, match="late"):
        balance_sandbox.use_faults("lat=0.5")
    with pytest.raises(ValueError, match="faults"):
        Sandbox(faults="nonsense")


def test_what_run_would_refuse_is_raised(tmp_path):
    with Sandbox() as sandbox, pytest.raises(SettingsError, match="nonsense"):
        RunningWatcher(sandbox.config(tmp_path, nonsense=1), sandbox.environment).__enter__()


def test_a_run_that_uses_none_of_it_imports_nothing_of_ours(tmp_path):
    """Each pytest run of an environment loads the plugin."""
    (tmp_path / "test_other.py").write_text(
        "import sys\n\ndef test_nothing():\n"
        "    assert sorted(n for n in sys.modules if n.split('.')[0] == 'watcher') == "
        "['watcher', 'watcher.testing', 'watcher.testing.pytest_plugin']\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=PATIENCE)
    assert ended.returncode == 0, ended.stdout
