"""The AsyncAPI document: the websocket of the relay, and the topics of Kafka that are for readers."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, get_args, get_type_hints

from schemas.fields import CLOSED, EPOCH, FIELDS, HELIUS, NOW, example
from schemas.hint import Hints
from schemas.json_schemas import RECORDS, Schema, body_of, post_bodies, stream_bodies
from watcher.journal.kafka import KafkaSettings
from watcher.journal.kafka.topic_specs import TopicSpec, topic_specs
from watcher.model.hints import MOST_BYTES
from watcher.model.keys import KINDS
from watcher.relay import messages
from watcher.relay.http.hint_routes import HINTS, Accepted
from watcher.relay.messages import METHODS, PUSHES, SUBPROTOCOL, CloseReason, ErrorReply

VERSION = "1.0.0"
"""Of the document. Another one begins with `--publish`: see CONTRIBUTING."""
RETENTION = 604800.0
"""Seconds: the default of `retention`."""
KEY = "^[A-Za-z0-9_-]+/[^/]+/[^/]+/[^/]+/(" + "|".join(sorted(KINDS)) + ")$"


def _text(meaning: str, **rules: Any) -> Schema:
    return {"type": "string", **rules, "description": meaning}


BY_PROVIDER = (
    "A balance's partition is its provider's: the partitioner is ours. Read with isolation.level=read_committed."
)
BALANCE_KEY = _text("provider/chain/account/token/kind of the balance, UTF-8", pattern=KEY)
ANY_KEY: Schema = {"description": "any, or none"}
PROVIDER_KEY = _text("the provider, UTF-8", pattern="^[A-Za-z0-9_-]+$")
Headers = Mapping[str, tuple[Schema, str]]
"""Each with one that fits the example."""


def cloud_event(type_: str, record: str, versions: str) -> Headers:
    """Headers of an event that is such a struct. `versions`: the pattern of those that it may be of."""
    id_ = FIELDS[f"{record}.id"]
    return {
        "ce_specversion": (_text("CloudEvents 1.0, binary mode", const="1.0"), "1.0"),
        "ce_type": (_text("what the value is", const=type_), type_),
        "ce_source": (
            _text("[kafka] source, by default /balance-watcher; the log's epoch; the provider",
                  format="uri-reference", pattern="/[0-9a-f]+/[A-Za-z0-9_-]+$"),
            f"/balance-watcher/{EPOCH}/{HELIUS.provider}",
        ),
        "ce_id": (_text("the event's `id`", **id_.rules), id_.example),
        "ce_time": (_text("the event's `observed_at`", format="date-time"), NOW),
        "ce_subject": (_text("the balance, as in the record's key", pattern=KEY), str(HELIUS)),
        "ce_balanceversion": (_text("the event's `version`, in decimal", pattern=versions), "1"),
    }  # fmt: skip


SASL: Mapping[str, Schema] = {
    "PLAIN": {"type": "plain", "description": "SASL PLAIN, over TLS."},
    "SCRAM-SHA-256": {"type": "scramSha256", "description": "SASL SCRAM-SHA-256."},
    "SCRAM-SHA-512": {"type": "scramSha512", "description": "SASL SCRAM-SHA-512."},
    "OAUTHBEARER": {
        "type": "oauth2",
        "description": "SASL OAUTHBEARER: a token from the token endpoint of the cluster's own identity provider.",
        "flows": {
            "clientCredentials": {"tokenUrl": "https://identity.example.com/oauth2/token", "availableScopes": {}}
        },
    },
}
"""By their names in `[kafka] sasl_mechanism`."""


class Topic(NamedTuple):
    """A topic that is for others."""

    channel: str
    record: str
    """Of `RECORDS`."""
    key: Schema
    key_example: str
    headers: Headers
    summary: str
    how: str
    """One who reads or writes it must know that."""
    encodings: Sequence[str] = ("json", "msgpack")
    written: bool = True
    """By us. Otherwise by anybody, and we read it."""


TOPICS = {
    "balances.changed.v1": Topic(
        "changes", "balance-changed.v1", BALANCE_KEY, str(HELIUS),
        cloud_event("balance.changed.v1", "BalanceChanged", "^[1-9][0-9]*$"), "The amount of a balance has changed.",
        BY_PROVIDER,
    ),
    "balances.crossed.v1": Topic(
        "crossings", "balance-crossed.v1", BALANCE_KEY, str(HELIUS),
        cloud_event("balance.crossed.v1", "Crossing", "^(0|[1-9][0-9]*)$"), "An alert fired on a balance, or was cleared.",
        f"In the transaction of the change that made it, and in the same partition. {BY_PROVIDER}",
    ),
    "balances.state.v1": Topic(
        "state", "balance-state.v1", BALANCE_KEY, str(HELIUS), {}, "The last committed amount of a balance.",
        BY_PROVIDER,
    ),
    "balances.closing.v1": Topic(
        "closings", "balance-closing.v1", BALANCE_KEY, str(HELIUS),
        {"day": (_text("the day that ended, as in the value", format="date"), CLOSED)}, "A balance at the end of a day.",
        f"Of a balance and a day that come twice the last one counts; a record's time is the end of its day. {BY_PROVIDER}",
    ),
    "balances.heartbeat.v1": Topic(
        "heartbeat", "heartbeat.v1", PROVIDER_KEY, HELIUS.provider, {},
        "How a provider fares, every 15 s: silence means unchanged, and not dead.",
        "One partition. It is telemetry, in no transaction.",
    ),
    "balances.hints.v1": Topic(
        "hints", "hint.v1", ANY_KEY, "", {}, "Look here: the balances of an account are to be read soon.",
        "One partition. Anybody may write here, with any key, headers and compression; one JSON object of at most "
        f"{MOST_BYTES} bytes is one hint. Who reads begins at the end, and leaves out what is older than a minute.",
        encodings=("json",), written=False,
    ),
}  # fmt: skip
"""By their names without `[kafka] topic_prefix`. A topic that is not here is private."""


def document() -> dict[str, Any]:
    specs = topic_specs("", 1, RETENTION)
    return {
        "asyncapi": "3.1.0",
        "id": "urn:balance-watcher",
        "info": info(),
        "defaultContentType": "application/json",
        "servers": servers(),
        "channels": {"stream": stream_channel(), "post": post_channel()}
        | {TOPICS[spec.name].channel: topic_channel(spec) for spec in specs if spec.name in TOPICS},
        "operations": stream_operations()
        | post_operation()
        | {topic.channel: operation(topic) for topic in TOPICS.values()},
        "components": {
            "securitySchemes": security_schemes(),
            "messages": stream_messages() | post_messages() | topic_messages(),
            "schemas": schemas(),
        },
    }


def info() -> dict[str, Any]:
    return {
        "title": "balance-watcher",
        "version": VERSION,
        "description": "Changes of balances: on Kafka as CloudEvents 1.0 in binary mode, and over a websocket. "
        "Readers ignore fields, headers and message types that they do not know.",
        "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
    }


def servers() -> dict[str, Any]:
    def server(protocol: str, host: str, description: str, *security: str) -> dict[str, Any]:
        schemes = [{"$ref": f"#/components/securitySchemes/{name}"} for name in security]
        return {"host": host, "protocol": protocol, "description": description} | (
            {"security": schemes} if schemes else {}
        )

    loopback = "The relay on this machine. Without `[relay] tokens_env` and `tokens_file` it asks for no token."
    return {
        "relay": server("ws", "127.0.0.1:8765", loopback, "bearer"),
        "relayTls": server("wss", "relay.example.com", "The relay with a certificate, or behind a proxy.", "bearer"),
        "relayHttp": server("http", "127.0.0.1:8765", loopback, "bearer"),
        "relayHttps": server("https", "relay.example.com", "The same where it speaks TLS.", "bearer"),
        "kafka": server("kafka", "localhost:9092", "security_protocol = PLAINTEXT"),
        "kafkaTls": server(
            "kafka-secure", "kafka.example.com:9093", "security_protocol = SASL_SSL", "certificate", *mechanisms()
        ),
    }


def security_schemes() -> dict[str, Any]:
    bearer = {
        "type": "http",
        "scheme": "bearer",
        "description": "`Authorization: Bearer TOKEN` with the upgrade; or the command `auth`, first and within 5 s.",
    }
    certificate = {"type": "X509", "description": "A certificate of the client's own, where the cluster asks for one."}
    return {"bearer": bearer, "certificate": certificate, **{name: SASL[name] for name in mechanisms()}}


def mechanisms() -> list[str]:
    """The SASL mechanisms that the watcher itself may use; whoever reads may use any that the cluster has."""
    return list(get_args(get_type_hints(KafkaSettings)["sasl_mechanism"]))


# The websocket.


def stream_channel() -> dict[str, Any]:
    names = list(stream_bodies())
    return {
        "address": "/v1/stream",
        "title": "The stream of the relay",
        "description": "Text frames, UTF-8 JSON, one message a frame. A client sends commands; each gets one result or "
        "one error, with the command's id. What has no id is a push, and `type` is its first member.",
        "servers": [{"$ref": "#/servers/relay"}, {"$ref": "#/servers/relayTls"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"ws": {"method": "GET", "headers": upgrade_headers(), "bindingVersion": "0.1.0"}},
        "x-close-codes": close_codes(),
    }


def upgrade_headers() -> Schema:
    return {
        "type": "object",
        "properties": {
            "Authorization": _text("where the relay has tokens", pattern="^[Bb]earer .+$"),
            "Sec-WebSocket-Protocol": _text("need not be offered", const=SUBPROTOCOL),
        },
    }


def close_codes() -> dict[str, Any]:
    """Why a connection is closed, and when to come again."""
    reasons = [each for each in vars(messages).values() if isinstance(each, CloseReason)]
    codes = sorted({each.code for each in reasons})
    return {
        str(code): {
            "reasons": sorted({each.reason for each in reasons if each.code == code}),
            "reconnect": messages.retry_after(code),
        }
        for code in codes
    }


def stream_messages() -> dict[str, Any]:
    found = {}
    for name, body in stream_bodies().items():
        title = body.root["title"]
        found[name] = {
            "name": name,
            "title": title,
            "summary": body.root["description"],
            "contentType": "application/json",
            "payload": {"$ref": f"#/components/schemas/{title}"},
            "examples": [{"name": name.replace(".", "-"), "payload": each} for each in stream_examples(name)],
        }
        if name not in PUSHES:
            found[name]["correlationId"] = {
                "description": "The client's own; the answer repeats it.",
                "location": "$message.payload#/id",
            }
    return found


def stream_examples(name: str) -> list[Any]:
    """Of one message of the websocket, by its name in the document."""
    command, _, result = name.partition(".")
    if name in PUSHES:
        return [example(PUSHES[name])]
    if name == "error.result":
        return [example(ErrorReply)]
    if result:
        return [example(METHODS[command].reply)]
    shown = example(METHODS[command].command) | {"method": command}
    if command != "subscribe":
        return [shown]
    later = {"cursor": f"{EPOCH}.42", "on_gap": "error"}
    screen = {"delivery": "conflate", "interval_ms": 500}
    return [shown, shown | {"id": "a", "params": later}, shown | {"id": 2, "params": screen}]


def stream_operations() -> dict[str, Any]:
    """What the relay does: it sends any of the pushes, and receives commands."""

    def of_stream(names: Iterable[str]) -> dict[str, Any]:
        return {
            "channel": {"$ref": "#/channels/stream"},
            "messages": [{"$ref": f"#/channels/stream/messages/{name}"} for name in names],
        }

    push = {"action": "send", "summary": "What the relay says by itself.", **of_stream(PUSHES)}
    commands = {
        f"stream.{name}": {
            "action": "receive",
            "summary": f"The command `{name}`, and its one answer.",
            **of_stream([name]),
            "reply": of_stream([f"{name}.result", "error.result"]),
        }
        for name in METHODS
    }
    return {"stream.push": push, **commands}


# Hints by HTTP.


def post_channel() -> dict[str, Any]:
    return {
        "address": HINTS,
        "title": "Hints, by HTTP",
        "description": "One request of POST, JSON in both directions. The relay answers 202.",
        "servers": [{"$ref": "#/servers/relayHttp"}, {"$ref": "#/servers/relayHttps"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in post_bodies()},
    }


def post_messages() -> dict[str, Any]:
    records = {"hints.post": Hints, "hints.accepted": Accepted}
    return {
        name: {
            "name": name,
            "title": body.root["title"],
            "summary": body.root["description"],
            "contentType": "application/json",
            "payload": {"$ref": f"#/components/schemas/{body.root['title']}"},
            "examples": [{"name": "body", "payload": example(records[name])}],
        }
        for name, body in post_bodies().items()
    }


def post_operation() -> dict[str, Any]:
    def of_post(name: str) -> dict[str, Any]:
        return {
            "channel": {"$ref": "#/channels/post"},
            "messages": [{"$ref": f"#/channels/post/messages/{name}"}],
        }

    return {
        "hints.post": {
            "action": "receive",
            "summary": "Hints of somebody who knows of a change.",
            **of_post("hints.post"),
            "reply": of_post("hints.accepted"),
            "bindings": {"http": {"method": "POST", "bindingVersion": "0.3.0"}},
        }
    }


# Kafka.


def topic_channel(spec: TopicSpec) -> dict[str, Any]:
    topic = TOPICS[spec.name]
    configs = {name: _value(value) for name, value in {**spec.exact, **spec.ceilings}.items()}
    fixed = {"partitions": 1} if spec.single else {}
    return {
        "address": spec.name,
        "title": topic.summary.rstrip("."),
        "description": f"`[kafka] topic_prefix` stands before the name. {topic.how}",
        "servers": [{"$ref": "#/servers/kafka"}, {"$ref": "#/servers/kafkaTls"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names_of(topic)},
        "bindings": {
            "kafka": {
                "topic": spec.name,
                **fixed,
                "topicConfiguration": {"cleanup.policy": [spec.policy], **configs},
                "bindingVersion": "0.5.0",
            }
        },
    }


def _value(text: str) -> float | str:
    """A config as a number, if it is one."""
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        return text


def names_of(topic: Topic) -> list[str]:
    """Of its messages: one for each encoding. Both have the same fields."""
    return [f"{topic.record}.{encoding}" for encoding in topic.encodings]


def topic_messages() -> dict[str, Any]:
    return {
        name: topic_message(topic, name, f"application/{encoding}")
        for topic in TOPICS.values()
        for name, encoding in zip(names_of(topic), topic.encodings, strict=True)
    }


def topic_message(topic: Topic, name: str, content_type: str) -> dict[str, Any]:
    record = RECORDS[topic.record]
    headers = {key: schema for key, (schema, _) in topic.headers.items()}
    shown = {key: value for key, (_, value) in topic.headers.items()}
    if topic.written:
        headers["content-type"] = _text("the encoding of the value", const=content_type)
        shown["content-type"] = content_type
    return {
        "name": name,
        "title": f"{record.__name__}, {content_type}",
        "summary": topic.summary,
        "contentType": content_type,
        "headers": {"type": "object", "required": list(headers), "properties": headers, "additionalProperties": True},
        "payload": {"$ref": f"#/components/schemas/{record.__name__}"},
        "bindings": {"kafka": {"key": topic.key, "bindingVersion": "0.5.0"}},
        "examples": [{"name": "record", "headers": shown, "payload": example(record)}],
    }


def operation(topic: Topic) -> dict[str, Any]:
    return {
        "action": "send" if topic.written else "receive",
        "summary": topic.summary,
        "channel": {"$ref": f"#/channels/{topic.channel}"},
        "messages": [{"$ref": f"#/channels/{topic.channel}/messages/{name}"} for name in names_of(topic)],
    }


def schemas() -> dict[str, Schema]:
    """Of all payloads and their parts, by name."""
    found: dict[str, Schema] = {}
    bodies = [
        *stream_bodies().values(),
        *post_bodies().values(),
        *(body_of(each, each.__name__) for each in RECORDS.values()),
    ]
    for root, parts in bodies:
        found |= {root["title"]: root} | parts
    # Definitions of files become components of the document.
    moved = json.dumps({name: found[name] for name in sorted(found)}).replace(
        '"#/definitions/', '"#/components/schemas/'
    )
    return json.loads(moved)  # type: ignore[no-any-return]
