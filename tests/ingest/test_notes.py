"""Which notes the next commit takes, given what became of the last one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.ingest.notes import DEFERRED, LARGE_NOTE, NoteQueue

LARGE = bytes(LARGE_NOTE + 1)


def queue(**notes):
    made = NoteQueue()
    for key, data in notes.items():
        made.add(key, data)
    return made


def fail(notes, now, *, rows=0, out_of_time=True):
    """A commit of unknown outcome; gives what was in it."""
    taken = dict(notes.take(now, rows_wait=False))
    notes.in_doubt(rows, now, out_of_time=out_of_time)
    return taken


def test_a_commit_takes_all_notes_and_a_later_one_replaces_an_earlier_one():
    notes = queue(a=b"1", b=b"2")
    notes.add("a", b"3")
    assert notes.take(0.0, rows_wait=True) == {"a": b"3", "b": b"2"}
    assert not notes.committed_up_to(1), "they are in flight"
    notes.committed(5, reduced=False)
    assert notes.committed_up_to(notes.added)
    assert not notes.ready(0.0)


def test_what_is_added_while_its_key_is_in_flight_stands_for_both():
    notes = queue(a=b"1")
    notes.take(0.0, rows_wait=False)
    notes.add("a", b"2")
    notes.take_back()
    assert notes.take(0.0, rows_wait=False) == {"a": b"2"}
    notes.take_back()
    assert not notes.committed_up_to(1)


def test_in_doubt_notes_go_alone_the_smallest_first_in_turns_with_rows():
    notes = queue(large=b"333", small=b"1", middle=b"22")
    fail(notes, 0.0, rows=7)
    assert notes.alone
    assert notes.take(1.0, rows_wait=True) == {"small": b"1"}
    notes.committed(0, reduced=True)
    assert notes.take(1.0, rows_wait=True) == {}, "it is the turn of rows"
    notes.committed(7, reduced=True)
    assert notes.take(1.0, rows_wait=True) == {"middle": b"22"}
    notes.committed(0, reduced=True)
    assert notes.take(1.0, rows_wait=False) == {"large": b"333"}, "no rows wait"
    notes.committed(0, reduced=False)
    assert not notes.alone


@pytest.mark.parametrize(
    ("data", "out_of_time", "deferred"), [(LARGE, True, True), (LARGE, False, False), (b"1", True, False)]
)
def test_a_large_note_that_ran_out_of_time_alone_is_deferred(data, out_of_time, deferred):
    notes = queue(a=data)
    fail(notes, 0.0)
    assert fail(notes, 1.0, out_of_time=out_of_time) == {"a": data}
    assert notes.committed_up_to(1) == deferred, "nobody waits for what is deferred"
    assert notes.ready(1.0 + DEFERRED - 0.1) != deferred, "a deferred one starts no round"
    assert bool(notes.take(1.0 + DEFERRED - 0.1, rows_wait=False)) != deferred
    notes.take_back()
    assert notes.take(1.0 + DEFERRED, rows_wait=False) == {"a": data}
    notes.committed(0, reduced=False)
    assert not notes.alone


def test_a_rejected_note_is_given_up():
    notes = queue(a=b"1", b=b"2")
    notes.take(0.0, rows_wait=False)
    notes.take_back(rejected=["a"])
    assert notes.take(0.0, rows_wait=False) == {"b": b"2"}


@given(st.lists(st.sampled_from(["add", "commit", "doubt", "take back"]), max_size=40))
def test_no_note_is_lost(steps):
    notes, newest, committed = NoteQueue(), {}, {}
    for number, step in enumerate([*steps, *["commit"] * 10]):
        if step == "add":
            notes.add(f"key{number % 3}", b"%d" % number)
            newest[f"key{number % 3}"] = b"%d" % number
            continue
        taken = notes.take(float(number), rows_wait=False)
        if step == "commit":
            committed |= taken
            notes.committed(1, reduced=False)
        elif step == "doubt":
            notes.in_doubt(1, float(number), out_of_time=False)
        else:
            notes.take_back()
    assert committed == newest
    assert notes.committed_up_to(notes.added)
