"""Where the log can be followed from."""

import pytest

from watcher.model.log import Bounds, Cursor

KEPT = Bounds(Cursor("ab", (3, 5)), Cursor("ab", (10, 20)))


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [
        ("ab.3-5", None),
        ("ab.10-20", None),
        ("ab.10-5", None),
        ("ab.11-20", "ahead"),
        ("ab.10-21", "ahead"),
        ("ab.2-5", "expired"),
        ("ab.3-4", "expired"),
        ("ab.2-21", "ahead"),
        ("cd.3-5", "epoch_changed"),
        ("cd.2-21", "epoch_changed"),
        ("ab.3", "epoch_changed"),
        ("ab.3-5-7", "epoch_changed"),
    ],
)
def test_a_cursor_outside_of_what_is_kept_leaves_a_gap_and_the_reason_has_a_name(cursor, reason):
    assert KEPT.gap(Cursor.parse(cursor)) == reason


def test_two_cursors_have_a_place_behind_which_nothing_of_either_is_missing_and_one_that_both_have_reached():
    one, other = Cursor("ab", (3, 9)), Cursor("ab", (4, 5))
    assert one.least(other) == Cursor("ab", (3, 5))
    assert one.greatest(other) == Cursor("ab", (4, 9))


def test_a_cursor_is_behind_the_head_by_the_events_of_the_partitions_that_are_further_there():
    assert Cursor("ab", (3, 9)).behind(Cursor("ab", (10, 5))) == 7
    assert Cursor("ab", (3, 9)).behind(Cursor("ab", (3, 9))) == 0
