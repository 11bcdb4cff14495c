"""Real records of a real broker: key, headers and value are as the AsyncAPI document has them, in both encodings."""

import json

import jsonschema
import msgspec
import pytest

from schemas.fields import example
from tests.journal.kafka_world import Balance, opened, ready, seen
from tests.schemas.contract import Contract
from watcher.journal import Batch
from watcher.journal.kafka.records import TopicNames
from watcher.model.events import ProviderHealth, RecentAmount
from watcher.model.hints import encode, parse
from watcher.testing.closing_conformance import closing
from watcher.testing.journal_samples import crossing

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

PUBLIC = tuple(f"balances.{name}.v1" for name in ("changed", "crossed", "closing", "state", "heartbeat"))
DECODE = {"application/json": json.loads, "application/msgpack": msgspec.msgpack.decode}


async def write(made, account):
    """A baseline, changes of each sort, and the health of a provider that is well and of one that is not."""
    balance = Balance(account)
    async with opened(made, 0) as writer:
        await writer.commit(Batch([balance.row(5)]))
        row = balance.row("0")
        crossed = [crossing(row), crossing(row, "gas")]
        await writer.commit(Batch([row], crossings=crossed, closings=[closing(row, "2026-01-24")]))
        row = balance.row("0.5")
        recent = (RecentAmount("5", 1_700_000_000_000_000), RecentAmount("0", 1_700_000_000_000_001))
        state = msgspec.structs.replace(row.state, recent_amounts=recent, absent_without_order=True, order=None)
        await writer.commit(Batch([msgspec.structs.replace(row, state=state)], {"limiter:x": b"private"}))
    well = msgspec.convert(example(ProviderHealth), ProviderHealth)
    unwell = {"last_success": None, "stalest_seconds": None, "paused_until": well.time}
    await made.heartbeat([well, msgspec.structs.replace(well, provider="ondo", **unwell)])


def records(address, prefix):
    """(topic, key, headers, value) of all that is for readers."""
    names = dict(zip(PUBLIC, (f"{prefix}{name}" for name in PUBLIC), strict=True))
    assert set(names.values()) <= set(TopicNames.under(prefix))
    for name, topic in names.items():
        for message in seen(address, topic, 1):
            headers = {key: value.decode() for key, value in message.headers()}
            assert len(headers) == len(message.headers())
            yield name, message.key().decode(), headers, DECODE[headers["content-type"]](message.value())


async def test_a_hint_that_is_sent_on_is_as_the_document_has_it(kafka, prefix):
    hint = {"provider": "bank", "account": "a", "chain": "eip155:1", "token": "native"}
    async with ready(kafka.address, prefix) as made:
        exchange = made.hint_exchange()
        await exchange.send([encode(parse(hint)), encode(parse({"provider": "bank", "account": "a"}))])
        await exchange.close()
    contract, found = (
        Contract(),
        [json.loads(one.value()) for one in seen(kafka.address, f"{prefix}balances.hints.v1", 1)],
    )
    assert found == [hint, {"provider": "bank", "account": "a"}]
    for value in found:
        contract.payload("hint.v1.json", value)
    assert contract.fields == contract.described("hint.v1.json")


async def test_every_record_of_either_encoding_is_as_the_document_has_it(kafka, prefix):
    for encoding in ("json", "msgpack"):
        async with ready(kafka.address, prefix, encoding=encoding, partitions=1) as made:
            await write(made, encoding)
    contract = Contract()
    found = list(records(kafka.address, prefix))
    for record in found:
        contract.record(*record)
    names = [
        f"{name}.v1" for name in ("balance-changed", "balance-crossed", "balance-closing", "balance-state", "heartbeat")
    ]
    assert contract.met == {f"{name}.{encoding}" for name in names for encoding in ("json", "msgpack")}

    for topic, key, headers, value in {record[0]: record for record in found}.values():
        for planted in (
            (topic, key, headers, value | {"colour": "red"}),
            (topic, key, headers, value | {"provider": None}),
            (topic, key, headers | {"ce_colour": "red"}, value),
            (topic, f"{key}/", headers, value),
        ):
            with pytest.raises(jsonschema.ValidationError):
                contract.record(*planted)
