"""The published contract is generated, complete, and true of what we write."""

import importlib.util
import json
from pathlib import Path

import jsonschema
import pytest
from referencing import Registry, Resource

from tests.relay import test_messages
from watcher.model.events import JSON, MSGPACK
from watcher.relay import wire
from watcher.relay.messages import Command, SubscribeParams, UnsubscribeParams

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


def test_no_file_differs_from_what_generate_py_would_write(generate):
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


def stream_message(name):
    """What validates one message of the relay's websocket, by its name in the AsyncAPI document."""
    document = json.loads((SCHEMAS / "asyncapi.json").read_text())
    event = json.loads((SCHEMAS / "balance-changed.v1.schema.json").read_text())
    beside = "file:///schemas/{}".format
    registry = Registry().with_resource(beside("balance-changed.v1.schema.json"), Resource.from_contents(event))
    schema = {"$schema": event["$schema"], "$id": beside("asyncapi.json"), **document}
    schema["$ref"] = f"#/components/messages/{name}/payload"
    return jsonschema.Draft202012Validator(schema, registry=registry)


@pytest.mark.parametrize("name", test_messages.PUSHES)
def test_a_push_is_as_the_asyncapi_document_has_it(name):
    message = json.loads(test_messages.PUSHES[name])
    stream_message(message["type"]).validate(message)


@pytest.mark.parametrize("name", test_messages.REPLIES)
def test_a_reply_is_as_the_asyncapi_document_has_it(name):
    result = json.loads(test_messages.REPLIES[name])
    for id_ in (1, "a"):
        stream_message(f"{name.split()[0]}.result").validate({"id": id_, "result": result})
    stream_message("error.result").validate({"id": 1, "error": json.loads(test_messages.ERROR)})


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("subscribe", {"id": 1, "method": "subscribe"}),
        ("subscribe", json.loads(wire.encode(Command(1, "subscribe", SubscribeParams(cursor="ab.1", on_gap="error"))))),
        ("unsubscribe", json.loads(wire.encode(Command("a", "unsubscribe", UnsubscribeParams("1"))))),
        ("ping", {"id": 1, "method": "ping", "params": {}}),
    ],
)
def test_a_command_is_as_the_asyncapi_document_has_it(name, right):
    stream_message(name).validate(right)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("subscribe", {"id": 1, "method": "ping"}),
        ("subscribe", {"id": 1.5, "method": "subscribe"}),
        ("subscribe", {"id": 1, "method": "subscribe", "params": {"filter": {"account": None}}}),
        ("subscribe", {"id": 1, "method": "subscribe", "params": {"filter": {"account": []}}}),
        ("subscribe", {"id": 1, "method": "subscribe", "params": {"interval_ms": 60_001}}),
        ("unsubscribe", {"id": 1, "method": "unsubscribe"}),
        ("auth", {"id": 1, "method": "auth", "params": {}}),
        ("live", {"type": "lagging", "cursor": "ab.1"}),
        ("update", {"type": "update", "cursor": "ab.1", "event": {"id": "1"}}),
        ("error.result", {"id": 1, "error": {"code": "nonsense", "message": "", "temporary": False}}),
    ],
)
def test_the_asyncapi_document_refuses_what_the_relay_refuses_or_never_says(name, wrong):
    assert not stream_message(name).is_valid(wrong)
