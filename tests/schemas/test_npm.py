"""What foreign tools make of the contract: AsyncAPI's own parser, ajv in strict mode, a generator of TypeScript.

They are asked once, in one process of node, for everything that the tests below look at.
"""

import copy
import json
import subprocess
from pathlib import Path

import pytest

from schemas import asyncapi
from schemas.json_schemas import RECORDS, record_schema
from tests.foreign import npm

HERE = Path(__file__).with_name("npm")


def of_the_document():
    """One schema that refers to all of the document: payloads and their parts, headers, keys."""
    document = asyncapi.document()
    parts = json.loads(json.dumps(document["components"]["schemas"]).replace("#/components/schemas/", "#/definitions/"))
    properties = {name: {"$ref": f"#/definitions/{name}"} for name in parts}
    for name, message in document["components"]["messages"].items():
        if "headers" in message:
            properties[f"{name}.headers"] = message["headers"]
            properties[f"{name}.key"] = message["bindings"]["kafka"]["key"]
    return {"title": "Everything", "type": "object", "properties": properties, "definitions": parts}


def planted_documents():
    """Wrong ones, which a parser must not pass."""
    document = asyncapi.document()
    document["channels"] = {"heartbeat": document["channels"]["heartbeat"]}
    document["operations"] = {"heartbeat": document["operations"]["heartbeat"]}
    components = document["components"]
    components["messages"] = {name: m for name, m in components["messages"].items() if name.startswith("heartbeat")}
    components["schemas"] = {"ProviderHealth": components["schemas"]["ProviderHealth"]}
    planted = {name: copy.deepcopy(document) for name in ("action", "example", "policy")}
    planted["action"]["operations"]["heartbeat"]["action"] = "publish"
    del planted["example"]["components"]["messages"]["heartbeat.v1.json"]["examples"][0]["payload"]["provider"]
    binding = planted["policy"]["channels"]["heartbeat"]["bindings"]["kafka"]
    binding["topicConfiguration"]["cleanup.policy"] = ["compacted"]
    return planted


def planted_schemas():
    """What strict validators refuse: a tuple without an end, two types at once, a word that they do not know."""
    endless = record_schema("balance-state.v1")
    del endless["definitions"]["RecentAmount"]["maxItems"], endless["definitions"]["RecentAmount"]["additionalItems"]
    two, strange = record_schema("heartbeat.v1"), record_schema("heartbeat.v1")
    two["properties"]["instance"]["type"] = ["string", "integer"]
    strange["properties"]["instance"]["colour"] = "red"
    return {"endless": endless, "two": two, "strange": strange}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    folder = npm(HERE, tmp_path_factory.mktemp("judge") / "npm")
    records = {name: record_schema(name) for name in RECORDS}
    published = json.loads((Path(asyncapi.__file__).parent / "golden" / "base-units.json").read_bytes())
    asked = {
        "documents": {
            name: json.dumps(document)
            for name, document in {"asyncapi": asyncapi.document(), **planted_documents()}.items()
        },
        "schemas": {**records, "asyncapi": of_the_document(), **planted_schemas()},
        "values": [
            ["balance-changed.v1", published],
            ["balance-changed.v1", published | {"observed_at": "yesterday"}],
            ["balance-changed.v1", published | {"kind": "free"}],
            ["asyncapi", {"RecentAmount": ["1", 2]}],
            ["asyncapi", {"RecentAmount": ["1", 2, 3]}],
        ],
    }
    done = subprocess.run(
        ["node", "judge.mjs"], cwd=folder, input=json.dumps(asked), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_asyncapis_own_parser_knows_it_as_3_1_and_has_nothing_to_remark(said):
    seen = said["documents"]["asyncapi"]
    assert seen["version"] == "3.1.0"
    assert seen["diagnostics"] == []
    assert set(seen["messages"]) == set(asyncapi.document()["components"]["messages"])


@pytest.mark.parametrize("name", planted_documents())
def test_the_parser_sees_what_is_wrong_in_a_document(said, name):
    assert said["documents"][name]["diagnostics"]


def test_ajv_compiles_every_schema_in_strict_mode(said):
    planted = set(planted_schemas())
    assert not {name: error for name, error in said["compiled"].items() if error and name not in planted}


@pytest.mark.parametrize(("name", "why"), [("endless", "2-tuple"), ("two", "union type"), ("strange", "colour")])
def test_ajv_refuses_in_strict_mode_what_is_not(said, name, why):
    assert why in said["compiled"][name]


def test_ajv_judges_as_we_do(said):
    assert said["values"] == [True, False, False, True, False]


def test_a_generator_makes_types_of_them(said):
    event, state = said["types"]["balance-changed.v1"], said["types"]["balance-state.v1"]
    assert 'kind: "open_orders" | "settled" | "total" | "unsettled";' in event
    assert "symbol: string | null;" in event
    assert "type RecentAmount = [string, number];" in state
    assert "recent_amounts?: RecentAmount[];" in state
    assert "data: BalanceRow[];" in said["types"]["asyncapi"]
    assert "any;" not in event + state
