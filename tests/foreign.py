"""What is not ours and is installed for tests alone: named where it is missing, and an error on CI."""

import os
import shutil
import subprocess

import pytest


def absent(reason):
    """Skip with it. On CI it fails: nothing was proved."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def require(*commands):
    """All of them on the PATH, or else this test is not for this machine."""
    if missing := [command for command in commands if shutil.which(command) is None]:
        absent(f"no {' and no '.join(missing)} here")


def npm(source, folder):
    """A copy of the folder `source`, with its modules as its lock has them."""
    require("node", "npm")
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        absent(f"npm ci: {done.stderr[-200:]}")
    return folder
