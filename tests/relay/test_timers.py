"""Turns at an interval, whatever the clock of whoever looks."""

from hypothesis import given
from hypothesis import strategies as st

from watcher.relay.timers import DueQueue


@given(st.lists(st.tuples(st.sampled_from(["enter", "look"]), st.floats(0, 3)), max_size=50))
def test_everybody_is_due_once_an_interval_after_entering_and_in_that_order(steps):
    queue, now, waiting = DueQueue(1.0), 0.0, []
    for number, (what, later) in enumerate(steps):
        now += later
        if what == "enter":
            queue.enter(number, now)
            waiting.append((number, now))
        else:
            due = [who for who, entered in waiting if entered + 1.0 <= now]
            assert queue.due(now) == due
            waiting = [each for each in waiting if each[0] not in due]
            assert queue.due(now) == []


def test_who_leaves_is_not_due_and_not_kept():
    queue = DueQueue(1.0)
    for who in ("A", "B", "A"):
        queue.enter(who, 0.0)
    queue.leave("B")
    queue.leave("nobody")
    assert queue.due(1.0) == ["A"]


def test_who_enters_again_while_being_served_is_due_an_interval_later():
    queue = DueQueue(1.0)
    queue.enter("A", 0.0)
    for turn in range(1, 4):
        assert queue.due(turn - 0.1) == []
        (who,) = queue.due(turn)
        queue.enter(who, turn)
