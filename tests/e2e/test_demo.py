"""`make demo`: the whole system, seen by somebody who has just arrived."""

import re
import signal
from pathlib import Path

import pytest

from tests.e2e.harness import REQUESTS, get, until, written


def summarised(demo):
    """The stream that it showed, and what its summary says of each provider: (polls, told, happened, refusals)."""
    stream, summary = demo.out.split("\n\n")
    assert len(summary.splitlines()) < 24
    head, *rows = summary.splitlines()[:6]
    assert "polls" in head
    assert "delay" in head
    figures = {}
    for row in rows:
        provider, *numbers, _ = re.split(r"\s\s+", row.strip(), maxsplit=5)
        figures[provider] = tuple(map(int, numbers))
    assert list(figures) == list(REQUESTS)
    assert "Traceback" not in demo.err
    return stream, figures


def changed(stream, name):
    return re.search(rf"  {name} +.*→", stream)


def test_the_demo_shows_changes_of_all_five_and_ends_with_a_summary(house):
    demo = house.watcher("demo")
    until(lambda: "http://" in demo.out or demo.status is not None, "the demo serves")
    page = re.search(r"http://127\.0\.0\.1:\d+/", demo.out)[0]
    assert b"<html" in get(page)[1]
    shown = lambda: all(changed(demo.out, name) for name in REQUESTS) or demo.status is not None  # noqa: E731
    until(shown, lambda: f"changes of all five are shown: {demo.out}")
    assert demo.end(signal.SIGINT)[0] == 0, demo.err
    stream, figures = summarised(demo)
    for name, (polls, told, happened, refusals) in figures.items():
        assert changed(stream, name)
        assert polls > 0
        assert 0 < told <= happened
        assert refusals == 0


def test_the_demo_ends_by_itself_so_many_seconds_after_it_serves(house):
    demo = house.watcher("demo", "--seconds", 2)
    assert demo.wait() == 0, demo.err
    summarised(demo)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_demo_that_is_ended_before_it_serves_says_so_by_its_status_alone(house, number):
    demo = house.watcher("demo")
    until(lambda: handled(demo) or demo.status is not None, "the demo takes signals")
    assert demo.end(number)[0] == 0, demo.err
    assert "Traceback" not in demo.err


def handled(process):
    """Whether it has its handlers, for both: one that was ignored when it began (by `nohup`) is taken later."""
    status = written(Path(f"/proc/{process.process.pid}/status"))
    caught = int(re.search(r"SigCgt:\s+(\w+)", status)[1], 16)
    return all(caught >> (number - 1) & 1 for number in (signal.SIGTERM, signal.SIGINT))
