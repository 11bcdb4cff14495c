"""What a reload finds to differ, by property: applied to what runs, it leaves what starting anew would have."""

import copy
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.polling import solana
from watcher.app import settings
from watcher.app.reload import ONCE, RELAY_ONCE, by_name, difference, loaded, targets
from watcher.model.keys import Key
from watcher.runtime.config_section import SettingsError

ENVIRONMENT = {
    "ONE": "canary-one",
    "TWO": "canary-two",
    "TOKENS": "canary-token",
    "NODE": "wss://node.example/canary-three",
    "OTHER": "wss://node.example/canary-four",
}

watches_ = st.lists(st.integers(0, 6), min_size=1, max_size=4, unique=True).map(
    lambda numbers: [{"account": solana(number)} for number in numbers]
)
tables_ = st.fixed_dictionaries(
    {"type": st.sampled_from(["helius", "jupiter"]), "watch": watches_, "api_key_env": st.sampled_from(["ONE", "TWO"])},
    optional={
        "timeout": st.sampled_from([5.0, 6.0]),
        "limits": st.sampled_from([[{"requests": 5, "per": 1}], [{"requests": 9, "per": 60}]]),
        "share": st.sampled_from([0.5, 1.0]),
    },
)
hints_ = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["solana", "ethereum", "starknet"]),
            "name": st.sampled_from(["x", "y", "z"]),
            "url_env": st.sampled_from(["NODE", "OTHER"]),
        }
    ),
    max_size=3,
    unique_by=lambda table: table["name"],
)
alerts_ = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["low", "lower", "high"]), "below": st.sampled_from(["5", "6"])},
        optional={"clear": st.just("7"), "label": st.just("hot")},
    ),
    max_size=3,
    unique_by=lambda table: table["name"],
)
configs_ = st.fixed_dictionaries(
    {"providers": st.dictionaries(st.sampled_from(["a", "b", "c"]), tables_, min_size=1)},
    optional={
        "journal": st.sampled_from(["sqlite:///a.db", "kafka://localhost:1"]),
        "retention": st.sampled_from([1.0, 2.0]),
        "hints": hints_,
        "alert": alerts_,
        "kafka": st.sampled_from([{}, {"topic_prefix": "x"}]),
        "relay": st.fixed_dictionaries(
            {},
            optional={
                "port": st.sampled_from([1, 2]),
                "tokens_env": st.just("TOKENS"),
                "origins": st.sampled_from([[], ["https://desk.example"]]),
            },
        ),
    },
)


def read(config):
    return loaded(settings.parse(copy.deepcopy(config)), ENVIRONMENT, polls=True)


def polled(source):
    """All that a poller is made from."""
    table = msgspec.structs.replace(source.provider.settings, api_key_env=None, api_key_file=None)
    return table, source.provider.limits, source.secret


@given(configs_, configs_)
def test_what_stays_untouched_is_as_it_would_be_after_a_start(old, new):
    was, will = read(old), read(new)
    change = difference(was, will)
    before, after = by_name(was.sources), by_name(will.sources)
    assert before.keys() - {*change.removed} | {*change.added} == after.keys()
    running = {name: source for name, source in before.items() if name not in {*change.removed, *change.changed}}
    for name, source in running.items():
        if name in change.renewed:
            assert source.secret != after[name].secret
            source = msgspec.structs.replace(source, secret=after[name].secret)  # noqa: PLW2901
        assert polled(source) == polled(after[name])
    for name in after:
        was_read = targets(before[name]) if name in before else set()
        assert change.watches_added.get(name, 0) == len(targets(after[name]) - was_read)
    assert sum(change.watches_removed.values()) == sum(
        len(targets(source) - (targets(after[name]) if name in after else set())) for name, source in before.items()
    )


@given(configs_, configs_)
def test_sources_of_hints_that_are_not_named_are_the_same(old, new):
    was, will = read(old), read(new)
    change = difference(was, will)
    before, after = ({source.name: source for source in one.hints} for one in (was, will))
    assert before.keys() - {*change.hints_removed} | {*change.hints_added} == after.keys()
    same = before.keys() - {*change.hints_removed, *change.hints_changed}
    assert {name: before[name] for name in same} == {name: after[name] for name in same}
    assert change.wanted.hints == will.hints
    if was.hints != will.hints and {*before.items()} != {*after.items()}:
        assert change.result == "applied"


def test_an_address_in_a_file_is_another_source_once_the_file_is(tmp_path_factory):
    path = tmp_path_factory.mktemp("url") / "url"
    path.write_text("wss://node.example/canary-old")
    config = named() | {"hints": [{"type": "solana", "url_file": str(path)}]}
    was = read(config)
    assert difference(was, read(config)).result == "unchanged"
    path.write_text("wss://node.example/canary-new")
    change = difference(was, read(config))
    assert (change.hints_changed, change.result) == (("solana",), "applied")


def test_a_relay_alone_needs_the_secrets_of_webhooks_and_no_address_of_a_node():
    hints = [{"type": "solana", "url_env": "MISSING"}, {"type": "tokenkit", "secret_env": "ONE"}]
    found = loaded(settings.parse(named() | {"hints": hints}), ENVIRONMENT, polls=False)
    assert [source.name for source in found.hints] == ["tokenkit"]
    with pytest.raises(SettingsError, match="MISSING"):
        read(named() | {"hints": hints})


@given(configs_, configs_)
def test_what_needs_a_restart_is_named_each_time_and_stays(old, new):
    was, will = read(old), read(new)
    change = difference(was, will)
    kept = change.wanted.config
    assert all(getattr(kept, key) == getattr(was.config, key) for key in (*ONCE, "journal_settings"))
    assert all(getattr(kept.relay, key) == getattr(was.config.relay, key) for key in RELAY_ONCE)
    assert (kept.providers, kept.relay.origins) == (will.config.providers, will.config.relay.origins)
    again = difference(change.wanted, read(new))
    assert again.needs_restart == change.needs_restart
    assert again.result == "unchanged"
    assert (change.result == "unchanged") == (difference(will, was).result == "unchanged")


def test_a_key_that_comes_where_there_was_none_changes_more_than_the_key():
    """Keyless, Jupiter allows half as much."""
    table = {"type": "jupiter", "watch": [{"account": solana(1)}]}
    change = difference(read({"providers": {"j": table}}), read({"providers": {"j": {**table, "api_key_env": "ONE"}}}))
    assert (change.changed, change.renewed) == (("j",), ("j",))


def test_a_key_in_a_file_is_another_one_once_the_file_is():
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / "key").write_text("canary-old")
        config = {"providers": {"helius": {"watch": [{"account": solana(1)}], "api_key_file": str(path)}}}
        was = read(config)
        path.write_text("canary-new")
        change = difference(was, read(config))
    assert (change.changed, change.renewed) == ((), ("helius",))


def named(**names):
    table = {"type": "helius", "api_key_env": "ONE", "watch": [{"account": solana(1), **names}]}
    return {"providers": {"a": table}}


def test_names_alone_replace_no_poller_and_are_another_config_all_the_same():
    old, new = read(named(label="Treasury")), read(named(label="Desk", tags=["hot"]))
    change = difference(old, new)
    assert (change.changed, change.watches_added, change.watches_removed) == ((), {}, {})
    assert (change.named, change.result) == (True, "applied")
    (scope,) = [target.scope for target in targets(new.sources[0])]
    key = Key(scope.provider, scope.chain or "solana:x", scope.account, scope.token or "t", "total")
    assert change.wanted.watches.info(key).label == "Desk"
    again = difference(new, read(named(label="Desk", tags=["hot"])))
    assert (again.named, again.result) == (False, "unchanged")


def test_a_number_of_gauges_is_another_config():
    one = named()
    assert difference(read(one), read({**one, "balance_gauges": 5})).result == "applied"
