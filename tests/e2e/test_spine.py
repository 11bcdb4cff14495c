"""From the sandbox's answers to the last subscriber, through real processes, on both journals."""

import pytest

from tests.e2e import checker
from tests.e2e.harness import REQUESTS, balances, consumed, settle, until

CHANGES = 1_000
RATE = 300.0
"""Moves a second at the sandbox."""
PARTITIONS = 4
SETTLE = 3.0
"""Seconds, where no replica lags."""
PROMPT = "default,stale=0,cached=0"
"""Faults, and no replica that lags."""


def kafka_journal(kafka, prefix):
    return {"journal": f"kafka://{kafka.address}", "kafka": {"topic_prefix": prefix, "partitions": PARTITIONS}}


def judge(sandbox, daemon, follower):
    """Settle, and hold all that was told against the contract and the truth. Gives the number of changes."""
    report, states = settle(sandbox, daemon.port)
    told = {checker.name(state): state["version"] for state in states}
    until(
        lambda: sum(told.values()) <= len(follower.events),
        lambda: f"{len(follower.events)} of {sum(told.values())} events come",
    )
    assert checker.broken_laws(follower.events, states) == []
    assert checker.false_changes(follower.events, checker.truths(report)) == []
    assert checker.refusals(report) == {}
    assert follower.trouble == []
    return len(follower.events)


def watched(house, rate=RATE, faults="default", settle=None, **journal):
    """A sandbox, a daemon before it, and a client that follows from the beginning.

    `settle`: seconds, for faults without replicas that lag. A listing that has just lost half of what it named is doubted
    for as long: by default that is up to a minute in which a test waits for the truth.
    """
    sandbox = house.sandbox(rate=rate, faults=faults)
    doubts = {} if settle is None else {name: {"settle": settle} for name in REQUESTS}
    config = house.config(sandbox.providers(**doubts), **journal)
    if journal:
        assert house.finished("init", "-c", config).status == 0
    daemon = house.run(config)
    return sandbox, config, daemon, house.follower(daemon.port)


def enough(follower, changes=CHANGES):
    until(lambda: len(follower.events) >= changes, lambda: f"{len(follower.events)} of {changes} changes are told")


def test_a_thousand_changes_arrive_at_a_subscriber_as_they_really_happened(house):
    sandbox, _, daemon, follower = watched(house)
    enough(follower)
    assert judge(sandbox, daemon, follower) >= CHANGES
    assert {event["provider"] for event in follower.events} == {"jupiter", "bloxroute", "helius", "ondo", "tokenkit"}
    assert daemon.end()[0] == 0


@pytest.mark.kafka
def test_a_committed_reader_of_real_kafka_finds_the_same_thousand_changes(house, kafka, prefix):
    sandbox, _, daemon, follower = watched(house, faults=PROMPT, settle=SETTLE, **kafka_journal(kafka, prefix))
    enough(follower)
    assert judge(sandbox, daemon, follower) >= CHANGES
    states = balances(daemon.port)
    epoch = follower.cursor.partition(".")[0]
    assert daemon.end()[0] == 0
    records = consumed(kafka.address, prefix, PARTITIONS)
    events = [event for _, _, event in records]
    assert checker.broken_laws(events, states) == []
    assert {event["id"] for event in events} == {event["id"] for event in follower.events}
    for key, headers, event in records:
        assert key.decode() == headers["ce_subject"].decode() == checker.name(event)
        assert headers["ce_id"].decode() == event["id"]
        assert headers["ce_source"].decode() == f"/balance-watcher/{epoch}/{event['provider']}"
        assert headers["ce_balanceversion"].decode() == str(event["version"])
