"""Writes the published contract from `watcher/model/events.py` and `watcher/relay/messages.py`: run it after a change
there, a test fails until you do.

.venv/bin/python schemas/generate.py        # or --check: exit 1 when a file differs
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from watcher.model.amounts import subtract
from watcher.model.events import JSON, MSGPACK, BalanceChanged, BalanceState, ProviderHealth, RecentAmount, event_id
from watcher.model.keys import Key
from watcher.relay.messages import METHODS, PUSHES, ErrorReply

HERE = Path(__file__).parent
RECORDS: dict[str, type[msgspec.Struct]] = {
    "balance-changed.v1": BalanceChanged,
    "balance-state.v1": BalanceState,
    "heartbeat.v1": ProviderHealth,
}
DECIMAL = r"^(0|[1-9][0-9]*)(\.[0-9]*[1-9])?$"
FORMATS: dict[str, dict[str, Any]] = {
    "amount": {"pattern": DECIMAL},
    "previous_amount": {"pattern": DECIMAL},
    "delta": {"pattern": r"^-?(0\.[0-9]*[1-9]|[1-9][0-9]*(\.[0-9]*[1-9])?)$"},  # never zero: it is a change
    "id": {"pattern": "^[0-9a-f]{32}$"},
    "observed_at": {"format": "date-time"},
    "previous_observed_at": {"format": "date-time"},
    "time": {"format": "date-time"},
    "version": {"minimum": 0},
}
HEADERS = {
    "ce_specversion": {"const": "1.0"},
    "ce_type": {"const": "balance.changed.v1"},
    "ce_source": {
        "type": "string",
        "format": "uri-reference",
        "pattern": "/[0-9a-f]+/[A-Za-z0-9_-]+$",
        "description": "[kafka] source, by default /balance-watcher; the log's epoch; the provider",
    },
    "ce_id": {"type": "string", "description": "the event's id"},
    "ce_time": {"type": "string", "format": "date-time", "description": "observed_at"},
    "ce_subject": {"type": "string", "description": "the key: provider/chain/account/token/kind"},
    "ce_balanceversion": {"type": "string", "pattern": "^[1-9][0-9]*$", "description": "the version, in decimal"},
    "content-type": {"enum": ["application/json", "application/msgpack"]},
}


def schema(name: str, record: type[msgspec.Struct]) -> dict[str, Any]:
    (tree,), parts = msgspec.json.schema_components([record], ref_template="#/$defs/{name}")
    body = parts.pop(tree["$ref"].rpartition("/")[2])
    for field, extra in FORMATS.items():
        if field in body["properties"]:
            body["properties"][field] |= extra
    if record is BalanceChanged:
        body["properties"]["version"]["minimum"] = 1
    body["additionalProperties"] = True  # consumers ignore what a later writer adds
    out = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:balance-watcher:{name}", **body}
    return out | ({"$defs": parts} if parts else {})


def asyncapi() -> dict[str, Any]:
    def message(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "contentType": "application/json", "payload": {"$ref": f"./{name}.schema.json"}, **more}

    def channel(topic: str, name: str) -> dict[str, Any]:
        return {"address": topic, "messages": {name.partition(".")[0]: {"$ref": f"#/components/messages/{name}"}}}

    messages, schemas = stream()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "balance-watcher",
            "version": "1.0.0",
            "description": "Balance changes as CloudEvents 1.0 on Kafka (binary mode) and as updates on the relay.",
            "license": {"name": "Apache-2.0"},
        },
        "channels": {
            "changes": channel("balances.changed.v1", "balance-changed.v1"),
            "state": channel("balances.state.v1", "balance-state.v1"),
            "heartbeat": channel("balances.heartbeat.v1", "heartbeat.v1"),
            "stream": {
                "address": "/v1/stream",
                "description": "A websocket of the relay: text messages of one JSON object each.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            },
        },
        "operations": {
            name: {"action": "send", "channel": {"$ref": f"#/channels/{name}"}}
            for name in ("changes", "state", "heartbeat")
        }
        | operations(),
        "components": {
            "messages": {
                "balance-changed.v1": message(
                    "balance-changed.v1",
                    headers={"type": "object", "required": sorted(HEADERS), "properties": HEADERS},
                ),
                "balance-state.v1": message("balance-state.v1"),
                "heartbeat.v1": message("heartbeat.v1"),
            }
            | messages,
            "schemas": schemas,
        },
    }


def stream() -> tuple[dict[str, Any], dict[str, Any]]:
    """The messages of the relay's websocket by name, and the schemas of their parts."""
    pushes, errors = list(PUSHES.values()), [ErrorReply]
    commands, replies = [each.command for each in METHODS.values()], [each.reply for each in METHODS.values()]
    whole = [*pushes, *commands, *replies, *errors]
    trees, parts = msgspec.json.schema_components(whole, ref_template="#/components/schemas/{name}")
    bodies = [parts[tree["$ref"].rpartition("/")[2]] for tree in trees]
    names = [*PUSHES, *METHODS, *(f"{method}.result" for method in METHODS), "error.result"]
    payloads = dict(zip(names, bodies, strict=True))
    for method in METHODS:
        payloads[method] = command_schema(method, payloads[method], parts)
    for tree in trees:
        parts.pop(tree["$ref"].rpartition("/")[2], None)
    parts["Filter"]["properties"] = {
        field: {"type": "array", "items": {"type": "string"}, "minItems": 1} for field in parts["Filter"]["properties"]
    }
    parts["Filter"] |= {"description": "AND over the fields, OR within one; one that is left out matches anything."}
    parts["BalanceRow"]["properties"]["amount"] |= FORMATS["amount"]
    parts["BalanceRow"]["properties"]["version"] |= FORMATS["version"]
    del parts["BalanceChanged"]
    messages = {name: {"name": name, "contentType": "application/json", "payload": payloads[name]} for name in names}
    published = json.dumps([messages, parts]).replace(
        "#/components/schemas/BalanceChanged", "./balance-changed.v1.schema.json"
    )
    messages, parts = json.loads(published)
    return messages, parts


def command_schema(method: str, body: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    """Of one command: its method is its name, and params that are all optional may be left out."""
    params = parts[body["properties"]["params"]["$ref"].rpartition("/")[2]]
    required = [field for field in body["required"] if field != "params" or params["required"]]
    return body | {"properties": body["properties"] | {"method": {"const": method}}, "required": required}


def operations() -> dict[str, Any]:
    def of_stream(names: Iterable[str]) -> dict[str, Any]:
        return {
            "channel": {"$ref": "#/channels/stream"},
            "messages": [{"$ref": f"#/channels/stream/messages/{name}"} for name in names],
        }

    results = [f"{method}.result" for method in METHODS]
    return {
        "stream.push": {"action": "send", **of_stream(PUSHES)},
        "stream.command": {"action": "receive", **of_stream(METHODS), "reply": of_stream([*results, "error.result"])},
    }


def golden() -> dict[str, msgspec.Struct]:
    """One record of each sort that a consumer will meet, with every field that can be null both ways."""
    helius = Key("helius", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", "3emsAVdmGKERbHjmGfQ6oZ1e35dkf5iYcS6U4CPKFVaa",
                 "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v")  # fmt: skip
    ondo = Key("ondo", "eip155:1", "0x13116e8b4ffc8125b859ec60917fba540e59e55e",
               "0x14c3abf95cb9c93a8b82c1cdcb76d72cb87b2d4c")  # fmt: skip
    epoch = "0f3c9a1be27d4586"
    times = ("2026-01-25T14:43:57.000001Z", "2026-01-25T14:44:27.250000Z")

    def event(key: Key, version: int, before: str, after: str, **more: Any) -> BalanceChanged:
        return BalanceChanged(
            id=event_id(epoch, key, version), provider=key.provider, chain=key.chain, account=key.account, token=key.token,
            kind=key.kind, version=version, previous_amount=before, amount=after, delta=subtract(after, before),
            previous_observed_at=times[0], observed_at=times[1], **more,
        )  # fmt: skip

    return {
        "base-units": event(helius, 1, "9864", "9863", symbol=None, unit="base", decimals=2, slot=1115, as_of=None),
        "decimal-units": event(
            ondo, 7, "0.467583800117038432", "0", symbol="AAPLon", unit="decimal", decimals=None, slot=None, as_of=None
        ),
        "u256": event(
            ondo, 18, "0", str(2**256 - 1), symbol=None, unit="base", decimals=0, slot=None, as_of=times[0]
        ),
        "state": BalanceState(
            provider=helius.provider, chain=helius.chain, account=helius.account, token=helius.token, kind=helius.kind,
            symbol=None, version=1, amount="9863", unit="base", decimals=2, slot=1115, as_of=None,
            observed_at=times[1], order=1115, recent_amounts=(RecentAmount("9864", 1769352267250000),),
        ),
        "heartbeat": ProviderHealth(
            provider="helius", time=times[1], instance="0f6c", watches=1, last_success=times[1], stalest_seconds=2.5,
            paused_until=None, budget_used=0.386, state="failing", reason="no answer in time (3 in a row)", since=times[1],
        ),
    }  # fmt: skip


def files() -> dict[str, bytes]:
    """Everything that belongs into `schemas/`, by name."""
    out = {f"{name}.schema.json": _pretty(schema(name, record)) for name, record in RECORDS.items()}
    out["asyncapi.json"] = _pretty(asyncapi())
    for name, record in golden().items():
        out[f"golden/{name}.json"] = JSON.encode(record)  # type: ignore[arg-type]
        out[f"golden/{name}.msgpack"] = MSGPACK.encode(record)  # type: ignore[arg-type]
    return out


def _pretty(tree: object) -> bytes:
    return json.dumps(tree, indent=2, ensure_ascii=False).encode() + b"\n"


def main() -> int:
    differ = []
    for name, data in files().items():
        path = HERE / name
        if not path.exists() or path.read_bytes() != data:
            differ.append(name)
            if "--check" not in sys.argv:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
    print("\n".join(differ) or "nothing differs")
    return 1 if differ and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
