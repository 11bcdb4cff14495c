"""A short seed of every chaos run on Kafka: the real daemon keeps the laws, and each planted fault is seen."""

import asyncio

import pytest

from tests.chaos.planted import CONTROLS, CROSSING_LAWS, CROSSINGS, FAULTS_FOR
from tests.chaos.run import chaos
from tests.chaos.system import fronted
from tests.kafka_broker import NoBroker

SECONDS = 900.0
"""For a control to show itself; it ends as soon as it has."""
SOON = 1.0
"""For one that shows itself in what was committed, at the latest when that is read once more at the end."""

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A broker of our own for all of these: each run leaves it up, and has topics of its own."""
    try:
        with fronted(tmp_path_factory.mktemp("chaos")) as node:
            yield node
    except NoBroker as reason:
        pytest.skip(f"no broker of our own: {reason}")


def quiet(_line):
    pass


def test_kafka_under_faults_loses_nothing_and_tells_nothing_twice(node, tmp_path):
    report = asyncio.run(chaos(tmp_path, "kafka", seconds=4, seed=3, rate=100, say=quiet, node=node))
    assert report.good, (report.trouble, report.examples)
    assert report.final.events > 0
    assert report.final.crossings.count > 0


SLOW = {"restore-before-fence", "send-not-awaited"}


@pytest.mark.parametrize(
    "control",
    [
        pytest.param(name, marks=[pytest.mark.soak] * (name in SLOW))
        for name in CONTROLS["kafka"]
        if name not in CROSSINGS
    ],
)
def test_a_fault_planted_before_kafka_is_seen(node, control, tmp_path):
    only = FAULTS_FOR["kafka"][control]
    report = asyncio.run(
        chaos(tmp_path, "kafka", seconds=SECONDS, seed=1, rate=100, control=control, only=only, say=quiet, node=node)
    )
    assert report.violations, report.trouble


ON_SQLITE = {"crossing-dropped", "crossing-invented"}
"""Each takes half a minute; test_chaos.py sees them in seconds, by the same laws."""


@pytest.mark.parametrize(
    "control", [pytest.param(name, marks=[pytest.mark.soak] * (name in ON_SQLITE)) for name in CROSSINGS]
)
def test_a_fault_in_crossings_before_kafka_is_seen_as_one(node, control, tmp_path):
    report = asyncio.run(
        chaos(tmp_path, "kafka", seconds=SOON, seed=1, rate=100, control=control, only=["kill"], say=quiet, node=node)
    )
    assert CROSSING_LAWS[control] & report.violations.keys(), (report.trouble, report.violations)
