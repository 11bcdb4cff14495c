"""`make demo ARGS="--seconds 20"`: the whole system, seen by somebody who has just arrived."""

import re

from tests.e2e.harness import REQUESTS, get, until


def test_the_demo_shows_changes_of_all_five_and_ends_with_a_summary(house):
    demo = house.watcher("demo", "--seconds", 20)
    until(lambda: "http://" in demo.out or demo.status is not None, "the demo serves")
    page = re.search(r"http://127\.0\.0\.1:\d+/", demo.out)[0]
    assert b"<html" in get(page)[1]
    assert demo.wait() == 0, demo.err
    stream, summary = demo.out.split("\n\n")
    assert len(summary.splitlines()) < 24
    head, *rows = summary.splitlines()[:6]
    assert "polls" in head
    assert "delay" in head
    for row, name in zip(rows, REQUESTS, strict=True):
        provider, polls, told, happened, refusals, _ = re.split(r"\s\s+", row.strip(), maxsplit=5)
        assert (provider, refusals) == (name, "0")
        assert int(polls) > 0
        assert 0 < int(told) <= int(happened)
        assert re.search(rf"  {name} +.*→", stream)
    assert "Traceback" not in demo.err
