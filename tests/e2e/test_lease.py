"""The end of one process and the start of the next, on real clocks."""

import signal
import time

import pytest

from tests.e2e.harness import until
from tests.e2e.test_spine import kafka_journal, watched
from watcher.limits.lease import LATE


def silence(house, config, sandbox, daemon, how):
    """Seconds from the next process's first instant to the first request of it; and the process, when that has left."""
    daemon.end(how)

    def requests():
        return sum(desk["requests"] for desk in sandbox.report(history=False)["providers"].values())

    before, began = requests(), time.monotonic()
    daemon = house.run(config)
    asked_before_it_said_so = requests() - before
    until(lambda: requests() > before, "it asks")
    return time.monotonic() - began, asked_before_it_said_so, daemon


def followed(house, **journal):
    sandbox, config, daemon, _ = watched(house, faults="none", **journal)
    released, _, daemon = silence(house, config, sandbox, daemon, signal.SIGTERM)
    doubtful, early, daemon = silence(house, config, sandbox, daemon, signal.SIGKILL)
    assert doubtful > LATE
    assert not early, "it says that it has started and does not wait with that"
    assert released < doubtful
    daemon.end()
    report = sandbox.report(history=False)["providers"]
    assert {name: desk["refusals"] for name, desk in report.items()} == dict.fromkeys(report, 0)


def test_after_an_end_in_order_polling_goes_on_and_after_a_kill_it_waits_until_the_lease_is_over(house):
    followed(house)


@pytest.mark.kafka
def test_the_same_on_real_kafka(house, kafka, prefix):
    followed(house, **kafka_journal(kafka, prefix))
