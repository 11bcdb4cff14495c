"""One connection and the log that it reads: whether it comes nearer, and what it is served when another log begins."""

import pytest

from tests.relay.test_outbox import HEAD, INTERVAL, Line, connection, subscription
from watcher.model.log import Cursor
from watcher.relay.settings import RelayTuning


def test_who_reads_the_log_is_stuck_without_progress_or_far_behind():
    one = connection(subscription("1", "A"), tuning=RelayTuning(stuck=60.0, stuck_events=100))
    one.leave(HEAD, 0.0)
    head = Cursor("c0", (50,))
    one.measure(head, 0.0)
    assert not one.stuck(head, 59.9)
    assert one.stuck(head, 60.0)
    one.outbox.move(Cursor("c0", (1,)))
    assert not one.stuck(head, 61.0)  # it came nearer
    assert not one.stuck(Cursor("c0", (151,)), 62.0)
    assert one.stuck(Cursor("c0", (152,)), 62.0)  # 101 further behind than it was
    one.begin_pages(None)
    assert not one.stuck(Cursor("c0", (152,)), 1000.0)
    one.end_pages()
    one.join()
    assert not one.stuck(Cursor("c0", (152,)), 1000.0)


@pytest.mark.parametrize("after", [Cursor("c1", (7,)), Cursor("c1", (1,)), Cursor("c1", (1, 1))])
def test_another_log_begins_for_each_subscription_at_its_own_snapshot(after):
    """Wherever its head is, and however many partitions it has."""
    first, second = subscription("1", "A"), subscription("2", "B", conflate=True, interval=INTERVAL)
    one = connection(first, second, tuning=RelayTuning())
    line = Line(one)
    for account in "BBA":
        line.publish(account)
        line.flush()
    line.publish("A")
    line.fan_out.settle()
    one.change_log(line.fan_out.cursor, after, "epoch_changed")
    assert (one.outbox.live, one.restarts, one.reason) == (False, [first, second], "epoch_changed")
    assert one.outbox.watermark(after) == Cursor("c0", (1,))  # the second change of B was held back, and is not told
    assert not one.stuck(after, 1e9)
    line.flush()
    assert line.positions("A") == [2, 3]
    one.restarted(first)
    assert one.begin(first, after) == after
    later = after.after(0, 9)
    one.restarted(second)
    assert one.begin(second, later) == after
    assert (first.start, second.start) == (after, later)


def test_a_connection_without_subscriptions_is_at_the_head_of_another_log_at_once():
    one = connection()
    one.change_log(HEAD, Cursor("c1", (7,)), "epoch_changed")
    assert (one.outbox.live, one.restarts) == (True, [])
    assert one.outbox.position == one.outbox.flushed == one.outbox.watermark(Cursor("c1", (7,))) == Cursor("c1", (7,))
