"""The published contract is generated, complete, and true of what we write."""

import importlib.util
import json
from pathlib import Path

import jsonschema
import pytest

from watcher.model.events import JSON, MSGPACK

ROOT = Path(__file__).parent.parent
SCHEMAS = ROOT / "schemas"


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", SCHEMAS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def validator(name):
    return jsonschema.Draft202012Validator(
        json.loads((SCHEMAS / f"{name}.schema.json").read_text()), format_checker=jsonschema.FormatChecker()
    )


def test_no_file_differs_from_what_events_py_would_write(generate):
    files = generate.files()
    assert {str(p.relative_to(SCHEMAS)) for p in SCHEMAS.rglob("*") if p.suffix in (".json", ".msgpack")} == set(files)
    for name, data in files.items():
        assert (SCHEMAS / name).read_bytes() == data, f"{name} differs: run schemas/generate.py"


@pytest.mark.parametrize("name", ["base-units", "decimal-units", "u256"])
def test_a_golden_event_validates_and_survives_both_encodings(name):
    data = (SCHEMAS / "golden" / f"{name}.json").read_bytes()
    validator("balance-changed.v1").validate(json.loads(data))
    event = JSON.event(data)
    assert JSON.encode(event) == data
    assert MSGPACK.event((SCHEMAS / "golden" / f"{name}.msgpack").read_bytes()) == event


def test_a_golden_state_record_and_a_heartbeat_validate():
    golden = SCHEMAS / "golden"
    validator("balance-state.v1").validate(json.loads((golden / "state.json").read_bytes()))
    validator("heartbeat.v1").validate(json.loads((golden / "heartbeat.json").read_bytes()))
    assert JSON.state((golden / "state.json").read_bytes()) == MSGPACK.state((golden / "state.msgpack").read_bytes())


def test_a_u256_delta_is_exact_to_the_last_digit():
    event = JSON.event((SCHEMAS / "golden" / "u256.json").read_bytes())
    assert event.delta == str(2**256 - 1)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [("amount", "1.50"), ("amount", "1e3"), ("amount", 5), ("delta", "-0"), ("version", 0), ("kind", "free")],
)
def test_the_schema_refuses_what_the_contract_refuses(field, wrong):
    event = json.loads((SCHEMAS / "golden" / "base-units.json").read_bytes()) | {field: wrong}
    assert not validator("balance-changed.v1").is_valid(event)


def test_every_reference_of_the_asyncapi_document_resolves():
    document = json.loads((SCHEMAS / "asyncapi.json").read_text())

    def references(node):
        if isinstance(node, dict):
            if "$ref" in node:
                yield node["$ref"]
            for part in node.values():
                yield from references(part)

    for reference in references(document):
        if reference.startswith("./"):
            assert (SCHEMAS / reference).exists()
        else:
            node = document
            for part in reference.removeprefix("#/").split("/"):
                node = node[part]
