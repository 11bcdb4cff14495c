"""`make soak`: a short seed of a fleet's chaos, in which real members keep the laws and the limits; each planted fault is seen."""

import asyncio

import pytest

from tests.chaos import fleet_run
from tests.chaos.planted import CONTROLS, FAULTS_FOR, HARMLESS
from tests.kafka_broker import NoBroker

pytestmark = pytest.mark.kafka


def quiet(_line):
    pass


def judged(folder, **options):
    try:
        return asyncio.run(fleet_run.chaos(folder, rate=20, say=quiet, **options))
    except* NoBroker as reason:
        pytest.skip(f"no broker of our own: {reason.exceptions[0]}")


@pytest.mark.soak
def test_a_fleet_under_faults_loses_nothing_and_exceeds_no_limit(tmp_path):
    report = judged(tmp_path, seed=3, size=3, seconds=1, only=["cut_group_held"])
    assert report.good, (report.trouble, report.examples)
    assert report.judge.moves > 0
    assert report.checker.events > 0


BY_CHANCE = {"doubt-stamped-at-the-fence"}
"""A former owner has to ask within some tenths of a second; tests/worlds/test_hand_over.py makes it."""


def control(folder, name):
    return judged(folder, seed=7, size=3, seconds=90, control=name, only=FAULTS_FOR["fleet"][name])


@pytest.mark.soak
@pytest.mark.parametrize("name", sorted(CONTROLS["fleet"].keys() - HARMLESS - BY_CHANCE))
def test_each_planted_fault_is_seen(tmp_path, name):
    report = control(tmp_path, name)
    assert report.seen, report.trouble


@pytest.mark.soak
@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_what_breaks_no_law_is_not_taken_for_a_fault(tmp_path, name):
    report = control(tmp_path, name)
    assert report.faults
    assert not report.seen, report.judge.examples
