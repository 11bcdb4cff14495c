"""A key that goes in comes out nowhere: no log, no output, no metric, no page, no process list."""

from pathlib import Path

from tests.e2e.front import RIGHT, WRONG, before, front
from tests.e2e.harness import balances, get, until
from watcher.redaction.redactor import WITHHELD
from watcher.sandbox.world import VALID_KEY

KEYS = {"RIGHT_KEY": RIGHT, "WRONG_KEY": WRONG}


def test_no_key_is_ever_shown(house):
    sandbox = house.sandbox(rate=50.0, limits="none")
    tables = {name: {**table, "api_key_env": "RIGHT_KEY"} for name, table in sandbox.providers().items()}
    slow = {name: {**table, "limits": [{"requests": 5, "per": 2.0}]} for name, table in tables.items()}
    with front(sandbox) as server:
        right = {
            **before(tables, server, "fine"),
            **before(slow, server, "echo"),
            **before(slow, server, "html"),
            **before(slow, server, "disguise"),
            **before({name: tables[name] for name in ("bloxroute", "ondo")}, server, "named"),
        }
        refused = {
            f"refused-{name}": {**table, "api_key_env": "WRONG_KEY"}
            for name, table in before(slow, server, "echo").items()
        }
        dead = {"dead": {**right["fine-helius"], "base_url": "http://127.0.0.1:9"}}
        config = house.config({**right, **refused, **dead})
        daemon = house.run(config, env=KEYS)
        tail = house.watcher("tail", f"ws://127.0.0.1:{daemon.port}/v1/stream", env=KEYS)
        for name in [*refused, *dead, *(name for name in right if not name.startswith(("fine", "named")))]:
            daemon.until_told("poll.failed", provider=name)
        until(lambda: tail.out.count("\n") > 20, "changes are told")
        until(lambda: "named-ondo  " in tail.out, "a symbol that holds a key is told")
        pages = [get(f"http://127.0.0.1:{daemon.port}{path}")[1].decode() for path in ("/", "/metrics", "/readyz")]
        shown = [*pages, str(balances(daemon.port)), *map(command_line, (daemon, tail))]
        assert (daemon.end()[0], tail.end()[0]) == (0, 0)
        # Beside the daemon, which uses all that the limits allow, it would wait for minutes.
        check = house.finished("check", "-c", config, env=KEYS)
        assert check.status == 78, check.err
    shown += [text for process in (daemon, tail, check) for text in (process.out, process.err)]
    assert all(shown[:4])
    disguised = [line["reason"] for line in daemon.logged if line.get("provider", "").startswith("disguise")]
    assert len(disguised) >= 5
    assert all(WITHHELD in reason for reason in disguised)
    assert WITHHELD[:20] in tail.out
    lines = [line for text in (tail.out, check.out, check.err, *pages[1:]) for line in text.split("\n")]
    assert [line for line in lines if not line.isprintable()] == []
    for text in shown:
        for key in (RIGHT, WRONG):
            assert not any(key[i : i + 8] in text for i in range(len(key) - 7)), text[
                max(0, text.find(key) - 300) : text.find(key) + 100
            ]


def test_run_and_check_say_once_each_what_others_can_read(house):
    sandbox = house.sandbox()
    key = house.folder / "key"
    key.write_text(VALID_KEY)
    key.chmod(0o644)
    helius = {**sandbox.providers()["helius"], "api_key_file": str(key)}
    del helius["api_key_env"]
    config = house.config({"helius": helius})
    daemon = house.run(config)
    check = house.finished("check", "-c", config)
    assert daemon.end()[0] == 0
    assert [line["text"].split(" (")[0] for line in daemon.logged if line["event"] == "config.exposed"] == [
        f"[providers.helius] api_key_file: {key} can be read by its group and everyone"
    ]
    assert check.status == 0, check.err
    assert (
        check.out.count(f"warning: [providers.helius] api_key_file: {key} can be read by its group and everyone") == 1
    )


def command_line(process):
    return Path(f"/proc/{process.process.pid}/cmdline").read_text()
