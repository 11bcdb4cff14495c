"""What a provider invents does not grow the state: `max_balances`, and what becomes of those that were not taken in."""

import msgspec
import pytest
from structlog.testing import capture_logs

from tests.ledger.test_ledger import Desk, at, says
from tests.providers.golden import ACCOUNT
from tests.providers.tables import built
from watcher.ledger import Ledger
from watcher.ledger.pending_changes import SHARED_ROWS
from watcher.ledger.store import MOST_DENOMINATIONS, Store
from watcher.model.bulk_listing import BulkListing, TokenColumn
from watcher.model.keys import Key, Scope
from watcher.poller.poll_stats import PollStats

ACCOUNT_SCOPE = Scope("p", "c", "a")


def named(number):
    return Key("p", "c", "a", f"t{number}")


class Bounded(Desk):
    """Not more than `max_known` balances of the provider."""

    def __init__(self, max_known, ordering="none", listing=ACCOUNT_SCOPE):
        super().__init__(ordering, listing=listing)
        self.max_known = max_known

    def answer(self, *readings, **times):
        return msgspec.structs.replace(super().answer(*readings, **times), max_known=self.max_known)

    def list(self, *numbers, amount="1"):
        return self.hear(*(says(amount, named(number)) for number in numbers))


def test_a_balance_beyond_the_bound_is_not_taken_in_and_those_that_are_known_go_on():
    desk = Bounded(3)
    verdict = desk.list(*range(10))
    assert (verdict.baselines, verdict.refused) == (3, 7)
    desk.list(*range(10))
    verdict = desk.list(*range(10), amount="2")
    assert verdict.changed == {named(0), named(1), named(2)}
    assert len(desk.states) == desk.ledger.known("p") == 3
    assert [event.amount for event in desk.events] == ["2"] * 3


def test_a_known_balance_that_is_gone_is_told_while_there_is_no_room():
    desk = Bounded(3)
    for _ in range(2):
        desk.list(*range(10))
    for _ in range(2):
        desk.list(1, 2, *range(5, 10))
    assert desk.told(named(0)) == [("1", "0")]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("before", [0, 3])
def test_what_was_not_taken_in_is_a_baseline_and_no_change_once_there_is_room(restarted, before):
    desk = Bounded(3)
    for _ in range(before):
        desk.list(0, 1)  # the listing's own baseline is complete
    for _ in range(3):
        desk.list(*range(10))
    desk.max_known = 100
    if restarted:
        desk.restart()
    for _ in range(2):
        desk.list(*range(10))
    assert [event.key for event in desk.events] == [named(2)] * bool(before)
    assert {desk.states[named(number)].version for number in range(3, 10)} == {0}
    desk.list(*range(11))
    assert desk.told(named(10)) == [("0", "1")], "and from then on what appears is a change"


def test_the_journal_learns_that_a_baseline_begins_anew_whatever_is_in_flight():
    desk = Bounded(3)
    desk.list(0)
    desk.ledger.evaluate(desk.answer(says("1", named(0))))  # complete now
    notes = desk.ledger.take().notes
    assert notes
    desk.ledger.evaluate(desk.answer(*(says("1", named(number)) for number in range(9))))
    desk.notes |= notes
    desk.ledger.committed()
    desk.commit()
    desk.max_known = 100
    desk.restart()
    desk.list(*range(9))
    assert desk.events == [event for event in desk.events if event.key in (named(1), named(2))]
    assert len(desk.states) == 9


def test_a_journal_that_was_opened_again_does_not_bring_the_old_baseline_back():
    desk = Bounded(2)
    for _ in range(2):
        desk.list(0)
    desk.ledger.evaluate(desk.answer(*(says("1", named(number)) for number in range(5))))
    desk.reopen()  # and nothing of that answer was committed
    desk.max_known = 100
    desk.list(*range(5))
    assert {event.key for event in desk.events} <= {named(1)}


def test_part_of_a_listing_says_no_more_of_what_was_not_taken_in():
    desk = Bounded(2)
    for _ in range(2):
        desk.list(0)
    desk.partial = True
    desk.list(0, 1, 2)
    desk.partial, desk.max_known = False, 100
    desk.list(0, 1, 2)
    assert desk.told(named(2)) == []


def test_a_pair_beyond_the_bound_is_unknown():
    desk = Bounded(1, ordering="strict", listing=None)
    desk.hear(at(1, "5", named(0)))
    assert desk.hear(at(1, "5", named(1))).refused == 1
    desk.max_known = 2
    assert desk.hear(at(2, "6", named(1))).baselines == 1
    assert desk.events == []


def test_a_repeated_body_is_heard_whole_as_long_as_something_is_left_out():
    desk = Bounded(1)
    whole = [says("1", named(number)) for number in range(3)]
    for _ in range(4):
        said = msgspec.structs.replace(desk.answer(*whole), fingerprint=b"same")
        assert desk.ledger.repeats(said) is None
        assert desk.ledger.evaluate(said).refused == 2
        desk.commit()


def test_names_that_are_not_taken_in_leave_nothing_behind():
    """Twenty thousand new tokens in each answer, as readings and as columns."""
    desk = Bounded(3)
    for turn in range(3):
        desk.list(*range(20_000 * turn, 20_000 * (turn + 1)))
    chain = Scope("p", "c")
    for turn in range(3):
        columns = [TokenColumn("c", f"u{turn}-{number}", None, [(("a",), ("1",))]) for number in range(500)]
        rows = BulkListing(
            "p", columns, lambda column, account, amount: says(amount, Key("p", "c", account, column.token))
        )
        said = msgspec.structs.replace(desk.answer(), readings=rows, listing=chain)
        assert desk.ledger.evaluate(said).refused == 500
        desk.commit()
    assert desk.ledger.known("p") == 3
    assert len(desk.ledger._store.within(Scope("p"))) == 3


def test_denominations_are_shared_and_not_kept_for_ever():
    store = Store()
    for number in range(3 * MOST_DENOMINATIONS):
        denomination = store.denomination("base", 6, str(number))
        assert store.denomination("base", 6, str(number)) is denomination
        assert len(store._denominations) <= MOST_DENOMINATIONS


def test_a_smaller_bound_than_what_is_known_keeps_what_is_known():
    desk = Bounded(10)
    desk.list(*range(5))
    desk.max_known = 2
    desk.restart()
    verdict = desk.list(*range(6), amount="2")
    assert (verdict.refused, len(desk.events)) == (1, 5)


def test_the_bound_is_a_key_of_the_table_and_has_a_default():
    watch = {"account": ACCOUNT}
    assert built("jupiter", watch).max_balances == 250_000
    assert built("jupiter", watch, max_balances=7).max_balances == 7
    assert built("ondo", {"chain": "ethereum-1"}).max_balances == 1_000_000
    with pytest.raises(msgspec.ValidationError, match="max_balances"):
        built("jupiter", watch, max_balances=0)


def test_that_there_is_no_room_is_told_once_and_stands_in_the_providers_trouble():
    stats = PollStats("p")
    with capture_logs() as logs:
        for _ in range(50):
            stats.over_capacity("account a", 7, 100)
            stats.over_capacity("account b", 0, 100)
            stats.over_capacity("account c", 3, 100)
        assert stats.problem == "10 balances are not taken in: 100 may be known (max_balances)"
        stats.over_capacity("account a", 0, 100)
        assert stats.problem is not None
        stats.over_capacity("account c", 0, 100)
    assert stats.problem is None
    assert [line["event"] for line in logs] == ["provider.full", "provider.has_room"]


def test_of_many_balances_whose_order_went_back_at_once_some_are_named():
    stats = PollStats("p")
    verdict = Ledger().evaluate(Desk().answer())
    verdict.went_back = {named(number) for number in range(5000)}
    with capture_logs() as logs:
        stats.answered(verdict)
    assert [line["others_untold"] for line in logs] == [4990] * 10
    assert stats.went_back == 5000


def test_rows_of_a_provider_that_tells_much_do_not_come_before_those_of_one_that_tells_little():
    desk = Desk(listing=None)
    desk.ledger.evaluate(desk.answer(*(at(1, "5", named(number)) for number in range(5000))))
    other = Key("q", "c", "a", "x")
    said = msgspec.structs.replace(desk.answer(at(1, "5", other)), provider="q")
    desk.ledger.evaluate(said)
    assert (desk.ledger.waiting("p"), desk.ledger.waiting("q"), desk.ledger.pending) == (5000, 1, 5001)
    rows = desk.ledger.take(1000).rows
    assert len(rows) == SHARED_ROWS
    assert other in {row.state.key for row in rows}
    assert [row.state.key for row in rows if row.state.provider == "p"] == [
        named(number) for number in range(SHARED_ROWS - 1)
    ]
    desk.ledger.committed()
    assert len(desk.ledger.take(1).rows) == 1


def test_a_symbol_that_was_committed_before_it_had_a_bound_is_none_when_the_balance_goes():
    desk = Bounded(10)
    for _ in range(2):
        desk.hear(says("1", named(1)), says("1", named(2)))
    desk.states[named(1)] = msgspec.structs.replace(desk.states[named(1)], symbol="s" * 3_000_000)
    desk.restart()
    for _ in range(3):
        desk.list(2)
    assert (desk.states[named(1)].amount, desk.states[named(1)].symbol) == ("0", None)
