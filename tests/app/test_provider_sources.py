"""What a config watches, with its labels and tags: names for people, which change nothing of what is asked."""

import msgspec
import pytest

from tests.polling import solana
from watcher.app import settings
from watcher.app.provider_sources import sources, unasked_providers, watch_index
from watcher.model.addresses import ETHEREUM, SOLANA, STARKNET
from watcher.model.keys import Key
from watcher.model.watches import WatchInfo
from watcher.runtime.config_section import SettingsError

WALLET, OTHER, MINT = solana(1), solana(2), solana(3)
EVM = "0x13116e8B4ffc8125b859ec60917fba540e59e55e"
FELT = "0x1"
PADDED = "0x" + "1".rjust(64, "0")
WATCHES = {
    "jupiter": [{"account": WALLET}, {"account": OTHER}],
    "bloxroute": [{"account": WALLET}, {"account": OTHER}],
    "helius": [{"account": WALLET, "token": MINT}, {"account": OTHER}],
    "ondo": [{"chain": "ethereum-1"}, {"chain": "ethereum-1", "account": EVM}],
    "tokenkit": [{"account": FELT, "token": "0x2"}, {"account": "0x3"}],
}
KEYS = {
    "jupiter": [Key("jupiter", SOLANA, WALLET, MINT), Key("jupiter", SOLANA, OTHER, "native")],
    "bloxroute": [
        Key("bloxroute", SOLANA, WALLET, MINT, "settled"),
        Key("bloxroute", SOLANA, OTHER, MINT, "unsettled"),
    ],
    "helius": [Key("helius", SOLANA, WALLET, MINT), Key("helius", SOLANA, OTHER, "unknown")],
    "ondo": [
        Key("ondo", ETHEREUM, "0x" + "5" * 40, "0x" + "6" * 40),
        Key("ondo", ETHEREUM, EVM.lower(), "0x" + "6" * 40),
    ],
    "tokenkit": [
        Key("tokenkit", STARKNET, PADDED, PADDED[:-1] + "2"),
        Key("tokenkit", STARKNET, PADDED[:-1] + "3", FELT),
    ],
}
"""A balance of the first and of the second watch."""


def config(watches, **table):
    return settings.parse(
        {"providers": {name: {"api_key_env": "K", **table, "watch": found} for name, found in watches.items()}}
    )


def named(kind, first, second):
    """Both watches of a provider with these names."""
    one, other = WATCHES[kind]
    return {kind: [{**one, **first}, {**other, **second}]}


def indexed(watches):
    return watch_index(source.provider for source in sources(config(watches), {"K": "canary-key"}))


@pytest.mark.parametrize("kind", WATCHES)
def test_a_watch_gives_its_names_to_the_balances_that_it_covers(kind):
    index = indexed(named(kind, {"label": "Hot", "tags": ["b", "a"]}, {"label": "Cold"}))
    inner = ("a", "b") if kind == "ondo" else ()  # the first is of the whole chain
    assert [index.info(key) for key in KEYS[kind]] == [
        WatchInfo(True, "Hot", ("a", "b")),
        WatchInfo(True, "Cold", inner),
    ]
    assert index.info(Key(kind, "elsewhere", WALLET, MINT)) == WatchInfo(watched=False)


@pytest.mark.parametrize("kind", WATCHES)
def test_watches_without_names_are_watched_all_the_same(kind):
    index = indexed({kind: WATCHES[kind]})
    assert [index.info(key) for key in KEYS[kind]] == [WatchInfo(watched=True)] * 2


def test_the_label_of_one_balance_goes_before_that_of_the_chain_that_is_read_instead():
    wide, narrow = WATCHES["ondo"]
    index = indexed({"ondo": [wide, {**narrow, "label": "Mine"}]})
    assert [index.info(key).label for key in KEYS["ondo"]] == [None, "Mine"]


def test_of_two_labels_for_the_very_same_watch_the_first_by_the_alphabet_counts():
    one = WATCHES["jupiter"][0]
    for labels in (["B", "A"], ["A", "B"]):
        index = indexed({"jupiter": [{**one, "label": label, "tags": [label]} for label in labels]})
        assert index.info(KEYS["jupiter"][0]) == WatchInfo(True, "A", ("A", "B"))


@pytest.mark.parametrize("kind", WATCHES)
def test_names_change_nothing_of_what_is_asked(kind):
    names = [({}, {}), ({"label": "Hot"}, {"tags": ["a"]})]
    plain, labelled = (sources(config(named(kind, *pair)), {"K": "canary-key"})[0].provider for pair in names)
    for attribute in ("groups", "limits", "cost", "settle", "min_interval", "max_balances"):
        assert getattr(plain, attribute) == getattr(labelled, attribute)
    lane = plain.groups[0].lanes[0]
    targets = plain.groups[0].targets[:1]
    requests = [msgspec.structs.replace(one.ask(lane, targets, 60.0), id=None, body=None) for one in (plain, labelled)]
    assert requests[0] == requests[1]


def test_a_relay_of_its_own_needs_no_key_to_know_what_is_watched():
    watches = named("jupiter", {"label": "Hot"}, {}) | named("helius", {"label": "Warm"}, {})
    index = watch_index(unasked_providers(config(watches)))
    assert [index.info(KEYS[kind][0]).label for kind in ("jupiter", "helius")] == ["Hot", "Warm"]
    assert not index.info(Key("nobody", SOLANA, WALLET, MINT)).watched
    assert watch_index(unasked_providers(config({}))).info(Key("nobody", SOLANA, WALLET, MINT)).watched


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"label": "a\x1b[2J"}, r"label: 'a\x1b[2J' is no plain text"),
        ({"label": "one\ntwo"}, "is no plain text"),
        ({"label": "\u202eevil"}, r"label: '\u202eevil' is no plain text"),
        ({"label": " outer "}, "is no plain text"),
        ({"label": ""}, "label: expected str of length >= 1"),
        ({"label": "x" * 65}, "label: expected str of length <= 64"),
        ({"tags": ["fine", "not\tfine"]}, "tags: 'not fine' is no plain text"),
        ({"tags": [f"t{number}" for number in range(17)]}, "tags: expected array of length <= 16"),
        ({"tags": "one"}, "tags: expected array, got str"),
        ({"labl": "x"}, "unknown key `labl` in [providers.jupiter.watch[1]]: did you mean `label`?"),
    ],
)
def test_a_name_that_is_no_plain_short_text_is_refused_with_its_place(names, said):
    with pytest.raises(SettingsError) as refused:
        config(named("jupiter", {}, names))
    assert said in str(refused.value)
    assert str(refused.value).isprintable()
    assert "providers.jupiter.watch" in str(refused.value)


def test_a_name_may_be_in_any_script():
    index = indexed(named("jupiter", {"label": "Trésorerie 財務 ☕"}, {}))
    assert index.info(KEYS["jupiter"][0]).label == "Trésorerie 財務 ☕"
