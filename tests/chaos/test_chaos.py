"""A short seed of every chaos run: the real daemon keeps the laws, and each planted fault is seen."""

import asyncio

import pytest

from tests.chaos.planted import CONTROLS, FAULTS_FOR
from tests.chaos.run import chaos

SECONDS = 300.0
"""For a control to show itself; it ends as soon as it has."""


def quiet(_line):
    pass


def test_sqlite_under_faults_loses_nothing_and_tells_nothing_twice(tmp_path):
    report = asyncio.run(chaos(tmp_path, "sqlite", seconds=4, seed=3, rate=100, say=quiet))
    assert report.good, (report.trouble, report.examples)
    assert report.final.events > 0


@pytest.mark.kafka
def test_kafka_under_faults_loses_nothing_and_tells_nothing_twice(kafka, tmp_path):
    report = asyncio.run(chaos(tmp_path, "kafka", seconds=4, seed=3, rate=100, say=quiet))
    assert report.good, (report.trouble, report.examples)
    assert report.final.events > 0


@pytest.mark.parametrize("control", ["version-not-persisted", "no-fence"])
def test_a_fault_planted_before_sqlite_is_seen(control, tmp_path):
    assert control in CONTROLS["sqlite"]
    only = FAULTS_FOR[control]
    report = asyncio.run(
        chaos(tmp_path, "sqlite", seconds=SECONDS, seed=1, rate=100, control=control, only=only, say=quiet)
    )
    assert report.violations, report.trouble


@pytest.mark.kafka
@pytest.mark.parametrize("control", ["version-not-persisted", "restore-before-fence"])
def test_a_fault_planted_before_kafka_is_seen(kafka, control, tmp_path):
    only = FAULTS_FOR[control]
    report = asyncio.run(
        chaos(tmp_path, "kafka", seconds=SECONDS, seed=1, rate=100, control=control, only=only, say=quiet)
    )
    assert report.violations, report.trouble
