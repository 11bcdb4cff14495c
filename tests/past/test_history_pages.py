"""Pages of history: together they are the events of the interval, each once, in the order of the log."""

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.past.past_log import EPOCH, KnownLog, change, crossing, key_of
from watcher.model.log import Cursor
from watcher.model.watches import WatchIndex
from watcher.past import asked, history
from watcher.past.history import DAY, HistoryInterval, HistoryPlace
from watcher.past.state_at import PastError

NOW = 1_800_000_000_000_000


def nothing(_done, _of):
    pass


def everything(**fields):
    return asked.wanted(fields).matcher(WatchIndex())


def page_of(log, place, limit, wanted=None, *, crossed=True):
    return anyio.run(
        lambda: history.page(log, place, wanted or everything(), crossed=crossed, limit=limit, progress=nothing)
    )


EVENT = st.tuples(st.integers(0, 2), st.integers(0, 30), st.booleans(), st.sampled_from("AB"))


def fill(log, drawn):
    for partition, time, crosses, account in drawn:
        make = crossing if crosses else change
        log.add(make(key_of(account), len(log.events) + 1, time), time, partition)


@given(st.lists(EVENT, max_size=25), st.lists(EVENT, max_size=5), st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_pages_together_are_the_interval_whatever_comes_meanwhile(drawn, late, limit, slice_of, crossed):
    log = KnownLog(partitions=3, slice_of=slice_of)
    fill(log, drawn)
    place, given_, pages = HistoryInterval(5, 25), [], 0
    while place is not None:
        found = page_of(log, place, limit, everything(account=["A"]), crossed=crossed)
        assert len(found.events) <= limit
        assert found.next is None or len(found.events) == limit
        given_ += found.events
        place = None if found.next is None else HistoryPlace.parse(str(found.next))
        pages += 1
        assert log.ended == pages, "what was read is given back"
        fill(log, late[:1])
        del late[:1]
    there = [
        event
        for event in log.events
        if 5 <= event.observed_at <= 25 and event.key.account == "A" and (crossed or event.type == "changed")
    ]
    assert given_ == there[: len(given_)], "each once, in order"
    early = {id(event) for event in log.events[: len(drawn)]}
    assert [event for event in there if id(event) in early] == [event for event in given_ if id(event) in early]


def test_a_page_that_is_just_full_at_the_end_has_no_next_one():
    log = KnownLog()
    fill(log, [(0, 1, False, "A"), (0, 2, False, "A")])
    assert page_of(log, HistoryInterval(0, 9), 2).next is None
    assert page_of(log, HistoryInterval(0, 9), 1).next is not None


@pytest.mark.parametrize("cursor", [Cursor("e1", (0,)), Cursor(EPOCH, (0, 0)), Cursor(EPOCH, (9,))])
def test_a_cursor_of_another_log_is_refused(cursor):
    with pytest.raises(PastError, match="begin anew"):
        page_of(KnownLog(), HistoryPlace(cursor, HistoryInterval(0, 9)), 1)


@pytest.mark.parametrize(
    "text", ["", "e0.1", "e0.1.2", "e0.1.2.x", "e0.1.-2.3", "e0.1.2.3.4", "x.1.2.3", "e0.1.2." + "9" * 30]
)
def test_a_place_is_read_only_as_it_is_written(text):
    with pytest.raises(ValueError, match="not a"):
        HistoryPlace.parse(text)


def interval(first, last, kept=0):
    return anyio.run(lambda: history.interval_of(KnownLog(kept_from=kept), first, last, NOW))


@pytest.mark.parametrize(
    ("first", "last", "kept", "found"),
    [
        (None, None, 0, (NOW - DAY, NOW)),
        (None, None, NOW - 5, (NOW - 5, NOW)),
        (None, NOW - 7, 0, (NOW - 7 - DAY, NOW - 7)),
        (3, None, 3, (3, NOW)),
        (5, 5, 0, (5, 5)),
        (NOW, NOW, 0, (NOW, NOW)),
    ],
)
def test_an_interval_is_what_is_asked_for_or_the_last_day_as_far_as_it_is_kept(first, last, kept, found):
    assert interval(first, last, kept) == HistoryInterval(*found)


@pytest.mark.parametrize(
    ("first", "last", "kept", "says"),
    [
        (NOW + 1, None, 0, "from = 2027-01-15T08:00:00.000001Z is in the future"),
        (None, NOW + 1, 0, "to = 2027-01-15T08:00:00.000001Z is in the future"),
        (1, None, 2, "from = 1970-01-01T00:00:00.000001Z is older .* from 1970-01-01T00:00:00.000002Z on"),
        (None, 1, 2, "to = 1970-01-01T00:00:00.000001Z is older"),
        (9, 8, 0, "later than to"),
    ],
)
def test_an_interval_that_cannot_be_told_whole_is_refused_and_says_what_can(first, last, kept, says):
    with pytest.raises(PastError, match=says):
        interval(first, last, kept)
