"""SIGHUP: a key that was changed in its file is used from then on, without a restart."""

import signal

from tests.e2e.harness import VALID_KEY, at_rest, denied, until

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
    daemon.until_told("key.unreadable", provider="ondo")
    assert daemon.end()[0] == 0
    assert WRONG not in daemon.err
