"""kill -9 in the middle, five times: nothing is lost, told twice or invented, and no limit is broken."""

import signal
import sys

import pytest

from tests.e2e import checker
from tests.e2e.harness import balances, consumed, one_clear_line, settle, until
from tests.e2e.test_spine import PARTITIONS, PROMPT, SETTLE, enough, judge, kafka_journal, watched
from tests.kafka_broker import free_port

KILLS = 5
CHANGES = 360
FAULTS = PROMPT
"""An answer that a dying process took with it, repeated by a lagging replica later on, is new to the next process. Where a
provider gives no position it is believed, as the documentation says; that is not what is shown here."""


def killed(house, config, daemon, follower):
    """The daemon killed and started again, five times, with new changes told in between."""
    for number in range(1, KILLS + 1):
        enough(follower, number * CHANGES // (KILLS + 1))
        assert daemon.end(signal.SIGKILL)[0] == -signal.SIGKILL
        daemon = house.run(config)
        follower.port = daemon.port
        until(lambda: follower.resumed >= number, "the follower resumes")  # noqa: B023 (called before the next one)
    enough(follower, CHANGES)
    return daemon


def test_five_kills_leave_the_laws_the_truth_and_the_limits_whole(house):
    sandbox, config, daemon, follower = watched(house, faults=FAULTS, settle=SETTLE)
    daemon = killed(house, config, daemon, follower)
    assert judge(sandbox, daemon, follower) >= CHANGES
    assert follower.resumed >= KILLS
    assert daemon.end()[0] == 0


@pytest.mark.kafka
def test_five_kills_leave_them_whole_on_real_kafka_too(house, kafka, prefix):
    sandbox, config, daemon, follower = watched(house, faults=FAULTS, settle=SETTLE, **kafka_journal(kafka, prefix))
    daemon = killed(house, config, daemon, follower)
    assert judge(sandbox, daemon, follower) >= CHANGES
    assert follower.resumed >= KILLS
    states = balances(daemon.port)
    assert daemon.end()[0] == 0
    events = [event for _, _, event in consumed(kafka.address, prefix, PARTITIONS)]
    assert checker.broken_laws(events, states) == []
    assert {event["id"] for event in events} == {event["id"] for event in follower.events}


@pytest.mark.parametrize("half", [(), ("--only", "pollers")])
def test_a_second_instance_whose_port_is_taken_ends_alone(house, half):
    port = free_port()
    config = house.config(house.sandbox().providers(), relay={"port": port}, metrics_port=port)
    first = house.run(config, *half)
    one_clear_line(house.finished("run", "-c", config, *half), 69, str(port))
    assert first.end()[0] == 0, first.err


def test_a_second_instance_that_may_open_too_few_files_ends_alone(house):
    config = house.config(house.sandbox().providers())
    first = house.run(config)
    few = ("bash", "-c", 'ulimit -n 100; exec "$@"', "", sys.executable, "-m", "watcher")
    one_clear_line(house.finished("run", "-c", config, program=few), 2, "ulimit -n")
    assert first.end()[0] == 0, first.err


def test_a_second_instance_replaces_the_first_which_says_so_and_ends(house):
    sandbox, config, first, follower = watched(house, faults=FAULTS, settle=SETTLE)
    enough(follower, 100)
    second = house.run(config)
    first.wait()
    one_clear_line(first, 75, "instance")
    follower.port = second.port
    enough(follower, len(follower.events) + 100)
    _, states = settle(sandbox, second.port)
    until(lambda: sum(state["version"] for state in states) <= len(follower.events), "all events come")
    assert checker.broken_laws(follower.events, states) == []
    assert second.end()[0] == 0
