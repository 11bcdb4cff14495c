"""Both doors of the program: `run --only pollers` and `run` answer alike, and each token sees what is its own."""

import hashlib
import json
import urllib.request

import pytest

from tests.e2e.harness import get, until


def asked(port, path, token=None, **headers):
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize("half", [["--only", "pollers"], []])
def test_each_door_asks_for_tokens_and_a_token_of_one_provider_learns_nothing_of_another(house, half):
    sandbox = house.sandbox(limits="none")
    tables = {name: table for name, table in sandbox.providers().items() if name in ("jupiter", "helius")}
    account = tables["helius"]["watch"][0]["account"]
    tokens = house.folder / "tokens.toml"
    bound = {"all": "", "jupiter": 'provider = ["jupiter"]', "account": f'account = ["{account}"]'}
    tokens.write_text(
        "".join(
            f'[[token]]\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n{more}\n'
            for name, more in bound.items()
        )
    )
    tokens.chmod(0o600)
    relay = {"port": 0, "tokens_file": str(tokens)}
    daemon = house.run(house.config(tables, relay=relay, metrics_port=0), *half)
    port = daemon.port

    def polled():
        figures = asked(port, "/metrics", "all")[1]
        return all(f'watcher_polls_total{{provider="{name}"}}' in figures for name in tables)

    until(polled, "providers are polled")
    assert asked(port, "/healthz", Host="any.example")[0] == 200
    assert asked(port, "/metrics")[0] == 401
    assert json.loads(asked(port, "/readyz")[1])["providers"] in ("ok", "failing")
    assert set(json.loads(asked(port, "/readyz", "all")[1])["providers"]) == {"jupiter", "helius"}
    for token, theirs, others in (("jupiter", "jupiter", "helius"), ("account", "helius", "jupiter")):
        figures = asked(port, "/metrics", token)[1]
        assert f'watcher_polls_total{{provider="{theirs}"}}' in figures
        assert others not in figures
        assert "partition" not in figures
        assert set(json.loads(asked(port, "/readyz", token)[1])["providers"]) == {theirs}
    assert daemon.end()[0] == 0
    assert "Traceback" not in daemon.err


def test_without_tokens_the_second_door_answers_this_machine_alone(house):
    sandbox = house.sandbox()
    config = house.config(sandbox.providers(), metrics_port=0)
    daemon = house.run(config, "--only", "pollers")
    assert get(f"http://127.0.0.1:{daemon.port}/metrics")[0] == 200
    openmetrics = asked(daemon.port, "/metrics", Accept="application/openmetrics-text; version=1.0.0")[1]
    assert openmetrics.endswith("# EOF\n")
    (build,) = (line for line in openmetrics.splitlines() if line.startswith("watcher_build_info{"))
    assert 'journal="sqlite"' in build
    assert asked(daemon.port, "/metrics", Host="evil.example")[0] == 403
    assert asked(daemon.port, "/")[0] == 404
    assert daemon.end()[0] == 0
    public = house.config(sandbox.providers(), metrics_port=0, relay={"host": "0.0.0.0"}, name="public.toml")
    refused = house.finished("run", "-c", public, "--only", "pollers")
    assert (refused.status, "no tokens are set" in refused.err) == (2, True)
