"""The AsyncAPI document as a judge: of each message, by what the document says of where it was met."""

import copy
import json
import re
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema

ROOT = Path(__file__).parent.parent.parent
SCHEMAS = ROOT / "schemas"
FORMATS = jsonschema.FormatChecker([])
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@FORMATS.checks("date-time", raises=ValueError)
def is_time(value):
    return not isinstance(value, str) or bool(RFC3339.fullmatch(value) and datetime.fromisoformat(value))


@FORMATS.checks("uri-reference", raises=ValueError)
def is_reference(value):
    return not isinstance(value, str) or bool(urlsplit(value))


def document():
    return json.loads((SCHEMAS / "asyncapi.json").read_bytes())


def strict(node):
    """The same with no field beyond those that are described, and no word beyond those that are listed."""
    if isinstance(node, list):
        return [strict(each) for each in node]
    if not isinstance(node, dict):
        return node
    words = [each for each in node.get("anyOf", ()) if "enum" in each]
    if words:
        return {**{name: value for name, value in node.items() if name != "anyOf"}, **words[0]}
    node = {name: strict(value) for name, value in node.items()}
    if node.get("type") == "object" and "properties" in node:
        node["additionalProperties"] = False
    return node


class Contract:
    """Judges messages as strictly as the document can be read; keeps which of them it has met, and which fields."""

    def __init__(self, found=None):
        self.document = copy.deepcopy(found or document())
        self.document["components"]["schemas"] = strict(self.document["components"]["schemas"])
        self.met = set()
        self.fields = set()

    def judge(self, schema, value):
        """Raises jsonschema.ValidationError."""
        whole = {"components": self.document["components"], "allOf": [strict(schema)]}
        jsonschema.Draft7Validator(whole, format_checker=FORMATS).validate(value)

    def payload(self, name, value):
        """One message by its name in the document."""
        schema = self.document["components"]["messages"][name]["payload"]
        self.judge(schema, value)
        self.met.add(name)
        self.fields.update(self._fields(schema, value))

    def _fields(self, schema, value):
        """`Struct.field` of each that stands in the value."""
        # A struct or a list, or null.
        schema = next((each for each in schema.get("anyOf", ()) if "$ref" in each or "items" in each), schema)
        if "$ref" in schema:
            schema = self.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        if isinstance(value, list):
            items = schema["items"]
            for one, each in zip(items if isinstance(items, list) else [items] * len(value), value, strict=True):
                yield from self._fields(one, each)
        elif isinstance(value, dict):
            for name, each in value.items():
                if name in schema.get("properties", {}):
                    yield f"{schema['title']}.{name}"
                    yield from self._fields(schema["properties"][name], each)
                else:
                    yield from self._fields(schema["additionalProperties"], each)

    def described(self, *names):
        """`Struct.field` of each that these messages, by their names, and their parts have."""
        found, titles = set(), [self._title(name) for name in names]
        while titles:
            title = titles.pop()
            schema = self.document["components"]["schemas"][title]
            if f"{title}." in found:
                continue
            found |= {f"{title}.", *(f"{title}.{name}" for name in schema.get("properties", ()))}
            titles += re.findall(r"#/components/schemas/(\w+)", json.dumps(schema))
        return {each for each in found if not each.endswith(".")}

    # What a websocket of the relay carries.

    def command(self, message):
        """One that the relay has done."""
        self.payload(self._of("receive", message["method"]), message)

    def from_relay(self, message, method=None):
        """`method`: of the command whose answer it may be; one that is no command is answered as all others are."""
        if "id" not in message:
            self.payload(self._of("send", message["type"]), message)
            return
        operations = self.document["operations"]
        answers = operations.get(f"stream.{method}", operations["stream.ping"])["reply"]["messages"]
        wanted = "result" if "result" in message else "error"
        (name,) = (
            name
            for name in (each["$ref"].rpartition("/")[2] for each in answers)
            if wanted in self._schema(name)["properties"]
        )
        self.payload(name, message)

    def _of(self, action, name):
        """That message of the stream, if some operation of that kind has it."""
        references = [
            each["$ref"]
            for operation in self.document["operations"].values()
            if operation["action"] == action and operation["channel"]["$ref"] == "#/channels/stream"
            for each in operation["messages"]
        ]
        assert f"#/channels/stream/messages/{name}" in references, f"not described: {name}"
        return name

    def _title(self, name):
        return self.document["components"]["messages"][name]["payload"]["$ref"].rpartition("/")[2]

    def _schema(self, name):
        return self.document["components"]["schemas"][self._title(name)]

    # What a topic carries.

    def record(self, topic, key, headers, value):
        """One record: key as text, headers as text by name, value decoded."""
        (channel,) = (each for each in self.document["channels"].values() if each["address"] == topic)
        (name,) = (
            name
            for name in channel["messages"]
            if self.document["components"]["messages"][name]["contentType"] == headers["content-type"]
        )
        message = self.document["components"]["messages"][name]
        self.judge(message["headers"], headers)
        self.judge(message["bindings"]["kafka"]["key"], key)
        self.payload(name, value)
