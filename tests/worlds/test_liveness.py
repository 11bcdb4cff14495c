"""The liveness law: an answer that differs from what is committed cannot be withheld for ever, whatever the traffic.

While a provider's answers for a key differ from the committed amount, a change of that key is told within three answers
or 2 x `settle` of the first one that differed, whichever is later; after a restart too.
"""

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.worlds.book import EPOCH, Book
from watcher.ledger import Ledger, rules
from watcher.ledger.rules import Proof
from watcher.model.keys import Key, Scope
from watcher.model.readings import Answer, Reading, Times

ACCOUNT = Scope("p", "c", "a")
KEYS = [Key("p", "c", "a", token) for token in ("native", "x", "y", "z")]
SETTLE = 30.0
LATER = 3
ORDERINGS = {"answer": "strict", "write": "strict", "refresh": "weak", "none": "none"}
"""What an order says: when it was answered, when it was last written, when it was last refreshed, nothing."""


class World:
    """One account of a provider whose balances are moved and asked for; everything is committed at once."""

    def __init__(self, order, *, listed, tick):
        self.order, self.listed, self.tick = order, listed, tick
        self.now = 1000.0
        self.history = {key: [(0.0, "1")] for key in KEYS}
        self.book = Book()
        self.differing: dict = {}
        """key → when the first answer came that differs from what is committed, and how many came after it."""
        self.gone: set = set()
        """Keys that the last answer did not name: what is missing once is nothing."""
        self.restart()
        self.ask(times=2)

    def restart(self):
        self.ledger = Ledger()
        self.ledger.restore(list(self.book.states.values()), dict(self.book.notes), EPOCH)
        self.differing = {}  # what was doubted is not kept: it is counted from the start of the process

    def move(self, key, amount):
        """None: the row is gone."""
        if self.listed or amount is not None:
            self.history[key].append((self.now, amount))

    def wait(self, seconds):
        self.now += seconds

    def hot(self, key, times):
        """Another amount at every answer."""
        for number in range(times):
            self.move(key, str(10**7 + number))
            self.ask()

    def bounce(self, amounts, times):
        """Always the same few amounts, and a replica that lags now and then."""
        for number in range(times):
            self.move(KEYS[1], amounts[number % len(amounts)])
            self.ask(5.0 if number % 7 == 6 else 0.0)

    def ask(self, lag=0.0, times=1):
        for _ in range(times):
            self._ask(lag)

    def _ask(self, lag):
        self.now += 1.0
        as_of = self.now - lag
        said = {key: self._at(key, as_of) for key in KEYS}
        readings = [self._reading(key, *found) for key, found in said.items() if found[1] is not None]
        listing = ACCOUNT if self.listed else None
        times = Times(self.now - 0.5, self.now, int(self.now * 1e6))
        before = {key: self.book.amount(key) for key in KEYS}
        self.ledger.evaluate(Answer("p", readings, ORDERINGS[self.order], SETTLE, times, listing))
        self._commit()
        for key, (_, amount) in said.items():
            self._judge(key, amount or "0", before[key], doubtful=lag > 0 or (amount is None and key not in self.gone))
        self.gone = {key for key, (_, amount) in said.items() if amount is None}

    def _at(self, key, time):
        return next(found for found in reversed(self.history[key]) if found[0] <= time)

    def _reading(self, key, written, amount):
        moment = {"answer": self.now, "write": written, "refresh": self.now, "none": None}[self.order]
        order = None if moment is None else int(moment / self.tick)
        return Reading(key, amount, "base", order=order, slot=order)

    def _commit(self):
        while not self.ledger.idle:
            self.book.write(self.ledger.take())
            self.ledger.committed()

    def _judge(self, key, said, before, *, doubtful):
        committed = self.book.amount(key)
        if committed != before or before is None or said == committed:
            self.differing.pop(key, None)
        elif not doubtful:
            since, later = self.differing.get(key, (self.now, -1))
            self.differing[key] = (since, later + 1)
            withheld = later + 1 >= LATER and self.now - since >= 2 * SETTLE
            assert not withheld, f"{key.token}: {committed} stands, {said} is said, since {self.now - since} s"


@st.composite
def amounts(draw):
    return draw(st.sampled_from([None, "0", "1", "2", "3", str(draw(st.integers(10, 10**6)))]))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("move"), st.sampled_from(KEYS), amounts()),
        st.tuples(st.just("ask"), st.sampled_from([0.0, 0.0, 0.0, 5.0, 25.0]), st.integers(1, 6)),
        st.tuples(st.just("hot"), st.sampled_from(KEYS), st.integers(4, 80)),
        st.tuples(st.just("bounce"), st.lists(amounts(), min_size=2, max_size=4), st.integers(4, 80)),
        st.tuples(st.just("restart")),
        st.tuples(st.just("wait"), st.sampled_from([2.0, 15.0, 40.0])),
    ),
    max_size=25,
)


def lived(order, listed, tick, steps):
    world = World(order, listed=listed, tick=tick)
    for what, *how in steps:
        getattr(world, what)(*how)
    world.ask(times=80)
    return world


QUIET = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
WORLDS = {
    "order": st.sampled_from(sorted(ORDERINGS)),
    "listed": st.booleans(),
    "tick": st.sampled_from([0.4, 7.0, 1e5]),
}


@settings(QUIET, max_examples=240)
@given(steps=STEPS, **WORLDS)
def test_no_difference_is_withheld_whatever_the_traffic(order, listed, tick, steps):
    world = lived(order, listed, tick, steps)
    assert world.ledger.candidate_since("p") is None, "every doubt is over when nothing moves"
    for key in KEYS:
        assert world.book.amount(key) == (world.history[key][-1][1] or "0")


PROVED = rules._proved


def never_enough(candidate, observation, proof):
    """However often all differs: that is no proof."""
    return PROVED(msgspec.structs.replace(candidate, differing=-(10**6)), observation, proof)


def same_amount(candidate, observation, proof):
    """After a restart a repetition is asked for, which a busy balance never gives."""
    return never_enough(candidate, observation, Proof.GREATER if proof is Proof.DIFFERENT else proof)


def greater_order(candidate, observation, proof):
    """What stands still must move before it is believed."""
    return never_enough(candidate, observation, Proof.GREATER if proof is Proof.STANDING else proof)


HOT = [("restart",), ("hot", KEYS[0], 80)]
REST = [("move", KEYS[1], "5"), ("wait", 40.0), ("ask", 0.0, 6)]
TURNS = [*(("bounce", [amount], 1) for amount in "243"), ("bounce", ["2", "4"], 80)]


@pytest.mark.parametrize(
    ("bug", "order", "tick", "steps"),
    [
        (same_amount, "answer", 0.4, HOT),
        (same_amount, "refresh", 0.4, HOT),
        (greater_order, "write", 1e5, REST),
        (greater_order, "answer", 1e5, [*REST, ("restart",), *REST]),
        (never_enough, "refresh", 0.4, TURNS),
        (never_enough, "refresh", 1e5, REST),
        (never_enough, "answer", 1e5, HOT[1:]),
    ],
)
def test_a_proof_that_traffic_withholds_is_seen(bug, order, tick, steps, monkeypatch):
    lived(order, False, tick, steps)
    monkeypatch.setattr(rules, "_proved", bug)
    with pytest.raises(AssertionError, match="is said, since"):
        lived(order, False, tick, steps)
