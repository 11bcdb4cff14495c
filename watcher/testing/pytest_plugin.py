"""Fixtures for the tests of others, found by pytest through an entry point: the simulated providers, and a watcher of them.

    @pytest.mark.balance_sandbox(seed=7, faults="late=0.1")
    def test_ours(balance_sandbox, balance_watcher): ...

Nothing of ours is imported before a test asks for a fixture: every pytest run of an environment loads this file.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

MARKER = "balance_sandbox"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{MARKER}(seed=1, rate=0, faults='none', limits='none', hints=False): the world of the fixture balance_sandbox",
    )


@pytest.fixture
def balance_sandbox(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A `watcher.testing.sandbox.Sandbox`: the five simulated providers on loopback. Nothing moves but by `set`, unless the marker says otherwise."""
    from watcher.testing.sandbox import Sandbox  # noqa: PLC0415 (see above)

    marker = request.node.get_closest_marker(MARKER)
    with Sandbox(**({} if marker is None else marker.kwargs)) as sandbox:
        yield sandbox


@pytest.fixture
def balance_watcher(balance_sandbox: Any, tmp_path: Path) -> Iterator[Any]:
    """A `watcher.testing.sandbox.RunningWatcher` that polls `balance_sandbox` into a SQLite journal, and relays.

    Where the marker says `hints=True`, it takes hints from its push channels and its webhooks.
    """
    from watcher.testing.sandbox import RunningWatcher  # noqa: PLC0415 (see above)

    with RunningWatcher(balance_sandbox.config(tmp_path), balance_sandbox.environment) as watcher:
        if balance_sandbox.hinting:
            balance_sandbox.send_webhooks(watcher.hook)
        yield watcher
