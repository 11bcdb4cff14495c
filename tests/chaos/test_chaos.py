"""A short seed of every chaos run on SQLite: the real daemon keeps the laws, and each planted fault is seen."""

import asyncio
import os
import select
import subprocess
import sys

import pytest

from tests.chaos.planted import CONTROLS, CROSSING_LAWS, CROSSINGS, FAULTS_FOR
from tests.chaos.run import chaos
from tests.chaos.system import OURS

SECONDS = 900.0
"""For a control to show itself; it ends as soon as it has."""
SOON = 1.0
"""For one that shows itself in what was committed, at the latest when that is read once more at the end."""


def quiet(_line):
    pass


def test_sqlite_under_faults_loses_nothing_and_tells_nothing_twice(tmp_path):
    report = asyncio.run(chaos(tmp_path, "sqlite", seconds=4, seed=3, rate=100, say=quiet))
    assert report.good, (report.trouble, report.examples)
    assert report.final.events > 0
    assert report.final.crossings.count > 0


SLOW = {"restore-before-fence", "silent-when-busy"}


@pytest.mark.parametrize(
    "control",
    [
        pytest.param(name, marks=[pytest.mark.soak] * (name in SLOW))
        for name in CONTROLS["sqlite"]
        if name not in CROSSINGS
    ],
)
def test_a_fault_planted_before_sqlite_is_seen(control, tmp_path):
    only = FAULTS_FOR["sqlite"][control]
    report = asyncio.run(
        chaos(tmp_path, "sqlite", seconds=SECONDS, seed=1, rate=100, control=control, only=only, say=quiet)
    )
    assert report.violations, report.trouble


@pytest.mark.parametrize("control", CROSSINGS)
def test_a_fault_in_crossings_before_sqlite_is_seen_as_one(control, tmp_path):
    report = asyncio.run(
        chaos(tmp_path, "sqlite", seconds=SOON, seed=1, rate=100, control=control, only=["kill"], say=quiet)
    )
    assert CROSSING_LAWS[control] & report.violations.keys(), (report.trouble, report.violations)


@pytest.mark.skipif(not OURS, reason="setpriv is not on the PATH")
def test_what_a_killed_tool_had_started_ends_with_it():
    speaks = [*OURS, "sh", "-c", "echo $$; exec sleep 600"]
    command = f"import subprocess; subprocess.Popen({speaks}); input()"
    with subprocess.Popen([sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tool:
        ours = os.pidfd_open(int(tool.stdout.readline()))
        tool.kill()
    ended, _, _ = select.select([ours], [], [], 60)
    os.close(ours)
    assert ended
