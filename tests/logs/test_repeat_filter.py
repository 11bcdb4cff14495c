"""What strangers bring about as often as they like is one line in a while, and nothing of it goes uncounted."""

import logging

import pytest

from watcher.logs.repeat_filter import EVERY, MOST, RepeatFilter


def record(name="watcher.relay.connections", message=None, at=0.0, **fields):
    made = logging.LogRecord(name, logging.INFO, "", 0, message or {"event": "relay.dropped", **fields}, None, None)
    made.created = at
    return made


def test_a_storm_is_one_line_and_the_next_one_says_how_many_there_were():
    storms = RepeatFilter()
    assert [storms.filter(record(why="stalled", at=n / 100)) for n in range(900)] == [True] + [False] * 899
    told = record(why="stalled", at=EVERY)
    assert storms.filter(told)
    assert told.msg["left_out"] == 899
    assert not storms.filter(record(why="stalled", at=EVERY + 1))


def test_each_kind_is_told_and_what_differs_between_connections_is_no_kind():
    storms = RepeatFilter()
    assert storms.filter(record(why="stalled", connection="a"))
    assert not storms.filter(record(why="stalled", connection="b"))
    assert storms.filter(record(why="rate_limited", connection="b"))
    fatal = "Fatal error on transport\ntransport: fd={}"
    assert storms.filter(record("asyncio", fatal.format(1)))
    assert not storms.filter(record("asyncio", fatal.format(2)))
    assert storms.filter(record("websockets.server", "opening handshake failed"))
    assert not storms.filter(record("websockets.server", "opening handshake failed"))


def test_what_no_stranger_brings_about_is_always_told():
    storms = RepeatFilter()
    for name in ("watcher.poller.poller", "watcher.app.daemon", "asyncio_not", "aiokafka"):
        assert all(storms.filter(record(name, "the same")) for _ in range(3))


def test_the_last_of_a_storm_are_counted_when_it_is_over():
    storms = RepeatFilter()
    for n in range(5):
        storms.filter(record(why="stalled", connection=n, at=1.0))
    assert storms.lull(5.0) == []
    (told,) = storms.lull(1.0 + EVERY)
    assert (told.msg["connection"], told.msg["left_out"]) == (4, 3)
    assert not storms.filter(record(why="stalled", at=2.0 + EVERY))
    (told,) = storms.lull(3.0 + 2 * EVERY)
    assert "left_out" not in told.msg
    assert storms.lull(100.0) == []


def test_a_clock_that_was_set_back_silences_nothing():
    storms = RepeatFilter()
    assert storms.filter(record(at=1e6))
    assert storms.filter(record(at=10.0))
    assert storms.lull(-1e6) == []


def test_words_without_end_are_one_kind():
    storms = RepeatFilter()
    told = [storms.filter(record(why=f"reason {n}")) for n in range(MOST + 100)]
    assert told == [True] * (MOST + 1) + [False] * 99
    assert len(storms.lull(EVERY)) == 1


@pytest.mark.parametrize("args", [(), ("x",)])
def test_a_librarys_own_words_carry_the_count_too(args):
    storms = RepeatFilter()
    for n in range(3):
        storms.filter(record("asyncio", "socket.send() raised %s" if args else "socket.send() raised", at=float(n)))
    told = record("asyncio", "socket.send() raised %s" if args else "socket.send() raised", at=EVERY)
    told.args = args
    assert storms.filter(told)
    assert told.getMessage().endswith("(2 more of these were left out)")
