"""What the watches of a config say of a key: the index against a scan of all of them."""

from hypothesis import example, given
from hypothesis import strategies as st

from watcher.model.filters import FilterMatcher, asked_of_journal, expand, may_match
from watcher.model.keys import Filter, Key, Scope
from watcher.model.watches import NOT_KNOWN, Watched, WatchIndex, WatchInfo

EVM = "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2"
FELT = "0x" + EVM[2:].rjust(64, "0")
PARTS = st.sampled_from(["a", EVM, FELT])
NAMES = st.sampled_from(["x", "y", "z"])
SCOPES = st.builds(
    Scope,
    provider=st.sampled_from(["p", "p", "q"]),
    chain=st.none() | PARTS,
    account=st.none() | PARTS,
    token=st.none() | PARTS,
)
WATCHES = st.lists(
    st.builds(Watched, scope=SCOPES, label=st.none() | NAMES, tags=st.lists(NAMES, max_size=2).map(tuple)), max_size=8
)
KEYS = st.builds(Key, provider=st.sampled_from(["p", "p", "p", "q", "r"]), chain=PARTS, account=PARTS, token=PARTS)


def some(values):
    return st.none() | st.frozensets(values, min_size=1, max_size=2).map(lambda found: tuple(sorted(found)))


FILTERS = st.builds(
    Filter,
    provider=some(st.sampled_from(["p", "q", "r"])),
    chain=some(PARTS),
    account=some(PARTS),
    token=some(PARTS),
    label=some(NAMES),
    tag=some(NAMES),
)


def scanned(watches, key):
    """The definition in the plainest words."""
    covering = [watch for watch in watches if watch.scope.covers(key)]
    if not covering:
        return WatchInfo(watched=False)

    def telling(watch):
        scope = watch.scope
        named = [part is not None for part in (scope.chain, scope.account, scope.token)]
        return (-sum(named), scope.account is None, scope.token is None, watch.label)

    labelled = sorted((watch for watch in covering if watch.label is not None), key=telling)
    tags = sorted({tag for watch in covering for tag in watch.tags})
    return WatchInfo(True, labelled[0].label if labelled else None, tuple(tags))


@given(WATCHES, KEYS)
@example([Watched(Scope("p", token="a"), "x"), Watched(Scope("p", account="a"), "y")], Key("p", "a", "a", "a"))
@example([Watched(Scope("p", "a", token="a"), "x"), Watched(Scope("p", account="a"), "y")], Key("p", "a", "a", "a"))
@example([Watched(Scope("p", "a"), "x"), Watched(Scope("p", "a", "a", "a"), tags=("y",))], Key("p", "a", "a", "a"))
def test_a_key_has_the_label_of_the_watch_that_says_most_of_it_and_the_tags_of_all(watches, key):
    assert WatchIndex(watches).info(key) == scanned(watches, key)


@given(WATCHES, st.randoms(use_true_random=False), KEYS)
def test_the_order_of_the_watches_says_nothing(watches, random, key):
    other = list(watches)
    random.shuffle(other)
    assert WatchIndex(watches).info(key) == WatchIndex(other).info(key)


@given(WATCHES, FILTERS, KEYS)
@example(  # the label is of one watch, the tag of another
    [Watched(Scope("p"), tags=("x",)), Watched(Scope("p", account="a"), "y")],
    Filter(label=("y",), tag=("x",)),
    Key("p", "a", "a", "a"),
)
def test_a_journal_is_asked_for_all_that_is_wanted_and_for_parts_of_keys_alone(watches, wanted, key):
    index = WatchIndex(watches)
    asked = asked_of_journal(wanted, index)
    assert (asked.label, asked.tag) == (None, None)
    if FilterMatcher.of(wanted, index).matches(key):
        assert asked.matches(key)


@given(FILTERS, KEYS)
def test_without_labels_and_tags_a_journal_is_asked_for_what_is_wanted_and_no_more(wanted, key):
    parts = Filter(wanted.provider, wanted.chain, wanted.account, wanted.token)
    assert asked_of_journal(parts, WatchIndex()) == expand(parts)


@given(WATCHES, FILTERS, KEYS)
@example(
    [Watched(Scope("p"), tags=("x",)), Watched(Scope("p", account="a"), "y")],
    Filter(account=("a",), label=("y",), tag=("x",)),
    Key("p", "a", "a", "a"),
)
def test_what_no_watch_may_match_is_no_watched_balance(watches, wanted, key):
    index = WatchIndex(watches)
    if index.info(key).watched and FilterMatcher.of(wanted, index).matches(key):
        assert may_match(wanted, index)


def test_a_typing_error_in_any_field_matches_nothing_that_is_watched():
    index = WatchIndex([Watched(Scope("p", "c", "a", "t"), "Hot", ("x",)), Watched(Scope("q", "d"))])
    right = {"provider": ("p",), "chain": ("c",), "account": ("a",), "token": ("t",), "label": ("Hot",), "tag": ("x",)}
    assert may_match(Filter(**right), index)
    for name in right:
        assert not may_match(Filter(**right | {name: ("typo",)}), index), name
        assert not may_match(Filter(provider=("p",), **{name: ("typo",)}), index) if name != "provider" else True
    assert may_match(Filter(account=("anybody",)), index), "a whole chain is watched"
    assert not may_match(Filter(account=("anybody",), chain=("c",)), index)


def test_a_name_matches_by_the_watch_that_has_it_and_not_by_that_of_a_neighbour():
    index = WatchIndex([Watched(Scope("p", "c", "a", "t"), "Hot", ("x",)), Watched(Scope("p", "d", "b", "u"), "Cold")])
    for part in ({"account": ("b",)}, {"token": ("u",)}, {"chain": ("d",)}, {"provider": ("q",)}):
        assert not may_match(Filter(label=("Hot",), **part), index), part
        assert not may_match(Filter(tag=("x",), **part), index), part
        assert may_match(Filter(label=("Cold",), **part), index) == (part != {"provider": ("q",)})


def test_where_the_config_watches_nothing_it_says_nothing_of_what_others_watch():
    key = Key("p", "c", "a", "t")
    assert NOT_KNOWN.info(key) == WatchInfo(watched=True)
    assert WatchIndex().info(key) == WatchInfo(watched=False)
    assert (NOT_KNOWN.may_read("p"), WatchIndex().may_read("p")) == (True, False)
