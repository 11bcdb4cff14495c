"""Conflation by itself: the latest of each key, and a watermark that promises no more than was sent."""

from hypothesis import given
from hypothesis import strategies as st

from watcher.model.keys import Key
from watcher.model.log import Cursor, Published
from watcher.relay.conflation import Conflater, FramedEvent

FRAME = b"f" * 100


def entry(position, account="A", partition=0):
    key = Key("p", "c", account, "t")
    places = (position + 1, 0) if partition == 0 else (0, position + 1)
    return FramedEvent(Published(key, position + 1, b"{}", partition, position, position), Cursor("ab", places), FRAME)


def positions(taken):
    return [each.event.position for each, _ in taken]


def test_without_an_interval_a_fast_reader_gets_everything():
    pending = Conflater(10_000, 10_000)
    for n in range(5):
        pending.offer(entry(n), 0.0, 0.0)
    assert positions(pending.take(0.0)) == [0, 1, 2, 3, 4]
    assert pending.conflated == 0


def test_another_log_takes_the_place_of_what_may_be_replaced_and_the_rest_still_goes_out():
    pending = Conflater(10_000, 10_000)
    pending.offer(entry(0), 0.0, 60.0)
    assert positions(pending.take(0.0)) == [0]
    for n, account, interval in ((1, "A", 60.0), (2, "A", 60.0), (3, "B", 0.0), (4, "C", None)):
        pending.offer(entry(n, account), 0.0, interval)
    pending.give_up()
    assert pending.conflated == 3
    assert pending.watermark(Cursor("ab", (9, 0))) == Cursor("ab", (4, 0))
    assert positions(pending.take(0.0)) == [4]
    assert (len(pending), pending.due_at()) == (0, None)
    pending.rewind()
    assert pending.conflated == 3


def test_a_slow_reader_gets_the_latest_of_each_key_until_it_has_caught_up():
    pending = Conflater(300, 10_000)
    for n in range(10):
        pending.offer(entry(n, "AB"[n % 2]), 0.0, 0.0)
    assert positions(pending.take(0.0)) == [8, 9]
    assert pending.conflated == 8
    for n in range(10, 12):
        pending.offer(entry(n), 0.0, 0.0)
    assert positions(pending.take(0.0)) == [10, 11]


def test_an_interval_holds_back_the_latest_and_the_cursors_stay_below_it():
    pending = Conflater(10_000, 10_000)
    pending.offer(entry(0), 0.0, 1.0)
    assert positions(pending.take(0.0)) == [0]
    pending.offer(entry(1), 0.2, 1.0)
    pending.offer(entry(2), 0.3, 1.0)
    pending.offer(entry(3, "B"), 0.4, 1.0)
    ((sent, cursor),) = pending.take(0.4)
    assert (sent.event.position, cursor) == (3, Cursor("ab", (2, 0)))
    assert pending.watermark(Cursor("ab", (4, 0))) == Cursor("ab", (2, 0))
    assert pending.due_at() == 1.0
    assert positions(pending.take(1.0)) == [2]
    assert pending.watermark(Cursor("ab", (4, 0))) == Cursor("ab", (4, 0))
    assert pending.conflated == 1


def test_what_every_one_of_is_wanted_is_never_replaced_and_fills_the_outbox():
    pending = Conflater(250, 10_000)
    for n in range(3):
        pending.offer(entry(n), 0.0, None)
    assert pending.full
    assert positions(pending.take(0.0)) == [0, 1, 2]
    assert not pending.full


def test_too_many_keys_are_too_much_for_conflation_too():
    pending = Conflater(250, 1000)
    for n in range(11):
        pending.offer(entry(n, str(n)), 0.0, 0.0)
    assert pending.full


def test_what_nobody_wants_any_more_is_forgotten():
    pending = Conflater(10_000, 10_000)
    pending.offer(entry(0, "A"), 0.0, 0.0)
    pending.offer(entry(1, "B"), 0.0, 0.0)
    pending.keep(lambda event: event.key.account == "B")
    assert positions(pending.take(0.0)) == [1]


@given(
    st.lists(
        st.tuples(st.sampled_from("ABC"), st.integers(0, 1), st.sampled_from([None, 0.0, 0.5, 2.0]), st.booleans()),
        max_size=40,
    )
)
def test_no_cursor_ever_promises_an_event_whose_key_was_not_told_since(steps):
    """Whoever is cut after any message and resumes with its cursor still gets the latest of every key."""
    pending = Conflater(350, 10**6)
    latest, told, now = {}, {}, 0.0
    reached = [0, 0]
    for position, (account, partition, interval, flush) in enumerate(steps):
        now += 0.3
        name = account + str(partition)
        each = entry(position, name, partition)
        reached[partition] = position + 1
        each = FramedEvent(each.event, Cursor("ab", tuple(reached)), FRAME)
        latest[name] = each.event
        pending.offer(each, now, interval)
        for sent, cursor in pending.take(now) if flush else []:
            told[sent.event.key.account] = sent.event.position
            for key, event in latest.items():
                behind = event.position >= cursor.positions[event.partition]
                assert behind or told.get(key) == event.position
    rest = pending.take(now + 10.0)
    for sent, _ in rest:
        told[sent.event.key.account] = sent.event.position
    assert told == {key: event.position for key, event in latest.items()}
