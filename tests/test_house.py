"""The laws of the tree: who may import whom, which names are unique, who changes a record, how long a function is."""

import ast
import functools
import re
from collections import Counter
from pathlib import Path

import pytest

from watcher.ledger.listings import Listing
from watcher.ledger.record import BalanceRecord

ROOT = Path(__file__).parent.parent
WATCHER = ROOT / "watcher"

DOORS = {
    "runtime": set(),
    "redaction": {"runtime"},
    "limits": set(),
    "model": {"redaction", "runtime"},
    "fleet": {"model"},
    "logs": {"redaction", "runtime"},
    "providers": {"model", "limits", "redaction", "runtime"},
    "ledger": {"model", "redaction"},
    "journal": {"model"},
    "past": {"model", "runtime"},
    "relay": {"model", "past", "redaction", "runtime"},
    "sandbox": {"model"},
    "hints": {"model", "redaction", "runtime"},
    "webhooks": {"model", "redaction", "runtime"},
    "scheduling": {"model", "limits", "runtime"},
    "journal/sqlite": {"journal", "model", "redaction", "runtime"},
    "journal/kafka": {"journal", "fleet", "model", "redaction", "runtime"},
    "client": {"model", "relay", "redaction", "logs", "runtime"},
    "poller": {"model", "limits", "scheduling", "providers", "ledger", "redaction", "runtime"},
    "ingest": {"model", "ledger", "limits", "journal", "redaction", "runtime"},
    "rehearsal": {"model", "ledger", "limits", "providers", "poller", "scheduling", "journal", "past", "runtime"},
}
"""Room → rooms that it may import, lowest first: each imports only rooms that stand above it here. `app` imports all."""

FACES = {"__init__", "__main__", "provider", "testing"}
"""Beside the rooms: imported by nothing of ours."""

NARROW = {
    ("client", "relay"): {"messages", "wire"},
    ("poller", "ledger"): {"Verdict"},
    ("sandbox", "model"): {"addresses", "associated_accounts"},
}
"""Doors through which these alone may be taken."""
ONLY_IN = {
    "aiokafka": "watcher/journal/kafka/",
    "websockets": (
        "watcher/relay/websocket",
        "watcher/relay/http/",
        "watcher/relay/server",
        "watcher/client/stream",
        "watcher/hints/socket_source",
        "watcher/sandbox/push",
    ),
    "sqlite3": "watcher/journal/sqlite/",
    "pytest": "watcher/testing/",
    "httpcore": ("watcher/poller/connections", "watcher/poller/http2", "watcher/webhooks/connections"),
    "h2": "watcher/poller/http2",
    "prometheus_client": (
        "watcher/app/metrics",
        "watcher/app/balance_gauges",
        "watcher/app/webhook_metrics",
        "watcher/app/alert_metrics",
    ),
    "httpx": (
        "watcher/poller/",
        "watcher/app/daemon",
        "watcher/app/check",
        "watcher/sandbox/transport",
        "watcher/sandbox/webhook_sender",
        "watcher/journal/kafka/oauth_tokens",
        "watcher/webhooks/",
    ),
}


FUNCTION = 35
"""Lines of a function at most, without its docstring."""
FILE = 420
"""Lines of a file at most."""
FORMER_WORDS = re.compile(
    "told|untold|astray|heard|hearing|hanging|outliving|keeper|rota|errand|shelf|shelves|drafts?|visitor|peer|hub|guest|storms?|breath"
)
"""Words that the glossary of docs/architecture.md has replaced, as parts of identifiers."""


def modules():
    return sorted(WATCHER.rglob("*.py"))


def place(path):
    return str(path.relative_to(ROOT))


@functools.cache
def tree(path):
    return ast.parse(path.read_text())


def nodes(path):
    return ast.walk(tree(path))


def room(parts):
    """Of a file or a module, by the parts of its path below `watcher`."""
    return "/".join(parts[:2]) if "/".join(parts[:2]) in DOORS else parts[0]


def home(path):
    return room(path.relative_to(WATCHER).with_suffix("").parts)


def imported(path):
    """Absolute names of everything the file imports, wherever in the file it does."""
    package = ("watcher", *path.relative_to(WATCHER).parent.parts)
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            name = ".".join(filter(None, (base, node.module)))
            yield from (f"{name}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=place)
def test_a_room_imports_only_through_its_doors(path):
    here = home(path)
    if here in FACES or here == "app":
        return
    rooms = {room(name.split(".")[1:]) for name in imported(path) if name.startswith("watcher.")}
    assert rooms <= DOORS[here] | {here}, f"{path} goes through a wall"


@pytest.mark.parametrize("way", NARROW, ids=" to ".join)
def test_some_doors_are_narrow(way):
    here, there = way
    taken = {
        name.split(".")[2]
        for path in modules()
        if home(path) == here
        for name in imported(path)
        if name.startswith(f"watcher.{there}.")
    }
    assert taken <= NARROW[way]


def test_every_door_leads_down():
    floors = list(DOORS)
    assert all(floors.index(other) < floors.index(here) for here, others in DOORS.items() for other in others)


def test_nothing_stands_beside_the_rooms():
    assert {home(path) for path in modules()} == {*DOORS, *FACES, "app"}


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_of_the_edge_appears_in_its_room_alone(library):
    where = {place(p) for p in modules() if any(n.split(".")[0] == library for n in imported(p))}
    assert all(name.startswith(ONLY_IN[library]) for name in where), where


def imported_files(path):
    """Files of ours that the file imports. What a package's `__init__` hands on counts as that package's file."""
    for name in imported(path):
        parts = name.split(".")
        candidates = (ROOT.joinpath(*parts[:end]) for end in range(len(parts), 0, -1))
        for folder in candidates if parts[0] == "watcher" else ():
            files = [file for file in (folder.with_suffix(".py"), folder / "__init__.py") if file.is_file()]
            if files:
                yield files[0]
                break


def cycles():
    """Sets of files that import one another, `TYPE_CHECKING` and imports within functions included."""
    found, done, way = set(), set(), []

    def visit(path):
        way.append(path)
        for other in {*imported_files(path)} - {path}:
            if other in way:
                found.add(frozenset(map(place, way[way.index(other) :])))
            elif other not in done:
                visit(other)
        done.add(way.pop())

    for path in modules():
        if path not in done:
            visit(path)
    return found


def test_no_files_import_one_another():
    assert not cycles()


def test_no_file_imports_for_types_alone():
    named = {place(path) for path in modules() for node in nodes(path) if getattr(node, "id", "") == "TYPE_CHECKING"}
    assert not named


def test_no_two_classes_have_one_public_name():
    classes = [node.name for path in modules() for node in tree(path).body if is_class(node)]
    assert not [name for name, count in Counter(classes).items() if count > 1]


def is_class(node):
    return isinstance(node, ast.ClassDef) and not node.name.startswith("_")


def length(function):
    """In lines, without the docstring."""
    first = function.body[0]
    doc = first if ast.get_docstring(function, clean=False) is not None else None
    return function.end_lineno - function.lineno + 1 - (doc.end_lineno - doc.lineno + 1 if doc else 0)


def test_a_function_fits_on_a_screen():
    long = {
        f"{place(path)}:{node.name}"
        for path in modules()
        for node in nodes(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and length(node) > FUNCTION
    }
    assert not long


def test_a_file_is_read_in_one_sitting():
    assert not [place(path) for path in modules() if len(path.read_text().splitlines()) > FILE]


def assigned(path):
    """Attributes that the file assigns, as `object.attribute`."""
    for node in nodes(path):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            yield ast.unparse(node.value), node.attr


def test_only_the_store_changes_a_record():
    fields = {*BalanceRecord.__struct_fields__}
    found = {
        f"{place(path)}: {target}.{field}"
        for path in (WATCHER / "ledger").glob("*.py")
        if path.name != "store.py"
        for target, field in assigned(path)
        # A class sets its own fields; a listing has one of that name too.
        if field in fields and target != "self" and not (target == "listing" and field in Listing.__struct_fields__)
    }
    assert not found


FOREIGN = {
    "self.transport.max_size",
    "self.recv_messages.resume",
    "head.headers",
    "asyncio.sslproto.SSLProtocol.max_size",
}
"""Fields of asyncio's and websockets' objects that the relay sets."""


def test_in_the_relay_each_object_sets_its_own_fields():
    found = {
        f"{place(path)}: {target}.{field}"
        for path in (WATCHER / "relay").rglob("*.py")
        for target, field in assigned(path)
        if target != "self" and f"{target}.{field}" not in FOREIGN
    }
    # A method of the class itself, for many of them at once: a call for each would cost half as much as the write.
    assert found == {f"watcher/relay/outbox.py: outbox.{field}" for field in ("sent", "flushed")}


def test_the_http_of_the_relay_knows_no_log_and_no_stream():
    of_the_relay = {
        name.split(".")[2]
        for path in (WATCHER / "relay" / "http").glob("*.py")
        for name in imported(path)
        if name.startswith("watcher.relay.")
    }
    assert of_the_relay == {"http", "budgets", "messages", "settings"}


def identifiers(path):
    """Without names of keyword arguments: they may be fields of a log line, which are published."""
    for node in nodes(path):
        if isinstance(node, ast.keyword):
            continue
        for field in ("id", "attr", "arg", "name"):
            name = getattr(node, field, None)
            if isinstance(name, str):
                yield name


def test_no_identifier_has_a_word_that_was_replaced():
    found = {
        f"{place(path)}: {name}"
        for path in modules()
        for name in identifiers(path)
        for word in re.findall(r"[A-Z]?[a-z]+", name)
        if FORMER_WORDS.fullmatch(word.lower())
    }
    assert not found


def test_wall_clocks_stand_only_in_app():
    clocks = ("time.time", "datetime.now", "datetime.utcnow", "time.time_ns", "time.monotonic")
    found = {
        f"{place(path)}:{node.lineno}"
        for path in modules()
        if home(path) != "app"
        for node in nodes(path)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in clocks
    }
    assert not found


def test_no_test_replaces_one_of_our_own_objects():
    banned = "unittest." + "mock"
    assert not [place(p) for p in (ROOT / "tests").rglob("*.py") if banned in p.read_text()]
