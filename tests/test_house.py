"""The house keeps its doors: each room imports what its line of the table allows, and nothing else."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WATCHER = ROOT / "watcher"

DOORS = {
    "runtime": set(),
    "redaction": {"runtime"},
    "limits": set(),
    "model": {"redaction", "runtime"},
    "logs": {"redaction", "runtime"},
    "providers": {"model", "limits", "redaction", "runtime"},
    "ledger": {"model", "redaction"},
    "journal": {"model"},
    "relay": {"model", "redaction", "runtime"},
    "sandbox": {"model"},
    "scheduling": {"model", "limits", "runtime"},
    "journal/sqlite": {"journal", "model", "redaction", "runtime"},
    "journal/kafka": {"journal", "model", "redaction", "runtime"},
    "client": {"model", "relay", "redaction", "logs", "runtime"},
    "poller": {"model", "limits", "scheduling", "providers", "ledger", "redaction", "runtime"},
    "ingest": {"model", "ledger", "journal", "redaction", "runtime"},
}
"""Room → rooms that it may import, lowest first: each imports only rooms that stand above it here. `app` imports all."""

FACES = {"__init__", "__main__", "provider", "testing"}
"""Beside the rooms: imported by nothing of ours."""

ONLY_IN = {
    "aiokafka": "watcher/journal/kafka/",
    "websockets": ("watcher/relay/", "watcher/client/"),
    "sqlite3": "watcher/journal/sqlite/",
    "pytest": "watcher/testing/",
    "httpcore": ("watcher/poller/connections", "watcher/poller/http2"),
    "h2": "watcher/poller/http2",
    "httpx": ("watcher/poller/", "watcher/app/daemon", "watcher/app/check", "watcher/sandbox/transport"),
}


def modules():
    return sorted(WATCHER.rglob("*.py"))


def room(parts):
    """Of a file or a module, by the parts of its path below `watcher`."""
    return "/".join(parts[:2]) if "/".join(parts[:2]) in DOORS else parts[0]


def home(path):
    return room(path.relative_to(WATCHER).with_suffix("").parts)


def imported(path):
    """Absolute names of everything the file imports, wherever in the file it does."""
    package = ("watcher", *path.relative_to(WATCHER).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            name = ".".join(filter(None, (base, node.module)))
            yield from (f"{name}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_through_its_doors(path):
    here = home(path)
    if here in FACES or here == "app":
        return
    rooms = {room(name.split(".")[1:]) for name in imported(path) if name.startswith("watcher.")}
    assert rooms <= DOORS[here] | {here}, f"{path} goes through a wall"


def test_every_door_leads_down():
    floors = list(DOORS)
    assert all(floors.index(other) < floors.index(here) for here, others in DOORS.items() for other in others)


def test_nothing_stands_beside_the_rooms():
    assert {home(path) for path in modules()} == {*DOORS, *FACES, "app"}


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_of_the_edge_appears_in_its_room_alone(library):
    where = {str(p.relative_to(ROOT)) for p in modules() if any(n.split(".")[0] == library for n in imported(p))}
    assert all(name.startswith(ONLY_IN[library]) for name in where), where


def test_wall_clocks_stand_only_in_app():
    clocks = ("time.time", "datetime.now", "datetime.utcnow", "time.time_ns", "time.monotonic")
    found = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules()
        if home(path) != "app"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in clocks
    }
    assert not found


def test_no_test_replaces_one_of_our_own_objects():
    banned = "unittest." + "mock"
    assert not [str(p) for p in (ROOT / "tests").rglob("*.py") if banned in p.read_text()]
