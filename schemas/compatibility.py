"""What of a new document breaks those who go by an older one.

Readers of records, pushes and results must be able to read what we write now: no field less, no value more. Clients must
still be able to send what they send: no field more that is required, no value less. Either may meet new fields that need
not be there, new messages, and new words where a word may be any string.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Document = Mapping[str, Any]
Schema = Mapping[str, Any]
NUMBERS = {"integer", "number"}
LOWER = ("minimum", "minLength", "minItems")
UPPER = ("maximum", "maxLength", "maxItems")


def breaks(old: Document, new: Document) -> list[str]:
    """One line for each break, with its place; none: who reads `old` can go on."""
    return list(itertools.chain(_lost_operations(old, new), _channels(old, new), _messages(old, new)))


def _lost_operations(old: Document, new: Document) -> Iterator[str]:
    for name, operation in old["operations"].items():
        now = new["operations"].get(name)
        if now is None or now["action"] != operation["action"]:
            yield f"operation {name} is gone"
            continue
        kept = set(_named(now))
        yield from (f"operation {name}: the message {each} is gone" for each in _named(operation) if each not in kept)


def _named(operation: Schema) -> list[str]:
    """The messages of an operation, and those of its reply."""
    return [each["$ref"] for part in (operation, operation.get("reply", {})) for each in part.get("messages", ())]


def _channels(old: Document, new: Document) -> Iterator[str]:
    for name, channel in old["channels"].items():
        now = new["channels"].get(name, {})
        if now.get("address") != channel["address"]:
            yield f"channel {name}: the address {channel['address']} is gone"
            continue
        policy, policy_now = (_policy(each) for each in (channel, now))
        if policy != policy_now:
            yield f"channel {name}: cleanup.policy was {policy}, is {policy_now}"


def _policy(channel: Schema) -> Any:
    return channel.get("bindings", {}).get("kafka", {}).get("topicConfiguration", {}).get("cleanup.policy")


def _messages(old: Document, new: Document) -> Iterator[str]:
    received = {
        each["$ref"].rpartition("/")[2]
        for operation in old["operations"].values()
        if operation["action"] == "receive"
        for each in operation["messages"]
    }
    for name, message in old["components"]["messages"].items():
        now = new["components"]["messages"].get(name)
        if now is None:
            yield f"message {name} is gone"
            continue
        if now["contentType"] != message["contentType"]:
            yield f"message {name}: contentType was {message['contentType']}, is {now['contentType']}"
        comparison = _Comparison(old, new, received=name in received)
        for part, schema, schema_now in _parts(message, now):
            yield from comparison.differences(schema, schema_now, f"{name}.{part}")


def _parts(message: Schema, now: Schema) -> Iterator[tuple[str, Schema, Schema]]:
    yield "payload", message["payload"], now["payload"]
    if "headers" in message:
        yield "headers", message["headers"], now.get("headers", {})
    if "bindings" in message:
        yield "key", message["bindings"]["kafka"]["key"], now.get("bindings", {}).get("kafka", {}).get("key", {})


class _Comparison:
    """Of schemas of one message in two documents. `received`: clients write it and we read it."""

    def __init__(self, old: Document, new: Document, *, received: bool) -> None:
        self._old = old
        self._new = new
        self._received = received

    def _sides(self, old: Any, new: Any) -> tuple[Any, Any]:
        """(what is written, what is read)"""
        return (old, new) if self._received else (new, old)

    def differences(self, old: Schema, new: Schema, place: str) -> Iterator[str]:
        was, now = _by_type(self._old, old), _by_type(self._new, new)
        written, read = self._sides(was, now)
        for kind in written:
            if kind not in read and not (kind == "integer" and "number" in read):
                yield f"{place}: the type was {_words(was)}, is {_words(now)}"
                return
        for kind in was:
            other = now.get(kind) or (
                next((now[each] for each in NUMBERS & now.keys()), None) if kind in NUMBERS else None
            )
            if other is not None:
                yield from self._of_type(kind, was[kind], other, place)

    def _of_type(self, kind: str, old: Schema, new: Schema, place: str) -> Iterator[str]:
        yield from self._values(old, new, place)
        yield from self._bounds(old, new, place)
        if kind == "object":
            yield from self._fields(old, new, place)
        elif kind == "array":
            yield from self._items(old.get("items", {}), new.get("items", {}), place)

    def _values(self, old: Schema, new: Schema, place: str) -> Iterator[str]:
        written, read = self._sides(_words_of(old), _words_of(new))
        if read is not None and (written is None or not written <= read):
            strange = "any" if written is None else ", ".join(sorted(written - read))
            yield f"{place}: the values were {_words(_words_of(old))}, and may be {strange} for one who goes by {_words(read)}"
        for rule in ("pattern", "format"):
            one, other = self._sides(old.get(rule), new.get(rule))
            if other is not None and one != other and written is None:
                yield f"{place}: the {rule} was {old.get(rule)}, is {new.get(rule)}"

    def _bounds(self, old: Schema, new: Schema, place: str) -> Iterator[str]:
        for rule in (*LOWER, *UPPER):
            written, read = self._sides(old.get(rule), new.get(rule))
            if read is None:
                continue
            if written is None or (written < read if rule in LOWER else written > read):
                yield f"{place}: {rule} was {old.get(rule)}, is {new.get(rule)}"

    def _fields(self, old: Schema, new: Schema, place: str) -> Iterator[str]:
        fields, fields_now = old.get("properties", {}), new.get("properties", {})
        written, read = self._sides(set(old.get("required", ())), set(new.get("required", ())))
        for name in sorted(read - written):
            if name in fields_now:
                yield f"{place}.{name} " + ("is required now" if self._received else "may be left out now")
        for name, schema in fields.items():
            if name in fields_now:
                yield from self.differences(schema, fields_now[name], f"{place}.{name}")
            else:
                yield f"{place}.{name} is gone"
        of_any, of_any_now = (each.get("additionalProperties") for each in (old, new))
        if isinstance(of_any, dict):
            yield from self.differences(of_any, of_any_now if isinstance(of_any_now, dict) else {}, f"{place}.*")

    def _items(self, old: Any, new: Any, place: str) -> Iterator[str]:
        if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            for number, (one, other) in enumerate(zip(old, new, strict=True)):
                yield from self.differences(one, other, f"{place}[{number}]")
        elif isinstance(old, list) or isinstance(new, list):
            yield f"{place}: an array of another shape"
        else:
            yield from self.differences(old, new, f"{place}[]")


def _by_type(document: Document, schema: Schema) -> dict[str, Schema]:
    """A schema by the types that its values may have. Nothing said: any."""
    if "$ref" in schema:
        return _by_type(document, _resolved(document, schema["$ref"]))
    if "anyOf" not in schema:
        return {schema.get("type", "any"): schema}
    found: dict[str, Schema] = {}
    for each in schema["anyOf"]:
        for kind, one in _by_type(document, each).items():
            # Words, or any string: that is any string.
            found[kind] = one if kind not in found or _words_of(one) is None else found[kind]
    return found


def _resolved(document: Document, reference: str) -> Schema:
    node: Any = document
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node  # type: ignore[no-any-return]


def _words_of(schema: Schema) -> set[str] | None:
    """The values that it lists; None: it lists none."""
    if "const" in schema:
        return {schema["const"]}
    return set(schema["enum"]) if "enum" in schema else None


def _words(values: Iterable[str] | None) -> str:
    return "any" if values is None else " or ".join(sorted(values))
