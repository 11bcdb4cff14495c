"""Writes the published contract from the message structs (`watcher/model/events.py`, `watcher/relay/messages.py`) and
what `schemas/fields.py` says of their fields. Run it after a change there: a test fails until you do.

.venv/bin/python -m schemas.generate             # --check: write nothing, exit 1 when a file differs
.venv/bin/python -m schemas.generate --publish   # and take the document as what readers rely on from now on
"""

import json
import sys
from pathlib import Path

import msgspec

from schemas import asyncapi, events_page
from schemas.compatibility import breaks
from schemas.fields import example
from schemas.json_schemas import RECORDS, record_schema
from watcher.model.alerts import Crossing
from watcher.model.amounts import subtract
from watcher.model.events import JSON, MSGPACK, BalanceChanged, BalanceState, ProviderHealth, event_id
from watcher.model.keys import Key
from watcher.model.past import Closing

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "schemas" / "published"
"""The document of each version that readers rely on."""


def golden() -> dict[str, msgspec.Struct]:
    """One record of each sort that a consumer will meet."""
    change = msgspec.convert(example(BalanceChanged), BalanceChanged)
    ondo = Key("ondo", "eip155:1", "0x13116e8b4ffc8125b859ec60917fba540e59e55e",
               "0x14c3abf95cb9c93a8b82c1cdcb76d72cb87b2d4c")  # fmt: skip

    def later(version: int, before: str, after: str, **more: object) -> BalanceChanged:
        epoch = "0f3c9a1be27d4586"
        return msgspec.structs.replace(
            change, id=event_id(epoch, ondo, version), provider=ondo.provider, chain=ondo.chain, account=ondo.account,
            token=ondo.token, kind=ondo.kind, version=version, previous_amount=before, amount=after,
            delta=subtract(after, before), decimals=None, slot=None, **more,
        )  # fmt: skip

    return {
        "base-units": change,
        "decimal-units": later(7, "0.467583800117038432", "0", symbol="AAPLon", unit="decimal"),
        "u256": later(18, "0", str(2**256 - 1), symbol=None, as_of=change.previous_observed_at),
        "crossing": msgspec.convert(example(Crossing), Crossing),
        "closing": msgspec.convert(example(Closing), Closing),
        "state": msgspec.convert(example(BalanceState), BalanceState),
        "heartbeat": msgspec.convert(example(ProviderHealth), ProviderHealth),
    }


def files() -> dict[str, bytes]:
    """Everything that is generated, by its place in the tree."""
    document = asyncapi.document()
    out = {f"schemas/{name}.schema.json": pretty(record_schema(name)) for name in RECORDS}
    out["schemas/asyncapi.json"] = pretty(document)
    out["docs/events.md"] = events_page.page(document).encode()
    for name, record in golden().items():
        out[f"schemas/golden/{name}.json"] = JSON.encode(record)  # type: ignore[arg-type]
        out[f"schemas/golden/{name}.msgpack"] = MSGPACK.encode(record)  # type: ignore[arg-type]
    return out


def pretty(tree: object) -> bytes:
    return json.dumps(tree, indent=2, ensure_ascii=False).encode() + b"\n"


def publish() -> None:
    """The document as it is becomes the one of its version; what breaks readers of the one before is told."""
    path = PUBLISHED / f"asyncapi-{asyncapi.VERSION}.json"
    document = asyncapi.document()
    for line in breaks(json.loads(path.read_bytes()), document) if path.exists() else ():
        print(f"breaks readers of {path.name}: {line}", file=sys.stderr)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pretty(document))


def main() -> int:
    differ = []
    for name, data in files().items():
        path = ROOT / name
        if not path.exists() or path.read_bytes() != data:
            differ.append(name)
            if "--check" not in sys.argv:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
    print("\n".join(differ) or "nothing differs")
    if "--publish" in sys.argv:
        publish()
    return 1 if differ and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
