"""A short seed of a fleet's chaos: three real members keep the laws and the limits, and a planted fault is seen.

The other controls take longer to show themselves: `make chaos ARGS="--fleet 3 --control NAME"`.
"""

import asyncio

import pytest

from tests.chaos import fleet_run
from tests.chaos.planted import FAULTS_FOR
from tests.kafka_broker import NoBroker

pytestmark = pytest.mark.kafka


def quiet(_line):
    pass


def judged(folder, **options):
    try:
        return asyncio.run(fleet_run.chaos(folder, seed=3, size=3, rate=20, say=quiet, **options))
    except* NoBroker as reason:
        pytest.skip(f"no broker of our own: {reason.exceptions[0]}")


def test_a_fleet_under_faults_loses_nothing_and_exceeds_no_limit(tmp_path):
    report = judged(tmp_path, seconds=20, only=["kill", "cut_group_held"])
    assert report.good, (report.trouble, report.examples)
    assert report.judge.moves > 0
    assert report.checker.events > 0


def test_two_owners_of_one_provider_are_seen(tmp_path):
    control = "two-owners"
    report = judged(tmp_path, seconds=5, control=control, only=FAULTS_FOR["fleet"][control])
    assert report.seen, report.trouble
