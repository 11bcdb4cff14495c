"""SIGTERM and Ctrl-C: status 0 within the contract's time, and nothing lost."""

import contextlib
import json
import signal
import sqlite3
import sys

import pytest

from tests.e2e import checker
from tests.e2e.harness import Stuck, one_clear_line, until
from tests.e2e.test_spine import enough, judge, kafka_journal, watched
from tests.kafka_broker import Jvm, NoBroker, jvm

SOON, LATER = 5.0, 10.0
"""Seconds: of a journal that answers, and of one that does not."""
SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


def stopped(process, number=signal.SIGTERM, within=SOON):
    status, seconds = process.end(number)
    assert status == 0, process.err
    assert seconds < within
    assert "Traceback" not in process.err


def journaled(house):
    """Events and states, as they stand in the file."""
    with contextlib.closing(sqlite3.connect(house.folder / "balances.db")) as file:
        events = [
            json.loads(data) for (data,) in file.execute("SELECT data FROM event WHERE type = 'changed' ORDER BY seq")
        ]
        return events, [json.loads(data) for (data,) in file.execute("SELECT data FROM state")]


def test_both_signals_end_the_daemon_with_nothing_lost(house):
    sandbox, config, daemon, follower = watched(house, faults="none", settle=SOON)
    for number in (signal.SIGTERM, signal.SIGINT):
        enough(follower, len(follower.events) + 100)
        stopped(daemon, number)
        events, states = journaled(house)
        assert checker.broken_laws(events, states) == []
        assert {event["id"] for event in follower.events} <= {event["id"] for event in events}
        daemon = house.run(config)
        follower.port = daemon.port
    judge(sandbox, daemon, follower)
    stopped(daemon)


LAST = """
import os, signal, sys
from watcher.__main__ import main
class Last:
    def __del__(self, kill=os.kill, process=os.getpid(), number=signal.{}):
        kill(process, number)
sys.last = Last()
sys.exit(main())
"""
"""The command, and a signal while Python takes its modules down."""


@SIGNALS
def test_a_signal_in_the_last_instant_does_not_change_the_status(house, number):
    program = (sys.executable, "-c", LAST.format(number.name))
    one_clear_line(house.finished("check", "-c", house.folder / "none.toml", program=program), 2, "no config file")


@SIGNALS
def test_a_signal_right_after_starting_ends_it(house, number):
    sandbox = house.sandbox()
    daemon = house.watcher("run", "-c", house.config(sandbox.providers()))
    daemon.until_told("starting")
    stopped(daemon, number)


@SIGNALS
def test_a_locked_database_does_not_hold_the_end_up(house, number):
    _, _, daemon, follower = watched(house, faults="none", settle=SOON)
    enough(follower, 50)
    with contextlib.closing(sqlite3.connect(house.folder / "balances.db", timeout=60)) as other:
        other.execute("BEGIN EXCLUSIVE")
        stopped(daemon, number, LATER)
        other.rollback()
    assert checker.broken_laws(*journaled(house)) == []


def test_a_database_that_was_removed_ends_it_with_one_clear_line(house):
    _, _, daemon, follower = watched(house, faults="none", settle=SOON)
    enough(follower, 50)
    (house.folder / "balances.db").unlink()
    daemon.wait()
    one_clear_line(daemon, 69, "was moved, removed")


@pytest.mark.kafka
def test_a_frozen_broker_does_not_hold_the_end_up(house, prefix):
    with contextlib.ExitStack() as stack:
        try:
            broker: Jvm = stack.enter_context(jvm())
        except NoBroker as reason:
            pytest.skip(f"no Kafka broker of our own: {reason}")
        _, config, daemon, follower = watched(house, faults="none", settle=SOON, **kafka_journal(broker, prefix))
        enough(follower, 50)
        broker.freeze()
        until(lambda: "poll" in daemon.err or quiet(follower), "the stream stands still")
        stopped(daemon, within=LATER)
        starting = house.watcher("run", "-c", config)
        starting.until_told("starting")
        stopped(starting, signal.SIGINT, within=LATER)


def quiet(follower):
    """No event in a second: what was under way has arrived."""
    told = len(follower.events)
    try:
        until(lambda: len(follower.events) > told, "more", patience=1.0)
    except Stuck:
        return True
    return False


@SIGNALS
def test_both_signals_end_the_demo_with_its_summary(house, number):
    demo = house.watcher("demo")
    until(lambda: demo.out.count("\n") >= 3 or demo.status is not None, "the demo tells changes")
    stopped(demo, number)
    assert "refusals" in demo.out


@SIGNALS
def test_both_signals_end_the_sandbox_and_the_tail(house, number):
    sandbox, _, daemon, _ = watched(house, faults="none", settle=SOON)
    tail = house.watcher("tail", f"ws://127.0.0.1:{daemon.port}/v1/stream", "--json")
    until(lambda: "\n" in tail.out or tail.status is not None, "the tail tells changes")
    stopped(tail, number)
    assert json.loads(tail.out.splitlines()[0])["event"]["version"] >= 1
    stopped(sandbox.process, number)
