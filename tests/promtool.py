"""Prometheus' own tool: from `WATCHER_TEST_PROMTOOL`, else from the PATH. `.ci/run` brings it."""

import os
import shutil
import subprocess

import pytest

PROMTOOL = os.environ.get("WATCHER_TEST_PROMTOOL") or shutil.which("promtool")


def promtool(*arguments, given=""):
    """The exit status, and all that it says. Skips the test, or fails it with `CI=true`, where there is none."""
    if PROMTOOL is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no promtool", pytrace=False)
        pytest.skip("no promtool: set WATCHER_TEST_PROMTOOL (Debian has it in the package prometheus)")
    done = subprocess.run(
        [PROMTOOL, *map(str, arguments)], input=given, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout + done.stderr
