"""The `[[hints]]` tables: every mistake is one line that says what to do, and no address is ever shown."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from watcher.hints.settings import (
    EthereumHints,
    HintTable,
    SolanaHints,
    StarknetHints,
    TokenkitHints,
    parse,
    secret_of,
    unfit_url,
)
from watcher.redaction.redactor import SECRETS
from watcher.runtime.config_section import SettingsError

SOLANA = {"type": "solana", "url_env": "SOLANA_URL"}
KEY = "canary-7f3e1c9a-5b62-4d80"
URL = f"wss://public.host.invalid/v2/path?api-key={KEY}"


def test_each_type_has_its_own_keys_and_defaults():
    solana, ethereum, starknet, tokenkit = parse(
        [
            SOLANA,
            {"type": "ethereum", "url_file": "/run/eth", "chain": "bsc-56", "name": "bnb"},
            {"type": "starknet", "url_env": "STARKNET_URL"},
            {"type": "tokenkit", "secret_env": "HOOK"},
        ]
    )
    assert solana == SolanaHints(type="solana", url_env="SOLANA_URL", max_subscriptions=1000)
    assert ethereum == EthereumHints(type="ethereum", url_file="/run/eth", chain="eip155:56", name="bnb")
    assert starknet == StarknetHints(type="starknet", url_env="STARKNET_URL")
    assert tokenkit == TokenkitHints(type="tokenkit", secret_env="HOOK")
    assert [one.source for one in (solana, ethereum, starknet, tokenkit)] == ["solana", "bnb", "starknet", "tokenkit"]


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"type": "solana"}, ["write [[hints]]"]),
        ([5], ["`hints[0]`", "write [[hints]]"]),
        ([{"url_env": "X"}], ["lacks its type", "one of solana, ethereum, starknet, tokenkit"]),
        ([{"type": "solona", "url_env": "X"}], ["'solona'", "did you mean `solana`?"]),
        ([{"type": ["solana"], "url_env": "X"}], ["no type"]),
        ([SOLANA | {"url_emv": "X"}], ["`url_emv`", "did you mean `url_env`?"]),
        ([SOLANA | {"url": "wss://x"}], ["unknown key `url`", "did you mean `url_env`?"]),
        ([SOLANA | {"chain": "eip155:1"}], ["unknown key `chain`"]),
        ([{"type": "solana"}], ["[hints[0]]", "url_env or url_file"]),
        ([SOLANA | {"url_file": "y"}], ["both given: keep one"]),
        ([{"type": "tokenkit", "secret_env": "X", "secret_file": "y"}], ["both given: keep one"]),
        ([{"type": "tokenkit"}], ["secret_env or secret_file"]),
        ([SOLANA | {"max_subscriptions": 0}], ["hints[0].max_subscriptions", ">= 1"]),
        ([SOLANA | {"name": "a b"}], ["name", "letters, digits"]),
        ([SOLANA | {"name": ""}], ["name", "letters, digits"]),
        ([SOLANA | {"name": "http"}], ["'http'", "write another"]),
        ([{"type": "ethereum", "url_env": "X", "chain": "mainnet"}], ["chain", "eip155:1"]),
        ([{"type": "ethereum", "url_env": "X", "chain": "solana-900"}], ["no EVM chain", "eip155:1"]),
        ([SOLANA, SOLANA], ["two sources are called solana", 'name = "…"']),
        ([SOLANA, {"type": "starknet", "url_env": "X", "name": "solana"}], ["two sources are called solana"]),
    ],
)
def test_a_mistake_is_told_with_what_to_do(tables, says):
    with pytest.raises(SettingsError) as caught:
        parse(tables)
    assert all(part in str(caught.value) for part in says), str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_types_that_there_are_stand_once_in_what_a_wrong_one_is_answered():
    with pytest.raises(SettingsError, match=r"one of solana, ethereum, starknet, tokenkit$"):
        parse([{"type": "helius", "url_env": "X"}])


def test_all_mistakes_are_told_at_once():
    with pytest.raises(SettingsError) as caught:
        parse([{"type": "solana", "name": "/"}, {"type": "nothing"}])
    assert len(caught.value.errors) == 3


def test_two_of_a_type_are_told_apart_by_name():
    one, two = parse([SOLANA, SOLANA | {"name": "second"}])
    assert (one.source, two.source) == ("solana", "second")


def test_a_table_that_stays_the_same_is_equal_so_that_a_reload_sees_it():
    assert parse([SOLANA]) == parse([dict(SOLANA)])
    assert hash(parse([SOLANA])) == hash(parse([SOLANA]))
    assert parse([SOLANA]) != parse([SOLANA | {"max_subscriptions": 5}])


def test_the_address_comes_from_a_variable_or_a_file(tmp_path):
    (tmp_path / "url").write_text(f"{URL}\n")
    (by_env,) = parse([SOLANA])
    (by_file,) = parse([{"type": "starknet", "url_file": str(tmp_path / "url")}])
    assert secret_of(by_env, {"SOLANA_URL": URL}).reveal() == URL
    assert secret_of(by_file, {}).reveal() == URL


def test_the_webhooks_secret_may_be_anything():
    (table,) = parse([{"type": "tokenkit", "secret_env": "HOOK"}])
    assert secret_of(table, {"HOOK": "canary-hook secret"}).reveal() == "canary-hook secret"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://mainnet.node.example/canary-key", "with wss://"),
        ("mainnet.node.example/canary-key", "with wss://"),
        ("wss:///canary-key", "its host"),
        ("wss://[::1/canary-key", "no address of a websocket"),
        ("wss://node.example:99999/canary-key", "no address of a websocket"),
        (f"wss://{'a' * 64}.example/canary-key", "no address of a websocket"),
        ("wss://node.example:0/canary-key", "no address of a websocket"),
        ("wss://node.example/#canary-key", "leave that out"),
        ("wss://canary-key@node.example/", "user without a password"),
        ("wss://node.example/canary key", "has a space"),
        ("wss://us%FFer:canary-key@node.example/", "no address of a websocket"),
    ],
)
def test_what_is_no_address_is_refused_without_being_shown(url, says):
    (table,) = parse([SOLANA])
    with pytest.raises(SettingsError) as caught:
        secret_of(table, {"SOLANA_URL": url})
    assert says in str(caught.value)
    assert "[[hints]] solana: url_env names SOLANA_URL" in str(caught.value)
    assert "canary" not in str(caught.value)
    assert "node.example" not in str(caught.value)
    assert SECRETS.leaks(f"it said {url}")


def test_a_variable_that_is_not_set_is_named():
    (table,) = parse([SOLANA])
    with pytest.raises(SettingsError, match=r"url_env names SOLANA_URL, which is not set: export SOLANA_URL=…"):
        secret_of(table, {})


def test_the_key_in_an_address_is_hidden_and_its_host_is_not():
    (table,) = parse([SOLANA])
    url = secret_of(table, {"SOLANA_URL": URL})
    assert URL not in f"{url} {url!r}"
    assert SECRETS.leaks(f"refused: {KEY}")
    assert SECRETS.leaks(f"refused: …{KEY[5:20]}…")
    for public in ("cannot reach https://public.host.invalid/balances", "api-key=", "source solana is away"):
        assert not SECRETS.leaks(public)


@pytest.mark.parametrize(
    "query", ["Zk8wqLmRtYpXvBnC", "Zk8wqLmRtYpXvBnC=", "ZkwqLmRtYpXvBnCZ==", "a=Zk8wqLmR&ZkwqLmRtYpXvBnCZ="]
)
def test_a_key_that_stands_where_a_parameters_name_belongs_is_hidden(query):
    (table,) = parse([SOLANA])
    secret_of(table, {"SOLANA_URL": f"wss://node.example/?{query}"})
    assert SECRETS.leaks(query)
    assert SECRETS.leaks(query.rpartition("&")[2])


@given(st.one_of(st.text(), st.text(alphabet="ws:/[]@#?%é.1a\\").map("wss://".__add__)))
def test_what_passes_is_an_address_that_the_library_takes(text):
    if unfit_url(text) is None:
        try:
            parse_uri(text)
        except (InvalidURI, ValueError) as error:
            pytest.fail(f"{text!r}: {error}")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["type", "name", "url_env", "chain", "x"]), inner)
        ),
        max_leaves=10,
    )
)
def test_whatever_stands_there_is_read_or_refused_in_words(value):
    with contextlib.suppress(SettingsError):
        assert all(isinstance(one, HintTable) for one in parse(value))
