"""JSON Schema of the message structs, with the rules of `fields.py`.

Draft 07: it is the dialect of AsyncAPI, and the one whose arrays of fixed length every generator of types understands
(json-schema-to-typescript makes `never[]` of `prefixItems` with `items: false`).
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from schemas.fields import field
from schemas.hint import Hint, Hints
from watcher.model.alerts import Crossing
from watcher.model.events import BalanceChanged, BalanceState, ProviderHealth, RecentAmount
from watcher.model.past import Closing
from watcher.relay.http.hint_routes import Accepted
from watcher.relay.messages import METHODS, PUSHES, ErrorReply

Schema = dict[str, Any]

RECORDS: Mapping[str, type[msgspec.Struct]] = {
    "balance-changed.v1": BalanceChanged,
    "balance-crossed.v1": Crossing,
    "balance-state.v1": BalanceState,
    "balance-closing.v1": Closing,
    "heartbeat.v1": ProviderHealth,
    "hint.v1": Hint,
}
ARRAYS: Mapping[str, type[msgspec.Struct]] = {"RecentAmount": RecentAmount}
DIALECT = "http://json-schema.org/draft-07/schema#"


class Body(NamedTuple):
    """The schema of one struct, and of the structs within it by their names."""

    root: Schema
    parts: dict[str, Schema]


def body_of(record: Any, name: str, *, written: bool = True) -> Body:
    """Of a struct, under the title `name`. `parts` are referred to as `#/definitions/NAME`. `written`: by us."""
    (tree,), parts = msgspec.json.schema_components([record], ref_template="#/definitions/{name}")
    own = tree["$ref"].rpartition("/")[2]
    described = {title: _described(title.partition("_")[0], schema) for title, schema in parts.items()}
    for struct in _structs(msgspec.inspect.type_info(record)) if written else ():
        if "properties" in (schema := described.get(struct.__name__, {})):
            schema["required"] = [name for name in schema["properties"] if _always_written(struct, name)]
    return Body({**described.pop(own), "title": name}, described)


def _structs(info: msgspec.inspect.Type) -> Iterator[type[msgspec.Struct]]:
    """Every struct that a value of that type may hold."""
    match info:
        case msgspec.inspect.StructType(cls=cls, fields=fields):
            yield cls
            for each in fields:
                yield from _structs(each.type)
        case msgspec.inspect.UnionType(types=types):
            for each_type in types:
                yield from _structs(each_type)
        case msgspec.inspect.ListType(item_type=inner) | msgspec.inspect.VarTupleType(item_type=inner):
            yield from _structs(inner)
        case msgspec.inspect.DictType(value_type=inner):
            yield from _structs(inner)


def _always_written(struct: type[msgspec.Struct], name: str) -> bool:
    """A field with a default that stands on the wire all the same."""
    found = next((each for each in msgspec.structs.fields(struct) if each.encode_name == name), None)
    if found is None or found.required:
        return True  # the tag, which is no field, too
    return not struct.__struct_config__.omit_defaults and found.default is not msgspec.UNSET


def record_schema(name: str) -> Schema:
    """The schema of a record of Kafka, as a file of its own."""
    record = RECORDS[name]
    root, parts = body_of(record, record.__name__)
    out = {"$schema": DIALECT, "$id": f"urn:balance-watcher:{name}", **root}
    return out | ({"definitions": parts} if parts else {})


def stream_bodies() -> dict[str, Body]:
    """Of every message of the websocket, by its name in the document; titles are those of types in programs."""
    found = {name: body_of(push, push.__name__) for name, push in PUSHES.items()}
    for name, method in METHODS.items():
        title = "".join(word.title() for word in name.split("_"))
        root, parts = body_of(method.command, f"{title}Command", written=False)
        found[name] = Body(_of_method(name, root, parts), parts)
        root, parts = body_of(method.reply, f"{title}Reply")
        found[f"{name}.result"] = Body(root | {"description": f"The command `{name}` was done."}, parts)
    found["error.result"] = body_of(ErrorReply, "ErrorReply")
    return found


def post_bodies() -> dict[str, Body]:
    """Of `POST /v1/hints` and its answer, by their names in the document."""
    return {"hints.post": body_of(Hints, "Hints"), "hints.accepted": body_of(Accepted, "Accepted")}


def _of_method(name: str, root: Schema, parts: Mapping[str, Schema]) -> Schema:
    """A command: its method is its name, and params that are all optional may be left out."""
    params = parts[root["properties"]["params"]["$ref"].rpartition("/")[2]]
    required = [each for each in root["required"] if each != "params" or params["required"]]
    properties = root["properties"] | {"method": {"type": "string", "const": name}}
    described = {"description": f"The command `{name}`."}
    return root | described | {"properties": properties, "required": required}


def _described(owner: str, schema: Schema) -> Schema:
    """What msgspec makes of a struct, with the meaning and the rules of each field."""
    if schema["type"] == "array":
        return _tuple_of(owner, schema)
    properties = {name: _property(owner, name, each) for name, each in schema["properties"].items()}
    meaning = {"description": "AND over the fields, OR within one; one that is left out matches anything."}
    own = meaning if owner == "Filter" else {}
    # Readers ignore what a later writer adds; a hint with a field that nobody knows means another thing than is understood.
    return schema | own | {"properties": properties, "additionalProperties": owner != "Hint"}


def _tuple_of(owner: str, schema: Schema) -> Schema:
    """A struct that is an array on the wire: as long as it has fields, and no longer."""
    names = ARRAYS[owner].__struct_fields__
    items = [_property(owner, name, each) for name, each in zip(names, schema["prefixItems"], strict=True)]
    return {name: value for name, value in schema.items() if name != "prefixItems"} | _fixed(items)


def _fixed(items: list[Schema]) -> Schema:
    return {"items": items, "additionalItems": False, "minItems": len(items), "maxItems": len(items)}


def _property(owner: str, name: str, schema: Schema) -> Schema:
    if name == "type" and "enum" in schema:  # the tag of a push
        return {"type": "string", "const": schema["enum"][0], "description": field(owner, name).meaning}
    line = field(owner, name)
    schema = {key: value for key, value in schema.items() if key != "default" or _told(value)}
    if owner == "Filter":
        # What the relay takes: null is no list of values, and neither is an empty one.
        return {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": line.meaning}
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}  # what stands beside a reference does not count
    return _ruled(schema, line.rules) | {"description": line.meaning}


def _told(default: object) -> bool:
    return default is not None and default not in ([], {})


def _ruled(schema: Schema, rules: Mapping[str, Any]) -> Schema:
    """The rules hold for whatever is not null, and for each value of a list."""
    if "anyOf" in schema:
        # Null last: which comes first differs between versions of msgspec.
        forms = sorted(schema["anyOf"], key=lambda each: each.get("type") == "null")
        return schema | {"anyOf": [_ruled(_plain(each), rules) for each in forms]}
    schema = _plain(schema)
    if "anyOf" in schema or "$ref" in schema or schema["type"] in ("null", "object"):
        return schema
    if schema["type"] == "array" and "prefixItems" in schema:
        values = [_ruled(each, rules) for each in schema["prefixItems"]]
        return {name: value for name, value in schema.items() if name != "prefixItems"} | _fixed(values)
    if schema["type"] == "array":
        of_list = {name: value for name, value in rules.items() if name.endswith("Items")}
        return (
            schema | {"items": _ruled(schema["items"], {k: v for k, v in rules.items() if k not in of_list})} | of_list
        )
    return {**schema, **rules}


def _plain(schema: Schema) -> Schema:
    """The forms that strict validators and generators take: one type each."""
    if isinstance(schema.get("type"), list):
        return {"anyOf": [{"type": each} for each in schema["type"]]}
    if "enum" not in schema:
        return schema
    closed = {"type": "string", "enum": schema["enum"]}
    # A type beside the words: our own reader takes any other word too (`messages.AnyCode`), so yours must.
    return {"anyOf": [closed, {"type": "string"}]} if "type" in schema else closed | _rest(schema)


def _rest(schema: Schema) -> Schema:
    return {name: value for name, value in schema.items() if name not in ("type", "enum")}
