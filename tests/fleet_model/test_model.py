"""All orders of steps keep the rules of a hand-over, and each rule is needed: without it some order breaks what is proved."""

import pytest

from tests.fleet_model.explorer import Proof, Refutation, explore
from tests.fleet_model.model import RULES, STEPS, Model

SMALL, LONG_LEASE, WIDE, THREE = (1, 2, 2), (2, 2, 1), (2, 4, 2), (1, 1, 1, 3)
"""Ticks of the lease, ticks of the window, requests in it; members, if not two."""

ONLY_WITHOUT = {"asks for the fence"}
"""Steps that are taken only where a rule is left out."""


@pytest.mark.parametrize("bound", [SMALL, LONG_LEASE, THREE])
def test_no_order_of_steps_breaks_the_rules(bound, uncounted):
    proof = explore(Model(*bound))
    assert isinstance(proof, Proof), proof
    assert proof.states > 20_000
    assert proof.seen.keys() == {name for steps in STEPS.values() for name in steps} - ONLY_WITHOUT | {"tick"}


BREAKS = {
    "no lease": "overlap",
    "lease looked at at the grant only": "overlap",
    "lease counted from the end of the commit": "overlap",
    "clock stands still": "overlap",
    "doubt stamped at the fence": "not counted",
    "saved in flight stamped at the fence": "not counted",
    "doubt not counted": "not counted",
    "stamps not handed over": "not counted",
    "grants from the fence on": "overlap",
    "fence timed before it": "overlap",
    "released written before in-flight ended": "not counted",
    "released before its own first request": "overlap",
    "released with the former owner's stamps": "not counted",
    "restore before fence": "not counted",
    "grants before the restored stamps are saved": "not counted",
    "unsaved grants without a bound": "not counted",
    "release outlives the next open": "not counted",
    "memory kept across another owner": "overlap",
}
"""Rule → what the shortest way without it breaks."""


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_is_needed(rule, uncounted):
    # With a lease of one tick the fence and the end of the lease are one time.
    refutation = explore(Model(*(WIDE if "stamped" in rule else SMALL), without=rule))
    assert isinstance(refutation, Refutation)
    assert refutation.reason.startswith(BREAKS[rule])


def test_without_the_bookkeeping_the_provider_sees_too_much():
    """What is not counted is what it refuses: not only the books differ."""

    class Unjudged(Model):
        def _covered(self, state):
            return state

    refutation = explore(Unjudged(1, 2, 1, without="doubt not counted"))
    assert isinstance(refutation, Refutation)
    assert refutation.reason.startswith("limit: 2 requests in 2 ticks")


def test_states_that_are_taken_as_one_do_not_differ(uncounted):
    class Unreduced(Model):
        def canonical(self, state):
            return state

    whole, reduced = explore(Unreduced(1, 1, 1)), explore(Model(1, 1, 1))
    assert isinstance(whole, Proof)
    assert isinstance(reduced, Proof)
    assert whole.states > reduced.states


def test_a_way_names_each_member_the_same_all_along():
    way = explore(Model(*SMALL, without="no lease")).way
    assert [step for step in way if "fences" in step] == ["A fences", "B fences"]
    assert way[-1] == "A sends"
