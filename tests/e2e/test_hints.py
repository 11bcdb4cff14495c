"""Hints from the sandbox's push channels, end to end: sooner, within every limit, and never believed."""

import contextlib
import json
import statistics
import threading
from collections import defaultdict
from datetime import datetime

from tests.e2e import checker
from tests.e2e.harness import REQUESTS, get, settle, until
from tests.e2e.test_spine import PROMPT, SETTLE
from watcher.sandbox.world import hint_environment, hint_tables

SLOW = {"jupiter": 2, "bloxroute": 10, "helius": 2, "ondo": 2, "tokenkit": 1}
"""Requests a second; bloXroute's cost five each."""
SPACING = {"jupiter": 0.5, "bloxroute": 0.5, "helius": 0.5, "ondo": 0.5, "tokenkit": 1.0}
"""Seconds between two requests."""
ROUND_TRIP = 1.5
"""Seconds: one on loopback, and what a busy machine adds to it. Without hints the median of Helius is 4.6 s; how soon it is where
nothing else runs is judged in virtual time, in tests/worlds/test_hints.py."""
UNRELIABLE = "push_cut=0.05,push_late=0.2,push_lost=0.2,push_repeated=0.2,push_forged=0.5"
SOCKETS = [table for table in hint_tables() if table["type"] != "tokenkit"]
"""Webhooks need the relay's port before there is one: tests/testing tries them."""


def hinted(house, sandbox, **more):
    """A daemon before the sandbox that takes hints from all its push channels, once they are there."""
    config = house.config(sandbox.providers(**more), hints=SOCKETS)
    daemon = house.run(config, env=hint_environment(sandbox.url))
    follower = house.follower(daemon.port)
    connected = lambda: sum(channel["subscriptions"] > 0 for channel in pushes(sandbox).values())  # noqa: E731
    until(lambda: connected() == len(SOCKETS), "every source is subscribed")
    return daemon, follower


def pushes(sandbox):
    told = sandbox.report(history=False)["push"]
    return {name: told[name] for name in ("solana", "ethereum", "bsc", "starknet")}


def at(event):
    return datetime.fromisoformat(event["observed_at"]).timestamp()


def after_its_push(report, events):
    """Provider → seconds from the push of a move to the answer that showed it."""
    pushed = {(push["key"], push["moved"]): push["time"] for push in report["push"]["pushed"]}
    moves = {
        (balance["key"], move["amount"]): move["time"]
        for provider in report["providers"].values()
        for balance in provider["balances"]
        for move in balance["changes"]
    }
    found = defaultdict(list)
    for event in events:
        key = checker.name(event)
        moved = moves.get((key, event["amount"]))
        if (key, moved) in pushed and at(event) > moved:
            found[event["provider"]].append(at(event) - pushed[key, moved])
    return found


def test_half_of_the_changes_are_told_within_two_requests_of_their_push(house):
    limits = ",".join(f"{name}={requests}/1" for name, requests in SLOW.items())
    sandbox = house.sandbox(rate=2.5, limits=limits)
    slow = {name: {"limits": [{"requests": requests, "per": 1.0}]} for name, requests in SLOW.items()}
    daemon, follower = hinted(house, sandbox, **slow)

    def enough():
        waits = after_its_push(sandbox.report(), follower.events)
        return waits if len(waits) == len(SLOW) and min(map(len, waits.values())) >= 9 else None

    waits = until(enough, "some changes of each provider are told")
    medians = {name: statistics.median(found) for name, found in waits.items()}
    late = {name: median for name, median in medians.items() if median > 2 * SPACING[name] + ROUND_TRIP}
    assert not late, (medians, {name: sorted(found) for name, found in waits.items()})
    report, states = settle(sandbox, daemon.port)
    assert checker.refusals(report) == {}
    assert checker.broken_laws(follower.events, states) == []


def test_cut_late_lost_and_forged_hints_and_a_flood_of_them_break_no_law_and_no_limit(house):
    sandbox = house.sandbox(rate=100.0, faults=f"{PROMPT},{UNRELIABLE}")
    daemon, follower = hinted(house, sandbox, **{name: {"settle": SETTLE} for name in REQUESTS})
    with flood(daemon.port, sandbox.providers()) as posted:
        until(lambda: len(follower.events) >= 1000 and len(posted) >= 20, "a thousand changes are told")
        report, states = settle(sandbox, daemon.port)
    until(lambda: sum(state["version"] for state in states) <= len(follower.events), "every event comes")
    assert checker.broken_laws(follower.events, states) == []
    assert checker.false_changes(follower.events, checker.truths(report)) == []
    assert checker.refusals(report) == {}
    assert {answer["unknown"] for answer in posted} == {0}
    assert pushes(sandbox)["solana"]["connections"] > 3
    assert daemon.end()[0] == 0


@contextlib.contextmanager
def flood(port, providers):
    """Somebody posts a hint for everything that is watched, again and again: what it was answered."""
    watched = [
        {"provider": name, "account": watch["account"]}
        for name, table in providers.items()
        for watch in table["watch"]
        if "account" in watch
    ]
    body = json.dumps({"hints": (watched * 20)[:1000]}).encode()
    stopping, answers = threading.Event(), []

    def post():
        while not stopping.wait(0.2):
            status, answer = get(f"http://127.0.0.1:{port}/v1/hints", method="POST", body=body)
            answers.append(json.loads(answer) | {"status": status})

    thread = threading.Thread(target=post)
    thread.start()
    try:
        yield answers
    finally:
        stopping.set()
        thread.join()
    assert {answer["status"] for answer in answers} == {202}
