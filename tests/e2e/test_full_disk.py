"""A disk that is full, or a file that may not grow: the last line says so, and what to do."""

import contextlib
import subprocess
import sys

import pytest

from tests.e2e.harness import one_clear_line

LIMITED = """
import resource, sys
from watcher.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
sys.exit(main())
"""


@pytest.fixture
def tiny(tmp_path):
    """A real file system of 400 KB."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", place], check=False)
    if mounted.returncode != 0:
        pytest.skip("no file system may be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_the_last_line(house, tiny):
    sandbox = house.sandbox(rate=300.0, limits="none")
    config = house.config(sandbox.providers(), journal=f"sqlite:///{tiny / 'balances.db'}")
    for _ in range(2):  # while it runs, and when it starts on it
        daemon = house.watcher("run", "-c", config)
        with contextlib.closing(daemon):
            daemon.wait()
        one_clear_line(daemon, 69, "database or disk is full", str(tiny / "balances.db"), "make room")
        assert daemon.err.splitlines()[-1].startswith("watcher: ")


def test_a_file_that_may_not_grow_is_the_last_line(house):
    sandbox = house.sandbox(rate=300.0, limits="none")
    program = (sys.executable, "-c", LIMITED)
    daemon = house.watcher("run", "-c", house.config(sandbox.providers()), program=program)
    daemon.wait()
    one_clear_line(daemon, 69, "the disk refuses", "balances.db", "ulimit -f")
    assert daemon.err.splitlines()[-1].startswith("watcher: ")
