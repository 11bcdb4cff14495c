"""What strangers bring about as often as they like is one line in a while, and nothing of it goes uncounted."""

import logging

import pytest

from watcher.logs.repeat_filter import EVERY, MOST_KINDS, RepeatFilter


def record(name="watcher.relay.connections", message=None, at=0.0, **fields):
    made = logging.LogRecord(name, logging.INFO, "", 0, message or {"event": "relay.dropped", **fields}, None, None)
    made.created = at
    return made


def test_a_storm_is_one_line_and_the_next_one_says_how_many_there_were():
    repeats = RepeatFilter()
    assert [repeats.filter(record(why="stalled", at=n / 100)) for n in range(900)] == [True] + [False] * 899
    told = record(why="stalled", at=EVERY)
    assert repeats.filter(told)
    assert told.msg["left_out"] == 899
    assert not repeats.filter(record(why="stalled", at=EVERY + 1))


def test_each_kind_is_told_and_what_differs_between_connections_is_no_kind():
    repeats = RepeatFilter()
    assert repeats.filter(record(why="stalled", connection="a"))
    assert not repeats.filter(record(why="stalled", connection="b"))
    assert repeats.filter(record(why="rate_limited", connection="b"))
    fatal = "Fatal error on transport\ntransport: fd={}"
    assert repeats.filter(record("asyncio", fatal.format(1)))
    assert not repeats.filter(record("asyncio", fatal.format(2)))
    assert repeats.filter(record("websockets.server", "opening handshake failed"))
    assert not repeats.filter(record("websockets.server", "opening handshake failed"))


def test_what_one_source_of_hints_brings_about_hides_nothing_of_another():
    repeats, line = RepeatFilter(), ("watcher.hints.socket_source", {"event": "hints.away", "why": "HTTP 500"})
    assert repeats.filter(record(line[0], line[1] | {"source": "solana", "again_in": 1}))
    assert not repeats.filter(record(line[0], line[1] | {"source": "solana", "again_in": 2}))
    assert repeats.filter(record(line[0], line[1] | {"source": "ethereum", "again_in": 1}))


def test_what_no_stranger_brings_about_is_always_told():
    repeats = RepeatFilter()
    for name in ("watcher.poller.poller", "watcher.app.daemon", "asyncio_not", "aiokafka"):
        assert all(repeats.filter(record(name, "the same")) for _ in range(3))


def test_the_last_of_a_storm_are_counted_when_it_is_over():
    repeats = RepeatFilter()
    for n in range(5):
        repeats.filter(record(why="stalled", connection=n, at=1.0))
    assert repeats.report_left_out(5.0) == []
    (told,) = repeats.report_left_out(1.0 + EVERY)
    assert (told.msg["connection"], told.msg["left_out"]) == (4, 3)
    assert not repeats.filter(record(why="stalled", at=2.0 + EVERY))
    (told,) = repeats.report_left_out(3.0 + 2 * EVERY)
    assert "left_out" not in told.msg
    assert repeats.report_left_out(100.0) == []


def test_a_clock_that_was_set_back_silences_nothing():
    repeats = RepeatFilter()
    assert repeats.filter(record(at=1e6))
    assert repeats.filter(record(at=10.0))
    assert repeats.report_left_out(-1e6) == []


def test_words_without_end_are_one_kind():
    repeats = RepeatFilter()
    told = [repeats.filter(record(why=f"reason {n}")) for n in range(MOST_KINDS + 100)]
    assert told == [True] * (MOST_KINDS + 1) + [False] * 99
    assert len(repeats.report_left_out(EVERY)) == 1


@pytest.mark.parametrize("args", [(), ("x",)])
def test_a_librarys_own_words_carry_the_count_too(args):
    repeats = RepeatFilter()
    for n in range(3):
        repeats.filter(record("asyncio", "socket.send() raised %s" if args else "socket.send() raised", at=float(n)))
    told = record("asyncio", "socket.send() raised %s" if args else "socket.send() raised", at=EVERY)
    told.args = args
    assert repeats.filter(told)
    assert told.getMessage().endswith("(2 more of these were left out)")
