"""The house keeps its doors: each room imports what its line of the table allows, and nothing else."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WATCHER = ROOT / "watcher"

DOORS = {
    "events": set(),
    "addresses": set(),
    "columns": {"events"},
    "ledger": {"columns", "events"},
    "windows": set(),
    "limiter": {"windows"},
    "queues": set(),
    "rates": set(),
    "schedule": {"queues", "rates"},
    "providers": {"columns", "events"},
    "poller": {"columns", "events", "ledger", "limiter", "schedule", "providers"},
    "journal": {"columns", "events", "ledger"},
    "relay": {"events", "outlet"},
    "sandbox": set(),
    "settings": {"providers"},
    "logs": {"outlet", "storms"},
    "outlet": set(),
    "storms": set(),
    "hiding": set(),
    "screen": set(),
    "secret": set(),
    "metrics": set(),
}
"""Room → rooms it may import; the root (cli, daemon) may import all."""
OPEN = {"addresses", "hiding", "screen", "secret"}
"""Rooms that anyone may import."""

ROOT_ROOMS = {
    "cli", "daemon", "sources", "exits", "outliving", "descriptors", "figures", "exposure", "check", "demo", "__main__",
}  # fmt: skip
ONLY_IN = {
    "aiokafka": "watcher/journal/kafka",
    "websockets": "watcher/relay/",
    "sqlite3": "watcher/journal/",
    "httpcore": ("watcher/poller/connections", "watcher/poller/http2"),
    "h2": "watcher/poller/http2",
    "httpx": ("watcher/poller", "watcher/daemon", "watcher/check", "watcher/sandbox/transport"),
}


def modules():
    return sorted(WATCHER.rglob("*.py"))


def room(path):
    return path.relative_to(WATCHER).parts[0].removesuffix(".py")


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
    here = room(path)
    if here in ROOT_ROOMS or here == "__init__":
        return
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("watcher.")}
    assert rooms <= DOORS[here] | OPEN | {here}, f"{path} goes through a wall"


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_of_the_edge_appears_in_its_room_alone(library):
    where = {str(p.relative_to(ROOT)) for p in modules() if any(n.split(".")[0] == library for n in imported(p))}
    assert all(name.startswith(ONLY_IN[library]) for name in where), where


def test_wall_clocks_stand_only_in_the_root():
    clocks = ("time.time", "datetime.now", "datetime.utcnow", "time.time_ns", "time.monotonic")
    found = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules()
        if room(path) not in ROOT_ROOMS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in clocks
    }
    assert not found


def test_no_test_replaces_one_of_our_own_objects():
    banned = "unittest." + "mock"
    assert not [str(p) for p in (ROOT / "tests").rglob("*.py") if banned in p.read_text()]
