"""Where a webhook goes on: by property, nothing that is kept is left out unless that is said."""

from hypothesis import given
from hypothesis import strategies as st

from watcher.model.log import Bounds, Cursor
from watcher.webhooks.places import GoingOn, Owned, Place, decode, going_on


def place(positions, epoch="a", gone=None):
    return Place(name="x", epoch=epoch, positions=tuple(positions), gone=gone)


def bounds(oldest, head, epoch="a"):
    return Bounds(Cursor(epoch, tuple(oldest)), Cursor(epoch, tuple(head)))


ONE = Owned(0, 1)


def test_a_new_webhook_begins_at_the_head():
    assert going_on(None, ONE, bounds([1], [9])) == GoingOn(Cursor("a", (9,)))


def test_it_goes_on_where_it_stopped():
    assert going_on(place([5]), ONE, bounds([1], [9])) == GoingOn(Cursor("a", (5,)))


def test_what_is_not_kept_any_more_is_said_and_it_goes_on_at_the_oldest():
    assert going_on(place([5]), ONE, bounds([7], [9])) == GoingOn(Cursor("a", (7,)), "expired")


def test_a_log_that_was_rolled_back_is_said():
    assert going_on(place([12]), ONE, bounds([1], [9])) == GoingOn(Cursor("a", (9,)), "ahead")


def test_a_new_log_upon_the_old_one_goes_on_at_the_same_place_and_that_is_said():
    assert going_on(place([5]), ONE, bounds([1], [9], "b")) == GoingOn(Cursor("b", (5,)), "epoch_changed")
    assert going_on(place([5]), ONE, bounds([7], [9], "b")) == GoingOn(Cursor("b", (7,)), "epoch_changed")


def test_in_a_new_log_that_is_shorter_it_begins_at_the_oldest():
    assert going_on(place([5]), ONE, bounds([1], [3], "b")) == GoingOn(Cursor("b", (1,)), "epoch_changed")


def test_of_several_partitions_its_own_positions_alone_are_kept():
    owned = Owned(1, 3)
    head = Cursor("a", (10, 11, 12, 20, 21, 22))
    assert owned.positions(head) == (11, 21)
    found = going_on(place([4, 5]), owned, Bounds(Cursor("a", (0,) * 6), head))
    assert found == GoingOn(Cursor("a", (10, 4, 12, 20, 5, 22)))


@given(st.data())
def test_whatever_is_kept_and_was_not_delivered_is_still_to_come(data):
    partitions = data.draw(st.integers(1, 3))
    number = data.draw(st.integers(0, partitions - 1))
    width = partitions * data.draw(st.integers(1, 2))
    oldest = data.draw(st.lists(st.integers(0, 9), min_size=width, max_size=width))
    head = [one + data.draw(st.integers(0, 9)) for one in oldest]
    owned = Owned(number, partitions)
    saved = data.draw(st.lists(st.integers(0, 19), min_size=width // partitions, max_size=width // partitions))
    found = going_on(place(saved), owned, bounds(oldest, head))
    goes_on = owned.positions(found.cursor)
    assert all(kept >= first for kept, first in zip(goes_on, owned.positions(Cursor("a", tuple(oldest))), strict=True))
    assert bounds(oldest, head).gap(found.cursor) is None
    for kept, was, last in zip(goes_on, saved, owned.positions(Cursor("a", tuple(head))), strict=True):
        assert kept <= max(was, last)
        assert kept == was or found.gap is not None
    if found.gap is None:
        assert goes_on == tuple(saved)


def test_what_nobody_of_ours_wrote_is_no_place():
    assert decode(None) is decode(b"") is decode(b"{}") is decode(b"[1]") is None
    assert decode(b'{"name":"x","epoch":"a","positions":[3],"later":1}') == place([3])
