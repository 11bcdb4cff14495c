"""docs/events.md: every message with an example and the meaning of its fields, made of the AsyncAPI document."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from schemas.fields import DECIMAL, field, word
from watcher.model.log import GapReason
from watcher.relay.messages import METHODS, PUSHES, Code

Document = Mapping[str, Any]
Schema = Mapping[str, Any]

INTRODUCTION = """
# Events: every message, and what its fields mean

Made by `python -m schemas.generate` from the types that the program itself uses. Programs read the same in
[schemas/asyncapi.json](../schemas/asyncapi.json) (AsyncAPI 3.1): all of this, with servers, security and topics. The
records of Kafka stand beside it as JSON Schema (draft 07), one file each. [relay.md](relay.md) says how the stream behaves.

- Ignore fields, headers and types of messages that you do not know: later versions may add some. None goes away, and none
  changes its type. A word that "may be new" is one to be shown, and not to be decided by.
- An amount is a string: an exact decimal in plain notation, without exponent and without zeros at its end. Some have 78
  digits: never make a float of it.
- A time is RFC 3339, in UTC, with microseconds where it is ours.
- null is written. What "may be left out" is not written where it has nothing to say.
"""
KAFKA = """
## On Kafka

Five topics to read and one to write, `balances.hints.v1`, behind `[kafka] topic_prefix` where there is one. Another,
`balances.internal.v1`, is the watcher's own. Read with `isolation.level=read_committed`: a change, its state and the crossings
that it makes are one transaction. The values of what is read are JSON, or MessagePack with `encoding = "msgpack"`;
`content-type` says which, and the fields are the same.
"""
STREAM = """
## On the stream: what the relay sends by itself

`ws://HOST:PORT/v1/stream`. A push has no `id`; its `type` comes first.
"""
POST = """
## By HTTP

`POST http://HOST:PORT/v1/hints` takes [hints](hints.md), with the authorization of the stream, and answers 202.
"""
COMMANDS = """
## On the stream: commands and their answers

`id` is your own, an integer or a string. Each command gets one answer with the same `id`: `result`, or `error`.
"""
PARTS = """
## Parts

What stands within the messages above.
"""


def page(document: Document) -> str:
    parts = [
        INTRODUCTION,
        KAFKA,
        *_topics(document),
        POST,
        *_post(document),
        STREAM,
        *_pushes(document),
        COMMANDS,
        *_commands(document),
    ]
    parts += [_error(document), _words("Codes of errors", Code), _words("Reasons of snapshots", GapReason)]
    parts += [_close_codes(document), PARTS, *_shared(document)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _topics(document: Document) -> Iterator[str]:
    for channel in document["channels"].values():
        if "kafka" not in channel.get("bindings", {}):
            continue
        names = list(channel["messages"])
        message = document["components"]["messages"][names[0]]
        yield f"### `{channel['address']}`"
        configs = channel["bindings"]["kafka"]["topicConfiguration"]
        kept = " and ".join(configs["cleanup.policy"])
        yield f"{message['summary']} Key: {_key(message)}; `cleanup.policy={kept}`."
        yield channel["description"]
        shown = message["examples"][0]
        if shown["headers"]:
            yield "Headers:"
            yield _table(document, _of_any_encoding(document, message["headers"], names))
            yield _block(shown["headers"])
        yield "Value:"
        yield _table(document, _resolved(document, message["payload"]))
        yield _block(shown["payload"])


def _of_any_encoding(document: Document, headers: Schema, names: Iterable[str]) -> Schema:
    types = [document["components"]["messages"][name]["contentType"] for name in names]
    any_type = {"type": "string", "enum": types, "description": "the encoding of the value"}
    return {**headers, "properties": {**headers["properties"], "content-type": any_type}}


def _key(message: Schema) -> str:
    return str(message["bindings"]["kafka"]["key"]["description"])


def _post(document: Document) -> Iterator[str]:
    for name in document["channels"]["post"]["messages"]:
        yield f"### `{name}`"
        yield from _message(document, name)


def _pushes(document: Document) -> Iterator[str]:
    for name in PUSHES:
        yield f"### `{name}`"
        yield from _message(document, name)


def _commands(document: Document) -> Iterator[str]:
    for name in METHODS:
        command = _payload(document, name)
        yield f"### `{name}`"
        params = _resolved(document, command["properties"]["params"])
        yield from _described(document, params)
        yield from (_block(each["payload"]) for each in _examples(document, name))
        result = _resolved(document, _payload(document, f"{name}.result")["properties"]["result"])
        yield "Result:"
        yield from _described(document, result)
        yield from (_block(each["payload"]) for each in _examples(document, f"{name}.result"))


def _described(document: Document, schema: Schema) -> Iterator[str]:
    yield schema["description"]
    if schema["properties"]:
        yield _table(document, schema)


def _error(document: Document) -> str:
    error = _payload(document, "error.result")
    table = _table(document, _resolved(document, error["properties"]["error"]))
    blocks = [_block(each["payload"]) for each in _examples(document, "error.result")]
    return "\n\n".join(["### An error", "The answer to any command that was not done.", table, *blocks])


def _words(heading: str, words: object) -> str:
    rows = [f"| `{name}` | {word(name)} |" for name in get_args(words)]
    return "\n\n".join([f"### {heading}", "\n".join(["| word | meaning |", "|---|---|", *rows])])


def _close_codes(document: Document) -> str:
    codes = document["channels"]["stream"]["x-close-codes"]
    words = {"never": "do not", "backing_off": "with growing pauses", "at_once": "at once, with the cursor"}
    rows = [
        f"| {code} | {', '.join(f'`{word}`' for word in each['reasons'])} | {words[each['reconnect']]} |"
        for code, each in codes.items()
    ]
    return "\n\n".join(["### Close codes", "\n".join(["| code | reasons | come again |", "|---|---|---|", *rows])])


def _message(document: Document, name: str) -> Iterator[str]:
    yield from _described(document, _payload(document, name))
    yield from (_block(each["payload"]) for each in _examples(document, name))


def _shared(document: Document) -> Iterator[str]:
    """The structs that fields refer to and that have no section of their own."""
    for name in sorted(_referred(document)):
        schema = document["components"]["schemas"][name]
        yield f"### {name}"
        if schema["type"] == "array":
            words = ", ".join(f"{each['description']} ({_type(document, each)})" for each in schema["items"])
            yield f"{schema['description']} An array of {len(schema['items'])}: {words}."
        else:
            yield from _described(document, schema)


def _referred(document: Document) -> set[str]:
    own = {_title(each["payload"]) for each in document["components"]["messages"].values()}
    within = {
        _title(node)
        for schema in document["components"]["schemas"].values()
        for node in _nodes(schema)
        if "$ref" in node
    }
    inline = {f"{title}{part}" for title in map(_camel, METHODS) for part in ("Params", "Result")}
    return within - own - inline - {"NoParams", "ListResult", "Error"}


def _camel(name: str) -> str:
    return "".join(word.title() for word in name.split("_"))


def _nodes(node: Any) -> Iterator[Schema]:
    if isinstance(node, dict):
        yield node
    children: Iterable[Any] = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for each in children:
        yield from _nodes(each)


def _examples(document: Document, name: str) -> list[dict[str, Any]]:
    return list(document["components"]["messages"][name]["examples"])


def _payload(document: Document, name: str) -> Schema:
    return _resolved(document, document["components"]["messages"][name]["payload"])


def _resolved(document: Document, node: Schema) -> Schema:
    return document["components"]["schemas"][_title(node)]  # type: ignore[no-any-return]


def _title(node: Schema) -> str:
    return str(node["$ref"]).rpartition("/")[2]


def _block(value: object) -> str:
    return f"```json\n{_folded(value)}\n```"


def _folded(value: object) -> str:
    """A line for each member, and a short one on its line."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) <= 100 or not isinstance(value, dict | list) or not value:
        return line
    members = value.items() if isinstance(value, dict) else ((None, each) for each in value)
    texts = [("" if name is None else f"{json.dumps(name)}: ") + _folded(each) for name, each in members]
    inner = ",\n".join(texts).replace("\n", "\n  ")
    begin, end = "{}" if isinstance(value, dict) else "[]"
    return f"{begin}\n  {inner}\n{end}"


def _table(document: Document, schema: Schema) -> str:
    required = schema.get("required", ())
    rows = [
        f"| `{name}` | {_type(document, each)}{'' if name in required else ', may be left out'} | {_meaning(schema, name)} |"
        for name, each in schema["properties"].items()
    ]
    return "\n".join(["| field | type | meaning |", "|---|---|---|", *rows])


def _meaning(schema: Schema, name: str) -> str:
    """Beside a reference a description does not count, so none stands there."""
    shown = schema["properties"][name].get("description")
    return shown or field(schema["title"], name).meaning


def _type(document: Document, schema: Schema) -> str:
    """In words."""
    if "$ref" in schema:
        title = _title(schema)
        return f"[{title}](#{_anchor(document, title)})"
    if "anyOf" in schema:
        words = [_type(document, each) for each in schema["anyOf"]]
        return (
            f"{words[0]}; may be new" if "enum" in schema["anyOf"][0] and words[1] == "string" else " or ".join(words)
        )
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    if schema["type"] == "array" and isinstance(schema["items"], list):
        return f"list of {len(schema['items'])}: {', '.join(_type(document, each) for each in schema['items'])}"
    if schema["type"] == "array":
        return f"list: {_type(document, schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object: {_type(document, schema['additionalProperties'])} by name"
    return _scalar(schema)


def _anchor(document: Document, title: str) -> str:
    """Of the heading under which the struct is explained."""
    for channel in document["channels"].values():
        for name in channel["messages"]:
            message = document["components"]["messages"][name]
            if "headers" in message and _title(message["payload"]) == title:
                return str(channel["address"]).replace(".", "")
    return "an-error" if title == "Error" else title.lower()


def _scalar(schema: Schema) -> str:
    if schema.get("format") == "date-time":
        return "time"
    if schema.get("pattern") == DECIMAL["pattern"]:
        return "decimal"
    least, most = schema.get("minimum"), schema.get("maximum")
    if most is not None:
        return f"{schema['type']}, {least} to {most}"
    return f"{schema['type']} ≥ {least}" if least is not None else str(schema["type"])
