"""The ledger behind the sandbox: seeded, indifferent to how often it is asked, and true to its own history."""

import itertools

import pytest

from watcher.model.addresses import BSC, ETHEREUM, canonical
from watcher.sandbox.ondo import CHAINS
from watcher.sandbox.population import MINTS
from watcher.sandbox.registry import PROVIDERS
from watcher.sandbox.truth import SLOT_SECONDS, Truth, plain
from watcher.sandbox.world import population_of

ONE_SEED = 7


def ledger(rate=20.0, seed=ONE_SEED):
    return Truth(population_of(seed).balances, seed=seed, rate=rate, start=100.0, slot=5_000_000)


def histories(truth):
    return {balance.key: balance.moves for balance in truth.balances.values()}


def test_the_same_seed_gives_the_same_history_however_often_it_is_asked():
    once, often = ledger(), ledger()
    once.advance(160.0)
    for step in range(6001):
        often.advance(100.0 + step / 100)
    assert histories(once) == histories(often)
    assert once.moves_made > 1000


def test_another_seed_gives_another_history():
    assert histories(ledger(seed=1)) != histories(ledger(seed=2))


def test_every_move_changes_the_amount_and_none_is_negative():
    truth = ledger(rate=100.0)
    truth.advance(200.0)
    for balance in truth.balances.values():
        assert all(before.amount != after.amount for before, after in itertools.pairwise(balance.moves))
        assert all(move.amount >= 0 for move in balance.moves)


def test_all_providers_move_and_the_rate_is_the_one_asked_for():
    truth = ledger(rate=50.0)
    truth.advance(200.0)
    moved = {balance.key.provider for balance in truth.balances.values() if len(balance.moves) > 1}
    assert moved == set(PROVIDERS)
    assert 4500 < truth.moves_made < 5500


def test_a_slot_shows_what_had_happened_when_it_was_complete():
    truth = ledger()
    truth.advance(130.0)
    balance = max(truth.balances.values(), key=lambda found: len(found.moves))
    move = balance.moves[-1]
    assert truth.slot(move.time) == move.slot
    assert balance.at_slot(move.slot) == move.amount == balance.at(move.time)
    assert balance.at_slot(balance.moves[1].slot - 1) == balance.moves[0].amount
    assert truth.slot(100.0 + SLOT_SECONDS * 10) == 5_000_010


def test_a_frozen_ledger_keeps_still_until_it_is_thawed():
    truth = ledger()
    truth.freeze(110.0)
    told = truth.moves_made
    truth.advance(500.0)
    assert truth.moves_made == told
    truth.thaw(500.0)
    truth.advance(510.0)
    assert truth.moves_made > told
    times = [move.time for balance in truth.balances.values() for move in balance.moves[1:]]
    assert not [time for time in times if 110.0 < time < 500.0]


def test_a_rate_of_zero_moves_nothing_by_itself():
    truth = ledger(rate=0.0)
    truth.advance(1e9)
    assert truth.moves_made == 0


@pytest.mark.parametrize("seed", range(20))
def test_every_address_of_every_seed_is_canonical_on_its_chain(seed):
    for balance in population_of(seed).balances:
        assert canonical(balance.key.chain, balance.key.account) == balance.key.account
        if balance.key.token != "native":
            assert canonical(balance.key.chain, balance.key.token) == balance.key.token


def test_the_well_known_mints_are_solana_addresses():
    assert [canonical("solana:x", mint) for _, mint, _ in MINTS] == [mint for _, mint, _ in MINTS]


@pytest.mark.parametrize("seed", range(5))
def test_the_watches_see_every_balance_exactly_once(seed):
    population = population_of(seed)
    for balance in population.balances:
        key = balance.key
        seen = 0
        for watch in population.watches[key.provider]:
            chain = watch.get("chain")
            parts = {"account": key.account, "token": key.token}
            on_chain = chain is None or CHAINS[chain] == key.chain
            seen += on_chain and all(watch.get(part, value) == value for part, value in parts.items())
        assert seen == 1, key


def test_ondos_watches_have_all_four_shapes():
    shapes = {tuple(sorted(watch)) for watch in population_of(1).watches["ondo"]}
    assert shapes == {("account", "chain"), ("account", "chain", "token"), ("chain",), ("chain", "token")}
    assert {balance.key.chain for balance in population_of(1).balances} >= {ETHEREUM, BSC}


@pytest.mark.parametrize(
    ("amount", "scale", "text"),
    [(0, 6, "0"), (5, 7, "0.0000005"), (1500000, 6, "1.5"), (100, 0, "100"), (10**20, 18, "100")],
)
def test_amounts_in_token_units_are_plain_and_exact(amount, scale, text):
    assert plain(amount, scale) == text
