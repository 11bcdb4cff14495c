"""Crossings on one connection, without a socket: whoever wants them gets every one, in order, beside what is conflated."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.relay.stage import SOLANA
from tests.relay.test_outbox import INTERVAL, Line, connection, messages, subscription
from watcher.model.keys import Filter, Key
from watcher.model.log import Bounds, Cursor, Published
from watcher.relay.conflation import Conflater, FramedEvent
from watcher.relay.live_path import FanOut
from watcher.relay.outbox import Outbox
from watcher.relay.settings import RelayTuning
from watcher.relay.subscription import Subscription, wanted_by_any

EVERY, PACED, LATEST, UNASKED = "A", "C", "E", "U"
ASKED = EVERY + PACED + LATEST
FRAME = b"f" * 100


def mixed():
    """Three that want crossings, each with another delivery, and one that wants none."""
    return connection(
        subscription("1", EVERY, crossed=True),
        subscription("2", PACED, conflate=True, interval=INTERVAL, crossed=True),
        subscription("3", LATEST, conflate=True, crossed=True),
        subscription("4", UNASKED, conflate=True),
    )


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("changed"), st.sampled_from(ASKED + UNASKED)),
        st.tuples(st.just("crossed"), st.sampled_from(ASKED + UNASKED)),
        st.tuples(st.just("burst"), st.sampled_from(ASKED)),
        st.tuples(st.just("flush"), st.just("")),
        st.tuples(st.just("read"), st.just("")),
    ),
    max_size=40,
)


def follow(line, steps):
    """A burst is of changes and crossings in turn, as a log of alerts on the edge has them."""
    for what, account in steps:
        line.now += 0.1
        if what == "read":
            line.read(4)
        elif what == "flush":
            line.flush()
        elif what == "burst":
            for kind in ("changed", "crossed") * 4:
                line.publish(account, kind)
        else:
            line.publish(account, what)
    line.drain()


def crossings(line, accounts=ASKED, before=None):
    stood = line.log if before is None else line.log[:before]
    return [(e.key.account, e.position) for e in stood if e.type == "crossed" and e.key.account in accounts]


@example([("burst", "C"), ("burst", "E"), ("burst", "A"), ("flush", ""), ("crossed", "U")])
@given(STEPS)
def test_whoever_wants_them_gets_every_crossing_once_and_in_the_order_of_the_log_and_nobody_else_one(steps):
    line = Line(mixed())
    follow(line, steps)
    assert line.crossed == crossings(line)


@given(STEPS)
def test_changes_beside_them_are_told_as_they_would_be_without_them(steps):
    line = Line(mixed())
    follow(line, steps)
    changes = [event for event in line.log if event.type == "changed"]
    for account in ASKED + UNASKED:
        told, there = line.positions(account), [event.position for event in changes if event.key.account == account]
        assert told == there if account == EVERY else told[-1:] == there[-1:]
    paced = [when for name, _, when in line.told if name == PACED]
    assert all(after - before > INTERVAL - 1e-9 for before, after in pairwise(paced))
    assert len(line.told) + line.outbox.conflated == len(changes)


@given(STEPS)
def test_who_is_cut_after_any_message_finds_every_crossing_that_it_lacks_behind_its_cursor(steps):
    line = Line(mixed())
    follow(line, steps)
    had, count = [], 0
    sent = iter(line.crossed)
    for kind, (_, length, cursor) in zip(line.kinds, line.cursors, strict=True):
        count += kind == "crossed"
        had += [next(sent)] if kind == "crossed" else []
        owed = [each for each in crossings(line, before=length) if each[1] < cursor.positions[0]]
        assert had[: len(owed)] == owed


def entry(position, kind, account="A"):
    event = Published(Key("p", "c", account, "t"), position, b"{}", 0, position, position, kind)
    return FramedEvent(event, Cursor("ab", (position + 1,)), FRAME)


def test_a_crossing_waits_for_no_interval_and_what_is_held_back_of_its_balance_keeps_to_it():
    pending = Conflater(10_000, 10_000)
    pending.offer(entry(0, "changed"), 0.0, 1.0)
    pending.take(0.0)
    pending.offer(entry(1, "changed"), 0.2, 1.0)
    pending.offer(entry(2, "crossed"), 0.2, 1.0)
    ((sent, cursor),) = pending.take(0.2)
    assert (sent.event.position, cursor) == (2, Cursor("ab", (1,))), "the change before it is not sent"
    ((sent, cursor),) = pending.take(1.0)
    assert (sent.event.position, cursor) == (1, Cursor("ab", (2,)))


def test_crossings_alone_fill_an_outbox_that_conflates_and_no_more_is_held_then():
    pending = Conflater(250, 10_000)
    for number in range(3):
        pending.offer(entry(number, "crossed"), 0.0, 0.0)
    assert pending.full
    assert [each.event.position for each, _ in pending.take(0.0)] == [0, 1, 2]
    assert (pending.conflated, pending.full) == (0, False)


def test_after_the_subscription_that_wanted_crossings_none_is_left_for_the_other():
    plain, asking = subscription("1", "A", conflate=True), subscription("2", "A", conflate=True, crossed=True)
    line = Line(connection(plain, asking))
    for kind in ("changed", "crossed"):
        line.publish("A", kind)
    line.outbox.conflate([plain])
    line.flush()
    assert (line.positions("A"), line.crossed) == ([0], [])
    assert not wanted_by_any([plain], line.log[1])


class Reader:
    def __init__(self, *, crossed):
        self.subscription = Subscription("1", Filter(), 0, conflate=False, interval_seconds=0.0, crossed=crossed)
        self.outbox = Outbox(RelayTuning(), Cursor("c0", (0, 0)), None, None)


def test_those_that_want_crossings_and_those_that_do_not_share_each_frame_and_part_again():
    fan_out = FanOut(Cursor("c0", (0, 0)))
    every = [Reader(crossed=crossed) for crossed in (True, False, True)]
    for each in every:
        fan_out.join(each.outbox, [each.subscription])
    for partition, position in ((0, 0), (1, 0), (1, 1), (0, 1)):
        publish(fan_out, partition, position)
    got = [[each for frame in one.outbox.frames for each in messages(frame)] for one in every]
    whole = [("update", 0, "c0.1-0"), ("crossed", 0, "c0.1-1"), ("crossed", 1, "c0.1-2"), ("update", 1, "c0.2-2")]
    found = [[(each["type"], each["event"], each["cursor"]) for each in one] for one in got]
    assert found == [whole, [whole[0], whole[3]], whole]
    assert every[0].outbox.frames[1] is every[2].outbox.frames[1]
    fan_out.leave(every[0].outbox, [every[0].subscription])
    publish(fan_out, 1, 2)
    assert [len(each.outbox.frames) for each in every] == [4, 2, 5]


def publish(fan_out, partition, position):
    """Of two partitions the second one has the crossings."""
    kind = "crossed" if partition else "changed"
    fan_out.publish(Published(Key("p", SOLANA, "A", "t"), 1, b"%d" % position, partition, position, 0, kind), 0.0)
    fan_out.settle()


@pytest.mark.parametrize(
    ("cursor", "widened"),
    [
        (Cursor("ab", (7, 8)), Cursor("ab", (7, 8, 1, 2))),
        (Cursor("ab", (7, 8, 9, 9)), Cursor("ab", (7, 8, 9, 9))),
        (Cursor("ab", (7,)), Cursor("ab", (7,))),
        (Cursor("cd", (7, 8)), Cursor("cd", (7, 8))),
    ],
)
def test_a_cursor_of_before_there_were_crossings_goes_on_with_the_first_of_them(cursor, widened):
    bounds = Bounds(Cursor("ab", (3, 4, 1, 2)), Cursor("ab", (10, 11, 5, 6)))
    assert bounds.widened(cursor) == widened
