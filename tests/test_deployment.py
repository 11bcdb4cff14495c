"""The deployment files hold together: checked here, since a machine without Docker must notice too."""

import configparser
import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from watcher import settings

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_compose_starts_kafka_in_kraft_mode_and_the_watcher_after_it_is_healthy(compose):
    kafka, watcher = compose["services"]["kafka"], compose["services"]["watcher"]
    assert kafka["image"].startswith("apache/kafka:")
    environment = kafka["environment"]
    assert set(environment["KAFKA_PROCESS_ROLES"].split(",")) == {"broker", "controller"}
    assert environment["KAFKA_CONTROLLER_QUORUM_VOTERS"].startswith(environment["KAFKA_NODE_ID"] + "@kafka:")
    assert watcher["depends_on"]["kafka"]["condition"] == "service_healthy"
    assert "healthcheck" in kafka


def test_one_node_asks_for_no_replica_that_cannot_exist(compose):
    environment = compose["services"]["kafka"]["environment"]
    replicas = {name: value for name, value in environment.items() if name.endswith(("_FACTOR", "_ISR"))}
    assert set(replicas.values()) == {"1"}
    assert len(replicas) == 5


def test_every_volume_and_mounted_file_of_compose_exists(compose):
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"]


def test_compose_publishes_the_relay_on_loopback_and_with_tokens(compose):
    watcher = compose["services"]["watcher"]
    assert all(port.startswith("127.0.0.1:") for port in watcher["ports"])
    table = tomllib.loads((ROOT / "config" / "compose.toml").read_text())
    assert table["relay"]["tokens_env"] in watcher["environment"]
    assert re.match(r"kafka://kafka:9092$", table["journal"])
    assert settings.parse(table).providers


def test_the_systemd_unit_never_restarts_what_does_not_get_better():
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read(ROOT / "config" / "balance-watcher.service")
    service = unit["Service"]
    assert service["RestartPreventExitStatus"].split() == ["2", "75", "78"]
    assert int(service["TimeoutStopSec"]) > 10


def test_no_file_names_the_host_of_a_package_registry():
    # Spelled in parts, so that this file is not the one that names them.
    hosts = re.compile(
        "|".join(["py" + r"pi\.org", "python" + r"hosted\.org", "npm" + r"js\.org", r"repo[0-9]*\.maven"])
    )
    tracked = [p for p in files() if p.suffix in (".txt", ".toml", ".json", ".xml", ".yml", ".cfg")]
    assert ROOT / "pyproject.toml" in tracked
    assert [p for p in tracked if hosts.search(p.read_text(errors="replace"))] == []


def files():
    """All of ours. What tools keep beside them is not entered: it comes and goes while other tests run."""
    skipped = {".git", ".kafka", "node_modules", ".mypy_cache", ".ruff_cache", ".hypothesis", ".pytest_cache"}
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in skipped and not name.startswith(".venv")]
        yield from (Path(folder) / name for name in names)
