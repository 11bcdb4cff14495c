"""How many rows the next commit takes, given how the last one went."""

from watcher.ingest.group_size import GROUP_ROWS, QUICK, GroupSize


def test_after_doubt_a_group_is_half_as_large_down_to_one_row():
    size, seen = GroupSize(), []
    while size.rows > 1:
        size.shrink(size.rows)
        seen.append(size.rows)
    size.shrink(1)
    assert seen == [500, 250, 125, 62, 31, 15, 7, 3, 1]
    assert size.rows == 1
    assert size.reduced


def test_a_commit_of_notes_alone_says_nothing_of_rows():
    size = GroupSize()
    size.shrink(0)
    assert size.rows == GROUP_ROWS
    size.shrink(100)
    size.grow(0, 0.0, now=1.0)
    assert size.rows == 50


def test_quick_commits_let_a_group_grow_and_slow_ones_do_not():
    size = GroupSize()
    size.shrink(100)
    size.grow(50, QUICK, now=1.0)
    assert size.rows == 50
    size.grow(50, QUICK - 0.1, now=2.0)
    assert size.rows == 100
    for _ in range(9):
        size.grow(size.rows, 0.1, now=3.0)
    assert size.rows == GROUP_ROWS
    assert not size.reduced


def test_a_group_that_is_held_grows_only_later_or_once_it_is_released():
    size = GroupSize()
    size.shrink(8)
    size.hold(until=10.0)
    assert not size.reduced
    size.grow(4, 0.1, now=9.9)
    assert size.rows == 4
    size.grow(4, 0.1, now=10.0)
    assert size.rows == 8
    size.hold(until=20.0)
    size.release()
    size.grow(8, 0.1, now=11.0)
    assert size.rows == 16
