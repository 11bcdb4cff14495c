"""The config file: the one sample loads, and every mistake is one line that says what to do."""

import os
import tomllib

import pytest

from tests.test_deployment import ROOT
from watcher.app import settings
from watcher.app.provider_sources import sources
from watcher.hints.settings import SolanaHints
from watcher.redaction.redactor import ALLOWED_WORDS, SECRETS
from watcher.runtime.config_section import SettingsError, SettingsErrors

HELIUS = {
    "type": "helius",
    "api_key_env": "HELIUS_API_KEY",
    "watch": [{"account": "3emsAVdmGKERbHjmGfQ6oZ1e35dkf5iYcS6U4CPKFVaa"}],
}


def helius(**more):
    return {"providers": {"helius": {**HELIUS, **more}}}


def test_the_documented_sample_loads_with_all_five_providers():
    loaded = settings.load(ROOT / "config" / "watcher.toml")
    assert {table.type for table in loaded.providers.values()} == {"jupiter", "bloxroute", "helius", "ondo", "tokenkit"}
    assert loaded.journal == "sqlite:///var/balances.db"


def commented(text, begin, end):
    """The part of the sample that is commented out between two of its lines, without the marks."""
    lines = text[text.index(begin) : text.index(end)].splitlines()
    return "\n".join(
        line.removeprefix("# ")
        for line in lines
        if line.startswith(("# [", "# type", "# url", "# secret", "# chain", "# max"))
    )


def test_the_sources_of_hints_that_the_sample_shows_are_right():
    text = (ROOT / "config" / "watcher.toml").read_text(encoding="utf-8")
    table = tomllib.loads(commented(text, "# [[hints]]", "# ── Alerts"))
    loaded = settings.parse(table)
    assert [source.source for source in loaded.hints] == ["solana", "ethereum", "starknet", "tokenkit"]
    assert loaded.hints[0] == SolanaHints(type="solana", url_env="SOLANA_WS_URL")


def test_the_type_defaults_to_the_tables_name():
    table = {key: value for key, value in HELIUS.items() if key != "type"}
    assert settings.parse({"providers": {"helius": table}}).providers["helius"].type == "helius"


def test_numbers_may_be_written_as_integers():
    loaded = settings.parse(helius(max_interval=60, limits=[{"requests": 10, "per": 1}]) | {"retention": 3600})
    assert loaded.providers["helius"].max_interval == 60.0
    assert loaded.retention == 3600.0


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"jurnal": "x"}, ["`jurnal`", "did you mean `journal`?"]),
        (helius(max_intervall=5), ["`max_intervall`", "[providers.helius]", "did you mean `max_interval`?"]),
        (
            helius(limits=[{"request": 1, "per": 1}]),
            ["`request`", "providers.helius.limits", "did you mean `requests`?"],
        ),
        (helius(watch=[{"acount": "x"}]), ["`acount`", "did you mean `account`?"]),
        (helius(api_key_env=5), ["providers.helius.api_key_env", "expected str"]),
        (helius(share=2), ["providers.helius.share", "<= 1"]),
        (helius(type="helios"), ["'helios'", "did you mean `helius`?"]),
        ({"providers": {"he/lius": HELIUS}}, ["letters, digits"]),
        ({"providers": {"helius": 5}}, ["[providers.helius]"]),
        ({"journal": "postgres://x"}, ["sqlite:///FILE"]),
        ({"journal": "sqlite:///"}, ["sqlite:///FILE"]),
        ({"encoding": "xml"}, ["json or msgpack"]),
        ({"retention": 0}, ["retention"]),
        ({"retention": "a week"}, ["retention", "expected float"]),
        ({"metrics_port": 99999}, ["metrics_port"]),
        ({"relay": 5}, ["relay", "expected object"]),
        ({"relay": {"origins": ["https://[desk"]}}, ["origins", "https://desk.example"]),
        ({"hints": {}}, ["hints", "[[hints]]"]),
        ({"hints": [{"type": "solan", "url_env": "URL"}]}, ["'solan'", "did you mean `solana`?"]),
        ({"hints": [{"type": "ethereum", "url_env": "URL", "chian": "x"}]}, ["`chian`", "did you mean `chain`?"]),
    ],
)
def test_a_mistake_is_one_line_that_names_it(table, says):
    with pytest.raises(SettingsError) as refused:
        settings.parse(table)
    text = str(refused.value)
    assert "\n" not in text
    for part in says:
        assert part in text


def test_all_mistakes_of_a_file_are_told_at_once_each_with_its_place():
    watches = [{"acount": "x"}, {"account": 5}]
    wrong = {
        "jurnal": "x",
        "retention": "a week",
        "encoding": "xml",
        "relay": {"prot": 5, "port": "8765"},
        "providers": {
            "helius": {**HELIUS, "share": 2, "timeout": "soon", "watch": watches},
            "helios": {},
            "ondo": {"max_intervall": 5},
        },
    }
    with pytest.raises(SettingsErrors) as refused:
        settings.parse(wrong)
    assert {error.where for error in refused.value.errors} == {
        "jurnal",
        "retention",
        "encoding",
        "relay.prot",
        "relay.port",
        "providers.helius.share",
        "providers.helius.timeout",
        "providers.helius.watch[0].acount",
        "providers.helius.watch[1].account",
        "providers.helios",
        "providers.ondo.max_intervall",
    }
    assert str(refused.value).splitlines() == [str(error) for error in refused.value.errors]


def test_all_providers_and_watches_that_are_wrong_are_told_at_once():
    account = HELIUS["watch"][0]["account"]
    tables = {
        "helius": {**HELIUS, "watch": [{"account": account}, {"account": "0x1"}, {}]},
        "second": {**HELIUS, "api_key_env": "MISSING", "base_url": "ftp://x?y"},
        "third": {**HELIUS, "limits": [{"requests": 1, "per": 1}], "cost": 2},
    }
    with pytest.raises(SettingsErrors) as refused:
        sources(settings.parse({"providers": tables}), {"HELIUS_API_KEY": "canary-of-settings"})
    told = str(refused.value).splitlines()
    for says in (
        "[providers.helius.watch[1]]: '0x1' is not a Solana address",
        "[providers.helius.watch[2]]: a watch lacks its account",
        "names MISSING, which is not set",
        "[providers.second]: base_url is no address",
        "[providers.second]: base_url is scheme, host and prefix",
        "[providers.third]: one call costs 2",
    ):
        assert sum(says in line for line in told) == 1, told
    assert len(told) == 6


def test_what_is_wrong_in_every_watch_is_the_tables_own_mistake():
    tables = {"helius": {**HELIUS, "base_url": "ftp://x", "watch": [HELIUS["watch"][0], {"account": "1" * 32}]}}
    with pytest.raises(SettingsError, match=r"^\[providers\.helius\]: base_url is no address[^\n]*$"):
        sources(settings.parse({"providers": tables}), {"HELIUS_API_KEY": "canary-of-settings"})


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"journal = ", "not valid TOML"),
        (b"\xff\xfe", "cannot be read"),
        (b"a = " + b"[" * 100_000, "not valid TOML"),
        (b"retention = 1" + b"0" * 5000, "not valid TOML"),
    ],
)
def test_a_file_that_is_not_toml_is_told_as_such(tmp_path, data, says):
    path = tmp_path / "watcher.toml"
    path.write_bytes(data)
    with pytest.raises(SettingsError, match=says):
        settings.load(path)


def test_a_missing_file_names_the_sample(tmp_path):
    with pytest.raises(SettingsError, match=r"config/watcher\.toml"):
        settings.load(tmp_path / "none.toml")


def test_a_token_that_is_called_like_the_service_does_not_withhold_our_own_messages(monkeypatch):
    for name, nothing in (("_secrets", []), ("_windows", frozenset()), ("_allowed", frozenset())):
        monkeypatch.setattr(SECRETS, name, nothing)
    SECRETS.allow(ALLOWED_WORDS)
    SECRETS.add(["balance-watcher-canary", "acme-balances-canary", "ondo-primary-canary"])
    settings.parse({"journal": "sqlite:////srv/acme-balances/b.db", "providers": {"ondo-primary": {"type": "ondo"}}})
    for line in (
        "there is no folder /srv/acme-balances: make it",
        "look at the rights of /var/lib/balance-watcher/",
        "[providers.ondo-primary]: ondo-primary did not answer",
    ):
        assert SECRETS.scrubbed(line) == line
    for text in ("watcher-canary", "balances-canary", "primary-canary", "acme-balances-c"):
        assert SECRETS.leaks(text)


def test_a_pipe_is_not_waited_at_in_a_reload(tmp_path):
    os.mkfifo(tmp_path / "config")
    with pytest.raises(SettingsError, match="is a pipe"):
        settings.load_again(tmp_path / "config")


@pytest.mark.parametrize("url", ["http://[::1", "http://", "http://desk\0", "http://desk:99999", "ftp://desk"])
def test_an_address_that_no_client_could_ask_is_a_mistake(url):
    config = settings.parse(helius(base_url=url, api_key_env="K", watch=[{"account": "4" * 44, "token": "4" * 44}]))
    with pytest.raises(SettingsError, match="base_url is no address"):
        sources(config, {"K": "canary-of-settings"})
