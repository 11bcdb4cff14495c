"""No secret leaves through a log line, whoever wrote it."""

import fcntl
import json
import logging
import os
import sys
import threading
import time

import pytest
import structlog

from tests.process_state import process_as_it_was
from watcher.app import cli
from watcher.logs import setup
from watcher.logs.output import LineWriter, OutputThread
from watcher.logs.repeat_filter import RepeatFilter

SECRET = "canary-5c1d"


@pytest.fixture
def configured(monkeypatch):
    """Set the logging up; nothing of it stays for the tests behind.

    One in which every canary is blotted out could not see it shown.
    """
    monkeypatch.setattr(setup.SECRETS, "_secrets", [])
    monkeypatch.setattr(setup.SECRETS, "_windows", frozenset())
    monkeypatch.setattr(setup, "REPEATS", RepeatFilter())  # what other tests repeated is not counted here
    monkeypatch.setattr(logging.getLogger(), "handlers", [])

    def configure():
        setup.SECRETS.add([SECRET, "", "canary"])
        setup.configure()

    return configure


@pytest.fixture
def lines(capsys, configured):
    """Call it with what logs something; it gives what stood on stderr, each line decoded."""

    def written(act):
        configured()
        act()
        return [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    return written


def test_what_is_set_up_for_one_test_is_not_for_the_next_one(tmp_path):
    loggers = [logging.getLogger(), *map(logging.getLogger, setup.QUIET)]

    def state():
        levels = [logger.level for logger in loggers]
        return structlog.is_configured(), list(loggers[0].handlers), levels, sys.excepthook, threading.excepthook

    before = state()
    for _ in range(2):
        with process_as_it_was():
            assert cli.main(["check", "-c", str(tmp_path / "none.toml"), "--log-level", "debug"], {}) == 2
            changed = state()
        assert state() == before
        assert not any(one == former for one, former in zip(changed, before, strict=True))


def test_a_line_is_json_with_level_and_utc_time_when_stderr_is_no_terminal(lines):
    (line,) = lines(lambda: structlog.get_logger().warning("provider.paused", provider="helius", seconds=2.5))
    assert line["event"] == "provider.paused"
    assert (line["provider"], line["seconds"], line["level"]) == ("helius", 2.5, "warning")
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    "value",
    [SECRET, f"https://x/?api-key={SECRET}&y", [SECRET], {"a": {"b": SECRET}}, ValueError(SECRET), f"{SECRET}{SECRET}"],
)
def test_a_secret_is_blotted_out_at_any_depth(lines, value):
    (line,) = lines(lambda: structlog.get_logger().info("poll.failed", reason=value))
    assert "canary" not in json.dumps(line)
    assert "***" in json.dumps(line)


def test_a_librarys_own_record_and_a_traceback_are_blotted_out_too(lines):
    def act():
        logging.getLogger("somebody.else").error("cannot reach %s", f"https://x/?api-key={SECRET}")
        try:
            json.loads(SECRET)
        except ValueError as error:
            error.add_note(SECRET)
            structlog.get_logger().exception("bug")

    text = json.dumps(lines(act))
    assert "cannot reach" in text
    assert "JSONDecodeError" in text
    assert "canary" not in text


def test_httpx_does_not_tell_urls(lines):
    assert lines(lambda: logging.getLogger("httpx").info("HTTP Request: GET https://x/?api-key=y")) == []


def test_a_storm_of_strangers_is_a_line_and_its_count(lines):
    def act():
        for number in range(500):
            structlog.get_logger("watcher.relay.connections").info("relay.dropped", why="stalled", connection=number)
            logging.getLogger("asyncio").error("socket.accept() out of system resource")
        setup.report_repeats(time.time() + 100)

    found = lines(act)
    assert [line.get("left_out") for line in found if line["event"] == "relay.dropped"] == [None, 498]
    assert len(found) == 4


def test_lines_that_nobody_took_are_counted_and_told_once_it_flows_again(configured, monkeypatch):
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    stream = LineWriter(OutputThread(writing, lossy=True, max_buffered=8192))
    monkeypatch.setattr(sys, "stderr", stream)
    configured()
    assert setup.dropped() == 0
    for number in range(200):
        structlog.get_logger().info("a line", number=number)
    dropped = setup.dropped()
    assert 0 < dropped < 200
    text, number = "", 0
    while number < 200:
        text += os.read(reading, 4096).decode()
        number = 0
        for line in map(json.loads, text.splitlines()):
            # Where lines are missing it is said how many.
            if line["event"] == "log.dropped":
                number += line["lines"]
            else:
                assert line["number"] == number
                number += 1
    assert number == 200
    assert setup.dropped() == dropped
    assert stream.output.written(60.0)
    os.close(reading)
    os.close(writing)
