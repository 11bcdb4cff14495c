"""A foreign client: npm's `ws`, installed from its lock file into a copy."""

import json
from pathlib import Path

import anyio
import pytest

from tests.foreign import npm
from tests.relay.stage import PATIENCE, staged

pytestmark = pytest.mark.anyio

HERE = Path(__file__).with_name("npm")


@pytest.fixture
def client(tmp_path):
    """The client's script with its modules beside it."""
    return npm(HERE, tmp_path / "npm") / "client.js"


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
