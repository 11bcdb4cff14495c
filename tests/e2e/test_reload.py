"""SIGHUP: what was changed in the config and its files holds from then on, without a restart."""

import re
import signal

from tests.e2e import checker
from tests.e2e.harness import VALID_KEY, at_rest, denied, get, settle, until

WRONG = "canary-wrong-key"


def test_a_refused_key_is_mended_in_its_file_and_read_again_at_sighup(house):
    sandbox = house.sandbox(rate=20.0)
    key = house.folder / "ondo.key"
    key.write_text(f"{WRONG}\n")
    tables = sandbox.providers()
    tables["ondo"] = {name: value for name, value in tables["ondo"].items() if name != "api_key_env"}
    tables["ondo"]["api_key_file"] = str(key)
    daemon = house.run(house.config(tables))
    daemon.until_told("provider.refused", provider="ondo")
    at_rest(daemon, "ondo")
    before = denied(sandbox, "ondo")

    key.write_text(f"{VALID_KEY}\n")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until_told("provider.recovered", provider="ondo")
    answered = lambda: sandbox.report(history=False)["providers"]["ondo"]["answers"].get("200", 0) > 20  # noqa: E731
    until(answered, "ondo is polled again")
    assert denied(sandbox, "ondo") == before

    key.unlink()
    daemon.process.send_signal(signal.SIGHUP)
    assert "cannot be read" in daemon.until_told("config.reloaded", result="refused")["reason"]
    assert daemon.end()[0] == 0
    assert WRONG not in daemon.err


def figure(port, name):
    text = get(f"http://127.0.0.1:{port}/metrics")[1].decode()
    return float(re.search(rf"^{re.escape(name)} (.*)$", text, re.MULTILINE)[1])


def test_a_file_that_is_edited_under_load_is_applied_by_difference_and_a_torn_one_is_refused(house):
    sandbox = house.sandbox(rate=100.0)
    tables = sandbox.providers()
    config = house.config(tables)
    daemon = house.run(config)
    follower = house.follower(daemon.port)
    until(lambda: len(follower.events) >= 50, "changes are told")
    started = figure(daemon.port, "watcher_config_last_success_timestamp_seconds")

    helius, gone = tables["helius"]["watch"], tables.pop("bloxroute")
    kept, tables["helius"]["watch"] = helius, helius[: len(helius) // 2]
    house.config(tables)
    daemon.process.send_signal(signal.SIGHUP)
    line = daemon.until_told("config.reloaded", result="applied")
    assert (line["removed"], line["changed"]) == (["bloxroute"], ["helius"])
    assert line["watches_removed"] == {"bloxroute": len(gone["watch"]), "helius": len(kept) - len(kept) // 2}
    assert figure(daemon.port, "watcher_config_last_success_timestamp_seconds") > started

    whole = config.read_bytes()
    for torn in (whole[: len(whole) // 3], b"", None):
        config.unlink()
        if torn is not None:
            config.write_bytes(torn)
        before = figure(daemon.port, refused := 'watcher_config_reloads_total{result="refused"}')
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda before=before: figure(daemon.port, refused) > before, "it is refused")
    assert daemon.status is None

    tables["helius"]["watch"], tables["bloxroute"] = kept, gone
    house.config(tables)
    for _ in range(100):
        daemon.process.send_signal(signal.SIGHUP)
    daemon.until_told("config.reloaded", result="applied", added=["bloxroute"])
    until(lambda: any(e["provider"] == "bloxroute" for e in follower.events[-200:]), "it is polled again")
    report, states = settle(sandbox, daemon.port)
    told = sum(state["version"] for state in states)
    until(lambda: told <= len(follower.events), "all is told")
    assert checker.broken_laws(follower.events, states) == []
    assert checker.false_changes(follower.events, checker.truths(report)) == []
    assert checker.refusals(report) == {}
    assert daemon.end()[0] == 0
