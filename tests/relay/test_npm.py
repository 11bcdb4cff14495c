"""A foreign client: npm's `ws`, installed from its lock file into a copy."""

import json
import os
import shutil
from pathlib import Path

import anyio
import pytest

from tests.relay.stage import PATIENCE, staged

pytestmark = pytest.mark.anyio

HERE = Path(__file__).with_name("npm")


@pytest.fixture
async def client(tmp_path):
    """The client's script with its modules beside it."""
    folder = tmp_path / "npm"
    shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("node_modules"))
    reason = "no node and npm here" if not (shutil.which("node") and shutil.which("npm")) else ""
    if not reason:
        done = await anyio.run_process(
            ["npm", "ci", "--prefer-offline", "--no-audit", "--no-fund"], cwd=folder, check=False
        )
        reason = f"npm ci: {done.stderr.decode()[-200:]}" if done.returncode else ""
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(reason)
    return folder / "client.js"


async def test_npm_ws_follows_and_resumes(tmp_path, client):
    async with staged(tmp_path) as stage:
        await stage.teller.tell("A")
        async with await anyio.open_process(["node", str(client), stage.url, "40"]) as process:
            told = b""
            with anyio.fail_after(PATIENCE):
                async for part in process.stdout:
                    told += part
                    if b"subscribed" in told:
                        break
                for _ in range(40):
                    await stage.teller.tell("A")
                async for part in process.stdout:
                    told += part
        lines = told.decode().splitlines()
        assert lines[:2] == ["subscribed false", "resumed true"]
        assert json.loads(lines[2])["seen"] == list(range(1, 41))
