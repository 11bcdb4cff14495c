"""Whatever the answers, whatever becomes of the commits: the laws hold over everything that was ever committed."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.worlds.book import EPOCH, Book
from watcher.ledger import Ledger, rules
from watcher.ledger.pending_changes import PendingChange, PendingChanges
from watcher.ledger.record import text_of
from watcher.ledger.rules import Ruling
from watcher.ledger.store import Store
from watcher.model.keys import Key, Scope
from watcher.model.readings import Answer, Reading, Times

ACCOUNTS, TOKENS = ("a", "b"), ("x", "y")
KEYS = [Key("p", "c", account, token) for account in ACCOUNTS for token in TOKENS]
SCOPES = [None, Scope("p", "c", "a"), Scope("p", "c", None, "x"), Scope("p"), Scope("p", "c", "b", "y")]
AMOUNTS = st.sampled_from([None, "0", "1", "2", "3"])


class AnyHistory(RuleBasedStateMachine):
    """Answers of every kind in any order, commits that work, fail or leave us in doubt, and restarts."""

    @initialize(ordering=st.sampled_from(["strict", "weak", "none"]))
    def begin(self, ordering):
        self.ordering = ordering
        self.book = Book()
        self.now = 1000.0
        self.order = 1000
        self.start()

    def start(self):
        self.ledger = Ledger()
        self.ledger.restore(list(self.book.states.values()), dict(self.book.notes), EPOCH)
        self.taken = None

    @rule(
        readings=st.dictionaries(st.sampled_from(KEYS), st.tuples(AMOUNTS, st.integers(-3, 3)), max_size=4),
        scope=st.sampled_from(SCOPES),
        ago=st.sampled_from([0.5, 0.5, 5.0, 25.0]),
        pause=st.sampled_from([0.0, 1.0, 10.0, 40.0]),
        ordered=st.booleans(),
    )
    def answer(self, readings, scope, ago, pause, ordered):
        self.now += pause
        self.order += int(pause)
        said = [
            self.reading(key, amount, None if self.ordering == "none" or not ordered else self.order + shift)
            for key, (amount, shift) in readings.items()
            if scope is None or scope.covers(key)
        ]
        self.evaluate(said, scope, ago)

    def reading(self, key, amount, order):
        return Reading(key, amount, "base", order=order, slot=order)

    def evaluate(self, said, scope=None, ago=0.5):
        times = Times(self.now - ago, self.now, int(self.now * 1e6))
        answer = Answer("p", said, self.ordering, 30.0, times, scope)
        return self.ledger.evaluate(answer)

    @precondition(lambda self: self.taken is None)
    @rule(limit=st.integers(1, 5))
    def take(self, limit):
        self.taken = self.ledger.take(limit)

    @precondition(lambda self: self.taken is not None)
    @rule()
    def commit(self):
        self.book.write(self.taken)
        self.ledger.committed()
        self.taken = None

    @precondition(lambda self: self.taken is not None)
    @rule(written=st.booleans())
    def doubt(self, written):
        """The journal does not answer: the rows may be in it or not."""
        if written:
            self.book.write(self.taken)
        self.taken = None
        self.ledger.restore(list(self.book.states.values()), dict(self.book.notes), EPOCH)

    @precondition(lambda self: self.taken is None and self.ledger.pending)
    @rule(written=st.booleans())
    def lose(self, written):
        self.take(3)
        self.doubt(written)

    @rule(written=st.booleans())
    def crash(self, written):
        if written and self.taken is not None:
            self.book.write(self.taken)
        self.start()

    def teardown(self):
        """Three quiet polls, and everything that is true is committed."""
        if not hasattr(self, "ledger"):
            return
        if self.taken is not None:
            self.doubt(written=True)
        truth = {KEYS[0]: "7", KEYS[1]: "1", KEYS[2]: "0"}
        for _ in range(3):
            self.now += 10.0
            self.order += 10
            order = None if self.ordering == "none" else self.order
            self.evaluate([self.reading(key, amount, order) for key, amount in truth.items()], Scope("p"))
            while not self.ledger.idle:
                self.book.write(self.ledger.take(2))
                self.ledger.committed()
        assert {key: self.book.amount(key) or "0" for key in truth} == truth
        assert self.book.amount(KEYS[3]) in (None, "0")
        assert len(self.ledger) == len(self.book.states)


QUIET = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_the_laws_hold_over_any_history():
    run_state_machine_as_test(AnyHistory, settings=QUIET)


def tell_always(known, observation):
    """No rules at all: every observation counts, the same amount too."""
    return Ruling.CHANGED


def never_settle(self, key, record, state):
    """A commit that was in doubt is taken for failed."""
    return True


def drop_in_flight(self, find):
    """A commit that failed is forgotten."""
    self.in_flight = {}


def forget_since(self, key, record, amount, arrival, reading):  # noqa: PLR0917 (as the method that it replaces)
    """A newer change starts from the pending one and not from the committed amount."""
    self.number += 1
    since = text_of(record.last_seen)
    return self.pending.setdefault(
        key, PendingChange(self.number, record.amount, since, arrival.observed_at, None, None)
    )


def keep_newer_as_it_is(self, find):
    """What was evaluated during a failed commit still starts from the amount that never was committed."""
    for key, (committing, _) in self.in_flight.items():
        self.pending.setdefault(key, committing)
    self.in_flight = {}


def take_any_order(self, *arguments, reading):
    """The order of the newest observation, and not the greatest."""
    _, _, record, observation, outcome = arguments
    change = apply(self, *arguments, reading=reading)
    if outcome.ruling in (Ruling.CHANGED, Ruling.UNCHANGED):
        record.order = observation.order
    return change


apply = Store.apply


@pytest.mark.parametrize(
    ("where", "name", "bug"),
    [
        (rules, "rule", tell_always),
        (PendingChanges, "agrees_with", never_settle),
        (PendingChanges, "return_in_flight", drop_in_flight),
        pytest.param(PendingChanges, "return_in_flight", keep_newer_as_it_is, marks=pytest.mark.soak),  # half a minute
        (PendingChanges, "put", forget_since),
        (Store, "apply", take_any_order),
    ],
)
def test_the_laws_see_a_planted_bug(where, name, bug, monkeypatch):
    monkeypatch.setattr(where, name, bug)
    with pytest.raises((AssertionError, KeyError)):
        run_state_machine_as_test(AnyHistory, settings=settings(QUIET, max_examples=2000, phases=[Phase.generate]))
