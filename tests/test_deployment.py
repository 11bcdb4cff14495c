"""The deployment files hold together: checked here, since a machine without Docker must notice too."""

import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from watcher.app import settings
from watcher.app.systemd import OPENING
from watcher.relay.settings import RelaySettings

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
    assert watcher["depends_on"]["topics"]["condition"] == "service_completed_successfully"
    assert compose["services"]["topics"]["command"][:2] == ["watcher", "init"]
    assert "healthcheck" in kafka


def test_what_the_broker_writes_stands_on_the_volume(compose):
    kafka = compose["services"]["kafka"]
    (volume,) = kafka["volumes"]
    name, _, place = volume.partition(":")
    assert name in compose["volumes"]
    assert kafka["environment"]["KAFKA_LOG_DIRS"] == place


def test_every_service_of_compose_hears_signals_and_has_no_more_rights_than_it_needs(compose):
    for service in compose["services"].values():
        assert service["init"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service.get("command", ["watcher"])[0] == "watcher"  # no shell, which would keep a signal to itself
    for name in ("kafka", "watcher"):
        assert compose["services"][name]["restart"] == "unless-stopped"


def test_the_watchers_healthcheck_tells_a_relay_that_answers_from_one_that_does_not(compose):
    kind, python, *arguments = compose["services"]["watcher"]["healthcheck"]["test"]
    assert (kind, python) == ("CMD", "python")
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        here = [argument.replace(":8765/", f":{server.server_port}/") for argument in arguments]
        assert here != arguments
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert subprocess.run([sys.executable, *here], check=False).returncode == 0
    assert subprocess.run([sys.executable, *here], stderr=subprocess.DEVNULL, check=False).returncode != 0


class Healthy(BaseHTTPRequestHandler):
    """Answers as a relay that is well."""

    def do_GET(self):
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_images_of_others_are_named_by_their_digests(compose):
    (base,) = re.findall(r"^FROM (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for image in (base, compose["services"]["kafka"]["image"]):
        assert re.fullmatch(r"[a-z/]+:[a-z0-9.-]+@sha256:[0-9a-f]{64}", image)


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


@pytest.fixture(scope="module")
def manifest():
    """Kind and name → each object of the Kubernetes example."""
    found = yaml.safe_load_all((ROOT / "config" / "fleet.yml").read_text())
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def test_the_kubernetes_fleet_is_one_group_whose_members_are_named_after_their_pods(manifest):
    table = tomllib.loads(manifest["ConfigMap", "watcher"]["data"]["watcher.toml"])
    pod = manifest["StatefulSet", "watcher"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (name,) = container["env"]
    assert settings.parse(table).providers
    assert table["kafka"]["group"]
    assert table["kafka"]["member_env"] == name["name"]
    assert name["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert container["args"][:2] == ["watcher", "run"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_kubernetes_fleet_hands_over_before_it_is_killed_and_may_do_no_more_than_it_needs(manifest):
    fleet = manifest["StatefulSet", "watcher"]["spec"]
    pod = fleet["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["terminationGracePeriodSeconds"] > 10
    assert manifest["PodDisruptionBudget", "watcher"]["spec"]["maxUnavailable"] == 1
    assert fleet["podManagementPolicy"] == "Parallel"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")] == [
        "/readyz",
        "/healthz",
    ]
    labels = fleet["template"]["metadata"]["labels"]
    assert fleet["selector"]["matchLabels"] == labels
    for service in ("watcher", "watcher-members"):
        assert manifest["Service", service]["spec"]["selector"] == labels
    assert ("Service", fleet["serviceName"]) in manifest


UNIT = ROOT / "config" / "balance-watcher.service"
MEMBER = ROOT / "config" / "watcher@.service"


@pytest.fixture(scope="module", params=[UNIT, MEMBER], ids=lambda unit: unit.name)
def unit(request):
    return request.param


@pytest.fixture(scope="module")
def service(unit):
    """Each setting of the unit's `[Service]`; of those that stand there twice, both."""
    section = unit.read_text().partition("[Service]")[2].partition("\n[")[0]
    settings = {}
    for line in section.splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            settings[name] = f"{settings[name]} {value}" if name in settings else value
    return settings


def test_the_systemd_unit_never_restarts_what_does_not_get_better(service):
    assert service["RestartPreventExitStatus"].split() == ["2", "75", "78"]
    assert int(service["TimeoutStopSec"]) > 10


def test_an_instance_of_the_template_is_a_member_with_its_own_name():
    text = MEMBER.read_text()
    (name,) = re.findall(r"^Environment=(\w+)=%i$", text, re.MULTILINE)
    assert f'member_env = "{name}"' in text
    assert "watcher run --only pollers" in text  # of two members on one machine, one would find the port taken


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here (.ci/run brings it)")
def test_systemd_finds_little_that_the_service_could_do_harm_with(unit):
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=39", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout[-2000:] + judged.stderr


def verified(folder, unit, text):
    """What systemd says against the unit, where its programs are there."""
    name = unit.name.replace("@", "@a")
    (folder / name).write_text(text.replace("/opt/balance-watcher/.venv/bin/watcher", "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", f"./{name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stderr.splitlines()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here (.ci/run brings it)")
def test_systemd_understands_the_unit(unit, tmp_path):
    text = unit.read_text()
    version = int(subprocess.check_output(["systemd-analyze", "--version"], text=True).split()[1])
    known = [] if version >= 253 else ["Failed to parse service type, ignoring: notify-reload"]
    assert [line.partition(": ")[2] for line in verified(tmp_path, unit, text)] == known
    misspelled = verified(tmp_path, unit, text.replace("WatchdogSec", "WatchdogSecs"))
    assert "WatchdogSecs" in misspelled[-1]
    if unit == UNIT:  # the credential that stands there as a comment
        (line,) = re.findall(r"^# (LoadCredential=.*)$", text, re.MULTILINE)
        assert [each.partition(": ")[2] for each in verified(tmp_path, unit, text.replace(f"# {line}", line))] == known
        assert f'/run/credentials/{unit.name}/{line.partition("=")[2].partition(":")[0]}"' in text


def test_systemd_hears_from_the_service_and_restarts_it_when_it_hears_nothing(unit, service):
    # An older systemd keeps the first line, since it ignores a word that it does not know.
    assert service["Type"] == "notify notify-reload"
    assert int(service["WatchdogSec"]) >= 4 * OPENING  # so that a stutter of the loop is no death
    assert service["Restart"] == "on-failure"  # which a silent watchdog is
    assert "ExecReload" not in service  # notify-reload sends SIGHUP: a second one would reload twice


def test_the_service_may_do_what_it_needs_and_no_more(service):
    switched_on = {name for name, value in service.items() if value == "true"}
    assert switched_on >= {
        "LockPersonality", "MemoryDenyWriteExecute", "NoNewPrivileges", "PrivateDevices", "PrivateTmp", "PrivateUsers",
        "ProtectClock", "ProtectControlGroups", "ProtectHome", "ProtectHostname", "ProtectKernelLogs",
        "ProtectKernelModules", "ProtectKernelTunables", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID",
    }  # fmt: skip
    assert (service["ProtectSystem"], service["CapabilityBoundingSet"], service["UMask"]) == ("strict", "", "0077")
    assert service["SystemCallFilter"] == "@system-service ~@privileged @resources"
    # Providers and subscribers, the names of both, and as many of them as the relay takes by itself.
    assert {"AF_INET", "AF_INET6", "AF_UNIX"} <= {*service["RestrictAddressFamilies"].split()}
    assert int(service["LimitNOFILE"]) > RelaySettings().max_connections + 1000
    assert (service["StateDirectory"], service["StateDirectoryMode"]) == ("balance-watcher", "0700")
    assert service["WorkingDirectory"] == "/var/lib/balance-watcher"


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
