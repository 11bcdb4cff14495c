"""Which targets a hint is for: by the index exactly those that a look at every one of them finds."""

import time

from hypothesis import given
from hypothesis import strategies as st

from tests.polling import solana
from watcher.model import hints as hints_module
from watcher.model.addresses import ETHEREUM, SOLANA
from watcher.model.hints import Hint
from watcher.model.keys import UNKNOWN_MINT, Scope
from watcher.model.targets import Target, TargetGroup
from watcher.scheduling.hinted_targets import HintedTargets
from watcher.scheduling.schedule import Schedule

EVM = "0x" + "ab" * 20
FELT = f"0x{int(EVM, 16):064x}"
ACCOUNTS = ("wallet", "Wallet", EVM, FELT)
TOKENS = ("mint", EVM, FELT, UNKNOWN_MINT)
CHAINS = ("eip155:1", "eip155:56")

scopes = st.builds(
    Scope,
    st.just("ondo"),
    st.sampled_from((None, *CHAINS)),
    st.sampled_from((None, *ACCOUNTS)),
    st.sampled_from((None, *TOKENS)),
)
hints = st.builds(
    Hint,
    account=st.sampled_from((*ACCOUNTS, EVM.upper().replace("0X", "0x"), "stranger")),
    provider=st.sampled_from((None, "ondo", "other")),
    chain=st.sampled_from((None, *CHAINS)),
    token=st.sampled_from((None, *TOKENS, EVM.upper().replace("0X", "0x"))),
)


def indexed(*groups):
    """Of these targets, in groups."""
    groups = [TargetGroup(tuple(targets)) for targets in groups]
    schedules = [Schedule(group.targets, seed=1, now=0.0) for group in groups]
    return HintedTargets(groups, schedules), schedules


@given(st.lists(scopes, unique=True), hints)
def test_a_hint_is_for_the_targets_that_it_touches_and_for_each_once(watched, hint):
    half = [Target("listing", scope) for scope in watched[::2]], [Target("listing", scope) for scope in watched[1::2]]
    found, schedules = indexed(*half)
    pairs = list(found.find(hint))
    assert len(pairs) == len({target for _, target in pairs})
    assert {target.scope for _, target in pairs} == {scope for scope in watched if hint.touches(scope)}
    assert all(target in half[schedules.index(schedule)] for schedule, target in pairs)


@given(st.lists(scopes, unique=True), st.sets(scopes))
def test_scopes_are_found_where_they_are_watched(watched, wanted):
    found, (schedule,) = indexed([Target("listing", scope) for scope in watched])
    ((where, targets),) = found.of_scopes(wanted)
    assert where is schedule
    assert sorted(map(str, targets)) == sorted(str(Target("listing", one)) for one in watched if one in wanted)


class Counted(str):
    """A token that counts how often it is compared with others."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other):
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_scopes_of_one_account_are_not_compared_each_with_all_of_its_targets():
    """A wallet whose tokens are watched one by one: at each step of what a source covers they are looked for anew."""
    watched = [Scope("ondo", ETHEREUM, EVM, Counted(n)) for n in range(2000)]
    found, _ = indexed([Target("balance", scope) for scope in watched])
    list(found.index())
    Counted.compared = 0
    ((_, targets),) = found.of_scopes(frozenset(watched))
    assert {target.scope for target in targets} == set(watched)
    assert Counted.compared < 20_000


def test_a_balance_whose_token_is_not_known_may_be_of_the_token_that_a_hint_names():
    found, _ = indexed([Target("account", Scope("helius", "solana:x", "a", UNKNOWN_MINT))])
    assert len(list(found.find(Hint(account="a", token="mint")))) == 1


def test_a_watch_of_a_whole_chain_is_not_for_an_address_of_another():
    everything = [Scope("ondo", chain) for chain in (ETHEREUM, SOLANA)]
    found, _ = indexed([Target("listing", scope) for scope in everything])
    for account, chains in ((EVM, {ETHEREUM}), (solana(5), {SOLANA}), (f"0x{5:064x}", set())):
        assert {target.scope.chain for _, target in found.find(Hint(provider="ondo", account=account))} == chains
        assert not list(found.find(Hint(account=account)))


def test_the_index_is_made_once_and_in_steps_and_whoever_asks_before_that_has_it_at_once():
    watched = [Target("account", Scope("helius", "solana:x", f"account{n}", "mint")) for n in range(20_000)]
    found, _ = indexed(watched)
    steps = found.index()
    for _ in range(10):
        next(steps)
    assert [target for _, target in found.find(Hint(account="account19999"))] == watched[-1:]
    assert sum(1 for _ in steps) >= 80
    assert list(found.index()) == []
    assert [target for _, target in found.find(Hint(account="account7"))] == watched[7:8]


def test_a_thousand_hints_find_theirs_among_twenty_thousand_watches_in_no_time():
    watched = [Target("account", Scope("helius", "solana:x", f"account{n}", "mint")) for n in range(20_000)]
    found, _ = indexed(watched)
    wanted = [Hint(account=f"account{n * 19}", provider="helius", token="mint") for n in range(1000)]
    assert sum(1 for hint in wanted for _ in found.find(hint)) == 1000
    took = []
    for _ in range(5):
        began = time.process_time()
        for hint in wanted:
            list(found.find(hint))
        took.append(time.process_time() - began)
    assert min(took) < 0.05  # 8 ms where nothing else runs; a look at all of them would take 10 s


def test_a_hint_is_spelled_once_however_many_watches_its_account_has():
    """A bot's wallet of thousands of tokens, and a node that tells of each of its transfers."""
    found, _ = indexed([Target("balance", Scope("ondo", ETHEREUM, EVM, f"0x{n:040x}")) for n in range(2000)])
    hints_module._forms.cache_clear()
    ((_, target),) = found.find(Hint(account=EVM, token=f"0x{7:040x}"))
    assert target.scope.token == f"0x{7:040x}"
    assert hints_module._forms.cache_info().misses == 2
