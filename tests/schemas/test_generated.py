"""The published contract is generated, complete, and true of what we write."""

import json
import re
from pathlib import Path

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import asyncapi, generate
from schemas.fields import example, field, word
from tests.relay import test_messages
from tests.schemas.contract import FORMATS, ROOT, SCHEMAS, Contract
from watcher.journal.kafka.topic_specs import topic_specs
from watcher.model import hints
from watcher.model.events import JSON, MSGPACK, BalanceChanged
from watcher.model.past import Closing, PastBalance
from watcher.relay import wire
from watcher.relay.messages import METHODS, Command, SubscribeParams, UnsubscribeParams

PRIVATE = "balances.internal.v1"
RULES = {r"(_at|_until|_success|time|since|as_of)$": "format", "(amount|delta|cursor)$": "pattern"}
"""What the names of fields promise."""
BLOCK = re.compile(r"```json\n(.*?)```", re.DOTALL)


def validator(name):
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_bytes())
    return jsonschema.Draft7Validator(schema, format_checker=FORMATS)


def golden(name):
    return (SCHEMAS / "golden" / name).read_bytes()


def test_no_file_differs_from_what_would_be_generated():
    files = generate.files()
    kept = {str(p.relative_to(ROOT)) for p in SCHEMAS.rglob("*") if p.suffix in (".json", ".msgpack")}
    assert {name for name in kept if Path(name).parent.name != "published"} == set(files) - {"docs/events.md"}
    for name, data in files.items():
        assert (ROOT / name).read_bytes() == data, f"{name} differs: run `python -m schemas.generate`"


def test_a_field_that_nobody_has_explained_is_not_published():
    with pytest.raises(LookupError, match=r"BalanceRow.colour is published: say in schemas/fields.py"):
        field("BalanceRow", "colour")
    with pytest.raises(LookupError, match=r"teapot is published: say in schemas/fields.py"):
        word("teapot")


# Records.


@pytest.mark.parametrize("name", ["base-units", "decimal-units", "u256"])
def test_a_golden_event_validates_and_survives_both_encodings(name):
    data = golden(f"{name}.json")
    validator("balance-changed.v1").validate(json.loads(data))
    event = JSON.event(data)
    assert JSON.encode(event) == data
    assert MSGPACK.event(golden(f"{name}.msgpack")) == event


def test_a_golden_crossing_validates_and_survives_both_encodings():
    data = golden("crossing.json")
    validator("balance-crossed.v1").validate(json.loads(data))
    assert JSON.encode(JSON.crossing(data)) == data
    assert MSGPACK.crossing(golden("crossing.msgpack")) == JSON.crossing(data)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("direction", "up"),
        ("version", -1),
        ("previous_amount", "1e3"),
        ("alert", "x" * 65),
        ("threshold", 5),
        ("id", "x"),
    ],
)
def test_the_schema_of_a_crossing_refuses_what_the_contract_refuses(field, wrong):
    crossing = json.loads(golden("crossing.json"))
    assert validator("balance-crossed.v1").is_valid(crossing | {"version": 0, "previous_amount": None})
    assert not validator("balance-crossed.v1").is_valid(crossing | {field: wrong})


@pytest.mark.parametrize(
    ("fields", "valid"),
    [
        ({}, True),
        (
            {"status": "changing", "previous_amount": "1", "between": ["2026-01-24T23:59:00Z", "2026-01-25T00:01:00Z"]},
            True,
        ),
        ({"status": "unseen", "last_seen": "2026-01-24T23:59:00Z"}, True),
        ({"status": "about"}, False),
        ({"between": ["2026-01-24T23:59:00Z"]}, False),
        ({"between": ["2026-01-24T23:59:00Z"] * 3}, False),
        ({"between": ["yesterday", "today"]}, False),
    ],
)
def test_the_schema_of_a_closing_takes_what_is_written_and_refuses_the_rest(fields, valid):
    shown = example(Closing)
    balance = (
        msgspec.convert(shown["balance"] | fields, PastBalance, strict=True) if valid else shown["balance"] | fields
    )
    value = json.loads(msgspec.json.encode({"day": shown["day"], "balance": balance}))
    assert validator("balance-closing.v1").is_valid(value) is valid
    assert not validator("balance-closing.v1").is_valid({"day": shown["day"]})


def test_a_golden_state_record_and_a_heartbeat_validate():
    validator("balance-state.v1").validate(json.loads(golden("state.json")))
    validator("heartbeat.v1").validate(json.loads(golden("heartbeat.json")))
    assert JSON.state(golden("state.json")) == MSGPACK.state(golden("state.msgpack"))


WORDS = st.sampled_from(["helius", "x", "", None, 5, ["x"]])
CHAINS = st.sampled_from(["eip155:1", None, 5])
"""But for names of chains, which only the watcher knows."""
SENT = {"provider": WORDS, "account": WORDS, "chain": CHAINS, "token": WORDS, "colour": WORDS}


def taken(value):
    try:
        return hints.decode(json.dumps(value).encode())
    except hints.HintError:
        return None


@given(st.fixed_dictionaries({}, optional=SENT) | st.none() | st.integers() | st.lists(WORDS, max_size=2))
def test_the_schema_of_a_hint_takes_what_the_watcher_takes(value):
    schema, found = validator("hint.v1"), taken(value)
    assert schema.is_valid(value) is (found is not None)
    assert found is None or schema.is_valid(json.loads(hints.encode(found)))


def test_a_hint_has_the_fields_that_are_published():
    assert set(json.loads((SCHEMAS / "hint.v1.schema.json").read_bytes())["properties"]) == {
        *hints.Hint.__struct_fields__
    }


def test_a_u256_delta_is_exact_to_the_last_digit():
    assert JSON.event(golden("u256.json")).delta == str(2**256 - 1)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("amount", "1.50"),
        ("amount", "1e3"),
        ("amount", 5),
        ("delta", "-0"),
        ("delta", "0"),
        ("version", 0),
        ("kind", "free"),
        ("unit", "wei"),
        ("observed_at", "yesterday"),
        ("as_of", "2026-01-25"),
        ("symbol", "x" * 65),
        ("decimals", 256),
    ],
)
def test_the_schema_refuses_what_the_contract_refuses(field, wrong):
    event = json.loads(golden("base-units.json")) | {field: wrong}
    assert not validator("balance-changed.v1").is_valid(event)


@pytest.mark.parametrize("wrong", [[["1", 2]] * 33, [["1"]], [["1", 2, 3]], [["1", "2"]], [["1.0", 2]]])
def test_recent_amounts_are_bounded_and_pairs(wrong):
    state = json.loads(golden("state.json"))
    assert validator("balance-state.v1").is_valid(state | {"recent_amounts": [["1", 2]] * 32})
    assert not validator("balance-state.v1").is_valid(state | {"recent_amounts": wrong})


# The document.


def nodes(node):
    if isinstance(node, dict):
        yield node
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(each)


def test_every_reference_resolves_within_the_document():
    document = asyncapi.document()
    for reference in (node["$ref"] for node in nodes(document) if "$ref" in node):
        part = document
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]


def test_every_topic_but_the_private_one_is_described():
    topics = {spec.name for spec in topic_specs("", 16, 604800.0)} - {PRIVATE}
    assert topics == set(asyncapi.TOPICS)
    assert PRIVATE not in json.dumps(asyncapi.document())


def test_every_time_and_every_amount_is_said_to_be_one():
    """Whatever is called like one: a rule that was forgotten is seen."""
    found = set()
    for node in nodes(asyncapi.document()["components"]["schemas"]):
        for name, schema in node.get("properties", {}).items():
            rule = next((rule for pattern, rule in RULES.items() if re.search(pattern, name)), None)
            if rule is not None:
                texts = [each for each in schema.get("anyOf", [schema]) if each["type"] == "string"]
                assert all(rule in each for each in texts), name
                found.add(name)
    assert {"observed_at", "as_of", "time", "server_time", "last_success", "paused_until", "amount", "delta"} <= found


def test_every_message_has_an_example_that_fits_to_the_letter():
    contract = Contract()
    for name, message in contract.document["components"]["messages"].items():
        assert message["examples"]
        for each in message["examples"]:
            contract.payload(name, each["payload"])
            if "headers" in message:
                contract.judge(message["headers"], each["headers"])


@pytest.mark.parametrize("name", test_messages.PUSHES)
def test_a_push_is_as_the_document_has_it(name):
    Contract().from_relay(json.loads(test_messages.PUSHES[name]))


@pytest.mark.parametrize("name", test_messages.REPLIES)
def test_a_reply_is_as_the_document_has_it(name):
    contract, result = Contract(), json.loads(test_messages.REPLIES[name])
    for id_ in (1, "a"):
        contract.from_relay({"id": id_, "result": result}, name.split()[0])
    contract.from_relay({"id": 1, "error": json.loads(test_messages.ERROR)}, name.split()[0])


@pytest.mark.parametrize(
    "right",
    [
        {"id": 1, "method": "subscribe"},
        json.loads(wire.encode(Command(1, "subscribe", SubscribeParams(cursor="ab.1", on_gap="error")))),
        json.loads(wire.encode(Command(1, "subscribe", SubscribeParams(crossed=True)))),
        json.loads(wire.encode(Command("a", "unsubscribe", UnsubscribeParams("1")))),
        {"id": 1, "method": "ping", "params": {}},
    ],
)
def test_a_command_is_as_the_document_has_it(right):
    Contract().command(right)


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
        ("live", {"type": "live", "cursor": "1"}),
        ("update", {"type": "update", "cursor": "ab.1", "event": {"id": "1"}}),
        ("error.result", {"id": 1, "error": {"code": "nonsense", "message": "", "temporary": False}}),
    ],
)
def test_the_document_refuses_what_the_relay_refuses_or_never_says(name, wrong):
    with pytest.raises(jsonschema.ValidationError):
        Contract().payload(name, wrong)


# docs/events.md.


def sections():
    """(heading, text) of each section of the page."""
    for part in (ROOT / "docs" / "events.md").read_text().split("\n### ")[1:]:
        heading, _, text = part.partition("\n")
        yield heading.strip("`"), text


def test_every_block_of_the_page_is_a_message_as_the_document_has_it():
    contract = Contract()
    channels = {each["address"]: list(each["messages"]) for each in contract.document["channels"].values()}
    for heading, text in sections():
        blocks = [json.loads(block) for block in BLOCK.findall(text)]
        if heading in channels:
            *headers, value = blocks
            for name in channels[heading][:1]:
                described = contract.document["components"]["messages"][name]["headers"]
                contract.judge(described, headers[0] if described["properties"] else {})
                contract.payload(name, value)
        elif heading in contract.document["channels"]["post"]["messages"]:
            contract.payload(heading, *blocks)
        elif heading in METHODS:
            *commands, result = blocks
            for command in commands:
                contract.command(command)
            contract.from_relay(result, heading)
        else:
            for block in blocks:
                contract.from_relay(block)
    assert {
        name for name in contract.document["components"]["messages"] if not name.endswith(".msgpack")
    } == contract.met


def test_every_link_of_the_page_leads_somewhere():
    page = (ROOT / "docs" / "events.md").read_text()
    anchors = {
        re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-")
        for line in re.findall("^#+ .*", page, re.MULTILINE)
    }
    assert set(re.findall(r"\(#([^)]*)\)", page)) <= anchors


def test_the_page_explains_every_field():
    rows = re.findall(r"^\| `[^`]*` \|.*\|$", (ROOT / "docs" / "events.md").read_text(), re.MULTILINE)
    assert len(rows) > len(example(BalanceChanged))
    assert not [row for row in rows if not row.rstrip("|").rpartition("|")[2].strip()]
