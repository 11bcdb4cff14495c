"""Balances as metrics: which, with what, and for whom."""

import random

import anyio
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.polling import virtually
from watcher.app.balance_gauges import LOOK, BalanceGauges
from watcher.app.metrics_exposition import exposition
from watcher.ledger import Ledger
from watcher.model.events import BalanceState
from watcher.model.keys import Filter, Key, Scope
from watcher.model.watches import Watched, WatchIndex
from watcher.relay.http.auth import EVERYTHING

SEEN = "2026-01-25T14:23:57.500000Z"
NAMED = WatchIndex([Watched(Scope("p")), Watched(Scope("p", "c", "a7"), 'Cold "7"\\')])


def state(account, amount="5", provider="p"):
    return BalanceState(
        provider=provider, chain="c", account=account, token="t", kind="total", symbol=None, version=0, amount=amount,
        unit="base", decimals=None, slot=None, as_of=None, observed_at=SEEN, order=None,
    )  # fmt: skip


class Told:
    """Gauges over one ledger, of which the states are given anew."""

    def __init__(self, most, watches=NAMED):
        self.ledger = Ledger()
        self.watches = watches
        self.gauges = BalanceGauges(lambda: most, lambda: [self.ledger], lambda: self.watches)

    def tell(self, *states):
        self.ledger.restore(states, {}, "e0")

    def shown(self, rights=EVERYTHING):
        text = exposition(self.gauges.families(rights), "").body.decode()
        return {
            (sample.name, sample.labels.get("account"), sample.labels.get("label")): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def accounts(self, rights=EVERYTHING):
        return [account for name, account, _ in self.shown(rights) if name == "watcher_balance"]


def run(told, *steps):
    """Let it look, do a step, let it look again."""

    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(told.gauges.run)
            await anyio.sleep(0.5)
            for step in steps:
                step()
                await anyio.sleep(50 * LOOK)
            tasks.cancel_scope.cancel()

    virtually(main)


def test_a_balance_has_its_amount_the_time_of_its_last_answer_and_its_label():
    told = Told(10)
    told.tell(state("a7", amount="340282366920938463463374607431768211455"), state("a8", amount="0.25"))
    run(told)
    assert told.shown() == {
        ("watcher_balance", "a7", 'Cold "7"\\'): 3.402823669209385e38,
        ("watcher_balance", "a8", ""): 0.25,
        ("watcher_balance_observed_timestamp_seconds", "a7", 'Cold "7"\\'): 1769351037.5,
        ("watcher_balance_observed_timestamp_seconds", "a8", ""): 1769351037.5,
        ("watcher_balances_without_gauge", None, None): 0.0,
    }


@pytest.mark.parametrize("seed", range(3))
def test_of_too_many_it_has_those_with_a_name_then_the_first_by_their_key_in_whatever_order_they_came(seed):
    told = Told(3)
    states = [state(f"a{number}") for number in range(1000)]
    random.Random(seed).shuffle(states)
    told.tell(*states)
    run(told)
    assert told.accounts() == ["a7", "a0", "a1"]
    assert told.shown()["watcher_balances_without_gauge", None, None] == 997


def test_a_balance_that_came_later_and_a_name_that_was_given_later_have_their_place():
    told = Told(2)
    told.tell(state("b"), state("c"))
    seen = []

    def later():
        seen.append(told.accounts())
        told.tell(state("a"), state("b"), state("c"))

    def named():
        seen.append(told.accounts())
        told.watches = WatchIndex([Watched(Scope("p", "c", "c"), tags=("hot",))])

    run(told, later, named)
    assert [*seen, told.accounts()] == [["b", "c"], ["a", "b"], ["c", "a"]]


def test_an_amount_is_that_of_the_moment_of_the_scrape():
    told = Told(2)
    told.tell(state("a"))
    run(told)
    told.tell(state("a", amount="6"))
    assert told.shown()["watcher_balance", "a", ""] == 6.0


def test_a_bound_token_gets_the_balances_that_it_may_see_and_no_number_of_the_others():
    told = Told(10)
    told.tell(state("a"), state("b"))
    run(told)
    assert told.accounts(Filter(account=("b",))) == ["b"]
    assert ("watcher_balances_without_gauge", None, None) not in told.shown(Filter(account=("b",)))


def test_without_the_key_of_the_config_there_is_none():
    told = Told(0)
    told.tell(state("a"))
    run(told)
    assert told.shown() == {}


def test_keys_may_come_while_all_are_looked_through():
    ledger = Ledger()
    ledger.restore([state(f"a{number:05}") for number in range(9000)], {}, "e0")
    keys = ledger.known_keys()
    found = [next(keys)]
    store = ledger._store
    store.add(store.group("p", "c", "u", "total"), "new", store.find(found[0]))
    store.add(store.group("p", "c", "t", "total"), "new", store.find(found[0]))
    found += keys
    assert len(set(found) - {Key("p", "c", "new", "t")}) == 9000
