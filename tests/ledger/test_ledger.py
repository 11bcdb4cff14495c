"""The rules of "From reading to change", one sentence each."""

from itertools import pairwise

import pytest

from watcher.ledger import Ledger
from watcher.model.bulk_listing import CHANGED_ROWS
from watcher.model.events import BalanceState, event_id
from watcher.model.keys import Key, Scope
from watcher.model.readings import Answer, Reading, Times

EPOCH = "e0"
ACCOUNT = Scope("p", "c", "a")
X = Key("p", "c", "a", "x")
Y = Key("p", "c", "a", "y")
Z = Key("p", "c", "a", "z")


class Desk:
    """A ledger with a journal that always works, unless asked otherwise. Ten seconds pass between two answers."""

    def __init__(self, ordering="strict", settle=30.0, listing=None):
        self.ledger = Ledger()
        self.ledger.restore([], {}, EPOCH)
        self.ordering = ordering
        self.settle = settle
        self.listing = listing
        self.partial = False
        self.now = 0.0
        self.states = {}
        self.notes = {}
        self.events = []

    def answer(self, *readings, sent=None, after=10.0):
        self.now += after
        sent = self.now - 1 if sent is None else sent
        times = Times(sent, self.now, int(self.now * 1e6))
        return Answer("p", list(readings), self.ordering, self.settle, times, self.listing, partial=self.partial)

    def hear(self, *readings, sent=None, after=10.0):
        """Judge one answer and commit what follows from it."""
        verdict = self.ledger.evaluate(self.answer(*readings, sent=sent, after=after))
        self.commit()
        return verdict

    def commit(self):
        self.write()
        self.ledger.committed()

    def write(self):
        """The journal has it; whether the ledger hears of that is another matter."""
        taken = self.ledger.take()
        self.notes |= taken.notes
        for row in taken.rows:
            self.states[row.state.key] = row.state
            if row.event is not None:
                self.events.append(row.event)

    def restart(self):
        self.ledger = Ledger()
        self.ledger.restore(self.states.values(), self.notes, EPOCH)

    def reopen(self):
        self.ledger.restore(self.states.values(), self.notes, EPOCH)

    def told(self, key=X):
        return [(e.previous_amount, e.amount) for e in self.events if e.key == key]


def at(order, amount, key=X):
    return Reading(key, amount, "base", order=order, slot=order)


def says(amount, key=X):
    return Reading(key, amount, "decimal")


def nothing(key=X):
    return Reading(key, None, "base")


def clock(seconds):
    return f"1970-01-01T00:{seconds // 60:02}:{seconds % 60:02}.000000Z"


# Baseline and plain changes.


def test_the_first_reading_is_recorded_and_not_told():
    desk = Desk()
    verdict = desk.hear(at(1, "5"))
    assert (verdict.baselines, verdict.changed) == (1, set())
    assert desk.states[X].version == 0
    assert desk.events == []


def test_a_change_carries_what_was_before_and_when_that_was_last_seen():
    desk = Desk()
    desk.hear(at(1, "5"))
    desk.hear(at(2, "5"))
    assert desk.hear(at(3, "8")).changed == {X}
    (event,) = desk.events
    assert (event.version, event.previous_amount, event.amount, event.delta) == (1, "5", "8", "3")
    assert (event.previous_observed_at, event.observed_at) == (clock(20), clock(30))
    assert event.id == event_id(EPOCH, X, 1)
    assert event.slot == 3


def test_the_same_amount_under_another_symbol_is_no_change():
    desk = Desk("none")
    desk.hear(Reading(X, "5", "decimal", symbol="OLD", decimals=6))
    desk.hear(Reading(X, "5", "decimal", symbol="NEW", decimals=9))
    assert desk.events == []


def test_after_a_restart_the_committed_time_is_the_last_sight_of_the_old_amount():
    desk = Desk("none")
    desk.hear(says("5"))
    desk.hear(says("5"))
    desk.restart()
    desk.hear(says("6"))
    assert desk.events[0].previous_observed_at == clock(10)


def test_a_wall_clock_set_back_never_ends_a_change_before_it_began():
    desk = Desk("none")
    desk.hear(says("5"))
    desk.now -= 100
    desk.hear(says("6"), sent=50.0)
    (event,) = desk.events
    assert event.previous_observed_at <= event.observed_at


# Rule 1: older.


def test_an_older_reading_is_dropped_and_counted():
    desk = Desk()
    desk.hear(at(5, "5"))
    assert desk.hear(at(4, "3")).stale == {X}
    assert desk.events == []


def test_an_unchanged_reading_advances_what_counts_as_older():
    desk = Desk()
    desk.hear(at(5, "5"))
    desk.hear(at(9, "5"))
    assert desk.hear(at(8, "3")).stale == {X}


def test_the_greatest_order_is_saved_with_the_next_record():
    desk = Desk()
    desk.hear(at(5, "5"))
    desk.hear(at(9, "5"))
    assert desk.states[X].order == 5
    desk.hear(at(10, "6"))
    assert desk.states[X].order == 10


def test_after_a_start_a_difference_is_doubted_until_one_that_is_not_older_differs_too():
    desk = Desk()
    desk.hear(at(5, "5"))
    desk.restart()
    assert desk.hear(at(7, "3")).candidates == {X}
    assert desk.hear(at(6, "4")).candidates == {X}, "older than the candidate"
    assert desk.events == []
    assert desk.hear(at(8, "9")).candidates == set()
    assert desk.told() == [("5", "9")]


def test_after_a_start_a_request_sent_before_the_candidate_came_proves_nothing():
    desk = Desk()
    desk.hear(at(5, "5"))
    desk.restart()
    desk.hear(at(7, "3"))
    assert desk.hear(at(8, "4"), sent=desk.now - 0.5).candidates == {X}
    assert desk.hear(at(9, "6")).changed == {X}


@pytest.mark.parametrize("ordering", ["strict", "weak", "none"])
def test_after_a_start_a_balance_that_differs_at_every_poll_is_told(ordering):
    desk = Desk(ordering)
    desk.hear(at(5, "5"))
    desk.restart()
    for number in range(6, 20):
        desk.hear(at(number, str(number)))
    assert len(desk.events) >= 10
    assert desk.events[-1].amount == "19"


def test_after_a_start_what_stands_still_is_told_by_three_more_answers():
    desk = Desk()
    desk.hear(at(5, "5"))
    desk.restart()
    for _ in range(3):
        assert desk.hear(at(5, "6")).candidates == {X}
    assert desk.hear(at(5, "6")).changed == {X}
    assert desk.told() == [("5", "6")]


def test_after_a_start_one_equal_reading_restores_confidence():
    desk = Desk()
    desk.hear(at(5, "5"))
    desk.restart()
    desk.hear(at(6, "5"))
    desk.hear(at(7, "3"))
    assert desk.told() == [("5", "3")]


def test_after_a_start_an_older_reading_of_the_committed_amount_restores_nothing():
    desk = Desk()
    desk.hear(at(5, "5"))
    desk.restart()
    assert desk.hear(at(4, "5")).stale == {X}
    assert desk.hear(at(7, "3")).candidates == {X}


# Rule 2: equal.


def test_another_amount_at_the_same_order_is_told_by_a_greater_one():
    desk = Desk()
    desk.hear(at(5, "5"))
    assert desk.hear(at(5, "6")).candidates == {X}
    assert desk.hear(at(5, "6")).candidates == {X}
    assert desk.events == []
    assert desk.hear(at(6, "6")).changed == {X}


def test_another_amount_at_an_order_that_stands_still_is_told_by_three_more_that_say_the_same():
    desk = Desk()
    desk.hear(at(5, "5"))
    for amount in ("6", "6", "5", "6", "6"):  # what is known, in between: it is counted anew
        assert desk.hear(at(5, amount), after=1.0).candidates == {X}
    assert desk.hear(at(5, "6")).changed == {X}
    assert desk.told() == [("5", "6")]


def test_a_doubt_at_an_order_that_stands_still_is_over_once_three_answers_deny_it():
    desk = Desk()
    desk.hear(at(5, "5"))
    assert desk.hear(at(5, "6")).candidates == {X}
    assert desk.ledger.candidate_since("p") == desk.now
    assert desk.hear(at(5, "5")).candidates == {X}
    assert desk.hear(at(5, "5")).candidates == {X}
    assert desk.hear(at(5, "5")).candidates == set()
    assert desk.ledger.candidate_since("p") is None


def test_a_refresh_time_that_stands_still_is_believed_after_settle_alone():
    desk = Desk("weak", settle=30.0)
    desk.hear(at(5, "5"))
    for _ in range(6):
        assert desk.hear(at(5, "6"), after=5.0).candidates == {X}, "out of a cache, perhaps"
    assert desk.hear(at(5, "6"), after=5.0).changed == {X}


def test_what_differs_at_every_answer_of_an_order_that_stands_still_is_told_after_settle():
    desk = Desk("strict", settle=30.0)
    desk.hear(at(5, "5"))
    for number in range(6, 12):
        assert desk.hear(at(5, str(number)), after=5.0).candidates == {X}
    assert desk.hear(at(5, "12"), after=5.0).changed == {X}
    assert desk.told() == [("5", "12")]


def test_a_flapping_label_is_settled_by_the_next_order():
    desk = Desk()
    desk.hear(at(5, "5"))
    for _ in range(4):
        desk.hear(at(5, "6"))
        desk.hear(at(5, "5"))
    assert desk.hear(at(6, "5")).candidates == set()
    assert desk.events == []


# Rule 3: greater, missing, and returns.


def test_a_greater_order_is_told_at_once_even_back_to_a_former_amount():
    desk = Desk()
    for order, amount in enumerate(("5", "6", "5", "6")):
        desk.hear(at(order, amount), after=1.0)
    assert desk.told() == [("5", "6"), ("6", "5"), ("5", "6")]


@pytest.mark.parametrize("ordering", ["none", "weak"])
def test_without_an_order_a_new_amount_is_told_at_once(ordering):
    desk = Desk(ordering)
    desk.hear(says("5"))
    assert desk.hear(says("6")).changed == {X}


def test_without_an_order_a_return_is_doubted_until_the_next_reading_repeats_it():
    desk = Desk("none")
    desk.hear(says("5"))
    desk.hear(says("6"))
    assert desk.hear(says("5")).candidates == {X}
    assert desk.told() == [("5", "6")]
    assert desk.hear(says("5")).candidates == set()
    assert desk.told() == [("5", "6"), ("6", "5")]


def test_a_return_that_the_next_reading_does_not_repeat_is_forgotten():
    desk = Desk("none")
    desk.hear(says("5"))
    desk.hear(says("6"))
    desk.hear(says("5"))
    assert desk.hear(says("6")).candidates == set()
    assert desk.hear(says("5"), after=9.0).candidates == {X}, "it starts anew"
    assert desk.told() == [("5", "6")]


def test_an_amount_that_was_had_longer_ago_is_no_return():
    desk = Desk("none", settle=30.0)
    desk.hear(says("5"))
    desk.hear(says("6"))
    assert desk.hear(says("5"), after=31.0).changed == {X}


def test_what_was_had_survives_a_restart():
    desk = Desk("none")
    desk.hear(says("5"))
    desk.hear(says("6"))
    desk.restart()
    assert desk.hear(says("5")).candidates == {X}
    assert desk.events[-1].amount == "6"


def test_at_most_32_former_amounts_are_remembered():
    desk = Desk("none", settle=1e6)
    for number in range(40):
        desk.hear(says(str(number)))
    assert [recent_amounts.amount for recent_amounts in desk.states[X].recent_amounts] == [str(n) for n in range(7, 39)]
    assert desk.hear(says("3")).changed == {X}


def test_former_amounts_are_forgotten_after_settle():
    desk = Desk("none")
    desk.hear(says("5"))
    desk.hear(says("6"))
    assert desk.ledger.get(X).recent_amounts
    desk.hear(says("6"), after=31.0)
    assert not desk.ledger.get(X).recent_amounts


def test_a_weak_order_must_be_newer_to_confirm_a_return():
    desk = Desk("weak")
    desk.hear(at(1, "5"))
    desk.hear(at(2, "6"))
    assert desk.hear(at(3, "5"), after=5.0).candidates == {X}
    assert desk.hear(at(3, "5"), after=5.0).candidates == {X}, "a cached answer repeats itself"
    assert desk.hear(at(4, "5"), after=5.0).changed == {X}


@pytest.mark.parametrize("ordering", ["weak", "none"])
def test_returns_that_take_turns_are_told_after_settle(ordering):
    desk = Desk(ordering, settle=30.0)
    for number, amount in enumerate(("1", "2", "3")):
        desk.hear(at(number, amount), after=1.0)
    for number in range(3, 45):
        desk.hear(at(number, "12"[number % 2]), after=1.0)
    assert desk.told()[:2] == [("1", "2"), ("2", "3")]
    assert desk.told()[2][0] == "3"


def test_an_amount_that_was_doubted_within_one_tick_is_a_return_too():
    desk = Desk("weak")
    for amount, order in (("1", 10), ("2", 10), ("3", 11)):
        desk.hear(at(order, amount))
    desk.hear(at(12, "2"))
    assert desk.told() == [("1", "3")]
    desk.hear(at(13, "3"))
    desk.hear(at(14, "2"))
    desk.hear(at(15, "2"))
    assert desk.told() == [("1", "3"), ("3", "2")]


# Rule 4: absences.


def test_a_row_that_vanishes_is_told_when_the_next_listing_lacks_it_too():
    desk = Desk(listing=ACCOUNT)
    desk.hear(at(1, "5"), at(1, "7", Y))
    assert desk.hear(at(2, "5")).candidates == {Y}
    assert desk.events == []
    assert desk.hear(at(3, "5")).changed == {Y}
    (event,) = desk.events
    assert (event.previous_amount, event.amount, event.slot, event.as_of) == ("7", "0", None, None)
    assert desk.states[Y].order == 3, "the listing's greatest slot"


def test_a_row_missing_once_is_nothing():
    desk = Desk(listing=ACCOUNT)
    desk.hear(at(1, "5"), at(1, "7", Y))
    desk.hear(at(2, "5"))
    assert desk.hear(at(3, "5"), at(3, "7", Y)).candidates == set()
    desk.hear(at(4, "5"))
    assert desk.events == []


def test_an_older_listing_says_nothing_of_newer_rows():
    desk = Desk(listing=ACCOUNT)
    desk.hear(at(5, "5"))
    desk.hear(at(6, "5"))
    desk.hear(at(9, "5"), at(9, "7", Y))
    for _ in range(3):
        assert desk.hear(at(7, "5")).candidates == set()
    assert desk.told(Y) == [("0", "7")]


def test_a_vanished_row_stays_away_from_older_listings():
    desk = Desk(listing=ACCOUNT)
    desk.hear(at(1, "5"), at(1, "7", Y))
    desk.hear(at(5, "5"))
    desk.hear(at(6, "5"))
    assert desk.told(Y) == [("7", "0")]
    desk.hear(at(4, "5"), at(4, "7", Y))
    assert desk.told(Y) == [("7", "0")]


def test_the_newest_row_may_be_the_one_that_vanished():
    desk = Desk(listing=ACCOUNT)
    desk.hear(at(1, "5"), at(9, "7", Y))
    desk.hear(at(1, "5"))
    desk.hear(at(1, "5"))
    assert desk.told(Y) == [("7", "0")]
    assert desk.states[Y].order == 9, "the greatest never goes down"


def collapsing(rows, left, settle=30.0):
    """Rows of which a listing names only the first `left`, until it is believed; how many answers that took."""
    desk = Desk("none", settle=settle, listing=ACCOUNT)
    keys = [Key("p", "c", "a", str(number)) for number in range(rows)]
    for _ in range(2):
        desk.hear(*(says("5", key) for key in keys))
    for answers in range(1, 20):
        if desk.hear(*(says("5", key) for key in keys[:left])).changed:
            assert {event.key for event in desk.events} == set(keys[left:])
            return answers
    raise AssertionError("never believed")


@pytest.mark.parametrize(
    ("rows", "left", "answers"),
    [(1, 0, 4), (2, 0, 4), (4, 1, 4), (5, 2, 4), (2, 1, 2), (3, 1, 2), (4, 2, 2), (9, 8, 2)],
)
def test_a_collapse_takes_three_answers_over_settle_and_fewer_absences_two(rows, left, answers):
    assert collapsing(rows, left) == answers


def test_a_collapse_takes_three_answers_however_short_settle_is():
    assert collapsing(4, 0, settle=0.0) == 3


def test_a_collapse_that_passes_told_nothing():
    desk = Desk(listing=ACCOUNT)
    for order in range(1, 6):
        desk.hear(*(at(order, "7", key) for key in (X, Y, Z)))
        for _ in range(2 if order > 1 else 0):
            assert desk.hear().candidates == {X, Y, Z}
    assert desk.events == []


def test_what_is_missing_again_after_a_collapse_is_told_by_the_usual_two():
    desk = Desk("none", listing=ACCOUNT)
    desk.hear(says("5"), says("7", Y), says("8", Z))
    desk.hear()
    assert desk.hear(says("5"), says("7", Y)).changed == {Z}


def test_what_a_collapsed_answer_empties_itself_was_known_before_it():
    desk = Desk("none", listing=ACCOUNT)
    native = Key("p", "c", "a", "native")
    for _ in range(2):
        desk.hear(says("1", native), says("5"), says("7", Y), says("8", Z))
    for _ in range(3):
        assert desk.hear(says("0", native)).changed <= {native}
    assert desk.hear(says("0", native)).changed == {X, Y, Z}


def test_balances_that_appear_are_not_those_that_were_known():
    desk = Desk("none", listing=ACCOUNT)
    others = [Key("p", "c", "a", f"other {number}") for number in range(5)]
    for _ in range(2):
        desk.hear(*(says("5", Key("p", "c", "a", str(number))) for number in range(12)))
    for _ in range(3):
        desk.hear(*(says("5", key) for key in others))
    assert {event.key for event in desk.events} == set(others)


def test_a_collapse_whose_slot_comes_later_is_counted_from_its_first_answer():
    desk = Desk("weak", settle=30.0, listing=ACCOUNT)
    native = Key("p", "c", "a", "native")
    for order in (1, 2):
        desk.hear(*(at(order, "5", key) for key in (native, X, Y, Z)))
    desk.hear(after=20.0)
    desk.hear(at(4, "5", native), after=20.0)
    assert desk.hear(at(5, "5", native), after=20.0).changed == {X, Y, Z}


def test_a_row_vanishes_beside_one_that_is_always_in_doubt():
    desk = Desk(listing=ACCOUNT)
    for _ in range(2):
        desk.hear(at(1, "5"), at(9, "7", Y))
    assert desk.hear(at(1, "100")).candidates == {X, Y}
    assert desk.hear(at(1, "101")).changed == {Y}


def test_a_row_that_was_missing_for_long_comes_back_with_the_slot_of_its_last_write():
    """As after an outage over there in which wallets were shown empty: its slot is older than the listing without it."""
    desk = Desk(listing=ACCOUNT, settle=30.0)
    for order in (5, 6):
        desk.hear(at(order, "5"), at(1, "7", Y))
    for order in (7, 8):
        desk.hear(at(order, "5"))
    assert desk.told(Y) == [("7", "0")]
    desk.restart()
    for order in (9, 10, 11):
        assert desk.hear(at(order, "5"), at(1, "7", Y)).candidates == {Y}
    assert desk.hear(at(12, "5"), at(1, "7", Y)).changed == {Y}
    assert desk.told(Y) == [("7", "0"), ("0", "7")]
    desk.hear(at(13, "5"), at(1, "7", Y))
    desk.hear(at(14, "5"), at(14, "9", Y))
    assert desk.told(Y)[2:] == [("7", "9")]


def test_listings_that_lag_bring_nothing_back_while_others_do_not():
    desk = Desk(listing=ACCOUNT, settle=30.0)
    for order in (5, 6):
        desk.hear(at(order, "5"), at(order, "7", Y))
    for order in (7, 8):
        desk.hear(at(order, "5"))
    for order in range(9, 30):
        desk.hear(*([at(4, "5"), at(4, "7", Y)] if order % 3 else [at(order, "5")]))
    assert desk.told(Y) == [("7", "0")]


# Partial listings.


def test_a_partial_listing_speaks_for_what_it_names_and_proves_no_absence():
    desk = Desk("none", listing=ACCOUNT)
    for _ in range(2):
        desk.hear(says("5"), says("7", Y))
    desk.partial = True
    for _ in range(5):
        assert desk.hear(says("6")).candidates == set()
    assert desk.told() == [("5", "6")]
    assert desk.told(Y) == []


def test_a_partial_listing_neither_confirms_nor_refutes_an_absence():
    desk = Desk("none", listing=ACCOUNT)
    for _ in range(2):
        desk.hear(says("5"), says("7", Y))
    desk.hear(says("5"))
    desk.partial = True
    desk.hear(says("5"))
    assert desk.told(Y) == []
    desk.partial = False
    assert desk.hear(says("5")).changed == {Y}


def test_a_row_that_appears_in_a_partial_listing_is_a_change_once_the_baseline_is_complete():
    desk = Desk("none", listing=ACCOUNT)
    desk.partial = True
    for _ in range(3):
        desk.hear(says("5"))
    desk.hear(says("5"), says("7", Y))
    assert desk.events == [], "no listing was complete"
    desk.partial = False
    for _ in range(2):
        desk.hear(says("5"), says("7", Y))
    desk.partial = True
    desk.hear(says("5"), says("8", Z))
    assert desk.told(Z) == [("0", "8")]


# Rule 10: order has bounds.


def went_back(desk, *readings, after):
    """How many such answers it takes until the order is given up."""
    for answers in range(1, 100):
        if desk.hear(*readings, after=after).went_back:
            return answers
    raise AssertionError("never")


@pytest.mark.parametrize(("after", "answers"), [(1.0, 901), (60.0, 16), (300.0, 10)])
def test_an_order_that_everything_is_older_than_is_given_up_after_ten_answers_and_a_quarter_of_an_hour(after, answers):
    desk = Desk()
    desk.hear(at(10**9, "5"))
    for number in range(1, answers):
        assert not desk.hear(at(number, "6"), after=after).went_back
    assert desk.hear(at(1000, "6"), after=after).went_back == {X}
    assert desk.told() == [("5", "6")]
    assert desk.states[X].order == 1000
    assert desk.hear(at(1001, "7")).changed == {X}, "and begins anew there"


def test_one_answer_that_is_not_older_keeps_the_order():
    desk = Desk()
    desk.hear(at(1000, "5"))
    assert desk.ledger.stale_since("p") is None
    for number in range(40):
        assert (desk.ledger.stale_since("p") is None) == (number % 15 == 0)
        assert not desk.hear(at(1000 if number % 15 == 14 else number, "5"), after=60.0).went_back
    assert desk.events == []


def test_a_listing_that_goes_on_without_a_row_is_not_older_than_it():
    desk = Desk(listing=ACCOUNT)
    for order in (1, 2):
        desk.hear(at(order, "5"), at(order, "0", Y))
    desk.hear(at(10, "5"), at(10, "0", Y))
    for order in range(11, 60):
        assert not desk.hear(*([at(4, "5"), at(4, "0", Y)] if order % 5 else [at(order, "5")]), after=60.0).went_back
        assert (desk.ledger.stale_since("p") is None) == (order % 5 == 0)


def test_an_order_that_went_back_is_given_up_with_the_amount_unchanged_and_after_a_restart():
    desk = Desk()
    desk.hear(at(10**9, "5"))
    desk.restart()
    assert went_back(desk, at(7, "5"), after=100.0) == 10
    assert desk.events == []
    assert desk.hear(at(8, "6")).changed == {X}


def test_a_cluster_that_began_anew_lets_rows_vanish_and_appear():
    desk = Desk(listing=ACCOUNT)
    for order in (10**6, 10**6 + 1):
        desk.hear(at(order, "5"), at(order, "7", Y))
    assert went_back(desk, at(3, "5"), after=100.0) == 10
    for order in range(4, 8):
        desk.hear(at(order, "5"), at(order, "9", Z))
    assert desk.told(Y) == [("7", "0")]
    assert desk.told(Z) == [("0", "9")]
    assert desk.hear(at(9, "5"), at(9, "9", Z), at(9, "1", Y)).changed == {Y}


def test_without_an_order_nothing_can_go_back():
    desk = Desk("none")
    desk.hear(says("5"))
    for _ in range(30):
        verdict = desk.hear(says("6"), sent=0.0, after=100.0)
        assert not verdict.went_back


def test_what_is_absent_and_already_zero_stays():
    desk = Desk(listing=ACCOUNT)
    desk.hear(at(1, "5"), at(1, "0", Y))
    for order in range(2, 6):
        assert desk.hear(at(order, "5")).candidates == set()
    assert desk.events == []


def test_an_account_not_found_is_told_at_the_second_answer():
    desk = Desk()
    desk.hear(at(5, "5"))
    assert desk.hear(nothing()).candidates == {X}
    assert desk.hear(nothing()).changed == {X}
    assert desk.events[0].slot is None
    assert desk.states[X].absent_without_order


def test_after_an_unslotted_absence_a_former_amount_needs_a_greater_slot_twice():
    desk = Desk()
    desk.hear(at(5, "5"))
    desk.hear(nothing(), after=3.0)
    desk.hear(nothing(), after=3.0)
    assert desk.hear(at(7, "5"), after=3.0).candidates == {X}
    assert desk.hear(at(7, "5"), after=3.0).candidates == {X}
    assert desk.told() == [("5", "0")]
    assert desk.hear(at(8, "5"), after=3.0).changed == {X}


def test_after_an_unslotted_absence_another_amount_is_told_at_once():
    desk = Desk()
    desk.hear(at(5, "5"))
    desk.hear(nothing())
    desk.hear(nothing())
    assert desk.hear(at(7, "6")).changed == {X}


def test_a_balance_absent_from_the_first_answer_on_is_a_baseline_of_zero():
    desk = Desk()
    assert desk.hear(nothing()).baselines == 0
    assert desk.states == {}
    assert desk.hear(nothing()).baselines == 1
    assert (desk.states[X].amount, desk.states[X].version) == ("0", 0)
    desk.hear(at(1, "5"))
    assert desk.told() == [("0", "5")]


def test_a_balance_found_at_the_second_answer_is_a_baseline():
    desk = Desk()
    desk.hear(nothing())
    desk.hear(at(1, "5"))
    assert (desk.states[X].amount, desk.events) == ("5", [])


# Rule 5: overlapping requests.


def test_a_request_sent_before_the_candidate_was_answered_confirms_nothing():
    desk = Desk("none")
    desk.hear(says("5"))
    desk.hear(says("6"))
    desk.hear(says("5"))
    candidate_at = desk.now
    assert desk.hear(says("5"), sent=candidate_at).candidates == {X}
    assert desk.hear(says("5"), sent=candidate_at + 0.1).changed == {X}


def test_an_overlapping_request_does_not_refute_a_candidate():
    desk = Desk(listing=ACCOUNT)
    desk.hear(at(1, "5"), at(1, "7", Y))
    desk.hear(at(2, "5"))
    assert desk.hear(at(2, "5"), at(2, "7", Y), sent=desk.now - 0.5).candidates == {Y}
    assert desk.hear(at(3, "5")).changed == {Y}


@pytest.mark.parametrize("ordering", ["none", "weak"])
def test_without_an_order_overlapping_requests_do_not_undo_one_another(ordering):
    desk = Desk(ordering)
    desk.hear(says("5"))
    desk.hear(says("6"))
    verdict = desk.hear(says("4"), sent=desk.now - 0.5)
    assert (verdict.stale, verdict.changed, verdict.candidates) == ({X}, set(), set())
    assert desk.told() == [("5", "6")]


def test_an_overlapping_absence_is_dropped():
    desk = Desk()
    desk.hear(at(1, "5"))
    assert desk.hear(nothing(), sent=desk.now - 0.5).candidates == set()


# Rule 6: the baseline of a listing.


def test_a_row_first_seen_in_the_second_listing_is_baseline_too():
    desk = Desk(listing=ACCOUNT)
    desk.hear(at(1, "5"))
    desk.hear(at(2, "5"), at(2, "7", Y))
    assert (desk.states[Y].version, desk.events) == (0, [])


def test_a_row_that_appears_later_is_a_change_from_zero():
    desk = Desk(listing=ACCOUNT)
    desk.hear(at(1, "5"))
    desk.hear(at(2, "5"))
    desk.hear(at(3, "5"), at(3, "7", Y))
    (event,) = desk.events
    assert (event.key, event.version, event.previous_amount, event.amount) == (Y, 1, "0", "7")
    assert event.previous_observed_at == clock(20), "the last complete listing without it"
    assert desk.states[Y].version == 1


def test_a_row_that_appears_with_nothing_in_it_is_no_change():
    desk = Desk(listing=ACCOUNT)
    desk.hear(at(1, "5"))
    desk.hear(at(2, "5"))
    desk.hear(at(3, "5"), at(3, "0", Y))
    assert (desk.states[Y].version, desk.events) == (0, [])
    desk.hear(at(4, "5"), at(4, "2", Y))
    assert desk.told(Y) == [("0", "2")]


@pytest.mark.parametrize("restarts_after", [1, 2])
def test_the_baseline_of_a_listing_is_remembered_across_restarts(restarts_after):
    desk = Desk("none", listing=ACCOUNT)
    for number in range(1, 3):
        desk.hear(says("5"))
        if number == restarts_after:
            desk.restart()
    desk.hear(says("5"), says("7", Y))
    assert desk.told(Y) == [("0", "7")]
    assert desk.events[0].previous_observed_at == clock(20)


def test_even_an_empty_listing_has_a_baseline():
    desk = Desk("none", listing=ACCOUNT)
    desk.hear()
    desk.hear()
    desk.hear(says("5"))
    assert desk.told() == [("0", "5")]


def test_a_row_that_only_an_overlapping_request_names_is_dropped_without_an_order():
    desk = Desk("none", listing=ACCOUNT)
    desk.hear(says("5"))
    desk.hear(says("5"))
    assert desk.hear(says("5"), says("7", Y), sent=desk.now - 0.5).stale == {Y}
    assert desk.events == []
    desk.hear(says("5"), says("7", Y))
    assert desk.told(Y) == [("0", "7")]


def test_a_row_that_came_and_went_before_the_last_listing_is_not_told_by_a_late_one():
    desk = Desk(listing=ACCOUNT)
    desk.hear(at(1, "5"))
    desk.hear(at(9, "5"))
    assert desk.hear(at(4, "5"), at(4, "7", Y)).candidates == {Y}
    desk.hear(at(10, "5"))
    desk.hear(at(11, "5"))
    assert desk.events == []


def test_a_listing_added_later_makes_no_change_of_what_it_names_first():
    desk = Desk("none")
    desk.hear(says("5"))
    desk.listing = ACCOUNT
    desk.hear(says("5"), says("7", Y))
    desk.hear(says("5"), says("7", Y), says("9", Z))
    assert desk.events == []


def test_a_balance_watched_alone_beside_a_listing_is_one_balance():
    desk = Desk("none", listing=ACCOUNT)
    desk.hear(says("5"))
    desk.hear(says("5"))
    desk.listing = None
    desk.hear(says("6"))
    desk.listing = ACCOUNT
    desk.hear(says("6"))
    assert desk.told() == [("5", "6")]


def test_a_listing_removed_and_added_again_tells_what_happened_in_between_once():
    desk = Desk("none", listing=ACCOUNT)
    desk.hear(says("5"))
    desk.hear(says("5"))
    desk.restart()
    desk.listing = None
    desk.hear(Reading(Key("p", "c", "b", "x"), "1", "decimal"))
    desk.restart()
    desk.listing = ACCOUNT
    desk.hear(says("6"), after=1000.0)
    assert desk.told() == [("5", "6")]


def test_a_listing_does_not_speak_for_other_accounts_tokens_or_providers():
    desk = Desk("none")
    others = [Key("p", "c", "b", "x"), Key("p", "d", "a", "x"), Key("q", "c", "a", "x")]
    desk.hear(*(says("5", key) for key in [X, *others]))
    for desk.listing, gone in ((ACCOUNT, X), (Scope("p", "c", None, "x"), others[0])):
        for _ in range(3):
            assert desk.hear().changed == set()
        assert desk.hear().changed == {gone}


def test_one_listing_covers_all_kinds_of_a_token():
    desk = Desk("none", listing=ACCOUNT)
    kinds = [Key("p", "c", "a", "x", kind) for kind in ("settled", "unsettled")]
    desk.hear(says("5", Y), *(says("5", key) for key in kinds))
    desk.hear(says("5", Y), says("5", kinds[0]))
    assert desk.hear(says("5", Y), says("5", kinds[0])).changed == {kinds[1]}


# Pending changes and commits.


def test_a_newer_change_replaces_the_pending_one():
    desk = Desk()
    desk.hear(at(1, "5"))
    desk.ledger.evaluate(desk.answer(at(2, "6")))
    desk.ledger.evaluate(desk.answer(at(3, "7")))
    assert desk.ledger.pending == 1
    desk.commit()
    (event,) = desk.events
    assert (event.previous_amount, event.amount, event.version) == ("5", "7", 1)
    assert (event.previous_observed_at, event.observed_at) == (clock(10), clock(30))


def test_a_return_to_the_committed_amount_takes_the_pending_change_back():
    desk = Desk()
    desk.hear(at(1, "5"))
    desk.ledger.evaluate(desk.answer(at(2, "6")))
    desk.ledger.evaluate(desk.answer(at(3, "5")))
    assert desk.ledger.pending == 0


def test_what_arrives_during_a_commit_is_told_by_the_next():
    desk = Desk()
    desk.hear(at(1, "5"))
    desk.ledger.evaluate(desk.answer(at(2, "6")))
    desk.write()
    desk.ledger.evaluate(desk.answer(at(3, "5")))
    desk.ledger.committed()
    desk.commit()
    assert desk.told() == [("5", "6"), ("6", "5")]
    assert [event.version for event in desk.events] == [1, 2]
    assert desk.events[1].previous_observed_at == clock(20)


def test_a_commit_that_failed_pends_again():
    desk = Desk()
    desk.hear(at(1, "5"))
    desk.ledger.evaluate(desk.answer(at(2, "6")))
    desk.ledger.take()
    desk.reopen()
    desk.commit()
    assert desk.told() == [("5", "6")]
    assert desk.events[0].previous_observed_at == clock(10)


def test_a_commit_that_was_only_thought_to_have_failed_is_not_told_twice():
    desk = Desk()
    desk.hear(at(1, "5"))
    desk.ledger.evaluate(desk.answer(at(2, "6")))
    desk.write()
    desk.reopen()
    assert desk.ledger.pending == 0
    desk.hear(at(3, "7"))
    assert desk.told() == [("5", "6"), ("6", "7")]


def test_a_failed_commit_gives_way_to_what_is_newer():
    desk = Desk()
    desk.hear(at(1, "5"))
    desk.ledger.evaluate(desk.answer(at(2, "6")))
    desk.ledger.take()
    desk.ledger.evaluate(desk.answer(at(3, "7")))
    desk.reopen()
    desk.commit()
    assert desk.told() == [("5", "7")]
    assert desk.events[0].previous_observed_at == clock(10)


def test_a_failed_commit_that_was_taken_back_meanwhile_is_forgotten():
    desk = Desk()
    desk.hear(at(1, "5"))
    desk.ledger.evaluate(desk.answer(at(2, "6")))
    desk.ledger.take()
    desk.ledger.evaluate(desk.answer(at(3, "5")))
    desk.reopen()
    assert desk.ledger.pending == 0
    desk.hear(at(4, "8"))
    assert desk.told() == [("5", "8")]


def test_a_baseline_that_failed_is_still_a_baseline():
    desk = Desk()
    desk.ledger.evaluate(desk.answer(at(1, "5")))
    desk.ledger.take()
    desk.ledger.evaluate(desk.answer(at(2, "6")))
    desk.reopen()
    desk.commit()
    assert (desk.states[X].version, desk.states[X].amount, desk.events) == (0, "6", [])


def test_reopening_the_journal_keeps_the_greatest_order_and_confidence():
    desk = Desk()
    desk.hear(at(1, "5"))
    desk.hear(at(9, "5"))
    desk.reopen()
    assert desk.hear(at(8, "3")).stale == {X}
    assert desk.hear(at(10, "3")).changed == {X}


def test_what_another_instance_committed_wins_over_what_pends():
    desk = Desk()
    desk.hear(at(1, "5"))
    desk.ledger.evaluate(desk.answer(at(2, "6")))
    foreign = BalanceState(
        **{f: getattr(desk.states[X], f) for f in BalanceState.__struct_fields__} | {"version": 3, "amount": "9"}
    )
    desk.states[X] = foreign
    desk.reopen()
    assert desk.ledger.pending == 0
    desk.hear(at(3, "6"))
    desk.hear(at(4, "6"))
    assert [(e.version, e.previous_amount, e.amount) for e in desk.events] == [(4, "9", "6")]


def test_rows_are_taken_in_order_and_not_more_than_asked():
    desk = Desk()
    keys = [Key("p", "c", "a", f"t{n}") for n in range(5)]
    desk.ledger.evaluate(desk.answer(*(at(1, "5", key) for key in keys)))
    taken = []
    while desk.ledger.pending:
        rows = desk.ledger.take(2).rows
        taken.append([row.state.key for row in rows])
        desk.ledger.committed()
    assert taken == [keys[:2], keys[2:4], keys[4:]]
    assert len(desk.ledger) == 5


def test_a_listings_note_follows_its_baselines():
    desk = Desk(listing=ACCOUNT)
    keys = [Key("p", "c", "a", f"t{n}") for n in range(5)]
    desk.ledger.evaluate(desk.answer(*(at(1, "5", key) for key in keys)))
    assert desk.ledger.take(4).notes == {}
    desk.ledger.committed()
    assert list(desk.ledger.take(4).notes) == [ACCOUNT.note_key]
    desk.reopen()
    assert not desk.ledger.idle
    assert list(desk.ledger.take().notes) == [ACCOUNT.note_key]
    desk.ledger.committed()
    assert desk.ledger.idle


def test_a_large_listing_is_judged_in_slices_between_which_others_may_speak():
    desk = Desk("none", listing=Scope("p", "c", None, "x"))
    keys = [Key("p", "c", f"a{n}", "x") for n in range(12_000)]
    for _ in range(2):
        desk.ledger.evaluate(desk.answer(*(says("5", key) for key in keys)))
    while desk.ledger.pending:
        desk.ledger.take()
        desk.ledger.committed()
    evaluating = desk.ledger.evaluating(desk.answer(*(says("5", key) for key in keys[:-1])))
    next(evaluating)
    desk.listing = None
    newcomer, first = Key("p", "c", "new", "x"), keys[0]
    desk.ledger.evaluate(desk.answer(says("1", newcomer), says("6", first)))
    rest = 0
    while True:
        try:
            next(evaluating)
        except StopIteration as end:
            verdict = end.value
            break
        rest += 1
    assert rest >= 1
    assert verdict.candidates == {keys[-1]}, "only what it lacked, not what others said meanwhile"


@pytest.mark.parametrize("left", [0, 1, 1_500], ids=["none", "one", "half"])
def test_a_wallet_of_many_tokens_that_go_is_judged_in_slices_too(left):
    desk = Desk("none", listing=Scope("p", "c", "a"))
    keys = [Key("p", "c", "a", f"t{n}") for n in range(3_000)]
    for _ in range(2):
        desk.ledger.evaluate(desk.answer(*(says("5", key) for key in keys)))
    while desk.ledger.pending:
        desk.ledger.take()
        desk.ledger.committed()
    doubts = desk.ledger._store.open_candidates["p"]
    evaluating = desk.ledger.evaluating(desk.answer(*(says("5", key) for key in keys[:left])))
    judged = [0, *(len(doubts) for _ in evaluating), len(doubts)]
    assert judged[-1] == len(keys) - left
    assert max(after - before for before, after in pairwise(judged)) <= CHANGED_ROWS
    assert len(judged) > 2 * (len(keys) - left) / CHANGED_ROWS, "to find them is work, too"


def test_reopening_the_journal_ends_a_listing_half_way_and_it_proves_nothing():
    desk = Desk("none", listing=Scope("p", "c", None, "x"))
    keys = [Key("p", "c", f"a{n}", "x") for n in range(12_000)]
    evaluating = desk.ledger.evaluating(desk.answer(*(says("5", key) for key in keys)))
    next(evaluating)
    desk.reopen()
    assert list(evaluating) == []
    assert 0 < desk.ledger.pending < len(keys)
    while not desk.ledger.idle:
        desk.commit()
    assert desk.notes == {}


def test_what_is_not_decided_of_a_balance_that_nobody_reads_any_more_is_forgotten():
    desk = Desk()
    desk.hear(at(5, "10"), at(5, "20", Y))
    desk.hear(at(5, "11"), at(5, "21", Y))
    since = desk.ledger.candidate_since("p")
    assert since is not None
    desk.ledger.forget_undecided("p", lambda key: key == Y)
    assert desk.ledger.get(X).candidate is None
    assert desk.ledger.get(Y).candidate is not None
    desk.hear(at(4, "9"))
    assert desk.ledger.stale_since("p") is not None
    desk.ledger.forget_undecided("p", lambda _: False)
    assert desk.ledger.candidate_since("p") is desk.ledger.stale_since("p") is None
    desk.hear(at(6, "10"), at(6, "20", Y))
    assert desk.events == []
