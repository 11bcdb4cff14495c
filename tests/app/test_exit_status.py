"""How a process ends: of several errors the cause is told, and what follows from it is not."""

import itertools

import pytest

from watcher.app.exit_status import Exit, exit_for, exits_for_known_errors
from watcher.journal import Fenced, Unwritable
from watcher.model.log import Closed, Unavailable
from watcher.runtime.config_section import SettingsError


def ended(*errors):
    found = exit_for(BaseExceptionGroup("ended", errors))
    return found.status, found.message


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_what_follows_from_a_full_disk_is_not_told_in_whatever_order_the_tasks_end(order):
    errors = [Unwritable("the disk is full"), Unwritable("it was moved"), Closed("closed before all was committed")]
    assert ended(*(errors[place] for place in order)) == (69, "the disk is full")


def test_a_consequence_is_told_when_nothing_else_is_known():
    assert ended(Closed("closed before all was committed")) == (69, "closed before all was committed")


def test_the_cause_of_a_closed_journal_is_told_whatever_sort_it_is_of():
    for cause in (OSError(5, "Input/output error"), Unavailable("no broker")):
        assert ended(Closed("closed"), cause)[1] != "closed"


def test_who_was_replaced_is_told_that_before_anything_else():
    assert ended(Unwritable("full"), Fenced("another instance")) == (75, "another instance")


def test_a_bug_among_known_errors_stays_what_it_is():
    with pytest.raises(BaseExceptionGroup), exits_for_known_errors():
        raise BaseExceptionGroup("ended", [Unwritable("full"), KeyError("bug")])


def test_nested_groups_are_looked_through():
    inner = BaseExceptionGroup("inner", [Closed("closed"), SettingsError("a mistake")])
    with pytest.raises(Exit) as end, exits_for_known_errors():
        raise BaseExceptionGroup("outer", [Unwritable("full"), inner])
    assert (end.value.status, end.value.message) == (2, "a mistake")
