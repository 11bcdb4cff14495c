"""Every mistake of a user is one clear line that says what to do, with its own status and no traceback."""

import os
import re
import socket
import sqlite3

import pytest

from tests.e2e.harness import KEY, one_clear_line, until
from tests.kafka_broker import free_port

KEYLESS = {KEY: ""}
HELIUS = {
    "type": "helius",
    "base_url": "http://127.0.0.1:9",
    "api_key_env": KEY,
    "watch": [{"account": "3emsAVdmGKERbHjmGfQ6oZ1e35dkf5iYcS6U4CPKFVaa"}],
}


def refused(house, status, *says, command=("run",), env=None, providers=None, **config):
    path = house.config(providers or {"helius": HELIUS}, **config)
    process = house.finished(*command, "-c", path, env=env)
    one_clear_line(process, status, *says)
    assert process.out == ""
    return process


@pytest.fixture(scope="module", autouse=True)
def nobody_there(shared):
    """A daemon that looks for a broker where none is. It may take its 30 s while the other tests run."""
    config = shared.config({"helius": HELIUS}, journal=f"kafka://127.0.0.1:{free_port()}")
    return shared.watcher("run", "-c", config)


def test_an_unknown_key_is_named_with_the_nearest_right_one(house):
    refused(house, 2, "`max_intervall`", "`max_interval`", providers={"helius": {**HELIUS, "max_intervall": 5}})


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_secret_is_named_with_what_to_export(house, value):
    env = {"OTHER_KEY": value} if value is not None else {}
    os.environ.pop("OTHER_KEY", None)
    refused(house, 2, "OTHER_KEY", "export", env=env, providers={"helius": {**HELIUS, "api_key_env": "OTHER_KEY"}})


def test_a_key_that_no_header_can_carry_is_named_and_not_told(house):
    table = {"helius": {**HELIUS, "api_key_env": "OTHER_KEY"}}
    refused(house, 2, "OTHER_KEY", "U+2019", env={"OTHER_KEY": "canary-9f0c3b77\u2019"}, providers=table)


def test_an_empty_key_file_is_named(house):
    path = house.folder / "key"
    path.write_text("\n")
    table = {name: value for name, value in HELIUS.items() if name != "api_key_env"}
    refused(house, 2, str(path), providers={"helius": {**table, "api_key_file": str(path)}})


def test_a_provider_without_a_key_is_told_where_to_name_it(house):
    table = {name: value for name, value in HELIUS.items() if name != "api_key_env"}
    refused(house, 2, "api_key_env", providers={"helius": table})


@pytest.mark.parametrize(
    ("kind", "watch", "says"),
    [
        (
            "helius",
            {"account": "0xa0bdf680ff4b848353630a1999c5cb17c69e0137"},
            "0xa0bdf680ff4b848353630a1999c5cb17c69e0137",
        ),
        ("jupiter", {"account": "not an address"}, "not an address"),
        ("ondo", {"chain": "ethereum-1", "account": HELIUS["watch"][0]["account"]}, HELIUS["watch"][0]["account"]),
        ("tokenkit", {"account": "0x" + "f" * 64}, "f" * 64),
    ],
)
def test_an_address_of_another_chain_is_named(house, kind, watch, says):
    refused(house, 2, says, f"providers.{kind}", providers={kind: {**HELIUS, "type": kind, "watch": [watch]}})


def test_a_file_that_is_not_there_is_named_with_the_sample(house):
    one_clear_line(house.finished("run", "-c", house.folder / "none.toml"), 2, "none.toml", "config/watcher.toml")


def test_a_config_without_providers_says_what_to_add(house):
    path = house.folder / "empty.toml"
    path.write_text("")
    one_clear_line(house.finished("run", "-c", path), 2, "[providers.NAME]")


def test_a_public_relay_needs_tokens(house):
    refused(house, 2, "tokens", relay={"host": "0.0.0.0", "port": 0})


def test_a_taken_port_is_named(house):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(house, 69, str(port), relay={"port": port})
        one_clear_line(house.finished("sandbox", "--port", port), 69, str(port))


def test_a_database_in_a_place_that_is_no_folder_is_named(house):
    (house.folder / "file").write_text("")
    refused(house, 69, f"{house.folder}/file", journal=f"sqlite:///{house.folder}/file/balances.db")


def test_a_folder_in_place_of_the_database_is_named(house):
    (house.folder / "taken.db").mkdir()
    refused(house, 69, "taken.db", journal=f"sqlite:///{house.folder}/taken.db")


@pytest.mark.parametrize("command", [("run",), ("init",)])
def test_a_file_that_is_no_database_is_named_and_left_as_it_is(house, command):
    path = house.folder / "foreign.db"
    path.write_bytes(b"no database " * 1000)
    process = house.finished(*command, "-c", house.config({"helius": HELIUS}, journal=f"sqlite:///{path}"))
    one_clear_line(process, process.status, "foreign.db")
    assert process.status in (2, 69)
    assert path.read_bytes() == b"no database " * 1000


def test_a_database_of_somebody_else_is_named(house):
    path = house.folder / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE event (something TEXT)")
    other.close()
    refused(house, 2, "other.db", journal=f"sqlite:///{path}")


@pytest.mark.kafka
def test_missing_topics_name_the_command_that_creates_them(house, kafka, prefix):
    refused(house, 2, "watcher init", journal=f"kafka://{kafka.address}", kafka={"topic_prefix": prefix})


def test_an_unknown_command_and_no_command_show_the_usage(house):
    for arguments in (["frobnicate"], ["--help-me"]):
        process = house.finished(*arguments)
        assert process.status == 2
        assert process.err.startswith("usage: watcher")
        assert len(process.err.splitlines()) <= 3


@pytest.mark.parametrize(
    "option",
    [
        ("--faults", "nonsense"),
        ("--limits", "helius=fast"),
        ("--rate", "-1"),
        ("--port", "99999"),
        ("--webhook", "nowhere"),
        ("--webhook", "http://127.0.0.1:1/"),
        ("--webhook-secret-env", "HOME"),
        ("--webhook-secret-env", "NOBODY_SET_THIS", "--webhook", "http://127.0.0.1:1/"),
    ],
)
def test_a_sandbox_option_that_cannot_be_is_named(house, option):
    one_clear_line(house.finished("sandbox", *option), 2, "NOBODY_SET_THIS" if len(option) > 2 else option[0])


@pytest.mark.parametrize("value", ["0", "soon", "nan", "-1"])
def test_a_demo_of_no_duration_is_refused(house, value):
    process = house.finished("demo", f"--seconds={value}")
    assert process.status == 2
    assert "--seconds" in process.err.splitlines()[-1]
    assert "Traceback" not in process.err


def test_a_tail_without_a_relay_says_that_none_is_there(house):
    process = house.finished("tail", f"ws://127.0.0.1:{free_port()}/v1/stream")
    one_clear_line(process, 69, "watcher run")


@pytest.mark.parametrize(
    "url", ["relay", "http://127.0.0.1:8765/", "ws://", "ws://h:99999/", "ws://[::1/", "ws://h:1/#x", "ws://a..b/"]
)
def test_a_tail_of_something_that_is_no_address_says_how_one_looks(house, url):
    one_clear_line(house.finished("tail", url), 2, "ws://")


def test_a_tail_whose_token_is_wrong_is_told_so(house):
    sandbox = house.sandbox()
    tokens = {"RELAY_TOKENS": "right-token", "MINE": "wrong-token"}
    config = house.config(sandbox.providers(), relay={"port": 0, "tokens_env": "RELAY_TOKENS"})
    url = f"ws://127.0.0.1:{house.run(config, env=tokens).port}/v1/stream"
    one_clear_line(house.finished("tail", url, "--token-env", "MINE", env=tokens), 78, "token")
    one_clear_line(house.finished("tail", url, "--token-env", "NONE"), 2, "NONE")
    right = house.watcher("tail", url, "--token-env", "RELAY_TOKENS", env=tokens)
    until(lambda: right.out or right.status is not None, "the right token follows")
    assert right.status is None
    one_clear_line(
        house.finished("tail", url, "--token-env", "RELAY_TOKENS", "--since", "junk", env=tokens), 2, "cursor"
    )


def test_a_broker_that_is_not_there_ends_it_after_a_while(nobody_there):
    nobody_there.wait()
    one_clear_line(nobody_there, 69, "127.0.0.1")
    assert re.search(r"kafka|broker", nobody_there.err, re.IGNORECASE)
