"""Alerts on one balance and on several, step by step: what fires, what an edit makes of it, what a restart keeps."""

import msgspec
import pytest

from tests.ledger.test_ledger import ACCOUNT, EPOCH, Desk, at
from tests.ledger.test_ledger import X as KEY
from watcher.ledger import Ledger
from watcher.ledger.alert_judge import PREFIX
from watcher.model.alert_index import Alert, AlertIndex
from watcher.model.alerts import crossing_id
from watcher.model.keys import Filter, Key
from watcher.model.readings import Reading
from watcher.model.watches import Scope, Watched, WatchIndex

OTHER = Key("p", "c", "a", "u")


def low(name="low", threshold="5", clear="5", side="below", **more):
    return Alert(name, side, threshold, clear, **more)


class Alarmed(Desk):
    """Commits, and keeps what was crossed."""

    def __init__(self, *alerts, **more):
        super().__init__(settle=0.0, **more)
        self.crossed = []
        self.use(*alerts)

    def use(self, *alerts, watches=None):
        self.index = AlertIndex(alerts, watches or WatchIndex())
        self.edit()

    def edit(self):
        self.ledger.use_alerts(self.index, self.now)
        self.search()

    def search(self):
        for _ in self.ledger.find_to_judge():
            pass

    def write(self):
        taken = self.ledger.take()
        self.notes |= taken.notes
        self.states |= {row.state.key: row.state for row in taken.rows}
        self.events += [row.event for row in taken.rows if row.event is not None]
        self.crossed += taken.crossings

    def reads(self, *readings):
        """What is read is not committed yet."""
        self.ledger.evaluate(self.answer(*readings))

    def says(self, *amounts, key=KEY):
        """Each is read and committed; (direction, amount, version) of what that crossed."""
        before = len(self.crossed)
        for amount in amounts:
            self.hear(at(int(self.now * 10), amount, key))
            self.commit()
        return [(one.direction, one.amount, one.version) for one in self.crossed[before:]]

    def restart(self):
        self.ledger = Ledger()
        self.ledger.restore(self.states.values(), self.notes, EPOCH)
        self.edit()


def test_below_fires_once_beyond_the_threshold_and_is_cleared_at_clear():
    desk = Alarmed(low(clear="8"))
    assert desk.says("9", "5") == []
    assert desk.says("4", "3", "7", "7.999") == [("below", "4", 2)]
    assert desk.says("8", "5") == [("cleared", "8", 6)]
    assert desk.says("4.999") == [("below", "4.999", 8)]


def test_above_is_the_mirror_of_it():
    desk = Alarmed(low(side="above", clear="3"))
    assert desk.says("1", "5") == []
    assert desk.says("6", "4", "3.001") == [("above", "6", 2)]
    assert desk.says("3", "5") == [("cleared", "3", 5)]


def test_a_crossing_says_what_it_is_of():
    desk = Alarmed(low(decimals=2, threshold="0.05", clear="0.05"))
    desk.says("9", "4")
    (one,) = desk.crossed
    assert one.id == crossing_id(EPOCH, "low", KEY, 1, "below")
    assert (one.key, one.alert, one.threshold, one.previous_amount) == (KEY, "low", "5", "9")
    assert one.observed_at == desk.states[KEY].observed_at


def test_numbers_beyond_the_precision_of_floats_are_compared_exactly():
    edge = 10**77
    desk = Alarmed(low(threshold=str(edge), clear=str(edge)))
    assert desk.says(str(edge + 1), str(edge), str(edge - 1)) == [("below", str(edge - 1), 2)]


def test_a_first_reading_beyond_is_a_crossing_of_version_0():
    desk = Alarmed(low())
    assert desk.says("4") == [("below", "4", 0)]
    assert desk.crossed[0].previous_amount is None


def test_an_absence_is_a_change_to_nothing_and_is_judged_as_one():
    desk = Alarmed(low(), listing=ACCOUNT, ordering="none")
    for _ in range(4):
        desk.hear(at(None, "9"), at(None, "9", OTHER))
    for _ in range(6):
        desk.hear(at(None, "9", OTHER))
    assert [(one.key, one.direction, one.amount) for one in desk.crossed] == [(KEY, "below", "0")]


def test_alerts_of_one_balance_are_told_in_the_order_of_the_config():
    desk = Alarmed(low("b"), low("a", "7", "7"), low("c", side="above"))
    assert [one.alert for one in desk.crossed] == []
    desk.says("9", "4")
    assert [(one.alert, one.direction) for one in desk.crossed] == [
        ("c", "above"), ("b", "below"), ("a", "below"), ("c", "cleared"),
    ]  # fmt: skip


def test_the_edit_itself_tells_nothing_and_the_next_reading_does_though_nothing_changed():
    desk = Alarmed()
    desk.says("4")
    desk.use(low())
    desk.commit()
    assert desk.crossed == []
    assert desk.says("4", "4") == [("below", "4", 0)]
    one = desk.crossed[0]
    assert (one.previous_amount, one.observed_at) != (None, desk.states[KEY].observed_at)
    assert len(desk.events) == 0


def test_a_reading_from_before_the_edit_does_not_count():
    desk = Alarmed()
    desk.says("4")
    answer = desk.answer(at(int(desk.now * 10), "4"))
    desk.use(low())
    desk.ledger.evaluate(answer)
    desk.commit()
    assert desk.crossed == []
    assert desk.says("4") == [("below", "4", 0)]


@pytest.mark.parametrize(
    ("edited", "then"),
    [
        (low(threshold="6", clear="6"), []),
        (low(threshold="3", clear="3"), [("cleared", "4", 1)]),
        (low(threshold="3", clear="8"), []),
        (low(side="above", threshold="3", clear="3"), [("above", "4", 1)]),
        (low(side="above", threshold="6", clear="6"), [("cleared", "4", 1)]),
    ],
)
def test_an_edit_carries_over_what_has_fired(edited, then):
    desk = Alarmed(low())
    assert desk.says("9", "4") == [("below", "4", 1)]
    desk.use(edited)
    assert desk.says("4", "4") == then


def test_no_id_is_told_twice_where_an_edit_goes_to_and_fro():
    desk = Alarmed(low())
    desk.says("4")
    desk.use(low(threshold="3", clear="3"))
    assert desk.says("4") == [("cleared", "4", 0)]
    desk.use(low())
    assert desk.says("4", "4") == []
    assert desk.ledger.fired == {"low": 1}
    assert desk.says("6") == [("cleared", "6", 1)]
    assert len({one.id for one in desk.crossed}) == 3


def test_an_alert_that_is_gone_tells_nothing_and_begins_anew_after_the_next_change():
    desk = Alarmed(low())
    desk.says("4")
    desk.use()
    assert desk.says("4") == []
    desk.use(low())
    assert desk.says("4") == []  # it has fired, and is so still
    desk.use()
    assert desk.says("3") == []
    assert desk.ledger.fired == {}
    desk.use(low())
    assert desk.says("3") == [("below", "3", 1)]


def test_labels_and_tags_decide_as_they_are_now():
    scope = Scope("p", "c", "a", KEY.token)
    hot, cold = (WatchIndex([Watched(scope, "wallet", (tag,))]) for tag in ("hot", "cold"))
    alert = low(wanted=Filter(tag=("hot",)))
    desk = Alarmed()
    desk.use(alert, watches=cold)
    assert desk.says("4") == []
    desk.use(alert, watches=hot)
    assert desk.says("4") == [("below", "4", 0)]
    desk.use(alert, watches=cold)
    assert desk.says("9", "4") == []
    desk.use(alert, watches=hot)
    assert desk.says("4") == [("below", "4", 2)]


def test_a_restart_repeats_nothing_and_loses_nothing():
    desk = Alarmed(low())
    desk.says("4")
    desk.restart()
    assert desk.ledger.fired == {"low": 1}
    assert desk.says("4", "3") == []
    desk.restart()
    assert desk.says("6", "6") == [("cleared", "6", 2)]


def test_an_edit_while_it_was_down_is_judged_at_the_first_reading():
    desk = Alarmed()
    desk.says("4")
    desk.index = AlertIndex([low()])
    desk.restart()
    desk.commit()
    assert desk.crossed == []
    assert desk.says("4") == [("below", "4", 0)]


@pytest.mark.parametrize("arrived", [True, False])
def test_a_commit_in_doubt_makes_each_crossing_once(arrived):
    desk = Alarmed(low())
    desk.says("9")
    desk.reads(at(int(desk.now * 10), "4"))
    taken = desk.ledger.take()
    assert len(taken.crossings) == 1
    if arrived:
        desk.states |= {row.state.key: row.state for row in taken.rows}
        desk.notes |= taken.notes
    desk.reopen()
    desk.search()
    assert desk.says("4") == ([] if arrived else [("below", "4", 1)])


def test_a_rejected_key_takes_its_crossing_and_its_state_with_it_and_the_others_stay():
    desk = Alarmed(low())
    desk.says("9")
    desk.says("9", key=OTHER)
    desk.reads(at(int(desk.now * 10), "4"), at(int(desk.now * 10), "4", OTHER))
    assert len(desk.ledger.take().crossings) == 2
    desk.ledger.rejected([KEY])
    desk.commit()
    assert [(one.key, one.amount) for one in desk.crossed] == [(OTHER, "4")]
    assert desk.ledger.fired == {"low": 1}
    assert desk.says("3", "3") == [("below", "3", 1)]


def test_a_rejected_key_without_a_row_is_judged_again_after_the_next_answer():
    desk = Alarmed()
    desk.says("4")
    desk.use(low())
    desk.reads(at(int(desk.now * 10), "4"))
    taken = desk.ledger.take()
    assert (taken.rows, [one.key for one in taken.crossings], [*taken.judged.values()]) == ([], [KEY], [KEY])
    desk.ledger.rejected([KEY])
    assert not desk.ledger.take()
    desk.ledger.committed()
    assert desk.says("4") == [("below", "4", 0)]


def test_only_what_has_crossed_has_a_note():
    desk = Alarmed(*(low(str(number), str(number), str(number)) for number in range(1, 100)))
    desk.says("500", "400")
    assert not any(name.startswith(PREFIX) for name in desk.notes)
    desk.says("97")
    assert sum(name.startswith(PREFIX) for name in desk.notes) == 2
    assert all("/" not in name for name in desk.notes)


def test_a_key_that_no_journal_takes_makes_no_note():
    desk = Alarmed(low())
    desk.reads(Reading(Key("p", "c", "a\ud800", "t"), "4", "base", order=1))
    assert not desk.ledger.take().crossings


def test_many_to_judge_are_looked_at_a_thousand_at_a_time():
    desk = Alarmed()
    keys = [Key("p", "c", "a", f"t{number}") for number in range(2500)]
    desk.reads(*(at(1, "4", key) for key in keys))
    while desk.ledger.pending:
        desk.commit()
    desk.use(low())
    desk.reads(*(at(2, "4", key) for key in keys))
    sizes = []
    while desk.ledger.looking:
        before = len(desk.crossed)
        desk.commit()
        sizes.append(len(desk.crossed) - before)
    assert (sum(sizes), max(sizes)) == (2500, 500)
    assert {one.key for one in desk.crossed} == {*keys}
    assert desk.ledger.idle


def test_the_state_of_an_alert_is_a_note_that_says_what_it_is():
    desk = Alarmed(low())
    desk.says("4")
    (data,) = (data for name, data in desk.notes.items() if name.startswith(PREFIX))
    assert msgspec.json.decode(data) == {
        "alert": "low",
        "key": str(KEY),
        "fired": "below",
        "versions": {"below": 0},
        "threshold": "5",
        "observed_at": desk.states[KEY].observed_at,
    }
