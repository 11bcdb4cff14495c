"""The daemon on a journal of somebody else's package, which it finds by its entry point."""

import shutil

import pytest

from tests.e2e.harness import ROOT, balances, until

INFO = {
    "METADATA": "Metadata-Version: 2.1\nName: acme-memory\nVersion: 1.0\n",
    "entry_points.txt": "[balance_watcher.journals]\nacme-memory = acme_memory:PLUGIN\n",
}


@pytest.fixture
def site(tmp_path):
    """Where that package stands installed."""
    site = tmp_path / "site"
    info = site / "acme_memory-1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "journal" / "acme_memory.py", site)
    for name, text in INFO.items():
        (info / name).write_text(text)
    return site


def test_changes_arrive_through_a_journal_that_is_not_ours(house, site):
    sandbox = house.sandbox(rate=50.0, faults="none")
    config = house.config(sandbox.providers(), journal="acme-memory://one")
    daemon = house.run(config, env={"PYTHONPATH": str(site)})
    assert "is in memory" in daemon.told("journal.ready")["text"]
    follower = house.follower(daemon.port)
    until(lambda: len(follower.events) >= 50, lambda: f"{len(follower.events)} of 50 changes are told")
    assert follower.trouble == []
    told = {
        event["provider"] for event in follower.events
    }  # before the states are asked for: more may be told meanwhile
    assert {row["provider"] for row in balances(daemon.port)} >= told
    assert daemon.end()[0] == 0
    without = house.finished("run", "-c", config)
    assert without.status == 2
    assert "acme-memory" in without.err
