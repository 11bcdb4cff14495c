"""Filters: what is written, what is shown, what matches, and the index that finds subscribers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.model import filters
from watcher.model.addresses import SOLANA
from watcher.model.filters import FilterMatcher
from watcher.model.keys import Filter, Key, Scope
from watcher.model.watches import Watched, WatchIndex
from watcher.relay import subscription
from watcher.relay.http.auth import TokenTable
from watcher.relay.subscription import SubscriptionIndex

EVM = "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2"
FELT = "0x" + EVM[2:].rjust(64, "0")
NAMES = st.sampled_from(["a", "b", "c", EVM, FELT, "0x1"])
FILTERS = st.builds(
    Filter,
    **{name: st.none() | st.frozensets(NAMES, min_size=1).map(lambda v: tuple(sorted(v))) for name in filters.FIELDS},
)
KEYS = st.builds(Key, provider=NAMES, chain=NAMES, account=NAMES, token=NAMES)


def key(provider="p", chain="c", account="a", token="t"):
    return Key(provider, chain, account, token)


def test_40_digits_match_the_evm_address_and_the_same_number_as_a_felt():
    matcher = FilterMatcher.of(filters.parse({"account": [EVM.upper().replace("0X", "0x")]}))
    assert matcher.matches(key(account=EVM))
    assert matcher.matches(key(account=FELT))
    assert not matcher.matches(key(account="0x" + "1" * 40))


def test_a_felt_of_64_digits_is_no_evm_address():
    matcher = FilterMatcher.of(filters.parse({"account": [FELT]}))
    assert matcher.matches(key(account=FELT))
    assert not matcher.matches(key(account=EVM))


def test_providers_and_chains_are_taken_as_they_stand():
    assert filters.parse({"provider": ["0x1"], "chain": ["0x1"]}) == Filter(provider=("0x1",), chain=("0x1",))


def test_and_over_fields_or_within():
    matcher = FilterMatcher.of(filters.parse({"account": ["a", "b"], "token": ["t"]}))
    assert matcher.matches(key(account="b"))
    assert not matcher.matches(key(account="b", token="u"))


@pytest.mark.parametrize(
    ("asked", "allowed", "both"),
    [
        ({}, {}, {}),
        ({"account": ["a"]}, {}, {"account": ["a"]}),
        ({}, {"account": ["a"]}, {"account": ["a"]}),
        ({"account": ["a", "b"]}, {"account": ["b", "c"]}, {"account": ["b"]}),
        ({"account": ["a"]}, {"account": ["b"]}, None),
        ({"account": [EVM]}, {"account": [FELT]}, {"account": [FELT]}),
        ({"account": [FELT]}, {"account": [EVM]}, {"account": [FELT]}),
        ({"account": [EVM]}, {"account": [EVM]}, {"account": [EVM]}),
    ],
)
def test_rights_and_filter_intersect(asked, allowed, both):
    found = filters.intersect(filters.parse(asked), filters.parse(allowed))
    assert found == (None if both is None else filters.parse(both))


@given(FILTERS, FILTERS, KEYS)
def test_an_intersection_matches_exactly_what_both_match(one, other, where):
    both = filters.intersect(one, other)
    found = both is not None and FilterMatcher.of(both).matches(where)
    assert found == (FilterMatcher.of(one).matches(where) and FilterMatcher.of(other).matches(where))


@given(st.lists(st.tuples(FILTERS, st.booleans()), max_size=12), st.lists(KEYS, min_size=1, max_size=6))
def test_the_index_finds_what_a_scan_finds_whatever_came_and_went(steps, keys):
    index = SubscriptionIndex(sorted)
    held = {}
    for number, (wanted, stays) in enumerate(steps):
        matcher = held[number] = FilterMatcher.of(wanted)
        index.add(number, matcher)
        for where in keys:
            assert index.find(where) == [n for n, m in held.items() if m.matches(where)]
        if not stays:
            del held[number]
            index.remove(number)
            index.remove(number)
    for where in keys:
        assert index.find(where) == [n for n, m in held.items() if m.matches(where)]


def test_the_index_forgets_before_it_grows_without_bound(monkeypatch):
    monkeypatch.setattr(subscription, "REMEMBERED", 10)
    index = SubscriptionIndex(tuple)
    index.add("x", FilterMatcher.of(Filter()))
    for n in range(100):
        assert index.find(key(account=str(n))) == ("x",)
    assert len(index._known) <= 10


LABELLED = WatchIndex(
    [
        Watched(Scope("a"), tags=("a", "0x1")),
        Watched(Scope("a", account=EVM), "b", ("c",)),
        Watched(Scope("b"), "a", ("b", "c")),
        Watched(Scope("c", token=FELT), "c"),
    ]
)


@given(st.lists(st.tuples(FILTERS, st.booleans()), max_size=12), st.lists(KEYS, min_size=1, max_size=6))
def test_the_index_finds_what_a_scan_finds_by_labels_and_tags_too_each_once(steps, keys):
    index = SubscriptionIndex(sorted, lambda: LABELLED)
    held = {}
    for number, (wanted, stays) in enumerate(steps):
        matcher = held[number] = FilterMatcher.of(wanted, LABELLED)
        index.add(number, matcher)
        for where in keys:
            assert index.find(where) == [n for n, m in held.items() if m.matches(where)]
        if not stays:
            del held[number]
            index.remove(number)
    for where in keys:
        assert index.find(where) == [n for n, m in held.items() if m.matches(where)]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("ethereum-1", "eip155:1"),
        ("bsc-56", "eip155:56"),
        ("solana-900", SOLANA),
        ("eip155:1", "eip155:1"),
    ],
)
def test_a_chain_is_taken_as_the_config_takes_it_in_filters_and_in_rights(written, kept):
    asked = filters.parse({"chain": [written, kept]})
    assert asked == Filter(chain=(kept,))
    assert filters.intersect(asked, TokenTable("0" * 64, chain=[written]).rights()) == asked


def test_what_is_no_chain_may_be_looked_for_and_binds_no_token():
    assert filters.parse({"chain": ["no chain at all"]}) == Filter(chain=("no chain at all",))
    with pytest.raises(filters.FilterError, match="is not a chain: write a CAIP-2 id"):
        TokenTable("0" * 64, chain=["no chain at all"]).rights()


def test_a_token_is_bound_to_parts_of_keys_and_not_to_names_which_the_config_changes():
    with pytest.raises(TypeError):
        TokenTable("0" * 64, label=["Hot"])
